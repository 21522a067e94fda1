"""Nodes of an ONNX graph as they come together. Needs onnx."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from onnx import NodeProto

Attribute = int | float | list[int]


class Nodes:
    """The nodes of a graph, and the names of the tensors they use.

    Attributes:
        nodes: Each after those it reads from.
        tensors: Names of weights and biases, in the order of their use.
    """

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.tensors: list[str] = []

    def add(self, op: str, name: str, inputs: list[str], **attributes: Attribute) -> str:
        """Add a node; it and what it writes have the same name, which is returned."""
        from onnx import helper

        node = helper.make_node(op, inputs, [name], name)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self.nodes.append(node)
        return name

    def weights_of(self, owner: str) -> list[str]:
        """Return the names of a weight and its bias, as a node's inputs."""
        names = [f"{owner}.weight", f"{owner}.bias"]
        self.tensors += names
        return names

    def constant(self, name: str, value: float) -> str:
        """Add a number; return its name."""
        from onnx import helper, numpy_helper

        # A node, and no initialiser: those are the tensors of the supernet.
        tensor = numpy_helper.from_array(np.array(value, np.float32), name)
        self.nodes.append(helper.make_node("Constant", [], [name], name, value=tensor))
        return name
