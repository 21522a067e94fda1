"""What is told of a bundle that was made: the result of `export`, and part of that of `deploy` and `demo`."""

import dataclasses
from pathlib import Path

from fedsup_deploy.artifact.manifest import Manifest
from fedsup_deploy.artifact.measured import PercentileRecord
from fedsup_deploy.artifact.variants import Int8Gate, ParityGate
from fedsup_deploy.config.device import KnownBad, System
from fedsup_deploy.searchers.pricing import Target
from fedsup_deploy.searchers.recording import percentile_record
from fedsup_deploy.variant import MAIN_INT8


@dataclasses.dataclass(frozen=True)
class AccuracyDrop:
    """What int8 costs.

    Args:
        share: Of the images that the fp32 file is right about, less that of the int8 file.
        interval: Its 95 % interval.
        split: Of which images.
        num_images: How many.
    """

    share: float
    interval: tuple[float, float]
    split: str
    num_images: int


@dataclasses.dataclass(frozen=True)
class ExportedBundle:
    """One bundle that was made.

    Args:
        profile: The device.
        arch_id: The network.
        folder: Where it is.
        split: Images that accuracies are shares of: `test`, or `tested` or `held-out` of clients.
        num_images: How many.
        accuracy: Share of them classified correctly.
        accuracy_interval: Its 95 % interval.
        accuracy_not_recalibrated: The same with the supernet's own statistics; None where there are none.
        accuracy_not_recalibrated_interval: Its 95 % interval.
        latency_ms_predicted: For the device, in ms.
        percentile: Which percentile of latency a limit on it means.
        latency_ms_measured_here: Median of the fp32 file on this machine, in ms.
        measurement: Whether parts of that measurement agree: `stable` or `unstable`.
        exceeded_limits: Names of the limits that it exceeds.
        latency_limit: `met`, `not met` or `undecided` where the profile is about this machine, else None.
        parity_max_abs_diff: Largest difference of a logit from the reference, over all variants of fp32.
        parity_max_scaled_diff: The same relative to the image's largest logit.
        bytes: Size of each variant.
        int8_accuracy: Share of the images that the int8 file classifies correctly; None where there is none.
        int8_drop: What the gate found that it costs; None as above.
        int8_latency_ms_measured_here: Median of the int8 file, in ms; None where this machine is not the device.
        int8_times_as_fast: As the fp32 file on this machine; None as above.
        left_out: Why a variant that was asked for is not there, by its name.
        system: What the device has, as far as the profile knows.
        known_bad: Releases of its runtime that fail there, and that `run.py` runs nothing with.
        build_on_device: A command that makes an engine there, where there is one; we have run none.
    """

    profile: str
    arch_id: str
    folder: Path
    split: str
    num_images: int
    accuracy: float
    accuracy_interval: tuple[float, float]
    accuracy_not_recalibrated: float | None
    accuracy_not_recalibrated_interval: tuple[float, float] | None
    latency_ms_predicted: float
    percentile: PercentileRecord
    latency_ms_measured_here: float
    measurement: str
    exceeded_limits: tuple[str, ...]
    latency_limit: str | None
    parity_max_abs_diff: float
    parity_max_scaled_diff: float
    bytes: dict[str, int]
    int8_accuracy: float | None
    int8_drop: AccuracyDrop | None
    int8_latency_ms_measured_here: float | None
    int8_times_as_fast: float | None
    left_out: dict[str, str]
    system: System
    known_bad: tuple[KnownBad, ...]
    build_on_device: str | None


def exported_bundle(manifest: Manifest, folder: Path, target: Target) -> ExportedBundle:
    """Return what is told of a bundle.

    Args:
        manifest: What it says of itself.
        folder: Where it is.
        target: The device, and the limits that were in force.
    """
    measured = manifest.main.latency.measured
    assert measured is not None, "every export measures"
    # The variant that a limit on latency is about, and the int8 file where there is one.
    held = next(each.latency for each in manifest.models.values() if each.latency.predicted is not None)
    assert held.predicted is not None, "it was looked for"
    limit = None if held.measured is None else held.measured.limit
    int8 = next((each for each in manifest.models.values() if each.variant == MAIN_INT8), None)
    int8_measured = None if int8 is None else int8.latency.measured
    gate = int8.gate if int8 is not None and isinstance(int8.gate, Int8Gate) else None
    speed = None if gate is None else gate.speed
    accuracy = manifest.accuracy
    assert accuracy.recalibrated_interval is not None, "every export counts"
    gates = [record.gate for record in manifest.models.values() if isinstance(record.gate, ParityGate)]
    return ExportedBundle(
        profile=manifest.profile.name,
        arch_id=manifest.arch_id,
        folder=folder,
        split=accuracy.split,
        num_images=accuracy.num_samples,
        accuracy=accuracy.recalibrated,
        accuracy_interval=accuracy.recalibrated_interval,
        accuracy_not_recalibrated=accuracy.not_recalibrated,
        accuracy_not_recalibrated_interval=accuracy.not_recalibrated_interval,
        latency_ms_predicted=held.predicted.value_ms,
        percentile=percentile_record(target.held),
        latency_ms_measured_here=measured.statistics.p50_ms,
        measurement=measured.stability.verdict,
        exceeded_limits=manifest.exceeded_limits,
        latency_limit=None if limit is None else limit.verdict,
        parity_max_abs_diff=max(gate.max_abs_diff for gate in gates),
        parity_max_scaled_diff=max(gate.max_scaled_diff for gate in gates),
        bytes={name: record.num_bytes for name, record in manifest.models.items()},
        int8_accuracy=None if int8 is None else int8.accuracy,
        int8_drop=None if gate is None else _drop(gate),
        int8_latency_ms_measured_here=None if int8_measured is None else int8_measured.statistics.p50_ms,
        int8_times_as_fast=None if speed is None else speed.times_as_fast,
        left_out=manifest.left_out,
        system=target.profile.system,
        known_bad=target.profile.known_bad,
        build_on_device=target.profile.build_on_device,
    )


def _drop(gate: Int8Gate) -> AccuracyDrop:
    return AccuracyDrop(gate.accuracy_drop, gate.accuracy_drop_interval, gate.split, gate.num_images)
