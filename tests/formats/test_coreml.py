"""Core ML on random networks, in a bundle, and damaged. In the environment `.venv-coreml`: `make test-formats`."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coremltools.models import datatypes
from coremltools.models.neural_network import NeuralNetworkBuilder
from coremltools.proto import Model_pb2
from random_networks import FACTS, TEN_OF_EACH_FAMILY, checked, random_network
from small_bundles import exported, verified
from small_runs import NETWORK, trained

from fedsup_deploy.artifact.variants import ParityGate
from fedsup_deploy.errors import ArtifactError, GateError
from fedsup_deploy.export.coreml import FILE, CoreMLExporter
from fedsup_deploy.export.coreml_layers import to_bytes
from fedsup_deploy.export.onnx_steps import OnnxStep, image_shape, steps_of
from fedsup_deploy.export.parity import check_parity
from fedsup_deploy.space.onnx_graph import build_model
from fedsup_deploy.space.parts import parts_of


@pytest.mark.parametrize("seed", TEN_OF_EACH_FAMILY)
def test_ten_networks_of_each_family_pass_the_gate_one_image_at_a_time(seed: int, tmp_path: Path) -> None:
    gate = checked(CoreMLExporter(), seed, tmp_path)
    assert (gate.batches, gate.tolerance, gate.argmax_agreement) == ((1,), 1e-5, 1.0)


class Builder:
    """Layers as coremltools writes them for whoever tells it what each one is."""

    def __init__(self, channels: int, side: int, classes: int) -> None:
        self.of_apple = NeuralNetworkBuilder(
            [("input", datatypes.Array(1, channels, side, side))],
            [("logits", datatypes.Array(1, classes))],
            disable_rank5_shape_mapping=True,
            use_float_arraytype=True,
        )

    def add(self, step: OnnxStep) -> None:
        between = {"input_name": step.values[0], "output_name": step.outputs[0]}
        getattr(self, step.operation)(step, step.name, between)

    def Conv(self, step: OnnxStep, name: str, between: dict[str, str]) -> None:
        weight, bias = step.constants
        out, channels, height, width = weight.shape
        pads, strides = step.stated.get("pads", [0] * 4), step.stated.get("strides", [1, 1])
        names = ("padding_top", "padding_left", "padding_bottom", "padding_right")
        self.of_apple.add_convolution(
            *(name, channels, out, height, width, strides[0], strides[1], "valid", step.stated.get("group", 1)),
            *(weight.transpose(2, 3, 1, 0), bias, True),
            **between,
            **dict(zip(names, pads, strict=True)),
        )

    def Gemm(self, step: OnnxStep, name: str, between: dict[str, str]) -> None:
        weight, bias = step.constants
        self.of_apple.add_inner_product(name, weight, bias, weight.shape[1], weight.shape[0], True, **between)

    def Relu(self, _: OnnxStep, name: str, between: dict[str, str]) -> None:
        self.of_apple.add_activation(name, "RELU", **between)

    def Clip(self, step: OnnxStep, name: str, between: dict[str, str]) -> None:
        self.of_apple.add_clip(name, **between, min_value=step.constants[0], max_value=step.constants[1])

    def Add(self, step: OnnxStep, name: str, _: dict[str, str], mode: str = "ADD") -> None:
        alpha = float(step.constants[0]) if step.constants else None
        self.of_apple.add_elementwise(name, list(step.values), step.outputs[0], mode, alpha=alpha)

    def Mul(self, step: OnnxStep, name: str, between: dict[str, str]) -> None:
        self.Add(step, name, between, "MULTIPLY")

    def AveragePool(self, step: OnnxStep, name: str, between: dict[str, str]) -> None:
        kind = "SAME" if step.stated["ceil_mode"] else "VALID"
        self.of_apple.add_pooling(name, 2, 2, 2, 2, "AVERAGE", kind, **between, exclude_pad_area=True)

    def ReduceMean(self, step: OnnxStep, name: str, between: dict[str, str]) -> None:
        if step.stated["keepdims"]:
            self.of_apple.add_pooling(name, 0, 0, 0, 0, "AVERAGE", "VALID", **between, is_global=True)
        else:
            self.of_apple.add_reduce_mean(name, **between, axes=[2, 3], keepdims=False)


@pytest.mark.parametrize("seed", range(6))
def test_a_file_is_what_coremltools_own_builder_writes(seed: int) -> None:
    network, _ = random_network(seed)
    weights = {name: tensor.numpy() for name, tensor in network.weights.items()}
    graph = build_model(parts_of(network.plan), weights)
    builder = Builder(*image_shape(graph), graph.graph.output[0].type.tensor_type.shape.dim[1].dim_value)
    for step in steps_of(graph, dir(builder), "the builder"):
        builder.add(step)
    assert builder.of_apple.spec.SerializeToString(deterministic=True) == to_bytes(graph, {})


def test_file_says_what_it_is_told_to_and_nothing_is_printed_or_left(tmp_path: Path) -> None:
    """In a process of its own, where coremltools is imported for the first time; with the bytes that it has here."""
    script = (
        "import sys, pathlib\n"
        "from random_networks import FACTS, random_network\n"
        "from fedsup_deploy.export.coreml import CoreMLExporter\n"
        "CoreMLExporter().export(random_network(0)[0], FACTS, pathlib.Path(sys.argv[1]))\n"
    )
    for name in ("out", "here", "tmp", "home"):
        (tmp_path / name).mkdir()
    places = {"TMPDIR": str(tmp_path / "tmp"), "HOME": str(tmp_path / "home"), "PYTHONPATH": str(Path(__file__).parent)}
    places["PYTHONHASHSEED"] = "7"
    words = [sys.executable, "-W", "error", "-c", script, str(tmp_path / "out")]
    ended = subprocess.run(words, env={**os.environ, **places}, cwd=tmp_path / "home", capture_output=True, check=True)
    assert (ended.stdout, ended.stderr) == (b"", b"")
    assert [path for name in ("tmp", "home") for path in (tmp_path / name).iterdir()] == []
    CoreMLExporter().export(random_network(0)[0], FACTS, tmp_path / "here")
    assert (tmp_path / "out" / FILE).read_bytes() == (tmp_path / "here" / FILE).read_bytes()
    written = Model_pb2.Model.FromString((tmp_path / "out" / FILE).read_bytes())
    assert dict(written.description.metadata.userDefined) == FACTS


def _layers(model: Any, kind: str) -> list[Any]:
    return [getattr(each, kind) for each in model.neuralNetwork.layers if each.WhichOneof("layer") == kind]


def _swap(edges: Any) -> None:
    edges.startEdgeSize, edges.endEdgeSize = edges.endEdgeSize + 1, edges.startEdgeSize - 1


def _reorder(model: Any) -> None:
    weights = next(each for each in _layers(model, "convolution") if each.kernelChannels > 1).weights
    weights.floatValue[:] = list(np.array(weights.floatValue)[::-1])


def _without_shortcut(model: Any) -> None:
    """Let the first sum of two maps add the first of them to itself."""
    layer = next(each for each in model.neuralNetwork.layers if each.HasField("add") and len(each.input) == 2)
    layer.input[1] = layer.input[0]


@pytest.mark.parametrize(
    "change",
    [
        lambda model: _swap(_layers(model, "convolution")[0].valid.paddingAmounts.borderAmounts[0]),
        _reorder,
        lambda model: _layers(model, "innerProduct")[0].bias.floatValue.__setitem__(0, 1.0),
        lambda model: setattr(_layers(model, "pooling")[-1], "avgPoolExcludePadding", False),
        _without_shortcut,
    ],
    ids=["padding", "order", "bias", "overhang", "shortcut"],
)
def test_a_file_that_says_something_else_does_not_pass_the_gate(change: Callable[[Any], None], tmp_path: Path) -> None:
    import torch

    network, inputs = random_network(3)  # 9 pixels, halved by pools in its shortcuts
    CoreMLExporter().export(network, FACTS, tmp_path)
    model = Model_pb2.Model.FromString((tmp_path / FILE).read_bytes())
    change(model)
    (tmp_path / FILE).write_bytes(model.SerializeToString())
    expected = network.module()(torch.from_numpy(inputs)).numpy()
    with pytest.raises(GateError, match="the file does not compute what the subnet computes"):
        check_parity(expected, {"it": CoreMLExporter().load(tmp_path / FILE)}, inputs, (1,))


def _set(path: str, *values: int) -> Callable[[Any], None]:
    """Return what changes a field of the first layer of a kind, such as `pooling.kernelSize`."""
    kind, name = path.split(".")

    def change(model: Any) -> None:
        params = _layers(model, kind)[0]
        if hasattr(getattr(params, name), "extend"):
            getattr(params, name)[:] = values
        else:
            setattr(params, name, values[0])

    return change


def _add(kind: str) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        layer = model.neuralNetwork.layers.add(name="more", input=["logits"], output=["more"])
        getattr(layer, kind).SetInParent()

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_add("custom"), "got the field 500"),
        (_add("softmax"), "got the field 175"),
        (lambda model: model.mlProgram.SetInParent(), "got the field 502"),
        (lambda model: model.pipeline.models.add(), "got the field 202"),
        (lambda model: setattr(model, "isUpdatable", True), "got the field 10,"),
        (lambda model: setattr(model, "specificationVersion", 9), "got the version 9, expected 4"),
        (lambda model: setattr(model.neuralNetwork, "arrayInputShapeMapping", 0), "images of other dimensions"),
        (lambda model: model.neuralNetwork.preprocessing.add(), "got the field 2, expected layers"),
        (_set("convolution.outputChannels", 2**40), "weights"),
        (_set("convolution.nGroups", 2**63), "groups"),
        (_set("convolution.nGroups", 0), "groups"),
        (_set("convolution.kernelSize", 2**62, 2**62), "does not fill"),
        (_set("convolution.kernelSize", 3), "expected two numbers of each"),
        (_set("convolution.stride", 0, 1), "expected two numbers of each"),
        (_set("convolution.dilationFactor", 2, 2), "no plain one"),
        (_set("convolution.isDeconvolution", 1), "no plain one"),
        (lambda model: _layers(model, "convolution")[0].weights.floatValue.pop(), "weights and"),
        (lambda model: _layers(model, "convolution")[0].bias.floatValue.append(0), "biases"),
        (lambda model: setattr(_layers(model, "convolution")[0].weights, "float16Value", b"ab"), "got the field 2,"),
        (lambda model: _layers(model, "convolution")[0].weights.quantization.SetInParent(), "got the field 40"),
        (lambda model: _layers(model, "pooling")[0].includeLastPixel.SetInParent(), "got the field 32"),
        (_set("pooling.type", 0), "it is no average"),
        (lambda model: setattr(_layers(model, "pooling")[-1].same, "asymmetryMode", 1), "padded at the top"),
        (_set("innerProduct.inputChannels", 1), "got 1 inputs"),
        (lambda model: _layers(model, "activation")[0].sigmoid.SetInParent(), "got the field 40"),
        (lambda model: model.neuralNetwork.layers[3].input.append("input"), "it reads|expected one|no ReLU"),
        (lambda model: model.neuralNetwork.layers[0].input.__setitem__(0, "logits"), "those before it write"),
        (lambda model: model.neuralNetwork.layers[1].output.__setitem__(0, "input"), "those before it write"),
        (lambda model: model.description.input[0].type.multiArrayType.shape.__setitem__(2, 2**50), "expected one of"),
        (lambda model: model.description.input[0].type.multiArrayType.shape.__setitem__(1, 7), "inputs in"),
        (lambda model: model.description.output[0].type.multiArrayType.shape.__setitem__(1, 999), "expected \\(1, 999"),
        (lambda model: model.description.input.add(), "got 2, expected input alone"),
        (lambda model: setattr(model.description.input[0].type.multiArrayType, "dataType", 65552), "one of float32"),
        (lambda model: model.description.input[0].type.imageType.SetInParent(), "got the field 4"),
    ],
)
def test_what_this_program_never_writes_is_refused(change: Callable[[Any], Any], said: str, tmp_path: Path) -> None:
    network, _ = random_network(3)
    CoreMLExporter().export(network, FACTS, tmp_path)
    model = Model_pb2.Model.FromString((tmp_path / FILE).read_bytes())
    change(model)
    (tmp_path / FILE).write_bytes(model.SerializeToString())
    with pytest.raises(ArtifactError, match=said) as caught:
        CoreMLExporter().load(tmp_path / FILE)
    assert str(caught.value).startswith(f"{FILE}: not a Core ML file of ours: ")
    assert "\n" not in str(caught.value)


def test_a_bundle_records_and_verify_repeats_what_ran_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(NETWORK, tmp_path)
    made = [exported(run, tmp_path / name, "coreml", "fp32", "int8") for name in ("one", "two")]
    folder, manifest = made[0]
    assert set(manifest.models) == {"onnx-fp32", "onnx-int8", "coreml-fp32"}, "a neural network has no int8"
    record = manifest.models["coreml-fp32"]
    assert isinstance(record.gate, ParityGate)
    assert (record.gate.tolerance, record.gate.batches) == (1e-5, (1,))
    assert record.ran_by is not None
    assert record.ran_by.name == "fedsup_deploy", "and no runtime of Apple's"
    assert "coremltools" in manifest.versions
    card = (folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "coreml-fp32 was read back and computed by this program: no runtime of its format has run it." in card

    found = verified(folder, capsys)
    assert [(each["file"], each["ran_by"]) for each in found["executed"]] == [(FILE, "fedsup_deploy")]
    assert (found["not_executed"], found["not_installed"]) == ([], {})
    assert len({(each / FILE).read_bytes() for each, _ in made}) == 1
