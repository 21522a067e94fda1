"""Predicted latency of architectures on a device, from the costs in its profile.

A prediction is arithmetic on a profile and never a measurement; results keep the two in separate fields. How far to
trust it stands in the profile's `error`; where that is `none`, no interval is claimed.

Shapes: N architectures, L layers.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedsup_deploy import registry
from fedsup_deploy.device.profile import ComputeCost, DeviceProfile, HeldOutError, MoveCost, RooflineLatency
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.space.cost import LayerCosts

FloatArray = NDArray[np.float64]


class LatencyPredictor(Protocol):
    """What every latency model offers."""

    def predict(self, costs: LayerCosts) -> FloatArray:
        """Return the latency of N architectures at batch 1, in ms, shape (N,)."""
        ...


class RooflinePredictor:
    """Sum over layers of max(MACs / rate, bytes / bandwidth) + overhead, plus the network's own overhead.

    Source: Williams, Waterman and Patterson, "Roofline", CACM 52(4), 2009. The overheads are ours: a small layer takes
    longer to start than to compute.
    """

    def __init__(self, latency: RooflineLatency) -> None:
        self._latency = latency

    def predict(self, costs: LayerCosts) -> FloatArray:
        """Return the latency of N architectures at batch 1, in ms, shape (N,).

        Raises:
            ConfigError: A layer is of a kind the profile has no cost for.
        """
        cost_L = [self._cost_of(op) for op in costs.ops]
        us_per_mac_L = np.array([_us_per_mac(cost) for cost in cost_L])
        overhead_us_L = np.array([cost.overhead_us for cost in cost_L])
        us_per_element = self._latency.bytes_per_element / (self._latency.memory_bandwidth_gb_s * 1e3)
        work_us_NL = np.maximum(costs.num_macs_NL * us_per_mac_L, costs.moved_elements_NL * us_per_element)
        layers_us_NL = np.where(costs.is_active_NL, work_us_NL + overhead_us_L, 0.0)
        latency_ms_N: FloatArray = (layers_us_NL.sum(axis=1) + self._latency.network_overhead_us) / 1e3
        return latency_ms_N

    def _cost_of(self, op: str) -> ComputeCost | MoveCost:
        known = dict(self._latency.ops)
        if op not in known:
            raise ConfigError(f"the roofline latency model has no cost for {op!r}{registry.nearest(op, known)}")
        cost: ComputeCost | MoveCost = known[op]
        return cost


def predictor_for(profile: DeviceProfile) -> LatencyPredictor:
    """Return the predictor for the profile's kind of latency model."""
    predictor: LatencyPredictor = registry.resolve("latency", profile.latency.kind)(profile.latency)
    return predictor


def predict_interval(
    profile: DeviceProfile, latency_ms_N: FloatArray, level: float = 0.95
) -> tuple[FloatArray, FloatArray] | None:
    """Return bounds around predictions, shape (N,) each, in ms; None where there is no ground for a claim.

    The bounds are 5 % (or 10 %) to either side, if at least `level` of the held-out networks were within that.

    Args:
        profile: Whose predictions they are.
        latency_ms_N: The predictions.
        level: Share of networks that must have been inside, in (0, 1].
    """
    if not isinstance(profile.error, HeldOutError):
        return None
    for half_width, share in ((0.05, profile.error.acc5), (0.10, profile.error.acc10)):
        if share >= level:
            # |predicted - measured| <= w * measured, solved for what may be measured.
            return latency_ms_N / (1 + half_width), latency_ms_N / (1 - half_width)
    return None


def _us_per_mac(cost: ComputeCost | MoveCost) -> float:
    return 1 / (cost.gmacs_per_s * 1e3) if isinstance(cost, ComputeCost) else 0.0
