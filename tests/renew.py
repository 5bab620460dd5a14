"""Run the notebook, and renew its outputs and the pictures in assets that are made by it.

python tests/renew.py
"""

import shutil

import nbformat
from definitions import NOTEBOOK, stamp
from nbclient import NotebookClient
from PIL import Image

ROOT = NOTEBOOK.parent
JPEGS = "summer-palace-in-starry-night", "mountains-in-the-scream"
GIFS = "summer-palace-in-starry-night", "from-noise"


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
    for name in JPEGS:
        Image.open(ROOT / "results" / f"{name}.png").save(ROOT / "assets" / f"{name}.jpg", quality=92)
    for name in GIFS:
        shutil.copy(ROOT / "results" / f"{name}.gif", ROOT / "assets" / f"{name}.gif")


if __name__ == "__main__":
    main()
