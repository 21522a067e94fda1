"""Nodes and tensors of an ONNX file in bytes, by the sizes that Protocol Buffers give to fields. Needs no onnx.

Source: https://protobuf.dev/programming-guides/encoding, onnx.proto.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Final

from fedsup_deploy.space.layers.nodes import Attribute, Nodes

# The most bytes of a tensor that their number has room for here.
_LARGEST_BYTES: Final = 2**28 - 1


@dataclasses.dataclass(frozen=True)
class Node:
    """A node that is counted: it and what it writes have the same name, unless that is a ReLU's it absorbs.

    Args:
        op: Its operation.
        name: Its name.
        inputs: Names of what it reads.
        output: Name of what it writes.
        attributes: By their names.
    """

    op: str
    name: str
    inputs: tuple[str, ...]
    output: str
    attributes: Mapping[str, Attribute] = dataclasses.field(default_factory=dict)

    @property
    def num_bytes(self) -> int:
        """Its size."""
        fields = sum(_text(text) for text in (self.op, self.name, self.output, *self.inputs))
        return _message(fields + sum(_message(_attribute(key, value)) for key, value in self.attributes.items()))


class CountedNodes(Nodes):
    """Notes the nodes of a graph instead of making them.

    Attributes:
        noted: All but constants.
        constant_bytes: The size of those.
    """

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[Node] = []
        self.constant_bytes = 0

    def add(self, op: str, name: str, inputs: list[str], **attributes: Attribute) -> str:
        """Note a node."""
        self.noted.append(Node(op, name, tuple(inputs), name, attributes))
        return name

    def constant(self, name: str, value: float) -> str:  # noqa: ARG002
        """Count a node that holds a number in float32."""
        # Type of element, name and number; then name of the attribute, its type and this.
        tensor = 2 + _text(name) + _message(4)
        attribute = _text("value") + 3 + _message(tensor)
        self.constant_bytes += _message(_text("Constant") + 2 * _text(name) + _message(attribute))
        return name


def tensor_bytes(name: str, shape: tuple[int, ...], number_bytes: int = 4) -> int:
    """Return the size of a tensor without its numbers.

    Args:
        name: Its name.
        shape: Its shape.
        number_bytes: Size of a number.
    """
    numbers = min(number_bytes * math.prod(shape), _LARGEST_BYTES)
    return _message(sum(1 + _varint(size) for size in shape) + 2 + _text(name) + _message(numbers)) - numbers


def _attribute(name: str, value: Attribute) -> int:
    numbers = value if isinstance(value, list) else [value]
    # The number of the field `type` needs two bytes.
    return _text(name) + 3 + sum(1 + _varint(int(number)) for number in numbers)


def _text(text: str) -> int:
    return _message(len(text.encode()))


def _message(num_bytes: int) -> int:
    """Return the size of a field that holds so many bytes: its number, their number, they."""
    return 1 + _varint(num_bytes) + num_bytes


def _varint(number: int) -> int:
    """Return how many bytes a number takes, of which each holds seven bits."""
    return max(1, -(-number.bit_length() // 7))
