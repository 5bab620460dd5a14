#!/usr/bin/env bash
# papermill 2.7.0 with ipykernel 7.2.0.
#
# In Python, `raise SystemExit` ends a program with status 0, and `raise SystemExit("text")` prints the text and ends it with
# status 1. In a cell that papermill runs, the status of the program is decided by the *text* of the exception: an exit without
# one, or with the text "0", ends papermill with status 0, also when the text comes from a string, which ends a Python program
# with status 1. Every other text is reported as a failed cell, so a notebook that ends early on purpose cannot say why.
#
# Seen (Python's status, papermill's status): no text 0, 0; "0" 1, 0; "nothing left to do" 1, 1.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet papermill==2.7.0 ipykernel==7.2.0
cd "$folder"
"$folder/venv/bin/python" - <<'P'
import subprocess
import sys

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

expected = {"raise SystemExit": (0, 0), 'raise SystemExit("0")': (1, 0), 'raise SystemExit("nothing left to do")': (1, 1)}
kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
for source, statuses in expected.items():
    nbformat.write(new_notebook(cells=[new_code_cell(source)], metadata=kernel), "in.ipynb")
    commands = [sys.executable, "-c", source], [sys.executable, "-m", "papermill", "in.ipynb", "out.ipynb"]
    found = tuple(subprocess.run(command, capture_output=True).returncode for command in commands)
    print(source, found)
    assert found == statuses
P
