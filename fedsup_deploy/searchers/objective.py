"""What a search wants: limits that hold, accuracy up, latency down. It prices nothing and proposes nothing.

Shapes: N architectures.
"""

import dataclasses
import math
from collections.abc import Container, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fedsup_deploy.device.profile import DeviceProfile
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.registry import nearest

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


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


def front(accuracy: Sequence[float], latency_ms: Sequence[float]) -> list[int]:
    """Return the candidates that none beats: more accurate and as fast, or faster and as accurate.

    Args:
        accuracy: Of each candidate.
        latency_ms: Of each candidate.

    Returns:
        Their indices, fastest first. Equal candidates are all in it or all not.
    """
    order = sorted(range(len(accuracy)), key=lambda index: (latency_ms[index], -accuracy[index], index))
    kept: list[int] = []
    for index in order:
        best = kept[-1] if kept else None
        if best is None or accuracy[index] > accuracy[best] or _equal(index, best, accuracy, latency_ms):
            kept.append(index)
    return kept


def pick(arch_ids: Sequence[str], accuracy: Sequence[float], latency_ms: Sequence[float]) -> int:
    """Return the index of the most accurate candidate; of equals the fastest, then the first by arch_id."""
    return min(range(len(arch_ids)), key=lambda index: (-accuracy[index], latency_ms[index], arch_ids[index]))


def _equal(first: int, second: int, accuracy: Sequence[float], latency_ms: Sequence[float]) -> bool:
    return accuracy[first] == accuracy[second] and latency_ms[first] == latency_ms[second]


def _count(prices: Mapping[str, FloatArray]) -> int:
    return len(next(iter(prices.values())))
