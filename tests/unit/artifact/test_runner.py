"""The one-file runner: its arithmetic on made samples, and the file itself as a program in a real bundle."""

import ast
import contextlib
import gc
import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from scipy.stats import binom

from fedsup_deploy.artifact import runner

SOURCE = Path(runner.__file__)
NUM_VECTORS, SIZE, CLASSES = 16, 8, 5

Finished = subprocess.CompletedProcess[str]


def toy_model(batch_slope: float = 0.0) -> onnx.ModelProto:
    """Conv -> ReLU -> mean -> linear: logits below 1. `batch_slope` times the batch size is added, which is wrong."""
    numbers = np.random.default_rng(0)
    constants = {
        "weights": numbers.standard_normal((6, 3, 3, 3)),
        "matrix": numbers.standard_normal((6, CLASSES)) / 10,
        "slope": np.array(batch_slope),
    }
    nodes = [
        helper.make_node("Conv", ["input", "weights"], ["conv"], pads=[1] * 4),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("ReduceMean", ["relu"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["mean", "matrix"], ["product"]),
        helper.make_node("Shape", ["input"], ["shape"], start=0, end=1),
        helper.make_node("Cast", ["shape"], ["batch"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["batch", "slope"], ["shift"]),
        helper.make_node("Add", ["product", "shift"], ["logits"]),
    ]
    image = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, SIZE, SIZE])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])
    initializers = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "toy", [image], [logits], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


class Bundle:
    """A bundle folder that tests can damage."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        shutil.copy(SOURCE, folder / "run.py")
        self.write_model(toy_model())
        self.inputs = np.random.default_rng(1).standard_normal((NUM_VECTORS, 3, SIZE, SIZE)).astype(np.float32)
        (self.outputs,) = ReferenceEvaluator(toy_model()).run(None, {"input": self.inputs})
        self.write_vectors(self.inputs, self.outputs)
        self.write_manifest()

    def write_model(self, model: onnx.ModelProto) -> None:
        onnx.save(model, self.folder / "model.onnx")

    def write_vectors(self, inputs: Any, outputs: Any) -> None:
        np.savez(self.folder / "vectors.npz", inputs=inputs, outputs=outputs)

    def write_manifest(self, **parity: float) -> None:
        names = ("model.onnx", "vectors.npz", "run.py")
        contents = {name: (self.folder / name).read_bytes() for name in names}
        files = {
            name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            for name, content in contents.items()
        }
        document = {"arch_id": "toy", "files": files, "parity": {"tolerance": 1e-5, **parity}}
        (self.folder / "manifest.json").write_text(json.dumps(document))

    def run(
        self, *arguments: str, python: tuple[str, ...] = (), **variables: str
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, *python, "run.py", *arguments],
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], **variables},
            capture_output=True,
            text=True,
            check=False,
        )

    def check(self, *, exit_code: int, reason: str) -> None:
        """Assert that the program ends with this code and reason, as text and as JSON, and without a traceback."""
        text = self.run("--skip-latency")
        assert (text.returncode, text.stderr) == (exit_code, "")
        assert text.stdout.splitlines()[-1].startswith("FAIL: ")
        assert reason in text.stdout.splitlines()[-1]
        code, output = self.run_here("--skip-latency", "--json")
        report = json.loads(output)
        assert (code, report["exit_code"]) == (exit_code, exit_code)
        assert reason in report["reason"]

    def run_here(self, *arguments: str) -> tuple[int, str]:
        """Run the same file inside this process; return exit code and standard output."""
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            code = runner.main([str(self.folder), *arguments])
        return code, output.getvalue()


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle(tmp_path / "bundle")


def test_nothing_is_left_in_the_home_of_who_runs_it(bundle: Bundle, tmp_path: Path) -> None:
    """Where libraries would keep what their telemetry knows this machine by."""
    home, temporary = tmp_path / "home", tmp_path / "temporary"
    home.mkdir()
    temporary.mkdir()
    result = bundle.run("--skip-latency", HOME=str(home), TMPDIR=str(temporary))
    assert (result.returncode, result.stderr) == (0, "")
    assert [*home.iterdir(), *temporary.iterdir()] == []


def test_a_whole_bundle_passes_and_is_timed(bundle: Bundle) -> None:
    result = bundle.run("--json", "--seconds", "0.2", "--threads", "2")
    report = json.loads(result.stdout)
    assert (result.returncode, result.stderr) == (0, "")
    assert (report["exit_code"], report["reason"], report["arch_id"]) == (0, None, "toy")
    assert report["files"]["num_files"] == 3
    parity = report["parity"]
    assert (parity["batches"], parity["num_inputs"], parity["argmax_agreement"]) == ([1, 3, 8], NUM_VECTORS, 1.0)
    assert 0 <= parity["max_scaled_diff"] <= parity["max_abs_diff"] <= 1e-5
    assert 0 <= parity["batch_invariance_max_scaled_diff"] <= parity["batch_invariance_max_abs_diff"] <= 1e-5
    latency = report["latency"]
    assert latency["statistics"]["num_runs"] >= 200
    assert latency["statistics"]["p90_bound_ms"] >= latency["statistics"]["p90_ms"]
    assert (latency["protocol"]["name"], latency["protocol"]["min_seconds"]) == ("quick", 0.2)
    assert (latency["is_min_runs_met"], latency["is_min_duration_met"]) == (True, True)
    assert report["environment"]["threads"] == 2


def test_the_full_protocol_can_be_asked_for(bundle: Bundle) -> None:
    """Its minute is cut short here, its 1,024 runs are not."""
    code, output = bundle.run_here("--json", "--protocol", "full", "--seconds", "0.05")
    latency = json.loads(output)["latency"]
    assert (code, latency["protocol"]["name"], latency["is_min_runs_met"]) == (0, "full", True)
    assert latency["statistics"]["num_runs"] >= 1024
    assert runner.FULL.min_seconds == 60.0


def test_the_report_for_people_ends_with_pass(bundle: Bundle) -> None:
    code, output = bundle.run_here("--seconds", "0.05")
    lines = output.splitlines()
    assert code == 0
    assert [line.split()[0] for line in lines] == [
        "files",
        "parity",
        "latency",
        "noise",
        "start",
        "device",
        "PASS",
    ]


def test_it_runs_from_another_folder_and_writes_nothing(bundle: Bundle, tmp_path: Path) -> None:
    before = sorted(bundle.folder.rglob("*"))
    program = [sys.executable, str(bundle.folder / "run.py"), "--skip-latency"]
    assert subprocess.run(program, cwd=tmp_path, capture_output=True, check=False).returncode == 0
    assert sorted(bundle.folder.rglob("*")) == before


def test_the_report_names_no_place_and_no_person(bundle: Bundle) -> None:
    text = bundle.run("--json", "--seconds", "0.05", USER="somebody", HOSTNAME="somewhere").stdout
    assert str(bundle.folder.parent) not in text
    assert str(Path(sys.prefix)) not in text
    assert "somebody" not in text
    assert "somewhere" not in text
    assert f'"{platform.node()}"' not in text


def test_an_altered_file_is_found(bundle: Bundle) -> None:
    model = bundle.folder / "model.onnx"
    content = model.read_bytes()
    model.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    bundle.check(exit_code=1, reason="model.onnx was altered: its sha256 is not that of the manifest")
    model.write_bytes(content + b"\0")
    bundle.check(exit_code=1, reason=f"model.onnx was altered: {len(content) + 1} bytes, expected {len(content)}")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "manifest.json is damaged"),
        ("[]", "manifest.json is damaged"),
        ('{"files": {}}', "manifest.json is damaged: KeyError: 'model.onnx'"),
        ('{"files": {"../model.onnx": {"sha256": "0", "bytes": 1}}}', "outside the bundle: '../model.onnx'"),
    ],
)
def test_a_damaged_manifest_is_refused(bundle: Bundle, content: str, reason: str) -> None:
    (bundle.folder / "manifest.json").write_text(content)
    bundle.check(exit_code=1, reason=reason)


@pytest.mark.parametrize("name", ["model.onnx", "vectors.npz", "manifest.json"])
def test_a_missing_file_is_named(bundle: Bundle, name: str) -> None:
    (bundle.folder / name).unlink()
    bundle.check(exit_code=5, reason=f"{name} is missing")


def rolled(bundle: Bundle) -> Any:
    return np.roll(bundle.outputs, 1, axis=1)


def with_nan(bundle: Bundle) -> Any:
    return np.where(np.arange(CLASSES) == 0, np.nan, bundle.outputs).astype(np.float32)


def with_a_class_less(bundle: Bundle) -> Any:
    return bundle.outputs[:, 1:]


def slightly_off(bundle: Bundle) -> Any:
    return bundle.outputs + np.float32(1e-3)


@pytest.mark.parametrize(
    ("change", "tolerance", "reason"),
    [
        (slightly_off, 1e-5, "outputs at batch 1: scaled difference 0.001, allowed 1e-05, on an image of scale 1"),
        (with_nan, 1e-5, "vectors.npz holds NaN or infinite outputs, expected finite ones"),
        (with_a_class_less, 1e-5, f"have shape (16, {CLASSES}), expected (16, {CLASSES - 1})"),
        (rolled, 100.0, "images get another class at batch 1"),
    ],
)
def test_wrong_outputs_are_found(
    bundle: Bundle, change: Callable[[Bundle], Any], tolerance: float, reason: str
) -> None:
    bundle.write_vectors(bundle.inputs, change(bundle))
    bundle.write_manifest(tolerance=tolerance)
    bundle.check(exit_code=3, reason=reason)


def test_an_output_that_depends_on_the_batch_is_found(bundle: Bundle) -> None:
    """The recorded outputs lie midway between those at batch 1 and 8, so only the comparison of the two fails."""
    slope = 1e-3
    bundle.write_model(toy_model(slope))
    bundle.write_vectors(bundle.inputs, bundle.outputs + np.float32(4.5 * slope))
    bundle.write_manifest(tolerance=4 * slope)
    reason = "an image alone and inside a batch of 8: scaled difference 0.007, allowed 0.004, on an image of scale 1"
    bundle.check(exit_code=4, reason=reason)
    bundle.write_manifest(tolerance=4 * slope, batch_tolerance=8 * slope)
    assert bundle.run("--skip-latency").returncode == 0


def test_a_model_that_computes_nan_is_found(bundle: Bundle) -> None:
    bundle.write_model(toy_model(float("nan")))
    bundle.write_manifest()
    bundle.check(exit_code=3, reason="outputs at batch 1: scaled difference nan, allowed 1e-05")


def outputs_of_scale(scale: float) -> Any:
    """Eight images, the last of scale 100: the scale must be that of each image, not of all."""
    outputs = np.tile(np.array([-scale, 0.0, scale / 2]), (8, 1))
    outputs[7] = [-100.0, 0.0, 50.0]
    return outputs.astype(np.float32)


def check_first_image_off_by(difference: float, outputs: Any, only_in_batches: bool = False) -> dict[str, Any]:
    """Check a model that adds the difference to the middle logit of image 0."""
    shift_VK = np.zeros(outputs.shape, np.float32)
    shift_VK[0, 1] = difference

    def run(indices: Any) -> Any:
        is_shifted = len(indices) > 1 or not only_in_batches
        return outputs[indices] + shift_VK[indices] * is_shifted

    return runner.check_outputs(run, np.arange(8), outputs, {"tolerance": 1e-5})


def test_what_is_allowed_grows_with_the_logits_of_the_image() -> None:
    found = check_first_image_off_by(1e-4, outputs_of_scale(100.0))

    assert found["max_abs_diff"] == pytest.approx(1e-4)
    assert found["max_scaled_diff"] == pytest.approx(1e-6)
    assert found["batch_invariance_max_abs_diff"] == 0.0


def test_what_is_allowed_is_absolute_for_logits_up_to_one() -> None:
    what = r"difference 0\.0001, allowed 1e-05, on an image of scale 1$"
    for scale in (0.01, 1.0):
        assert check_first_image_off_by(9e-6, outputs_of_scale(scale))["max_scaled_diff"] == pytest.approx(9e-6)
        with pytest.raises(runner.CheckError, match=what) as caught:
            check_first_image_off_by(1e-4, outputs_of_scale(scale))
        assert caught.value.exit_code == runner.PARITY


def test_alone_against_in_a_batch_has_the_same_scale() -> None:
    found = check_first_image_off_by(1e-4, outputs_of_scale(100.0), only_in_batches=True)

    assert found["batch_invariance_max_abs_diff"] == pytest.approx(1e-4)
    assert found["batch_invariance_max_scaled_diff"] == pytest.approx(1e-6)


def test_vectors_that_cannot_be_used_are_refused(bundle: Bundle) -> None:
    bundle.write_vectors(bundle.inputs[:5], bundle.outputs[:5])
    bundle.write_manifest()
    bundle.check(exit_code=3, reason="vectors.npz holds 5 inputs and 5 outputs, expected equally many, at least 8")
    np.savez(bundle.folder / "vectors.npz", images=bundle.inputs)
    bundle.write_manifest()
    bundle.check(exit_code=3, reason="vectors.npz cannot be used")
    (bundle.folder / "vectors.npz").write_bytes(b"PK\x03\x04 no archive")
    bundle.write_manifest()
    bundle.check(exit_code=3, reason="vectors.npz cannot be used")
    with (bundle.folder / "vectors.npz").open("wb") as file:
        np.save(file, bundle.inputs)
    bundle.write_manifest()
    bundle.check(exit_code=3, reason="vectors.npz cannot be used")


def test_pickled_vectors_are_not_unpickled(bundle: Bundle) -> None:
    bundle.write_vectors(np.array([{"a": 1}] * NUM_VECTORS, dtype=object), bundle.outputs)
    bundle.write_manifest()
    bundle.check(exit_code=3, reason="Object arrays cannot be loaded when allow_pickle=False")


def test_a_model_the_runtime_cannot_load_is_one_line(bundle: Bundle) -> None:
    (bundle.folder / "model.onnx").write_bytes(b"not a model")
    bundle.write_manifest()
    bundle.check(exit_code=3, reason="onnxruntime cannot run model.onnx: ")
    assert str(bundle.folder) not in bundle.run("--skip-latency").stdout


def test_an_input_the_model_cannot_take_is_one_line(bundle: Bundle) -> None:
    bundle.write_vectors(bundle.inputs[:, :2], bundle.outputs)
    bundle.write_manifest()
    bundle.check(exit_code=3, reason="onnxruntime cannot run model.onnx: ")


@pytest.mark.parametrize("has_switch", [True, False])
def test_opening_a_model_turns_telemetry_off_where_the_runtime_has_the_switch(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, has_switch: bool
) -> None:
    turned_off: list[str] = []
    if has_switch:
        monkeypatch.setattr(onnxruntime, "disable_telemetry_events", lambda: turned_off.append("off"))
    else:
        monkeypatch.delattr(onnxruntime, "disable_telemetry_events")
    session = runner.open_session(str(bundle.folder / "model.onnx"), threads=1)
    assert session.get_inputs()[0].name == "input"
    assert turned_off == ["off"] * has_switch


def test_without_numpy_it_says_what_to_install(bundle: Bundle) -> None:
    result = bundle.run("--skip-latency", python=("-I", "-S"))
    assert (result.returncode, result.stderr) == (2, "")
    assert result.stdout.splitlines()[-1] == ("FAIL: numpy cannot be imported; run: pip install numpy onnxruntime")


def test_without_onnxruntime_it_says_what_to_install(bundle: Bundle, tmp_path: Path) -> None:
    """A Python that finds NumPy and nothing else."""
    only_numpy = tmp_path / "only-numpy"
    only_numpy.mkdir()
    installed = Path(np.__file__).parent
    for folder in (installed, installed.with_name("numpy.libs")):
        if folder.is_dir():
            (only_numpy / folder.name).symlink_to(folder)
    result = bundle.run("--skip-latency", python=("-S",), PYTHONPATH=str(only_numpy))
    assert (result.returncode, result.stderr) == (2, "")
    assert result.stdout.splitlines()[-1] == (
        "FAIL: onnxruntime cannot be imported; run: pip install numpy onnxruntime"
    )


@pytest.mark.parametrize(
    "arguments", [("--threads", "0"), ("--seconds", "0"), ("--seconds", "61"), ("--protocol", "slow")]
)
def test_wrong_usage_has_its_own_exit_code(bundle: Bundle, arguments: tuple[str, ...]) -> None:
    result = bundle.run(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert "usage: run.py" in result.stderr


def test_the_file_is_python_3_8_and_needs_only_two_packages() -> None:
    tree = ast.parse(SOURCE.read_text(), feature_version=(3, 8))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    by_name = {
        node.args[0].value.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "import_module"
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    }
    assert imported <= sys.stdlib_module_names
    assert by_name == {"numpy", "onnxruntime"}


# The arithmetic.


def test_quantiles_are_numpys() -> None:
    samples = [50, 10, 40, 20, 30]
    for share, expected in ((0.0, 10), (0.1, 14), (0.5, 30), (0.9, 46), (1.0, 50)):
        assert runner.quantile(samples, share) == pytest.approx(expected)
        assert runner.quantile(samples, share) == pytest.approx(float(np.quantile(samples, share)))
    assert runner.quantile([7], 0.9) == 7


def test_a_summary_is_in_ms() -> None:
    expected = {"num_runs": 5, "min_ms": 1.0, "p10_ms": 1.4, "p50_ms": 3.0, "p90_ms": 7.6, "mean_ms": 4.0}
    summary = runner.summarize([1_000_000, 2_000_000, 3_000_000, 4_000_000, 10_000_000])
    assert summary == pytest.approx(expected)


@pytest.mark.parametrize("num_runs", [64, 100, 200, 1024, 20_000, 1_000_000])
def test_the_bound_of_p90_has_the_rank_of_the_binomial(num_runs: int) -> None:
    """Times are their own ranks: the t-th largest of 1 .. n is n + 1 - t, by SciPy's distribution."""
    bound_ms = runner.p90_bound_ms(list(range(1, num_runs + 1)))
    assert bound_ms is not None
    t = num_runs + 1 - round(bound_ms * 1e6)
    assert binom.cdf(t, num_runs, 0.1) <= 0.01 < binom.cdf(t + 1, num_runs, 0.1)


def test_the_bound_of_p90_needs_64_runs() -> None:
    """P(X <= 1) of 64 trials of 0.1 is 0.9^64 + 64 * 0.1 * 0.9^63 = 0.0096; of 63 it is 0.0105."""
    assert runner.p90_bound_ms([1_000_000] * 63) is None
    assert runner.p90_bound_ms([1_000_000] * 63 + [5_000_000]) == 5.0
    assert runner.p90_bound_ms([]) is None


def test_a_session_whose_parts_agree_is_stable() -> None:
    result = runner.stability([[100, 100], [104, 104], [100, 900], [104, 104]], runner.pooled_p10, "p10")
    assert result["disagreement"] == pytest.approx(0.04)
    assert result["drift"] == pytest.approx(0.012)  # the first half has 100, the second 101.2
    assert (result["statistic"], result["verdict"]) == ("p10", "stable")


def test_a_session_whose_even_and_odd_visits_disagree_is_unstable() -> None:
    result = runner.stability([[100], [120], [100], [120]], runner.pooled_p10, "p10")
    assert result["disagreement"] == pytest.approx(0.2)
    assert result["verdict"] == "unstable"


def test_a_session_that_drifts_is_unstable() -> None:
    """Even and odd visits agree on what each half did."""
    result = runner.stability([[100], [100], [120], [120]], min_of_all, "min")
    assert (result["disagreement"], result["drift"]) == (0.0, pytest.approx(0.2))
    assert result["verdict"] == "unstable"


def min_of_all(visits: list[list[int]]) -> float:
    return min(min(visit) for visit in visits)


class Clock:
    """A clock that only running the model moves, by 10 ms."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.was_collecting: list[bool] = []

    def run_once(self) -> None:
        self.now_ns += 10_000_000
        self.was_collecting.append(gc.isenabled())

    def __call__(self) -> int:
        return self.now_ns


@pytest.mark.parametrize(
    ("min_runs", "min_seconds", "max_seconds", "expected_runs"),
    [(5, 0.0, 60.0, 5), (1, 0.1, 60.0, 10), (5, 0.1, 60.0, 10), (100, 0.1, 0.2, 20), (1, 0.0, 0.0, 1)],
)
def test_a_visit_ends_when_both_minima_are_reached_or_time_is_up(
    min_runs: int, min_seconds: float, max_seconds: float, expected_runs: int
) -> None:
    clock = Clock()
    samples = runner.time_visit(clock.run_once, min_runs, min_seconds, max_seconds, clock)
    assert samples == [10_000_000] * expected_runs


@pytest.mark.parametrize(
    ("min_runs", "min_seconds", "max_seconds", "expected_visits", "expected_runs"),
    [
        (1, 1.0, 60.0, 10, 10),  # visits of 0.1 s, 10 runs each
        (1, 0.1, 60.0, 10, 1),  # visits of 0.01 s
        (150, 1.0, 60.0, 20, 10),  # more runs are wanted: on to the next look
        (1000, 1.0, 0.5, 5, 10),  # time is up
        (1000, 1.0, 0.0, 2, 10),  # but two visits there are
    ],
)
def test_a_session_has_visits_that_together_reach_the_minima(
    min_runs: int, min_seconds: float, max_seconds: float, expected_visits: int, expected_runs: int
) -> None:
    clock = Clock()
    protocol = runner.Protocol("test", min_runs, min_seconds, settle_seconds=9.0, max_seconds=max_seconds)
    visits = runner.time_session(clock.run_once, protocol, clock)
    assert [len(visit) for visit in visits] == [expected_runs] * expected_visits


class DriftingClock(Clock):
    """A clock by which the model gets slower with every run, at first."""

    def __init__(self, until_run: int) -> None:
        super().__init__()
        self.until_run, self.runs = until_run, 0

    def run_once(self) -> None:
        self.runs += 1
        self.now_ns += 10_000_000 + 1_000_000 * min(self.runs, self.until_run)


def test_a_session_goes_on_until_its_parts_agree() -> None:
    """p10 of the halves of 10 visits differs; when most visits are of the last speed it does not."""
    clock = DriftingClock(until_run=20)
    visits = runner.time_session(clock.run_once, runner.Protocol("test", 1, 1.0, 60.0, 60.0), clock)
    found = runner.stability(visits, runner.pooled_p10, "p10")
    assert found["verdict"] == "stable"
    assert len(visits) > 10
    assert len(visits) % 10 == 0
    before = runner.stability(visits[:-10], runner.pooled_p10, "p10")
    assert before["verdict"] == "unstable"


def test_a_session_that_never_settles_ends() -> None:
    clock = DriftingClock(until_run=10**9)
    visits = runner.time_session(clock.run_once, runner.Protocol("test", 1, 1.0, 3.0, 60.0), clock)
    assert runner.stability(visits, runner.pooled_p10, "p10")["verdict"] == "unstable"
    seconds = sum(sum(visit) for visit in visits) / 1e9
    assert 3.0 <= seconds < 3.0 + 2 * 10 * runner.VISIT_SECONDS


def test_a_measurement_says_whether_the_minima_were_met() -> None:
    """A model that takes 10 ms gets ten runs in 0.1 s."""
    clock = Clock()
    protocol = runner.Protocol("test", min_runs=200, min_seconds=0.05, settle_seconds=0.05, max_seconds=0.1)
    latency = runner.measure_latency(clock.run_once, protocol, clock)
    assert latency["statistics"]["num_runs"] == 10
    assert (latency["is_min_runs_met"], latency["is_min_duration_met"]) == (False, True)
    assert latency["statistics"]["p90_bound_ms"] is None
    assert latency["protocol"] == {
        "batch": 1,
        "warm_up_runs": 50,
        "warm_up_seconds": 0.5,
        "name": "test",
        "min_runs": 200,
        "min_seconds": 0.05,
        "settle_seconds": 0.05,
        "max_seconds": 0.1,
    }


def test_visits_that_lie_apart_make_a_session_unstable_though_its_parts_agree() -> None:
    """Two speeds in turns, in pairs: parts agree to the last digit; of 20 visits the middle 80 % lie 20 % apart."""
    visits = [[100], [100], [120], [120]] * 5
    apart = runner.stability(visits, runner.pooled_p10, "p10", 0.10)
    assert (apart["disagreement"], apart["drift"], apart["spread"]) == (0.0, 0.0, pytest.approx(20 / 110))
    assert (apart["spread_within"], apart["verdict"]) == (0.10, "unstable")
    assert runner.stability(visits, runner.pooled_p10, "p10", 0.20)["verdict"] == "stable"
    assert runner.stability(visits, runner.pooled_p10, "p10")["verdict"] == "stable"


def test_the_warm_up_does_not_count() -> None:
    """50 runs of 10 ms warm up, and take 0.5 s; then come ten visits of 0.1 s."""
    clock = Clock()
    protocol = runner.Protocol("test", min_runs=1, min_seconds=1.0, settle_seconds=1.0, max_seconds=60.0)
    latency = runner.measure_latency(clock.run_once, protocol, clock)
    assert (latency["statistics"]["num_runs"], clock.now_ns) == (100, (50 + 100) * 10_000_000)


def test_garbage_is_not_collected_while_timing_and_is_afterwards() -> None:
    clock = Clock()
    assert gc.isenabled()
    runner.time_visit(clock.run_once, 3, 0.0, 1.0, clock)
    assert clock.was_collecting == [False] * 3
    assert gc.isenabled()


def test_garbage_collection_is_back_after_a_failing_run() -> None:
    def fail() -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        runner.time_visit(fail, 1, 0.0, 1.0)
    assert gc.isenabled()


@pytest.fixture
def collecting() -> Iterator[None]:
    yield
    gc.enable()


def test_garbage_collection_stays_off_if_it_was(collecting: None) -> None:
    gc.disable()
    runner.time_visit(Clock().run_once, 1, 0.0, 0.0)
    assert not gc.isenabled()


ENVIRONMENT = {
    "device",
    "cpu",
    "cores",
    "cores_allowed",
    "governor",
    "frequency_mhz",
    "frequency_max_mhz",
    "power_mode",
    "throttled",
    "temperature_c",
    "load_average_1m",
    "system",
    "machine",
    "python",
    "numpy",
    "onnxruntime",
    "provider",
    "threads",
}


def test_the_environment_says_what_a_latency_depends_on() -> None:
    environment = runner.environment(3)
    assert set(environment) == ENVIRONMENT
    assert environment["cpu"]
    assert environment["threads"] == 3
    assert environment["numpy"] == np.__version__
    json.dumps(environment, allow_nan=False)


def test_the_environment_of_a_board_is_read_from_its_files(tmp_path: Path) -> None:
    """Laid out like a Raspberry Pi with Jetson's power mode; core 1 is the faster one."""
    contents = {
        "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
        "proc/cpuinfo": "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd08\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "600000\n",
        "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "1500000\n",
        "sys/devices/system/cpu/cpu1/cpufreq/scaling_max_freq": "1800000\n",
        "sys/class/thermal/thermal_zone0/temp": "51234\n",
        "sys/devices/platform/soc/soc:firmware/get_throttled": "50000\n",
        "var/lib/nvpmodel/status": "pmode:0001\n",
    }
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    environment = runner.environment(1, tmp_path)
    expected = {
        "device": "Raspberry Pi 4 Model B Rev 1.4",
        "cpu": "CPU implementer 0x41 CPU part 0xd08",
        "governor": "ondemand",
        "frequency_mhz": 1500.0,
        "frequency_max_mhz": 1800.0,
        "temperature_c": 51.234,
        "throttled": "50000",
        "power_mode": "pmode:0001",
    }
    assert {name: environment[name] for name in expected} == expected


def test_the_frequency_of_a_virtual_machine_is_that_of_cpuinfo(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("model name\t: Some CPU\ncpu MHz\t\t: 2699.998\n")
    environment = runner.environment(1, tmp_path)
    assert (environment["cpu"], environment["frequency_mhz"]) == ("Some CPU", 2699.998)


def test_what_the_system_does_not_tell_is_none(tmp_path: Path) -> None:
    environment = runner.environment(1, tmp_path)
    unknown = ("device", "governor", "frequency_mhz", "frequency_max_mhz", "power_mode", "throttled", "temperature_c")
    assert [environment[name] for name in unknown] == [None] * len(unknown)
    assert set(environment) == ENVIRONMENT


def test_peak_memory_is_at_least_what_is_held() -> None:
    held = np.ones(2**23)  # 64 MiB
    peak = runner.peak_rss_mib()
    assert peak is None or peak > held.nbytes / 2**20
