"""Graphs in int8, as onnxruntime runs them."""

import logging
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from fedsup_deploy.device.building.graph import write_graph
from fedsup_deploy.device.building.quantized import quantize
from fedsup_deploy.ondevice import inference
from fedsup_deploy.space.parts import parts_of
from fedsup_deploy.space.search_space import SearchSpace


def test_a_network_in_int8_computes_with_integers_throughout(
    tiny_space: SearchSpace, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What the runtime makes of it: no convolution in float32 is left, and it still computes about the same."""
    path, optimized = tmp_path / "model.onnx", tmp_path / "optimized.onnx"
    write_graph(parts_of(tiny_space.plan(tiny_space.largest)), path)
    x_BCHW = np.cos(np.arange(64, dtype=np.float32)).reshape(1, 1, 8, 8)
    expected = inference.bind(inference.open_session(str(path), 1), x_BCHW)()
    with caplog.at_level(logging.INFO):
        quantize(path)
    assert caplog.records == []
    found = inference.bind(inference.open_session(str(path), 1), x_BCHW)()
    assert np.abs(found - expected).max() < 0.3 * np.abs(expected).max()

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(optimized)
    options.log_severity_level = 4
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    kinds = Counter(node.op_type for node in onnx.load(optimized).graph.node)
    assert "Conv" not in kinds
    assert "Relu" not in kinds
    assert kinds["QLinearConv"] >= 8, "the stem, and two in each of three blocks, and those of the shortcuts"
    assert kinds["QuantizeLinear"] <= 2


def test_each_part_can_be_quantised_alone(tiny_space: SearchSpace, tmp_path: Path) -> None:
    for index, part in enumerate(parts_of(tiny_space.plan(tiny_space.largest))):
        path = tmp_path / f"{index}.onnx"
        write_graph((part,), path)
        size = path.stat().st_size
        quantize(path)
        assert path.stat().st_size != size
        shape = [1, *inference.open_session(str(path), 1).get_inputs()[0].shape[1:]]
        values = inference.bind(inference.open_session(str(path), 1), np.ones(shape, np.float32))()
        assert np.isfinite(values).all()
