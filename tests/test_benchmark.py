"""The benchmark runs, and its candidates minimise what it says they do."""

import importlib
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from neural_style.loader import CaffeLoader
from PIL import Image

SPEED = Path(__file__).parents[1] / "benchmarks" / "speed.py"


sys.path.insert(0, str(SPEED.parent))


@pytest.fixture(scope="module")
def speed():
    return importlib.import_module("speed")


@pytest.fixture(scope="module")
def peers():
    return importlib.import_module("peers")


def test_pastiche_is_given_the_losses_of_the_notebook(speed, monkeypatch):
    artists, make = [], speed.PasticheArtist

    def spy(*args, **kwargs):
        artists.append(make(*args, **kwargs))
        return artists[-1]

    monkeypatch.setattr(speed, "PasticheArtist", spy)
    nst = speed.load_notebook()
    content, style = speed.load_pictures(nst, 96)
    run = speed.pastiche_package(nst, content, style, "cpu", torch.float32)
    vgg = speed.with_zero_padding(nst.load_vgg19())
    targets = nst.compute_targets(vgg, content, style)
    noise = torch.rand(content.shape, generator=torch.Generator().manual_seed(0)) * 255 - 110
    for start in (noise, artists[0].pastiche.detach() + 20):
        artists[0].pastiche.data = start
        for weight in (0, 1):  # content alone, then both
            artists[0].style_weights = [weight]
            own = speed.total_loss(nst, vgg, run(0), targets)
            if not weight:
                found = nst.extract_features(vgg, run(0), nst.CONTENT_LAYERS)
                own = nst.relative_error(found, targets[0])
            expected = artists[0]._calc_loss().item() / speed.PASTICHE_SCALE
            assert own.item() == pytest.approx(expected, rel=0.01)


def test_total_loss_is_that_of_a_step(speed):
    nst = speed.load_notebook()
    pair = speed.load_pictures(nst, 64)
    vgg, image = nst.load_vgg19(), nst.match_colours(*pair)
    targets = nst.compute_targets(vgg, *pair)
    _, losses = next(nst.optimize(vgg, image, targets, 1))
    assert speed.total_loss(nst, vgg, image, targets).item() == pytest.approx(
        losses["total"], rel=1e-5
    )


@pytest.mark.parametrize("name", ["textbook_loop", "notebook_steps", "pastiche_package"])
def test_candidates_lower_the_loss_in_as_many_evaluations_as_they_are_given(speed, name):
    nst = speed.load_notebook()
    pair = speed.load_pictures(nst, 64)
    vgg = nst.load_vgg19()
    targets = nst.compute_targets(vgg, *pair)
    evaluated, extract_features = [], nst.extract_features

    def counting(vgg, image, layers):
        evaluated.append(image.requires_grad)
        return extract_features(vgg, image, layers)

    nst.extract_features = counting
    image = getattr(speed, name)(nst, *pair, "cpu", torch.float32)(12)
    if name != "pastiche_package":
        assert evaluated.count(True) == 12
    first, last = (speed.total_loss(nst, vgg, x, targets).item() for x in (pair[0], image))
    assert last < 0.6 * first


def test_steps_to_loss_counts_from_one(speed):
    steps = [(9.0, {}), (5.0, {}), (4.0, {}), (3.0, {})]
    assert speed.steps_to_loss(float, steps, 4.5) == 3
    assert speed.steps_to_loss(float, steps, 1) is None


def test_it_prints_every_table(tmp_path):
    arguments = ["--size", "32", "--growth", "32", "64", "--tiles", "64", "--rounds", "1"]
    arguments += ["--picture", "32", "64", "--plot", tmp_path / "growth.png"]
    command = [sys.executable, SPEED, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    for name in ("textbook loop", "pastiche", "bare VGG-19", "this notebook"):
        assert f"| {name}, float32 |" in done.stdout
    assert len(re.findall(r"times faster|not in 60 steps", done.stdout)) >= 2
    assert "| s a step |" in done.stdout
    assert "| cat, float32 |" in done.stdout
    assert "| short side, in tiles, " in done.stdout
    assert Image.open(tmp_path / "growth.png").width == 900


def test_programs_make_pictures_that_are_measured(peers, tmp_path):
    """At a small size, each stopped after the first picture that it saves."""
    arguments = ["--size", "64", "--pair", "cat", "--limit", "1", "--folder", tmp_path]
    command = [sys.executable, SPEED.with_name("peers.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    lines = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if "|" in line]
    rows, own = [line for line in lines[2:] if len(line) == 10], lines[-3:]
    assert [row[0] for row in rows] == list(peers.PROGRAMS)
    assert any("stopped" in row[1] for row in rows)
    for row in rows:
        assert all(math.isfinite(float(figure)) for figure in row[2:])
    assert [row[0] for row in own] == list(peers.LOSSES)
    assert all(float(row[1]) > 0 and float(row[2]) > 0 for row in own)
    assert all(row[3] == "not yet" or float(row[3]) >= 0 for row in own)
    sheet = Image.open(tmp_path / "peers-64.jpg")
    assert sheet.width == 300 and sheet.height > 6 * 200


def test_programs_that_were_not_run_are_said_to_be(peers, tmp_path, capsys):
    column = peers.compare("cat", 64, tmp_path)
    assert [caption for caption, _ in column[1:]] == [f"{name}: not run" for name in peers.PROGRAMS]
    assert capsys.readouterr().out.count("| not run |") == len(peers.PROGRAMS)


def test_neural_style_pt_is_given_the_published_weights(speed, peers, tmp_path, random_image):
    nst = speed.load_notebook()
    model = tmp_path / "vgg19-published.pth"
    torch.save(peers.published_weights(nst.load_vgg19()), model)
    loaded, _ = CaffeLoader.loadCaffemodel(str(model), "max", "c", "true")
    image, mean = random_image(0), torch.tensor([103.939, 116.779, 123.68]).view(1, 3, 1, 1)
    padded = speed.with_zero_padding(nst.load_vgg19())
    expected = nst.extract_features(padded, image, ["relu5_1"])["relu5_1"]
    found = loaded[:30](255 * image.flip(1) - mean)
    assert torch.allclose(found, expected, atol=1e-3 * expected.abs().max())


def test_mean_squares_are_those_that_neural_style_pt_prints(speed, peers, tmp_path):
    nst, (content, style) = speed.load_notebook(), make_pair(peers, tmp_path)
    picture = nst.save_image(nst.load_image(content, 64).flip(3), tmp_path / "picture.png")
    command = peers.neural_style_pt(content, style, tmp_path / "result.png")
    command += ["-init", "image", "-init_image", picture, "-num_iterations", 1, "-print_iter", 1]
    command = [str(argument) for argument in command]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    content_loss = float(re.search(r"Content 1 loss: (\S+)", printed)[1])
    style_losses = [float(re.search(rf"Style {i} loss: (\S+)", printed)[1]) for i in range(1, 6)]
    padded = speed.with_zero_padding(nst.load_vgg19())
    image, photograph = (nst.load_image(path, 64) for path in (picture, content))
    painting = peers.style_of_neural_style_pt(Image.open(style).convert("RGB"), photograph)
    found = peers.mean_squares(nst, padded, image, photograph, painting)
    assert found == pytest.approx([content_loss / 5, sum(style_losses) / 100], rel=0.01)


@pytest.mark.parametrize("name", ["pastiche", "neural_style_pt"])
def test_a_program_measures_its_own_picture_as_it_reported(peers, name, tmp_path):
    """The loss of the picture that it saved, rounded and clamped, is nearly the one it printed."""
    content, style = make_pair(peers, tmp_path)
    command = getattr(peers, name)(content, style, tmp_path / "result.png")
    options = {
        "pastiche": ["--num-steps", 60, "--info-step", 60],
        "neural_style_pt": ["-num_iterations", 60, "-print_iter", 60],
    }
    command = [str(argument) for argument in [*command, *options[name]]]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    pattern = {"pastiche": r"^60 +\S+ +(\S+)$", "neural_style_pt": r"Total loss: (\S+)"}[name]
    reported = float(re.findall(pattern, printed, re.MULTILINE)[-1])
    found = getattr(peers, f"loss_of_{name}")(content, style, tmp_path / "result.png")
    assert 0.8 * reported < found < 1.5 * reported
    assert getattr(peers, f"loss_of_{name}")(content, style, content) > 2 * found


def make_pair(peers, tmp_path):
    """The photograph of the cat at 64 pixels as a file, and the painting."""
    content, style = (peers.ROOT / "assets" / name for name in peers.PAIRS["cat"])
    nst = peers.load_notebook()
    return nst.save_image(nst.load_image(content, 64), tmp_path / "content.png"), style


def test_the_classic_loop_lowers_the_loss_that_it_is_measured_by(peers, tmp_path):
    content, style = make_pair(peers, tmp_path)
    peers.classic_loop(content, style, tmp_path / "result.png")
    first, early, late = (
        peers.loss_of_classic_loop(content, style, tmp_path / name)
        for name in ("content.png", "result_25.png", "result.png")
    )
    assert first > 2 * early
    assert early > late > 0


def test_features_are_given_to_style_transfer_pytorch_in_its_scale(peers):
    """Its network takes pictures in [0, 1], divided by a standard deviation of 0.224 to 0.229."""
    assert 0.224 < 1 / (255 * peers.PER_DEVIATION) < 0.229


def test_pictures_are_those_that_are_complete_by_age(peers, tmp_path):
    assert peers.pictures_since(0, tmp_path) == []
    for number, seconds in enumerate([9, 5]):
        Image.new("RGB", (4, 4), "blue").save(tmp_path / f"{number}.png")
        os.utime(tmp_path / f"{number}.png", (100 + seconds, 100 + seconds))
    (tmp_path / "2.png").write_bytes((tmp_path / "1.png").read_bytes()[:40])
    found = peers.pictures_since(100, tmp_path)
    assert found == [(5, tmp_path / "1.png"), (9, tmp_path / "0.png")]


def test_a_picture_is_at_no_distance_from_itself(speed, peers, random_image):
    nst = speed.load_notebook()
    vgg, image, other = nst.load_vgg19(), random_image(0), random_image(1)
    for measure in (peers.distances, peers.mean_squares):
        assert measure(nst, vgg, image, image, image) == [0, 0]
        assert min(measure(nst, vgg, image, other, other)) > 0.01
