"""What trtexec prints, on lines that others published: each file says whose they are, and which are ours."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedsup_deploy.artifact.engine import EngineTimes, MeasuredEngine
from fedsup_deploy.artifact.manifest import TensorSpec
from fedsup_deploy.device import trtexec
from fedsup_deploy.device.trtexec import FP16_TOLERANCE, compared_outputs, engine_of
from fedsup_deploy.errors import ArtifactError, DeviceError, GateError

LOGS = Path(__file__).parents[2] / "data" / "trtexec"
INPUT = TensorSpec(name="input", shape=("batch", 3, 32, 32), dtype="float32")
OUTPUT = TensorSpec(name="logits", shape=("batch", 3), dtype="float32")
RECORDED = np.array([[1, 2, 4], [8, 0, -8], [0.5, 0.4375, 0.125]], dtype=np.float32)


def published(name: str) -> bytes:
    return (LOGS / f"{name}.log").read_bytes()


def read(content: bytes) -> MeasuredEngine:
    return engine_of(content, "trtexec.log", INPUT)


def made(*lines: str, command: str = "trtexec --onnx=model.onnx --fp16", latency: str | None = None) -> bytes:
    """Return a log of ours with some more lines."""
    figures = latency or "min = 1 ms, max = 4 ms, mean = 2 ms, median = 2 ms, percentile(99%) = 3 ms"
    end = f"&&&& PASSED TensorRT.trtexec [TensorRT v8201] # {command}"
    return "\n".join([*(f"[I] {line}" for line in lines), f"[I] Latency: {figures}", end, ""]).encode()


def test_every_published_log_names_its_source() -> None:
    for path in LOGS.iterdir():
        assert path.read_text(encoding="utf-8").startswith("# Source: "), path.name


@pytest.mark.parametrize(
    ("name", "version", "times"),
    [
        ("7", None, (4.34442, 4.49951, None, None, 5.46606, 7.12915, 4.52398)),
        ("8-jetson-nano", "8.2.1", (52.4875, 52.6539, None, None, 57.1544, 57.1544, 52.7275)),
        ("8.4-unstable", "8.4.1", (1.3476, 1.38037, None, None, 1.55853, 1.5657, 1.38629)),
        ("8.5-orin", "8.5.1", (2240.97, 2241.13, 2241.2, 2241.41, 2241.41, 2241.41, 2241.14)),
        ("10-thor", "10.11.0", (634.412, 640.024, 664.195, 666.219, 684.747, 684.747, 644.386)),
    ],
)
def test_latency_is_what_an_application_waits_for(name: str, version: str | None, times: tuple[float, ...]) -> None:
    engine = read(published(name))
    assert engine.version == version
    names = ("min_ms", "p50_ms", "p90_ms", "p95_ms", "p99_ms", "max_ms", "mean_ms")
    assert engine.latency == EngineTimes(**dict(zip(names, times, strict=True)))


def test_the_work_of_the_gpu_is_kept_beside_it() -> None:
    medians = {name: read(published(name)).gpu_compute for name in ("7", "8-jetson-nano", "8.5-orin", "10-thor")}
    assert {name: found and found.p50_ms for name, found in medians.items()} == {
        "7": 4.40088,
        "8-jetson-nano": 51.9009,
        "8.5-orin": 2239.15,
        "10-thor": None,
    }


def test_what_else_a_log_says() -> None:
    engine = read(published("10-thor"))
    assert (engine.device, engine.precision, engine.throughput_per_s) == ("Orin", "fp16", 1.55139)
    assert engine.command == (
        "trtexec --onnx=model.onnx --saveEngine=yolo11s-seg.engine --fp16 --minShapes=input:1x3x32x32 "
        "--optShapes=input:1x3x32x32 --maxShapes=input:1x3x32x32"
    )
    assert (engine.input, engine.num_runs, engine.warnings) == ("1x3x32x32", None, ())


def test_zeros_of_tensorrt_7_are_no_figures() -> None:
    assert read(published("7")).throughput_per_s is None
    assert read(made("Timing trace has 0 queries over 3.16 s")).num_runs is None
    assert read(made("Timing trace has 35 queries over 3.16 s")).num_runs == 35


def test_an_unstable_engine_is_called_so_and_another_warning_is_kept() -> None:
    engine = read(published("8.4-unstable"))
    assert engine.is_unstable
    assert engine.warnings == ("GPU compute time is unstable, with coefficient of variance = 2.10486%.",)
    bound = "Throughput may be bound by Enqueue Time rather than GPU Compute and the GPU may be under-utilized."
    other = read(f"[W] * {bound}\n[W]   If not already in use\n".encode() + made())
    assert (other.is_unstable, other.warnings) == (False, (bound,))


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("6-without-summary", "has no latencies; run trtexec without --buildOnly and --skipInference, and TensorRT 7"),
        ("8.5-gpu-only", "has no latencies"),
        ("8.0", "got --noDataTransfers, which times something else; run trtexec without it"),
        ("8.4-batch-of-16", "got --batch=16, which times something else"),
        (
            "10-other-model",
            "got the input c1 of shape 1x48x1600x2560, expected input of shape 1x3x32x32: it is of anoth",
        ),
    ],
)
def test_logs_of_something_else_are_refused(name: str, problem: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        read(published(name))
    assert str(caught.value).startswith(f"trtexec.log: {problem}")


def test_refused_for_one_word_and_read_without_it() -> None:
    found = read(published("8.4-batch-of-16").replace(b" --batch=16", b"").replace(b"mnist16.trt", b"model.engine"))
    assert (found.version, found.latency.p50_ms) == ("8.4.0", 0.401947)
    assert found.precision is None, "of an engine that it loads, trtexec knows no precision"
    as_ours = (
        published("8.0")
        .replace(b" --noDataTransfers", b"")
        .replace(b"resnet.", b"model.")
        .replace(b"model.trt", b"model.engine")
    )
    with pytest.raises(ArtifactError, match="got --best, expected an engine of --fp16 or fp32"):
        read(as_ours)
    as_ours = as_ours.replace(b" --best", b"")
    found = read(as_ours)
    assert (found.version, found.device, found.latency.p50_ms) == ("8.0.0", "GeForce GTX 1080 Ti", 636.003)


def test_a_log_that_failed_says_why() -> None:
    with pytest.raises(DeviceError, match=r"trtexec FAILED on the device: Saving engine to file failed\.$"):
        read(published("failed"))
    with pytest.raises(DeviceError, match=r"trtexec FAILED on the device: it does not say why$"):
        read(b"&&&& FAILED TensorRT.trtexec # trtexec")


@pytest.mark.parametrize("content", [b"", b"foreign text", published("8.5-orin")[:-250], b"\xff\xfe\x00" * 99])
def test_what_is_no_whole_log_is_refused(content: bytes) -> None:
    with pytest.raises(ArtifactError, match=r"no whole log of trtexec: .* 2>&1 \| tee trtexec\.log$"):
        read(content)


def test_logs_of_two_runs_are_refused() -> None:
    with pytest.raises(ArtifactError, match="got the logs of 2 runs, expected that of one"):
        read(made() + made())


def test_more_than_any_log_has_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trtexec, "MOST_BYTES_OF_LOG", len(made()))
    read(made())
    with pytest.raises(ArtifactError, match="run trtexec without --verbose"):
        read(made("one more line"))


@pytest.mark.parametrize(
    "line",
    [
        "Input inference shape: input=1x3x32x32",
        "Input inference shape : input=1x3x32x32",
        "Created input binding for input with dimensions 1x3x32x32",
        "Input binding for input with dimensions 1x3x32x32 is created.",
        "Input binding for input with dimensions 1x3x32x32 and type fp32 is created.",
        "Dynamic dimensions required for input: input, but no shapes were provided. "
        "Automatically overriding shape to: 1x3x32x32",
    ],
)
def test_what_was_timed_has_to_be_one_image_of_the_model(line: str) -> None:
    assert read(made(line)).input == "1x3x32x32"
    with pytest.raises(ArtifactError, match=r"got 16 images at a time, expected one: --shapes=input:1x3x32x32$"):
        read(made(line.replace("1x3x", "16x3x")))
    with pytest.raises(
        ArtifactError, match="got the input input of shape 1x3x24x24, expected input of shape 1x3x32x32"
    ):
        read(made(line.replace("32x32", "24x24")))
    with pytest.raises(ArtifactError, match="got the input images of shape 1x3x32x32, expected input of shape"):
        read(
            made(
                line.replace("input=", "images=")
                .replace("for input with", "for images with")
                .replace(": input,", ": images,")
            )
        )


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        (
            "trtexec --onnx=/home/me/other.onnx",
            "got a log about other.onnx, expected one about this bundle's model.onnx",
        ),
        ("trtexec --deploy=net.prototxt --output=prob", "got a log about no ONNX file, expected"),
        ("trtexec --onnx=model.onnx --streams=4", "got --streams=4, which times something else"),
        ("trtexec --onnx=model.onnx --infStreams=2", "got --infStreams=2, which times something else"),
    ],
)
def test_commands_about_something_else_are_refused(command: str, problem: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        read(made(command=command))
    assert str(caught.value).startswith(f"trtexec.log: {problem}")


def test_commands_that_only_look_like_it_are_read() -> None:
    for command in ("trtexec --onnx=model.onnx --streams=1", "trtexec --onnx=model.onnx --batch=1 --useCudaGraph"):
        assert read(made("Batch: 1", command=command)).command == command


@pytest.mark.parametrize("flag", ["--int8", "--fp16 --int8", "--best", "--fp8", "--int4", "--calib=a", "--int8=1"])
def test_flags_of_precisions_without_ranges_of_ours_are_refused(flag: str) -> None:
    with pytest.raises(ArtifactError, match=r"^trtexec\.log: got --\w+, expected an engine of --fp16 or fp32: "):
        read(made(command=f"trtexec --onnx=model.onnx {flag}"))


@pytest.mark.parametrize(
    ("flags", "precision"),
    [("", "fp32"), (" --fp16", "fp16"), (" --fp16 --bf16", None), (" --stronglyTyped", None), (" --fp16=1", "fp16")],
)
def test_precision_is_in_the_command_where_no_line_says_it(flags: str, precision: str | None) -> None:
    assert read(made(command=f"trtexec --onnx=model.onnx{flags}")).precision == precision
    assert read(made("Precision: FP32", command=f"trtexec --onnx=model.onnx{flags}")).precision == "fp32"
    assert read(made(command=f"trtexec --loadEngine=model.engine{flags}")).precision is None


@pytest.mark.parametrize("option", ["shapes", "minShapes", "optShapes", "maxShapes"])
@pytest.mark.parametrize(
    "shape",
    ["input:1x1x8x8", "input:4x3x224x224", "foo:1x3x32x32", "input:1x3x32x32,foo:1", "input:1x3x32", "1x3x32x32"],
)
@pytest.mark.parametrize("file", ["onnx=model.onnx", "loadEngine=model.engine"])
def test_shapes_of_another_model_in_the_command_are_refused(option: str, shape: str, file: str) -> None:
    with pytest.raises(ArtifactError, match=r"expected input of shape 1x3x32x32: it is of another model$"):
        read(made(command=f"trtexec --{file} --{option}={shape}"))


@pytest.mark.parametrize(
    ("flags", "images"),
    [
        ("--shapes=input:1x3x32x32", "1"),
        ("--shapes='input':1x3x32x32", "1"),
        ("--optShapes=input:1x3x32x32 --maxShapes=input:16x3x32x32", "1"),
        ("--optShapes=input:8x3x32x32 --maxShapes=input:16x3x32x32 --shapes=input:1x3x32x32", "1"),
        ("--minShapes=input:1x3x32x32 --maxShapes=input:16x3x32x32", None),
        ("--shapes=input:4x3x32x32", "4"),
        ("--minShapes=input:1x3x32x32 --optShapes=input:8x3x32x32 --maxShapes=input:16x3x32x32", "8"),
        ("--optShapes=input:1x3x32x32 --shapes=input:4x3x32x32", "4"),
    ],
)
def test_how_many_images_were_timed_is_in_the_command(flags: str, images: str | None) -> None:
    content = made(command=f"trtexec --onnx=model.onnx {flags}")
    if images in {None, "1"}:
        assert read(content).input == (images and "1x3x32x32")
        return
    with pytest.raises(ArtifactError, match=f"got {images} images at a time, expected one: --shapes=input:1x3x32x32$"):
        read(content)


@pytest.mark.parametrize("flags", ["--loadEngine=/a/yolo.engine", "--onnx=model.onnx --saveEngine=C:\\a\\yolo.engine"])
def test_an_engine_of_another_name_needs_the_shape_that_was_timed(flags: str) -> None:
    with pytest.raises(
        ArtifactError, match=r"the engine yolo\.engine, which says no shape, expected model\.engine, or"
    ):
        read(made(command=f"trtexec {flags}"))
    assert read(made(command=f"trtexec {flags} --shapes=input:1x3x32x32")).input == "1x3x32x32"
    assert read(made(command=f"trtexec {flags.replace('yolo', 'model')}")).input is None


@pytest.mark.parametrize("figure", ["min", "max", "mean", "median", "percentile(99%)"])
def test_a_part_of_the_latency_is_no_longer_than_it(figure: str) -> None:
    whole = {"min": 2, "max": 6, "mean": 4, "median": 3, "percentile(99%)": 5}
    part = {**whole, figure: whole[figure] + 0.5}
    latency, gpu, same = (
        ", ".join(f"{name} = {value} ms" for name, value in figures.items()) for figures in (whole, part, whole)
    )
    found = read(made(f"GPU Compute Time: {same}", latency=latency))
    assert found.gpu_compute == found.latency
    with pytest.raises(ArtifactError, match=r"got \S+ ms of the GPU in a latency of \S+ ms that contains it"):
        read(made(f"GPU Compute Time: {gpu}", latency=latency))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-8-sig"])
def test_a_log_is_read_in_the_encoding_of_its_byte_order_mark(encoding: str) -> None:
    text = published("8.5-orin").decode().replace("\n", "\r\n")
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    found, plain = read((mark + text).encode(encoding)), read(published("8.5-orin"))
    assert found.log_sha256 != plain.log_sha256
    assert found.model_copy(update={"log_sha256": plain.log_sha256}) == plain


def test_colours_of_a_terminal_are_no_part_of_a_log() -> None:
    coloured = b"".join(b"\x1b[1;32m" + line[:9] + b"\x1b[0m" + line[9:] for line in made().splitlines(keepends=True))
    assert b"&&&& PASS\x1b[0mED" in coloured
    assert read(coloured).latency == read(made()).latency


@pytest.mark.parametrize(("batch", "problem"), [("16", "got a batch of 16"), ("-1", "got a batch of -1")])
def test_a_batch_is_refused(batch: str, problem: str) -> None:
    with pytest.raises(ArtifactError, match=problem):
        read(made(f"Batch: {batch}"))


@pytest.mark.parametrize(
    ("printed", "precision"), [("FP32", "fp32"), ("FP32+FP16", "fp16"), ("Strongly Typed", None), ("FP32+BF16", None)]
)
def test_precision_is_the_lowest_that_was_allowed(printed: str, precision: str | None) -> None:
    assert read(made(f"Precision: {printed}")).precision == precision


@pytest.mark.parametrize("printed", ["FP32+INT8", "FP32+FP16+INT8", "INT8", "FP32+FP8"])
def test_precisions_without_ranges_of_ours_are_refused(printed: str) -> None:
    with pytest.raises(ArtifactError, match="expected an engine of --fp16 or fp32"):
        read(made(f"Precision: {printed}"))
    loaded = made(f"Precision: {printed}", command="trtexec --loadEngine=model.engine")
    assert read(loaded).precision is None


@pytest.mark.parametrize(
    ("latency", "problem"),
    [
        ("min = 1 ms, max = 2 ms", "Latency: got 'max, min', expected min, max, mean and median in ms"),
        ("min = 1 ms, max = inf ms, mean = 2 ms, median = 2 ms", "Latency: got 'max = inf ms', expected"),
        ("min = 1 ms, max = 2 ms, mean = 2 ms, median = nan ms", "Latency: got 'median = nan ms', expected"),
        ("min = 1 s, max = 2 s, mean = 2 s, median = 1 s", "Latency: got 'median = 1 s', expected"),
        ("min = 1e99 ms, max = 1e99 ms, mean = 1e99 ms, median = 1e99 ms", "min_ms: got 1e+99: "),
        ("min = 3 ms, max = 2 ms, mean = 2 ms, median = 2 ms", "got times that contradict each other"),
        ("min = 1 ms, max = 2 ms, mean = 3 ms, median = 2 ms", "got times that contradict each other"),
    ],
)
def test_figures_that_are_none_are_refused(latency: str, problem: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        read(made(latency=latency))
    assert str(caught.value).removeprefix("trtexec.log: ").startswith(problem)


def test_a_log_cannot_command_a_terminal() -> None:
    engine = read(made("Selected Device: \x1b[31mred\x07" + "x" * 5000, command="trtexec --onnx=model.onnx \x1b[0m"))
    assert "\x1b" not in f"{engine.device}{engine.command}"
    assert len(engine.device or "") <= 400


def test_the_percentile_that_a_limit_means() -> None:
    old, new = read(published("8-jetson-nano")), read(published("8.5-orin"))
    assert [old.bound_ms(each) for each in ("p10", "p50", "p90")] == [
        (52.6539, False),
        (52.6539, True),
        (57.1544, False),
    ]
    assert new.bound_ms("p90") == (2241.2, True)
    bare = read(made(latency="min = 1 ms, max = 4 ms, mean = 2 ms, median = 2 ms, percentile(99.9%) = 3 ms"))
    assert bare.bound_ms("p90") == (None, False)


def exported(values_NK: np.ndarray, name: str = "logits") -> bytes:
    """Return what `--exportOutput` writes: as `exportJSONOutput` of NVIDIA/TensorRT, samples/common, does."""
    dimensions = "x".join(str(size) for size in values_NK.shape)
    values = ", ".join(f"{value:.6g}" for value in values_NK.ravel())
    head = f'[\n  {{ "name" : "{name}"\n  , "dimensions" : "{dimensions}"\n  , "values" : [ '
    return f"{head}{values} ]\n  }}\n]\n".encode()


def compare(content: bytes) -> Any:
    return compared_outputs(content, "outputs.json", OUTPUT, RECORDED)


@pytest.mark.parametrize("num_images", [1, 2, 3])
def test_outputs_of_the_first_images_are_compared(num_images: int) -> None:
    """The scales of the images are 4, 8 and 1; of the last, two logits are nearer than they may move."""
    wrong_NK = np.array([[0.0625, 0, 0], [0, 0.25, 0], [0, 0.03125, 0]])[:num_images]
    found = compare(exported(RECORDED[:num_images] + wrong_NK))
    assert (found.num_inputs, found.tolerance) == (num_images, FP16_TOLERANCE)
    assert found.max_abs_diff == (0.0625 if num_images == 1 else 0.25)
    assert found.max_scaled_diff == 0.0625 / 4 if num_images == 1 else 0.03125
    assert found.num_classes_compared == min(num_images, 2)


def test_what_an_engine_computes_wrongly_is_refused() -> None:
    compare(exported(RECORDED + 0.99 * FP16_TOLERANCE))
    with pytest.raises(
        GateError, match=r"outputs of the engine: scaled difference .* \(--loadInputs\), the engine does"
    ):
        compare(exported(RECORDED + 1.01 * FP16_TOLERANCE))


@pytest.mark.parametrize("word", ["nan", "-nan", "inf", "-inf", "NaN"])
def test_outputs_that_are_not_finite_are_refused(word: str) -> None:
    """As of NVIDIA/TensorRT#4748, where an engine in fp16 wrote nothing but nan."""
    with pytest.raises(GateError, match="got NaN or infinite outputs"):
        compare(exported(RECORDED).replace(b"0.5", word.encode()))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "not what trtexec --exportOutput writes"),
        (b"{}", "got the outputs none, expected logits"),
        (b"[1, {}]", "got the outputs None, expected logits"),
        (exported(RECORDED, "probabilities"), "got the outputs probabilities, expected logits"),
        (exported(RECORDED[:, :2]), "got outputs of shape 3x2, expected 1x3 to 3x3"),
        (exported(np.tile(RECORDED, (2, 1))), "got outputs of shape 6x3, expected 1x3 to 3x3"),
        (exported(RECORDED[0]), "got outputs of shape 3, expected"),
        (json.dumps([{"name": "logits", "dimensions": "1x3", "values": [1, 2]}]).encode(), "expected 1x3 numbers"),
        (json.dumps([{"name": "logits", "dimensions": "1x3", "values": [1, 2, "3"]}]).encode(), "expected 1x3 numbers"),
        (json.dumps([{"name": "logits", "dimensions": "1x3", "values": [1, 2, 3, None]}]).encode(), "expected 1x3 num"),
        (json.dumps([{"name": "logits", "dimensions": "1x3", "values": "123"}]).encode(), "expected 1x3 numbers"),
        (json.dumps([{"name": "logits", "dimensions": 3}]).encode(), "got outputs of shape 3, expected"),
    ],
)
def test_foreign_outputs_are_refused(content: bytes, problem: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        compare(content)
    assert str(caught.value).startswith(f"outputs.json: {problem}")
