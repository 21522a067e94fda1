"""Predicted latency of architectures on a device, from the costs in its profile.

A prediction is arithmetic on a profile and never a measurement; results keep the two in separate fields. How far to
trust it stands in the profile's `error`; where that is `none`, no interval is claimed.

Shapes: N networks, L layers, K terms, U distinct parts.
"""

import dataclasses
import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Protocol

import numpy as np

from fedsup_deploy import registry
from fedsup_deploy.device.heldout import FloatArray, HeldOutError, conformal_half_width
from fedsup_deploy.device.latency import (
    ComputeCost,
    FittedLatency,
    MoveCost,
    PartTime,
    RooflineLatency,
    TableLatency,
)
from fedsup_deploy.device.profile import DeviceProfile
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.space.cost import LayerCosts, in_blocks
from fedsup_deploy.space.parts import part_names
from fedsup_deploy.space.plan import BoolArray, IntArray

_MIB = 2**20
# A larger network than this may be priced a last digit apart from the sum of its parts.
_MOST_MACS, _MOST_ELEMENTS = 10**9, 10**8
_MOST_QUANTA = 2**53  # float64 has all whole numbers up to here
_TABLE_QUANTA_PER_US = 1e8  # of which float64 holds a minute and a half


class LatencyPredictor(Protocol):
    """What every latency model offers: sums over layers, and the latency that follows from them.

    A registered one is a class made from its section of a profile, which stands in it as `section`. Where that section
    `times_layers`, it also has `layers_us`, the time of each layer, and can be made from scales of operations as well.
    """

    def terms(self, costs: LayerCosts) -> FloatArray:
        """Return what is summed over the layers of N networks, or of N parts of networks, shape (N, K).

        The sums over a network are those of its parts added up: exactly, so that it does not matter how it is divided.
        """
        ...

    def latency(self, terms_NK: FloatArray, working_set_elements_N: IntArray | None) -> FloatArray:
        """Return the latency of N networks at batch 1, in ms, shape (N,).

        Args:
            terms_NK: Their sums.
            working_set_elements_N: Their weights and live activations; None where nobody knows.
        """
        ...

    def predict(self, costs: LayerCosts) -> FloatArray:
        """Return the latency of N networks at batch 1, in ms, shape (N,)."""
        ...


class _Predictor:
    """Predicts a network from the terms of all its layers."""

    def predict(self: LatencyPredictor, costs: LayerCosts) -> FloatArray:
        """Return the latency of N networks at batch 1, in ms, shape (N,). Raises what `terms` and `latency` raise."""
        return self.latency(self.terms(costs), costs.working_set_elements_N)


class RooflinePredictor(_Predictor):
    """Sum over layers of max(MACs / rate, bytes / bandwidth) + overhead, plus the network's own overhead.

    Source: Williams, Waterman and Patterson, "Roofline", CACM 52(4), 2009. The overheads are ours: a small layer takes
    longer to start than to compute.
    """

    section = RooflineLatency

    def __init__(self, latency: RooflineLatency, op_scales: Mapping[str, float] | None = None) -> None:
        self._latency = latency
        us_per_element = latency.bytes_per_element / (_exact(latency.memory_bandwidth_gb_s) * 1000)
        self._costs = _WholeCosts.of(
            {
                op: _scaled(_exact((op_scales or {}).get(op, 1.0)), _us_per_mac(cost), us_per_element, cost.overhead_us)
                for op, cost in latency.ops
            }
        )

    def terms(self, costs: LayerCosts) -> FloatArray:
        """Return the time of all layers in quanta, shape (N, 1).

        Raises:
            ConfigError: A layer is of a kind the profile has no cost for.
        """
        terms_NK: FloatArray = self._layers(costs).sum(axis=1, keepdims=True)
        return terms_NK

    def latency(self, terms_NK: FloatArray, working_set_elements_N: IntArray | None) -> FloatArray:
        """Return the latency of N networks at batch 1, in ms, shape (N,)."""
        del working_set_elements_N
        latency_ms_N: FloatArray = (terms_NK[:, 0] / self._costs.per_us + self._latency.network_overhead_us) / 1e3
        return latency_ms_N

    def layers_us(self, costs: LayerCosts) -> FloatArray:
        """Return the time of each layer in microseconds, shape (N, L). Raises what `predict` raises."""
        return self._layers(costs) / self._costs.per_us

    def _layers(self, costs: LayerCosts) -> FloatArray:
        """Return the time of each layer in quanta, shape (N, L)."""
        per_mac_L, per_element_L, overhead_L = np.array([self._cost_of(op) for op in costs.ops]).T
        work_NL = np.maximum(costs.num_macs_NL * per_mac_L, costs.moved_elements_NL * per_element_L)
        layers_NL: FloatArray = np.where(costs.is_active_NL, work_NL + overhead_L, 0.0)
        return layers_NL

    def _cost_of(self, op: str) -> "_Cost":
        known = self._costs.by_op
        if op not in known:
            raise ConfigError(f"the roofline latency model has no cost for {op!r}{registry.nearest(op, known)}")
        return known[op]


class FittedPredictor(_Predictor):
    """Sum over layers of a linear cost per kind of operation, plus the network's own overhead.

    Channels count in whole blocks of those that the runtime computes together. On top, where the profile has it: a cost
    of what is read and written, times the share of it that misses the cache.
    """

    section = FittedLatency

    def __init__(self, latency: FittedLatency) -> None:
        self._latency = latency
        self._costs = _WholeCosts.of(
            {
                op: (_exact(cost.us_per_mmac) / 10**6, _exact(cost.us_per_kelement) / 1000, _exact(cost.us_per_layer))
                for op, cost in latency.ops.items()
            }
        )

    def terms(self, costs: LayerCosts) -> FloatArray:
        """Return the time of all layers in quanta, and the elements they read and write, shape (N, 2).

        Raises:
            ConfigError: A layer is of a kind that no timed network had, or the layers are not known one by one.
        """
        moved_N = costs.moved_elements_NL.sum(axis=1)
        if self._latency.channel_block > 1:
            if costs.plan is None:
                raise ConfigError("the fitted latency model needs the layers of a search space, not a list of costs")
            costs = in_blocks(costs, self._latency.channel_block)
        is_there_L: BoolArray = np.asarray(costs.is_active_NL.any(axis=0))
        per_mac_L, per_element_L, per_layer_L = np.array(
            [self._cost_of(op, is_there) for op, is_there in zip(costs.ops, is_there_L, strict=True)]
        ).T
        layers_N = (
            costs.num_macs_NL @ per_mac_L + costs.moved_elements_NL @ per_element_L + costs.is_active_NL @ per_layer_L
        )
        return np.stack([layers_N, moved_N.astype(np.float64)], axis=1)

    def latency(self, terms_NK: FloatArray, working_set_elements_N: IntArray | None) -> FloatArray:
        """Return the latency of N networks at batch 1, in ms, shape (N,).

        Raises:
            ConfigError: The size of the networks is not known.
        """
        layers_N, moved_N = terms_NK.T
        missed_us_N = self._missed_us(moved_N, working_set_elements_N)
        layers_us_N = layers_N / self._costs.per_us
        latency_ms_N: FloatArray = (layers_us_N + missed_us_N + self._latency.network_overhead_us) / 1e3
        return latency_ms_N

    def _missed_us(self, moved_N: FloatArray, working_set_elements_N: IntArray | None) -> FloatArray | float:
        cache = self._latency.cache
        if cache is None:
            return 0.0
        if working_set_elements_N is None:
            raise ConfigError("the fitted latency model needs the size of a network, which a list of layers lacks")
        size_mib_N = size_mib(working_set_elements_N, self._latency.bytes_per_element)
        share_N = miss_share(size_mib_N, cache.fits_mib, cache.misses_mib)
        missed_us_N: FloatArray = share_N * moved_N * (cache.us_per_kelement / 1e3)
        return missed_us_N

    def _cost_of(self, op: str, is_there: bool) -> "_Cost":
        known = self._costs.by_op
        if not is_there:
            return 0.0, 0.0, 0.0
        if op not in known:
            raise ConfigError(
                f"the fitted latency model has no cost for {op!r}, no timed network had one; "
                "build the profile for a space with such layers: fedsup-deploy profile build --space SPACE"
            )
        return known[op]


class TablePredictor(_Predictor):
    """Sum of the times of a network's parts, each between its cached and its uncached time, calibrated.

    With c the time of a part run again and again and u that after a network which fills the cache, a and the overheads
    e of the calibration, and f the share of the network's memory accesses that miss the cache:

        latency = sum over parts of (1 - f) (a c - e_c) + f (a u - e_u), plus e_n;  f rises from 0 to 1 with the size.

    Source: block tables are those of ProxylessNAS (arXiv 1812.00332) and Once-for-All (arXiv 1908.09791), which use one
    time per block. The second time is ours: a small network keeps its weights in the cache from one run to the next,
    a large one does not, and a block timed alone always does.
    """

    section = TableLatency

    def __init__(self, latency: TableLatency) -> None:
        self._latency = latency

    def terms(self, costs: LayerCosts) -> FloatArray:
        """Return the cached and the uncached time of all parts in quanta, and how many there are, shape (N, 3).

        Raises:
            ConfigError: The costs are not those of a search space, or a part was not timed.
        """
        if costs.plan is None:
            raise ConfigError("the table latency model knows the parts of a search space only, not lists of layers")
        count = len(costs.is_active_NL)
        terms_NK = np.zeros((count, 3))
        for part in part_names(costs.plan, count):
            # Index -1 takes the last row: what the networks without this part are charged.
            terms_UK = np.array([*(self._part_terms(name) for name in part.names), (0.0, 0.0, 0.0)])
            terms_NK += terms_UK[part.index_N]
        return terms_NK

    def latency(self, terms_NK: FloatArray, working_set_elements_N: IntArray | None) -> FloatArray:
        """Return the latency of N networks at batch 1, in ms, shape (N,)."""
        assert working_set_elements_N is not None, "what has parts has a size"
        calibration = self._latency.calibration
        size_mib_N = size_mib(working_set_elements_N, self._latency.bytes_per_element)
        miss_share_N = miss_share(size_mib_N, calibration.fits_mib, calibration.misses_mib)
        cached_N, uncached_N, num_parts_N = terms_NK.T
        scale = calibration.scale / _TABLE_QUANTA_PER_US
        cached_us_N = cached_N * scale - num_parts_N * calibration.cached_overhead_us
        uncached_us_N = uncached_N * scale - num_parts_N * calibration.uncached_overhead_us
        parts_us_N = (1 - miss_share_N) * cached_us_N + miss_share_N * uncached_us_N
        # A part can cost less than the calls it saves; a network cannot.
        latency_ms_N: FloatArray = np.maximum(parts_us_N + calibration.network_overhead_us, 0.01) / 1e3
        return latency_ms_N

    def _part_terms(self, name: str) -> tuple[float, float, float]:
        time: PartTime | None = self._latency.parts.get(name)
        if time is None:
            raise ConfigError(
                f"the part {name!r} was not timed: the table is about space {self._latency.space} and "
                "images of certain channels; build one for your run: fedsup-deploy profile build --space RUN"
            )
        cached, uncached = (round(us * _TABLE_QUANTA_PER_US) for us in (time.cached_us, time.uncached_us))
        return float(cached), float(uncached), 1.0


class CalibratedPredictor(_Predictor):
    """Another model's predictions on a straight line to this device."""

    def __init__(self, inner: LatencyPredictor, scale: float, offset_us: float) -> None:
        self._inner, self._scale, self._offset_us = inner, scale, offset_us

    def terms(self, costs: LayerCosts) -> FloatArray:
        """Return the terms of the other model, shape (N, K). Raises what it raises."""
        return self._inner.terms(costs)

    def latency(self, terms_NK: FloatArray, working_set_elements_N: IntArray | None) -> FloatArray:
        """Return the latency of N networks at batch 1, in ms, shape (N,). Raises what the model raises."""
        return self._inner.latency(terms_NK, working_set_elements_N) * self._scale + self._offset_us / 1e3


def predictor_for(profile: DeviceProfile) -> LatencyPredictor:
    """Return the predictor for the profile's kind of latency model, with the profile's calibration if it has one."""
    calibration = profile.calibration
    make = registry.resolve("latency", profile.latency.kind)
    if calibration is None:
        predictor: LatencyPredictor = make(profile.latency)
        return predictor
    inner = make(profile.latency, *([] if calibration.op_scales is None else [calibration.op_scales]))
    return CalibratedPredictor(inner, calibration.scale, calibration.offset_us)


def size_mib(elements_N: IntArray, bytes_per_element: int) -> FloatArray:
    """Return the size of so many weights and activations, in MiB, shape (N,)."""
    return elements_N.astype(np.float64) * (bytes_per_element / _MIB)


def miss_share(size_mib_N: FloatArray, fits_mib: float, misses_mib: float) -> FloatArray:
    """Return the share of a network's memory accesses that miss the cache, shape (N,).

    Args:
        size_mib_N: Weights and live activations of the networks, in MiB.
        fits_mib: Up to this size a network stays in the cache from one run to the next.
        misses_mib: From this size on nothing of it does.
    """
    share_N: FloatArray = np.clip((size_mib_N - fits_mib) / (misses_mib - fits_mib), 0.0, 1.0)
    return share_N


def predict_interval(
    profile: DeviceProfile, latency_ms_N: FloatArray, level: float = 0.95
) -> tuple[FloatArray, FloatArray] | None:
    """Return bounds around predictions, shape (N,) each, in ms; None where there is no ground for a claim.

    Args:
        profile: Whose predictions they are.
        latency_ms_N: The predictions.
        level: Probability that the measured latency of a new network is inside, in (0, 1).
    """
    if not isinstance(profile.error, HeldOutError):
        return None
    half_width = conformal_half_width(profile.error, level)
    if half_width is None:
        return None
    return latency_ms_N * max(1 - half_width, 0.0), latency_ms_N * (1 + half_width)


# What an operation costs per MAC, per element that it reads or writes, and per layer.
_Cost = tuple[float, float, float]
_ExactCost = tuple[Fraction, Fraction, Fraction]


@dataclasses.dataclass(frozen=True)
class _WholeCosts:
    """Costs of operations in whole quanta of time.

    The costs are rounded, and not the times of layers: these are whole numbers of quanta then, so that their sums are
    exact, and equal for networks that do the same work in other layers.

    Args:
        per_us: Quanta of a microsecond.
        by_op: The costs by kind of operation, whole numbers.
    """

    per_us: int
    by_op: Mapping[str, _Cost]

    @classmethod
    def of(cls, us_by_op: Mapping[str, _ExactCost]) -> "_WholeCosts":
        """Return costs that are given in microseconds, rounded."""
        per_mac, per_element, _ = (max(costs) for costs in zip(*us_by_op.values(), strict=True))
        most_us = max(per_mac * _MOST_MACS + per_element * _MOST_ELEMENTS, Fraction(1))
        most, per_us = int(_MOST_QUANTA / most_us), 1
        # As many costs as can be are whole numbers as they are: an element may cost just what three MACs do.
        for denominator in sorted({us.denominator for costs in us_by_op.values() for us in costs}):
            if (finer := math.lcm(per_us, denominator)) <= most:
                per_us = finer
        per_us *= max(most // per_us, 1)

        def whole(us: Fraction) -> float:
            return float(round(us * per_us))

        return cls(per_us, {op: (whole(a), whole(b), whole(c)) for op, (a, b, c) in us_by_op.items()})


def _exact(figure: float) -> Fraction:
    """Return a figure as its profile has it: 0.1 is a tenth."""
    return Fraction(repr(figure))


def _us_per_mac(cost: ComputeCost | MoveCost) -> Fraction:
    return 1 / (_exact(cost.gmacs_per_s) * 1000) if isinstance(cost, ComputeCost) else Fraction(0)


def _scaled(scale: Fraction, us_per_mac: Fraction, us_per_element: Fraction, us_per_layer: float) -> _ExactCost:
    return scale * us_per_mac, scale * us_per_element, scale * _exact(us_per_layer)
