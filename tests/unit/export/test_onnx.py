"""`model.onnx`: what it promises beyond the laws that every exporter keeps."""

import logging
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from fedsup_deploy import rng
from fedsup_deploy.errors import ArtifactError, GateError
from fedsup_deploy.export.onnx import OnnxExporter

EXAMPLE = torch.full((1, 1, 4, 4), 0.123456)


def tiny() -> nn.Module:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)).eval()
    generator = rng.torch_generator(0, "tiny")
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.uniform_(-1, 1, generator=generator)
    return net


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    OnnxExporter().export(tiny(), EXAMPLE, path)
    return path


def test_graph_has_the_promised_interface(exported):
    model = onnx.load(exported)

    shapes = [
        [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    ]
    assert [value.name for value in (*model.graph.input, *model.graph.output)] == ["input", "logits"]
    assert shapes == [["batch", 1, 4, 4], ["batch", 3]]
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 18)]
    assert model.ir_version == 8


def test_everything_is_in_one_file(exported):
    model = onnx.load(exported, load_external_data=False)

    assert [path.name for path in exported.parent.iterdir()] == ["model.onnx"]
    assert {tensor.data_location for tensor in model.graph.initializer} == {onnx.TensorProto.DEFAULT}


def test_file_tells_nothing_of_where_it_was_made(exported):
    model = onnx.load(exported)
    content = exported.read_bytes()

    assert model.producer_name == "fedsup-deploy"
    assert not model.producer_version
    assert not model.metadata_props
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    for trace in (b".py", b"torch", str(Path(torch.__file__).parents[1]).encode(), str(exported.parent).encode()):
        assert trace not in content


def test_values_of_the_example_do_not_matter(exported, tmp_path):
    OnnxExporter().export(tiny(), torch.zeros(5, 1, 4, 4), tmp_path / "other.onnx")

    assert (tmp_path / "other.onnx").read_bytes() == exported.read_bytes()


def test_export_says_nothing(tmp_path, capfd, caplog):
    """torch.onnx prints its progress, and remarks on a missing torchvision, unless it is asked not to."""
    with caplog.at_level(logging.WARNING), warnings.catch_warnings():
        warnings.simplefilter("error")
        OnnxExporter().export(tiny(), EXAMPLE, tmp_path / "model.onnx")

    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_other_remarks_of_the_exporter_still_get_through(tmp_path, caplog):
    class Remarks(nn.Module):
        def forward(self, x):
            logging.getLogger("torch.onnx._internal.exporter._registration").warning("something else")
            return x.mean(dim=(2, 3))

    with caplog.at_level(logging.WARNING):
        OnnxExporter().export(Remarks().eval(), EXAMPLE, tmp_path / "model.onnx")

    assert "something else" in caplog.text
    assert not logging.getLogger("torch.onnx._internal.exporter._registration").filters


def test_normalisation_that_was_not_folded_is_refused(tmp_path):
    """A norm right after a convolution is folded by the exporter; one after the activation cannot be."""
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3)).eval()

    with pytest.raises(GateError, match=r"^model.onnx: got BatchNormalization nodes, expected none"):
        OnnxExporter().export(net, EXAMPLE, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_pooling_of_odd_sizes_does_not_count_what_overhangs(tmp_path):
    """Old devices have onnxruntime 1.15, which would divide by the whole window otherwise."""
    net = nn.Sequential(nn.AvgPool2d(2, ceil_mode=True), nn.Flatten()).eval()
    pixels = np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3)

    OnnxExporter().export(net, torch.zeros(1, 1, 3, 3), tmp_path / "model.onnx")

    [node] = [node for node in onnx.load(tmp_path / "model.onnx").graph.node if node.op_type == "AveragePool"]
    attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    assert (attributes["ceil_mode"], attributes["count_include_pad"]) == (1, 0)
    np.testing.assert_array_equal(OnnxExporter().load(tmp_path / "model.onnx")(pixels), [[2.0, 3.5, 6.5, 8.0]])


def test_pooling_with_padding_keeps_counting_it(tmp_path):
    net = nn.Sequential(nn.AvgPool2d(2, padding=1), nn.Flatten()).eval()

    OnnxExporter().export(net, torch.zeros(1, 1, 2, 2), tmp_path / "model.onnx")

    pixels = np.full((1, 1, 2, 2), 4.0, np.float32)
    np.testing.assert_array_equal(OnnxExporter().load(tmp_path / "model.onnx")(pixels), [[1.0, 1.0, 1.0, 1.0]])


def test_module_in_training_mode_is_refused(tmp_path):
    with pytest.raises(AssertionError, match="evaluation mode"):
        OnnxExporter().export(tiny().train(), EXAMPLE, tmp_path / "model.onnx")


def test_damaged_file_is_an_artifact_error(exported, tmp_path):
    (tmp_path / "model.onnx").write_bytes(exported.read_bytes()[:100])

    with pytest.raises(ArtifactError, match=r"^model.onnx: not loadable by onnxruntime: \S"):
        OnnxExporter().load(tmp_path / "model.onnx")


def test_input_the_runtime_refuses_is_a_gate_error(exported):
    run = OnnxExporter().load(exported)

    with pytest.raises(GateError, match=r"^model.onnx: onnxruntime fails on shape \(1, 1, 5, 5\): \S"):
        run(np.zeros((1, 1, 5, 5), np.float32))
