"""Layers of a plan as an ONNX graph with made-up weights, to be timed. Needs onnx, and no torch.

Whole networks and single blocks are built with the nodes that `fedsup_deploy.export.onnx` would write, in milliseconds
instead of seconds. The weights are random: nothing computed by these graphs means anything, only how long it takes.
They are named as in the supernet.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedsup_deploy import files, rng
from fedsup_deploy.space.parts import Part, layers_of
from fedsup_deploy.space.plan import BlockPlan, Layer

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

INPUT_NAME, OUTPUT_NAME = "input", "output"
_AXES = "axes"
#: What the exporter writes.
_OPSET, _IR_VERSION = 18, 8


def write_graph(parts: tuple[Part, ...], path: Path, seed: int = 0) -> None:
    """Write consecutive parts of a network as an ONNX file.

    Args:
        parts: In plain integers; each reads what the one before wrote.
        path: Where to.
        seed: Of the weights.

    Side effects: Writes the file.
    """
    files.write_bytes(path, build_graph(parts, seed).SerializeToString(deterministic=True))


def build_graph(parts: tuple[Part, ...], seed: int = 0) -> "ModelProto":
    """Return consecutive parts of a network as an ONNX model with an open batch dimension. See `write_graph`."""
    from onnx import TensorProto, helper

    graph = _Graph(seed)
    first = layers_of(parts[0])[0]
    value = INPUT_NAME
    for part in parts:
        value = graph.part(part, value)
    graph.nodes[-1].output[0] = OUTPUT_NAME
    last = layers_of(parts[-1])[-1]
    read = ["batch", first.in_channels, *[first.in_size] * 2]
    written = ["batch", last.out_channels, *([] if last.op == "linear" else [last.out_size] * 2)]
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "part",
            [helper.make_tensor_value_info(INPUT_NAME, TensorProto.FLOAT, read)],
            [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, written)],
            graph.weights,
        ),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        producer_name="fedsup-deploy",
    )
    model.ir_version = _IR_VERSION
    return model


class _Graph:
    """Nodes and weights as they come together."""

    def __init__(self, seed: int) -> None:
        self._random = rng.generator(seed, "graph")
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []

    def part(self, part: Part, value: str) -> str:
        """Add a part that reads `value`, and return the name of what it writes."""
        if isinstance(part, BlockPlan):
            return self._block(part, value)
        for layer in part:
            value = self._layer(layer, value)
        return value

    def _block(self, block: BlockPlan, value: str) -> str:
        main, shortcut = value, value
        for layer in block.main:
            main = self._layer(layer, main)
        for layer in block.shortcut:
            shortcut = self._layer(layer, shortcut)
        return self._activated(block.add, self._node("Add", [main, shortcut]))

    def _layer(self, layer: Layer, value: str) -> str:
        if layer.op == "squeeze_excite":
            return self._squeeze_excite(layer, value)
        if layer.op == "pool":
            overhangs = int(layer.in_size % 2 == 1)
            return self._node("AveragePool", [value], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=overhangs)
        if layer.op == "global_pool":
            return self._mean(value, keepdims=0)
        if layer.op == "linear":
            names = self._weights(layer.name, (layer.out_channels, layer.in_channels))
            return self._node("Gemm", [value, *names], transB=1)
        return self._activated(layer, self._convolution(layer, value))

    def _convolution(self, layer: Layer, value: str) -> str:
        groups = layer.in_channels if layer.op == "depthwise" else 1
        side = layer.kernel_size
        names = self._weights(layer.name, (layer.out_channels, layer.in_channels // groups, side, side))
        pads = [side // 2] * 4
        return self._node(
            "Conv", [value, *names], kernel_shape=[side, side], strides=[layer.stride] * 2, pads=pads, group=groups
        )

    def _squeeze_excite(self, layer: Layer, value: str) -> str:
        channels, hidden = layer.in_channels, layer.out_channels
        gate = self._mean(value, keepdims=1)
        reduce = self._weights(f"{layer.name}.reduce", (hidden, channels, 1, 1))
        gate = self._node("Conv", [gate, *reduce], kernel_shape=[1, 1])
        gate = self._node("Relu", [gate])
        expand = self._weights(f"{layer.name}.expand", (channels, hidden, 1, 1))
        gate = self._node("Conv", [gate, *expand], kernel_shape=[1, 1])
        return self._node("Mul", [value, self._node("HardSigmoid", [gate], alpha=1 / 6)])

    def _mean(self, value: str, keepdims: int) -> str:
        from onnx import numpy_helper

        if all(weight.name != _AXES for weight in self.weights):
            self.weights.append(numpy_helper.from_array(np.array([2, 3], np.int64), _AXES))
        return self._node("ReduceMean", [value, _AXES], keepdims=keepdims)

    def _activated(self, layer: Layer, value: str) -> str:
        return self._node("Relu", [value]) if layer.has_activation else value

    def _weights(self, owner: str, shape: tuple[int, ...]) -> list[str]:
        """Add a weight of a size that keeps activations of order 1, and a bias; return their names."""
        from onnx import numpy_helper

        scale = float(np.sqrt(2 / np.prod(shape[1:])))
        arrays: list[NDArray[Any]] = [
            self._random.standard_normal(shape, dtype=np.float32) * np.float32(scale),
            self._random.standard_normal(shape[:1], dtype=np.float32) * np.float32(0.1),
        ]
        names = [f"{owner}.weight", f"{owner}.bias"]
        self.weights += [numpy_helper.from_array(array, name) for array, name in zip(arrays, names, strict=True)]
        return names

    def _node(self, op: str, inputs: list[str], **attributes: Any) -> str:
        from onnx import helper

        output = f"value{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output
