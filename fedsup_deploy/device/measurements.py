"""Latencies measured on a device, kept in its profile beside what the profile predicted.

They change no prediction: `fedsup-deploy profile fit` learns from them when it is told to.
"""

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from fedsup_deploy import files, resources
from fedsup_deploy.artifact import runner
from fedsup_deploy.artifact.manifest import Manifest
from fedsup_deploy.config.load import load_yaml, validate
from fedsup_deploy.device.building.assemble import device_facts
from fedsup_deploy.device.profile import DeviceProfile, Measurement, load_profile
from fedsup_deploy.errors import ConfigError

_KEY = "measurements"


def measurement_of(manifest: Manifest, latency: Mapping[str, Any]) -> Measurement:
    """Return what a profile keeps of a measured bundle.

    Args:
        manifest: Of the bundle.
        latency: What `measure` found, with its `environment`.
    """
    return Measurement(
        arch_id=manifest.arch_id,
        predicted_ms=manifest.latency_predicted.value_ms,
        measured_ms=latency["statistics"]["p10_ms"],
        verdict=latency["stability"]["verdict"],
        protocol=f"{latency['protocol']['name']}, {latency['statistics']['num_runs']} runs",
        date=datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat(),
        environment=latency["environment"],
    )


def is_of_this_machine(profile: DeviceProfile) -> bool:
    """Return whether a profile was measured, and on a machine like this one: what its fp32 networks take shows here."""
    if "measured" not in profile.provenance_kinds:
        return False
    runtime = (profile.runtime.name, profile.runtime.dtype)
    here = device_facts(runner.environment(profile.runtime.threads))
    return runtime == ("onnxruntime", "float32") and profile.device == here


def limit_check(limit_ms: float, latency: Mapping[str, Any]) -> dict[str, Any]:
    """Return whether a latency that was measured on the device keeps a limit, as `artifact.measured` has it.

    Args:
        limit_ms: The most it may be.
        latency: What `measure` found.
    """
    measured_ms, stability = float(latency["statistics"]["p10_ms"]), latency["stability"]
    noise = max(stability["disagreement"], stability.get("drift") or 0.0)
    if measured_ms <= limit_ms:
        verdict = "met"
    elif stability["verdict"] == "stable" and measured_ms > limit_ms * (1 + noise):
        verdict = "not met"
    else:
        verdict = "undecided"
    return {"limit_ms": limit_ms, "measured_ms": measured_ms, "verdict": verdict}


def profile_to_save_to(manifest: Manifest) -> Path:
    """Return the file of the profile that a bundle was exported for, if it still predicts what it predicted then.

    Raises:
        ConfigError: There is no such profile any more, another one of that name, or one about another runtime; or the
            bundle holds a trimmed network.
    """
    name = manifest.profile.name
    path = resources.find("profiles", name)
    profile = load_profile(path)
    if manifest.refinement is not None:
        raise ConfigError(
            f"{manifest.arch_id} is trimmed, no subnet of a search space that a profile could learn from; "
            "measure it without --save-to-profile"
        )
    if profile.profile_hash != manifest.profile.hash:
        raise ConfigError(
            f"{path}: got another profile than the one the bundle was exported for, expected the same figures and "
            "limits; export the bundle again, or measure without --save-to-profile"
        )
    if (profile.runtime.name, profile.runtime.dtype) != ("onnxruntime", "float32"):
        about = f"{profile.runtime.dtype} in {profile.runtime.name}"
        raise ConfigError(f"{path}: got a profile about {about}, of which fp32 in onnxruntime tells nothing")
    return path


def save_measurement(path: Path, measurement: Measurement) -> Path:
    """Add a measurement to a profile's file, and leave every line that is there as it is.

    A profile inside the installed package is copied to `profiles/` in the current folder first, which is where a name
    is looked for before the package.

    Returns:
        The file that holds it now.

    Raises:
        ConfigError: The file does not end with its measurements, so that nothing can be added at its end.
        OutputError: It cannot be written.

    Side effects: Writes the file.
    """
    out = Path("profiles") / path.name if resources.is_installed(path) else path
    with files.atomic_file(out) as partial:
        # From here on nobody else adds one, and another command may have copied the profile meanwhile.
        path = out if out.is_file() else path
        profile = load_profile(path)
        expected = profile.model_copy(update={_KEY: (*profile.measurements, measurement)})
        text = path.read_text(encoding="utf-8").rstrip("\n") + "\n"
        if not profile.measurements:
            text = text.removesuffix(f"{_KEY}: []\n") + f"{_KEY}:\n"
        text += yaml.safe_dump([measurement.model_dump(mode="json")], sort_keys=False, allow_unicode=True, width=120)
        partial.write_text(text, encoding="utf-8")
        if _reread(partial) != expected:
            raise ConfigError(f"{path}: expected {_KEY} to be its last key; move them to the end of the file")
    return out


def _reread(path: Path) -> DeviceProfile | None:
    try:
        return validate(load_yaml(path), DeviceProfile)
    except ConfigError:
        return None
