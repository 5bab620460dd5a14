"""What section 11 claims, on small pictures."""

from functools import partial

import numpy as np
import pytest
import torch
from definitions import NOTEBOOK, load_definitions

ASSETS = NOTEBOOK.parent / "assets"
STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")


@pytest.fixture(scope="module")
def load():
    nst = load_definitions()
    return lambda name, size=96: nst.load_image(ASSETS / f"{name}.jpg", size)


def style_targets(nst, vgg, style):
    return nst.compute_targets(vgg, style, style, [], STYLE_LAYERS)[1]


def test_a_deeper_layer_loses_more_pixels_but_keeps_its_features(nst, vgg, load):
    content, style = load("cat", 64), load("starry-night", 96)
    settings = {"init": "noise", "style_weight": 0, "tv_weight": 0, "num_steps": 40, "preview": False}
    pixels, features = [], []
    for layer in ("relu2_1", "relu4_1", "relu5_1"):
        image, history, _ = nst.stylize(vgg, content, style, content_layers=[layer], **settings)
        pixels.append(nst.relative_error(image, content).item())
        features.append(history[-1]["content"] / history[0]["content"])
    assert pixels[0] < 0.7 * pixels[1] < 0.49 * pixels[2], pixels
    assert max(features) < 0.25, features


def test_one_style_layer_does_not_bring_the_others_along(nst, vgg, load):
    content, style = load("cat", 64), load("starry-night", 96)
    settings = {"init": "noise", "content_weight": 0, "tv_weight": 0, "num_steps": 30, "preview": False}
    targets, losses = style_targets(nst, vgg, style), []
    for layers in (STYLE_LAYERS[:1], STYLE_LAYERS):
        image, _, _ = nst.stylize(vgg, content, style, style_layers=layers, **settings)
        losses.append(nst.style_loss(nst.extract_features(vgg, image, STYLE_LAYERS), targets).item())
    assert losses[1] < 0.2 * losses[0], losses


@pytest.mark.parametrize("picture", ["photograph", "extremes"])
def test_colours_are_kept_to_the_last_bit_but_one(nst, load, picture):
    photograph, result = load("cat"), load("starry-night", 96)
    result = nst.resize(result, photograph.shape[-2:])
    if picture == "extremes":
        generator = torch.Generator().manual_seed(0)
        photograph, result = (torch.rand(1, 3, 40, 60, generator=generator).round() for _ in range(2))
    kept = nst.keep_colours(result, photograph)
    assert -1e-6 <= kept.min() <= kept.max() <= 1 + 1e-6
    chroma = [np.asarray(nst.to_pil(x).convert("YCbCr"), dtype=int)[..., 1:] for x in (kept, photograph)]
    assert np.abs(chroma[0] - chroma[1]).max() <= 2
    if picture == "photograph":
        luminance = [nst.TF.rgb_to_grayscale(x) for x in (kept, result, photograph)]
        assert (luminance[0] - luminance[1]).abs().mean() < 0.2 * (luminance[2] - luminance[1]).abs().mean()


def test_side_by_side_is_the_mean_of_two_styles(nst, vgg, load):
    first, second = load("starry-night", 128), nst.resize(load("night-cafe", 128), load("starry-night", 128).shape[-2:])
    grams = [style_targets(nst, vgg, x) for x in (first, second, torch.cat([first, second], dim=3))]
    for layer in STYLE_LAYERS[:4]:  # at this size, each place of relu5_1 sees across the seam
        a, b, both = (gram[layer] for gram in grams)
        to_mean = nst.relative_error(both, (a + b) / 2)
        assert to_mean < 0.2 * nst.relative_error(both, a)
        assert to_mean < 0.2 * nst.relative_error(both, b)


def test_mixtures_go_from_one_style_to_the_other(nst, vgg, load):
    content, first = load("cat", 64), load("starry-night", 96)
    second = nst.resize(load("night-cafe", 96), first.shape[-2:])
    targets = [style_targets(nst, vgg, style) for style in (first, second)]
    losses = []
    for share in (0, 1, 2):
        mixture = torch.cat([first] * (2 - share) + [second] * share, dim=3)
        image, _, _ = nst.stylize(vgg, content, mixture, num_steps=25, preview=False)
        found = nst.extract_features(vgg, image, STYLE_LAYERS)
        losses.append([nst.style_loss(found, target).item() for target in targets])
    assert losses[0][0] < losses[1][0] < losses[2][0], losses
    assert losses[0][1] > losses[1][1] > losses[2][1], losses


def test_regional_gram_is_that_of_the_places_in_the_mask(nst):
    features = torch.rand(1, 5, 8, 12, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(1, 1, 8, 12)
    mask[..., :3] = 1
    found = nst.regional_gram(features, torch.cat([mask, 1 - mask]))
    assert torch.allclose(found[0], nst.gram_matrix(features[..., :3]), atol=1e-6)
    assert torch.allclose(found[1], nst.gram_matrix(features[..., 3:]), atol=1e-6)
    pictures = torch.rand(2, 5, 4, 4)
    assert torch.equal(nst.regional_gram(pictures, torch.cat([mask, 1 - mask]))[1], nst.gram_matrix(pictures[1:]))


@pytest.mark.parametrize("masks", [[1], [1, 0], [1, 1, 1]], ids=["too few", "empty", "too many"])
def test_masks_that_do_not_fit_the_paintings_are_refused_before_the_first_step(nst, vgg, load, monkeypatch, masks):
    picture = load("coffee", 64)
    masks = torch.stack([torch.full((1, 64, 96), float(value)) for value in masks])
    statistic = partial(nst.regional_gram, masks=masks)
    monkeypatch.setattr(nst, "take_steps", None)
    with pytest.raises(ValueError, match="one mask a painting, none empty"):
        nst.stylize(vgg, picture, torch.cat([picture, picture]), init="content", statistic=statistic, preview=False)


def test_each_region_is_nearer_to_its_own_style(nst, vgg, load):
    content, first = load("coffee", 96), load("starry-night", 144)
    styles = torch.cat([first, nst.resize(load("night-cafe", 144), first.shape[-2:])])
    mask = torch.zeros(1, 1, 96, 144)
    mask[..., :72] = 1
    masks = torch.cat([mask, 1 - mask])
    settings = {
        "init": "content",
        "num_steps": 25,
        "preview": False,
        "statistic": partial(nst.regional_gram, masks=masks),
    }
    image, _, _ = nst.stylize(vgg, content, styles, **settings)
    targets = [style_targets(nst, vgg, style[None]) for style in styles]
    for own, half in enumerate([image[..., :72], image[..., 72:]]):
        found = nst.extract_features(vgg, half, STYLE_LAYERS)
        losses = [nst.style_loss(found, target).item() for target in targets]
        assert losses[own] < 0.5 * losses[1 - own], losses


def moments(matrix):
    mean = matrix[:-1, -1]
    return mean, matrix[:-1, :-1] - mean[:, None] * mean


def test_gram_with_means_holds_mean_and_covariance(nst):
    features = torch.rand(1, 5, 8, 12, generator=torch.Generator().manual_seed(0))
    mean, covariance = moments(nst.gram_with_means(features))
    points = features.flatten(2)[0]
    assert torch.allclose(mean, points.mean(1))
    assert torch.allclose(covariance, torch.cov(points, correction=0), atol=1e-6)


def test_wasserstein_distance_is_that_of_gaussians(nst):
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(1, 4, 30, 40, generator=generator, dtype=torch.float64) for _ in range(2))
    A, B = nst.gram_with_means(a), nst.gram_with_means(b)
    size = A[:-1, :-1].trace()
    assert nst.wasserstein_distance(A, A) == pytest.approx(0, abs=1e-6)
    moved = nst.gram_with_means(a + 3)
    assert (nst.wasserstein_distance(moved, A) * size).item() == pytest.approx(4 * 9, rel=1e-5)
    stretched = nst.gram_with_means(2 * a)
    mean, covariance = moments(A)
    expected = mean.square().sum() + covariance.trace()  # points move by as much as they are away from 0
    assert (nst.wasserstein_distance(stretched, A) * size).item() == pytest.approx(expected.item(), rel=1e-5)
    points = a.flatten(2)[0]
    turn = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    stretch = turn @ turn.T + torch.eye(4, dtype=torch.float64)  # symmetric and positive, so it moves no point too far
    moved = nst.gram_with_means((stretch @ points).view(a.shape))
    expected = (stretch @ points - points).square().sum(0).mean()
    assert (nst.wasserstein_distance(moved, A) * size).item() == pytest.approx(expected.item(), rel=1e-3)
    assert nst.wasserstein_distance(B, A) > 0


def test_wasserstein_distance_of_a_painting_to_itself_is_nothing_in_bfloat16(nst, load):
    features = nst.extract_features(nst.load_vgg19(dtype=torch.bfloat16), load("starry-night"), STYLE_LAYERS)
    for layer in STYLE_LAYERS:
        A = nst.gram_with_means(features[layer])
        distance = nst.wasserstein_distance(A, A)
        assert distance.dtype == A.dtype == torch.float32
        assert abs(distance) < 2e-3, layer


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_wasserstein_distance_can_be_minimised(nst, load, dtype):
    vgg = nst.load_vgg19(dtype=dtype)
    settings = {"statistic": nst.gram_with_means, "distance": nst.wasserstein_distance, "preview": False}
    image, history, _ = nst.stylize(vgg, load("cat", 64), load("starry-night", 96), num_steps=15, **settings)
    assert image.isfinite().all()
    assert history[-1]["style"] < 0.5 * history[0]["style"]


def test_wasserstein_distance_keeps_more_content_at_the_same_distance_from_the_style(nst, vgg, load):
    content, style = load("cat"), load("starry-night", 144)
    statistic, distance = nst.gram_with_means, nst.wasserstein_distance
    targets = nst.compute_targets(vgg, content, style, ["relu4_2"], STYLE_LAYERS, statistic)
    losses = []
    for options in ({}, {"statistic": statistic, "distance": distance, "style_weight": 8}):
        image, _, _ = nst.stylize(vgg, content, style, num_steps=30, preview=False, **options)
        found = nst.extract_features(vgg, image, ["relu4_2", *STYLE_LAYERS])
        style_distance = nst.style_loss(found, targets[1], statistic, distance)
        losses.append((nst.content_loss(found, targets[0]).item(), style_distance.item()))
    (content_gram, distance_gram), (content_wasserstein, distance_wasserstein) = losses
    assert content_wasserstein < 0.9 * content_gram, losses
    assert distance_wasserstein < 1.1 * distance_gram, losses


def test_coarse_to_fine_gets_nearer_to_a_large_pattern(nst, vgg, load):
    """Measured on small copies of the results, where the large shapes are."""
    content, style = load("rocket", 256), load("starry-night", 256)
    losses = {}
    for coarse_to_fine, num_steps in {True: 10, False: 14}.items():
        image, _, _ = nst.stylize(
            vgg, content, style, coarse_to_fine=coarse_to_fine, num_steps=num_steps, preview=False
        )
        small, small_style = nst.resize(image, [64]), nst.resize(style, [64])
        found = nst.extract_features(vgg, small, STYLE_LAYERS[2:])
        targets = nst.compute_targets(vgg, small_style, small_style, [], STYLE_LAYERS[2:])[1]
        losses[coarse_to_fine] = nst.style_loss(found, targets).item()
    assert losses[True] < 0.8 * losses[False], losses
