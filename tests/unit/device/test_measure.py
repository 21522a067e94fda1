"""What is reported about latency: of real models in the real runtime, without asserting a time, and of made visits."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fedsup_deploy.artifact.measured import MeasuredBundle
from fedsup_deploy.device.measure import measure_energy, measure_many, measure_onnx, summarize
from fedsup_deploy.errors import ArtifactError, ConfigError

STATISTICS = {"num_runs", "min_ms", "p10_ms", "p50_ms", "p90_ms", "mean_ms", "p90_bound_ms"}


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
    with pytest.raises(ArtifactError, match="open shape"):
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
    with pytest.raises(ConfigError, match="threads: got 0, expected 1 to "):
        measure_onnx(model, threads=0)
    with pytest.raises(ConfigError, match="rounds: got 1, expected at least 2"):
        measure_many({"model": model}, rounds=1)
    with pytest.raises(ConfigError, match="threads: got 0"):
        measure_many({"model": model}, threads=0)
    with pytest.raises(ArtifactError, match="no model at"):
        measure_many({"model": tmp_path / "nothing.onnx"})


def test_a_ruler_and_a_sensor_add_what_they_tell(tmp_path: Path) -> None:
    ruler, model = write_model(tmp_path / "ruler.onnx"), write_model(tmp_path / "model.onnx", channels=8)
    hwmon = tmp_path / "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3"
    hwmon.mkdir(parents=True)
    for name, content in {"in1_label": "VDD_IN", "power1_input": 2_000_000}.items():
        (hwmon / name).write_text(f"{content}\n")
    report = measure_onnx(model, ruler=ruler)
    assert (report["ruler"]["num_visits"], report["ruler"]["stability"]["statistic"]) == (50, "median of p10 / ruler")
    report["energy"], reason = measure_energy(model, sensors=tmp_path / "sys")
    assert (report["energy"]["covers"], reason) == ("module", None)
    assert report["energy"]["idle_power_w"] == pytest.approx(2, rel=0.05)
    assert MeasuredBundle.model_validate(report).energy.model_dump() == report["energy"]
    with pytest.raises(ArtifactError, match="no model at"):
        measure_energy(tmp_path / "nothing.onnx", sensors=tmp_path / "sys")


def test_what_is_measured_fits_in_a_manifest(tmp_path: Path) -> None:
    report = measure_onnx(write_model(tmp_path / "model.onnx"))
    assert (report["ruler"], report["energy"]) == (None, None)
    measured = MeasuredBundle.model_validate(report)
    assert measured.statistics.p90_bound_ms == report["statistics"]["p90_bound_ms"]
    assert measured.stability.drift == report["stability"]["drift"]


def test_several_models_are_timed_in_turns(tmp_path: Path) -> None:
    models = {f"m{channels}": write_model(tmp_path / f"{channels}.onnx", channels) for channels in (2, 4, 8, 16, 32)}
    reports = measure_many(models, ruler=models["m4"], rounds=3, visit_seconds=0.005)
    assert set(reports) == set(models)
    for report in reports.values():
        assert report["statistics"]["num_runs"] >= 3, "one in each visit, however busy the machine"
        assert (report["num_visits"], 0 <= report["num_visits_kept"] <= 3) == (3, True)
        assert (report["ratio"] is None) == (report["num_visits_kept"] == 0)
        assert report["load_ms"] > 0


def test_no_models_take_no_time() -> None:
    assert measure_many({}) == {}


# What visits come to, on made events.


def visit(index: int, p10_ms: float, ruler_ms: list[float] | None = None, **fields: Any) -> dict[str, Any]:
    """Return the event of a visit whose other figures are 0.5, 2, 3 and 4 times the p10."""
    figures = {"min_ms": 0.5, "p10_ms": 1, "p50_ms": 2, "p90_ms": 3, "mean_ms": 4}
    summary = {name: factor * p10_ms for name, factor in figures.items()}
    return {"event": "visit", "round": index, "model": "a", "num_runs": 10, **summary, "ruler_ms": ruler_ms, **fields}


def test_with_a_ruler_latency_is_the_ratio_at_the_rulers_best() -> None:
    """The machine was half as fast in round 1; there model and ruler take twice as long."""
    events = [
        {"event": "environment", "cpu": "any"},
        {"event": "load", "model": "a", "load_ms": 5.0, "first_run_ms": 9.0},
        visit(0, 3.0, [1.0, 1.0]),
        visit(1, 6.0, [2.0, 2.0]),
        visit(2, 3.06, [1.0, 1.04]),
        {"event": "round", "done": 3, "total": 3, "seconds": 0.1},
    ]
    report = summarize(events)["a"]
    assert report["ratio"] == pytest.approx(3.0)
    assert report["ruler_ms"] == 1.0
    assert report["latency_ms"] == pytest.approx(3.0)
    assert (report["num_visits"], report["num_visits_kept"]) == (3, 3)
    assert (report["stability"]["statistic"], report["stability"]["verdict"]) == ("median of p10 / ruler", "stable")
    assert (report["load_ms"], report["first_run_ms"]) == (5.0, 9.0)
    expected = {
        "num_runs": 30,
        "min_ms": 1.5,
        "median_p10_ms": 3.06,
        "median_p50_ms": 6.12,
        "median_p90_ms": 9.18,
        "median_mean_ms": 12.24,
    }
    assert report["statistics"] == pytest.approx(expected)


def test_the_mean_of_both_looks_counts() -> None:
    report = summarize([visit(0, 2.04, [1.0, 1.04]), visit(1, 2.04, [1.0, 1.04])])["a"]
    assert report["ratio"] == pytest.approx(2.0)


def test_without_ruler_latency_is_the_median_of_p10() -> None:
    report = summarize([visit(index, p10_ms) for index, p10_ms in enumerate([1.0, 1.02, 9.0, 1.01, 1.0])])["a"]
    assert report["latency_ms"] == pytest.approx(1.01)
    assert (report["ratio"], report["ruler_ms"], report["load_ms"]) == (None, None, None)
    assert report["stability"]["statistic"] == "median of p10"
    assert report["num_visits_kept"] == 5


def test_visits_during_which_the_ruler_changed_are_left_out() -> None:
    steady = [visit(index, 2.0, [1.0, 1.04]) for index in range(3)]
    changed = [visit(3, 9.0, [1.0, 1.06]), visit(4, 9.0, [1.06, 1.0])]
    report = summarize([*steady, *changed])["a"]
    assert report["ratio"] == pytest.approx(2.0 / 1.02)
    assert (report["num_visits"], report["num_visits_kept"], report["stability"]["verdict"]) == (5, 3, "stable")


def test_with_less_than_half_the_visits_left_a_model_is_unstable() -> None:
    """However well those that are left agree; with exactly half it may be stable."""
    steady = [visit(index, 2.0, [1.0, 1.0]) for index in range(2)]
    changed = [visit(index, 2.0, [1.0, 2.0]) for index in range(2, 5)]
    assert summarize([*steady, *changed[:2]])["a"]["stability"]["verdict"] == "stable"
    report = summarize([*steady, *changed])["a"]
    assert (report["stability"]["disagreement"], report["stability"]["verdict"]) == (0.0, "unstable")
    assert report["ratio"] == pytest.approx(2.0)


def test_with_no_visit_left_there_is_no_latency() -> None:
    report = summarize([visit(0, 2.0, [1.0, 2.0]), visit(1, 2.0, [1.0, 2.0])])["a"]
    assert (report["latency_ms"], report["ratio"], report["num_visits_kept"]) == (None, None, 0)
    assert (report["stability"]["disagreement"], report["stability"]["verdict"]) == (None, "unstable")
    json.dumps(report, allow_nan=False)


def test_ratios_that_do_not_repeat_are_unstable() -> None:
    report = summarize([visit(index, 2.0 + index % 2, [1.0, 1.0]) for index in range(6)])["a"]
    assert report["stability"]["disagreement"] == pytest.approx(0.5)
    assert report["stability"]["verdict"] == "unstable"


def test_of_a_repeated_round_the_last_visit_counts() -> None:
    """A session that was cut off inside round 1 repeats it; order of the models is that of their first visits."""
    first = [visit(0, 1.0, model="b"), visit(0, 1.0), visit(1, 9.0, model="b")]
    second = [visit(1, 1.0), visit(1, 1.0, model="b")]
    reports = summarize([*first, *second])
    assert list(reports) == ["b", "a"]
    assert [report["num_visits"] for report in reports.values()] == [2, 2]
    assert [report["latency_ms"] for report in reports.values()] == [1.0, 1.0]
