"""The committed outputs: sharp pictures without mesh or grain, and numbers that come again."""

import json
import re
import sys

import pytest
from definitions import NOTEBOOK

ASSETS = NOTEBOOK.parent / "assets"
sys.path.insert(0, str(NOTEBOOK.parent / "benchmarks"))

from picture_quality import quality

STARRY_NIGHT = "starry-night.jpg"
PICTURES = {
    "cat-in-starry-night.png": ("cat.jpg", STARRY_NIGHT),
    "coffee-in-night-cafe.png": ("coffee.jpg", "night-cafe.jpg"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_committed_pictures_are_sharp_and_clean(name):
    """Beyond these bounds the eye sees mesh, blur or grain: see benchmarks/picture_quality.py."""
    figures = quality(ASSETS / name, *(ASSETS / file for file in PICTURES[name]))
    assert figures["grid"] <= 1.6
    assert figures["sharpness"] >= 0.4
    assert figures["grain"] <= 1.5


def numbers(text):
    return [float(number) for number in re.findall(r"(?<![\w.])\d+\.\d+(?![\w.])", text)]


def test_part_one_gives_the_committed_numbers_again(capsys, monkeypatch):
    """Within a tenth before the loop, and within a third in it: other processors round differently,
    and the loop makes such differences larger."""
    monkeypatch.chdir(NOTEBOOK.parent)
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    names, compared = {}, 0
    for cell in cells:
        source = "".join(cell["source"])
        if source.startswith("## II."):
            break
        if cell["cell_type"] == "code":
            lines = [line for line in source.splitlines() if not line.startswith("%")]
            capsys.readouterr()
            exec("\n".join(lines), names)
            found = numbers(capsys.readouterr().out)
            texts = ["".join(output.get("text", "")) for output in cell["outputs"]]
            expected = numbers("".join(texts))
            tolerance = 0.3 if "optimizer.step" in source else 0.1
            assert found == pytest.approx(expected, rel=tolerance, abs=0.005)
            compared += len(found)
    assert compared >= 15
