"""The benchmark runs, and its candidates minimise what it says they do."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SPEED = Path(__file__).parents[1] / "benchmarks" / "speed.py"


@pytest.fixture(scope="module")
def speed():
    spec = importlib.util.spec_from_file_location("speed", SPEED)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pastiche_is_given_the_losses_of_the_notebook(speed, monkeypatch):
    artists, make = [], speed.PasticheArtist
    monkeypatch.setattr(
        speed, "PasticheArtist", lambda *args, **kwargs: artists.append(make(*args, **kwargs)) or artists[0]
    )
    nst = speed.load_notebook()
    content, style = speed.load_pictures(nst, 96, "cpu")
    run = speed.pastiche_package(nst, content, style, torch.float32)
    vgg = nst.load_vgg19()
    for layer in vgg:
        if isinstance(layer, torch.nn.Conv2d):
            layer.padding_mode = "zeros"  # as in pastiche
    targets = nst.compute_targets(vgg, content, style, speed.CONTENT_LAYERS, speed.STYLE_LAYERS)
    noise = torch.rand(content.shape, generator=torch.Generator().manual_seed(0)) * 255 - 110
    for start in (noise, artists[0].pastiche.detach() + 20):
        artists[0].pastiche.data = start
        for weight in (0, 1):  # content alone, then both
            artists[0].style_weights = [weight]
            own = speed.total_loss(nst, vgg, run(0), targets, tv_weight=0)
            if not weight:
                found = nst.extract_features(vgg, run(0), speed.CONTENT_LAYERS)
                own = nst.content_loss(found, targets[0])
            expected = artists[0]._calc_loss().item() / speed.PASTICHE_SCALE
            assert own.item() == pytest.approx(expected, rel=0.01)


def test_total_loss_is_that_of_a_step(speed):
    nst = speed.load_notebook()
    content, style = speed.load_pictures(nst, 64, "cpu")
    vgg, image = nst.load_vgg19(), nst.match_colours(content, style)
    targets = nst.compute_targets(vgg, content, style, speed.CONTENT_LAYERS, speed.STYLE_LAYERS)
    own = speed.total_loss(nst, vgg, image, targets).item()
    losses = nst.take_step(nst.make_optimizer(image, 1), vgg, image, *targets, speed.WEIGHTS)
    assert own == pytest.approx(losses["total"], rel=1e-5)


@pytest.mark.parametrize("name", ["classic_loop", "notebook_steps", "pastiche_package"])
def test_candidates_lower_the_loss_in_as_many_evaluations_as_they_are_given(speed, name):
    nst = speed.load_notebook()
    content, style = speed.load_pictures(nst, 64, "cpu")
    vgg = nst.load_vgg19()
    targets = nst.compute_targets(vgg, content, style, speed.CONTENT_LAYERS, speed.STYLE_LAYERS)
    evaluated, extract_features = [], nst.extract_features
    nst.extract_features = lambda *args: evaluated.append(args[1].requires_grad) or extract_features(*args)
    run = getattr(speed, name)(nst, content, style, torch.float32)
    image = run(12)
    if name != "pastiche_package":
        assert evaluated.count(True) == 12
    first, last = (speed.total_loss(nst, vgg, picture, targets, 0).item() for picture in (content, image))
    assert last < 0.6 * first


def test_steps_to_loss_counts_from_one(speed):
    nst = speed.load_notebook()
    content, style = speed.load_pictures(nst, 64, "cpu")
    losses = iter([9.0, 5.0, 4.0, 3.0] + [1.0] * 60)
    arguments = nst, nst.load_vgg19(), content, style
    assert speed.steps_to_loss(*arguments, lambda image: next(losses), 4.5, speed.WEIGHTS) == 3
    assert speed.steps_to_loss(*arguments, lambda image: 9.0, 4.5, speed.WEIGHTS) is None


def test_it_prints_every_table():
    arguments = ["--size", "32", "--growth", "32", "64", "--picture", "32", "--rounds", "1"]
    done = subprocess.run([sys.executable, SPEED, *arguments], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    for name in ("classic loop, float32", "pastiche, float32", "bare VGG-19, float32", "this notebook, float32"):
        assert f"| {name} |" in done.stdout
    faster = [float(ratio) for ratio in re.findall(r"([\d.]+) times faster", done.stdout)]
    assert faster
    assert all(ratio > 0 for ratio in faster)
    assert "| s an evaluation |" in done.stdout
    assert "| coffee, short side 64" in done.stdout
