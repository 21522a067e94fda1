"""`fedsup-deploy measure`: time a bundle or an ONNX model. Torch-free."""

import dataclasses
import json
from pathlib import Path
from typing import NamedTuple

from fedsup_deploy import resources
from fedsup_deploy.artifact.external_data import external_files
from fedsup_deploy.artifact.failures import failing_as_ours, raise_if_failed
from fedsup_deploy.artifact.manifest import Manifest
from fedsup_deploy.artifact.measured import LimitCheck, MeasuredBundle
from fedsup_deploy.artifact.store import (
    check_can_keep,
    load_manifest,
    record_measurement,
    verify_bundle,
)
from fedsup_deploy.device.building.measurements import (
    check_device,
    limit_check,
    measurement_of,
    profile_to_save_to,
    save_measurement,
)
from fedsup_deploy.device.measure import ComparedLatency, ModelLatency, measure_energy, measure_onnx
from fedsup_deploy.device.profile import load_profile
from fedsup_deploy.device.remote.measure import measure_bundle_there, measure_model_there
from fedsup_deploy.device.remote.ssh import Access
from fedsup_deploy.errors import ArtifactError, ConfigError
from fedsup_deploy.events import EventLog, Listener
from fedsup_deploy.ondevice import bundle_files, machine, timing
from fedsup_deploy.ondevice.instruction_set import device_here
from fedsup_deploy.ondevice.picture_timing import Pictures, pictures_for, time_pictures
from fedsup_deploy.ondevice.records import (
    DeviceHere,
    EnergyRecord,
    Environment,
    Percentile,
    PictureTimes,
    ProtocolRecord,
    Session,
    StabilityRecord,
    Statistics,
    TimedInt8,
    TimedModel,
)
from fedsup_deploy.results import LEFT_OUT_IF_NONE, Result
from fedsup_deploy.variant import Precision


@dataclasses.dataclass(frozen=True)
class EstimatedEnergy:
    """Power x latency: nobody measured it.

    Args:
        energy_mj: Of one inference, in mJ.
        active_power_w: What the profile states, in W.
    """

    energy_mj: float
    active_power_w: float


@dataclasses.dataclass(frozen=True)
class Saving:
    """That a profile keeps the result.

    Args:
        profile: Its file; None is `profiles/NAME.yaml` in the current folder.
    """

    profile: Path | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeasuredModel(Result):
    """What a clock, and where there is one a sensor, said of a model.

    Args:
        arch_id: Of a bundle.
        profile: That a bundle was made for.
        precision: Number format that the latencies of that profile, and limits on them, are of.
        device: Of a bundle: whether the machine that was timed may be the device it was made for.
        protocol: How long it was timed.
        statistics: Times of single inferences, in ms.
        stability: Whether parts of the measurement agree, with a verdict.
        noise: By what share they differ in each percentile.
        is_min_runs_met: Whether there were as many inferences as the protocol wants.
        is_min_duration_met: Whether they took as long as it wants.
        peak_rss_mib: Most memory the process held, in MiB; None where the system does not tell.
        load_ms: Time to load the model, in ms.
        first_run_ms: Time of the first inference, in ms.
        environment: The machine before the first run.
        ruler: The same in turns with a fixed model; None without one.
        energy: By a sensor; None without one.
        why_no_energy: Why no sensor said anything; None where one did.
        int8: Of a bundle's int8 file, timed in turns with its fp32 file, which all above is about, and how many times
            as fast it is; None where there is none.
        pictures: What pictures take before the network has them; None where none were named.
        energy_estimated: Of another machine, where the bundle's profile states a power.
        is_recorded: Whether a bundle holds it now.
        out: The file that holds it instead, where that was asked for.
        saved_to: The profile's file that keeps it.
        fail_above: What it may take at most, and whether it does, where that was asked for.
    """

    arch_id: str | None = dataclasses.field(default=None, metadata=LEFT_OUT_IF_NONE)
    profile: str | None = dataclasses.field(default=None, metadata=LEFT_OUT_IF_NONE)
    precision: Precision | None = dataclasses.field(default=None, metadata=LEFT_OUT_IF_NONE)
    device: DeviceHere | None = dataclasses.field(default=None, metadata=LEFT_OUT_IF_NONE)
    protocol: ProtocolRecord
    statistics: Statistics
    stability: StabilityRecord
    noise: dict[str, float]
    is_min_runs_met: bool
    is_min_duration_met: bool
    peak_rss_mib: float | None
    load_ms: float
    first_run_ms: float
    environment: Environment
    ruler: ComparedLatency | None
    energy: EnergyRecord | None
    why_no_energy: str | None = dataclasses.field(default=None, metadata=LEFT_OUT_IF_NONE)
    int8: TimedInt8 | None
    pictures: PictureTimes | None
    energy_estimated: EstimatedEnergy | None
    is_recorded: bool
    out: Path | None = dataclasses.field(default=None, metadata=LEFT_OUT_IF_NONE)
    saved_to: Path | None
    fail_above: LimitCheck | None = dataclasses.field(default=None, metadata=LEFT_OUT_IF_NONE)

    def held_to(self, limit_ms: float, percentile: Percentile) -> "MeasuredModel":
        """Return the same, with what a percentile of the latency may be at most, and whether it is.

        Of a bundle that is the latency of the file in the number format of its profile.
        """
        session: Session = self.int8 if self.precision == "int8" and self.int8 is not None else self._session
        return dataclasses.replace(self, fail_above=limit_check(limit_ms, percentile, session))

    @property
    def _session(self) -> Session:
        return {
            "protocol": self.protocol,
            "statistics": self.statistics,
            "stability": self.stability,
            "noise": self.noise,
            "is_min_runs_met": self.is_min_runs_met,
            "is_min_duration_met": self.is_min_duration_met,
            "peak_rss_mib": self.peak_rss_mib,
        }


@dataclasses.dataclass(frozen=True)
class Keeping:
    """Where a result goes.

    Args:
        out: A file that is to hold what was measured of a bundle, in its place; None: the bundle does.
        saving: Lets the profile that a bundle was exported for keep the result as well.
    """

    out: Path | None = None
    saving: Saving | None = None


def measure(
    path: Path,
    threads: int,
    protocol: str,
    listeners: tuple[Listener, ...] = (),
    *,
    ruler: Path | None = None,
    images: Path | None = None,
    keeping: Keeping | None = None,
) -> MeasuredModel:
    """Return the latency, load time, memory and, where there is a sensor, energy of a model on this machine.

    A bundle is checked first, and then holds what was measured.

    Args:
        path: A bundle, or an ONNX file, and the files that it has weights in.
        threads: Threads of the runtime.
        protocol: `quick` or `full`.
        listeners: Called with one event before and one after.
        ruler: An ONNX file to compare with, in turns.
        images: A picture, or a folder of them: how long they take before a bundle's network has them.
        keeping: Where the result goes; None: a bundle's into the bundle.

    Raises:
        ArtifactError: The path is neither, a file of a bundle is missing or altered, or a model cannot be run.
        GateError: A bundle does not compute here what it must.
        DataError: A picture cannot be used.
        ConfigError: There are pictures, or an `out`, and no bundle. The profile cannot keep the result, or is about
            another device.
        OutputError: The bundle, or `out`, cannot be written.

    Side effects: A bundle's `measured.json`, or `out`, is replaced. Adds to the profile's file, if it may.
    """
    log, keeping = EventLog(None, listeners), keeping or Keeping()
    manifest, model = _about(path, keeping.out)
    saving = keeping.saving
    save = None if saving is None else _saver(path, saving.profile, machine.environment(threads))
    if path.is_dir():
        check_can_keep(path, keeping.out)
        verify_bundle(path)
    pictures = _pictures(path, images)
    for file in [*([] if path.is_dir() else [model]), *([] if ruler is None else [ruler])]:
        external_files(file)  # for what it refuses: a runtime would follow a name to wherever it leads
    log.emit("measurement", stage=f"{protocol} measurement", done=0, total=1)
    result = measure_onnx(
        model,
        threads=threads,
        protocol=timing.PROTOCOLS[protocol],
        ruler=ruler,
        int8=None if manifest is None else _int8_of(manifest, path),
    )
    result["energy"], why_no_energy = measure_energy(model, threads=threads)
    with failing_as_ours(path):
        of_pictures = None if pictures is None else time_pictures(pictures, timing.PROTOCOLS[protocol])
    log.emit("measurement", stage=f"{protocol} measurement", done=1, total=1)
    if path.is_dir():
        record_measurement(path, MeasuredBundle.model_validate({**result, "pictures": of_pictures}), keeping.out)
    # The power a profile states is that of its device, which need not be this machine: nothing is estimated.
    found = _Found(_device_here(manifest), result, of_pictures, why_no_energy)
    return _measured(manifest, found, None, None if save is None else save(result), keeping.out)


def measure_on(
    path: Path,
    access: Access,
    threads: int,
    protocol: str,
    listeners: tuple[Listener, ...] = (),
    *,
    images: Path | None = None,
    keeping: Keeping | None = None,
) -> MeasuredModel:
    """Return the latency, load time and memory of a model on another machine.

    A bundle is checked there first, and then holds what was measured.

    Args:
        path: A bundle, or an ONNX file; the files that it has weights in are sent with it.
        access: The machine.
        threads: Threads of the runtime.
        protocol: `quick` or `full`.
        listeners: Called with one event before and one after.
        images: As of `measure`; those that are timed are sent.
        keeping: As of `measure`.

    Raises:
        ArtifactError: The path is neither, or a file of the bundle is missing or altered.
        GateError: A bundle does not compute there what it must.
        DataError: A picture cannot be used, here or there.
        DeviceError: The machine cannot be reached, or the work there failed.
        ConfigError: There are pictures, or an `out`, and no bundle. The profile cannot keep the result, or is about
            another device.
        OutputError: The bundle, or `out`, cannot be written.

    Side effects: A bundle's `measured.json`, or `out`, is replaced. Adds to the profile's file, if it may.
    """
    log, keeping = EventLog(None, listeners), keeping or Keeping()
    manifest, model = _about(path, keeping.out)
    pictures = _pictures(path, images)
    save = None if keeping.saving is None else _saver(path, keeping.saving.profile)
    log.emit("measurement", stage=f"{protocol} measurement", done=0, total=1)
    int8: TimedInt8 | None = None
    device: DeviceHere | None = None
    of_pictures: PictureTimes | None = None
    if path.is_dir():
        check_can_keep(path, keeping.out)
        report = measure_bundle_there(access, path, threads=threads, protocol=protocol, pictures=pictures)
        raise_if_failed(report, f"{path} on {access.target}")
        device = report["device"]
        latency: TimedModel = {**report["latency"], "environment": report["environment"]}
        if "int8_latency" in report:
            int8 = {**report["int8_latency"], "environment": report["environment"]}
        of_pictures = report.get("pictures")
        energy, why_no_energy = report["energy"], report["why_no_energy"]
        document = {**latency, "energy": energy, "int8": int8, "pictures": of_pictures}
        record_measurement(path, MeasuredBundle.model_validate_json(json.dumps(document)), keeping.out)
    else:
        latency, energy, why_no_energy = measure_model_there(access, model, threads=threads, protocol=protocol)
    log.emit("measurement", stage=f"{protocol} measurement", done=1, total=1)
    saved_to = None if save is None else save(latency)
    estimated = None if manifest is None or energy is not None else _energy_estimated(manifest, latency)
    measured: ModelLatency = {**latency, "ruler": None, "energy": energy, "int8": int8}
    found = _Found(device, measured, of_pictures, why_no_energy)
    return _measured(manifest, found, estimated, saved_to, keeping.out)


class _Found(NamedTuple):
    """What a machine was found to be, and to take."""

    device: DeviceHere | None
    latency: ModelLatency
    pictures: PictureTimes | None
    why_no_energy: str | None


def _measured(
    manifest: Manifest | None,
    found: _Found,
    estimated: EstimatedEnergy | None,
    saved_to: Path | None,
    out: Path | None,
) -> MeasuredModel:
    return MeasuredModel(
        arch_id=None if manifest is None else manifest.arch_id,
        profile=None if manifest is None else manifest.profile.name,
        precision=None if manifest is None else _precision_of(manifest),
        device=found.device,
        **found.latency,
        pictures=found.pictures,
        why_no_energy=found.why_no_energy,
        energy_estimated=estimated,
        is_recorded=manifest is not None and out is None,
        out=out,
        saved_to=saved_to,
    )


def _precision_of(manifest: Manifest) -> Precision | None:
    """Return the number format that predictions of a bundle's profile are of."""
    return next((each.precision for each in manifest.models.values() if each.latency.predicted is not None), None)


def _pictures(path: Path, images: Path | None) -> Pictures | None:
    """Return the pictures that are timed with a bundle, found good; None where none are named."""
    if images is None:
        return None
    if not path.is_dir():
        raise ConfigError(f"{path}: a model does not say how pictures are prepared; give a bundle, or no --images")
    with failing_as_ours(path):
        return pictures_for(path, [images])


def _device_here(manifest: Manifest | None) -> DeviceHere | None:
    """Return whether this machine may be the device of a bundle; None of a model that is in none."""
    return None if manifest is None else device_here(manifest.instruction_set)


def _energy_estimated(manifest: Manifest, latency: TimedModel) -> EstimatedEnergy | None:
    """Return power x latency, if a bundle's profile is still known and states a power."""
    if manifest.profile.name not in resources.known_names("profiles"):
        return None
    energy = load_profile(manifest.profile.name).energy
    if energy is None:
        return None
    return EstimatedEnergy(energy.active_power_w * latency["statistics"]["p50_ms"], energy.active_power_w)


@dataclasses.dataclass(frozen=True)
class _Saver:
    """What adds a result to the profile of a bundle."""

    manifest: Manifest
    path: Path
    is_named: bool

    def __call__(self, latency: TimedModel) -> Path:
        """Keep a latency, if it was measured on the device that the profile is about. Returns the profile's file."""
        check_device(load_profile(self.path), latency["environment"], is_named=self.is_named)
        return save_measurement(self.path, measurement_of(self.manifest, latency))


def _saver(path: Path, profile: Path | None, environment: Environment | None = None) -> _Saver:
    """Return what adds a result to the profile of a bundle; found before anything is timed.

    Args:
        path: The bundle.
        profile: The file of its profile, if the user names it.
        environment: Of the machine that will be timed, where it is known by now.
    """
    if not path.is_dir():
        raise ConfigError(f"{path}: a model belongs to no profile; give a bundle, or leave out --save-to-profile")
    manifest = load_manifest(path)
    if environment is not None and (profile is not None or manifest.profile.name in resources.known_names("profiles")):
        check_device(load_profile(profile or manifest.profile.name), environment, is_named=profile is not None)
    return _Saver(manifest, profile_to_save_to(manifest, profile), is_named=profile is not None)


def _int8_of(manifest: Manifest, bundle: Path) -> Path | None:
    """Return the int8 file of a bundle, where it has one."""
    return bundle / bundle_files.INT8_MODEL if bundle_files.INT8_VARIANT in manifest.models else None


def _about(path: Path, out: Path | None) -> tuple[Manifest | None, Path]:
    """Return the manifest of a bundle, and the file of what is timed."""
    if path.is_dir():
        return load_manifest(path), path / bundle_files.MODEL
    if out is not None:
        raise ConfigError(f"{path}: --out keeps what is measured of a bundle; of a model --json prints it")
    if path.suffix != ".onnx":
        raise ArtifactError(f"{path}: expected a bundle's folder or an .onnx file")
    return None, path
