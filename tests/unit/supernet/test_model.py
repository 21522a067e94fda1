"""`Supernet`, `Subnet` and the weights training starts from."""

import math

import pytest
import torch

from fedsup_deploy.errors import ArtifactError
from fedsup_deploy.space.search_space import SearchSpace
from fedsup_deploy.supernet.layout import Layout
from fedsup_deploy.supernet.model import RESIDUAL_GAMMA, Subnet, Supernet, initial_weights


@pytest.fixture(scope="module")
def layout(tiny_space: SearchSpace) -> Layout:
    return Layout(tiny_space, "parametric")


def images(count: int, resolution: int = 8) -> torch.Tensor:
    return torch.randn(count, 1, resolution, resolution, generator=torch.Generator().manual_seed(0))


def test_initial_vectors_are_neutral_and_the_main_path_of_a_block_damped(layout: Layout) -> None:
    weights = initial_weights(layout, 0)
    for name, tensor in weights.items():
        if name.endswith(".project.norm.gamma"):
            assert (tensor == RESIDUAL_GAMMA).all(), name
        elif name.endswith(".gamma"):
            assert (tensor == 1).all(), name
        elif tensor.ndim == 1:
            assert not tensor.any(), name
        else:
            assert tensor.any(), name
    assert 0 <= RESIDUAL_GAMMA < 1


def test_initial_weights_have_the_variance_of_their_fan_out(space_of) -> None:
    """Standard deviations sqrt(2 / fan-out): 3x3 stem to 64: 576; depthwise 5x5: 25; 1x1 to 256: 256; head 0.01."""
    space = space_of(
        {"widths": [256], "depths": [1], "kernel_sizes": [5]}, stem={"widths": [64]}, in_channels=64, num_classes=100
    )
    weights = initial_weights(Layout(space, "batch"), 0)
    for name, deviation in {
        "stem.weight": math.sqrt(2 / 576),
        "s1.0.depthwise.weight": math.sqrt(2 / 25),
        "s1.0.project.weight": math.sqrt(2 / 256),
        "head.weight": 0.01,
    }.items():
        assert float(weights[name].std()) == pytest.approx(deviation, rel=0.05), name
        assert float(weights[name].mean()) == pytest.approx(0, abs=0.1 * deviation), name


def test_initial_weights_follow_the_seed_alone(layout: Layout) -> None:
    first, again, other = (initial_weights(layout, seed) for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["stem.weight"], other["stem.weight"])


def test_initial_tensor_depends_on_its_own_name_not_on_the_others(space_of) -> None:
    """A space with more stages starts the tensors it shares with a smaller one alike."""
    stage = {"widths": [4], "depths": [1]}
    small, large = (initial_weights(Layout(space_of(*[stage] * count), "batch"), 0) for count in (1, 2))
    assert torch.equal(small["s1.0.project.weight"], large["s1.0.project.weight"])


def test_normaliser_is_by_default_that_of_the_batch(layout: Layout) -> None:
    supernet = Supernet(layout, initial_weights(layout, 0))
    architecture = layout.space.largest
    both, alone = supernet(images(2), architecture), supernet(images(1), architecture)
    assert both.shape == (2, 3)
    assert not torch.allclose(both[:1], alone, atol=1e-4)


def test_extracted_weights_are_copies(layout: Layout) -> None:
    supernet = Supernet(layout, initial_weights(layout, 0))
    subnet = supernet.extract(layout.space.smallest)
    before = {name: tensor.clone() for name, tensor in supernet.weights.items()}
    for tensor in subnet.weights.values():
        tensor.fill_(7.0)
    assert all(torch.equal(supernet.weights[name], tensor) for name, tensor in before.items())


def test_extracted_subnet_trained_by_batch_equals_the_supernet(layout: Layout) -> None:
    supernet = Supernet(layout, initial_weights(layout, 0))
    architecture = layout.space.smallest
    subnet = supernet.extract(architecture)
    assert torch.equal(subnet(images(3, 6)), supernet(images(3, 6), architecture))


def test_supernet_has_its_own_mapping(layout: Layout) -> None:
    weights = initial_weights(layout, 0)
    supernet = Supernet(layout, weights)
    weights.clear()
    assert supernet.weights.keys() == layout.shapes.keys()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("head.bias"), "supernet of space tiny: tensor head.bias is missing"),
        (lambda weights: weights.update(extra=torch.zeros(1)), "tensor extra is not part of it"),
        (
            lambda weights: weights.update({"head.bias": torch.zeros(4)}),
            r"tensor head.bias is \(4,\) torch.float32, expected \(3,\) torch.float32",
        ),
        (
            lambda weights: weights.update({"head.bias": torch.zeros(3, dtype=torch.float64)}),
            r"tensor head.bias is \(3,\) torch.float64, expected",
        ),
    ],
)
def test_tensors_of_another_network_are_refused(layout: Layout, change, message: str) -> None:
    weights = initial_weights(layout, 0)
    change(weights)
    with pytest.raises(ArtifactError, match=message):
        Supernet(layout, weights)


def test_subnet_refuses_the_tensors_of_the_supernet(layout: Layout) -> None:
    with pytest.raises(ArtifactError, match=r"^subnet: tensor .* is"):
        Subnet(layout.plan(layout.space.smallest), "parametric", initial_weights(layout, 0))
