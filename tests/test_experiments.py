"""What section 10 claims, on small pictures."""

import signal

import pytest
import torch
from definitions import NOTEBOOK, load_definitions

ASSETS = NOTEBOOK.parent / "assets"
ONE_SIZE = {"coarse_to_fine": False, "num_steps": 40, "preview": False}


@pytest.fixture(scope="module")
def load():
    nst = load_definitions()
    return lambda name: nst.load_image(ASSETS / name, 96)


@pytest.mark.parametrize(("content", "style"), [("cat", "starry-night"), ("coffee", "night-cafe")])
@pytest.mark.parametrize("style_weight", [5, 20])
def test_from_noise_style_comes_before_content(nst, vgg, load, content, style, style_weight):
    settings = {"init": "noise", "style_weight": style_weight, **ONE_SIZE, "num_steps": 16}
    _, history, _ = nst.stylize(vgg, load(f"{content}.jpg"), load(f"{style}.jpg"), **settings)
    left = {name: history[-1][name] / history[0][name] for name in ("style", "content")}
    assert left["style"] < 0.8 * left["content"], left


def test_from_noise_content_comes_first_if_the_style_weight_is_small(nst, vgg, load):
    settings = {"init": "noise", "style_weight": 0.5, **ONE_SIZE, "num_steps": 11}
    _, history, _ = nst.stylize(vgg, load("cat.jpg"), load("starry-night.jpg"), **settings)
    left = {name: history[-1][name] / history[0][name] for name in ("style", "content")}
    assert left["content"] < 0.8 * left["style"], left


def test_from_noise_no_grain_is_left(nst, vgg):
    content, style = (nst.load_image(ASSETS / name, 128) for name in ("cat.jpg", "starry-night.jpg"))
    noise = nst.first_image(content, style, "noise", 0)
    image, _, _ = nst.stylize(vgg, content, style, init="noise", style_weight=5, num_steps=25, preview=False)
    details = [(picture - nst.TF.gaussian_blur(picture, 5)).flatten() for picture in (noise, image)]
    assert abs(nst.torch.corrcoef(nst.torch.stack(details))[0, 1]) < 0.03


def test_a_smaller_learning_rate_is_slower(nst, vgg, load):
    pair = load("cat.jpg"), load("starry-night.jpg")
    rates = (1, 0.25, 0.025)
    totals = [nst.stylize(vgg, *pair, learning_rate=rate, **ONE_SIZE)[1][-1]["total"] for rate in rates]
    assert totals == sorted(totals)


@pytest.fixture(scope="module")
def artifacts(vgg):
    """{caption: (result, history, content)} of the pairs and the cures of section 10."""
    nst = load_definitions()
    names = "astronaut.jpg", "hubble-deep-field.jpg"
    astronaut, deep_field = (nst.load_image(ASSETS / name, 192)[..., -96:, -96:] for name in names)
    runs = {
        "busy": (astronaut, deep_field, {}),
        "swapped": (deep_field, astronaut, {}),
        "style_weight": (astronaut, deep_field, {"style_weight": 0.2}),
        "learning_rate": (astronaut, deep_field, {"learning_rate": 0.025}),
        "tv_weight": (astronaut, deep_field, {"tv_weight": 500}),
    }
    return {
        name: (*nst.stylize(vgg, content, style, init="content", **settings, **ONE_SIZE)[:2], content)
        for name, (content, style, settings) in runs.items()
    }


def energies(nst, artifacts):
    return {name: nst.artifact_energy(image) for name, (image, _, _) in artifacts.items()}


def test_specks_come_from_the_style(nst, artifacts):
    after = energies(nst, artifacts)
    before = {name: nst.artifact_energy(artifacts[name][2]) for name in ("busy", "swapped")}
    assert after["busy"] > 2 * before["busy"], (after, before)
    assert after["swapped"] < 0.5 * before["swapped"], (after, before)
    assert after["swapped"] < 0.8 * after["busy"], (after, before)


@pytest.mark.parametrize("cure", ["style_weight", "learning_rate", "tv_weight"])
def test_each_cure_lowers_the_artifact_energy(nst, artifacts, cure):
    after = energies(nst, artifacts)
    assert after[cure] < 0.7 * after["busy"], after


@pytest.mark.parametrize("cure", ["style_weight", "learning_rate", "tv_weight"])
def test_each_cure_costs_style(artifacts, cure):
    assert artifacts[cure][1][-1]["style"] > artifacts["busy"][1][-1]["style"]


def test_artifact_energy_is_that_of_single_bright_pixels(nst):
    image = torch.full((1, 3, 20, 30), 0.5)
    assert nst.artifact_energy(image) == 0
    edge = image.clone()
    edge[..., 10:] = 0.9
    assert nst.artifact_energy(edge) == 0
    stroke = image.clone()
    stroke[..., 8:10] = 0.9
    assert nst.artifact_energy(stroke) == 0
    speck = image.clone()
    speck[..., 10, 15] = 0.9
    assert nst.artifact_energy(speck) == pytest.approx(0.4**2 / (14 * 24))


def test_compare_runs_each_setting_and_saves_the_row(nst, vgg, random_image, tmp_path):
    settings = {"first": {"style_weight": 1}, "second": {"style_weight": 2, "tv_weight": 3}}
    runs = nst.compare(vgg, random_image(1), random_image(2), settings, path=tmp_path / "row.jpg", num_steps=2)
    histories = {name: len(history) for name, (_, history) in runs.items()}
    assert histories == {"first": 2, "second": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["row.jpg"]


def test_stopping_stops_the_whole_comparison_and_keeps_the_earlier_row(nst, vgg, random_image, tmp_path):
    (tmp_path / "row.jpg").write_bytes(b"earlier")
    take_step, steps = nst.take_step, []

    def interrupted(*args):
        steps.append(1)
        if len(steps) == 9:  # in the second run
            signal.raise_signal(signal.SIGINT)
        return take_step(*args)

    nst.take_step = interrupted
    settings = {str(weight): {"style_weight": weight} for weight in (1, 2, 3)}
    with pytest.raises(KeyboardInterrupt):
        nst.compare(vgg, random_image(1), random_image(2), settings, path=tmp_path / "row.jpg", num_steps=5)
    assert len(steps) == 9
    assert (tmp_path / "row.jpg").read_bytes() == b"earlier"
