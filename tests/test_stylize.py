"""The loop as a generator, the sizes, the first picture, and `watch`."""

import re
import signal

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode


@pytest.fixture
def pair(random_image):
    return random_image(1), random_image(2, 80, 72)


def test_matched_colours_have_the_mean_and_covariance(nst, pair):
    content, style = pair[0] * 0.2 + 0.4, pair[1] * 0.2 + 0.4  # far from the clamp
    matched, style = (x.flatten(2)[0] for x in (nst.match_colours(content, style), style))
    assert torch.allclose(matched.mean(1), style.mean(1), atol=1e-5)
    assert torch.allclose(torch.cov(matched), torch.cov(style), atol=1e-5)


def test_matched_colours_stay_in_range(nst, pair):
    matched = nst.match_colours(pair[0], pair[1].round())
    assert matched.min() >= 0
    assert matched.max() <= 1


def test_a_grey_picture_can_be_matched(nst, pair):
    grey, style = pair[0].mean(1, keepdim=True).expand(1, 3, -1, -1), pair[1] * 0.2 + 0.4
    matched = nst.match_colours(grey, style)
    assert matched.isfinite().all()
    assert torch.allclose(matched.mean((2, 3)), style.mean((2, 3)), atol=1e-4)


def test_rounding_noise_is_not_stretched(nst, pair):
    grey = (pair[0].mean(1, keepdim=True) * 255).round()
    tinted = (grey * torch.tensor([1, 0.97, 0.93]).view(1, 3, 1, 1)).round() / 255
    images = nst.match_colours(tinted, pair[1]), pair[1]
    matched, style = (torch.linalg.eigvalsh(torch.cov(image.flatten(2)[0])) for image in images)
    assert matched[:2].sum() < 0.1 * style[:2].sum()


def test_scale_up_gives_back_the_detail_that_scaling_down_took(nst, random_image):
    noise = torch.rand(1, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    image = 0.9 * random_image(0, 96, 128) + 0.1 * noise
    small = nst.resize(image, [48])
    blurred = nst.resize(small, image.shape[-2:])
    assert (blurred - image).abs().max() > 0.02
    assert torch.allclose(nst.scale_up(small, image.shape[-2:], image), image, atol=1e-6)
    assert torch.equal(nst.scale_up(small, image.shape[-2:], torch.zeros_like(image)), blurred)


@pytest.mark.parametrize("learning_rate", [1, 100])
def test_the_changes_of_the_first_step_add_up_to_the_learning_rate(nst, vgg, pair, learning_rate):
    """As part II says; in float64, where a change of so little is not rounded away."""
    start = pair[0].double()
    targets = nst.compute_targets(vgg, start, pair[1])
    image, _ = next(nst.optimize(vgg, start, targets, 1, learning_rate=learning_rate))
    assert (image - start).abs().sum().item() == pytest.approx(learning_rate, rel=1e-3)


@pytest.mark.parametrize("optimize", ["optimize", "optimize_in_tiles"])
@pytest.mark.parametrize(("learning_rate", "share"), [(1, 0.25), (0.1, 0.025), (10, 1)])
def test_a_step_that_is_too_long_is_shortened(
    nst, vgg, pair, monkeypatch, optimize, learning_rate, share
):
    """Here the optimiser moves a quarter of the places by 0.8, some up, some down."""
    proposed = torch.zeros_like(pair[0])
    proposed[..., ::2, ::4], proposed[..., ::2, 1::4] = 0.8, -0.8
    assert proposed.abs().mean() == pytest.approx(0.2)
    optimizers = []

    def jump(self, closure):
        optimizers.append(self)
        (image,) = self.param_groups[0]["params"]
        self.state[image]["t"] = 1.0
        image.data.add_(proposed)

    monkeypatch.setattr(torch.optim.LBFGS, "step", jump)
    targets = nst.compute_targets(vgg, *pair)
    steps = getattr(nst, optimize)(vgg, pair[0], targets, 1, learning_rate=learning_rate)
    image, _ = next(steps)
    assert torch.allclose(image, pair[0] + share * proposed, atol=1e-6)
    (state,) = optimizers[0].state.values()
    assert state["t"] == pytest.approx(share)


def test_the_optimiser_remembers_the_step_that_was_taken(nst, vgg, pair, monkeypatch):
    """Here it takes a hundred times the learning rate that it was given, so steps are too long."""
    optimizers, step = [], torch.optim.LBFGS.step

    def hasty_step(self, closure):
        optimizers.append(self)
        self.param_groups[0]["lr"] = 100
        return step(self, closure)

    monkeypatch.setattr(torch.optim.LBFGS, "step", hasty_step)
    targets, pictures = nst.compute_targets(vgg, *pair), []
    for image, _ in nst.optimize(vgg, pair[0], targets, 3):
        pictures.append(image.clone())
    taken = pictures[1] - pictures[0]
    assert taken.abs().mean() == pytest.approx(0.05, rel=1e-3)
    (state,) = optimizers[0].state.values()
    assert torch.allclose(state["old_stps"][-1], taken.flatten(), atol=1e-5)


@pytest.mark.parametrize("optimize", ["optimize", "optimize_in_tiles"])
def test_a_step_without_a_change_leaves_the_picture(nst, vgg, pair, monkeypatch, optimize):
    monkeypatch.setattr(torch.optim.LBFGS, "step", lambda self, closure: None)
    targets = nst.compute_targets(vgg, *pair)
    image, _ = next(getattr(nst, optimize)(vgg, pair[0], targets, 1))
    assert image.equal(pair[0])


def test_the_first_losses_are_those_of_the_start(nst, vgg, pair):
    content_targets, style_targets = targets = nst.compute_targets(vgg, *pair)
    features = nst.extract_features(vgg, pair[1][..., :64, :64], [*content_targets, *style_targets])
    grams = {layer: nst.gram_matrix(features[layer]) for layer in style_targets}
    content = nst.relative_error(features, content_targets).item()
    style = nst.relative_error(grams, style_targets).item()
    start = pair[1][..., :64, :64]
    steps = nst.optimize(vgg, start, targets, 1, content_weight=2, style_weight=3)
    _, losses = next(steps)
    assert losses["content"] == pytest.approx(content, rel=1e-5)
    assert losses["style"] == pytest.approx(style, rel=1e-5)
    assert losses["total"] == pytest.approx(2 * content + 3 * style, rel=1e-5)


def test_each_step_yields_what_the_next_starts_from(nst, vgg, pair):
    targets = nst.compute_targets(vgg, *pair)
    pictures, history = [], []
    for image, losses in nst.optimize(vgg, pair[0], targets, 4):
        pictures.append(image.clone())
        history.append(losses)
    _, again = next(nst.optimize(vgg, pictures[1], targets, 1))
    assert again["total"] == pytest.approx(history[2]["total"], rel=1e-5)


def test_forty_steps_lower_the_loss(nst, vgg, pair):
    targets = nst.compute_targets(vgg, *pair)
    _, history = nst.run(nst.optimize(vgg, pair[0], targets, 40))
    assert len(history) == 40
    assert history[-1]["total"] < 0.5 * history[0]["total"]


@pytest.mark.parametrize("scales", [(1,), (2, 1), (4, 2, 1)])
def test_steps_halve_when_sizes_double(nst, vgg, random_image, scales):
    content, style = random_image(1, 160, 176), random_image(2, 152, 136)
    steps = nst.stylize(vgg, content, style, num_steps=1, scales=scales)
    sizes = [tuple(image.shape[-2:]) for image, _ in steps]
    assert sizes == [(160 // scale, 176 // scale) for scale in scales for _ in range(scale)]


def test_a_run_begins_at_half_the_size(nst, vgg, pair):
    sizes = [tuple(image.shape[-2:]) for image, _ in nst.stylize(vgg, *pair, num_steps=1)]
    assert sizes == [(32, 32), (32, 32), (64, 64)]


def test_the_smallest_painting_is_not_made_too_small_for_the_network(nst, vgg, pair, random_image):
    painting = random_image(2, 32, 80)
    assert nst.shrink(painting, 2).shape[-2:] == (32, 40)
    image, _ = nst.run(nst.stylize(vgg, pair[0], painting, num_steps=2))
    assert image.isfinite().all()


def test_the_margin_is_cut_off(nst, vgg, random_image):
    """Without steps that move anything, the picture comes out where it was, at odd sizes too."""
    content = random_image(1, 136, 160)[..., :133, :]
    steps = nst.stylize(vgg, content, content, start=content, num_steps=1, learning_rate=1e-9)
    image, _ = nst.run(steps)
    assert image.shape == content.shape
    assert torch.allclose(image, content, atol=1e-3)


def test_settings_reach_the_loop(nst, vgg, pair):
    options = {"content_weight": 2, "style_weight": 3, "num_steps": 2}
    for _, losses in nst.stylize(vgg, *pair, **options):
        assert losses["total"] == pytest.approx(
            2 * losses["content"] + 3 * losses["style"], rel=1e-5
        )
    with pytest.raises(TypeError, match="styleweight"):
        nst.run(nst.stylize(vgg, *pair, styleweight=3))


def test_layers_are_an_argument(nst, vgg, pair):
    layers = ["relu2_1"], ["relu1_1", "relu3_1"]
    content_targets, style_targets = nst.compute_targets(vgg, *pair, *layers)
    assert list(content_targets) == ["relu2_1"]
    assert list(style_targets) == ["relu1_1", "relu3_1"]
    _, losses = next(nst.at_one_size(vgg, *pair, pair[0], layers=layers))
    assert losses["content"] == pytest.approx(0, abs=1e-9)


def test_a_run_is_repeated_bit_for_bit(nst, vgg, pair):
    first, again = (nst.run(nst.stylize(vgg, *pair, num_steps=6))[0] for _ in range(2))
    assert torch.equal(first, again)


def test_the_arguments_are_left_alone(nst, vgg, pair):
    before = [image.clone() for image in pair]
    nst.run(nst.stylize(vgg, *pair, start=pair[0], num_steps=3))
    assert all(torch.equal(image, earlier) for image, earlier in zip(pair, before, strict=True))
    assert not any(image.requires_grad for image in pair)


def test_bfloat16_stays_close_to_float32(nst, vgg, pair):
    rounded = nst.load_vgg19().to(torch.bfloat16)
    steps = []
    for network in (vgg, rounded):
        _, history = nst.run(nst.stylize(network, *pair, num_steps=2, scales=(1,)))
        steps.append(history)
    for precise, other in zip(*steps, strict=True):
        assert other == pytest.approx(precise, rel=0.05)


@pytest.mark.parametrize("init", ["content", "matched", "noise"])
def test_losses_fall_from_every_start(nst, vgg, pair, init):
    start = {"matched": None, "content": pair[0], "noise": nst.make_noise(*pair)}[init]
    image, history = nst.run(nst.stylize(vgg, *pair, start, num_steps=20))
    assert image.shape == pair[0].shape
    assert history[-1]["total"] < 0.5 * history[0]["total"]


def test_noise_depends_on_the_seed_alone_and_is_smooth(nst, pair):
    first, again, other = (nst.make_noise(*pair, seed) for seed in (7, 7, 8))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == (1, 3, 8, 8)
    assert 0 <= first.min() <= first.max() <= 1


def picture_and_losses(totals):
    """Yield pictures of growing brightness with these total losses."""
    for number, total in enumerate(totals):
        losses = {"content": 0.5, "style": 0.25, "total": total}
        yield torch.full((1, 3, 8, 8), number / 100), losses


def test_watch_keeps_the_last_picture_and_all_losses(nst):
    image, history = nst.watch(picture_and_losses([3.0, 2.0, 1.0]))
    assert image.unique().item() == pytest.approx(0.02)
    assert [losses["total"] for losses in history] == [3, 2, 1]


def test_watch_previews_every_third_step_with_a_line_of_text(nst, tmp_path, capsys):
    nst.watch(picture_and_losses([3.0] * 8), tmp_path / "a.png")
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]
    assert lines == [f"step {n}: content loss 0.50, style loss 0.250" for n in (1, 4, 7)]


def test_watch_does_not_keep_a_picture_that_later_steps_change(nst):
    def steps():
        image = torch.zeros(1, 3, 8, 8)
        for _ in range(3):
            image += 0.1
            yield image, {"total": 1.0}
        image += 9
        raise KeyboardInterrupt

    image, _ = nst.watch(steps())
    assert image.max() == pytest.approx(0.3)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 31.0])
def test_an_exploding_loss_stops_the_run_with_the_picture_before(nst, capsys, bad):
    image, history = nst.watch(picture_and_losses([3.0, 2.0, 2.5, bad, 1.0]))
    assert [losses["total"] for losses in history] == [3, 2, 2.5]
    assert image.unique().item() == pytest.approx(0.01)  # the loss after it was still fine
    assert "lower learning_rate" in capsys.readouterr().out


def test_a_run_that_exploded_replaces_no_result(nst, tmp_path):
    (tmp_path / "a.png").write_bytes(b"earlier")
    nst.watch(picture_and_losses([3.0, 2.0, 1e9]), tmp_path / "a.png")
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"a.png", "a-unfinished.png", "a-unfinished.gif"}
    assert (tmp_path / "a.png").read_bytes() == b"earlier"
    assert Image.open(tmp_path / "a-unfinished.png").size == (8, 8)


@pytest.mark.parametrize("first", [0.0, 7e-11, 0.5])
def test_a_loss_that_begins_near_zero_may_rise(nst, first, capsys):
    _, history = nst.watch(picture_and_losses([first, 9.0, 8.0]))
    assert len(history) == 3
    assert not capsys.readouterr().out


@pytest.mark.parametrize("totals", [[float("nan")], [1.0, float("nan")], []])
def test_a_run_without_one_good_step_is_an_error(nst, totals):
    with pytest.raises(RuntimeError, match="no step was of use: lower learning_rate"):
        nst.watch(picture_and_losses(totals))


@pytest.mark.parametrize("totals", [[], [3.0, 2.0]])
def test_stop_may_end_the_cells_that_follow(nst, totals, tmp_path):
    def steps():
        yield from picture_and_losses(totals)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        nst.watch(steps(), tmp_path / "a.png", end_on_stop=True)
    assert not list(tmp_path.iterdir())


def test_stop_keeps_what_there_is(nst, capsys):
    def steps():
        yield from picture_and_losses([3.0, 2.0])
        signal.raise_signal(signal.SIGINT)
        yield from picture_and_losses([1.0])

    image, history = nst.watch(steps())
    assert len(history) == 2
    assert image.unique().item() == pytest.approx(0.01)
    assert "Stopped after 2 steps" in capsys.readouterr().out


def test_stop_saves_picture_and_gif(nst, tmp_path):
    def steps():
        for seed in range(12):
            yield (
                torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(seed)),
                {"content": 0.5, "style": 0.25, "total": 1},
            )
        raise KeyboardInterrupt

    nst.watch(steps(), tmp_path / "a.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a-unfinished.gif",
        "a-unfinished.png",
    ]
    with Image.open(tmp_path / "a-unfinished.gif") as gif:
        assert gif.n_frames == 5  # steps 1, 4, 7 and 10, and the last, where it stopped


def test_watch_previews_every_third_step(nst, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(nst, "show", lambda images, captions, height: shown.append(captions[0]))
    nst.watch(picture_and_losses([1.0] * 25), tmp_path / "a.png")
    assert shown == [f"step {step}" for step in (1, 4, 7, 10, 13, 16, 19, 22, 25)]


@pytest.mark.parametrize("learning_rate", [3, 20])
def test_a_too_large_learning_rate_ends_in_a_sentence(nst, vgg, pair, capsys, learning_rate):
    image, history = nst.watch(nst.stylize(vgg, *pair, num_steps=50, learning_rate=learning_rate))
    assert image.isfinite().all()
    assert len(history) < 50
    assert "lower learning_rate" in capsys.readouterr().out


@pytest.mark.parametrize("value", [0, float("nan"), "high", None, [5], torch.ones(2), 5 + 1j])
def test_a_bad_number_is_refused_in_a_sentence(nst, value):
    sentence = f"style_weight is {value!r}: give a number from 1 to 9"
    with pytest.raises(ValueError, match=re.escape(sentence)):
        nst.check("style_weight", value, int | float, 1, 9)


@pytest.mark.parametrize("value", [2.0, "2", 0, 10, np.float32(2), torch.tensor(2.0)])
def test_a_whole_number_is_asked_for(nst, value):
    with pytest.raises(ValueError, match=r"num_steps is .*: give a whole number from 1 to 9"):
        nst.check("num_steps", value, int, 1, 9)


@pytest.mark.parametrize("value", [2, np.int64(2), np.uint8(2), np.array(2), torch.tensor(2)])
def test_numbers_of_numpy_and_pytorch_are_numbers(nst, value):
    number = nst.check("num_steps", value, int, 1, 9)
    assert (number, type(number)) == (2, int)
    assert nst.check("style_weight", value, int | float, 1, 9) == 2


@pytest.mark.parametrize("value", [np.float32(2.5), np.float64(2.5), torch.tensor(2.5)])
def test_decimals_of_numpy_and_pytorch_are_numbers(nst, value):
    number = nst.check("style_weight", value, int | float, 1, 9)
    assert (number, type(number)) == (2.5, float)


def test_a_lone_string_of_layers_is_one_layer(nst, vgg, pair):
    lone, listed = (
        next(nst.at_one_size(vgg, *pair, pair[0], layers=layers))[1]
        for layers in [("relu4_2", "relu3_1"), (["relu4_2"], ["relu3_1"])]
    )
    assert lone == listed


@pytest.mark.parametrize("layers", [([], ["relu1_1"]), (["relu4_2"], []), (["relu4_2"], "relu9")])
def test_no_layers_are_refused_in_a_sentence(nst, vgg, pair, layers):
    with pytest.raises(ValueError, match=r"no layer of .*: give names like relu4_2"):
        next(nst.at_one_size(vgg, *pair, pair[0], layers=layers))


def test_no_tensor_of_64_bits_reaches_the_network_or_its_gradient(nst, vgg, pair):
    """GPUs of Apple have none."""

    class Kinds(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), options=None):
            result = function(*arguments, **(options or {}))
            for tensor in result if isinstance(result, tuple | list) else [result]:
                if isinstance(tensor, torch.Tensor):
                    kinds.add(tensor.dtype)
            return result

    kinds = set()
    start = nst.match_colours(*pair)
    with Kinds():
        nst.run(nst.optimize(vgg, start, nst.compute_targets(vgg, *pair), 3))
    assert torch.float32 in kinds
    assert torch.float64 not in kinds
    assert nst.match_colours(*(image.half() for image in pair)).dtype == torch.float16


def test_masks_and_paintings_must_be_as_many(nst, vgg, asset):
    picture = asset("coffee", 64)
    two, mask = torch.cat([picture, picture]), torch.ones(1, 1, 64, 96)
    for style, masks in [(two, None), (two, mask), (picture, torch.cat([mask, mask]))]:
        with pytest.raises(ValueError, match="one mask for each painting"):
            next(nst.stylize(vgg, picture, style, picture, masks=masks))


def test_a_style_with_an_empty_mask_is_nowhere(nst, vgg, asset):
    picture = asset("coffee", 64)
    mask = torch.ones(1, 1, 64, 96)
    paintings = torch.cat([picture, picture.flip(1)])
    masks = torch.cat([mask, 0 * mask])
    image, _ = nst.run(nst.stylize(vgg, picture, paintings, picture, num_steps=3, masks=masks))
    assert (image - picture).abs().mean() < 0.05  # the first painting is the picture itself
