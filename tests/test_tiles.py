"""Pictures larger than memory: the losses and their gradient from tiles are those of the whole."""

import pytest
import torch


def gradient(nst, targets, image, measure):
    """Return the losses of `image` and the gradient of the total loss."""
    image = image.clone().requires_grad_()
    features, grams = measure(image)
    content_loss = nst.relative_error(features, targets[0])
    style_loss = nst.relative_error(grams, targets[1])
    (3 * content_loss + 20 * style_loss).backward()
    return [content_loss.item(), style_loss.item()], image.grad


def measures(nst, vgg, masks=None, **options):
    """Return two functions: features and Gram matrices of a picture as a whole, and from tiles."""

    def whole(image):
        features = nst.extract_features(vgg, image, nst.CONTENT_LAYERS + nst.STYLE_LAYERS)
        masked = features if masks is None else nst.apply_masks(features, masks)
        return features, {layer: nst.gram_matrix(masked[layer]) for layer in nst.STYLE_LAYERS}

    def tiled(image):
        return nst.measure_in_tiles(
            vgg, image, nst.CONTENT_LAYERS, nst.STYLE_LAYERS, masks, **options
        )

    return whole, tiled


def relative_difference(a, b):
    return ((a - b).norm() / b.norm()).item()


# Tiles that divide the picture, that do not, that leave a strip narrower than the deepest stride,
# that are as large as the picture, and larger; odd sizes; two styles by region.
@pytest.mark.parametrize(
    ("size", "tile", "regions"),
    [
        ((256, 384), 128, False),
        ((299, 333), 128, False),
        ((261, 200), 128, True),
        ((193, 257), 64, False),
        ((192, 256), 256, False),
        ((75, 90), 448, False),
    ],
)
def test_losses_and_gradient_are_those_of_the_whole(nst, vgg, random_image, size, tile, regions):
    content, image = (nst.resize(random_image(seed, 160, 160), list(size)) for seed in (1, 2))
    style, masks = random_image(3, 136, 152), None
    if regions:
        style = torch.cat([style, random_image(4, 136, 152)])
        mask = nst.resize(random_image(5), list(size))[:, :1]
        masks = torch.cat([mask, 1 - mask])
    targets = nst.compute_targets(vgg, content, style)
    whole, tiled = measures(nst, vgg, masks, tile=tile)
    losses, expected = gradient(nst, targets, image, whole)
    tiled_losses, found = gradient(nst, targets, image, tiled)
    assert tiled_losses == pytest.approx(losses, rel=1e-5)
    assert relative_difference(found, expected) < 1e-5
    border = torch.ones_like(found, dtype=torch.bool)
    border[..., 8:-8, 8:-8] = False
    assert relative_difference(found[border], expected[border]) < 1e-5


def test_tiles_are_about_equal(nst, vgg, random_image, monkeypatch):
    """576 pixels are two tiles of 288, not 544 and a strip of 32; each box has a halo of 80."""
    boxes, extract = [], nst.extract_features

    def spy(vgg, image, layers):
        boxes.append(tuple(image.shape[2:]))
        return extract(vgg, image, layers)

    monkeypatch.setattr(nst, "extract_features", spy)
    nst.measure_in_tiles(vgg, random_image(1, 64, 576), ["relu2_1"], ["relu1_1"])
    assert boxes == [(64, 368)] * 2


def test_a_halo_that_is_too_small_is_noticed_by_this_measure(nst, vgg, random_image):
    content, image, style = (random_image(seed, 256, 256) for seed in (1, 2, 3))
    targets = nst.compute_targets(vgg, content, style)
    whole, tiled = measures(nst, vgg, tile=128, halo=32)
    expected, found = (gradient(nst, targets, image, measure)[1] for measure in (whole, tiled))
    assert relative_difference(found, expected) > 1e-3


def test_the_features_of_a_tile_are_not_kept(nst, vgg, random_image):
    """What the graph holds after the first pass is less than the features of one tile."""
    held = []
    hooks = torch.autograd.graph.saved_tensors_hooks(
        lambda x: held.append(x.untyped_storage().nbytes()) or x, lambda x: x
    )
    image = random_image(1, 256, 256).requires_grad_()
    with hooks:
        nst.measure_in_tiles(vgg, image, nst.CONTENT_LAYERS, nst.STYLE_LAYERS, tile=64)
    one_tile = 64 * 64 * 64 * 4  # relu1_1, 64 channels of float32
    assert sum(held) < one_tile


def test_steps_in_tiles_are_the_steps_of_the_whole(nst, vgg, random_image, monkeypatch):
    content, style = random_image(1, 160, 200), random_image(2, 136, 152)
    start = nst.match_colours(content, style)
    targets = nst.compute_targets(vgg, content, style)
    settings = {"content_weight": 3, "style_weight": 10, "learning_rate": 0.5}
    whole = nst.run(nst.optimize(vgg, start, targets, 4, **settings))
    measure = nst.measure_in_tiles
    monkeypatch.setattr(nst, "measure_in_tiles", lambda *args: measure(*args, tile=64))
    tiled = nst.run(nst.optimize_in_tiles(vgg, start, targets, 4, **settings))
    assert (tiled[0] - whole[0]).norm() < 1e-3 * (whole[0] - start).norm()
    for one, other in zip(tiled[1], whole[1], strict=True):
        assert one == pytest.approx(other, rel=1e-4)


def test_a_small_picture_in_tiles_is_that_of_stylize(nst, vgg, random_image):
    content, style = random_image(1, 64, 96), random_image(2, 64, 72)
    start = nst.match_colours(content, style)
    whole, history = nst.run(nst.stylize(vgg, content, style, start, 2))
    tiled, tiled_history = nst.run(nst.stylize_in_tiles(vgg, content, style, start, 2, (2, 1)))
    assert tiled.equal(whole)
    assert tiled_history == history


def test_a_large_picture_goes_from_coarse_to_fine(nst, vgg, random_image):
    """A quarter and half the size as a whole, the full size in tiles, with masks at all."""
    content = random_image(1, 704, 720)
    styles = torch.cat([random_image(seed, 64, 72) for seed in (2, 3)])
    masks = random_image(4, 704, 720)[:, :1]
    masks = torch.cat([masks, 1 - masks])
    start = nst.match_by_region(content, styles, masks)
    sizes, losses = [], []
    steps = nst.stylize_in_tiles(vgg, content, styles, start, 2, (4, 2, 1), masks)
    for image, step_losses in steps:
        sizes.append(tuple(image.shape[2:]))
        losses.append(step_losses["total"])
    assert sizes == [(176, 180)] * 8 + [(352, 360)] * 4 + [(704, 720)] * 2
    assert losses[7] < 0.9 * losses[0]
    assert losses[11] < losses[8]
    assert image.isfinite().all()
