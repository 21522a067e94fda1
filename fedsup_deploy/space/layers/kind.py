"""What a kind of layer is.

A new kind is a module here and one in `supernet.layers`, which computes it, each with a row in the registry.
"""

import abc
import functools
from typing import ClassVar, NamedTuple

from fedsup_deploy import registry
from fedsup_deploy.space.layers.layer import Layer, Number
from fedsup_deploy.space.layers.nodes import Nodes

Shape = tuple[int, ...]


class Operation(NamedTuple):
    """One operation of a runtime. Each number may be an array: of many architectures at once.

    Attributes:
        op: One of `cost.OP_KINDS`.
        num_macs: Multiply-accumulates.
        num_params: Weights and biases.
        moved_elements: Elements read and written: inputs, outputs, weights and biases.
    """

    op: str
    num_macs: Number
    num_params: Number
    moved_elements: Number


class LayerKind(abc.ABC):
    """A kind of layer. Activations and normalisations that follow a layer are none of its business.

    Attributes:
        has_bias: Whether its weights have biases in the supernet; in a folded network all have.
        writes_vectors: Whether it writes a vector for each image, and no feature map.
        is_named_by_outputs: Whether `out_channels` say more of a layer than `in_channels` do.
    """

    has_bias: ClassVar[bool] = False
    writes_vectors: ClassVar[bool] = False
    is_named_by_outputs: ClassVar[bool] = False

    def weights(self, layer: Layer) -> dict[str, Shape]:  # noqa: ARG002
        """Return the shapes of its weights, in plain integers, by the names of what has them below the layer's.

        That is '' where the layer has one weight, `mb1.0.project.weight`.
        """
        return {}

    def groups(self, layer: Layer) -> int:  # noqa: ARG002
        """Return the number of groups of channels that do not see each other."""
        return 1

    def written_channels(self, layer: Layer) -> Number:
        """Return how many channels it writes; `out_channels` may be others that nobody outside sees."""
        return layer.out_channels

    @abc.abstractmethod
    def operations(self, layer: Layer) -> list[Operation]:
        """Return the operations it consists of, at batch 1."""

    @abc.abstractmethod
    def add_nodes(self, nodes: Nodes, layer: Layer, *values: str) -> str:
        """Add what the layer is in ONNX.

        Args:
            nodes: Of the graph.
            layer: In plain integers.
            values: Names of what it reads: one, or as many as are added up.

        Returns:
            Name of what it writes.
        """


def kind_of(layer: Layer) -> LayerKind:
    """Return the kind of a layer.

    Raises:
        ConfigError: No such kind is registered.
    """
    return _kind(registry.resolve("layer", layer.op))


def folded_shapes(layer: Layer) -> dict[str, Shape]:
    """Return the shape of each weight and bias of a layer, in plain integers, in a folded network."""
    shapes: dict[str, Shape] = {}
    for owner, shape in owned_weights(layer).items():
        shapes |= {f"{owner}.weight": shape, f"{owner}.bias": shape[:1]}
    return shapes


def owned_weights(layer: Layer) -> dict[str, Shape]:
    """Return the shapes of a layer's weights, in plain integers, by the full names of what has them."""
    return {layer.name + owner: shape for owner, shape in kind_of(layer).weights(layer).items()}


@functools.cache
def _kind(kind: type[LayerKind]) -> LayerKind:
    return kind()


def read_elements(layer: Layer) -> Number:
    """Return the elements of the feature map that a layer reads."""
    return layer.in_channels * layer.in_size**2


def written_elements(layer: Layer) -> Number:
    """Return the elements of the feature map that a layer writes."""
    return kind_of(layer).written_channels(layer) * layer.out_size**2
