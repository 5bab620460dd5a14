"""The scripts in benchmarks/ still fit the notebook: each row of the recipe, and the classic loop."""

import importlib
import sys

import pytest
from definitions import NOTEBOOK
from PIL import Image

sys.path.insert(0, str(NOTEBOOK.parent / "benchmarks"))
recipe = importlib.import_module("recipe")


@pytest.mark.parametrize("row", recipe.ROWS)
def test_each_row_of_the_recipe_paints(nst, asset, row):
    vgg, nst.schedule = nst.load_vgg19(), nst.SCHEDULE
    recipe.ROWS[row](nst, vgg)
    schedule = [(divisor, 1, *rest) for divisor, _, *rest in nst.schedule]
    images = [x for x, _ in nst.stylize(vgg, asset("cat", 64), asset("great-wave"), schedule=schedule)]
    assert len(images) == {"transport-at-each-size": 9, "from-an-eighth": 9}.get(row, 7)
    assert images[-1].isfinite().all()


def test_the_classic_loop_of_the_comparison_paints(monkeypatch, tmp_path):
    compare = importlib.import_module("compare")
    for name in ("cat", "great-wave"):
        picture = Image.open(NOTEBOOK.parent / "assets" / f"{name}.jpg")
        picture.resize((64, 64)).save(tmp_path / f"{name}.png")
    saved, save = [], compare.save

    def save_twice(picture, path):
        save(picture, path)
        saved.append(picture)
        if len(saved) == 2:
            raise StopIteration

    monkeypatch.setattr(compare, "save", save_twice)
    with pytest.raises(StopIteration):
        compare.classic_loop(tmp_path / "cat.png", tmp_path / "great-wave.png", tmp_path / "out.png")
    assert saved[0] != saved[1]
    assert Image.open(tmp_path / "out.png").size == (64, 64)
