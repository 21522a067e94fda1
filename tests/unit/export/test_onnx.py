"""`model.onnx`: what it promises beyond the laws that every exporter keeps."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from fedsup_deploy.config.device import Int8Scheme
from fedsup_deploy.errors import ArtifactError, GateError
from fedsup_deploy.export.onnx import OnnxExporter
from fedsup_deploy.ondevice import bundle_files, inference
from fedsup_deploy.space.onnx_graph import build_model, observable, to_bytes, value_sizes
from fedsup_deploy.space.parts import parts_of
from fedsup_deploy.supernet import ranges
from fedsup_deploy.supernet.deployable import FoldedNetwork, Quantization

SCHEME = Int8Scheme(activations="u8", is_symmetric=False, per_channel=True, reduce_range=False)


@pytest.fixture(scope="module")
def exported(network: FoldedNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    OnnxExporter().export(network, {"classes": "[]"}, path.parent)
    return path


@pytest.fixture(scope="module")
def counts(network: FoldedNetwork) -> ranges.ActivationCounts:
    """Of all values of the network's graph on some images."""
    x_BCHW = np.random.default_rng(0).normal(size=(200, 1, 7, 7)).astype(np.float32)
    model = build_model(parts_of(network.plan), {name: tensor.numpy() for name, tensor in network.weights.items()})
    watched, names = observable(model)
    values = [x_BCHW, *inference.open_session(to_bytes(watched), 1).run(list(names), {"input": x_BCHW})]
    extremes_V2 = np.array([(each.min(), each.max()) for each in values], dtype=np.float32)
    counts = ranges.ActivationCounts(np.stack([ranges.count(each) for each in values]), extremes_V2)
    assert counts.reason_to_reject(value_sizes(model), len(x_BCHW)) is None
    return counts


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}


def test_graph_has_the_promised_interface(exported: Path) -> None:
    model = onnx.load(exported)
    shapes = [
        [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    ]
    assert [value.name for value in (*model.graph.input, *model.graph.output)] == ["input", "logits"]
    assert shapes == [["batch", 1, 7, 7], ["batch", 3]]
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 13)]
    assert model.ir_version == 7


def test_tensors_are_those_of_the_network_by_name(network: FoldedNetwork, exported: Path) -> None:
    found = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(exported).graph.initializer}
    assert found.keys() == network.weights.keys()
    for name, array in found.items():
        np.testing.assert_array_equal(array, network.weights[name].numpy())


def test_every_layer_is_a_node_of_its_name(network: FoldedNetwork, exported: Path) -> None:
    names = {node.name for node in onnx.load(exported).graph.node}
    assert {layer.name for layer in network.plan.layers()} <= names


def test_everything_is_in_one_file(exported: Path) -> None:
    model = onnx.load(exported, load_external_data=False)
    assert [path.name for path in exported.parent.iterdir()] == ["model.onnx"]
    assert {tensor.data_location for tensor in model.graph.initializer} == {onnx.TensorProto.DEFAULT}


def test_file_tells_nothing_of_where_it_was_made(exported: Path) -> None:
    model = onnx.load(exported)
    assert (model.producer_name, model.producer_version) == ("fedsup-deploy", "")
    assert [(entry.key, entry.value) for entry in model.metadata_props] == [("classes", "[]")]
    for trace in (b".py", b"torch", str(Path(torch.__file__).parents[1]).encode(), str(exported.parent).encode()):
        assert trace not in exported.read_bytes()


def test_pooling_of_odd_sizes_does_not_count_what_overhangs(exported: Path) -> None:
    """Old runtimes, and converters, would divide by the whole window otherwise."""
    pools = [attributes_of(node) for node in onnx.load(exported).graph.node if node.op_type == "AveragePool"]
    assert [(pool["ceil_mode"], pool["count_include_pad"]) for pool in pools] == [(1, 0)]


def test_no_node_that_some_runtime_computes_wrongly(exported: Path) -> None:
    """OpenCV 4.14 computes another hard sigmoid, and 5.0 none."""
    ops = {node.op_type for node in onnx.load(exported).graph.node}
    assert ops == {"AveragePool", "Add", "Clip", "Constant", "Conv", "Gemm", "Mul", "ReduceMean", "Relu"}


def test_network_that_lacks_a_tensor_is_refused(network: FoldedNetwork, tmp_path: Path) -> None:
    weights = {name: tensor for name, tensor in network.weights.items() if name != "stem.bias"}
    with pytest.raises(KeyError, match=r"stem\.bias"):
        OnnxExporter().export(FoldedNetwork(network.plan, weights), {}, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_damaged_file_is_an_artifact_error(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(exported.read_bytes()[:100])
    with pytest.raises(ArtifactError, match=r"^model.onnx: not loadable by onnxruntime: \S"):
        OnnxExporter().load(tmp_path / "model.onnx")


def test_input_the_runtime_refuses_is_a_gate_error(exported: Path) -> None:
    run = OnnxExporter().load(exported)
    with pytest.raises(GateError, match=r"^model.onnx: onnxruntime fails on shape \(1, 1, 5, 5\): \S"):
        run(np.zeros((1, 1, 5, 5), np.float32))


def test_int8_is_written_beside_fp32_and_says_the_same_of_itself(
    network: FoldedNetwork, counts: ranges.ActivationCounts, tmp_path: Path
) -> None:
    names = [
        OnnxExporter().export(each, {"arch_id": "a0"}, tmp_path)
        for each in (network, dataclasses.replace(network, quantization=Quantization(counts, SCHEME)))
    ]
    assert names == [(bundle_files.MODEL,), (bundle_files.INT8_MODEL,)]
    found = [onnx.load(tmp_path / name) for (name,) in names]
    assert {(each.producer_name, each.metadata_props[0].value) for each in found} == {("fedsup-deploy", "a0")}
    for of_graph in ("input", "output"):
        assert len({str(getattr(each.graph, of_graph)) for each in found}) == 1
