"""What section 10 claims, on small pictures."""

import signal

import pytest
import torch
from definitions import NOTEBOOK

ASSETS = NOTEBOOK.parent / "assets"
ONE_SIZE = {"coarse_to_fine": False, "num_steps": 40, "preview": False}


@pytest.fixture(scope="module")
def load():
    from definitions import load_definitions

    nst = load_definitions()
    return lambda name: nst.load_image(ASSETS / name, 96)


@pytest.mark.parametrize(("content", "style"), [("cat", "starry-night"), ("coffee", "night-cafe")])
def test_from_noise_style_comes_before_content(nst, vgg, load, content, style):
    settings = {"init": "noise", "style_weight": 5, **ONE_SIZE}
    _, history, _ = nst.stylize(vgg, load(f"{content}.jpg"), load(f"{style}.jpg"), **settings)
    steps = {name: nst.steps_to_halfway([losses[name] for losses in history]) for name in ("style", "content")}
    assert steps["style"] < steps["content"]


def test_from_noise_no_grain_is_left(nst, vgg, load):
    pair = load("coffee.jpg"), load("night-cafe.jpg")
    matched, noise = (nst.stylize(vgg, *pair, init=init, **ONE_SIZE)[1][-1]["tv"] for init in ("matched", "noise"))
    assert noise < 1.5 * matched


def test_steps_to_halfway(nst):
    assert nst.steps_to_halfway([5, 9, 8, 6, 5, 1]) == 4
    assert nst.steps_to_halfway([1]) == 0


def test_a_smaller_learning_rate_is_slower(nst, vgg, load):
    pair = load("cat.jpg"), load("starry-night.jpg")
    rates = (1, 0.25, 0.025)
    totals = [nst.stylize(vgg, *pair, learning_rate=rate, **ONE_SIZE)[1][-1]["total"] for rate in rates]
    assert totals == sorted(totals)


@pytest.fixture(scope="module")
def artifacts(vgg):
    """{caption: (result, history, content)} of the pairs and the cures of section 10."""
    from definitions import load_definitions

    nst = load_definitions()
    names = "astronaut.jpg", "hubble-deep-field.jpg"
    astronaut, deep_field = (nst.lower_right(nst.load_image(ASSETS / name, 192)) for name in names)
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


@pytest.mark.parametrize("other", ["swapped", "style_weight", "learning_rate", "tv_weight"])
def test_swapped_and_cured_have_less_artifact_energy_than_busy(nst, artifacts, other):
    energy = {name: nst.artifact_energy(image, content) for name, (image, _, content) in artifacts.items()}
    assert energy["busy"] > 2, energy
    assert energy[other] < 0.7 * energy["busy"], energy


@pytest.mark.parametrize("cure", ["style_weight", "learning_rate", "tv_weight"])
def test_each_cure_costs_style(artifacts, cure):
    assert artifacts[cure][1][-1]["style"] > artifacts["busy"][1][-1]["style"]


def test_artifact_energy_sees_specks_in_smooth_places_only(nst, load):
    content = load("astronaut.jpg")
    smooth = nst.local_detail(content) <= nst.local_detail(content).quantile(0.25)
    specks = 0.2 * torch.randn(content.shape, generator=torch.Generator().manual_seed(0))
    assert nst.artifact_energy(content, content) == pytest.approx(1)
    assert nst.artifact_energy(torch.full_like(content, 0.5), content) < 1e-6
    far_from_smooth = nst.TF.gaussian_blur(smooth.float(), 31) < 1e-3
    assert far_from_smooth.any()
    assert nst.artifact_energy(content + specks * smooth, content) > 10
    assert nst.artifact_energy(content + specks * far_from_smooth, content) == pytest.approx(1, rel=0.05)


def test_compare_runs_each_setting_and_saves_the_row(nst, vgg, random_image, tmp_path):
    settings = {"one": {"style_weight": 1}, "two": {"style_weight": 2}}
    runs = nst.compare(vgg, random_image(1), random_image(2), settings, path=tmp_path / "row.jpg", num_steps=2)
    assert {name: len(history) for name, (_, history) in runs.items()} == {"one": 2, "two": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["row.jpg"]


def test_stopping_stops_the_whole_comparison(nst, vgg, random_image):
    nst.take_step = lambda *args: signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        nst.compare(vgg, random_image(1), random_image(2), {"one": {}, "two": {}})
