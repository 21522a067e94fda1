"""The networks of published tables: their known numbers of MACs and of parameters."""

import pytest

from fedsup_deploy.device.published import networks as reference_networks
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.space.cost import OP_KINDS

NUM_MACS = {
    "mnasnet-ncnn": 314_415_872,
    "mobilenet-v1": 568_740_352,
    "mobilenet-v1-vww": 7_489_664,
    "mobilenet-v2": 300_774_272,
    "mobilenet-v2-ncnn": 300_774_272 + 32 * 32 * 112**2,
    "nas-bench-201-net-0": 15_647_360,
    "resnet-18": 1_814_073_344,
    "resnet-50": 3_857_973_248,
    "resnet-50-at-299": 7_211_875_072,
    "resnet-8": 12_501_632,
    "squeezenet-ncnn": 387_747_520,
    "vgg-16": 15_470_264_320,
}


@pytest.mark.parametrize("name", reference_networks.names())
def test_a_network_has_its_known_number_of_macs(name: str) -> None:
    layers = reference_networks.layer_costs(name)
    assert layers.num_macs_NL.sum() == NUM_MACS[name]
    assert set(layers.ops) <= set(OP_KINDS)
    assert layers.is_active_NL.all()
    assert layers.num_macs_NL.shape == layers.moved_elements_NL.shape == (1, len(layers.ops))


def test_the_first_layer_of_resnet_8_by_hand() -> None:
    """3x3 on 32x32, 3 to 16 channels: 432 weights and 16 biases, 3,072 elements read and 16,384 written."""
    layers = reference_networks.layer_costs("resnet-8")
    assert layers.ops[0] == "conv"
    assert layers.num_macs_NL[0, 0] == 432 * 1024
    assert layers.moved_elements_NL[0, 0] == 432 + 16 + 3072 + 16384


def test_an_unknown_network_is_named_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown reference network 'resnet-19'; did you mean 'resnet-18'"):
        reference_networks.layer_costs("resnet-19")
