"""The main picture against measures that a photograph, a painting, noise and a mesh do not pass."""

import pytest
import torch
from definitions import NOTEBOOK, load_definitions
from PIL import Image

nst = load_definitions()
TF = nst.TF


def load(name):
    return nst.load_image(NOTEBOOK.parent / "assets" / name, 512)


def lightness_steps(image, kernel):
    """Return how much the lightness of a blurred image changes at each place, [h - 1, w - 1]."""
    grey = TF.gaussian_blur(TF.rgb_to_grayscale(image), kernel)[0, 0]
    return (grey[1:, :-1] - grey[:-1, :-1]).hypot(grey[:-1, 1:] - grey[:-1, :-1])


def grid(image):
    """Return the power of fine detail along the pixel grid over that along the diagonals."""
    grey = TF.rgb_to_grayscale(image)[0, 0]
    window = torch.outer(*(torch.hann_window(side) for side in grey.shape))
    power = torch.fft.fft2((grey - grey.mean()) * window).abs().square()
    y, x = (torch.fft.fftfreq(side).abs() for side in grey.shape)
    y, x = torch.meshgrid(y, x, indexing="ij")
    fine = (y.hypot(x) > 0.26) & (y.hypot(x) < 0.42)
    along = (torch.atan2(y, x) - torch.pi / 4).abs() > torch.pi / 8
    return (power[fine & along].mean() / power[fine & ~along].mean()).item()


def flaws(image, photo, painting):
    """Return what keeps an image from being the photograph in the style of the painting."""
    found = []
    height, width = image.shape[2:]
    sky = (..., slice(0, height // 2), slice(2 * width // 3, width))  # to the right of the tower
    quantiles = torch.linspace(0, 1, 101)
    colours = [torch.quantile(x[0, c].flatten(), quantiles) for x in (image, painting) for c in range(3)]
    if (torch.stack(colours[:3]) - torch.stack(colours[3:])).abs().mean() > 0.03:
        found.append("colours")
    pair = torch.stack([lightness_steps(x, 9).flatten() for x in (image, photo)])
    if torch.corrcoef(pair)[0, 1] < 0.3:
        found.append("content")
    strokes = lightness_steps(image[sky], 3).mean() / lightness_steps(painting, 3).mean()
    if not 0.6 < strokes < 1.5:
        found.append("strokes")
    if grid(image[sky]) / grid(painting) > 1.6:
        found.append("grid")
    return found


@pytest.fixture(scope="module")
def pictures():
    result, photo = load("summer-palace-in-starry-night.jpg"), load("summer-palace.jpg")
    painting = load("starry-night.jpg")
    mesh = torch.zeros_like(result)
    mesh[..., ::3, :] -= 0.06
    mesh[..., ::3] -= 0.06
    return {
        "result": result,
        "photograph": photo,
        "photograph in other colours": nst.transport_colours(photo, painting),
        "painting": nst.resize(painting, result.shape[2:]),
        "noise": torch.rand(result.shape, generator=torch.Generator().manual_seed(0)),
        "mesh": (result + mesh).clamp(0, 1),
        "blurred": TF.gaussian_blur(result, 9),
        "originals": (photo, painting),
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("result", []),
        ("photograph", ["colours", "strokes"]),
        ("photograph in other colours", ["strokes"]),
        ("painting", ["content"]),
        ("noise", ["colours", "content", "strokes"]),
        ("mesh", ["grid"]),
        ("blurred", ["strokes"]),
    ],
)
def test_only_the_result_passes_for_a_painting_of_the_photograph(pictures, name, expected):
    found = flaws(pictures[name], *pictures["originals"])
    assert (found == []) if not expected else set(expected) <= set(found)


def test_the_main_picture_has_the_size_of_the_knobs():
    with Image.open(NOTEBOOK.parent / "assets" / "summer-palace-in-starry-night.jpg") as picture:
        assert min(picture.size) == 512
