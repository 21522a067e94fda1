"""What NVIDIA's trtexec prints about an engine on a device: its log, and the outputs it writes.

Owns the formats of TensorRT 7 to 10, read off its sources and published logs: nobody here has run it on a Jetson.
Either text comes from another machine, so nothing in it is believed to be well-formed.

Which figure counts: trtexec prints `Latency` (the way to the GPU, its work, the way back) and `GPU Compute Time`. The
first is what an application waits for, as `run.py` times it of onnxruntime on the CPU, so it is the latency; the second
is kept beside it. `End-to-End Host Latency` is none: it contains the wait for the inference before, as trtexec starts
the next one early.

Shape suffixes: N compared inputs, K classes.
"""

import codecs
import hashlib
import io
import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from fedsup_deploy.artifact.document import first_problem
from fedsup_deploy.artifact.engine import EngineOutputs, EngineTimes, MeasuredEngine
from fedsup_deploy.artifact.manifest import TensorSpec
from fedsup_deploy.device.trtexec_command import TrtexecCommand, check_shape, sizes_of
from fedsup_deploy.errors import ArtifactError, DeviceError, GateError
from fedsup_deploy.ondevice import bundle_files
from fedsup_deploy.ondevice.bundle_outputs import compare_rounded
from fedsup_deploy.ondevice.printable import printable
from fedsup_deploy.ondevice.reading import parse_json

#: Of a log: a usual one has some hundred KiB, one of `--verbose` some MiB.
MOST_BYTES_OF_LOG: Final = 2**24
#: Allowed scaled difference of a logit. Largest seen where half precision was emulated: docs/devices.md, fp16.
FP16_TOLERANCE: Final = 0.05

_MOST_OF_A_LINE: Final = 4096
_MOST_OF_A_TEXT: Final = 400
_MOST_WARNINGS: Final = 8
#: What colours a terminal, as `ssh -t` and tools of continuous integration keep it in a log.
_COLOURS: Final = re.compile(r"\x1b\[[0-?]{0,60}[ -/]{0,9}[@-~]")
_BYTE_ORDERS: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_NUMBER: Final = r"(\d{1,12}(?:\.\d{1,12})?(?:e[+-]?\d{1,2})?)"
_HEAD: Final = re.compile(r"(?:\[[\d/:-]{1,30}\] ?)?\[([A-Z])\] ?")
_END: Final = re.compile(r"&&&& (\w+) TensorRT\.trtexec(?: \[TensorRT v(\d{4,6})\])?(?: \[\w{1,9}\])? # (.*)")
_FIGURE: Final = re.compile(rf"(min|max|mean|median|percentile\([\d.]{{1,9}}%\)) = {_NUMBER} ms")
# Of TensorRT 7, one a line below a name.
_OLD_FIGURE: Final = re.compile(
    rf"(min|max|mean|median|percentile): {_NUMBER} ms(?: at ([\d.]{{1,9}})%)?(?: \(end .*)?"
)
_OLD_NAMES: Final = MappingProxyType({"Host Latency": "Latency", "GPU Compute": "GPU Compute Time", "Enqueue Time": ""})
_QUERIES: Final = re.compile(r"Timing trace has (\d{1,9}) queries over .*")
_INPUTS: Final = (
    re.compile(r"Input inference shape ?: (.{1,200})=([\dx]{1,60})"),
    re.compile(r"Created input binding for (.{1,200}) with dimensions ([\dx]{1,60})"),
    re.compile(r"Input binding for (.{1,200}) with dimensions ([\dx]{1,60})(?: and type \w+)? is created\."),
    re.compile(r"Dynamic dimensions required for input: (.{1,200}), but no shapes .* shape to: ([\dx]{1,60})"),
)
#: What a line begins with that the patterns above may match: most lines of a log are spared them.
_TOLD: Final = ("Timing trace", "Input ", "Created ", "Dynamic ")
_FACTS: Final = frozenset({"Selected Device", "Precision", "Throughput", "throughput", "TensorRT version", "Batch"})
_SUMMARY: Final = frozenset({"Latency", "GPU Compute Time"})
_PRECISIONS: Final[Mapping[str, Literal["fp32", "fp16"]]] = MappingProxyType({"FP32": "fp32", "FP32+FP16": "fp16"})
_NOT_FINITE: Final = re.compile(rb"[\[,]\s*-?(?:nan|inf)", re.IGNORECASE)


def engine_of(content: bytes, where: str, tensor: TensorSpec) -> MeasuredEngine:
    """Return what a log of trtexec says of the engine of a bundle.

    Args:
        content: The log.
        where: Its name, for messages.
        tensor: The model's input: its first size is the batch.

    Raises:
        DeviceError: trtexec failed on the device.
        ArtifactError: The log is too large, not whole, of several runs, of another model, or of something else than one
            image at a time; or it is none.
    """
    if len(content) > MOST_BYTES_OF_LOG:
        raise ArtifactError(f"{where}: has more than {MOST_BYTES_OF_LOG:,} bytes; run trtexec without --verbose")
    log = _Log()
    for line in _lines(content):
        log.take(_COLOURS.sub("", line[:_MOST_OF_A_LINE]))
    version, command = _check_end(log, where)
    _check_measurement(log, command, where)
    shape = _check_model(log, command, where, tensor)
    precision = _precision(log, command, where)
    throughput = re.fullmatch(f"{_NUMBER} qps", log.facts.get("Throughput", log.facts.get("throughput", "")))
    try:
        return MeasuredEngine(
            version=version or _dotted(log.facts.get("TensorRT version", "")),
            precision=precision,
            device=printable(log.facts["Selected Device"], _MOST_OF_A_TEXT) if "Selected Device" in log.facts else None,
            input=shape,
            command=command.text,
            log_sha256=hashlib.sha256(content).hexdigest(),
            num_runs=log.num_queries or None,  # TensorRT 7 counts none where the batch is part of the model
            throughput_per_s=(float(throughput[1]) or None) if throughput else None,
            latency=_times(log, "Latency", where),
            gpu_compute=_times(log, "GPU Compute Time", where) if log.figures["GPU Compute Time"] else None,
            warnings=tuple(log.warnings),
        )
    except ValidationError as error:
        raise ArtifactError(f"{where}: {first_problem(error)}; run trtexec again") from error


def _lines(content: bytes) -> io.TextIOWrapper:
    """Return the lines of a log: `tee` of PowerShell writes UTF-16."""
    encoding = "utf-16" if content.startswith(_BYTE_ORDERS) else "utf-8-sig"
    return io.TextIOWrapper(io.BytesIO(content), encoding=encoding, errors="replace", newline="\n")


def compared_outputs(content: bytes, where: str, output: TensorSpec, recorded_NK: NDArray[np.float32]) -> EngineOutputs:
    """Return how far an engine's outputs are from the recorded ones.

    Args:
        content: What `--exportOutput` wrote for the first recorded inputs, or all.
        where: The file's name, for messages.
        output: The model's output.
        recorded_NK: What the fp32 network computes for all recorded inputs.

    Raises:
        ArtifactError: It is no such file, or of another model.
        GateError: The engine computes something else.
    """
    computed_NK = _outputs(content, where, output, len(recorded_NK))
    first_NK = recorded_NK[: len(computed_NK)]
    try:
        plain, scaled, num_sure = compare_rounded("outputs of the engine", computed_NK, first_NK, FP16_TOLERANCE)
    except bundle_files.CheckError as error:
        wrong = "if trtexec had the recorded inputs (--loadInputs), the engine does not compute what the network does"
        raise GateError(f"{where}: {error}; {wrong}") from error
    return EngineOutputs(
        num_inputs=len(computed_NK),
        tolerance=FP16_TOLERANCE,
        max_abs_diff=plain,
        max_scaled_diff=scaled,
        num_classes_compared=num_sure,
    )


class _Log:
    """What the lines of a log say, taken one after the other."""

    def __init__(self) -> None:
        self.facts: dict[str, str] = {}
        self.figures: dict[str, dict[str, str]] = {name: {} for name in _SUMMARY}
        self.inputs: set[tuple[str, str]] = set()
        self.ends: list[tuple[str, str, str]] = []
        self.warnings: list[str] = []
        self.num_queries = 0
        self.num_summaries = 0
        self.error = ""
        self._block = ""

    def take(self, line: str) -> None:
        """Take a line."""
        if line.isspace():
            return
        head = _HEAD.match(line)
        text = line[head.end() if head else 0 :].strip()
        if head and head[1] == "E":  # the first says most: those after it follow from it
            self.error = self.error or text
        if head and head[1] == "W" and text.startswith("* ") and len(self.warnings) < _MOST_WARNINGS:
            self.warnings.append(printable(text[2:], _MOST_OF_A_TEXT))
        elif text.startswith("&&&& ") and (end := _END.fullmatch(text)):
            self.ends.append((end[1], end[2] or "", end[3]))
        elif text in _OLD_NAMES:
            self._begin(_OLD_NAMES[text])
        elif self._block and (figure := _OLD_FIGURE.fullmatch(text)):
            name = f"percentile({figure[3]}%)" if figure[1] == "percentile" else figure[1]
            self.figures[self._block][name] = figure[2]
        else:
            self._take_fact(text)

    def _begin(self, name: str) -> None:
        self._block = name
        self.num_summaries += name == "Latency"

    def _take_fact(self, text: str) -> None:
        name, _, value = text.partition(": ")
        if name in _SUMMARY and value.startswith("min = "):
            self._begin(name)
            self._block = ""
            for each in value.split(", "):
                figure = _FIGURE.fullmatch(each)
                self.figures[name][figure[1] if figure else "?"] = figure[2] if figure else each
        elif name in _FACTS:
            self.facts.setdefault(name, value.strip())
        elif not text.startswith(_TOLD):
            return
        elif queries := _QUERIES.fullmatch(text):
            self.num_queries = int(queries[1])
        else:
            self.inputs |= {(found[1], found[2]) for each in _INPUTS if (found := each.fullmatch(text))}


def _check_end(log: _Log, where: str) -> tuple[str | None, TrtexecCommand]:
    """Return the version of TensorRT, if it is told, and the command; both stand in the line that trtexec ends with."""
    ends = [end for end in log.ends if end[0] != "RUNNING"]
    if any(verdict == "FAILED" for verdict, _, _ in ends):
        because = printable(log.error, _MOST_OF_A_TEXT) or "it does not say why"
        raise DeviceError(f"{where}: trtexec FAILED on the device: {because}")
    if not ends or ends[-1][0] != "PASSED":
        raise ArtifactError(
            f"{where}: no whole log of trtexec: it has no line '&&&& PASSED TensorRT.trtexec'; "
            "give all that trtexec printed: trtexec ... 2>&1 | tee trtexec.log"
        )
    if len(ends) > 1 or log.num_summaries > 1:
        raise ArtifactError(f"{where}: got the logs of {max(len(ends), log.num_summaries)} runs, expected that of one")
    if log.num_summaries == 0:
        raise ArtifactError(
            f"{where}: has no latencies; run trtexec without --buildOnly and --skipInference, and TensorRT 7 or later"
        )
    _, code, command = ends[0]
    return _dotted(code), TrtexecCommand(command, where)


def _dotted(version: str) -> str | None:
    """Return a version as people write it: 8201 is 8.2.1, and 101602 is 10.16.2."""
    if code := re.fullmatch(r"(\d|\d\d)(\d|\d\d)(\d\d)", version, re.ASCII):
        return ".".join(str(int(part)) for part in code.groups())
    return version if re.fullmatch(r"\d{1,4}(\.\d{1,6}){1,4}", version, re.ASCII) else None


def _check_measurement(log: _Log, command: TrtexecCommand, where: str) -> None:
    """Fail unless one image after the other was timed, with its way to the GPU and back."""
    command.check_measurement()
    batch = log.facts.get("Batch", "Explicit")
    if batch not in {"Explicit", "1"}:
        raise ArtifactError(f"{where}: got a batch of {printable(batch, 60)}, expected one image")


def _check_model(log: _Log, command: TrtexecCommand, where: str, tensor: TensorSpec) -> str | None:
    """Return the input's shape, if it is told; fail if it, or a file's name, is not that of the bundle's model."""
    command.check_file()
    for name, shape in sorted(log.inputs):
        check_shape(name, shape, tensor, where)
    in_command = command.timed(tensor)
    for shape in sorted(shape for _, shape in log.inputs) or filter(None, [in_command]):
        batch = shape.partition("x")[0]
        if batch != "1":
            expected = f"one: --shapes={tensor.name}:1x{sizes_of(tensor)}"
            raise ArtifactError(f"{where}: got {printable(batch, 60)} images at a time, expected {expected}")
    if log.inputs or in_command:
        return f"1x{sizes_of(tensor)}"
    command.check_engine(tensor)
    return None


def _precision(log: _Log, command: TrtexecCommand, where: str) -> Literal["fp32", "fp16"] | None:
    """Return the lowest precision that was allowed; fail if it is one that the engine cannot be right in."""
    if command.is_of_a_loaded_engine or "Precision" not in log.facts:  # of what is loaded trtexec knows none
        return command.precision
    precision = log.facts["Precision"]
    if re.search("INT8|FP8|INT4", precision):
        what = "int8 for which trtexec has no ranges of the training images" if "INT8" in precision else precision
        raise ArtifactError(f"{where}: got {printable(what, _MOST_OF_A_TEXT)}, expected an engine of --fp16 or fp32")
    return _PRECISIONS.get(precision)


def _times(log: _Log, name: str, where: str) -> EngineTimes:
    found = log.figures[name]
    if "?" in found or not {"min", "max", "mean", "median"} <= found.keys():
        got = printable(found.get("?", ", ".join(sorted(found))), 200)
        raise ArtifactError(f"{where}: {name}: got {got!r}, expected min, max, mean and median in ms")
    return EngineTimes(
        min_ms=float(found["min"]),
        p50_ms=float(found["median"]),
        max_ms=float(found["max"]),
        mean_ms=float(found["mean"]),
        **{f"p{each}_ms": _optional(found.get(f"percentile({each}%)")) for each in (90, 95, 99)},
    )


def _optional(number: str | None) -> float | None:
    return None if number is None else float(number)


def _outputs(content: bytes, where: str, output: TensorSpec, most: int) -> NDArray[np.float64]:
    """Return the engine's outputs (N, K) for the first N recorded inputs."""
    if _NOT_FINITE.search(content):
        raise GateError(f"{where}: got NaN or infinite outputs, expected finite ones; make the engine without --fp16")
    try:
        found = parse_json(content)
    except ValueError as error:
        raise ArtifactError(f"{where}: not what trtexec --exportOutput writes: {error}") from error
    tensors = {str(each.get("name")): each for each in _objects(found)}
    if output.name not in tensors:
        got = printable(", ".join(sorted(tensors)) or "none", _MOST_OF_A_TEXT)
        raise ArtifactError(f"{where}: got the outputs {got}, expected {output.name}: not of this model's engine")
    dimensions, values = str(tensors[output.name].get("dimensions")), tensors[output.name].get("values")
    num_classes = output.shape[-1]
    sizes = re.fullmatch(r"(\d{1,6})x(\d{1,6})", dimensions, re.ASCII)
    if not sizes or int(sizes[2]) != num_classes or not 1 <= int(sizes[1]) <= most:
        got = printable(dimensions, 60)
        raise ArtifactError(f"{where}: got outputs of shape {got}, expected 1x{num_classes} to {most}x{num_classes}")
    numbers = [each for each in values if type(each) in {int, float}] if isinstance(values, list) else []
    if len(numbers) != int(sizes[1]) * int(sizes[2]) or not isinstance(values, list) or len(values) != len(numbers):
        raise ArtifactError(f"{where}: expected {dimensions} numbers as values; run trtexec --exportOutput again")
    return np.array(numbers, dtype=np.float64).reshape(int(sizes[1]), int(sizes[2]))


def _objects(value: object) -> Iterator[dict[str, object]]:
    yield from (each for each in value if isinstance(each, dict)) if isinstance(value, list) else ()
