"""A measured latency as a bundle keeps it: what a clock said, how it was asked, and whether to trust it.

What export measured stands in the manifest, which never changes; what was measured later in `measured.json`. Owns the
fields and their units; the figures are those of `fedsup_deploy.ondevice.timing`.
"""

from typing import Final, Literal

from pydantic import Field, ValidationInfo, field_validator

from fedsup_deploy.artifact import document
from fedsup_deploy.artifact.document import JsonObject
from fedsup_deploy.artifact.engine import MeasuredEngine
from fedsup_deploy.config.section import NotNegative, Section, Text
from fedsup_deploy.ondevice import bundle_files
from fedsup_deploy.ondevice.instruction_set import may_be_device
from fedsup_deploy.ondevice.latency_statistics import speed_words
from fedsup_deploy.ondevice.records import Percentile

FILENAME: Final = bundle_files.MEASURED
SCHEMA: Final = 1


class RunStatistics(Section):
    """Times of single runs, in ms."""

    num_runs: int = Field(ge=1)
    """Number of timed runs."""
    min_ms: NotNegative
    """Shortest."""
    p10_ms: NotNegative
    """10th percentile."""
    p50_ms: NotNegative
    """Median."""
    p90_ms: NotNegative
    """90th percentile."""
    mean_ms: NotNegative
    """Mean."""


class LatencyStatistics(RunStatistics):
    """Times of single inferences, in ms."""

    p90_bound_ms: NotNegative | None = None
    """What 90 % of all inferences stay within, 99 % sure; null where there were too few."""


class Stability(Section):
    """Whether the measurement repeats itself."""

    statistic: Text
    """What was compared between two parts of the session."""
    disagreement: NotNegative
    """Relative difference of even and odd visits."""
    drift: NotNegative | None = None
    """Relative difference of the first and the second half; null where it was not looked at."""
    spread: NotNegative | None = None
    """How far single visits lie apart, relative to their median; null where it was not looked at."""
    spread_within: NotNegative | None = None
    """Largest spread that is called stable; null as above."""
    stable_within: NotNegative
    """Largest difference that is called stable."""
    verdict: Literal["stable", "unstable"]
    """Whether to trust the statistics."""


class Noise(Section):
    """By what share parts of the session differ in each percentile: even and odd visits, or its halves."""

    p10: NotNegative
    """In the 10th percentile."""
    p50: NotNegative
    """In the median."""
    p90: NotNegative
    """In the 90th percentile."""


class MeasuredEnergy(Section):
    """Energy of one inference by a sensor of the machine."""

    energy_mj: NotNegative
    """All that the sensor saw, per inference, in mJ."""
    net_energy_mj: float
    """The same less what the machine takes when idle; noise may make it negative."""
    idle_power_w: NotNegative
    """What it takes when idle, in W."""
    num_runs: int = Field(ge=1)
    """Number of inferences."""
    seconds: NotNegative
    """How long they took together."""
    covers: Text
    """What the sensor sees: `package`, all of the processor, or `module`, the whole board."""
    source: Text
    """Kind of sensor."""


class PercentileRecord(Section):
    """Which percentile of latency a limit means, and how it follows from a prediction."""

    name: Percentile
    """The percentile."""
    ratio: float = Field(ge=1)
    """What predictions are multiplied with to be that percentile: as the profile measured it, or 1 where they are."""
    is_assumed: bool
    """Whether published figures only count as that percentile, and nobody measured it."""

    def __str__(self) -> str:
        """Return which percentile it is, and how it follows from predictions."""
        if self.is_assumed:
            return f"{self.name}, assumed"
        return f"{self.name}, as predicted" if self.ratio == 1 else f"{self.name}, {self.ratio:.4g} x predicted"


class LimitCheck(Section):
    """Whether a measured latency keeps the limit that the network was searched for."""

    limit_ms: float = Field(gt=0)
    """The limit."""
    percentile: Percentile = "p10"
    """Which percentile of latency it means; in older files the 10th was held to every limit."""
    measured_ms: NotNegative
    """What was held to it, on the device that the limit is about: that percentile of all timed inferences."""
    verdict: Literal["met", "not met", "undecided"]
    """`undecided`: above the limit, but by less than the noise of that percentile, or the measurement is unstable."""


class MeasuredLatency(Section):
    """Latency timed on a machine, which `environment` describes. It need not be the profile's device."""

    protocol: JsonObject
    """How long and how often, batch size included."""
    statistics: LatencyStatistics
    """What was found."""
    stability: Stability
    """The noise of the 10th percentile, with a verdict."""
    noise: Noise | None = None
    """That of each percentile; null in older files."""
    load_ms: NotNegative
    """Time to load the model, in ms."""
    first_run_ms: NotNegative
    """Time of the first inference, in ms."""
    peak_rss_mib: NotNegative | None
    """Most memory the measuring process held, in MiB; null where the system does not tell."""
    environment: JsonObject
    """Processor, threads, runtime and versions."""
    is_min_runs_met: bool | None = None
    """Whether there were as many inferences as the protocol wants; null where nobody looked."""
    is_min_duration_met: bool | None = None
    """Whether they took as long as it wants; null where nobody looked."""
    ruler: JsonObject | None = None
    """The same in turns with a fixed model, as a ratio to its latency; null without one."""
    energy: MeasuredEnergy | None = None
    """What a sensor of the machine said about the energy; null where there is none."""
    limit: LimitCheck | None = None
    """Whether it keeps the limit of a search; null where that limit is about another machine, or there was none."""

    def may_be_of(self, arch: str | None) -> bool:
        """Return whether it may be of a device with this instruction set, by what is known of both."""
        timed_on = self.environment.get("machine")
        return not isinstance(timed_on, str) or may_be_device(arch, timed_on)


class MeasuredSpeed(Section):
    """How the int8 file of a bundle compares with its fp32 file, which was timed in turns with it."""

    times_as_fast: NotNegative
    """10th percentile of fp32 / 10th percentile of int8."""
    noise: NotNegative
    """By what share parts of the session differ in that."""
    faster_above: float = Field(ge=1)
    """1 and the noise, at least 2 %: int8 counts as faster where `times_as_fast` is above it."""
    verdict: Literal["stable", "unstable"]
    """Whether parts differ by no more than stable measurements do."""

    @field_validator("faster_above")
    @classmethod
    def _has_the_noise_in_it(cls, faster_above: float, info: ValidationInfo) -> float:
        if faster_above < 1 + info.data.get("noise", 0.0):
            raise ValueError("expected 1 + noise, or more")
        return faster_above

    def words(self, *, may_be_device: bool) -> str:
        """Return how fast int8 is, and what to do where it is not faster; see `speed_words`."""
        return speed_words(
            {
                "times_as_fast": self.times_as_fast,
                "noise": self.noise,
                "faster_above": self.faster_above,
                "verdict": self.verdict,
            },
            may_be_device=may_be_device,
        )

    @property
    def is_faster(self) -> bool:
        """Whether int8 counts as faster."""
        return self.times_as_fast > self.faster_above


class MeasuredInt8(MeasuredLatency):
    """Latency of an int8 file, timed in turns with the fp32 file of its bundle."""

    speed: MeasuredSpeed
    """How the two compare."""


class MeasuredSize(Section):
    """Size of a picture as it is shown, in pixels."""

    width: int = Field(ge=1)
    """Columns."""
    height: int = Field(ge=1)
    """Rows."""

    def __str__(self) -> str:
        """Return it as WIDTHxHEIGHT."""
        return f"{self.width}x{self.height}"


class MeasuredStep(Section):
    """What a step before the network takes for one picture."""

    statistics: RunStatistics
    """What was found."""
    stability: Stability
    """The noise of the 10th percentile, with a verdict."""


class MeasuredPictures(Section):
    """What pictures of the user take before the network has them; each was timed as often as any other."""

    num_pictures: int = Field(ge=1)
    """That were timed."""
    num_found: int = Field(ge=1)
    """That were named: of many, some are timed."""
    smallest: MeasuredSize
    """Of those that were timed, the one with the fewest pixels."""
    largest: MeasuredSize
    """The one with the most."""
    pillow: Text
    """Version of Pillow, which decoded them."""
    decode: MeasuredStep
    """From the bytes of a file to pixels as they are shown."""
    prepare: MeasuredStep
    """From pixels to the model's input: made a square, resized, normalised."""


class MeasuredBundle(MeasuredLatency):
    """What a clock said of a bundle after it was made: of `model.onnx`, of its int8 file, and of pictures before it."""

    int8: MeasuredInt8 | None = None
    """Of the int8 file; null where the bundle has none, and in older files."""
    pictures: MeasuredPictures | None = None
    """Of what comes before the network; null where no pictures were named, and in older files."""


class MeasuredDocument(Section):
    """`measured.json`: the newest measurements of a bundle after it was made."""

    schema_version: Literal[1] = Field(SCHEMA, alias="schema")
    """Version of this file format."""
    latency: MeasuredBundle | None
    """What a clock said of its files; null where only an engine was timed."""
    engine: MeasuredEngine | None = None
    """What trtexec said of a TensorRT engine of it; null in older files, and where there is none."""


def to_text(measured: MeasuredDocument, sums: bytes) -> bytes:
    """Return the text of `measured.json`.

    Args:
        measured: What was measured.
        sums: The content of the bundle's SHA256SUMS, which the text is tied to.
    """
    text = document.to_text(measured).removesuffix("\n}\n")
    return bundle_files.sealed(f"{text},\n".encode(), sums)


def from_text(text: bytes, where: str) -> MeasuredDocument:
    """Return what a `measured.json` holds; its seal was checked before.

    Raises:
        ArtifactError: It is of another schema, or a key is missing, unknown or wrong.
    """
    whole = bundle_files.without_seal(text).removesuffix(b",\n") + b"}"
    return document.from_text(MeasuredDocument, whole, SCHEMA, where, "measure the bundle again")
