"""Which channels go, how many, and when there is nothing more to take."""

from typing import Any

import numpy as np
import pytest
import torch

from fedsup_deploy.space import cost
from fedsup_deploy.space.layers.kind import owned_weights
from fedsup_deploy.space.plan import NetworkPlan
from fedsup_deploy.space.search_space import SearchSpace
from fedsup_deploy.supernet.deployable import FoldedNetwork
from fedsup_deploy.supernet.layout import Layout
from fedsup_deploy.supernet.model import Supernet, initial_weights
from fedsup_deploy.supernet.trimming import Kept, Trimmed, cut, trim


def folded_weights(plan: NetworkPlan, seed: int = 0) -> dict[str, torch.Tensor]:
    """A weight and a bias of every layer; all weights 1 or -1, so that every channel is worth the same."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {owner: shape for layer in plan.layers() for owner, shape in owned_weights(layer).items()}
    weights = {}
    for name, shape in shapes.items():
        weights[f"{name}.weight"] = torch.randint(0, 2, shape, generator=generator) * 2.0 - 1
        weights[f"{name}.bias"] = torch.zeros(shape[0])
    return weights


def num_params(plan: NetworkPlan) -> int:
    return cost.costs_of_plan(plan).row(0)["num_params"]


def at_most(limit: float) -> Any:
    return lambda plan: num_params(plan) / limit - 1


@pytest.fixture
def space(space_of) -> SearchSpace:
    """A stem of 16 channels and one block to 24: three groups of channels, of which that of the images never goes."""
    return space_of({"widths": [24], "depths": [1]}, stem={"widths": [16]})


def test_channels_of_no_weight_go_first_wherever_they_are_read(space: SearchSpace) -> None:
    """Channels 2 to 9 of the block are 0 in all layers that write or read them."""
    plan = space.plan(space.largest)
    weights = folded_weights(plan)
    for name in ("s1.0.project", "s1.0.shortcut"):
        weights[f"{name}.weight"][2:10] = 0
    weights["head.weight"][:, 2:10] = 0
    net = FoldedNetwork(plan, weights)
    trimmed = trim(net, 8, at_most(num_params(plan) - 1))
    assert trimmed is not None
    expected = {"s1.0.project": range(2, 10), "s1.0.shortcut": range(2, 10)}
    assert {
        name: range(*(kept.removed[[0, -1]] + [0, 1])) for name, kept in trimmed.kept.items() if len(kept.removed)
    } == expected
    x_BCHW = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(trimmed.module(x_BCHW), net.module()(x_BCHW), msg="nothing of the answer came from them")


def test_what_is_left_of_the_plan_by_hand(space: SearchSpace) -> None:
    """24 channels of the block become 16; parameters 160 + 160 + 408 + 408 + 75 by hand, and with 16 instead of 24."""
    plan = space.plan(space.largest)
    assert num_params(plan) == (16 * 9 + 16) + (16 * 9 + 16) + 2 * (16 * 24 + 24) + (24 * 3 + 3)
    weights = folded_weights(plan)
    weights["s1.0.project.weight"][8:16] = 0
    weights["s1.0.shortcut.weight"][8:16] = 0
    trimmed = trim(FoldedNetwork(plan, weights), 8, at_most(num_params(plan) - 1))
    assert trimmed is not None
    assert num_params(trimmed.plan) == (16 * 9 + 16) + (16 * 9 + 16) + 2 * (16 * 16 + 16) + (16 * 3 + 3)
    channels = {layer.name: (layer.in_channels, layer.out_channels) for layer in trimmed.plan.layers()}
    assert channels == {
        "stem": (1, 16),
        "s1.0.depthwise": (16, 16),
        "s1.0.project": (16, 16),
        "s1.0.shortcut": (16, 16),
        "s1.0.add": (16, 16),
        "head.pool": (16, 16),
        "head": (16, 3),
    }


def test_a_network_within_its_limits_is_left_as_it_is(space: SearchSpace) -> None:
    plan = space.plan(space.largest)
    net = FoldedNetwork(plan, folded_weights(plan))
    trimmed = trim(net, 8, at_most(num_params(plan)))
    assert trimmed is not None
    assert trimmed.plan == plan
    assert not any(len(kept.removed) for kept in trimmed.kept.values())


def test_the_network_that_is_given_stays_as_it_was(space: SearchSpace) -> None:
    plan = space.plan(space.largest)
    net = FoldedNetwork(plan, folded_weights(plan))
    before = {name: tensor.clone() for name, tensor in net.weights.items()}
    assert trim(net, 8, at_most(0.8 * num_params(plan))) is not None
    assert all(torch.equal(net.weights[name], tensor) for name, tensor in before.items())
    assert not any(tensor.requires_grad for tensor in net.weights.values())


def test_half_of_the_channels_stay_whatever_the_limit_is(space: SearchSpace) -> None:
    """Halved, the stem has 8 and the block 16, the multiple of 8 above its half: 80 + 80 + 2 * 144 + 51 parameters."""
    plan = space.plan(space.largest)
    net = FoldedNetwork(plan, folded_weights(plan))
    smallest = 80 + 80 + 2 * (8 * 16 + 16) + 51
    trimmed = trim(net, 8, at_most(smallest))
    assert trimmed is not None
    assert (trimmed.plan.stem.out_channels, trimmed.plan.blocks[0].add.out_channels) == (8, 16)
    assert num_params(trimmed.plan) == smallest
    assert trim(net, 8, at_most(smallest - 1)) is None


def test_a_limit_that_no_channel_changes_is_given_up_at_once(space: SearchSpace) -> None:
    plan = space.plan(space.largest)
    asked = []

    def too_high_a_resolution(plan: NetworkPlan) -> float:
        asked.append(plan)
        return plan.stem.in_size / 4 - 1

    assert trim(FoldedNetwork(plan, folded_weights(plan)), 8, too_high_a_resolution) is None
    assert len(asked) == 1 + 2, "the network, and one step of each group"


def test_channels_that_are_no_multiple_come_down_to_one(space_of) -> None:
    space = space_of({"widths": [28], "depths": [1]}, stem={"widths": [20]})
    plan = space.plan(space.largest)
    trimmed = trim(FoldedNetwork(plan, folded_weights(plan)), 8, at_most(0.8 * num_params(plan)))
    assert trimmed is not None
    assert {layer.out_channels for layer in (trimmed.plan.stem, trimmed.plan.blocks[0].add)} <= {16, 20, 24, 28}
    assert trimmed.plan != plan


def test_wide_groups_are_trimmed_in_larger_steps(space_of) -> None:
    """A sixteenth of 512 channels is 32, four times the quantum."""
    space = space_of({"widths": [512], "depths": [1]}, stem={"widths": [4]})
    plan = space.plan(space.largest)
    trimmed = trim(FoldedNetwork(plan, folded_weights(plan)), 8, at_most(num_params(plan) - 1))
    assert trimmed is not None
    assert trimmed.plan.blocks[0].add.out_channels == 512 - 32


@pytest.mark.parametrize("family", ["mobilenet", "resnet"])
def test_squeeze_excitation_and_expansion_lose_what_belongs_together(space_of, family: str) -> None:
    """The inner channels are those of the spatial convolution, of both ends of the gate and of the last convolution."""
    stage = {"widths": [16], "depths": [1], "expand_ratios": [2], "squeeze_excite": [True]}
    space = space_of(stage, family=family, stem={"widths": [16]})
    plan = space.plan(space.largest)
    spatial, last = {"mobilenet": ("depthwise", "project"), "resnet": ("spatial", "expand")}[family]
    weights = folded_weights(plan)
    # The gate is worth nothing to any channel, and half of the inner channels are worth nothing but to their sums.
    for name in (f"s1.0.{spatial}", "s1.0.se.expand"):
        weights[f"{name}.weight"][16:24] = 0
    weights[f"s1.0.{last}.weight"][:, 16:24] = 0
    weights["s1.0.se.reduce.weight"][:, 16:24] = 0
    trimmed = trim(FoldedNetwork(plan, weights), 8, at_most(num_params(plan) - 1))
    assert trimmed is not None
    expected = list(range(16, 24))
    for name in (f"s1.0.{spatial}", "s1.0.se.expand"):
        assert trimmed.kept[name].removed.tolist() == expected
    for name in (f"s1.0.{last}", "s1.0.se.reduce"):
        assert sorted(set(range(32)) - {*trimmed.kept[name].inputs.tolist()}) == expected


def test_cutting_takes_the_same_channels_of_vectors_and_weights(space: SearchSpace) -> None:
    layout = Layout(space, "parametric")
    subnet = Supernet(layout, initial_weights(layout, 0)).extract(space.largest)
    numbered = {
        name: torch.arange(tensor.numel(), dtype=torch.float32).reshape(tensor.shape)
        for name, tensor in subnet.weights.items()
    }
    subnet.weights.update(numbered)
    plan = space.plan(space.largest)
    weights = folded_weights(plan)
    for name in ("s1.0.project.weight", "s1.0.shortcut.weight"):
        weights[name][:8] = 0
    trimmed = trim(FoldedNetwork(plan, weights), 8, at_most(num_params(plan) - 1))
    assert trimmed is not None
    left = cut(subnet, trimmed)
    assert left.normalization == "parametric"
    for part in ("alpha", "gamma", "beta"):
        assert left.weights[f"s1.0.project.norm.{part}"].tolist() == list(range(8, 24))
    assert torch.equal(left.weights["s1.0.project.weight"], numbered["s1.0.project.weight"][8:])
    assert torch.equal(left.weights["head.weight"], numbered["head.weight"][:, 8:])
    assert torch.equal(left.weights["head.bias"], numbered["head.bias"])
    left.weights["stem.weight"].zero_()
    assert subnet.weights["stem.weight"].any(), "copies, not views"


def test_removed_channels_are_those_not_kept() -> None:
    kept = Kept(outputs=np.array([0, 2, 3]), inputs=np.array([0]), num_channels=5)
    assert kept.removed.tolist() == [1, 4]


def test_same_network_same_channels(space: SearchSpace) -> None:
    plan = space.plan(space.largest)
    found: list[Trimmed] = []
    for _ in range(2):
        trimmed = trim(FoldedNetwork(plan, folded_weights(plan)), 4, at_most(0.7 * num_params(plan)))
        assert trimmed is not None
        found.append(trimmed)
    first, second = ({name: kept.removed.tolist() for name, kept in each.kept.items()} for each in found)
    assert first == second
