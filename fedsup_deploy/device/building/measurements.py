"""Latencies measured on a device, kept in its profile beside what the profile predicted.

They change no prediction: `fedsup-deploy profile fit` learns from them when it is told to.
"""

import datetime
import re
from pathlib import Path
from typing import Literal, cast

import yaml

from fedsup_deploy import files, resources
from fedsup_deploy.artifact.document import JsonObject
from fedsup_deploy.artifact.manifest import Manifest
from fedsup_deploy.artifact.measured import LimitCheck
from fedsup_deploy.config.load import load_yaml, validate
from fedsup_deploy.device.building.assemble import device_facts
from fedsup_deploy.device.profile import DeviceProfile, Measurement, load_profile
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.ondevice import machine
from fedsup_deploy.ondevice.instruction_set import may_be_device
from fedsup_deploy.ondevice.records import Environment, Percentile, Session, TimedModel
from fedsup_deploy.variant import MAIN

_KEY = "measurements"
# Words for processors of one instruction set, for profiles that do not name it.
_ARM = re.compile(r"cortex|neoverse|kryo|\barm", re.IGNORECASE)
_X86 = re.compile(r"intel|\bamd\b|x86|xeon|ryzen", re.IGNORECASE)


def measurement_of(manifest: Manifest, latency: TimedModel) -> Measurement:
    """Return what a profile keeps of a measured bundle.

    Args:
        manifest: Of the bundle.
        latency: What `measure` found, with its `environment`.

    Raises:
        ConfigError: The profile's latency model is of another precision than what is measured.
    """
    predicted = manifest.main.latency.predicted
    if predicted is None:
        raise ConfigError(f"bundle {manifest.arch_id}: its profile predicts no latency of {MAIN.name}, expected one")
    return Measurement(
        arch_id=manifest.arch_id,
        predicted_ms=predicted.value_ms,
        measured_ms=latency["statistics"]["p10_ms"],
        p50_ms=latency["statistics"]["p50_ms"],
        p90_ms=latency["statistics"]["p90_ms"],
        verdict=latency["stability"]["verdict"],
        protocol=f"{latency['protocol']['name']}, {latency['statistics']['num_runs']} runs",
        date=datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat(),
        environment=cast("JsonObject", latency["environment"]),
    )


def is_of_this_machine(profile: DeviceProfile) -> bool:
    """Return whether a profile was measured, and on a machine like this one: what networks take there shows here."""
    if "measured" not in profile.provenance_kinds:
        return False
    is_timed_here = profile.runtime.name == "onnxruntime" and profile.runtime.dtype in {"float32", "int8"}
    return is_timed_here and profile.device == device_facts(machine.environment(profile.runtime.threads))


def limit_check(limit_ms: float, percentile: Percentile, latency: Session) -> LimitCheck:
    """Return whether a latency that was measured keeps a limit.

    Args:
        limit_ms: The most it may be.
        percentile: Of which percentile of latency.
        latency: What `measure` found.
    """
    found = latency["statistics"]
    measured_ms = {"p10": found["p10_ms"], "p50": found["p50_ms"], "p90": found["p90_ms"]}[percentile]
    verdict: Literal["met", "not met", "undecided"] = "undecided"
    if measured_ms <= limit_ms:
        verdict = "met"
    elif latency["stability"]["verdict"] == "stable" and measured_ms > limit_ms * (1 + latency["noise"][percentile]):
        verdict = "not met"
    return LimitCheck(limit_ms=limit_ms, percentile=percentile, measured_ms=measured_ms, verdict=verdict)


def profile_to_save_to(manifest: Manifest, named: Path | None) -> Path:
    """Return the file of the profile that a bundle was exported for, if it still predicts what it predicted then.

    It is a file of the user's own: a shipped profile is never changed.

    Args:
        manifest: Of the bundle.
        named: The file, if the user names it; None is `profiles/NAME.yaml` in the current folder.

    Raises:
        ConfigError: There is no such file, it is a shipped one or about another runtime, or holds another profile; or
            the bundle holds a trimmed network.
    """
    name = manifest.profile.name
    path = Path("profiles") / f"{name}.yaml" if named is None else named
    if not path.is_file():
        raise ConfigError(f"{path}: no such file to keep the measurement in; {_own_copy(name)}")
    profile = load_profile(path)
    if manifest.refinement is not None:
        raise ConfigError(
            f"{manifest.arch_id} is trimmed, no subnet of a search space that a profile could learn from; "
            "measure it without --save-to-profile"
        )
    if is_shipped(path, profile):
        raise ConfigError(f"{path}: is a shipped profile, which is never changed; {_own_copy(name)}")
    if profile.profile_hash != manifest.profile.hash:
        raise ConfigError(
            f"{path}: got another profile than the one the bundle was exported for, expected the same figures and "
            "limits; export the bundle again, or measure without --save-to-profile"
        )
    if (profile.runtime.name, profile.runtime.dtype) != ("onnxruntime", "float32"):
        about = f"{profile.runtime.dtype} in {profile.runtime.name}"
        raise ConfigError(f"{path}: got a profile about {about}, of which fp32 in onnxruntime tells nothing")
    return path


def check_device(profile: DeviceProfile, environment: Environment, *, is_named: bool) -> None:
    """Fail unless a machine is the device that a profile is about, as far as that can be told.

    A profile measured on a device says what that device told of itself, and another is refused. One from published
    figures names its processor in words that no system tells: only the instruction set and the number of cores can be
    compared, and whoever names the file answers for the rest.

    Args:
        profile: The profile.
        environment: Of the machine, as a measurement has it.
        is_named: Whether the user named the profile's file.

    Raises:
        ConfigError: It is another one, or nobody can tell and the file was not named.
    """
    device, is_measured = profile.device, "measured" in profile.provenance_kinds
    if is_measured:
        told = (environment["device"] or environment["cpu"], environment["cpu"])
        can_be = (device.soc, device.cpu) == told
    elif profile.system.arch is not None:
        can_be = may_be_device(profile.system.arch, environment["machine"])
    else:
        is_arm = environment["machine"].lower().startswith(("arm", "aarch64"))
        can_be = not (_X86 if is_arm else _ARM).search(f"{device.soc} {device.cpu}")
    can_be = can_be and device.cores == environment["cores"]
    if can_be and (is_measured or is_named):
        return
    advice = "measure on that device with --on, or without --save-to-profile"
    if can_be:
        advice = f"if it is that device, {_own_copy(profile.name)}"
    raise ConfigError(
        f"profile {profile.name}: got a measurement on {environment['cpu']}, {environment['cores']} cores, expected "
        f"one on {device.cpu}, {device.cores} cores ({device.soc}); {advice}"
    )


def is_shipped(path: Path, profile: DeviceProfile) -> bool:
    """Return whether a profile's file is one of the project.

    In a checkout the user's own lie beside them: those were measured, and no shipped one was.
    """
    is_beside = path.resolve().parent == resources.shipped_folder("profiles").resolve()
    return resources.is_installed(path) or (is_beside and "measured" not in profile.provenance_kinds)


def save_measurement(path: Path, measurement: Measurement) -> Path:
    """Add a measurement to a profile's file, and leave every line that is there as it is.

    Returns:
        The file.

    Raises:
        ConfigError: The file does not end with its measurements, so that nothing can be added at its end.
        OutputError: It cannot be written.

    Side effects: Writes the file.
    """
    with files.atomic_file(path) as partial:
        # From here on nobody else adds one.
        profile = load_profile(path)
        expected = profile.model_copy(update={_KEY: (*profile.measurements, measurement)})
        text = path.read_text(encoding="utf-8").rstrip("\n") + "\n"
        if not profile.measurements:
            text = text.removesuffix(f"{_KEY}: []\n") + f"{_KEY}:\n"
        text += yaml.safe_dump([measurement.model_dump(mode="json")], sort_keys=False, allow_unicode=True, width=120)
        partial.write_text(text, encoding="utf-8")
        if _reread(partial) != expected:
            raise ConfigError(f"{path}: expected {_KEY} to be its last key; move them to the end of the file")
    return path


def _own_copy(name: str) -> str:
    """Return how to name a file of one's own."""
    if name not in resources.shipped_names("profiles"):
        return "name the profile's file: --save-to-profile --profile FILE"
    shipped = resources.shipped_folder("profiles") / f"{name}.yaml"
    return f"copy {shipped} to a folder of yours and name it: --save-to-profile --profile FILE"


def _reread(path: Path) -> DeviceProfile | None:
    try:
        return validate(load_yaml(path), DeviceProfile)
    except ConfigError:
        return None
