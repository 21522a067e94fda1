"""Convolutions: dense, depthwise, and 1x1."""

from fedsup_deploy.space.layers.kind import LayerKind, Operation, Shape, read_elements, written_elements
from fedsup_deploy.space.layers.layer import Layer, Number
from fedsup_deploy.space.layers.nodes import Nodes


class ConvolutionKind(LayerKind):
    """`conv`: k x k over all channels, padded by k // 2."""

    is_named_by_outputs = True

    def weights(self, layer: Layer) -> dict[str, Shape]:
        """Return one weight: (out, in / groups, k, k)."""
        return {"": (layer.out_channels, self._fan_in(layer), layer.kernel_size, layer.kernel_size)}

    def operations(self, layer: Layer) -> list[Operation]:
        """Return one operation."""
        weights = layer.out_channels * self._fan_in(layer) * layer.kernel_size**2
        params = weights + layer.out_channels
        moved = read_elements(layer) + written_elements(layer) + params
        return [Operation(layer.op, weights * layer.out_size**2, params, moved)]

    def add_nodes(self, nodes: Nodes, layer: Layer, *values: str) -> str:
        """Add a Conv."""
        side = layer.kernel_size
        return nodes.add(
            "Conv",
            layer.name,
            [*values, *nodes.weights_of(layer.name)],
            kernel_shape=[side, side],
            strides=[layer.stride] * 2,
            pads=[side // 2] * 4,
            group=self.groups(layer),
        )

    def _fan_in(self, layer: Layer) -> Number:
        """Return the channels that each output channel sees."""
        return layer.in_channels


class DepthwiseKind(ConvolutionKind):
    """`depthwise`: k x k, each channel for itself."""

    is_named_by_outputs = False

    def groups(self, layer: Layer) -> int:
        """Return the number of channels."""
        channels: int = layer.in_channels
        return channels

    def _fan_in(self, layer: Layer) -> Number:  # noqa: ARG002
        return 1
