"""A supernet that is grown from one subnet answers as that subnet does."""

import dataclasses

import pytest
import torch

from fedsup_deploy.space.architecture import Architecture
from fedsup_deploy.space.search_space import SearchSpace
from fedsup_deploy.supernet.growth import grow
from fedsup_deploy.supernet.layout import Layout
from fedsup_deploy.supernet.model import Supernet, initial_weights


@pytest.fixture
def space(space_of) -> SearchSpace:
    """Each block changes its number of channels or never does; 6 and 10 channels are no multiples of 4."""
    first = {"widths": [4, 6, 10], "depths": [1, 3], "kernel_sizes": [1, 3, 5]}
    return space_of(first, {"widths": [12, 15], "depths": [1, 2], "stride": 2}, stem={"widths": [3]})


def trained(layout: Layout) -> dict[str, torch.Tensor]:
    """Random weights everywhere."""
    generator = torch.Generator().manual_seed(1)
    return {
        name: tensor + 0.3 * torch.randn(tensor.shape, generator=generator)
        for name, tensor in initial_weights(layout, 0).items()
    }


@pytest.mark.parametrize("normalization", ["batch", "parametric"])
def test_every_subnet_answers_as_the_one_that_it_was_grown_from(space: SearchSpace, normalization: str) -> None:
    layout = Layout(space, normalization)
    weights = trained(layout)
    grown = Supernet(layout, grow(weights, layout, space.smallest, 0))
    side = max(space.resolutions)
    x_BCHW = torch.randn(5, 1, side, side, generator=torch.Generator().manual_seed(2))
    expected = Supernet(layout, weights)(x_BCHW, space.smallest)
    assert torch.equal(grown(x_BCHW, space.smallest), expected)
    for genes in space.enumerate_genes():
        architecture = space.decode(genes)
        assert torch.allclose(grown(x_BCHW, architecture), expected, atol=1e-4), architecture
    assert not torch.allclose(Supernet(layout, weights)(x_BCHW, space.largest), expected, atol=0.1)


def test_copies_of_a_channel_differ_and_what_is_new_can_learn(space: SearchSpace) -> None:
    """Ten channels of four: each is copied, and every tensor of the largest subnet gets a gradient."""
    layout = Layout(space, "batch")
    grown = grow(trained(layout), layout, space.smallest, 0)
    depthwise = grown["s2.0.depthwise.weight"]
    assert depthwise.shape[0] == 10
    assert not torch.allclose(depthwise[4:8], depthwise[:4], rtol=0.05)
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in grown.items()}
    side = max(space.resolutions)
    logits = Supernet(layout, leaves)(torch.randn(5, 1, side, side), space.largest)
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 0, 1])).backward()
    without = {name for name in layout.slices(space.largest) if not leaves[name].grad.any()}
    # A block that adds nothing learns first how much to add.
    assert {name for name in without if "project" in name and "norm" in name} == set()
    assert {name.split(".")[0] + "." + name.split(".")[1] for name in without} == {"s1.1", "s1.2", "s2.1"}


def test_same_seed_same_growth_and_the_given_weights_stay(space: SearchSpace) -> None:
    layout = Layout(space, "batch")
    weights = trained(layout)
    first, again, other = (grow(weights, layout, space.smallest, seed) for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["stem.weight"], other["stem.weight"]) or len(weights["stem.weight"]) == 3
    assert not torch.equal(first["s2.0.project.weight"], other["s2.0.project.weight"])
    assert all(torch.equal(weights[name], tensor) for name, tensor in trained(layout).items())


def test_layer_in_place_of_an_identity_starts_as_one(space_of) -> None:
    """The smallest, 4 -> 4, has no convolution on its shortcut; of 6 -> 4 channels it lets the first four pass."""
    space = space_of({"widths": [4, 6], "depths": [1]}, stem={"widths": [4, 6]})
    layout = Layout(space, "batch")
    grown = grow(trained(layout), layout, Architecture.from_dict(space.smallest.to_dict()), 0)
    weight = grown["s1.0.shortcut.weight"][:, :, 0, 0]
    assert torch.equal(weight, torch.eye(6))
    x_BCHW = torch.randn(5, 1, 8, 8)
    larger = dataclasses.replace(space.smallest, stem_width=6)
    assert Supernet(layout, grown)(x_BCHW, larger).isfinite().all()
