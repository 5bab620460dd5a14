"""The notebook as a whole: the committed outputs, and fresh runs by papermill on small pictures."""

import ast
import base64
import inspect
import io
import json
import re
from pathlib import Path

import papermill
import pytest
from definitions import NOTEBOOK
from PIL import Image

ROOT = NOTEBOOK.parent
SMALL = {"image_size": 64, "num_steps": 5, "experiment_steps": 1}


@pytest.fixture(scope="module")
def committed():
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))


def outputs_of(notebook):
    return [output for cell in notebook["cells"] for output in cell.get("outputs", [])]


def text_of(notebook):
    return "".join("".join(output.get("text", "")) for output in outputs_of(notebook))


def gifs_in(notebook):
    html = "".join("".join(output.get("data", {}).get("text/html", "")) for output in outputs_of(notebook))
    encoded = re.findall(r"data:image/gif;base64,([^\"]+)", html)
    return [Image.open(io.BytesIO(base64.b64decode(gif))) for gif in encoded]


def test_committed_outputs_are_of_one_clean_run(committed):
    code = [cell for cell in committed["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert {output["output_type"] for output in outputs_of(committed)} <= {"stream", "display_data"}
    assert not [output for output in outputs_of(committed) if output.get("name") == "stderr"]
    assert NOTEBOOK.stat().st_size <= 5e6


def test_committed_gifs_play_and_repeat(committed):
    gifs = gifs_in(committed)
    assert len(gifs) == 4
    for gif in gifs:
        assert gif.n_frames >= 20
        assert gif.info["loop"] == 0
        assert gif.info["duration"] == 120


def test_pictures_in_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r'src="assets/([^"]+)"', readme)
    assert set(shown) <= {path.name for path in (ROOT / "assets").iterdir()}
    assert len(re.findall(r"<img [^>]*alt=\"[^\"]+\"", readme)) == len(shown)
    assert sum(path.stat().st_size for path in (ROOT / "assets").iterdir()) <= 25e6
    assert all(path.stat().st_size <= 2e6 for path in (ROOT / "assets").glob("*.gif"))


def test_committed_gifs_are_those_of_the_notebook(committed):
    embedded = {gif.fp.getvalue() for gif in gifs_in(committed)}
    assert embedded == {path.read_bytes() for path in (ROOT / "assets").glob("*.gif")}


def test_every_knob_reaches_stylize(committed, nst):
    """The main call passes every parameter that `stylize` has, and both have the same defaults."""
    sources = ["".join(cell["source"]) for cell in committed["cells"]]
    parameters = next(s for s, cell in zip(sources, committed["cells"], strict=True) if cell["metadata"].get("tags"))
    values = {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(parameters).body}
    call = next(s for s in sources if s.startswith("image, history, frames = stylize("))
    passed = {keyword.arg: keyword.value.id for keyword in ast.parse(call).body[0].value.keywords}
    defaults = {name: p.default for name, p in inspect.signature(nst.stylize).parameters.items() if name in values}
    assert passed == {name: name for name in defaults}
    assert {name: values[name] for name in defaults} == defaults
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in values:
        assert f"`{name}`" in readme
    for name in (
        "image_size",
        "style_scale",
        "num_steps",
        "experiment_steps",
        "style_weight",
        "content_weight",
        "tv_weight",
        "learning_rate",
    ):
        assert f"| `{name}` | {values[name]} |" in readme


def test_every_figure_has_alt_text(committed):
    figures = [output for output in outputs_of(committed) if "image/jpeg" in output.get("data", {})]
    assert len(figures) >= 8
    assert all(figure["metadata"]["image/jpeg"]["alt"] for figure in figures)


def run(tmp_path, **parameters):
    parameters = {**SMALL, "output_dir": str(tmp_path / "results"), **parameters}
    papermill.execute_notebook(NOTEBOOK, tmp_path / "out.ipynb", parameters, cwd=ROOT, progress_bar=False)
    return json.loads((tmp_path / "out.ipynb").read_text(encoding="utf-8"))


def test_own_pictures(tmp_path, random_image):
    for seed, name in enumerate(["my photo.jpg", "my painting.png"]):
        pixels = (random_image(seed, 80, 120)[0].permute(1, 2, 0) * 255).byte().numpy()
        Image.fromarray(pixels).save(tmp_path / name)
    notebook = run(tmp_path, content_path=str(tmp_path / "my photo.jpg"), style_path=str(tmp_path / "my painting.png"))
    assert {path.name for path in (tmp_path / "results").iterdir()} == {
        "my photo-in-my painting.gif",
        "my photo-in-my painting.png",
        "experiments",
    }
    assert Image.open(tmp_path / "results" / "my photo-in-my painting.png").size == (96, 64)
    assert gifs_in(notebook)[0].size == (288, 192)
    preview = [figure for figure in outputs_of(notebook) if "step 5 of 5" in str(figure.get("metadata"))]
    assert len(preview) == 1


@pytest.mark.parametrize(
    ("missing", "sentence", "suffixes"),
    [
        ("imageio", "There is no GIF", {".png", ".jpg"}),
        ("pygifsicle", "GIFs are larger than need be", {".png", ".gif", ".jpg"}),
    ],
)
def test_runs_to_its_end_without_optional_packages(tmp_path, monkeypatch, missing, sentence, suffixes):
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as util\n"
        "found = util.find_spec\n"
        f"util.find_spec = lambda name, *rest: None if name == {missing!r} else found(name, *rest)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    text = text_of(run(tmp_path))
    assert sentence in text
    assert text.count(sentence) == (4 if missing == "imageio" else 1)
    made = {path.name for path in (tmp_path / "results").rglob("*.*")}
    assert {Path(name).suffix for name in made} == suffixes
    credits = (ROOT / "assets" / "CREDITS.md").read_text(encoding="utf-8")
    inputs = set(re.findall(r"^\| `([^`]+)`", credits, re.MULTILINE))
    if ".gif" in suffixes:
        assert {path.name for path in (ROOT / "assets").iterdir()} == made | inputs | {"CREDITS.md"}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"style_weight": -1}, "ValueError: style_weight is -1"),
        ({"experiment_steps": 0}, "ValueError: experiment_steps is 0"),
        ({"content_path": "nowhere.jpg"}, "FileNotFoundError: no file nowhere.jpg"),
        ({"weights": "vgg16"}, "ValueError: weights is 'vgg16'"),
        ({"style_scale": 0}, "ValueError: style_scale is 0"),
        ({"device": "gpu"}, "ValueError: device is 'gpu': give None, 'cpu'"),
        ({"content_path": f"assets/{'x' * 230}.jpg"}, "FileNotFoundError: no file"),
    ],
)
def test_failed_run_overwrites_nothing(tmp_path, parameters, message):
    earlier = tmp_path / "results" / "cat-in-starry-night.png"
    earlier.parent.mkdir()
    earlier.write_bytes(b"earlier")
    with pytest.raises(papermill.PapermillExecutionError, match=message):
        run(tmp_path, **parameters)
    assert [path.read_bytes() for path in earlier.parent.iterdir()] == [b"earlier"]


def test_crash_while_saving_overwrites_nothing(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(
        "import PIL.Image\n"
        "def save(self, path, *args, **kwargs):\n"
        "    open(path, 'wb').write(b'half')\n"
        "    raise OSError('disk full')\n"
        "save_as_before = PIL.Image.Image.save\n"
        "PIL.Image.Image.save = lambda self, path, *args, **kwargs: (\n"
        "    save if 'results' in str(path) else save_as_before)(self, path, *args, **kwargs)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    earlier = tmp_path / "results" / "cat-in-starry-night.png"
    earlier.parent.mkdir()
    earlier.write_bytes(b"earlier")
    with pytest.raises(papermill.PapermillExecutionError, match="disk full"):
        run(tmp_path)
    assert earlier.read_bytes() == b"earlier"
