"""The timing protocol, on real models in the real runtime. No time is asserted, only what is reported about it."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fedsup_deploy.device.measure import measure_many, measure_onnx
from fedsup_deploy.errors import ArtifactError, ConfigError

STATISTICS = {"num_runs", "min_ms", "p10_ms", "p50_ms", "p90_ms", "mean_ms"}


def write_model(path: Path, channels: int = 4, size: int | str = 8) -> Path:
    """Write conv 3x3 -> ReLU -> mean over the map."""
    weights = np.full((channels, 3, 3, 3), 0.1, np.float32)
    nodes = [
        helper.make_node("Conv", ["input", "weights"], ["conv"], pads=[1] * 4),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("GlobalAveragePool", ["relu"], ["logits"]),
    ]
    image = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, size, size])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", channels, 1, 1])
    graph = helper.make_graph(nodes, "toy", [image], [logits], [numpy_helper.from_array(weights, "weights")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def test_one_model_is_timed(tmp_path: Path) -> None:
    report = measure_onnx(write_model(tmp_path / "model.onnx"))
    statistics = report["statistics"]
    assert set(statistics) == STATISTICS
    assert statistics["num_runs"] >= 200
    assert 0 < statistics["min_ms"] <= statistics["p10_ms"] <= statistics["p50_ms"] <= statistics["p90_ms"]
    assert report["protocol"]["name"] == "quick"
    assert report["protocol"]["batch"] == 1
    assert report["stability"]["verdict"] in {"stable", "unstable"}
    assert report["load_ms"] > 0
    assert report["first_run_ms"] > 0
    assert report["environment"]["threads"] == 1


def test_a_shape_can_be_given_for_an_open_input(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.onnx", size="side")
    with pytest.raises(ConfigError, match="open shape"):
        measure_onnx(model)
    assert measure_onnx(model, (2, 3, 8, 8), threads=2)["environment"]["threads"] == 2


def test_a_shape_the_model_cannot_take_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot run"):
        measure_onnx(write_model(tmp_path / "model.onnx"), (1, 5, 8, 8))


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(ArtifactError, match="cannot run"):
        measure_onnx(tmp_path / "model.onnx")
    with pytest.raises(ArtifactError, match="no model at"):
        measure_onnx(tmp_path / "nothing.onnx")


def test_impossible_settings_are_refused(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.onnx")
    with pytest.raises(ConfigError, match="unknown protocol 'quik'; did you mean 'quick'"):
        measure_onnx(model, protocol="quik")
    with pytest.raises(ConfigError, match="threads: got 0, expected at least 1"):
        measure_onnx(model, threads=0)
    with pytest.raises(ConfigError, match="rounds: got 1, expected at least 2"):
        measure_many([model], rounds=1)


def test_several_models_are_timed_in_turns_and_reported_in_order(tmp_path: Path) -> None:
    models = [write_model(tmp_path / f"{channels}.onnx", channels) for channels in (2, 4, 8, 16, 32)]
    reports = measure_many(models, rounds=3, visit_seconds=0.005)
    assert [report["model"] for report in reports] == [model.name for model in models]
    for report in reports:
        assert set(report["statistics"]) == STATISTICS
        assert report["statistics"]["num_runs"] >= 3 * 5
        assert report["ruler"] is None
        assert report["protocol"]["rounds"] == 3


def test_with_a_ruler_each_model_gets_a_ratio_from_the_visits_it_can_trust(tmp_path: Path) -> None:
    ruler = write_model(tmp_path / "ruler.onnx")
    model = write_model(tmp_path / "model.onnx", channels=8)
    for report in measure_many([model, ruler], ruler=ruler, rounds=4, visit_seconds=0.01):
        kept = report["ruler"]["num_visits_kept"]
        assert 0 <= kept <= 4
        assert (report["ruler"]["ratio"] is None) == (kept == 0)


def test_no_models_take_no_time() -> None:
    assert measure_many([]) == []
