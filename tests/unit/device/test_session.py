"""Interleaved sessions, on real models in the real runtime, by a clock that tests move."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from fedsup_deploy.artifact.packing import pack
from fedsup_deploy.device import session
from fedsup_deploy.ondevice import inference, timing

SUMMARY = {"num_runs", "min_ms", "p10_ms", "p50_ms", "p90_ms", "mean_ms"}


def write_model(path: Path, channels: int = 4, size: int | str = 8) -> Path:
    """Write conv 3x3 -> mean over the map."""
    weights = np.full((channels, 3, 3, 3), 0.1, np.float32)
    nodes = [
        helper.make_node("Conv", ["input", "weights"], ["conv"], pads=[1] * 4),
        helper.make_node("GlobalAveragePool", ["conv"], ["logits"]),
    ]
    image = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, size, size])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", channels, 1, 1])
    graph = helper.make_graph(nodes, "toy", [image], [logits], [numpy_helper.from_array(weights, "weights")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six models and a ruler."""
    for index in range(6):
        write_model(tmp_path / f"m{index}.onnx", 2 + index)
    write_model(tmp_path / "ruler.onnx", 8)
    return tmp_path


def models_in(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted(folder.glob("m*.onnx"))}


class Clock:
    """A clock that goes on by 0.1 ms whenever it is looked at, as it is once after every run."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        self.now_ns += 100_000
        return self.now_ns


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["event"] for event in events]


def test_every_round_visits_every_model_once(folder: Path) -> None:
    events = list(session.visits(models_in(folder), session.Schedule(2, 0.001), clock=Clock()))
    names = sorted(models_in(folder))
    assert kinds(events) == ["environment", *["load"] * 6, *([*["visit"] * 6, "round"] * 2)]
    assert events[0]["threads"] == 1
    assert [event["model"] for event in events if event["event"] == "load"] == names
    for index in range(2):
        visited = [event for event in events if event["event"] == "visit" and event["round"] == index]
        assert sorted(event["model"] for event in visited) == names
        assert [event["model"] for event in visited] == session.order_of_round(names, 0, index)
    for event in events:
        if event["event"] == "visit":
            assert set(event) == {"event", "round", "model", "state", "ruler_ms", *SUMMARY}
            assert (event["ruler_ms"], event["num_runs"]) == (None, 10), "0.1 ms each, for 1 ms"
            assert [event[name] for name in SUMMARY - {"num_runs"}] == pytest.approx([0.1] * 5)
    assert [(e["done"], e["total"]) for e in events if e["event"] == "round"] == [(1, 2), (2, 2)]
    # 6 visits of a round take 3 runs to warm up again and 10 that count, with a look at the clock before either.
    assert [event["seconds"] for event in events if event["event"] == "round"] == [0.009, 0.018]
    json.dumps(events, allow_nan=False)


@pytest.mark.parametrize(("seconds", "expected_runs"), [(0.0002, 5), (0.00004, 4)])
def test_a_visit_of_slow_runs_has_five_unless_ten_times_its_length_is_over(
    folder: Path, seconds: float, expected_runs: int
) -> None:
    """Runs of 0.1 ms in visits of 0.2 ms, and of 0.04 ms."""
    events = session.visits(models_in(folder), session.Schedule(1, seconds), clock=Clock())
    assert {event["num_runs"] for event in events if event["event"] == "visit"} == {expected_runs}


def test_the_ruler_stands_around_every_four_models(folder: Path) -> None:
    """Six models are a group of four and one of two; the look between them belongs to both."""
    ruler = folder / "ruler.onnx"
    events = session.visits(models_in(folder), session.Schedule(2, 0.001), ruler=ruler)
    rulers = [tuple(event["ruler_ms"]) for event in events if event["event"] == "visit"]
    assert all(ms > 0 for looks in rulers for ms in looks)
    for of_round in (rulers[:6], rulers[6:]):
        assert [of_round.count(looks) for looks in of_round] == [4, 4, 4, 4, 2, 2]
        assert of_round[0][1] == of_round[4][0]


def test_models_are_visited_a_second_time_after_one_that_fills_the_cache(folder: Path) -> None:
    schedule, filler = session.Schedule(2, 0.001), folder / "ruler.onnx"
    events = list(session.visits(models_in(folder), schedule, filler=filler, uncached=["m1", "m4"], clock=Clock()))
    expected = {(index, name, "cached") for index in range(2) for name in models_in(folder)}
    expected |= {(index, name, "uncached") for index in range(2) for name in ("m1", "m4")}
    visited = [(e["round"], e["model"], e["state"]) for e in events if e["event"] == "visit"]
    assert len(visited) == len(expected)
    assert set(visited) == expected
    num_runs = {(event["state"], event["num_runs"]) for event in events if event["event"] == "visit"}
    assert num_runs == {("cached", 10), ("uncached", 5)}


def test_an_uncached_run_is_timed_without_what_fills_the_cache() -> None:
    """By a clock that only these two move: filling takes 2 ms, a run 1 ms. The first run does not count."""
    calls: list[str] = []

    def fill() -> None:
        calls.append("fill")

    def run_once() -> None:
        calls.append("run")

    def clock() -> int:
        return 2_000_000 * calls.count("fill") + 1_000_000 * calls.count("run")

    samples_ns = session._time_uncached(run_once, fill, 0.01, clock)
    assert samples_ns == [1_000_000] * 5
    assert calls == ["fill", "run"] * 6


def test_an_uncached_run_counts_where_all_of_the_time_goes_by_in_it() -> None:
    """On a machine that does something else for a second whenever a run has begun."""
    now_ns = 0

    def run_once() -> None:
        nonlocal now_ns
        now_ns += 10**9

    assert session._time_uncached(run_once, lambda: None, 0.01, lambda: now_ns) == [10**9]


def test_an_interrupted_session_goes_on_as_it_would_have(folder: Path) -> None:
    """Rounds 1 and 2 in another process come in the same order as in one session."""
    models = models_in(folder)

    def order(first_round: int) -> list[tuple[int, str]]:
        events = session.visits(models, session.Schedule(3, 0.001, 7, first_round))
        return [(event["round"], event["model"]) for event in events if event["event"] == "visit"]

    whole, rest = order(0), order(1)
    assert rest == whole[6:]


def test_the_order_depends_on_seed_and_round() -> None:
    names = [f"m{index}" for index in range(20)]
    orders = {tuple(session.order_of_round(names, seed, index)) for seed in range(3) for index in range(3)}
    assert len(orders) == 9
    assert all(sorted(order) == sorted(names) for order in orders)
    assert session.order_of_round(["a", "b", "c", "d"], 0, 0) == session.order_of_round(["d", "c", "b", "a"], 0, 0)


def test_the_order_is_the_same_on_every_machine() -> None:
    """SHA-256 of 0/0/a, 0/0/b, 0/0/c and 0/0/d begins with a9, cd, 54 and 16, as `sha256sum` says."""
    expected = ["d", "c", "a", "b"]
    assert session.order_of_round(["a", "b", "c", "d"], 0, 0) == expected


def test_each_place_in_a_round_is_as_likely_for_each_model() -> None:
    """Of 400 rounds of 4 models each is first in about 100; 5 standard deviations are 43."""
    firsts = [session.order_of_round(["a", "b", "c", "d"], 1, index)[0] for index in range(400)]
    for name in "abcd":
        assert abs(firsts.count(name) - 100) < 43


def test_one_model_is_timed_by_a_protocol(folder: Path) -> None:
    protocol = timing.Protocol("short", 10, 0.01, 0.0, 1.0)
    latency = session.time_model(folder / "m0.onnx", threads=2, protocol=protocol)
    assert latency["protocol"]["name"] == "short"
    assert latency["environment"]["threads"] == 2
    assert latency["first_run_ms"] > 0
    assert latency["load_ms"] > 0


def test_a_model_that_cannot_be_run_is_one_line(folder: Path) -> None:
    (folder / "m0.onnx").write_bytes(b"no model")
    with pytest.raises(session.ModelError, match=r"^onnxruntime [0-9.]+ cannot run .*m0\.onnx: [^\n]*$"):
        list(session.visits(models_in(folder), session.Schedule(2)))
    with pytest.raises(session.ModelError, match="no model at"):
        session.load_model(folder / "nothing.onnx", 1)
    with pytest.raises(session.ModelError, match="open shape"):
        session.load_model(write_model(folder / "open.onnx", size="side"), 1)
    with pytest.raises(session.ModelError, match="cannot run"):
        session.load_model(folder / "m1.onnx", 1, (1, 5, 8, 8))


# The program, as it stands on a device: one file.


@pytest.fixture
def device(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing but the packed program."""
    home = tmp_path_factory.mktemp("device")
    (home / "session.py").write_text(pack(session.__name__))
    return home


def start(device: Path, *arguments: object, python: tuple[str, ...] = ()) -> tuple[int, list[dict[str, Any]]]:
    """Run the program; return its exit code and events."""
    program = [sys.executable, *python, "session.py", *map(str, arguments)]
    ran = subprocess.run(
        program, cwd=device, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=False
    )
    assert ran.stderr == "" or ran.returncode == 2
    return ran.returncode, [json.loads(line) for line in ran.stdout.splitlines()]


def test_the_program_times_a_folder(device: Path, folder: Path) -> None:
    """The ruler lies in the same folder and is not timed as a model."""
    options = ("--ruler", "ruler", "--rounds", 2, "--first-round", 1, "--visit-seconds", 0.001, "--threads", 2)
    code, events = start(device, folder, *options)
    assert code == 0
    assert kinds(events) == ["environment", *["load"] * 6, *["visit"] * 6, "round"]
    assert {event["model"] for event in events if event["event"] == "visit"} == set(models_in(folder))
    assert events[0]["threads"] == 2
    assert str(folder) not in json.dumps(events)


def test_the_program_times_a_model_by_a_protocol(device: Path, tmp_path: Path) -> None:
    """It tells what the runner of a bundle tells under `latency`, and the environment."""
    write_model(tmp_path / "model.onnx")
    code, (event,) = start(device, tmp_path, "--protocol", "quick")
    assert (code, event["event"], event["model"], event["protocol"]["name"]) == (0, "latency", "model", "quick")
    assert event["statistics"]["num_runs"] >= 200
    assert event["environment"]["provider"] == "CPUExecutionProvider"


def test_the_program_says_what_is_wrong_with_a_model(device: Path, tmp_path: Path) -> None:
    code, events = start(device, tmp_path, "--rounds", 2)
    assert (code, kinds(events)) == (3, ["error"])
    (tmp_path / "model.onnx").write_bytes(b"no model")
    code, events = start(device, tmp_path, "--rounds", 2)
    assert (code, kinds(events)) == (3, ["environment", "error"])
    assert events[-1]["reason"].startswith(f"onnxruntime {onnxruntime.__version__} cannot run model.onnx: ")


def test_the_program_says_what_to_install(device: Path, folder: Path) -> None:
    code, events = start(device, folder, python=("-S",))
    expected = "numpy cannot be imported; run: pip install numpy onnxruntime"
    assert (code, events) == (2, [{"event": "error", "reason": expected}])


@pytest.mark.parametrize(
    "wrong",
    [
        ("--threads", 0),
        ("--threads", 99999),
        ("--rounds", 0),
        ("--visit-seconds", 0),
        ("--first-round", -1),
        ("--protocol", "slow"),
    ],
)
def test_wrong_usage_has_its_own_exit_code(device: Path, folder: Path, wrong: tuple[object, ...]) -> None:
    code, events = start(device, folder, *wrong)
    assert (code, [event["event"] for event in events]) == (2, ["error"])
    assert str(wrong[0]) in events[0]["reason"]


def test_a_model_that_does_not_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    condition = helper.make_tensor_value_info("go_on", TensorProto.BOOL, [])
    number = helper.make_tensor_value_info("number", TensorProto.INT64, [])
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 2])
    inner = [helper.make_node("Identity", ["go_on"], ["still"]), helper.make_node("Identity", ["image"], ["same"])]
    outputs = [helper.make_tensor_value_info("still", TensorProto.BOOL, [])]
    outputs += [helper.make_tensor_value_info("same", TensorProto.FLOAT, [1, 2])]
    body = helper.make_graph(inner, "body", [number, condition, image], outputs)
    constants = [numpy_helper.from_array(np.array(2**62), "times"), numpy_helper.from_array(np.array(True), "true")]
    nodes = [helper.make_node("Loop", ["times", "true", "input"], ["output"], body=body)]
    shaped = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in ("input", "output")]
    graph = helper.make_graph(nodes, "endless", shaped[:1], shaped[1:], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    monkeypatch.setattr(inference, "MOST_SECONDS", 0.2)
    with pytest.raises(session.ModelError, match="terminate flag"):
        session.load_model(tmp_path / "m.onnx", threads=1)


def test_an_input_that_no_memory_holds_is_not_made(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.onnx", size=2**30)
    with pytest.raises(session.ModelError, match=r"m\.onnx: its input has more than 268,435,456 elements"):
        session.load_model(path, threads=1)
