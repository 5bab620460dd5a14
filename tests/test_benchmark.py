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
    assert "| s an evaluation |" in done.stdout
    assert "| cat, float32 |" in done.stdout
    assert "| short side, in tiles, " in done.stdout
    assert Image.open(tmp_path / "growth.png").width == 900


def test_programs_make_pictures_that_are_measured(peers, tmp_path):
    """At a small size, each stopped after the first picture that it saves."""
    arguments = ["--size", "64", "--pair", "cat", "--limit", "1", "--folder", tmp_path]
    command = [sys.executable, SPEED.with_name("peers.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if "|" in line][2:]
    assert [row[0] for row in rows] == list(peers.PROGRAMS)
    assert any("stopped after" in row[1] for row in rows)
    for row in rows:
        assert len(row) == 10
        assert all(math.isfinite(float(figure)) for figure in row[2:])
    assert Image.open(tmp_path / "peers-64.jpg").height == 2 * (256 + 26)


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
    photograph, painting = random_image(1), random_image(2)
    content_distance, style_distance = peers.distances_of_neural_style_pt(
        nst, padded, image, photograph, painting
    )
    x, p = (loaded[:23](255 * i.flip(1) - mean) for i in (image, photograph))
    assert content_distance == pytest.approx((x - p).square().mean().item(), rel=1e-3)
    x, a = (loaded[:2](255 * i.flip(1) - mean)[0].flatten(1) for i in (image, painting))
    x, a = (F @ F.T / F.numel() for F in (x, a))  # of the first layer, as neural-style-pt does it
    assert style_distance > (x - a).square().mean().item()


def test_features_are_given_to_style_transfer_pytorch_in_its_scale(peers):
    """Its network takes pictures in [0, 1], divided by a standard deviation of 0.224 to 0.229."""
    assert 0.224 < 1 / (255 * peers.PER_DEVIATION) < 0.229


def test_the_last_picture_is_the_latest_that_is_complete(peers, tmp_path):
    assert peers.last_picture(tmp_path) is None
    for number, colour in enumerate(["red", "blue"]):
        Image.new("RGB", (4, 4), colour).save(tmp_path / f"{number}.png")
        os.utime(tmp_path / f"{number}.png", (number, number))
    (tmp_path / "2.png").write_bytes((tmp_path / "1.png").read_bytes()[:40])
    assert peers.last_picture(tmp_path).getpixel((0, 0)) == (0, 0, 255)


def test_a_picture_is_at_no_distance_from_itself(speed, peers, random_image):
    nst = speed.load_notebook()
    vgg, image, other = nst.load_vgg19(), random_image(0), random_image(1)
    for measure in (peers.distances, peers.distances_of_neural_style_pt):
        assert measure(nst, vgg, image, image, image) == [0, 0]
        assert min(measure(nst, vgg, image, other, other)) > 0.01
