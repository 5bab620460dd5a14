"""The one way in which tests reach the notebook's code."""

import ast
import hashlib
import json
import types
from pathlib import Path

NOTEBOOK = Path(__file__).parents[1] / "neural_style_transfer.ipynb"


def sources(notebook=None):
    """Return the source of each code cell, without the lines that only IPython understands."""
    notebook = notebook or json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    code = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    return ["\n".join(line for line in text.splitlines() if line[:1] != "%") for text in code]


def is_definition(node):
    """Say whether a statement is an import, a function, or a constant with a name like LAYERS."""
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id.isupper()
    return isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef)


def load_definitions():
    """Return a fresh module with the notebook's definitions; nothing else is run."""
    module = types.ModuleType("neural_style_transfer")
    for source in sources():
        kept = [node for node in ast.parse(source).body if is_definition(node)]
        exec(compile(ast.Module(kept, []), NOTEBOOK.name, "exec"), vars(module))
    return module


def source_digest(notebook):
    """Return a digest of all code of a notebook, given as the dictionary in its file."""
    return hashlib.sha256("\0".join(sources(notebook)).encode()).hexdigest()


def stamp():
    """Write into the notebook which code its outputs are of, after it was run."""
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    notebook["metadata"]["outputs_of_source"] = source_digest(notebook)
    NOTEBOOK.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    stamp()
