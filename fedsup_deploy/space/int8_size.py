"""What `quantization` makes of a layer's nodes, in bytes, at most. Needs no onnx.

Around each operation in 8 bits the quantiser puts nodes that make numbers of 8 bits, and float32 of those, with scales
and zero points as tensors. A weight has one scale, or one for each output channel: for each of its rows.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Final, cast

from fedsup_deploy.config.device import Int8Scheme
from fedsup_deploy.space.layers.kind import Shape, folded_shapes, kind_of
from fedsup_deploy.space.layers.layer import Layer
from fedsup_deploy.space.node_size import CountedNodes, Node, tensor_bytes
from fedsup_deploy.space.onnx_graph import INPUT_NAME
from fedsup_deploy.space.quantization import is_pooled_by_convolution

_SCALE_BYTES: Final = 4
#: A bias, its zero point too: 32 bits.
_BIAS_BYTES: Final = 4
# Operations that are done in 8 bits. What a Gemm writes stays float32.
_READ_8_BITS: Final = ("Conv", "AveragePool", "Gemm")
_WRITE_8_BITS: Final = ("Conv", "AveragePool")
# What the quantiser appends to a tensor's name for one of 8 bits, its scale, its zero point, and float32 of it.
_TENSOR, _VALUE, _SCALE, _ZERO, _FLOAT = (
    "_quantized",
    "_QuantizeLinear_Output",
    "_scale",
    "_zero_point",
    "_DequantizeLinear_Output",
)


def row_bytes(scheme: Int8Scheme) -> int:
    """Return what the numbers for a row of a weight, with its bias, take besides one byte for each parameter."""
    return _BIAS_BYTES - 1 + (_SCALE_BYTES + 1 + _SCALE_BYTES + _BIAS_BYTES if scheme.per_channel else 0)


def input_bytes(scheme: Int8Scheme) -> int:
    """Return what making 8 bits of a network's input takes."""
    return _value_bytes(INPUT_NAME, scheme)


def layer_size(layer: Layer, nodes: CountedNodes, read: str, scheme: Int8Scheme) -> tuple[int, int]:
    """Return what a layer takes besides the numbers of its rows; then what each of its means of windows has of those.

    Args:
        layer: In plain integers, as large as it may be.
        nodes: Of the layer in float32, the last of which writes what other layers read.
        read: Name of what it reads of other layers, all of it in 8 bits at most.
        scheme: Of the file.
    """
    noted, shapes, of_a_mean = list(nodes.noted), folded_shapes(layer), 0
    for index, node in enumerate(noted):
        if is_pooled_by_convolution(node.op, node.attributes):
            channels, kernel = (
                kind_of(layer).written_channels(layer),
                cast("list[int]", node.attributes["kernel_shape"]),
            )
            weight = f"{node.name}.weight"
            shapes[weight] = (channels, 1, *kernel)
            of_a_mean = math.prod(kernel) + (_SCALE_BYTES + 1 if scheme.per_channel else 0)
            kept = {"kernel_shape": kernel, "strides": node.attributes["strides"], "group": channels}
            noted[index] = dataclasses.replace(node, op="Conv", inputs=(*node.inputs, weight), attributes=kept)
    noted = noted if scheme.is_symmetric else _without_relu(noted)
    in_8_bits = _in_8_bits(noted)
    from_8_bits = {read, *in_8_bits, *(name for name in shapes if not name.endswith(".bias"))}
    total = sum(_parameter_bytes(name, shape, scheme) for name, shape in shapes.items())
    total += sum(_value_bytes(value, scheme) for value in in_8_bits - {read})
    for node in noted:
        inputs = tuple(name + _FLOAT if name in from_8_bits else name for name in node.inputs)
        total += dataclasses.replace(node, inputs=inputs).num_bytes
    return total + nodes.constant_bytes, of_a_mean


def _without_relu(noted: Sequence[Node]) -> list[Node]:
    """Return the nodes where a ReLU behind a convolution is none: numbers of 8 bits do not reach below 0."""
    read_by = {node.inputs[0]: node for node in noted if node.op == "Relu"}
    gone = {node.name: read_by[node.output] for node in noted if node.op == "Conv" and node.output in read_by}
    kept = [node for node in noted if node not in gone.values()]
    return [dataclasses.replace(node, output=gone[node.name].output) if node.name in gone else node for node in kept]


def _in_8_bits(noted: Sequence[Node]) -> set[str]:
    """Return the values of which numbers of 8 bits are made: next to operations in 8 bits, as others' may be."""
    last = noted[-1]
    values = {last.output} - ({last.output} if last.op == "Gemm" else set())
    for node in noted:
        values |= {node.inputs[0]} if node.op in _READ_8_BITS else set()
        values |= {node.output} if node.op in _WRITE_8_BITS else set()
        values |= {node.output} if node.op == "Relu" and node.inputs[0] in values else set()
    return values


def _value_bytes(name: str, scheme: Int8Scheme) -> int:
    """Return the size of the nodes that make 8 bits of a value and float32 of those, scale and zero point included."""
    beside = (f"{name}{_SCALE}", f"{name}{_ZERO}")
    made = Node("QuantizeLinear", f"{name}_QuantizeLinear", (name, *beside), f"{name}{_VALUE}")
    read = Node("DequantizeLinear", f"{name}_DequantizeLinear", (made.output, *beside), f"{name}{_FLOAT}")
    numbers = _SCALE_BYTES + _zero_point_bytes(scheme)
    return made.num_bytes + read.num_bytes + sum(tensor_bytes(each, ()) for each in beside) + numbers


def _zero_point_bytes(scheme: Int8Scheme) -> int:
    """Return the most that a zero point of an activation takes: a negative number is written with 64 bits."""
    if scheme.activations == "u8":
        return 2
    return 1 if scheme.is_symmetric else 10


def _parameter_bytes(name: str, shape: Shape, scheme: Int8Scheme) -> int:
    """Return what a weight or bias takes, its scales and zero points included, without the numbers of its rows."""
    is_bias = name.endswith(".bias")
    # Scales of biases belong to their tensor's name, those of weights to the name in float32.
    scale, zero = (f"{name}{_TENSOR if is_bias else ''}{suffix}" for suffix in (_SCALE, _ZERO))
    inputs, axis = (f"{name}{_TENSOR}", scale, zero), {"axis": 0} if scheme.per_channel else {}
    node = Node("DequantizeLinear", f"{name}_DequantizeLinear", inputs, name if is_bias else f"{name}{_FLOAT}", axis)
    number = _BIAS_BYTES if is_bias else 1
    rows = shape[:1] if scheme.per_channel else ()
    of_tensor = 0 if scheme.per_channel else _SCALE_BYTES + number
    scales = tensor_bytes(scale, rows or ((1,) if is_bias else ())) + tensor_bytes(zero, rows, number)
    return node.num_bytes + tensor_bytes(inputs[0], shape, number) + scales + of_tensor
