"""Which files an ONNX model consists of."""

import os
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper

from fedsup_deploy.artifact.external_data import external_files
from fedsup_deploy.artifact.graph import read_graph
from fedsup_deploy.commands.measure import measure
from fedsup_deploy.errors import ArtifactError
from fedsup_deploy.ondevice.bundle_files import MOST_BYTES_OF_A_FILE


def external(location: str) -> TensorProto:
    """Return one number that is in another file."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return tensor


def constant(location: str) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["c"], value=external(location))


def in_weights(location: str) -> onnx.ModelProto:
    return model_of([helper.make_node("Add", ["x", "w"], ["y"])], [external(location)])


def in_a_constant(location: str) -> onnx.ModelProto:
    return model_of([constant(location), helper.make_node("Add", ["x", "c"], ["y"])])


def in_an_inner_graph(location: str) -> onnx.ModelProto:
    inner = helper.make_graph([constant(location)], "inner", [], [helper.make_empty_tensor_value_info("c")])
    branches = {"then_branch": inner, "else_branch": inner}
    return model_of([helper.make_node("If", ["x"], ["y"], **branches)])


def in_a_function(location: str) -> onnx.ModelProto:
    opsets = [helper.make_opsetid("", 13)]
    function = helper.make_function("ours", "f", ["a"], ["c"], [constant(location)], opsets)
    model = model_of([helper.make_node("f", ["x"], ["y"], domain="ours")])
    model.functions.append(function)
    return model


def in_a_sparse_tensor(location: str) -> onnx.ModelProto:
    node = helper.make_node("Constant", [], ["y"])
    sparse = onnx.SparseTensorProto(values=external(location), dims=[1])
    node.attribute.append(AttributeProto(name="sparse_value", type=AttributeProto.SPARSE_TENSOR, sparse_tensor=sparse))
    return model_of([node])


def model_of(nodes: list[onnx.NodeProto], weights: list[TensorProto] | None = None) -> onnx.ModelProto:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 1]) for name in "xy")
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def write(model: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("make", [in_weights, in_a_constant, in_an_inner_graph, in_a_function, in_a_sparse_tensor])
def test_wherever_in_a_model_they_are_named_they_are_found(
    tmp_path: Path, make: Callable[[str], onnx.ModelProto]
) -> None:
    """And a bundle's model, which has none, is refused for each."""
    (tmp_path / "data").write_bytes(bytes(4))
    path = write(make("data"), tmp_path / "model.onnx")
    assert external_files(path) == {"data": tmp_path / "data"}
    with pytest.raises(ArtifactError, match="no graph that can be counted"):
        read_graph(path)
    path.write_bytes(b"no model")
    assert external_files(path) == {}


@pytest.mark.parametrize(
    "location", ["/etc/passwd", "../secret", "data/../../secret", "out", "folder/x", "", "a\0b", "x" * 5000]
)
def test_what_leads_out_of_the_folder_is_refused_here_and_there(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(bytes(4))
    (folder / "out").symlink_to("../secret")
    (tmp_path / "outer").mkdir()
    (tmp_path / "outer" / "x").write_bytes(bytes(4))
    (folder / "folder").symlink_to("../outer")
    path = write(in_weights(location), folder / "model.onnx")
    expected = r"^.*model\.onnx: has weights in '.*', expected a file in its own folder or below$"
    with pytest.raises(ArtifactError, match=expected):
        external_files(path)
    with pytest.raises(ArtifactError, match=expected):
        measure(path, 1, "quick")
    fine = write(model_of([helper.make_node("Relu", ["x"], ["y"])]), folder / "fine.onnx")
    with pytest.raises(ArtifactError, match=expected):
        measure(fine, 1, "quick", ruler=path)


def test_a_cache_of_downloads_whose_files_are_links_is_as_good_as_the_files(tmp_path: Path) -> None:
    for name in ("snapshot", "blobs"):
        (tmp_path / name).mkdir()
    (tmp_path / "blobs" / "2").write_bytes(bytes(4))
    write(in_weights("data"), tmp_path / "blobs" / "1")
    (tmp_path / "snapshot" / "model.onnx").symlink_to("../blobs/1")
    (tmp_path / "snapshot" / "data").symlink_to("../blobs/2")
    assert external_files(tmp_path / "snapshot" / "model.onnx") == {"data": tmp_path / "snapshot" / "data"}


def test_what_is_larger_than_any_model_or_no_file_is_not_read(tmp_path: Path) -> None:
    huge, pipe = tmp_path / "huge.onnx", tmp_path / "pipe.onnx"
    with huge.open("wb") as file:
        file.truncate(MOST_BYTES_OF_A_FILE + 1)
    os.mkfifo(pipe)
    for path, reason in ((huge, "it has more than"), (pipe, "it is no regular file")):
        for read in (external_files, read_graph):
            with pytest.raises(ArtifactError, match=reason):
                read(path)
