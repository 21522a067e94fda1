"""Every registered block family in every shipped space: what costs, slices and networks rely on."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from fedsup_deploy import registry, resources, rng
from fedsup_deploy.config.load import load_yaml, validate
from fedsup_deploy.space import cost, sampling
from fedsup_deploy.space.layers.layer import Layer
from fedsup_deploy.space.plan import BlockInput
from fedsup_deploy.space.search_space import SearchSpace
from fedsup_deploy.supernet.fold import fold
from fedsup_deploy.supernet.forward import forward
from fedsup_deploy.supernet.layout import Layout
from fedsup_deploy.supernet.model import Supernet
from fedsup_deploy.supernet.normalization import BY_BATCH, SumCollector
from fedsup_deploy.supernet.statistics import ChannelSums, PooledStatistics

FAMILIES = registry.names("family")
SPACES = resources.shipped_names("configs/spaces")
every_pair = pytest.mark.parametrize(("family", "name"), [(family, name) for family in FAMILIES for name in SPACES])
OPS = registry.names("layer")


def space_of(family: str, name: str) -> SearchSpace:
    """Return the shipped space with its blocks of another family."""
    space = validate(load_yaml(resources.find("configs/spaces", name)), SearchSpace)
    return SearchSpace.model_validate({**space.to_dict(), "family": family})


def thin(space: SearchSpace) -> SearchSpace:
    """Return the space at an eighth of its widths: a 7x7 convolution from 1,024 channels to as many is 200 MB."""
    document = space.to_dict()
    for part in (document["stem"], *document["stages"]):
        part["widths"] = sorted({max(1, width // 8) for width in part["widths"]})
    return SearchSpace.model_validate(document)


def some_architectures(space: SearchSpace, count: int = 6):
    return list(sampling.sandwich(space, rng.generator(0), count))


@pytest.mark.parametrize("name", SPACES)
def test_shipped_space_is_called_like_its_file(name: str) -> None:
    assert validate(load_yaml(resources.find("configs/spaces", name)), SearchSpace).name == name


@pytest.mark.parametrize("family", FAMILIES)
def test_family_says_what_it_is_and_where_it_comes_from(family: str) -> None:
    implementation = registry.resolve("family", family)
    assert "Source:" in (__import__(implementation.__module__, fromlist=["x"]).__doc__ or "")
    assert implementation.__doc__


@every_pair
def test_layers_are_well_formed_and_within_the_supernet(family: str, name: str) -> None:
    space = space_of(family, name)
    full = {layer.name: layer for layer in space.full_plan.layers()}
    for architecture in some_architectures(space, 12):
        layers = list(space.plan(architecture).layers())
        assert len({layer.name for layer in layers}) == len(layers)
        for layer in layers:
            assert layer.op in OPS
            assert layer.kernel_size % 2 == 1 or layer.op in ("pool", "global_pool")
            assert min(layer.in_channels, layer.out_channels, layer.in_size, layer.out_size) >= 1
            assert layer.in_channels <= full[layer.name].in_channels
            assert layer.out_channels <= full[layer.name].out_channels
            assert layer.kernel_size <= full[layer.name].kernel_size or layer.op == "global_pool"


@every_pair
def test_every_layer_of_the_supernet_is_needed_in_full_by_some_architecture(family: str, name: str) -> None:
    """No axis of a tensor is larger than the largest use of it."""
    space = space_of(family, name)
    sampled = sampling.random_genes(space, rng.generator(0), 3000)
    corners = np.stack([space.encode(space.largest), space.encode(space.smallest)])
    plan = space.plan_many(np.concatenate([sampled, corners]))
    many = len(sampled) + 2
    largest = {}
    for layer in plan.layers():
        is_active = np.broadcast_to(layer.is_active, many)
        if is_active.any():
            numbers = (layer.in_channels, layer.out_channels, layer.kernel_size)
            largest[layer.name] = [int(np.broadcast_to(number, many)[is_active].max()) for number in numbers]
    full = {
        layer.name: [layer.in_channels, layer.out_channels, layer.kernel_size] for layer in space.full_plan.layers()
    }
    assert largest == full


@every_pair
def test_main_path_and_shortcut_meet(family: str, name: str) -> None:
    """Both end in the shape that is added, and the main path starts from the block's input."""
    space = space_of(family, name)
    for architecture in some_architectures(space):
        plan = space.plan(architecture)
        channels, size = plan.stem.out_channels, plan.stem.out_size
        for block in plan.blocks:
            last = [layer for layer in block.main if layer.op != "squeeze_excite"][-1]
            shortcut = block.shortcut[-1] if block.shortcut else None
            wanted = (block.add.out_channels, block.add.out_size)
            assert (block.main[0].in_channels, block.main[0].in_size) == (channels, size)
            assert (last.out_channels, last.out_size) == wanted
            assert ((shortcut.out_channels, shortcut.out_size) if shortcut else (channels, size)) == wanted
            assert sum(layer.ends_residual for layer in block.main) == 1
            assert last.ends_residual
            channels, size = wanted


@every_pair
def test_one_architecture_is_planned_as_among_many(family: str, name: str) -> None:
    space = space_of(family, name)
    genes_NG = sampling.random_genes(space, rng.generator(1), 8)
    together = cost.costs(space, genes_NG)
    for index, genes in enumerate(genes_NG):
        assert cost.costs_of(space, [space.decode(genes)]).row(0) == together.row(index)


@every_pair
def test_folded_net_computes_what_the_supernet_does(family: str, name: str) -> None:
    """On the thin space, for the corners and random architectures, at their resolution; parameters as computed."""
    space = thin(space_of(family, name))
    layout = Layout(space, "batch")
    generator = torch.Generator().manual_seed(0)
    weights = {
        tensor: torch.randn(shape, generator=generator) / math.sqrt(math.prod(shape[1:]))
        if len(shape) > 1
        else float(tensor.endswith("gamma")) + 0.2 * torch.randn(shape, generator=generator)
        for tensor, shape in layout.shapes.items()
    }
    supernet = Supernet(layout, weights)
    for architecture in some_architectures(space, 4):
        subnet = supernet.extract(architecture)
        side = architecture.resolution
        x_BCHW = torch.randn(4, space.in_channels, side, side, generator=generator)
        collector = SumCollector(frozenset(layer.name for layer in subnet.plan.norm_layers()), BY_BATCH["batch"])
        # In float32, batch normalisation rounds more than this the larger the maps are: 50,000 values of a channel.
        exact = {name: tensor.double() for name, tensor in subnet.weights.items()}
        expected = forward(subnet.plan, exact, x_BCHW.double(), collector)
        statistics = PooledStatistics(
            {layer: ChannelSums(count, t.numpy(), s.numpy()) for layer, (count, t, s) in collector.sums.items()}
        )
        net = fold(subnet, statistics).module()
        # The statistics are those of this very batch, so fixed and batch normalisation agree.
        assert float((net(x_BCHW) - expected).abs().max()) <= 1e-4 * max(1.0, float(expected.abs().max()))
        num_params = cost.costs_of(space, [architecture]).row(0)["num_params"]
        assert sum(parameter.numel() for parameter in net.parameters()) == num_params


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("stride", [1, 2])
def test_block_of_many_is_the_blocks_of_each(family: str, stride: int) -> None:
    """A family computes on arrays what it computes on integers: no branch on a number."""
    make = registry.resolve("family", family)()
    columns = {
        "is_active": [True, True, False, True],
        "in_channels": [8, 16, 8, 24],
        "in_size": [7, 7, 7, 8],
        "width": [8, 24, 16, 24],
        "kernel_size": [3, 5, 3, 7],
        "expand_ratio": [1, 0.5, 2, 3],
        "has_se": [False, True, False, True],
    }
    together = make.block(BlockInput("b", stride, **{key: np.array(values) for key, values in columns.items()}))
    for index in range(4):
        alone = make.block(BlockInput("b", stride, **{key: values[index] for key, values in columns.items()}))
        for many, one in zip(layers_of(together), layers_of(alone), strict=True):
            for field in dataclasses.fields(Layer):
                value = getattr(many, field.name)
                picked = value if isinstance(value, str) else np.broadcast_to(value, 4)[index]
                if field.name == "is_active" or bool(np.broadcast_to(many.is_active, 4)[index]):
                    assert picked == getattr(one, field.name), (many.name, field.name)


def layers_of(block) -> list[Layer]:
    return [*block.main, *block.shortcut, block.add]
