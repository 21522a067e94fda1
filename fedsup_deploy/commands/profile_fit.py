"""`fedsup-deploy profile fit`: the profile of a device from a donor's and a few measurements. Torch-free."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

import numpy as np

from fedsup_deploy import files, places
from fedsup_deploy.artifact.store import load_manifest, load_measurement
from fedsup_deploy.commands.profile_build import PROFILES, SPACE, WrittenProfile, check_place, load_space, progress_into
from fedsup_deploy.config.load import dump
from fedsup_deploy.device.building.assemble import device_facts, networks_protocol, percentiles_protocol, provenance
from fedsup_deploy.device.building.baseline import LeftOut, reasons
from fedsup_deploy.device.building.fit import MAX_NETWORKS, Device, Timed, fit_donor
from fedsup_deploy.device.building.plan import plan_timing
from fedsup_deploy.device.building.times import times_of
from fedsup_deploy.device.building.workplace import Workplace
from fedsup_deploy.device.percentiles import HIGHER
from fedsup_deploy.device.predictor import predictor_for
from fedsup_deploy.device.profile import Calibration, DeviceProfile, Runtime, load_profile
from fedsup_deploy.device.summary import summary_of
from fedsup_deploy.errors import ArtifactError, ConfigError
from fedsup_deploy.events import EventLog, Listener
from fedsup_deploy.ondevice.reading import MOST_BYTES_OF_JSON, parse_json, read_bytes
from fedsup_deploy.space.architecture import Architecture
from fedsup_deploy.space.cost import costs_of
from fedsup_deploy.space.search_space import SearchSpace

_SAME: Final = ("cpu", "onnxruntime", "threads")


@dataclasses.dataclass(frozen=True)
class FitRequest:
    """What a user wants to adapt.

    Args:
        donor: Name or file of the profile whose latency model is taken.
        name: Of the new profile.
        space: Name or file of a search space, or the folder of a run; whose networks were or will be timed.
        measurements: Bundles with a measured latency, or documents that `measure --json` printed.
        is_here: Whether to time networks on this machine instead.
        is_saved: Whether to learn from the measurements that the donor's file keeps instead.
        memory_mib: Memory of the device; None is that of this machine.
        networks: How many to time here.
        threads: Threads of the runtime here.
        minutes: Time for the measurement here; half of one is a hundred visits of each of a dozen networks.
        out: Where the profile goes; None is `profiles/NAME.yaml`.
        seed: Decides which networks are timed.
    """

    donor: str
    name: str
    space: str = SPACE
    measurements: Sequence[Path] = ()
    is_here: bool = False
    is_saved: bool = False
    memory_mib: int | None = None
    networks: int = MAX_NETWORKS
    threads: int = 1
    minutes: float = 0.5
    out: Path | None = None
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class _TimedNetworks:
    """Timed networks, where and how: by their 10th percentile, and higher ones; and by how much rounds differ."""

    networks: Sequence[Architecture]
    timed: Timed
    environment: Mapping[str, Any]
    protocol: str
    higher_protocol: str
    disagreement: float | None


@dataclasses.dataclass(frozen=True)
class _One:
    """A network that was timed by itself.

    Args:
        place: Where that stands, for messages.
        network: The network.
        statistics: Percentiles of its latency: `p10_ms` and, in newer files, `p50_ms` and `p90_ms`.
        environment: Of the device.
    """

    place: str
    network: Architecture
    statistics: Mapping[str, float | None]
    environment: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class FittedProfile(WrittenProfile):
    """The profile of a device, adapted from another's.

    Args:
        donor: Name of the other.
        calibration: From the one to the other; None where a straight line through the MACs predicts better.
        num_networks: That it was fitted to.
    """

    donor: str
    calibration: Calibration | None
    num_networks: int


def fit(request: FitRequest, listeners: Sequence[Listener] = ()) -> FittedProfile:
    """Adapt a profile to another device, and write it.

    Raises:
        ConfigError: There is no such donor or space, measurements are too few or of different devices, or it is not
            said, once, where they come from.
        ArtifactError: A measurement cannot be read.
        GateError: The machine was too restless.
        OutputError: The profile cannot be written, or another process is at work on it.

    Side effects: Writes the profile; times networks, if no measurements are given.
    """
    out = request.out or PROFILES / f"{request.name}.yaml"
    check_place(out, request.name)
    donor, space = load_profile(request.donor), load_space(request.space)
    if donor.latency.dtype != "float32":
        raise ConfigError(
            f"donor {donor.name}: its costs are for {donor.latency.dtype}, networks are timed in float32; take another"
        )
    if [bool(request.measurements), request.is_here, request.is_saved].count(True) != 1:
        raise ConfigError("fit: expected measurements of one kind: those in files, those saved, or new ones taken here")
    with places.hold(out, advice=places.CHOOSE_OUT):
        if request.is_here:
            found = _time_here(request, out, donor, space, listeners)
        else:
            found = _saved(donor, space) if request.is_saved else _read_all(request.measurements, space)
        device, costs = _device(request, donor, found), costs_of(space, found.networks)
        profile, error = fit_donor(donor, device, costs, found.timed)
        files.write_text(out, dump(profile))
    why = reasons(
        found.timed.p10_ms_N, len(found.networks), found.environment.get("load_average_1m"), found.disagreement
    )
    left_out = None if error is None else LeftOut(error, why)
    return FittedProfile(out, summary_of(profile), left_out, donor.name, profile.calibration, len(found.networks))


def _device(request: FitRequest, donor: DeviceProfile, found: _TimedNetworks) -> Device:
    facts = donor.device if request.is_saved else device_facts(found.environment)
    facts = facts if request.memory_mib is None else facts.model_copy(update={"memory_mib": request.memory_mib})
    runtime = Runtime(
        name="onnxruntime",
        version=found.environment["onnxruntime"],
        provider=found.environment["provider"],
        threads=found.environment["threads"],
        dtype="float32",
        power_mode=found.environment.get("power_mode") or found.environment["governor"],
    )
    protocol = f"{found.protocol}; latency model of {donor.name}"
    return Device(
        request.name,
        facts,
        runtime,
        provenance(protocol, found.environment),
        provenance(found.higher_protocol, found.environment),
        None if request.is_saved else found.environment,
    )


def _time_here(
    request: FitRequest, out: Path, donor: DeviceProfile, space: SearchSpace, listeners: Sequence[Listener]
) -> _TimedNetworks:
    """Time networks on this machine, in a folder beside the profile that is removed at the end."""
    plan = plan_timing(space, request.networks, request.seed)
    # Now, not after the measurement: the donor must know these networks.
    predictor_for(donor).predict(costs_of(space, plan.heldout).layers)
    progress = progress_into(EventLog(None, tuple(listeners)))
    with files.scratch_folder(out) as folder:
        workplace = Workplace(folder, plan, request.threads, "fp32")
        workplace.begin(progress)
        workplace.time_models(request.minutes, progress)
        times = times_of(workplace.events, plan.heldout_models, "give it more --minutes")
    return _TimedNetworks(
        plan.heldout,
        Timed(
            times.of(plan.heldout_models) / 1e3,
            {name: us_N / 1e3 for name, us_N in times.higher_of(plan.heldout_models).items()},
        ),
        times.environment,
        networks_protocol(times, len(plan.heldout)),
        percentiles_protocol(times, plan.heldout_models),
        times.median_disagreement(plan.heldout_models),
    )


def _read_all(paths: Sequence[Path], space: SearchSpace) -> _TimedNetworks:
    """Return the measurements in files."""
    return _together([_read(path, space) for path in paths])


def _saved(donor: DeviceProfile, space: SearchSpace) -> _TimedNetworks:
    """Return the measurements that a profile keeps, the last one of each network."""
    last = {one.arch_id: one for one in donor.measurements if one.verdict == "stable"}
    if not last:
        kept = f"{len(donor.measurements)} measurements, none of them stable"
        raise ConfigError(f"profile {donor.name}: got {kept}; add some: fedsup-deploy measure BUNDLE --save-to-profile")
    return _together(
        [
            _One(
                f"profile {donor.name}: {arch_id}",
                space.resolve(arch_id),
                {"p10_ms": one.measured_ms, "p50_ms": one.p50_ms, "p90_ms": one.p90_ms},
                one.environment,
            )
            for arch_id, one in last.items()
        ]
    )


def _together(measurements: Sequence[_One]) -> _TimedNetworks:
    """Return measurements that are of one device.

    Raises:
        ConfigError: A network was timed twice, or they are of different devices.
    """
    first = measurements[0]
    for one in measurements:
        for key in _SAME:
            if one.environment[key] != first.environment[key]:
                found = f"{key} {one.environment[key]}, expected {first.environment[key]} as in {first.place}"
                raise ConfigError(f"{one.place}: got {found}; measurements must be of one device under one setting")
    networks = [one.network for one in measurements]
    if len(set(networks)) < len(networks):
        raise ConfigError("got several measurements of one network, expected one of each; leave out the others")
    how = f"{len(networks)} networks with `fedsup-deploy measure`"
    known = {name: [one.statistics.get(f"{name}_ms") for one in measurements] for name in ("p10", *HIGHER)}
    of_each = {name: np.array(values, np.float64) for name, values in known.items() if None not in values}
    higher = {name: of_each[name] for name in HIGHER if name in of_each}
    return _TimedNetworks(
        networks,
        Timed(of_each["p10"], higher if len(higher) == len(HIGHER) else None),
        first.environment,
        f"{how}, 10th percentile of all runs",
        f"{how}, percentiles of all runs",
        None,
    )


def _read(path: Path, space: SearchSpace) -> _One:
    """Return one measurement."""
    if path.is_dir():
        manifest = load_manifest(path)
        measured = load_measurement(path) or manifest.main.latency.measured
        if measured is None:
            raise ArtifactError(f"{path}: no measured latency; measure it first: fedsup-deploy measure {path}")
        network = Architecture.from_dict(manifest.arch)
        latency: Mapping[str, Any] = measured.model_dump(mode="json")
    else:
        latency, network = _read_document(path, space)
    if latency["stability"]["verdict"] != "stable":
        raise ConfigError(f"{path}: the measurement is unstable; measure again on a quiet device")
    if not space.contains(network):
        raise ConfigError(f"{path}: {network.arch_id} is not in space {space.name}; give its own with --space")
    return _One(str(path), network, latency["statistics"], latency["environment"])


def _read_document(path: Path, space: SearchSpace) -> tuple[Mapping[str, Any], Architecture]:
    try:
        document = cast("Mapping[str, Any]", parse_json(read_bytes(path, MOST_BYTES_OF_JSON)))
        for section, keys in (
            ("stability", ("verdict",)),
            ("statistics", ("p10_ms",)),
            ("environment", (*_SAME, "device", "governor", "provider", "cores")),
        ):
            for key in keys:
                _ = document[section][key]
        name = str(document["arch_id"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"{path}: got no measurement of a bundle: {error}; expected what fedsup-deploy measure --json BUNDLE prints"
        ) from error
    return document, space.resolve(name)
