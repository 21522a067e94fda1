"""Normalisations as affine maps, and affine maps as part of their convolution."""

import numpy as np
import pytest
import torch
from torch import nn

from fedsup_deploy.supernet.fold import affines, fold
from fedsup_deploy.supernet.layout import Layout
from fedsup_deploy.supernet.model import Subnet, Supernet, initial_weights
from fedsup_deploy.supernet.normalization import BATCH_EPSILON, PARAMETRIC_EPSILON
from fedsup_deploy.supernet.statistics import ChannelSums, PooledStatistics

#: One channel with the values 1, 2, 3, 6: mean 3, variance 3.5, mean square around 1 is 7.5.
STATISTICS = PooledStatistics({"l": ChannelSums(4, np.array([12.0]), np.array([50.0]))})
WEIGHTS = {
    "l.norm.alpha": torch.tensor([1.0]),
    "l.norm.gamma": torch.tensor([2.0]),
    "l.norm.beta": torch.tensor([0.5]),
}


def test_batch_normalisation_by_hand() -> None:
    affine = affines(WEIGHTS, "batch", STATISTICS)["l"]
    scale = 2 / (3.5 + BATCH_EPSILON) ** 0.5
    assert affine.scale_C.item() == pytest.approx(scale, rel=1e-6)
    assert affine.shift_C.item() == pytest.approx(0.5 - scale * 3, rel=1e-6)


def test_parametric_normalisation_by_hand() -> None:
    """Eq. 3: s = gamma / (r + eps), t = beta - s alpha."""
    affine = affines(WEIGHTS, "parametric", STATISTICS)["l"]
    scale = 2 / (7.5**0.5 + PARAMETRIC_EPSILON)
    assert affine.scale_C.item() == pytest.approx(scale, rel=1e-6)
    assert affine.shift_C.item() == pytest.approx(0.5 - scale * 1, rel=1e-6)


def test_dead_channel_stays_finite() -> None:
    dead = PooledStatistics({"l": ChannelSums(4, np.zeros(1), np.zeros(1))})
    weights = {**WEIGHTS, "l.norm.alpha": torch.zeros(1)}
    for kind in ("batch", "parametric"):
        affine = affines(weights, kind, dead)["l"]
        assert torch.isfinite(affine.scale_C).all()
        assert affine.shift_C.item() == pytest.approx(0.5)


def neutral_statistics(subnet: Subnet) -> PooledStatistics:
    """Mean 0 and variance 1 everywhere."""
    return PooledStatistics(
        {
            layer.name: ChannelSums(10, np.zeros(layer.out_channels), np.full(layer.out_channels, 10.0))
            for layer in subnet.plan.norm_layers()
        }
    )


@pytest.fixture
def subnet(space_of) -> Subnet:
    stage = {"widths": [6], "depths": [1], "expand_ratios": [2], "squeeze_excite": [True], "stride": 2}
    layout = Layout(space_of(stage), "batch")
    return Supernet(layout, initial_weights(layout, 0)).extract(layout.space.largest)


def test_scale_goes_into_the_weight_and_shift_into_the_bias(subnet: Subnet) -> None:
    subnet.weights["stem.norm.beta"] += torch.arange(4)
    net = fold(subnet, neutral_statistics(subnet)).module()
    stem = net.stem[0]
    assert torch.allclose(stem.weight, subnet.weights["stem.weight"] / (1 + BATCH_EPSILON) ** 0.5, rtol=1e-6)
    assert stem.bias.tolist() == [0.0, 1.0, 2.0, 3.0]


def test_folded_net_has_no_normalisation_and_what_has_none_is_unchanged(subnet: Subnet) -> None:
    net = fold(subnet, neutral_statistics(subnet)).module()
    assert not any("norm" in name.lower() for name, _ in net.named_parameters())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in net.modules())
    assert torch.equal(net.head.weight, subnet.weights["head.weight"])
    gate = net.blocks[0].main[2]
    assert torch.equal(gate.reduce.weight, subnet.weights["s1.0.se.reduce.weight"])


def test_subnet_is_left_as_it_is(subnet: Subnet) -> None:
    before = {name: tensor.clone() for name, tensor in subnet.weights.items()}
    net = fold(subnet, neutral_statistics(subnet)).module()
    for parameter in net.parameters():
        parameter.fill_(9.0)
    assert all(torch.equal(subnet.weights[name], tensor) for name, tensor in before.items())


def test_layer_without_statistics_is_an_error(subnet: Subnet) -> None:
    statistics = neutral_statistics(subnet)
    del statistics.layers["s1.0.project"]  # type: ignore[attr-defined]
    with pytest.raises(KeyError, match=r"s1\.0\.project"):
        fold(subnet, statistics)
