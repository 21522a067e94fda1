"""What programs on a device report, as types of JSON objects: for whoever reads a report.

No device has this module: what runs there names the types in annotations only. The keys are those of the documents.
"""

from typing import Any, Dict, List, Literal, Optional, Protocol, Sequence, Union

import numpy as np
from numpy.typing import NDArray
from typing_extensions import TypedDict

#: What goes into a model, comes out of it, or was recorded of it.
Floats = NDArray[np.floating[Any]]
#: Images as a model takes them.
Floats32 = NDArray[np.float32]
#: Images as they are decoded.
Pixels = NDArray[np.uint8]
#: Images as they are stored, of one of `preprocessing.PIXEL_MAX`.
AnyPixels = NDArray[Union[np.uint8, np.uint16, np.float32]]


#: Of the latency of one network: what 10, 50 or 90 % of its inferences stay within.
Percentile = Literal["p10", "p50", "p90"]


class Tensor(Protocol):
    """An input or output of a session."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def shape(self) -> Sequence[Union[int, str, None]]:
        """Its sizes; an open one is a name or None."""


class SessionOptions(Protocol):
    """What is used of onnxruntime's."""

    intra_op_num_threads: int
    inter_op_num_threads: int
    execution_mode: object
    graph_optimization_level: object
    log_severity_level: int
    optimized_model_filepath: str

    def add_session_config_entry(self, key: str, value: str) -> None:
        """Set an option that has no attribute."""


class InferenceSession(Protocol):
    """What is used of a session of onnxruntime, which has no types."""

    def get_inputs(self) -> Sequence[Tensor]:
        """Return the inputs."""

    def get_outputs(self) -> Sequence[Tensor]:
        """Return the outputs."""

    def run(
        self, output_names: Optional[Sequence[str]], input_feed: Dict[str, Floats], run_options: object = None
    ) -> Sequence[Floats]:
        """Return the outputs of that name, or all."""


class Versions(TypedDict):
    """Of the libraries that run a model."""

    numpy: str
    onnxruntime: str


class Environment(TypedDict):
    """What a machine says of itself; None for what it does not tell."""

    device: Optional[str]
    cpu: str
    vnni: Optional[bool]
    cores: Optional[int]
    cores_allowed: Optional[int]
    governor: Optional[str]
    frequency_mhz: Optional[float]
    frequency_max_mhz: Optional[float]
    power_mode: Optional[str]
    throttled: Optional[str]
    temperature_c: Optional[float]
    load_average_1m: Optional[float]
    system: str
    machine: str
    glibc: Optional[str]
    python: str
    numpy: str
    onnxruntime: str
    provider: str
    threads: int


class EnergyRecord(TypedDict):
    """Energy of one inference by a sensor of the machine."""

    energy_mj: float
    """All that the sensor saw, per inference."""
    net_energy_mj: float
    """The same less what the machine takes when idle; noise may make it negative."""
    idle_power_w: float
    num_runs: int
    seconds: float
    """How long they took together."""
    covers: str
    """What the sensor sees: `package`, all of the processor, or `module`, the whole board."""
    source: str
    """Kind of sensor."""


class RunTimes(TypedDict):
    """What the times of some runs come to, in ms."""

    num_runs: int
    min_ms: float
    p10_ms: float
    p50_ms: float
    p90_ms: float
    mean_ms: float


class Statistics(RunTimes):
    """The same of a whole session."""

    p90_bound_ms: Optional[float]


class StabilityRecord(TypedDict):
    """Whether the parts of a session agree."""

    statistic: str
    disagreement: float
    drift: float
    spread: float
    stable_within: float
    spread_within: Optional[float]
    verdict: Literal["stable", "unstable"]


class ProtocolRecord(TypedDict):
    """How long a model was timed; the fields are those of `timing.Protocol`."""

    batch: int
    name: str
    min_runs: int
    min_seconds: float
    settle_seconds: float
    max_seconds: float
    warm_up_runs: int
    warm_up_seconds: float


class Session(TypedDict):
    """What a timed session of one model came to."""

    protocol: ProtocolRecord
    statistics: Statistics
    stability: StabilityRecord
    noise: Dict[str, float]
    is_min_runs_met: bool
    is_min_duration_met: bool
    peak_rss_mib: Optional[float]


class Latency(Session):
    """The same, with what came before: `latency` in the report of a bundle's `run.py`."""

    load_ms: float
    first_run_ms: float


class SpeedRecord(TypedDict):
    """How the int8 file compares with the fp32 file, which was timed in turns with it."""

    times_as_fast: float
    """10th percentile of fp32 / 10th percentile of int8."""
    noise: float
    """By what share parts of the session differ in that."""
    faster_above: float
    """1 and the noise, at least 2 %: int8 counts as faster where `times_as_fast` is above it."""
    verdict: Literal["stable", "unstable"]


class Int8Latency(Latency):
    """The latency of a bundle's int8 file: `int8_latency` in the report of `run.py`."""

    speed: SpeedRecord


class TimedModel(Latency):
    """The same of any model, with the machine."""

    environment: Environment


class TimedInt8(Int8Latency):
    """The same of a bundle's int8 file."""

    environment: Environment


class PictureSize(TypedDict):
    """Of a picture as it is shown, pixels."""

    width: int
    height: int


class PictureStep(TypedDict):
    """What a step before the network takes: single runs, each of one picture."""

    statistics: RunTimes
    stability: StabilityRecord


class PictureTimes(TypedDict):
    """What pictures of the user take before the network has them; each was timed as often as any other."""

    num_pictures: int
    num_found: int
    """Of those that were named; no more than some are timed."""
    smallest: PictureSize
    largest: PictureSize
    pillow: str
    """Version of Pillow."""
    decode: PictureStep
    """From the bytes of a file to pixels as they are shown."""
    prepare: PictureStep
    """From pixels to the model's input: made a square, resized, normalised."""


class Outputs(TypedDict):
    """What was asked of a bundle's outputs, and the largest differences, plain and scaled."""

    num_inputs: int
    batches: List[int]
    tolerance: float
    batch_tolerance: float
    max_abs_diff: float
    max_scaled_diff: float
    argmax_agreement: float
    batch_invariance_max_abs_diff: float
    batch_invariance_max_scaled_diff: float


class Int8Outputs(TypedDict):
    """What was asked of the outputs of a bundle's int8 file, and the largest differences, plain and scaled.

    Of `num_classes_compared` images the class had to be the recorded one; of the others two logits were too close.
    """

    num_inputs: int
    batches: List[int]
    tolerance: float
    max_abs_diff: float
    max_scaled_diff: float
    num_classes_compared: int


class Files(TypedDict):
    """The files of a bundle."""

    num_files: int
    num_bytes: int


class Verdict(TypedDict):
    """How the check of a bundle ended."""

    schema: int
    exit_code: int
    reason: Optional[str]


class RuntimeRecord(TypedDict):
    """What would run the model, and the oldest release of it that can; None where that is not known."""

    name: str
    version: str
    least_version: Optional[str]


class DeviceHere(TypedDict):
    """Whether a machine may be the bundle's device, by the instruction sets of both; `arch` is None where unknown."""

    arch: Optional[str]
    arch_here: str
    may_be_here: bool


class Report(Verdict, total=False):
    """What `run.py --json` prints: what was found until a check failed."""

    files: Files
    arch_id: str
    device: DeviceHere
    runtime: RuntimeRecord
    environment: Environment
    parity: Outputs
    int8: Int8Outputs
    latency: Latency
    int8_latency: Int8Latency
    pictures: PictureTimes
    energy: Optional[EnergyRecord]
    why_no_energy: Optional[str]


#: A class of a model, and its probability: the softmax of the logits.
LikelyClass = TypedDict("LikelyClass", {"class": str, "index": int, "probability": float})
#: What a model says of an image file, and the classes that are most likely; None and none where there is a `reason` why
#: it cannot say anything.
ClassifiedImage = TypedDict(
    "ClassifiedImage",
    {
        "file": str,
        "class": Optional[str],
        "index": Optional[int],
        "probability": Optional[float],
        "top": List[LikelyClass],
        "reason": Optional[str],
    },
)


class Classification(TypedDict):
    """What `run.py --classify --json` prints; `model` is the file that was run, None before one was chosen.

    So is `device` before the manifest was read.
    """

    schema: int
    device: Optional[DeviceHere]
    model: Optional[str]
    threads: int
    images: List[ClassifiedImage]
    exit_code: int
    reason: Optional[str]


class Tolerances(TypedDict):
    """What a manifest allows a difference to be."""

    tolerance: float
    batch_tolerance: float


class PredictedRecord(TypedDict):
    """What the checks need of a variant's latency in a manifest: of which precision a profile's predictions are."""

    predicted: Optional[object]


class VariantGate(TypedDict):
    """What the checks need of a variant in a manifest."""

    gate: Tolerances
    latency: PredictedRecord


class TensorRecord(TypedDict):
    """An input or output in a manifest; the first size is the batch, `batch` where it is open."""

    shape: List[Union[int, str]]


class KnownBadRelease(TypedDict):
    """Releases of a runtime that fail on a bundle's device, in a manifest."""

    runtime: str
    versions: str
    symptom: str
    cure: str
    source: str


class SystemOfDevice(TypedDict):
    """What the checks need of a device's system in a manifest."""

    arch: Optional[str]


class DeviceOfBundle(TypedDict):
    """What the checks need of a bundle's device in a manifest."""

    system: SystemOfDevice
    known_bad: List[KnownBadRelease]


class _EveryManifestRecord(TypedDict):
    arch_id: str
    classes: List[str]
    preprocessing: Dict[str, Any]  # which `preprocessing.steps_of` reads
    models: Dict[str, VariantGate]
    inputs: List[TensorRecord]
    outputs: List[TensorRecord]


class ManifestRecord(_EveryManifestRecord, total=False):
    """What the checks on a device need of a manifest; older ones lack the device."""

    device: Optional[DeviceOfBundle]
