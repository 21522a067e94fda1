"""`fedsup-deploy measure`: time a bundle or an ONNX model. Torch-free."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedsup_deploy import places, resources
from fedsup_deploy.artifact.manifest import Manifest
from fedsup_deploy.artifact.measured import MeasuredLatency
from fedsup_deploy.artifact.store import load_manifest, raise_if_failed, record_measurement, verify_bundle
from fedsup_deploy.device.building.measurements import (
    check_device,
    measurement_of,
    profile_to_save_to,
    save_measurement,
)
from fedsup_deploy.device.energy import open_meter
from fedsup_deploy.device.measure import measure_onnx
from fedsup_deploy.device.profile import load_profile
from fedsup_deploy.device.remote.measure import measure_bundle_there, measure_model_there
from fedsup_deploy.device.remote.ssh import Access
from fedsup_deploy.errors import ArtifactError, ConfigError
from fedsup_deploy.events import EventLog, Listener
from fedsup_deploy.ondevice import bundle_files, machine, timing


def measure(
    path: Path,
    threads: int,
    protocol: str,
    listeners: tuple[Listener, ...] = (),
    *,
    ruler: Path | None = None,
    can_save: bool = False,
    profile: Path | None = None,
) -> dict[str, Any]:
    """Return the latency, load time, memory and, where there is a sensor, energy of a model on this machine.

    A bundle is checked first, and then holds what was measured.

    Args:
        path: A bundle, or an ONNX file.
        threads: Threads of the runtime.
        protocol: `quick` or `full`.
        listeners: Called with one event before and one after.
        ruler: An ONNX file to compare with, in turns.
        can_save: Whether the profile that a bundle was exported for keeps the result.
        profile: The file of that profile; None is `profiles/NAME.yaml` in the current folder.

    Returns:
        What `device.measure.measure_onnx` returns, for a bundle its `arch_id` and `profile`; `is_recorded`: whether a
        bundle holds it now; and `saved_to`: the profile's file, or None.

    Raises:
        ArtifactError: The path is neither, a file of a bundle is missing or altered, or a model cannot be run.
        GateError: A bundle does not compute here what it must.
        ConfigError: The profile cannot keep the result, or is about another device.
        OutputError: The bundle cannot be written.

    Side effects: A bundle's `measured.json` is replaced. Adds to the profile's file, if it may.
    """
    log = EventLog(None, listeners)
    about, model = _about(path)
    save = _saver(path, profile, machine.environment(threads)) if can_save else None
    if path.is_dir():
        _check_can_keep(path)
        verify_bundle(path)
    log.emit("measurement", done=0, total=1, name=protocol)
    result = measure_onnx(model, threads=threads, protocol=timing.PROTOCOLS[protocol], ruler=ruler, meter=open_meter())
    log.emit("measurement", done=1, total=1, name=protocol)
    if path.is_dir():
        record_measurement(path, MeasuredLatency.model_validate(result))
    return {
        **about,
        **result,
        # The power a profile states is that of its device, which need not be this machine.
        "energy_estimated": None,
        "is_recorded": path.is_dir(),
        "saved_to": None if save is None else save(result),
    }


def measure_on(
    path: Path,
    access: Access,
    threads: int,
    protocol: str,
    listeners: tuple[Listener, ...] = (),
    *,
    can_save: bool = False,
    profile: Path | None = None,
) -> dict[str, Any]:
    """Return the latency, load time and memory of a model on another machine.

    A bundle is checked there first, and then holds what was measured.

    Args:
        path: A bundle, or an ONNX file.
        access: The machine.
        threads: Threads of the runtime.
        protocol: `quick` or `full`.
        listeners: Called with one event before and one after.
        can_save: Whether the profile that a bundle was exported for keeps the result.
        profile: The file of that profile; None is `profiles/NAME.yaml` in the current folder.

    Returns:
        As `measure`, without `ruler` and `energy` (None), with `energy_estimated` where the bundle's profile states a
        power (`energy_mj`, `active_power_w`; else None), and `is_recorded`: whether a bundle holds it now.

    Raises:
        ArtifactError: The path is neither, or a file of the bundle is missing or altered.
        GateError: A bundle does not compute there what it must.
        DeviceError: The machine cannot be reached, or the work there failed.
        ConfigError: The profile cannot keep the result, or is about another device.
        OutputError: The bundle cannot be written.

    Side effects: A bundle's `measured.json` is replaced. Adds to the profile's file, if it may.
    """
    log = EventLog(None, listeners)
    about, model = _about(path)
    save = _saver(path, profile) if can_save else None
    log.emit("measurement", done=0, total=1, name=protocol)
    if path.is_dir():
        _check_can_keep(path)
        report = measure_bundle_there(access, path, threads=threads, protocol=protocol)
        raise_if_failed(report, f"{path} on {access.target}")
        latency = {**report["latency"], "environment": report["environment"]}
        record_measurement(path, MeasuredLatency.model_validate_json(json.dumps(latency)))
    else:
        latency = measure_model_there(access, model, threads=threads, protocol=protocol)
    log.emit("measurement", done=1, total=1, name=protocol)
    saved_to = None if save is None else save(latency)
    return {
        **about,
        **latency,
        "ruler": None,
        "energy": None,
        "energy_estimated": _energy_estimated(about, latency),
        "is_recorded": path.is_dir(),
        "saved_to": saved_to,
    }


def _check_can_keep(bundle: Path) -> None:
    """Fail before anything is timed, if the bundle cannot keep the result."""
    with places.hold(bundle / bundle_files.MEASURED):
        pass


def _energy_estimated(about: Mapping[str, Any], latency: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return power x latency, if a bundle's profile is still known and states a power."""
    if about.get("profile") not in resources.known_names("profiles"):
        return None
    energy = load_profile(about["profile"]).energy
    if energy is None:
        return None
    mj = energy.active_power_w * latency["statistics"]["p50_ms"]
    return {"energy_mj": mj, "active_power_w": energy.active_power_w}


@dataclasses.dataclass(frozen=True)
class _Saver:
    """What adds a result to the profile of a bundle."""

    manifest: Manifest
    path: Path
    is_named: bool

    def __call__(self, latency: Mapping[str, Any]) -> str:
        """Keep a latency, if it was measured on the device that the profile is about. Returns the profile's file."""
        check_device(load_profile(self.path), latency["environment"], is_named=self.is_named)
        return str(save_measurement(self.path, measurement_of(self.manifest, latency)))


def _saver(path: Path, profile: Path | None, environment: Mapping[str, Any] | None = None) -> _Saver:
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


def _about(path: Path) -> tuple[dict[str, Any], Path]:
    """Return what a result says about what was timed, and the model's file."""
    if path.is_dir():
        manifest = load_manifest(path)
        return {"arch_id": manifest.arch_id, "profile": manifest.profile.name}, path / bundle_files.MODEL
    if path.suffix != ".onnx":
        raise ArtifactError(f"{path}: expected a bundle's folder or an .onnx file")
    return {}, path
