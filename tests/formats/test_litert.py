"""LiteRT on random networks, in a bundle, and damaged. In `.venv-litert`: `make test-formats`."""

from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from random_networks import FACTS, SCHEMES, TEN_OF_EACH_FAMILY, checked, checked_in_int8, in_int8, random_network
from small_bundles import exported, signed, verified
from small_runs import NETWORK, trained

from fedsup_deploy.artifact.store import load_manifest
from fedsup_deploy.errors import ArtifactError, GateError
from fedsup_deploy.export import litert
from fedsup_deploy.export.exporter import counted_in
from fedsup_deploy.export.litert import TRANSPOSES, LiteRTExporter

EXPORTER = LiteRTExporter()


def interpreter_of(path: Path) -> Interpreter:
    return Interpreter(str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)


def operators_of(path: Path) -> list[str]:
    """Return the operators of a file as its runtime names them."""
    return [each["op_name"] for each in interpreter_of(path)._get_ops_details()]


def types_read_by_convolutions(path: Path) -> set[type]:
    interpreter = interpreter_of(path)
    types = {each["index"]: each["dtype"] for each in interpreter.get_tensor_details()}
    operators = interpreter._get_ops_details()
    return {types[each["inputs"][0]] for each in operators if each["op_name"].endswith("CONV_2D")}


@pytest.mark.parametrize("seed", TEN_OF_EACH_FAMILY)
def test_ten_networks_of_each_family_pass_the_gate_without_a_transpose(seed, tmp_path):
    gate = checked(EXPORTER, seed, tmp_path)
    assert (gate.batches, gate.tolerance, gate.argmax_agreement) == ((1,), 1e-5, 1.0)
    assert "TRANSPOSE" not in operators_of(tmp_path / "model.tflite")
    assert counted_in(EXPORTER, tmp_path / "model.tflite") == {TRANSPOSES: 0}
    size = random_network(seed)[0].plan.stem.in_size
    assert [*interpreter_of(tmp_path / "model.tflite").get_input_details()[0]["shape"][:3]] == [1, size, size]


@pytest.mark.parametrize("seed", TEN_OF_EACH_FAMILY)
def test_the_same_networks_in_int8_compute_what_the_onnx_file_does(seed, tmp_path):
    gate = checked_in_int8(EXPORTER, seed, SCHEMES[seed // 2 % 2], tmp_path)
    assert 0 < gate.max_scaled_diff < 0.2
    assert "TRANSPOSE" not in operators_of(tmp_path / "model.int8.tflite")
    assert types_read_by_convolutions(tmp_path / "model.int8.tflite") == {np.int8}


def test_a_file_says_what_it_is_told_to_and_names_its_ends(tmp_path):
    from ai_edge_litert.tools import flatbuffer_utils

    network, inputs = random_network(0)
    for each in (network, in_int8(network, inputs, SCHEMES[0])):
        (name,) = EXPORTER.export(each, FACTS, tmp_path)
        model = flatbuffer_utils.read_model(str(tmp_path / name))
        said = {entry.name.decode(): bytes(model.buffers[entry.buffer].data) for entry in model.metadata}
        assert {key: said[key].decode() for key in FACTS} == FACTS
        (signature,) = interpreter_of(tmp_path / name).get_signature_list().values()
        assert signature == {"inputs": ["input"], "outputs": ["logits"]}


def test_a_file_that_transposes_is_refused(tmp_path, monkeypatch):
    """As the converter makes it of a module whose images have their channels first."""
    import litert_torch

    network, _ = random_network(1)
    stem = network.plan.stem
    first = litert_torch.convert
    shape = (1, stem.in_channels, stem.in_size, stem.in_size)
    monkeypatch.setattr(litert_torch, "to_channel_last_io", lambda module, **_: module)
    monkeypatch.setattr(litert_torch, "convert", lambda module, inputs: first(module, (inputs[0].reshape(shape),)))
    with pytest.raises(GateError, match=r"^model\.tflite: got 1 transposes, expected none"):
        EXPORTER.export(network, FACTS, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_convolution_in_floats_is_refused_in_int8(tmp_path, monkeypatch):
    network, inputs = random_network(1)
    monkeypatch.setattr(litert, "_quantized", lambda content, *_: content)
    with pytest.raises(GateError, match=r"^model\.int8\.tflite: got 17 convolutions in float32, expected none"):
        EXPORTER.export(in_int8(network, inputs, SCHEMES[0]), FACTS, tmp_path)


@pytest.mark.parametrize("content", [b"", b"no model at all", None])
def test_what_is_no_model_is_refused(content, tmp_path):
    if content is not None:
        (tmp_path / "model.tflite").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"^model\.tflite: not loadable by LiteRT: [^\n]*$"):
        EXPORTER.load(tmp_path / "model.tflite")


def test_nothing_of_the_libraries_reaches_the_terminal(tmp_path, capfd):
    network, inputs = random_network(0)
    (name,) = EXPORTER.export(network, FACTS, tmp_path)
    EXPORTER.load(tmp_path / name)(inputs[:1])
    assert tuple(capfd.readouterr()) == ("", "")


def test_a_bundle_says_what_ran_it_which_layout_it_takes_and_verify_wants_a_key(tmp_path, capsys):
    bundle, manifest = exported(trained(NETWORK, tmp_path), tmp_path / "out", "litert", "fp32")
    of_litert = manifest.models["litert-fp32"]
    assert list(of_litert.files) == ["model.tflite"]
    assert (of_litert.ran_by.name, of_litert.layout, of_litert.counted) == ("ai_edge_litert", "nhwc", {TRANSPOSES: 0})
    assert manifest.models["onnx-fp32"].layout == "nchw"
    assert load_manifest(bundle) == manifest
    before = verified(bundle, capsys)
    assert (before["executed"], before["not_executed"]) == ([], ["model.tflite"])
    after = verified(bundle, capsys, "--key", str(signed(bundle, tmp_path)))
    assert {each["file"] for each in after["executed"]} == {"model.tflite"}
