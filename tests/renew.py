"""Run the notebook, and renew its outputs and the pictures in assets that are made by it.

    python tests/renew.py

Only pictures that the READMEs or the notebook show are copied from the results. Five of them come
from other commands: the print and its detail from the one in part V, three from benchmarks/.
"""

import re
import shutil
import time

import nbformat
from definitions import NOTEBOOK, stamp
from nbclient import NotebookClient

ROOT = NOTEBOOK.parent
PRINT = {"rocket-print.jpg", "rocket-print-detail.jpg"}
BY_OTHER_COMMANDS = {*PRINT, "peers-256.jpg", "peers-512.jpg", "growth.png"}


def shown_pictures():
    """Return the names of the pictures in assets that the READMEs and the notebook show."""
    files = ROOT / "README.md", ROOT / "benchmarks" / "README.md", NOTEBOOK
    text = "".join(file.read_text(encoding="utf-8") for file in files)
    return set(re.findall(r'src=\\?"(?:\.\./)?assets/([^"\\]+)', text))


def main():
    if not shutil.which("gifsicle"):
        raise SystemExit("Install gifsicle first: without it, the GIFs are several times as large.")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    count = len(notebook.cells)
    client = NotebookClient(
        notebook,
        record_timing=False,  # a run changes only what changed
        resources={"metadata": {"path": str(ROOT)}},
        on_cell_start=lambda cell, cell_index: print(f"cell {cell_index + 1} of {count}"),
    )
    begun = time.time()
    client.execute()
    nbformat.write(notebook, NOTEBOOK)
    stamp()
    results = [*(ROOT / "results").iterdir(), *(ROOT / "results" / "experiments").iterdir()]
    made = {path.name: path for path in results if path.stat().st_mtime >= begun}
    for name in sorted(shown_pictures() - BY_OTHER_COMMANDS):
        shutil.copy(made[name], ROOT / "assets" / name)
        print(f"assets/{name}")


if __name__ == "__main__":
    main()
