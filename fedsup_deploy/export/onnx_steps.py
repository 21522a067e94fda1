"""The operations of a network's ONNX graph, one after another, for formats that are written without a converter."""

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedsup_deploy.errors import GateError

if TYPE_CHECKING:
    from onnx import ModelProto


@dataclasses.dataclass(frozen=True)
class OnnxStep:
    """One operation.

    Attributes:
        operation: Its name in ONNX, such as `Conv`.
        name: Its own.
        values: Names of what it reads that is computed.
        constants: What else it reads: weights and biases, or single numbers.
        outputs: Names of what it writes.
        stated: Its attributes by name; those left out are ONNX's defaults.
    """

    operation: str
    name: str
    values: tuple[str, ...]
    constants: tuple[NDArray[np.float32], ...]
    outputs: tuple[str, ...]
    stated: Mapping[str, Any]


def steps_of(model: "ModelProto", known: Collection[str], runtime: str) -> Iterator[OnnxStep]:
    """Yield the operations of an ONNX model in their order.

    Args:
        model: It.
        known: The operations that can be written.
        runtime: What they are written for, for the message.

    Raises:
        GateError: It has another one.
    """
    from onnx import helper, numpy_helper

    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            tensors[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
            continue
        if node.op_type not in known:
            raise GateError(
                f"{runtime}: got the operation {node.op_type} of {node.name}, expected one of {', '.join(known)}"
            )
        yield OnnxStep(
            node.op_type,
            node.name,
            tuple(name for name in node.input if name not in tensors),
            tuple(tensors[name] for name in node.input if name in tensors),
            tuple(node.output),
            {each.name: helper.get_attribute_value(each) for each in node.attribute},
        )


def image_shape(model: "ModelProto") -> tuple[int, int]:
    """Return the channels of the images that a model takes, and their side."""
    _, channels, side, _ = (size.dim_value for size in model.graph.input[0].type.tensor_type.shape.dim)
    return channels, side
