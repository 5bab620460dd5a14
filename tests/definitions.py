"""The one way in which tests reach the notebook's code."""

import ast
import json
import types
from pathlib import Path

NOTEBOOK = Path(__file__).parents[1] / "neural_style_transfer.ipynb"


def sources():
    """Return the source of each code cell, without the lines that only IPython understands."""
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = [cell["source"] for cell in cells if cell["cell_type"] == "code"]
    return ["".join(line for line in lines if not line.startswith("%")) for lines in code]


def load_definitions():
    """Return a fresh module with the notebook's imports and functions; nothing else of the notebook is run."""
    module = types.ModuleType("neural_style_transfer")
    definitions = ast.Import | ast.ImportFrom | ast.FunctionDef
    for source in sources():
        kept = [node for node in ast.parse(source).body if isinstance(node, definitions)]
        exec(compile(ast.Module(kept, []), NOTEBOOK.name, "exec"), vars(module))
    return module
