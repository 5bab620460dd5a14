"""The first picture, the sizes, the loop and its settings."""

import signal

import pytest
import torch
from definitions import NOTEBOOK

QUICK = {"num_steps": 6, "preview": False}


@pytest.fixture
def pair(random_image):
    return random_image(1), random_image(2, 80, 72)


def test_matched_colours_have_the_mean_and_covariance(nst, pair):
    matched, style = (image.flatten(2)[0] for image in (nst.match_colours(*pair), pair[1]))
    assert torch.allclose(matched.mean(1), style.mean(1), atol=1e-5)
    assert torch.allclose(torch.cov(matched), torch.cov(style), atol=1e-5)


def test_a_grey_picture_can_be_matched(nst, pair):
    grey = pair[0].mean(1, keepdim=True).expand(1, 3, -1, -1)
    matched = nst.match_colours(grey, pair[1])
    assert matched.isfinite().all()
    assert torch.allclose(matched.mean((2, 3)), pair[1].mean((2, 3)), atol=1e-5)


def test_rounding_noise_is_not_stretched(nst, pair):
    grey = (pair[0].mean(1, keepdim=True) * 255).round()
    tinted = (grey * torch.tensor([1, 0.97, 0.93]).view(1, 3, 1, 1)).round() / 255
    images = nst.match_colours(tinted, pair[1]), pair[1]
    matched, style = (torch.linalg.eigvalsh(torch.cov(image.flatten(2)[0])) for image in images)
    assert matched[:2].sum() < 0.1 * style[:2].sum()


@pytest.mark.parametrize(
    ("size", "sizes"), [((256, 384), [(64, 96), (128, 192), (256, 384)]), ((100, 60), [(100, 60)])]
)
def test_sizes_double_up_to_the_full_one(nst, size, sizes):
    assert nst.coarse_to_fine_sizes(*size) == sizes


@pytest.mark.parametrize("init", ["content", "matched", "noise"])
def test_losses_fall_from_every_start(nst, vgg, pair, init):
    image, history, frames = nst.stylize(vgg, *pair, init=init, num_steps=20, preview=False)
    assert image.shape == pair[0].shape
    assert 0 <= image.min() <= image.max() <= 1
    assert len(history) == 20
    assert len(frames) == 5
    assert history[-1]["total"] < 0.5 * history[0]["total"]
    assert history[-1]["style"] < 0.5 * history[0]["style"]


def test_total_is_the_weighted_sum(nst, vgg, pair):
    _, history, _ = nst.stylize(vgg, *pair, content_weight=2, style_weight=3, tv_weight=5, **QUICK)
    for losses in history:
        assert losses["total"] == pytest.approx(
            2 * losses["content"] + 3 * losses["style"] + 5 * losses["tv"], rel=1e-5
        )


def test_same_seed_gives_the_same_picture_bit_for_bit(nst, vgg, pair):
    first, again, other = (nst.stylize(vgg, *pair, init="noise", seed=seed, **QUICK)[0] for seed in (7, 7, 8))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_more_style_weight_means_less_style_loss_and_more_content_loss(nst, vgg, pair):
    runs = [nst.stylize(vgg, *pair, style_weight=weight, num_steps=40, preview=False)[1][-1] for weight in (1, 100)]
    assert runs[1]["style"] < runs[0]["style"]
    assert runs[1]["content"] > runs[0]["content"]


def test_total_variation_weight_makes_the_picture_smoother(nst, vgg, pair):
    runs = [nst.stylize(vgg, *pair, tv_weight=weight, num_steps=30, preview=False)[1][-1] for weight in (0, 500)]
    assert runs[1]["tv"] < runs[0]["tv"]


def test_coarse_to_fine_runs_every_size(nst, vgg, random_image):
    image, history, frames = nst.stylize(vgg, random_image(1, 128, 136), random_image(2), **QUICK)
    assert image.shape == (1, 3, 128, 136)
    assert len(history) == 12
    assert {frame.size for frame in frames} == {(68, 64), (136, 128)}


def test_scale_up_gives_back_the_detail_that_scaling_down_took(nst, random_image):
    image = 0.9 * random_image(0, 96, 128) + 0.1 * torch.rand(1, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    small = nst.resize(image, [48])
    blurred = nst.resize(small, image.shape[-2:])
    assert (blurred - image).abs().max() > 0.02
    assert torch.allclose(nst.scale_up(small, image.shape[-2:], image), image, atol=1e-6)
    assert torch.equal(nst.scale_up(small, image.shape[-2:], torch.zeros_like(image)), blurred)


def test_without_steps_the_detail_of_the_content_stays_and_that_of_noise_goes(nst, vgg, random_image):
    content = nst.resize(random_image(0, 16, 16), [130])
    content = (content + 0.05 * torch.randn(content.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    nst.take_steps = lambda vgg, image, targets, weights, rate, num_steps, after_step, *_: after_step(image, {})
    settings = {"num_steps": 1, "preview": False}
    image, _, frames = nst.stylize(vgg, content, content, init="content", **settings)
    assert len(frames) > 1
    assert torch.allclose(image, content, atol=0.02)
    noise = nst.first_image(content, content, "noise", 0)
    image, _, _ = nst.stylize(vgg, content, content, init="noise", **settings)
    assert nst.total_variation(image) < nst.total_variation(noise) / 10


def test_ten_steps_after_scaling_up_get_further_with_the_detail(nst, vgg):
    content, style = (
        nst.load_image(NOTEBOOK.parent / "assets" / f"{name}.jpg", 128) for name in ("cat", "starry-night")
    )
    start = nst.match_colours(content, style).clamp(0, 1)
    small, _, _ = nst.stylize(vgg, nst.resize(content, [64]), nst.resize(style, [64]), num_steps=15, preview=False)
    targets = nst.compute_targets(vgg, content, style, ["relu4_2"], ["relu1_1", "relu2_1", "relu3_1", "relu4_1"])
    weights, totals = {"content_weight": 1, "style_weight": 20, "tv_weight": 50}, []
    for image in (nst.resize(small, content.shape[-2:]), nst.scale_up(small, content.shape[-2:], start)):
        nst.take_steps(vgg, image, targets, weights, 1, 10, lambda _, losses: totals.append(losses["total"]))
    assert totals[19] < totals[9]


@pytest.mark.parametrize("learning_rate", [1, 0.1])
def test_the_first_step_changes_a_value_by_a_hundredth_of_the_learning_rate(nst, vgg, pair, learning_rate):
    content, style = pair
    targets = nst.compute_targets(vgg, content, style, ["relu4_2"], ["relu1_1", "relu4_1"])
    image, changes = content.clone(), []
    weights = {"content_weight": 1, "style_weight": 20, "tv_weight": 50}

    def after_step(image, losses):
        changes.append((image.detach() - content).abs().mean().item())

    nst.take_steps(vgg, image, targets, weights, learning_rate, 1, after_step)
    assert changes[0] == pytest.approx(learning_rate / 100, rel=1e-3)


def test_odd_sizes_and_a_small_style(nst, vgg, random_image):
    content = random_image(1, 160, 136)[..., :133, :]
    image, _, _ = nst.stylize(vgg, content, random_image(2, 32, 40), **QUICK)
    assert image.shape == content.shape


def test_stopping_after_the_first_step_still_gives_a_frame(nst, vgg, pair):
    take_step = nst.take_step

    def interrupted(*args):
        nst.take_step = lambda *args: signal.raise_signal(signal.SIGINT)
        return take_step(*args)

    nst.take_step = interrupted
    _, history, frames = nst.stylize(vgg, *pair, num_steps=50)
    assert len(history) == 1
    assert len(frames) == 2  # the first step's, and the one where it stopped


def test_the_arguments_are_left_alone(nst, vgg, pair):
    before = [image.clone() for image in pair]
    nst.stylize(vgg, *pair, init="content", coarse_to_fine=False, **QUICK)
    assert all(torch.equal(image, earlier) for image, earlier in zip(pair, before, strict=True))
    assert not any(image.requires_grad for image in pair)


def test_stopping_keeps_what_there_is(nst, vgg, pair, capsys):
    take_step = nst.take_step
    steps = []

    def interrupted(*args):
        steps.append(1)
        if len(steps) == 8:
            signal.raise_signal(signal.SIGINT)
        return take_step(*args)

    nst.take_step = interrupted
    image, history, frames = nst.stylize(vgg, *pair, num_steps=50)
    assert len(history) == 7
    assert len(frames) == 3
    assert image.isfinite().all()
    assert not torch.equal(image, pair[0])
    assert "Stopped after 7 steps" in capsys.readouterr().out


def test_stopping_before_the_first_step_stops_everything(nst, vgg, pair):
    nst.take_step = lambda *args: signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        nst.stylize(vgg, *pair)


@pytest.mark.parametrize("num_steps", [50, 7])
@pytest.mark.parametrize("loss", [float("nan"), float("inf"), 1e6])
def test_overshooting_goes_back_to_the_best_picture(nst, vgg, pair, capsys, loss, num_steps):
    take_step = nst.take_step
    totals = []

    def overshooting(optimizer, vgg, image, *args):
        losses = take_step(optimizer, vgg, image, *args)
        totals.append(losses["total"])
        if len(totals) == 8:
            losses["total"] = loss
            image.detach().fill_(float("nan"))
        return losses

    nst.take_step = overshooting
    image, history, _ = nst.stylize(vgg, *pair, num_steps=num_steps, learning_rate=0.5, preview=False)
    assert len(history) == 8
    assert history[-1]["total"] == min(totals[:7])
    assert image.isfinite().all()
    assert "lower learning_rate (0.5)" in capsys.readouterr().out
    nst.take_step = take_step
    targets = nst.compute_targets(vgg, *pair, ["relu4_2"], ["relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"])
    content = nst.content_loss(nst.extract_features(vgg, image, ["relu4_2"]), targets[0]).item()
    assert content == pytest.approx(history[-1]["content"], rel=0.05)


def test_a_loss_that_is_infinite_from_the_start_is_an_error(nst, vgg, pair):
    with pytest.raises(FloatingPointError, match="The loss rose to inf"):
        nst.stylize(vgg, *pair, style_weight=1e39, preview=False)


def test_the_result_is_the_best_picture(nst, vgg, pair):
    take_step = nst.take_step
    pictures = []

    def spying(optimizer, vgg, image, *args):
        before = image.detach().clone()
        losses = take_step(optimizer, vgg, image, *args)
        pictures.append((losses["total"], before))
        return losses

    nst.take_step = spying
    image, _, _ = nst.stylize(vgg, *pair, num_steps=12, learning_rate=2, preview=False)
    assert len(pictures) == 13
    assert torch.equal(image, min(pictures, key=lambda picture: picture[0])[1].clamp(0, 1))


def test_a_far_too_large_learning_rate_is_survived(nst, vgg, pair, capsys):
    image, history, _ = nst.stylize(vgg, *pair, num_steps=50, learning_rate=20, preview=False)
    assert image.isfinite().all()
    assert history[-1]["total"] == min(losses["total"] for losses in history)
    assert "lower learning_rate (20)" in capsys.readouterr().out


def test_bfloat16_stays_close_to_float32(nst, vgg, pair):
    rounded = nst.load_vgg19(dtype=torch.bfloat16)
    losses = [nst.stylize(network, *pair, num_steps=30, preview=False)[1][-1]["total"] for network in (vgg, rounded)]
    assert losses[1] == pytest.approx(losses[0], rel=0.1)


BAD_SETTINGS = [
    ({"init": "photo"}, ValueError, "init is 'photo': content, matched or noise"),
    ({"num_steps": 0}, ValueError, "num_steps is 0: give 1, 2, 3"),
    ({"num_steps": 5.0}, ValueError, "num_steps is 5.0: give 1, 2, 3"),
    ({"num_steps": "many"}, ValueError, "num_steps is 'many'"),
    ({"style_weight": -1}, ValueError, "style_weight is -1: give 0 or a larger number"),
    ({"content_weight": "1"}, TypeError, "content_weight is '1': give a number"),
    ({"tv_weight": None}, TypeError, "tv_weight is None: give a number"),
    ({"style_weight": float("nan")}, ValueError, "style_weight is nan"),
    ({"learning_rate": float("inf")}, ValueError, "learning_rate is inf"),
]


@pytest.mark.parametrize(("setting", "error", "message"), BAD_SETTINGS)
def test_bad_setting_is_refused_before_any_work(nst, pair, setting, error, message):
    with pytest.raises(error, match=message):
        nst.stylize(None, *pair, **setting)  # there is no network, so no work can have been done
