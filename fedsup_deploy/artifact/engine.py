"""A TensorRT engine of a bundle's model, as `measured.json` keeps it: what trtexec printed on the device.

An engine is made on the device that runs it, and timed there by NVIDIA's trtexec. What it printed is kept as it stands,
but for folders of that machine. Owns the fields and their units; `fedsup_deploy.device.trtexec` reads them off a log.
"""

from typing import Final, Literal

from pydantic import Field, model_validator

from fedsup_deploy.config.section import NotNegative, Section, Text
from fedsup_deploy.ondevice.records import Percentile

#: Whether a limit on latency is kept.
LimitVerdict = Literal["met", "not met", "undecided"]
#: What trtexec begins the line with when the times of one network differ by more than it trusts.
_UNSTABLE: Final = "GPU compute time is unstable"


class EngineTimes(Section):
    """Times of single inferences, in ms."""

    min_ms: NotNegative
    """Shortest."""
    p50_ms: NotNegative
    """Median."""
    p90_ms: NotNegative | None
    """90th percentile; null where trtexec did not print it, as before TensorRT 8.5."""
    p95_ms: NotNegative | None
    """95th percentile; null as above."""
    p99_ms: NotNegative | None
    """99th percentile; null where trtexec was told to print another."""
    max_ms: NotNegative
    """Longest."""
    mean_ms: NotNegative
    """Mean."""

    @model_validator(mode="after")
    def _are_in_order(self) -> "EngineTimes":
        printed = (self.min_ms, self.p50_ms, self.p90_ms, self.p95_ms, self.p99_ms, self.max_ms)
        known = [each for each in printed if each is not None]
        if known != sorted(known) or not self.min_ms <= self.mean_ms <= self.max_ms:
            raise ValueError("got times that contradict each other, expected min <= median <= percentiles <= max")
        return self


class EngineOutputs(Section):
    """The engine's outputs for recorded inputs, compared with those of the fp32 network."""

    num_inputs: int = Field(ge=1)
    """Number of inputs: the first ones of `vectors.npz`."""
    tolerance: float = Field(gt=0)
    """Largest scaled difference that was allowed."""
    max_abs_diff: NotNegative
    """Largest difference of a logit."""
    max_scaled_diff: NotNegative
    """The same relative to the image's largest logit above 1."""
    num_classes_compared: int = Field(ge=0)
    """Inputs whose class had to be the recorded one; of the others two logits are too close to tell."""


class MeasuredEngine(Section):
    """An engine that trtexec made of `model.onnx`, or loaded, and timed: one image at a time."""

    runtime: Literal["tensorrt"] = "tensorrt"
    """What runs it."""
    version: Text | None
    """Of TensorRT; null where the log does not say."""
    precision: Literal["fp32", "fp16"] | None
    """The lowest that TensorRT could choose for a layer when it made the engine; null where the log does not say."""
    device: Text | None
    """The name of the GPU; null where the log does not say."""
    input: Text | None
    """Shape that was timed, such as `1x3x32x32`; null where the log does not say. Then only the name of a file says
    that the engine is of this model."""
    command: Text
    """What was run on the device, without folders."""
    log_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of the log."""
    num_runs: int | None = Field(ge=1)
    """Number of timed inferences; null where the log does not say."""
    throughput_per_s: NotNegative | None
    """Inferences a second, one after another without a pause; null where the log does not say."""
    latency: EngineTimes
    """From an image in the memory of the CPU to its logits there: what an application waits for."""
    gpu_compute: EngineTimes | None
    """Of that, the work of the GPU; null where the log does not say."""
    warnings: tuple[Text, ...] = ()
    """What trtexec itself said against its figures."""
    outputs: EngineOutputs | None = None
    """Whether it computes what the fp32 network computes; null where nobody compared."""

    @model_validator(mode="after")
    def _is_whole_above_part(self) -> "MeasuredEngine":
        """Hold each figure of the GPU's work against that of the latency, which is this work and the transfers."""
        part = {} if self.gpu_compute is None else self.gpu_compute.model_dump()
        for name, whole_ms in self.latency.model_dump().items():
            part_ms = part.get(name)
            if None not in {part_ms, whole_ms} and part_ms > whole_ms:
                raise ValueError(
                    f"got {part_ms:g} ms of the GPU in a latency of {whole_ms:g} ms that contains it ({name})"
                )
        return self

    @property
    def is_unstable(self) -> bool:
        """Whether trtexec said that the times differ by too much."""
        return any(each.startswith(_UNSTABLE) for each in self.warnings)

    @property
    def where(self) -> str:
        """Device, runtime and precision, as far as the log told them."""
        version = "TensorRT of an unknown version" if self.version is None else f"TensorRT {self.version}"
        return ", ".join(
            [self.device or "an unknown GPU", version, *([] if self.precision is None else [self.precision])]
        )

    def verdict(self, limit_ms: float, percentile: Percentile) -> LimitVerdict:
        """Return whether it keeps a limit on a percentile of latency.

        `undecided`: it may be above, or trtexec says that its times are unstable.
        """
        bound_ms, is_exact = self.bound_ms(percentile)
        if bound_ms is not None and bound_ms <= limit_ms:
            return "met"
        return "not met" if is_exact and not self.is_unstable else "undecided"

    def bound_ms(self, percentile: Percentile) -> tuple[float | None, bool]:
        """Return what a percentile of the latency cannot exceed, in ms, and whether it is that percentile itself.

        trtexec prints no 10th percentile, and before TensorRT 8.5 no 90th: the next higher one stands for it.
        """
        times = self.latency
        if percentile != "p90":
            return times.p50_ms, percentile == "p50"
        higher = (each for each in (times.p90_ms, times.p95_ms, times.p99_ms) if each is not None)
        return next(higher, None), times.p90_ms is not None
