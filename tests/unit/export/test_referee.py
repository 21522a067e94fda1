"""fvcore counts again what a network is said to cost."""

import re

import pytest

from fedsup_deploy import resources
from fedsup_deploy.config.load import load_yaml, validate
from fedsup_deploy.device.building.graph import random_weights
from fedsup_deploy.errors import GateError
from fedsup_deploy.export.referee import check_macs, count_macs
from fedsup_deploy.space import cost
from fedsup_deploy.space.parts import parts_of
from fedsup_deploy.space.search_space import SearchSpace
from fedsup_deploy.supernet.deployable import FoldedNetwork


@pytest.fixture
def space() -> SearchSpace:
    return validate(load_yaml(resources.find("configs/spaces", "digits")), SearchSpace)


@pytest.fixture
def network(space) -> FoldedNetwork:
    import torch

    plan = space.plan(space.largest)
    weights = random_weights(parts_of(plan), 0)
    return FoldedNetwork(plan, {name: torch.from_numpy(array) for name, array in weights.items()})


def test_both_count_the_same(space, network):
    num_macs = int(cost.costs_of(space, [space.largest]).num_macs[0])
    assert count_macs(network) == num_macs > 0
    check_macs(network, num_macs, "a0123456789a")


def test_a_disagreement_fails_the_gate(network):
    counted = count_macs(network)
    reason = f"a0123456789a: num_macs: got {counted + 1}, expected {counted} as fvcore counts the exported network"
    with pytest.raises(GateError, match=f"^{re.escape(reason)}$"):
        check_macs(network, counted + 1, "a0123456789a")
