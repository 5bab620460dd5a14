import os

import pytest
import torch
from definitions import load_definitions

os.environ["MPLBACKEND"] = "agg"


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
        noise = torch.rand(1, 3, height // 8, width // 8, generator=torch.Generator().manual_seed(seed))
        return torch.nn.functional.interpolate(noise, size=(height, width), mode="bilinear")

    return make
