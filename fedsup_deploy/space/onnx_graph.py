"""A plan's layers as an ONNX graph. The only place that writes ONNX; it needs onnx, and no torch.

Whole networks are exported with it, and single blocks timed, so that what is priced is what is shipped. Tensors keep
the names they have in the supernet, and each node has the name of its layer.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from fedsup_deploy.space.layers.kind import kind_of
from fedsup_deploy.space.layers.layer import Layer
from fedsup_deploy.space.layers.nodes import Nodes
from fedsup_deploy.space.parts import Part, layers_of
from fedsup_deploy.space.plan import BlockPlan

if TYPE_CHECKING:
    from onnx import ModelProto

Weights = Mapping[str, NDArray[np.float32]]

INPUT_NAME: Final = "input"
OUTPUT_NAME: Final = "logits"
#: onnxruntime from 1.6 on reads these, OpenCV from 4.6, and no later operator would make a graph faster or smaller.
OPSET: Final = 13
IR_VERSION: Final = 7


def build_model(
    parts: tuple[Part, ...], weights: Weights, metadata: Mapping[str, str] | None = None, *, is_static: bool = False
) -> "ModelProto":
    """Return consecutive parts of a network as an ONNX model.

    Args:
        parts: In plain integers; each reads what the one before has written.
        weights: A weight and a bias of every layer that has them, by their names in a folded network.
        metadata: What the file is to say of itself.
        is_static: Whether it takes one image at a time; else the batch dimension is open.

    Raises:
        KeyError: A weight is missing.
    """
    from onnx import TensorProto, helper, numpy_helper

    nodes = Nodes()
    value = INPUT_NAME
    for part in parts:
        value = _part(nodes, part, value)
    nodes.nodes[-1].output[0] = OUTPUT_NAME
    first, last = layers_of(parts[0])[0], layers_of(parts[-1])[-1]
    batch = 1 if is_static else "batch"
    read = [batch, first.in_channels, *[first.in_size] * 2]
    written = [batch, last.out_channels, *([] if kind_of(last).writes_vectors else [last.out_size] * 2)]
    model = helper.make_model(
        helper.make_graph(
            nodes.nodes,
            "subnet",
            [helper.make_tensor_value_info(INPUT_NAME, TensorProto.FLOAT, read)],
            [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, written)],
            [numpy_helper.from_array(weights[name], name) for name in nodes.tensors],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        producer_name="fedsup-deploy",
        ir_version=IR_VERSION,
    )
    helper.set_model_props(model, dict(metadata or {}))
    return model


def observable(model: "ModelProto") -> tuple["ModelProto", tuple[str, ...]]:
    """Return a copy of a model that gives out all its values but the input, and their names in the order computed."""
    import onnx
    from onnx import TensorProto, helper

    names = tuple(name for node in model.graph.node if node.op_type != "Constant" for name in node.output)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    copy.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    return copy, names


def value_sizes(model: "ModelProto") -> dict[str, int]:
    """Return how many numbers each value of a model has per image: of its input, then as `observable` names them."""
    import onnx

    _, names = observable(model)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    sizes = {
        value.name: math.prod(size.dim_value for size in value.type.tensor_type.shape.dim[1:])
        for value in (*inferred.input, *inferred.value_info, *inferred.output)
    }
    return {name: sizes[name] for name in (INPUT_NAME, *names)}


def to_bytes(model: "ModelProto") -> bytes:
    """Return the bytes of a model's file: the same for the same model."""
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _part(nodes: Nodes, part: Part, value: str) -> str:
    """Add a part that reads `value`; return the name of what it writes."""
    if not isinstance(part, BlockPlan):
        return _path(nodes, part, value)
    ends = [_path(nodes, path, value) for path in (part.main, part.shortcut)]
    return _activated(nodes, part.add, kind_of(part.add).add_nodes(nodes, part.add, *ends))


def _path(nodes: Nodes, layers: tuple[Layer, ...], value: str) -> str:
    for layer in layers:
        value = _activated(nodes, layer, kind_of(layer).add_nodes(nodes, layer, value))
    return value


def _activated(nodes: Nodes, layer: Layer, value: str) -> str:
    return nodes.add("Relu", f"{layer.name}.relu", [value]) if layer.has_activation else value
