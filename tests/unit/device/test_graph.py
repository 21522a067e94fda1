"""Graphs of parts, as onnxruntime runs them."""

import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from fedsup_deploy.config.device import Int8Scheme
from fedsup_deploy.device.building.graph import random_weights, ranges_on_a_random_image, write_graph
from fedsup_deploy.export.onnx import OnnxExporter
from fedsup_deploy.ondevice import bundle_files, inference
from fedsup_deploy.space.onnx_graph import build_model, to_bytes
from fedsup_deploy.space.parts import Part, layers_of, parts_of
from fedsup_deploy.space.plan import BlockPlan
from fedsup_deploy.space.search_space import SearchSpace
from fedsup_deploy.supernet import ranges
from fedsup_deploy.supernet.deployable import FoldedNetwork, Quantization

U8 = Int8Scheme(activations="u8", is_symmetric=False, per_channel=True, reduce_range=False)
S8 = Int8Scheme(activations="s8", is_symmetric=True, per_channel=False, reduce_range=True)


@pytest.fixture
def blocks(space_of: Callable[..., SearchSpace]) -> tuple[Part, ...]:
    """All parts of a network with everything that a block can have."""
    space = space_of(
        {"widths": [6], "depths": [2], "kernel_sizes": [5], "expand_ratios": [2], "squeeze_excite": [True], "stride": 2}
    )
    return parts_of(space.plan(space.largest))


def test_each_part_runs_alone_on_what_the_one_before_writes(blocks: tuple[Part, ...], tmp_path: Path) -> None:
    values = np.ones((2, 1, 8, 8), np.float32)
    for index, part in enumerate(blocks):
        path = tmp_path / f"{index}.onnx"
        write_graph((part,), path)
        values = inference.bind(inference.open_session(str(path), 1), values)()
        last = layers_of(part)[-1]
        expected = (2, last.out_channels) if last.op == "linear" else (2, last.out_channels, *[last.out_size] * 2)
        assert values.shape == expected
        assert np.isfinite(values).all()


def test_activations_keep_their_order_of_size(blocks: tuple[Part, ...], tmp_path: Path) -> None:
    """Values that vanish or explode would take a processor another time than those of a trained network."""
    write_graph(blocks, tmp_path / "whole.onnx")
    logits_BK = inference.bind(
        inference.open_session(str(tmp_path / "whole.onnx"), 1), np.ones((1, 1, 8, 8), np.float32)
    )()
    assert 1e-3 < np.abs(logits_BK).max() < 1e3


def test_weights_have_the_names_of_the_supernet(blocks: tuple[Part, ...]) -> None:
    assert isinstance(blocks[1], BlockPlan)
    names = {tensor.name for tensor in build_model(blocks[1:2], random_weights(blocks[1:2], 0)).graph.initializer}
    owners = [layer.name for layer in layers_of(blocks[1]) if layer.op in {"depthwise", "pointwise"}]
    assert {f"{owner}.{what}" for owner in owners for what in ("weight", "bias")} <= names
    assert {name for name in names if ".reduce." in name or ".expand." in name}


def test_a_graph_depends_on_its_seed_alone(blocks: tuple[Part, ...]) -> None:
    first, again, other = (to_bytes(build_model(blocks, random_weights(blocks, seed))) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_graph_is_valid_onnx_and_has_an_open_batch(blocks: tuple[Part, ...]) -> None:
    model = build_model(blocks, random_weights(blocks, 0))
    onnx.checker.check_model(model, full_check=True)
    batch, *rest = model.graph.input[0].type.tensor_type.shape.dim
    assert batch.dim_param == "batch"
    assert [size.dim_value for size in rest] == [1, 8, 8]


def form_of(path: Path) -> tuple[object, ...]:
    """Return what decides how long a file takes: its nodes, the types and shapes of its tensors, its versions."""
    model = onnx.load(path)
    nodes = [(node.op_type, node.name, list(node.input), list(node.output)) for node in model.graph.node]
    tensors = {each.name: (each.data_type, list(each.dims)) for each in model.graph.initializer}
    ends = [str(each) for each in (*model.graph.input, *model.graph.output)]
    return nodes, tensors, ends, model.opset_import[0].version, model.ir_version, model.producer_name


@pytest.mark.parametrize("scheme", [None, U8, S8], ids=["fp32", "u8", "s8"])
def test_what_is_timed_is_of_the_form_that_export_writes(
    space_of: Callable[..., SearchSpace], tmp_path: Path, scheme: Int8Scheme | None
) -> None:
    """The same operations in 8 bits, and the logits in float32."""
    space = space_of({"widths": [6], "depths": [2], "expand_ratios": [2], "squeeze_excite": [True], "stride": 2})
    plan = space.plan(space.largest)
    parts = parts_of(plan)
    write_graph(parts, tmp_path / "timed.onnx", 3, scheme)

    weights = random_weights(parts, 3)
    extremes_V2 = ranges_on_a_random_image(build_model(parts, weights), 3)
    counts = ranges.ActivationCounts(np.stack([ranges.count(each) for each in extremes_V2]), extremes_V2)
    quantization = None if scheme is None else Quantization(counts, scheme)
    tensors = {name: torch.from_numpy(array) for name, array in weights.items()}
    (exported,) = OnnxExporter().export(FoldedNetwork(plan, tensors, quantization), {}, tmp_path)
    assert exported == (bundle_files.MODEL if scheme is None else bundle_files.INT8_MODEL)
    assert form_of(tmp_path / "timed.onnx") == form_of(tmp_path / exported)


def test_a_network_in_int8_computes_with_integers_throughout(
    tiny_space: SearchSpace, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What the runtime makes of it: no convolution in float32 is left, and it still computes about the same."""
    path, in_int8, optimized = (tmp_path / f"{name}.onnx" for name in ("fp32", "int8", "optimized"))
    parts = parts_of(tiny_space.plan(tiny_space.largest))
    x_BCHW = np.cos(np.arange(64, dtype=np.float32)).reshape(1, 1, 8, 8)
    write_graph(parts, path)
    with caplog.at_level(logging.INFO):
        write_graph(parts, in_int8, scheme=U8)
    assert caplog.records == []
    expected, found = (inference.bind(inference.open_session(str(each), 1), x_BCHW)() for each in (path, in_int8))
    assert 0 < np.abs(found - expected).max() < 0.3 * np.abs(expected).max()

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(optimized)
    options.log_severity_level = 4
    onnxruntime.InferenceSession(str(in_int8), options, providers=["CPUExecutionProvider"])
    kinds = Counter(node.op_type for node in onnx.load(optimized).graph.node)
    assert "Conv" not in kinds
    assert "Relu" not in kinds
    assert kinds["QLinearConv"] >= 8, "the stem, and two in each of three blocks, and those of the shortcuts"
    assert kinds["QuantizeLinear"] <= 2


def test_each_part_can_be_written_in_int8_alone(blocks: tuple[Part, ...], tmp_path: Path) -> None:
    for index, part in enumerate(blocks):
        path, in_int8 = tmp_path / f"{index}.onnx", tmp_path / f"{index}.int8.onnx"
        write_graph((part,), path)
        write_graph((part,), in_int8, scheme=U8)
        assert {node.op_type for node in onnx.load(in_int8).graph.node} >= {"QuantizeLinear", "DequantizeLinear"}
        sessions = [inference.open_session(str(each), 1) for each in (path, in_int8)]
        x_BCHW = np.ones([1, *sessions[0].get_inputs()[0].shape[1:]], np.float32)
        fp32, int8 = (inference.bind(session, x_BCHW)() for session in sessions)
        assert int8.shape == fp32.shape
        assert np.isfinite(int8).all()
