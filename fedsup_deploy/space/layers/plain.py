"""Layers without tensors: pooling, the sum of two paths. And the classifier."""

from fedsup_deploy.space.layers.kind import LayerKind, Operation, Shape, read_elements, written_elements
from fedsup_deploy.space.layers.layer import Layer
from fedsup_deploy.space.layers.nodes import Nodes


class PoolKind(LayerKind):
    """`pool`: the average of 2x2 pixels; where a window overhangs the map, of those within."""

    def operations(self, layer: Layer) -> list[Operation]:
        """Return one operation."""
        return [Operation("pool", 0, 0, read_elements(layer) + written_elements(layer))]

    def add_nodes(self, nodes: Nodes, layer: Layer, *values: str) -> str:
        """Add an AveragePool."""
        # Without need, ceil_mode stays off: fewer runtimes know it. That padding is not counted is the default, and is
        # said all the same: where a window overhangs, some runtimes count it otherwise.
        overhangs = int(layer.in_size % 2 == 1)
        sides = {"kernel_shape": [2, 2], "strides": [2, 2]}
        return nodes.add("AveragePool", layer.name, [*values], **sides, ceil_mode=overhangs, count_include_pad=0)


class GlobalPoolKind(LayerKind):
    """`global_pool`: the mean of each channel."""

    def operations(self, layer: Layer) -> list[Operation]:
        """Return one operation."""
        return [Operation("global_pool", 0, 0, read_elements(layer) + layer.in_channels)]

    def add_nodes(self, nodes: Nodes, layer: Layer, *values: str) -> str:
        """Add a ReduceMean."""
        return nodes.add("ReduceMean", layer.name, [*values], axes=[2, 3], keepdims=0)


class AddKind(LayerKind):
    """`add`: the sum of a block's two paths."""

    def operations(self, layer: Layer) -> list[Operation]:
        """Return one operation, which reads two maps and writes one."""
        return [Operation("add", 0, 0, 3 * read_elements(layer))]

    def add_nodes(self, nodes: Nodes, layer: Layer, *values: str) -> str:
        """Add an Add."""
        return nodes.add("Add", layer.name, [*values])


class LinearKind(LayerKind):
    """`linear`: the classifier."""

    has_bias = True
    writes_vectors = True
    is_named_by_outputs = True

    def weights(self, layer: Layer) -> dict[str, Shape]:
        """Return one weight: (out, in)."""
        return {"": (layer.out_channels, layer.in_channels)}

    def operations(self, layer: Layer) -> list[Operation]:
        """Return one operation."""
        weights = layer.out_channels * layer.in_channels
        params = weights + layer.out_channels
        return [Operation("linear", weights, params, layer.in_channels + layer.out_channels + params)]

    def add_nodes(self, nodes: Nodes, layer: Layer, *values: str) -> str:
        """Add a Gemm."""
        return nodes.add("Gemm", layer.name, [*values, *nodes.weights_of(layer.name)], transB=1)
