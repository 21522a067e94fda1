"""`DeployableNet`: a plain module, of plain parts."""

import torch
from torch import nn

from fedsup_deploy.space.layers.kind import folded_shapes
from fedsup_deploy.space.search_space import SearchSpace
from fedsup_deploy.supernet.deployable import FoldedNetwork


def random_network(space: SearchSpace) -> FoldedNetwork:
    """The space's largest subnet, folded."""
    generator = torch.Generator().manual_seed(0)
    plan = space.plan(space.largest)
    shapes = [item for layer in plan.layers() for item in folded_shapes(layer).items()]
    return FoldedNetwork(plan, {name: torch.randn(shape, generator=generator) for name, shape in shapes})


def everything(space_of) -> SearchSpace:
    stage = {"widths": [6], "depths": [2], "expand_ratios": [2], "squeeze_excite": [True], "stride": 2}
    return space_of(stage, resolutions=[7])


def test_consists_of_ordinary_modules_only(space_of) -> None:
    space = everything(space_of)
    net = random_network(space).module()
    leaves = {type(module) for module in net.modules() if not list(module.children())}
    assert leaves <= {nn.Conv2d, nn.ReLU, nn.Identity, nn.AvgPool2d, nn.Linear, nn.Sequential}
    assert nn.AvgPool2d in leaves


def test_is_for_evaluation_and_needs_no_gradient(space_of) -> None:
    space = everything(space_of)
    net = random_network(space).module()
    assert not net.training
    assert not any(parameter.requires_grad for parameter in net.parameters())


def test_holds_exactly_the_given_tensors_as_copies(space_of) -> None:
    space = everything(space_of)
    network = random_network(space)
    net, weights = network.module(), network.weights
    held = sorted(float(parameter.double().sum()) for parameter in net.parameters())
    assert held == sorted(float(tensor.double().sum()) for tensor in weights.values())
    weights["stem.weight"].zero_()
    assert net.stem[0].weight.any()


def test_pooling_rounds_up_only_where_it_must(space_of) -> None:
    modes = {}
    for resolution in (7, 8):
        space = space_of({"widths": [6], "depths": [1], "stride": 2}, resolutions=[resolution])
        net = random_network(space).module()
        (pool,) = (module for module in net.modules() if isinstance(module, nn.AvgPool2d))
        modes[resolution] = pool.ceil_mode
        assert net(torch.zeros(1, 1, resolution, resolution)).shape == (1, 3)
    assert modes == {7: True, 8: False}


def test_resnet_block_ends_in_an_activation(space_of) -> None:
    space = space_of({"widths": [8], "depths": [1]}, family="resnet", stem={"widths": [8]})
    net = random_network(space).module()
    features = net.blocks(net.stem(torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))))
    assert float(features.min()) == 0.0
    assert float(features.max()) > 0.0
