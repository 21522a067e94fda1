"""The graph of a model is read and counted; what no exporter of ours writes is refused, and never run."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fedsup_deploy.artifact.graph import read_graph
from fedsup_deploy.errors import ArtifactError


def model() -> onnx.ModelProto:
    """A strided convolution in two groups, a mean, and a linear layer: shapes that can be counted by hand."""
    nodes = [
        helper.make_node("Conv", ["input", "kernels", "bias"], ["maps"], group=2, strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["maps"], ["means"]),
        helper.make_node("Flatten", ["means"], ["flat"]),
        helper.make_node("Gemm", ["flat", "matrix"], ["logits"], transB=1),
    ]
    weights = {"kernels": (6, 2, 3, 3), "bias": (6,), "matrix": (5, 6)}
    graph = helper.make_graph(
        nodes,
        "counted",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 4, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 5])],
        [numpy_helper.from_array(np.zeros(shape, np.float32), name) for name, shape in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def saved(changed: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(changed.SerializeToString())
    return path


def test_counts_are_those_of_the_shapes(tmp_path):
    """6 x 4 x 4 outputs of 2 x 3 x 3 products each, and 5 of 6."""
    graph = read_graph(saved(model(), tmp_path))

    assert graph.num_macs == 6 * 4 * 4 * 18 + 5 * 6
    assert graph.num_params == 6 * 2 * 9 + 6 + 5 * 6 + 5, "a bias of zeros is left out by the exporter, and counts"
    assert graph.first_width == 6
    assert (graph.inputs, graph.outputs) == ({"input": ("batch", 4, 8, 8)}, {"logits": ("batch", 5)})


def test_tensor_that_layers_share_in_the_file_counts_for_each(tmp_path):
    """The exporter writes equal tensors once; here another convolution has the bias of the first."""
    changed = model()
    changed.graph.initializer.append(numpy_helper.from_array(np.zeros((6, 6, 1, 1), np.float32), "more"))
    changed.graph.node.insert(1, helper.make_node("Conv", ["maps", "more", "bias"], ["mixed"]))
    changed.graph.node[2].input[0] = "mixed"

    assert read_graph(saved(changed, tmp_path)).num_params == 6 * 2 * 9 + 6 + 6 * 6 + 6 + 5 * 6 + 5


def test_stated_shapes_do_not_change_what_is_counted(tmp_path):
    """Somebody states other shapes for what lies between input and output."""
    changed = model()
    changed.graph.value_info.append(helper.make_tensor_value_info("maps", TensorProto.FLOAT, ["batch", 6, 1, 1]))

    assert read_graph(saved(changed, tmp_path)).num_macs == 6 * 4 * 4 * 18 + 5 * 6


def loop(changed: onnx.ModelProto) -> None:
    inner = helper.make_graph([], "body", [], [])
    changed.graph.node.append(helper.make_node("Loop", ["", ""], [], body=inner))


def custom(changed: onnx.ModelProto) -> None:
    changed.graph.node[2].domain = "com.example"


def function(changed: onnx.ModelProto) -> None:
    node = helper.make_node("Identity", ["a"], ["b"])
    opsets = [helper.make_opsetid("", 18)]
    changed.functions.append(helper.make_function("local", "f", ["a"], ["b"], [node], opsets))


def elsewhere(changed: onnx.ModelProto) -> None:
    changed.graph.initializer[0].data_location = TensorProto.EXTERNAL


def doubles(changed: onnx.ModelProto) -> None:
    changed.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE


def computed_weights(changed: onnx.ModelProto) -> None:
    del changed.graph.initializer[0]


def other_shapes(changed: onnx.ModelProto) -> None:
    changed.graph.initializer[2].dims[1] = 7


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (loop, "it has functions or control flow"),
        (function, "it has functions or control flow"),
        (custom, "it has operators that are not of ONNX"),
        (elsewhere, "its weights are in another file"),
        (doubles, "its input or output is not float32"),
        (computed_weights, ""),
        (other_shapes, ""),
    ],
)
def test_what_no_exporter_writes_is_refused(tmp_path, change: Callable[[onnx.ModelProto], None], reason: str) -> None:
    changed = model()
    change(changed)

    with pytest.raises(ArtifactError, match=r"^model\.onnx: got no graph that can be counted \(.+\)") as caught:
        read_graph(saved(changed, tmp_path))
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no model", bytes(100)])
def test_file_that_is_no_model_is_refused(tmp_path, content):
    (tmp_path / "model.onnx").write_bytes(content)

    with pytest.raises(ArtifactError, match=r"^model\.onnx: got no graph that can be counted"):
        read_graph(tmp_path / "model.onnx")


def filled(side: int) -> onnx.ModelProto:
    """A model that also fills a cube of any size: in the file it takes some bytes."""
    changed = model()
    changed.graph.initializer.append(numpy_helper.from_array(np.array([side, side, side], np.int64), "shape"))
    changed.graph.node.append(helper.make_node("ConstantOfShape", ["shape"], ["filled"]))
    return changed


def test_what_asks_for_more_memory_than_there_is_is_refused(tmp_path):
    read_graph(saved(filled(2), tmp_path))
    problem = r"with 'filled' it has 1,152,921,504,606,847,\d+ elements, more than there is memory"
    with pytest.raises(ArtifactError, match=problem):
        read_graph(saved(filled(2**20), tmp_path))


def test_what_is_as_large_as_an_image_says_is_refused(tmp_path):
    changed = model()
    changed.graph.node.append(helper.make_node("NonZero", ["input"], ["found"]))
    with pytest.raises(ArtifactError, match="nobody can tell how large 'found' is"):
        read_graph(saved(changed, tmp_path))
