"""The forward pass on networks whose answer can be worked out."""

import dataclasses

import torch
from torch.nn import functional

from fedsup_deploy.space.search_space import SearchSpace
from fedsup_deploy.supernet import slices as rule
from fedsup_deploy.supernet.forward import at_resolution, forward
from fedsup_deploy.supernet.layers.computation import computation_of
from fedsup_deploy.supernet.normalization import ChannelAffine, FixedAffine


def identity(space: SearchSpace) -> FixedAffine:
    """Normalisations that change nothing."""
    return FixedAffine(
        {
            layer.name: ChannelAffine(torch.ones(layer.out_channels), torch.zeros(layer.out_channels))
            for layer in space.full_plan.norm_layers()
        }
    )


def constant_weights(space: SearchSpace, value: float) -> dict[str, torch.Tensor]:
    return {name: torch.full(shape, value) for name, shape in rule.shapes(space.full_plan, "batch").items()}


def test_network_of_ones_by_hand(space_of) -> None:
    """A 1x1 image of value 1: every kernel of ones with padding passes its centre only.

    Stem 1; two channels: depthwise 1, projection 2, plus the shortcut 1 is 3; the head adds 2 x 3 and its bias of 1.
    """
    space = space_of({"widths": [2], "depths": [1]}, resolutions=[1], stem={"widths": [2]})
    logits = forward(space.full_plan, constant_weights(space, 1.0), torch.ones(1, 1, 1, 1), identity(space))
    assert logits.tolist() == [[7.0, 7.0, 7.0]]


def test_squeeze_excite_by_hand(space_of) -> None:
    """Four channels of 1: hidden relu(4 + 1) = 5, gate hardsigmoid(5 + 1) = 1, so nothing changes.

    With a bias of the gate of -5 - 1.5 it is hardsigmoid(-1.5) = 0.25: projection 4 x 0.25 plus shortcut 1 is 2, and
    the head 4 x 2 + 1.
    """
    stage = {"widths": [4], "depths": [1], "squeeze_excite": [True]}
    space = space_of(stage, resolutions=[1])
    weights = constant_weights(space, 1.0)
    assert forward(space.full_plan, weights, torch.ones(1, 1, 1, 1), identity(space)).tolist() == [[21.0] * 3]
    weights["s1.0.se.expand.bias"] = torch.full((4,), -6.5)
    assert forward(space.full_plan, weights, torch.ones(1, 1, 1, 1), identity(space)).tolist() == [[9.0] * 3]


def test_shortcut_pools_before_it_projects_and_odd_edges_are_means_of_what_is_there(space_of) -> None:
    """A 3x3 map of 0 .. 8 pools to the means of {0, 1, 3, 4}, {2, 5}, {6, 7} and {8}: 2, 3.5, 6.5 and 8."""
    space = space_of({"widths": [3], "depths": [1], "stride": 2}, resolutions=[3], stem={"widths": [1]})
    weights = constant_weights(space, 0.0)
    weights["stem.weight"][:, :, 1, 1] = 1.0
    weights["s1.0.shortcut.weight"][1] = 2.0
    image = torch.arange(9.0).reshape(1, 1, 3, 3)
    features = forward(space.full_plan.until("s1.0.shortcut"), weights, image, identity(space))
    assert features[0, 1].flatten().tolist() == [4.0, 7.0, 13.0, 16.0]
    assert features[0, 0].flatten().tolist() == [0.0] * 4


def test_plan_without_a_head_gives_the_feature_map(tiny_space: SearchSpace) -> None:
    weights = constant_weights(tiny_space, 0.1)
    part = forward(tiny_space.full_plan.until("stem"), weights, torch.ones(2, 1, 8, 8), identity(tiny_space))
    assert part.shape == (2, 6, 8, 8)


def test_negative_values_pass_a_linear_bottleneck_but_not_a_sum_with_activation(space_of) -> None:
    """The sum of a mobilenet block has no ReLU, that of a resnet block has."""
    signs = {}
    for family in ("mobilenet", "resnet"):
        space = space_of({"widths": [8], "depths": [1]}, family=family, resolutions=[1], stem={"widths": [8]})
        weights = constant_weights(space, 1.0)
        last = space.full_plan.blocks[0].main[-1].name
        weights[f"{last}.weight"] = torch.full((8, 8, 1, 1), -1.0)
        until = space.full_plan.until(last)
        signs[family] = float(forward(until, weights, torch.ones(1, 1, 1, 1), identity(space)).min())
    assert signs == {"mobilenet": -7.0, "resnet": 0.0}


def test_input_is_left_alone(tiny_space: SearchSpace) -> None:
    image = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    before = image.clone()
    forward(tiny_space.full_plan, constant_weights(tiny_space, 0.1), image, identity(tiny_space))
    assert torch.equal(image, before)


def test_resizing_is_bilinear_and_nothing_where_the_size_is_right() -> None:
    image = torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]])
    assert at_resolution(image, 2) is image
    assert at_resolution(image, 1).tolist() == [[[[1.5]]]]
    expected = functional.interpolate(image, size=(3, 3), mode="bilinear", align_corners=False)
    assert torch.equal(at_resolution(image, 3), expected)
    assert expected[0, 0, 1].tolist() == [1.0, 1.5, 2.0]


def test_convolution_of_one_pixel_with_a_stride(space_of) -> None:
    """The weight gradient of torch writes outside of its memory here: 2 of 3 channels, every other pixel."""
    stem = {"widths": [2], "kernel_size": 1, "stride": 2}
    space = space_of({"widths": [2], "depths": [1]}, resolutions=[12], stem=stem)
    generator = torch.Generator().manual_seed(0)
    layer = dataclasses.replace(space.full_plan.stem, in_channels=3)
    weight = torch.randn(2, 3, 1, 1, generator=generator, requires_grad=True)
    x_BCHW = torch.randn(4, 3, 12, 12, generator=generator)
    upstream = torch.randn(4, 2, 6, 6, generator=generator)
    x_of_layer = x_BCHW.contiguous(memory_format=torch.channels_last)
    y = computation_of(layer).forward(layer, {f"{layer.name}.weight": weight}, x_of_layer)
    y.backward(upstream)
    seen = x_BCHW[:, :, ::2, ::2]
    assert torch.allclose(y, torch.einsum("bchw,oc->bohw", seen, weight[:, :, 0, 0]), atol=1e-6)
    assert weight.grad is not None
    assert torch.allclose(weight.grad[:, :, 0, 0], torch.einsum("bchw,bohw->oc", seen, upstream), atol=1e-5)
