"""Whatever a file holds that is said to be of trtexec: a record that a bundle can keep, or one error of ours."""

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedsup_deploy.artifact import measured
from fedsup_deploy.artifact.manifest import TensorSpec
from fedsup_deploy.artifact.measured import MeasuredDocument
from fedsup_deploy.device.trtexec import FP16_TOLERANCE, compared_outputs, engine_of
from fedsup_deploy.errors import ArtifactError, DeviceError, FedsupError, GateError

LOGS = sorted((Path(__file__).parents[1] / "data" / "trtexec").glob("*.log"))
LINES = [line for path in LOGS for line in path.read_bytes().splitlines() if not line.startswith(b"#")]
INPUT = TensorSpec(name="input", shape=("batch", 3, 32, 32), dtype="float32")
OUTPUT = TensorSpec(name="logits", shape=("batch", 3), dtype="float32")
SUMS = b"any"

words = st.sampled_from([*b" ".join(LINES).split(b" "), b"nan", b"-1", b"1e400", b"\xff", b"\x1b[2J", b"9" * 400])
lines = st.sampled_from(LINES) | st.binary(max_size=80) | st.lists(words, max_size=12).map(b" ".join)


@given(st.lists(lines, max_size=25).map(b"\n".join) | st.binary())
def test_any_log_is_a_record_or_one_error(content: bytes) -> None:
    problem = ""
    try:
        engine = engine_of(content, "log", INPUT)
    except (ArtifactError, DeviceError) as error:
        problem = str(error)
    assert "\n" not in problem
    if problem:
        assert problem.startswith("log: ")
    else:
        document = MeasuredDocument(schema=1, latency=None, engine=engine)
        assert measured.from_text(measured.to_text(document, SUMS), "measured.json") == document


@given(st.lists(st.sampled_from(LINES), max_size=25), st.permutations(range(4)))
def test_what_stands_around_a_summary_does_not_change_it(others: list[bytes], order: list[int]) -> None:
    """Lines of other logs, but for summaries, ends and inputs."""
    told = (b"Latency", b"ms", b"&&&&", b"Input", b"GPU Compute", b"Batch", b"Precision")
    noise = [line for line in others if not any(word in line for word in told)]
    summary = b"[I] Latency: min = 1 ms, max = 4 ms, mean = 2.5 ms, median = 2 ms, percentile(90%) = 3 ms"
    parts = [noise[index::4] for index in order]
    end = b"&&&& PASSED TensorRT.trtexec [TensorRT v8502] # trtexec --onnx=model.onnx"
    found = engine_of(b"\n".join([*parts[0], *parts[1], summary, *parts[2], end, *parts[3]]), "log", INPUT)
    assert (found.latency.min_ms, found.latency.p50_ms, found.latency.p90_ms, found.latency.max_ms) == (1, 2, 3, 4)


@given(st.binary() | st.text().map(lambda text: f'[{{"name": "logits", "dimensions": "1x3", {text}}}]'.encode()))
def test_any_outputs_are_compared_or_one_error(content: bytes) -> None:
    problem = "outputs: none"
    try:
        compared_outputs(content, "outputs", OUTPUT, np.zeros((4, 3), dtype=np.float32))
    except FedsupError as error:
        problem = str(error)
    assert problem.startswith("outputs: ")


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=12, max_size=12), st.integers(1, 4), st.floats(0, 2))
def test_outputs_are_right_within_the_tolerance_and_not_beyond(values: list[float], num: int, share: float) -> None:
    recorded_NK = np.array(values, dtype=np.float32).reshape(4, 3)
    scale_N1 = np.maximum(1, np.abs(recorded_NK.astype(np.float64)).max(axis=1, keepdims=True))
    computed_NK = (recorded_NK + share * FP16_TOLERANCE * scale_N1)[:num]
    printed = ", ".join(repr(float(each)) for each in computed_NK.ravel())
    content = f'[{{"name": "logits", "dimensions": "{num}x3", "values": [{printed}]}}]'.encode()
    try:
        found = compared_outputs(content, "outputs", OUTPUT, recorded_NK)
    except GateError:
        assert share > 0.999
        return
    assert share < 1.001
    assert found.num_inputs == num
