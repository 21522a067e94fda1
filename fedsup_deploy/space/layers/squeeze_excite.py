"""Squeeze-excitation: each channel is scaled by a gate computed from the means of all."""

from fedsup_deploy.space.layers.kind import LayerKind, Operation, Shape, read_elements
from fedsup_deploy.space.layers.layer import Layer, Number
from fedsup_deploy.space.layers.nodes import Nodes


class SqueezeExciteKind(LayerKind):
    """`squeeze_excite`: means, two 1x1 convolutions with a ReLU between them, a hard sigmoid, a product.

    Its `out_channels` are the hidden ones between the two convolutions.

    Source: J. Hu et al., arXiv 1709.01507, with the hard sigmoid of MobileNetV3 (arXiv 1905.02244).
    """

    has_bias = True
    is_named_by_outputs = True

    def weights(self, layer: Layer) -> dict[str, Shape]:
        """Return two weights, there and back."""
        channels, hidden = layer.in_channels, layer.out_channels
        return {".reduce": (hidden, channels, 1, 1), ".expand": (channels, hidden, 1, 1)}

    def written_channels(self, layer: Layer) -> Number:
        """Return as many as it reads."""
        return layer.in_channels

    def operations(self, layer: Layer) -> list[Operation]:
        """Return four operations."""
        channels, hidden, read = layer.in_channels, layer.out_channels, read_elements(layer)
        weights = channels * hidden
        return [
            Operation("global_pool", 0, 0, read + channels),
            Operation("pointwise", weights, weights + hidden, weights + 2 * hidden + channels),
            Operation("pointwise", weights, weights + channels, weights + 2 * channels + hidden),
            Operation("scale", 0, 0, 2 * read + channels),
        ]

    def add_nodes(self, nodes: Nodes, layer: Layer, *values: str) -> str:
        """Add ten nodes."""
        name = layer.name
        gate = nodes.add("ReduceMean", f"{name}.mean", [*values], axes=[2, 3], keepdims=1)
        gate = self._convolution(nodes, f"{name}.reduce", gate)
        gate = nodes.add("Relu", f"{name}.reduce.relu", [gate])
        gate = self._convolution(nodes, f"{name}.expand", gate)
        # A hard sigmoid, without the node of that name: OpenCV 4.14 computes another one, and 5.0 none.
        gate = nodes.add("Mul", f"{name}.scaled", [gate, nodes.constant(f"{name}.sixth", 1 / 6)])
        gate = nodes.add("Add", f"{name}.shifted", [gate, nodes.constant(f"{name}.half", 0.5)])
        bounds = [nodes.constant(f"{name}.{bound}", number) for bound, number in (("zero", 0.0), ("one", 1.0))]
        gate = nodes.add("Clip", f"{name}.gate", [gate, *bounds])
        return nodes.add("Mul", name, [*values, gate])

    @staticmethod
    def _convolution(nodes: Nodes, name: str, value: str) -> str:
        return nodes.add("Conv", name, [value, *nodes.weights_of(name)], kernel_shape=[1, 1])
