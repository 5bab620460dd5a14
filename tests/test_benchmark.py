"""The benchmark runs, and its candidates minimise what it says they do."""

import importlib.util
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
    images = []
    run(3, images.append)
    artist_loss = artists[0]._calc_loss().item()
    own_loss = speed.total_loss(nst, vgg, images[-1], targets, tv_weight=0).item()
    assert artist_loss == pytest.approx(own_loss, rel=0.05)  # its targets' scale comes from mirrored padding


@pytest.mark.parametrize("name", ["classic_loop", "notebook_steps", "pastiche_package"])
def test_candidates_lower_the_loss(speed, name):
    nst = speed.load_notebook()
    content, style = speed.load_pictures(nst, 64, "cpu")
    vgg = nst.load_vgg19()
    targets = nst.compute_targets(vgg, content, style, speed.CONTENT_LAYERS, speed.STYLE_LAYERS)
    evaluations, images = [], []
    extract_features = nst.extract_features
    nst.extract_features = lambda *args: evaluations.append(args[1].requires_grad) or extract_features(*args)
    pictures = []
    original = nst.record
    nst.record = lambda *args: (pictures.append(args[-2].detach().clone()), original(*args))
    run = getattr(speed, name)(nst, content, style, torch.float32)
    evaluations.clear()
    run(12, lambda image: images.append(image.detach().clone()))
    images = images or pictures
    first, last = (speed.total_loss(nst, vgg, image, targets, 0).item() for image in (content, images[-1]))
    assert last < 0.6 * first
    if name != "pastiche_package":
        assert evaluations.count(True) == 12
        assert len(images) in (11, 12)


def test_it_prints_every_table(speed, tmp_path):
    arguments = ["--size", "32", "--growth", "32", "64", "--picture", "32", "--rounds", "1", "--save", tmp_path / "new"]
    done = subprocess.run([sys.executable, SPEED, *arguments], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    for name in ("classic loop, float32", "pastiche, float32", "bare VGG-19, float32", "this notebook, float32"):
        assert f"| {name} |" in done.stdout
    assert done.stdout.count("times faster") >= 2
    assert "| s an evaluation |" in done.stdout
    assert "A picture of 64 x 96 pixels" in done.stdout
    assert (tmp_path / "new" / "coffee-64.png").is_file()
