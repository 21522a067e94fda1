"""What a manifest says of each variant of a bundle: its files, how right it is, its gate, its latency.

Owns these fields, their units and what makes them valid. Measured and predicted latency are two fields of two types.
"""

import math
import operator
from typing import Annotated, Final, Literal

from pydantic import Field, ValidationInfo, field_validator

from fedsup_deploy import registry
from fedsup_deploy.artifact.measured import MeasuredLatency, MeasuredSpeed
from fedsup_deploy.config.device import Int8Scheme
from fedsup_deploy.config.section import NotNegative, Section, Text
from fedsup_deploy.ondevice import bundle_outputs
from fedsup_deploy.variant import Precision, Variant

#: Of a variant that no runtime of its format has run: this program has read the file back and computed what it says.
THIS_PROGRAM: Final = "fedsup_deploy"

Share = Annotated[float, Field(ge=0, le=1)]
#: A name in the bundle, below folders if there are several files.
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$", max_length=200)]


class PredictedLatency(Section):
    """Latency by the profile's latency model at batch 1. Nobody timed it."""

    value_ms: NotNegative
    """The prediction, in ms."""
    interval_ms: tuple[NotNegative, NotNegative] | None
    """Lower and upper end of the prediction interval, in ms; null where the profile's error is `none`."""
    kind: Text
    """Kind of latency model, such as `roofline`."""
    provenance: tuple[Literal["datasheet", "measured", "published"], ...] = Field(min_length=1)
    """How the costs behind it are known."""

    @field_validator("interval_ms")
    @classmethod
    def _is_ordered(cls, interval_ms: tuple[float, float] | None) -> tuple[float, float] | None:
        if interval_ms is not None and interval_ms[0] > interval_ms[1]:
            raise ValueError("expected the lower end first")
        return interval_ms


class VariantLatency(Section):
    """How long one image takes, in two ways that are never mixed."""

    predicted: PredictedLatency | None
    """What the profile's latency model says; null where that is of another precision."""
    measured: MeasuredLatency | None
    """What a clock said when the bundle was made; null when nobody measured. What it said later: measured.json."""


class ParityGate(Section):
    """The gate of fp32: the files compute what the network computes, for one image and for many.

    The scale of an image is its largest absolute logit in the reference, at least 1. A scaled difference is divided by
    it: the tolerance is absolute for logits up to 1, and relative to the image's logits above.
    """

    kind: Literal["parity"] = "parity"
    """Which gate."""
    tolerance: NotNegative
    """Allowed scaled difference of a logit from the reference."""
    batch_tolerance: NotNegative
    """Allowed scaled difference of a logit between an input alone and inside a batch."""
    batches: tuple[Annotated[int, Field(ge=1)], ...] = Field(min_length=1)
    """Batch sizes compared; every input passed in chunks of each."""
    num_inputs: int = Field(ge=1)
    """Number of inputs."""
    max_abs_diff: NotNegative
    """Largest difference of a logit, over all inputs and batch sizes."""
    max_scaled_diff: NotNegative
    """Largest scaled difference of a logit. This is gated."""
    argmax_agreement: Share
    """Share of inputs with the reference's class, the lowest over the batch sizes. 1 is what passes."""
    batch_invariance_max_abs_diff: NotNegative
    """Largest difference of a logit between an input alone and inside a batch."""
    batch_invariance_max_scaled_diff: NotNegative
    """Largest scaled difference of a logit between an input alone and inside a batch. This is gated."""

    @field_validator("batch_invariance_max_scaled_diff")
    @classmethod
    def _passed(cls, batch_diff: float, info: ValidationInfo) -> float:
        tolerances = [info.data.get(name, math.inf) for name in ("tolerance", "batch_tolerance")]
        diffs = (info.data.get("max_scaled_diff", 0.0), batch_diff)
        if info.data.get("argmax_agreement", 1.0) < 1 or any(map(operator.gt, diffs, tolerances)):
            raise ValueError("this would not have passed the gate, expected what did")
        return batch_diff


class Int8Gate(Section):
    """The gate of int8: nearly as many right answers as the fp32 file, every convolution in 8 bits, and faster."""

    kind: Literal["int8"] = "int8"
    """Which gate."""
    scheme: Int8Scheme
    """How numbers of 8 bits stand for others."""
    split: Text
    """Images that answers were compared on."""
    num_images: int = Field(ge=1)
    """How many."""
    accuracy_drop: Annotated[float, Field(ge=-1, le=1)]
    """Share that the fp32 file is right about, less that of this one; below 0 where int8 is right more often."""
    accuracy_drop_interval: tuple[float, float]
    """What the drop is on all images like these, with a probability of 95 %."""
    max_accuracy_drop: Share
    """Allowed drop. This is gated."""
    num_float_convolutions: Literal[0]
    """Convolutions that its runtime would compute in float32. 0 is what passes."""
    tolerance: NotNegative
    """Allowed scaled difference of a logit from this file's recorded outputs, on any processor: they round differently.
    A class must be the recorded one where its logit leads by more than twice that."""
    max_scaled_diff: NotNegative
    """Largest scaled difference of a logit from the fp32 network, for information."""
    class_agreement: Share
    """Share of the recorded inputs that get the class of the fp32 network, for information."""
    speed: MeasuredSpeed | None = None
    """How many times as fast as the fp32 file it is on the device: more than `faster_above`. This is gated. Null
    where nobody could tell, because the machine that made the bundle is not the device; and in older files."""

    @field_validator("speed")
    @classmethod
    def _is_faster(cls, speed: MeasuredSpeed | None) -> MeasuredSpeed | None:
        if speed is not None and not speed.is_faster:
            raise ValueError("this would not have passed the gate, expected what did")
        return speed

    @field_validator("max_accuracy_drop")
    @classmethod
    def _passed(cls, allowed: float, info: ValidationInfo) -> float:
        if info.data.get("accuracy_drop", 0.0) > allowed:
            raise ValueError("this would not have passed the gate, expected what did")
        return allowed


class RanBy(Section):
    """What ran a variant for its gate."""

    name: Text
    """The library, by its name in Python, such as `openvino`; `fedsup_deploy` where no runtime of the format
    has run it: this program has read the file back and computed what it says."""
    version: Text
    """Its release."""


class VariantRecord(Section):
    """One variant of a bundle."""

    format: Text
    """The file format."""
    precision: Precision
    """Number format of weights and activations."""
    files: dict[FileName, Annotated[int, Field(ge=1)]] = Field(min_length=1)
    """Its files and their bytes; the first is what a runtime is given."""
    accuracy: Share | None
    """Share of the images of `accuracy`, where it stands how many, that it classifies correctly. Of fp32 it is that of
    the network, which the gate has found to give the same answers; null where nobody looked."""
    gate: Annotated[ParityGate | Int8Gate, Field(discriminator="kind")]
    """What it had to pass before this bundle was allowed to exist, and what was found."""
    latency: VariantLatency
    """How long one image takes."""
    ran_by: RanBy | None = None
    """The runtime that computed what the gate compared; null in older files."""
    layout: Literal["nchw", "nhwc"] = "nchw"
    """The order of the dimensions of the images it takes."""
    counted: dict[Text, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
    """What was counted in its files, by name, such as `delegated_convolutions`; nothing in older files."""

    @field_validator("gate")
    @classmethod
    def _is_no_kinder(cls, gate: ParityGate | Int8Gate, info: ValidationInfo) -> ParityGate | Int8Gate:
        if (info.data.get("precision") == "int8") != isinstance(gate, Int8Gate):
            raise ValueError(f"got the gate {gate.kind}, expected that of {info.data.get('precision')}")
        if isinstance(gate, Int8Gate):
            if gate.tolerance > bundle_outputs.INT8_TOLERANCE:
                expected = f"at most {bundle_outputs.INT8_TOLERANCE:g}"
                raise ValueError(f"got a tolerance of {gate.tolerance:g}, expected {expected}")
            return gate
        most = tolerance_of(info.data.get("format", ""))
        for name, allowed in (("tolerance", gate.tolerance), ("batch_tolerance", gate.batch_tolerance)):
            if allowed > most:
                raise ValueError(f"got a {name} of {allowed:g}, expected at most {most:g}")
        return gate

    @property
    def variant(self) -> Variant:
        """Which one."""
        return Variant(self.format, self.precision)

    @property
    def num_bytes(self) -> int:
        """Size of all its files."""
        return sum(self.files.values())


def tolerance_of(file_format: str) -> float:
    """Return the scaled difference that the gate of fp32 allows files of a format; of an unknown one, that of most."""
    if file_format not in registry.names("exporter"):
        return bundle_outputs.TOLERANCE
    tolerance: float = registry.resolve("exporter", file_format).tolerance
    return tolerance


def is_for_one_image(file_format: str) -> bool:
    """Return whether files of a format take one image at a time, whatever a device can take."""
    known = file_format in registry.names("exporter")
    return known and registry.resolve("exporter", file_format).batch == "static"
