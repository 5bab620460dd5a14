"""Run the notebook, and renew its outputs and the pictures in assets that are made by it.

python tests/renew.py
"""

import shutil
from base64 import b64decode

import nbformat
from definitions import NOTEBOOK, stamp
from nbclient import NotebookClient
from PIL import Image

ROOT = NOTEBOOK.parent
MADE = {  # by the notebook: in assets
    "summer-palace.jpg-in-starry-night.png": "summer-palace-in-starry-night.jpg",
    "summer-palace.jpg-in-starry-night.gif": "summer-palace-in-starry-night.gif",
    "second-pair.png": "mountains-in-the-scream.jpg",
    "from-noise.gif": "from-noise.gif",
}
FIGURES = {  # the last figure of the cell with this code: in assets
    'runs["wave in the astronaut"]': "artifacts.jpg",
    '"style_weight=3": stylize': "artifacts-less.jpg",
    "dogs_size = ": "dogs-in-the-great-wave.jpg",
    "measure_masked = measure_regions": "regions.jpg",
}


def save_figures(notebook):
    """Copy the figures that README shows from the outputs of the notebook."""
    for code, asset in FIGURES.items():
        (cell,) = [c for c in notebook["cells"] if c["cell_type"] == "code" and code in c["source"]]
        figures = [o["data"]["image/jpeg"] for o in cell["outputs"] if "image/jpeg" in o.get("data", {})]
        (ROOT / "assets" / asset).write_bytes(b64decode(figures[-1]))


def main():
    if not shutil.which("gifsicle"):
        raise SystemExit("Install gifsicle first: without it, the GIFs are several times as large.")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(
        notebook,
        record_timing=False,  # a run changes only what changed
        resources={"metadata": {"path": str(ROOT)}},
        on_cell_start=lambda cell, cell_index: print(f"cell {cell_index + 1}", flush=True),
    )
    client.execute()
    nbformat.write(notebook, NOTEBOOK)
    stamp()
    save_figures(notebook)
    for name, asset in MADE.items():
        if asset.endswith(".jpg"):
            Image.open(ROOT / "results" / name).save(ROOT / "assets" / asset, quality=92)
        else:
            shutil.copy(ROOT / "results" / name, ROOT / "assets" / asset)


if __name__ == "__main__":
    main()
