"""What a clock of this machine says of a bundle while it is made: at a glance, or in earnest where it is the device."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from fedsup_deploy.artifact.measured import MeasuredLatency, MeasuredSpeed
from fedsup_deploy.device.building.measurements import is_of_this_machine, limit_check
from fedsup_deploy.device.measure import measure_both, measure_onnx
from fedsup_deploy.device.profile import DeviceProfile
from fedsup_deploy.ondevice import bundle_files, timing
from fedsup_deploy.ondevice.records import Percentile, TimedInt8, TimedModel
from fedsup_deploy.variant import MAIN, MAIN_INT8, Precision


@dataclasses.dataclass(frozen=True)
class HeldLimit:
    """A limit on latency that a search kept, and what of a measurement is held to it."""

    limit_ms: float
    percentile: Percentile


@dataclasses.dataclass(frozen=True)
class BothTimed:
    """What the two files of a bundle were found to take on the device, which is this machine.

    Args:
        fp32: Of the fp32 file.
        int8: Of the int8 file, timed in turns with it.
    """

    fp32: TimedModel
    int8: TimedInt8

    @property
    def speed(self) -> MeasuredSpeed:
        """How they compare."""
        return MeasuredSpeed.model_validate(self.int8["speed"])


def time_both(fp32: Path, int8: Path, profile: DeviceProfile) -> BothTimed:
    """Return what both files take here with the threads of a profile: 5 s each, up to 10 s while it is unstable."""
    return BothTimed(*measure_both(fp32, int8, threads=profile.runtime.threads, protocol=timing.QUICK))


def measured_here(
    folder: Path, profile: DeviceProfile, held: HeldLimit | None, both: BothTimed | None
) -> Mapping[str, MeasuredLatency]:
    """Return the latencies on this machine, by the names of the variants.

    Args:
        folder: Of the bundle's files.
        profile: Of its device.
        held: The limit on latency; None where there is none.
        both: What was found when int8 was held to its gate of speed; None where it was not.

    Returns:
        Of the file in the precision that the profile's latencies are of with a verdict on the limit, if the profile is
        of this machine. Of int8 nothing where it is not: that says nothing of the device.
    """
    if both is None:
        if held is None or not is_of_this_machine(profile):
            found = measure_onnx(folder / bundle_files.MODEL, protocol=timing.GLANCE)
            return {MAIN.name: _kept(found)}
        threads = profile.runtime.threads
        found = measure_onnx(folder / bundle_files.MODEL, threads=threads, protocol=timing.QUICK)
        return {MAIN.name: _kept(found, held)}
    of_each: Mapping[Precision, TimedModel] = {MAIN.precision: both.fp32, MAIN_INT8.precision: both.int8}
    names = {MAIN.precision: MAIN.name, MAIN_INT8.precision: MAIN_INT8.name}
    return {
        names[precision]: _kept(latency, held if precision == profile.precision else None)
        for precision, latency in of_each.items()
    }


def _kept(latency: TimedModel, held: HeldLimit | None = None) -> MeasuredLatency:
    """Return what a manifest has of a latency; how int8 compares stands in its gate."""
    known = {name: value for name, value in latency.items() if name in MeasuredLatency.model_fields}
    limit = None if held is None else limit_check(held.limit_ms, held.percentile, latency)
    return MeasuredLatency.model_validate({**known, "limit": limit})
