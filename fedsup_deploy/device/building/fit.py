"""A profile for a device from that of another and a few networks timed on the new one.

A dozen networks tell a straight line, and of a donor whose model has operations roughly how these differ. Every figure
of the donor stays as it is, with its own provenance; the error is that of predicting each network from the others.

Shapes: N networks, L layers, K kinds of operations.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedsup_deploy import registry
from fedsup_deploy.device.acceptance import accepted_by, system_of
from fedsup_deploy.device.building.assemble import acceptance_provenance
from fedsup_deploy.device.building.baseline import ChosenModel, line_latency
from fedsup_deploy.device.building.calibrate import fit_line, fit_scale, rounded
from fedsup_deploy.device.heldout import FloatArray, HeldOutError, held_out_error
from fedsup_deploy.device.latency import FittedLatency, LatencySection
from fedsup_deploy.device.percentiles import HigherPercentile, Percentiles, percentiles_of
from fedsup_deploy.device.predictor import predictor_for
from fedsup_deploy.device.profile import Calibration, DeviceFacts, DeviceProfile, Measured, Runtime
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.space.cost import Costs

MIN_NETWORKS: Final = 3
MAX_NETWORKS: Final = 12
# With fewer there is no telling operations apart.
_MIN_NETWORKS_FOR_OPS: Final = 6
# How strongly operations are drawn towards a common scale. Chosen on 12 of 112 networks timed on a server processor:
# from five donors, mean errors of 10 to 27 % with a line became 5 to 17 %, the same for pulls of 0.03 and 0.1.
_PULL_OF_OPS: Final = 0.1

Rows = NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class Device:
    """The device a profile is adapted to.

    Args:
        name: Of the new profile.
        facts: The hardware.
        runtime: What ran the networks there.
        provenance: Of the measurements.
        provenance_of_higher: Of higher percentiles of the same measurements.
        environment: What it said of itself when it was timed, from which follows what it accepts; None of the donor's
            own device, about which the donor's file may know more than it says.
    """

    name: str
    facts: DeviceFacts
    runtime: Runtime
    provenance: Measured
    provenance_of_higher: Measured
    environment: Mapping[str, Any] | None


@dataclasses.dataclass(frozen=True)
class Timed:
    """What networks took on the device.

    Args:
        p10_ms_N: The 10th percentile of their latency, which is what a profile predicts.
        higher_ms_N: Higher percentiles of the same inferences; None where they are not known of every network.
    """

    p10_ms_N: FloatArray
    higher_ms_N: Mapping[HigherPercentile, FloatArray] | None = None


class Fit(NamedTuple):
    """What becomes of the donor's predictions: scale x (sum of op_scales x times of operations) + offset."""

    scale: float
    offset_us: float
    op_scales: dict[str, float] | None = None


# Fits on some of the networks.
Fitter = Callable[[Rows], Fit]


def fit_donor(donor: DeviceProfile, device: Device, costs: Costs, timed: Timed) -> ChosenModel:
    """Return a donor's profile with a calibration for another device, or with the line of `baseline` in place of both.

    Operations get scales of their own only if each network is then predicted better from the others.

    Args:
        donor: Whose latency model is taken. A calibration of its own is left out: the new one stands in its place.
        device: The other device.
        costs: Of the networks timed there.
        timed: What they took there.

    Raises:
        ConfigError: There are too few or too many networks, they were timed in another element type than the donor's
            costs are about, or they take no longer for being larger.
    """
    measured_ms_N = timed.p10_ms_N
    count = len(measured_ms_N)
    if not MIN_NETWORKS <= count <= MAX_NETWORKS:
        raise ConfigError(f"got {count} timed networks, expected {MIN_NETWORKS} to {MAX_NETWORKS}")
    if device.runtime.dtype != donor.latency.dtype:
        found = f"the networks were timed in {device.runtime.dtype}, the costs of {donor.name} are for"
        raise ConfigError(f"{found} {donor.latency.dtype}; take a donor of the same element type")
    fitters = _fitters(donor, costs, measured_ms_N)
    left_out = [_leave_one_out(fitter, donor, costs, count) for fitter in fitters]
    errors = [float(np.mean(np.abs(predicted_N / measured_ms_N - 1))) for predicted_N in left_out]
    best = int(np.argmin(errors))
    macs_only_N = _leave_one_out_by_macs(costs.num_macs.astype(np.float64), measured_ms_N)
    error = held_out_error(left_out[best], measured_ms_N, "leave-one-out", macs_only_N)
    if error.macs_only is not None and error.mape > error.macs_only.mape:
        line = line_latency(costs, measured_ms_N * 1e3, donor.latency.dtype)
        line_error = held_out_error(macs_only_N, measured_ms_N, "leave-one-out", macs_only_N)
        return ChosenModel(_adapted(donor, device, line, line_error, _percentiles(timed, macs_only_N)), error.summary())
    fit = fitters[best](np.arange(count))
    return ChosenModel(_adapted(donor, device, fit, error, _percentiles(timed, left_out[best])), None)


def _fitters(donor: DeviceProfile, costs: Costs, measured_ms_N: FloatArray) -> list[Fitter]:
    """Return the ways to fit that these networks allow."""
    donor_ms_N = _predict(donor, Fit(1.0, 0.0), costs)

    def line(rows: Rows) -> Fit:
        found = fit_line(donor_ms_N[rows], measured_ms_N[rows])
        if found.scale <= 0:
            raise ConfigError(
                f"the timed networks take the same time whatever {donor.name} predicts; time networks of different "
                "sizes, or take another donor"
            )
        return Fit(rounded(found.scale), rounded(found.offset * 1e3))

    if not donor.latency.times_layers or len(measured_ms_N) < _MIN_NETWORKS_FOR_OPS:
        return [line]
    ops_ms = _times_by_op(donor.latency, costs)
    # The whole network's own overhead keeps the common scale.
    rest_ms_N = donor_ms_N - np.sum(list(ops_ms.values()), axis=0)

    def operations(rows: Rows) -> Fit:
        scale = fit_scale(donor_ms_N[rows], measured_ms_N[rows])
        found = _fit_scales(
            scale * np.stack([ms_N[rows] for ms_N in ops_ms.values()], axis=1),
            measured_ms_N[rows],
            scale * rest_ms_N[rows],
        )
        *scales, offset_ms = (rounded(value) for value in found)
        return Fit(rounded(scale), rounded(offset_ms * 1e3), dict(zip(ops_ms, scales, strict=True)))

    return [line, operations]


def _fit_scales(ops_ms_NK: FloatArray, measured_ms_N: FloatArray, rest_ms_N: FloatArray) -> FloatArray:
    """Return the factors of K times and an offset, none negative: least relative error, the factors drawn towards 1."""
    from scipy.optimize import nnls

    num_ops, unit_ms = ops_ms_NK.shape[1], float(measured_ms_N.mean())
    offset_N1 = np.full((len(measured_ms_N), 1), unit_ms)
    errors = np.concatenate([ops_ms_NK, offset_N1], axis=1) / measured_ms_N[:, None]
    pulls = _PULL_OF_OPS * np.eye(num_ops, num_ops + 1)
    targets = np.concatenate([1 - rest_ms_N / measured_ms_N, np.full(num_ops, _PULL_OF_OPS)])
    found: FloatArray = nnls(np.concatenate([errors, pulls]), targets)[0]
    return np.append(found[:-1], found[-1] * unit_ms)


def _times_by_op(latency: LatencySection, costs: Costs) -> dict[str, FloatArray]:
    """Return what the operations of each kind take together, in ms, shape (N,); no kind that no network has."""
    layers_ms_NL: FloatArray = registry.resolve("latency", latency.kind)(latency).layers_us(costs.layers) / 1e3
    ops_L = np.array(costs.layers.ops)
    found = {op: layers_ms_NL[:, ops_L == op].sum(axis=1) for op in dict.fromkeys(costs.layers.ops)}
    return {op: ms_N for op, ms_N in found.items() if ms_N.any()}


def _predict(donor: DeviceProfile, fit: Fit, costs: Costs) -> FloatArray:
    """Return what a fit makes of a donor's predictions, in ms, shape (N,)."""
    calibration = Calibration(**fit._asdict(), num_networks=1, donor=donor.name, donor_hash=donor.profile_hash)
    return predictor_for(donor.model_copy(update={"calibration": calibration})).predict(costs.layers)


def _leave_one_out(fitter: Fitter, donor: DeviceProfile, costs: Costs, count: int) -> FloatArray:
    """Return each network's prediction by a fit on all others."""
    rows = np.arange(count)
    return np.array([_predict(donor, fitter(rows[rows != row]), costs)[row] for row in rows])


def _leave_one_out_by_macs(macs_N: FloatArray, measured_N: FloatArray) -> FloatArray:
    rows = np.arange(len(macs_N))
    lines = [fit_line(macs_N[rows != row], measured_N[rows != row]) for row in rows]
    return np.array([line.at(macs_N[row]) for row, line in enumerate(lines)])


def _percentiles(timed: Timed, predicted_ms_N: FloatArray) -> Percentiles | None:
    """Return the percentiles of networks that were predicted from the others; None where they are not known."""
    higher_ms_N = timed.higher_ms_N
    return None if higher_ms_N is None else percentiles_of(timed.p10_ms_N, higher_ms_N, predicted_ms_N, higher_ms_N)


def _adapted(
    donor: DeviceProfile,
    device: Device,
    found: Fit | FittedLatency,
    error: HeldOutError,
    percentiles: Percentiles | None,
) -> DeviceProfile:
    """Return the profile of a device: its donor's, with what was found, a calibration or a latency model of its own."""
    # What is known of the donor's device alone is left out: its power, the networks timed on it, and what runs there.
    own = {"energy", "calibration", "percentiles"}
    told: dict[str, Measured] = {}
    acceptance: dict[str, Any] = {}
    if device.environment is not None:
        own |= {"accepts", "system", "build_on_device"}
        told = acceptance_provenance(device.environment)
        acceptance = {
            "accepts": accepted_by(device.environment).model_dump(),
            "system": system_of(device.environment).model_dump(),
            "known_bad": (),
            "build_on_device": None,
        }
    if isinstance(found, Fit):
        calibration = Calibration(
            **found._asdict(), num_networks=error.num_heldout, donor=donor.name, donor_hash=donor.profile_hash
        )
        latency, model = donor.latency, f"the latency model of {donor.name}, calibrated on {error.num_heldout} networks"
        measured = told | {"calibration": device.provenance}
    else:
        calibration, latency = None, found
        model = f"a straight line through the MACs of {error.num_heldout} networks"
        measured, own = told | {"latency": device.provenance}, {*own, "latency"}
    provenance = {path: entry for path, entry in donor.provenance.items() if path.split(".")[0] not in own}
    if percentiles is not None:
        measured["percentiles"] = device.provenance_of_higher
    document = {
        **donor.model_dump(by_alias=True),
        "name": device.name,
        "description": f"{device.facts.cpu}: {model} timed there.",
        "device": device.facts.model_dump(),
        "runtime": device.runtime.model_dump(),
        "latency": latency.model_dump(),
        "calibration": None if calibration is None else calibration.model_dump(),
        **acceptance,
        "energy": None,
        "percentiles": None if percentiles is None else percentiles.model_dump(),
        "measurements": (),
        "error": error.model_dump(),
        "provenance": {path: entry.model_dump() for path, entry in (provenance | measured).items()},
    }
    return DeviceProfile.model_validate(document)
