"""The one way in which tests reach the notebook's code."""

import ast
import json
import types
from pathlib import Path

NOTEBOOK = Path(__file__).parents[1] / "neural_style_transfer.ipynb"


def load_definitions():
    """Return a fresh module with the notebook's imports and functions; nothing else of the notebook is run."""
    module = types.ModuleType("neural_style_transfer")
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            source = "".join(line for line in cell["source"] if not line.startswith("%"))
            kept = [
                node
                for node in ast.parse(source).body
                if isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef)
            ]
            exec(compile(ast.Module(kept, []), NOTEBOOK.name, "exec"), vars(module))
    return module
