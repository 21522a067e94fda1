"""The limits in force in a search, and which prices are within them. Which there are stands in `device.limits`.

Shapes: N architectures.
"""

import dataclasses
import math
from collections.abc import Container, Mapping

import numpy as np

from fedsup_deploy.device import limits as known
from fedsup_deploy.device.profile import DeviceProfile
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.registry import nearest
from fedsup_deploy.searchers.prices import FloatArray
from fedsup_deploy.space.plan import BoolArray


@dataclasses.dataclass(frozen=True, init=False)
class Limits:
    """The most a subnet may cost on a device, at batch 1. A cost equal to its limit is within it.

    Args:
        most: By the name of a limit, in its unit; None is no limit.

    Raises:
        ConfigError: There is no such limit, or it is not a finite number above 0.
    """

    _most: Mapping[str, float]

    def __init__(self, **most: float | None) -> None:
        check_known(most)
        # In the order of the table, whoever gave them.
        given = {name: limit for name in known.TABLE if (limit := most.get(name)) is not None}
        for name, limit in given.items():
            if not (math.isfinite(limit) and limit > 0):
                raise ConfigError(f"limit {name}: got {limit}, expected a finite number above 0")
        object.__setattr__(self, "_most", given)

    def given(self) -> dict[str, float]:
        """Return the limits there are, by name."""
        return dict(self._most)

    def checked(self, priced: Container[str]) -> dict[str, float]:
        """Return the limits that a search can hold candidates to, by name: those that a price is known for."""
        return {name: limit for name, limit in self._most.items() if name in priced}

    def not_checked(self, priced: Container[str]) -> tuple[str, ...]:
        """Return the names of the limits that nobody can check; a result has to say so."""
        return tuple(name for name in self._most if name not in priced)


def check_known(names: Mapping[str, float | None]) -> None:
    """Fail if there is no limit of one of the names.

    Raises:
        ConfigError: There is none; names the nearest.
    """
    for name in names:
        if name not in known.TABLE:
            raise ConfigError(f"unknown limit {name!r}{nearest(name, known.TABLE)}")


def effective_limits(profile: DeviceProfile, requested: Mapping[str, float]) -> Limits:
    """Return the profile's limits, each replaced by the requested one of the same name.

    Raises:
        ConfigError: There is no such limit, it is not a finite number above 0, or the profile has no model of it.
    """
    check_known(requested)
    for name, limit in requested.items():
        ground = known.TABLE[name].ground
        if ground is not None and getattr(profile, ground.section) is None:
            raise ConfigError(f"limit {name}: got {limit}, but profile {profile.name} {ground.missing}")
    return Limits(**{**profile.limits.given(), **requested})


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


def _count(prices: Mapping[str, FloatArray]) -> int:
    return len(next(iter(prices.values())))
