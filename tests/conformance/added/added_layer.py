"""A kind of layer that nobody ships, the average of 3x3 pixels, and a family whose blocks have it."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from fedsup_deploy.space.families.resnet import ResNetFamily
from fedsup_deploy.space.layers.kind import LayerKind, Operation, read_elements, written_elements
from fedsup_deploy.space.layers.layer import Layer
from fedsup_deploy.space.layers.nodes import Nodes
from fedsup_deploy.space.plan import BlockInput, BlockPlan


class Smooth(LayerKind):
    def operations(self, layer: Layer) -> list[Operation]:
        return [Operation("pool", 0, 0, read_elements(layer) + written_elements(layer))]

    def add_nodes(self, nodes: Nodes, layer: Layer, *values: str) -> str:
        sides: dict[str, Any] = {"kernel_shape": [3, 3], "strides": [1, 1], "pads": [1, 1, 1, 1]}
        return nodes.add("AveragePool", layer.name, [*values], **sides, count_include_pad=1)


class SmoothComputation:
    def forward(self, layer: Layer, weights: Mapping[str, Tensor], x_BCHW: Tensor) -> Tensor:  # noqa: ARG002
        return functional.avg_pool2d(x_BCHW, 3, 1, 1)

    def module(self, layer: Layer) -> nn.Module:  # noqa: ARG002
        return nn.AvgPool2d(3, 1, 1)


class SmoothFamily:
    def block(self, inputs: BlockInput) -> BlockPlan:
        block = ResNetFamily().block(inputs)
        first, *rest = block.main
        smooth = Layer(
            f"{inputs.name}.smooth",
            "smooth",
            first.out_channels,
            first.out_channels,
            first.out_size,
            3,
            is_active=inputs.is_active,
        )
        return BlockPlan(block.name, (first, smooth, *rest), block.shortcut, block.add)
