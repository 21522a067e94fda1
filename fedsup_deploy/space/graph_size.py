"""How many bytes of an ONNX file are no numbers: nodes, names and shapes, counted without writing any. Needs no onnx.

Counted are the nodes that `onnx_graph` would write, by the sizes that Protocol Buffers give to fields. It is an upper
bound, the same for every number of channels: a layer is taken to have 16,383, and what it reads to have a long name. Of
the shipped spaces it is up to 13 % above the graph, which is at most 1 % of the file. Not in it is what a file says of
itself, such as its classes.

Source: https://protobuf.dev/programming-guides/encoding, onnx.proto.
"""

import dataclasses
import functools
import math
from typing import Final

import numpy as np

from fedsup_deploy.space.layers.kind import folded_shapes, kind_of
from fedsup_deploy.space.layers.layer import Layer
from fedsup_deploy.space.layers.nodes import Attribute, Nodes
from fedsup_deploy.space.plan import IntArray, NetworkPlan

#: What a file has besides its layers, at most: versions, names, and the shapes of input and output.
FRAME_BYTES: Final = 160
# The largest numbers of channels and pixels, and of bytes of a tensor, that their fields have room for here.
_CHANNELS: Final = 2**14 - 1
_SIDE: Final = 2**7 - 1
_LARGEST_BYTES: Final = 2**28 - 1
# Names of values that are longer than their layer's end with this.
_SUFFIX: Final = ".relu"
# By so much another layer's name may be longer: `mb10.10.depthwise.relu` is read by `mb10.10.add`.
_LONGER: Final = 12


def graph_bytes(plan: NetworkPlan, count: int) -> IntArray:
    """Return how many bytes the layers of N networks add to a file besides their numbers, at most, shape (N,).

    Args:
        plan: Layers of N networks at once, or of one in plain integers.
        count: N.
    """
    one = [plan.stem, *(layer for block in plan.blocks for layer in (*block.main, *block.shortcut)), *plan.head]
    reads = [*((layer, 1) for layer in one), *((block.add, 2) for block in plan.blocks)]
    total_N = np.zeros(count, np.int64)
    for layer, num_read in reads:
        if np.any(layer.is_active):
            # Whatever else is counted beside it, an architecture costs the same.
            wide = dataclasses.replace(
                layer, in_channels=_CHANNELS, out_channels=_CHANNELS, in_size=_SIDE, kernel_size=_SIDE, is_active=True
            )
            total_N += np.asarray(layer.is_active, np.int64) * _layer_bytes(wide, num_read)
    return total_N


@functools.lru_cache(maxsize=4096)
def _layer_bytes(layer: Layer, num_read: int) -> int:
    nodes = _CountedNodes()
    # What it reads has the name of another layer, which is known only where there is one architecture.
    read = ["x" * (len(layer.name) + _LONGER)] * num_read
    value = kind_of(layer).add_nodes(nodes, layer, *read)
    if layer.has_activation:
        nodes.add("Relu", f"{layer.name}{_SUFFIX}", [value])
    tensors = sum(_tensor(name, shape) for name, shape in folded_shapes(layer).items())
    return nodes.num_bytes + tensors


class _CountedNodes(Nodes):
    """Counts the bytes of nodes instead of making them."""

    def __init__(self) -> None:
        super().__init__()
        self.num_bytes = 0

    def add(self, op: str, name: str, inputs: list[str], **attributes: Attribute) -> str:
        """Count a node."""
        fields = sum(_text(text) for text in (op, name, name, *inputs))
        fields += sum(_message(_attribute(key, value)) for key, value in attributes.items())
        self.num_bytes += _message(fields)
        return name

    def constant(self, name: str, value: float) -> str:  # noqa: ARG002
        """Count a node that holds a number in float32."""
        # Type of element, name and number; then name of the attribute, its type and this.
        tensor = 2 + _text(name) + _message(4)
        attribute = _text("value") + 3 + _message(tensor)
        self.num_bytes += _message(_text("Constant") + 2 * _text(name) + _message(attribute))
        return name


def _attribute(name: str, value: Attribute) -> int:
    numbers = value if isinstance(value, list) else [value]
    # The number of the field `type` needs two bytes.
    return _text(name) + 3 + sum(1 + _varint(int(number)) for number in numbers)


def _tensor(name: str, shape: tuple[int, ...]) -> int:
    numbers = min(4 * math.prod(shape), _LARGEST_BYTES)
    return _message(sum(1 + _varint(size) for size in shape) + 2 + _text(name) + _message(numbers)) - numbers


def _text(text: str) -> int:
    return _message(len(text.encode()))


def _message(num_bytes: int) -> int:
    """Return the size of a field that holds so many bytes: its number, their number, they."""
    return 1 + _varint(num_bytes) + num_bytes


def _varint(number: int) -> int:
    """Return how many bytes a number takes, of which each holds seven bits."""
    return max(1, -(-number.bit_length() // 7))
