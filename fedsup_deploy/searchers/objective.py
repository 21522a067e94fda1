"""What a search wants: limits that hold, accuracy up, latency down. It prices nothing and proposes nothing.

Shapes: N architectures, K candidates, M objectives, U different rows.
"""

import dataclasses
import math
from collections.abc import Callable, Container, Mapping
from decimal import ROUND_CEILING, Context

import numpy as np
from numpy.typing import NDArray

from fedsup_deploy.device.profile import DeviceProfile
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.registry import nearest
from fedsup_deploy.space.plan import BoolArray, IntArray

FloatArray = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Limits:
    """The most a subnet may cost on a device, at batch 1. None is no limit; a cost equal to its limit is within it.

    Args:
        latency_ms: Predicted time of one inference.
        macs: Multiply-accumulates of one inference.
        params: Parameters.
        memory_mib: Weights and live activations.
        activation_mib: Live activations alone.
        storage_mib: Weights.
        energy_mj: Estimated energy of one inference.
        resolution: Side of the input image in pixels.

    Raises:
        ConfigError: A limit is not a finite number above 0.
    """

    latency_ms: float | None = None
    macs: float | None = None
    params: float | None = None
    memory_mib: float | None = None
    activation_mib: float | None = None
    storage_mib: float | None = None
    energy_mj: float | None = None
    resolution: float | None = None

    def __post_init__(self) -> None:
        for name, limit in self.given().items():
            if not (math.isfinite(limit) and limit > 0):
                raise ConfigError(f"limit {name}: got {limit}, expected a finite number above 0")

    def given(self) -> dict[str, float]:
        """Return the limits there are, by name."""
        return {name: limit for name, limit in dataclasses.asdict(self).items() if limit is not None}

    def checked(self, priced: Container[str]) -> dict[str, float]:
        """Return the limits that a search can hold candidates to, by name: those that a price is known for."""
        return {name: limit for name, limit in self.given().items() if name in priced}

    def not_checked(self, priced: Container[str]) -> tuple[str, ...]:
        """Return the names of the limits that nobody can check; a result has to say so."""
        return tuple(name for name in self.given() if name not in priced)


def effective_limits(profile: DeviceProfile, requested: Mapping[str, float]) -> Limits:
    """Return the profile's limits, each replaced by the requested one of the same name.

    Raises:
        ConfigError: There is no such limit, it is not a finite number above 0, or the profile has no model of it.
    """
    known = [field.name for field in dataclasses.fields(Limits)]
    for name, limit in requested.items():
        if name not in known:
            raise ConfigError(f"unknown limit {name!r}{nearest(name, known)}")
        if name == "energy_mj" and profile.energy is None:
            raise ConfigError(
                f"limit {name}: got {limit}, but profile {profile.name} states no power to estimate energy from; "
                "search without this limit and measure the energy on the device"
            )
    return Limits(**{**profile.limits.model_dump(), **requested})


def rounded_up(price: float, digits: int = 4) -> float:
    """Return a price in so many digits, for people, never below what it is: what they read is met if made a limit."""
    return float(Context(prec=digits, rounding=ROUND_CEILING).create_decimal(repr(float(price))))


def violations(prices: Mapping[str, FloatArray], limits: Limits) -> FloatArray:
    """Return by what share of the limit the worst price exceeds it, shape (N,); 0 or less is within all limits.

    Args:
        prices: By the name of the limit they are about, shape (N,) each.
        limits: Those without a price are left out.
    """
    with np.errstate(over="ignore"):  # a limit next to 0 is exceeded infinitely
        shares = [prices[name] / limit - 1 for name, limit in limits.checked(prices).items()]
    return np.max(shares, axis=0) if shares else np.zeros(_count(prices))


def within(prices: Mapping[str, FloatArray], limits: Limits) -> BoolArray:
    """Return which architectures are within all limits that can be checked, shape (N,)."""
    fits = np.ones(_count(prices), np.bool_)
    for name, limit in limits.checked(prices).items():
        fits &= prices[name] <= limit
    return fits


def front(objectives_KM: FloatArray) -> IntArray:
    """Return the candidates that no other dominates: none is as good in every objective and better in one.

    Args:
        objectives_KM: What is to be minimised, the latency first.

    Returns:
        Their indices, fastest first; of equal ones in their order. Equal candidates are all in it or all not.
    """
    order_K = np.lexsort(objectives_KM.T[::-1])
    rows_KM = objectives_KM[order_K]
    is_new_K = np.append(True, (rows_KM[1:] != rows_KM[:-1]).any(axis=1))
    # In this order a row is dominated by none after it.
    kept_U = _kept(rows_KM[is_new_K])
    front_F: IntArray = order_K[kept_U[np.cumsum(is_new_K) - 1]]
    return front_F


def pick(arch_id: Callable[[int], str], accuracy_K: FloatArray, latency_ms_K: FloatArray) -> int:
    """Return the index of the most accurate candidate; of equals the fastest, then the first by arch_id.

    Args:
        arch_id: Index of a candidate -> its arch_id.
        accuracy_K: Of each candidate; at least one.
        latency_ms_K: Of each candidate.
    """
    best = np.flatnonzero(accuracy_K == accuracy_K.max())
    best = best[latency_ms_K[best] == latency_ms_K[best].min()]
    return min((int(index) for index in best), key=arch_id)


def _kept(rows_UM: FloatArray) -> BoolArray:
    """Return which of different rows, in lexicographic order, none dominates, shape (U,)."""
    if rows_UM.shape[1] == 2:
        best_before_U = np.minimum.accumulate(np.append(np.inf, rows_UM[:-1, 1]))
        return np.asarray(rows_UM[:, 1] < best_before_U)
    kept: list[int] = []
    for index, row_M in enumerate(rows_UM):
        if not (rows_UM[kept] <= row_M).all(axis=1).any():
            kept.append(index)
    return np.isin(np.arange(len(rows_UM)), kept)


def _count(prices: Mapping[str, FloatArray]) -> int:
    return len(next(iter(prices.values())))
