import pytest
import torch
from definitions import NOTEBOOK, load_definitions


@pytest.fixture
def nst():
    """A fresh copy of the notebook's functions, which a test may patch."""
    return load_definitions()


@pytest.fixture(scope="session")
def vgg():
    return load_definitions().load_vgg19()


@pytest.fixture
def random_image():
    """A function that makes a smooth random image [1, 3, height, width] in [0, 1]."""

    def make(seed, height=64, width=64):
        generator = torch.Generator().manual_seed(seed)
        noise = torch.rand(1, 3, height // 8, width // 8, generator=generator)
        return torch.nn.functional.interpolate(noise, size=(height, width), mode="bilinear")

    return make


@pytest.fixture(scope="session")
def asset():
    """A function that loads one of the notebook's pictures."""
    nst = load_definitions()
    return lambda name, size=96: nst.load_image(NOTEBOOK.parent / "assets" / f"{name}.jpg", size)
