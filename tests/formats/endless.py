"""A model that does not end: a stranger's file of any format that knows loops may be one."""

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

#: Of an image that it takes, and of the logits that it would write.
IMAGE, CLASSES = (3, 8, 8), 3


def endless_model() -> ModelProto:
    """Return means of channels, handed through a loop of 2**59 turns."""
    value = helper.make_tensor_value_info
    images, logits = (value("input", TensorProto.FLOAT, ["batch", *IMAGE]), value("logits", TensorProto.FLOAT, None))
    state = [value(name, TensorProto.FLOAT, ["batch", CLASSES]) for name in ("state", "same")]
    go_on = [value(name, TensorProto.BOOL, []) for name in ("go_on", "still")]
    inner = [helper.make_node("Identity", [here], [there]) for here, there in (("go_on", "still"), ("state", "same"))]
    number = value("number", TensorProto.INT64, [])
    body = helper.make_graph(inner, "body", [number, go_on[0], state[0]], [go_on[1], state[1]])
    nodes = [
        helper.make_node("ReduceMean", ["input"], ["once"], axes=[2, 3], keepdims=0),
        helper.make_node("Loop", ["times", "true", "once"], ["logits"], body=body),
    ]
    constants = {"times": np.array(2**59), "true": np.array(True)}
    initializers = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "endless", [images], [logits], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
