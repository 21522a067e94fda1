"""From the times of a session to a profile: the latency model, its error, and where every figure comes from.

Shapes: N networks, H of them held out.
"""

import dataclasses
import datetime
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from fedsup_deploy import registry
from fedsup_deploy.device.acceptance import accepted_by, figures_of, system_of
from fedsup_deploy.device.building.baseline import ChosenModel, line_latency
from fedsup_deploy.device.building.calibrate import fit_operations, fit_table, rounded
from fedsup_deploy.device.building.plan import BuildPlan
from fedsup_deploy.device.building.times import Times
from fedsup_deploy.device.heldout import FloatArray, SummarizedError, held_out_error
from fedsup_deploy.device.latency import BYTES_PER_ELEMENT, LatencySection, PartTime, TableLatency
from fedsup_deploy.device.percentiles import Percentiles, percentiles_of
from fedsup_deploy.device.predictor import size_mib
from fedsup_deploy.device.profile import DeviceFacts, DeviceProfile, Measured, ProfileLimits, Runtime
from fedsup_deploy.ondevice import machine
from fedsup_deploy.space.architecture import Architecture
from fedsup_deploy.space.cost import Costs, costs_of
from fedsup_deploy.space.parts import name_of, parts_of
from fedsup_deploy.space.search_space import SearchSpace
from fedsup_deploy.variant import DTYPES, MAIN, Dtype, Precision

_DIGITS_OF_TIMES: Final = 4


@dataclasses.dataclass(frozen=True)
class About:
    """What a profile says that was not measured.

    Args:
        name: Of the profile.
        precision: Of the models that were timed.
        limits: Default limits of a search.
        memory_mib: Of the device; None: it is this machine.
    """

    name: str
    precision: Precision = "fp32"
    limits: Mapping[str, float] = dataclasses.field(default_factory=dict)
    memory_mib: int | None = None


def assemble(plan: BuildPlan, times: Times, about: About) -> ChosenModel:
    """Return the profile of the device that was timed, with the better of two latency models: see `baseline`.

    Args:
        plan: What was timed.
        times: What came of it.
        about: The rest.
    """
    dtype = DTYPES[about.precision]
    calibration = costs_of(plan.space, plan.calibration)
    latency: LatencySection
    if plan.parts:
        latency = _table(plan, times, calibration, dtype)
    else:
        latency = fit_operations(calibration.layers, times.of(plan.calibration_models), dtype)
    environment = times.environment
    heldout = costs_of(plan.space, plan.heldout)
    measured_ms_H = times.of(plan.heldout_models) / 1e3
    line = line_latency(calibration, times.of(plan.calibration_models), dtype)
    line_ms_H, predicted_ms_H = (_predicted(model, heldout) for model in (line, latency))
    error, left_out = held_out_error(predicted_ms_H, measured_ms_H, "held-out", line_ms_H), None
    if error.macs_only is not None and error.mape > error.macs_only.mape:
        left_out, latency, predicted_ms_H = error.summary(), line, line_ms_H
        error = held_out_error(line_ms_H, measured_ms_H, "held-out", line_ms_H)
    profile = DeviceProfile(
        schema=1,
        name=about.name,
        description=_description(plan, environment, left_out),
        device=device_facts(environment, about.memory_mib),
        runtime=Runtime(
            name="onnxruntime",
            version=environment["onnxruntime"],
            provider=environment["provider"],
            threads=environment["threads"],
            dtype=dtype,
            power_mode=environment.get("power_mode") or environment["governor"],
        ),
        accepts=accepted_by(environment),
        system=system_of(environment),
        limits=ProfileLimits.model_validate(about.limits),
        # What was timed. More can be written for this machine, but only its owner knows what it loads.
        formats=(MAIN.format,),
        precisions=(about.precision,),
        latency=latency,
        error=error,
        percentiles=timed_percentiles(
            times, (*plan.calibration_models, *plan.heldout_models), plan.heldout_models, predicted_ms_H
        ),
        provenance={
            **acceptance_provenance(environment),
            "latency": provenance(_protocol(plan, times), environment),
            "percentiles": provenance(percentiles_protocol(times, plan.heldout_models), environment),
        },
    )
    return ChosenModel(profile, left_out)


def timed_percentiles(
    times: Times, networks: Sequence[str], heldout: Sequence[str], predicted_ms_H: FloatArray
) -> Percentiles:
    """Return the percentiles of the latency of networks that were timed in turns.

    Args:
        times: What came of it.
        networks: All whole networks.
        heldout: Those of them that a profile's error is about.
        predicted_ms_H: What is predicted for these by a model that was not made from them.
    """
    in_ms = {name: us_N / 1e3 for name, us_N in times.higher_of(networks).items()}
    heldout_ms = {name: us_H / 1e3 for name, us_H in times.higher_of(heldout).items()}
    return percentiles_of(times.of(networks) / 1e3, in_ms, predicted_ms_H, heldout_ms)


def device_facts(environment: Mapping[str, Any], memory_mib: int | None = None) -> DeviceFacts:
    """Return what a machine is, as far as it says so.

    Args:
        environment: What it says.
        memory_mib: Of it; None: it is this machine.
    """
    return DeviceFacts(
        soc=environment["device"] or environment["cpu"],
        cpu=environment["cpu"],
        cores=environment["cores"],
        memory_mib=machine.memory_mib() if memory_mib is None else memory_mib,
    )


def provenance(protocol: str, environment: Mapping[str, Any]) -> Measured:
    """Return the provenance of what was measured today."""
    governor = f", governor {environment['governor']}" if environment["governor"] else ""
    runtime = f"onnxruntime {environment['onnxruntime']}, {_threads(environment)}"
    return Measured(
        kind="measured",
        protocol=protocol,
        date=datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat(),
        environment=f"{environment['cpu']}, {environment['cores']} cores{governor}, {runtime}",
    )


def acceptance_provenance(environment: Mapping[str, Any]) -> dict[str, Measured]:
    """Return the provenance of what a device that was timed accepts and has, by path."""
    accepts, system = accepted_by(environment), system_of(environment)
    told = {
        "accepts": (
            accepts.onnx_opset is not None,
            "every release of onnxruntime was tried with newer and newer ONNX files; this is what the one there loads",
        ),
        "accepts.int8": (accepts.int8 is not None, _why_this_int8(environment)),
        "system": (any(figures_of("system", system)), "what the device says of itself"),
    }
    return {name: provenance(protocol, environment) for name, (is_known, protocol) in told.items() if is_known}


def _why_this_int8(environment: Mapping[str, Any]) -> str:
    vnni = {True: ", with VNNI", False: ", without VNNI", None: ""}[environment.get("vnni")]
    return (
        f"its processor says that it is {environment.get('machine')}{vnni}. On x86 activations are unsigned, and "
        "weights have 7 bits where it does not say that it has VNNI: else sums of products of 8 bits overflow "
        "(microsoft/onnxruntime#12072); on 64-bit ARM activations are signed. No other scheme was timed there"
    )


def networks_protocol(times: Times, num_networks: int) -> str:
    """Return how so many whole networks were timed, in words."""
    median = times.median_disagreement(times.cached_us)
    return (
        f"{num_networks} networks in turns, {times.num_rounds} rounds in random order, {times.seconds:.0f} s; 10th "
        f"percentile of each visit, the {times.share:.0%} quantile over visits, on which even and odd rounds "
        f"agree best: they differ by {median:.1%} in the median"
    )


def percentiles_protocol(times: Times, networks: Sequence[str]) -> str:
    """Return how higher percentiles were found in the same session, in words."""
    apart = ", ".join(
        f"{name} by {statistics.median(of[model] for model in networks):.1%}"
        for name, of in times.higher_disagreement.items()
    )
    return f"the same session; all runs of a network in all its visits; even and odd rounds differ: {apart} (median)"


def _protocol(plan: BuildPlan, times: Times) -> str:
    num_networks = len(plan.calibration) + len(plan.heldout)
    networks = f"{networks_protocol(times, num_networks)}; fitted on {len(plan.calibration)} of them"
    if not plan.parts:
        return networks
    return (
        f"{len(plan.parts)} parts alone, run again and again, and each run after one of the largest network, which "
        f"fills the cache; and {networks}"
    )


def _description(plan: BuildPlan, environment: Mapping[str, Any], left_out: SummarizedError | None) -> str:
    what = f"a table of the {len(plan.parts)} parts" if plan.parts else "costs of operations fitted to networks"
    if left_out is not None:
        what = "a straight line through the MACs of networks"
    return (
        f"{environment['cpu']}, {_threads(environment)} of onnxruntime: {what} of space {plan.space.name}, timed there."
    )


def _threads(environment: Mapping[str, Any]) -> str:
    return "1 thread" if environment["threads"] == 1 else f"{environment['threads']} threads"


def _table(plan: BuildPlan, times: Times, costs: Costs, dtype: Dtype) -> TableLatency:
    # Rounded first: the calibration is that of the table as it is written.
    parts = {
        part: PartTime(
            cached_us=rounded(times.cached_us[model], _DIGITS_OF_TIMES),
            uncached_us=rounded(times.uncached_us[model], _DIGITS_OF_TIMES),
        )
        for part, model in plan.part_models.items()
    }
    names = [_names(plan.space, network) for network in plan.calibration]
    elements_N = costs.layers.working_set_elements_N
    assert elements_N is not None, "costs of a space say how large its networks are"
    calibration = fit_table(
        np.array([sum(parts[name].cached_us for name in of) for of in names]),
        np.array([sum(parts[name].uncached_us for name in of) for of in names]),
        np.array([len(of) for of in names]),
        size_mib(elements_N, BYTES_PER_ELEMENT[dtype]),
        times.of(plan.calibration_models),
    )
    return TableLatency(
        kind="table",
        dtype=dtype,
        bytes_per_element=BYTES_PER_ELEMENT[dtype],
        space=plan.space.name,
        parts=parts,
        calibration=calibration,
    )


def _names(space: SearchSpace, network: Architecture) -> list[str]:
    return [name_of(part) for part in parts_of(space.plan(network))]


def _predicted(latency: LatencySection, costs: Costs) -> FloatArray:
    """Return what a latency model predicts for networks, in ms."""
    predicted_ms_N: FloatArray = registry.resolve("latency", latency.kind)(latency).predict(costs.layers)
    return predicted_ms_N
