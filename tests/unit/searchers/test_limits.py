"""Limits in force: whose they are, and what is within them."""

import math

import numpy as np
import pytest

from fedsup_deploy.device.profile import DeviceProfile, Energy, ProfileLimits, load_profile
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.searchers.limits import Limits, effective_limits, violations, within


def profile_with(**limits: float) -> DeviceProfile:
    shipped = load_profile("raspberry-pi-4")
    return shipped.model_copy(update={"limits": ProfileLimits.model_validate(limits), "energy": None})


def test_limits_of_the_request_replace_those_of_the_profile_one_by_one() -> None:
    limits = effective_limits(profile_with(latency_ms=2.5, memory_mib=8.0), {"latency_ms": 1.0, "macs": 1e6})
    assert limits.given() == {"latency_ms": 1.0, "macs": 1e6, "memory_mib": 8.0}


def test_a_limit_of_the_profile_that_has_no_price_is_listed_as_not_checked() -> None:
    limits = effective_limits(profile_with(latency_ms=2.5, energy_mj=4.0), {})
    assert limits.not_checked({"latency_ms", "macs"}) == ("energy_mj",)
    assert limits.checked({"latency_ms", "macs"}) == {"latency_ms": 2.5}
    assert limits.given() == {"latency_ms": 2.5, "energy_mj": 4.0}


def test_a_requested_energy_limit_is_refused_where_no_power_is_stated() -> None:
    with pytest.raises(ConfigError, match=r"limit energy_mj: got 3\.0, but profile raspberry-pi-4 states no power"):
        effective_limits(profile_with(), {"energy_mj": 3.0})


def test_a_requested_energy_limit_holds_where_a_power_is_stated() -> None:
    profile = profile_with().model_copy(update={"energy": Energy(active_power_w=5.0)})
    assert effective_limits(profile, {"energy_mj": 3.0}).given() == {"energy_mj": 3.0}


def test_an_unknown_limit_is_refused_with_the_nearest_known() -> None:
    with pytest.raises(ConfigError, match="unknown limit 'latency'; did you mean 'latency_ms'"):
        effective_limits(profile_with(), {"latency": 3.0})


@pytest.mark.parametrize("limit", [0.0, -1.0, math.inf, math.nan])
def test_a_limit_that_is_no_positive_number_is_refused(limit: float) -> None:
    with pytest.raises(ConfigError, match=r"limit macs: got .*, expected a finite number above 0"):
        Limits(macs=limit)


PRICES = {"latency_ms": np.array([1.0, 2.0, 3.0]), "macs": np.array([30.0, 20.0, 10.0])}


def test_a_price_equal_to_its_limit_is_within() -> None:
    assert within(PRICES, Limits(latency_ms=2.0)).tolist() == [True, True, False]
    assert within(PRICES, Limits(latency_ms=2.0, macs=20.0)).tolist() == [False, True, False]


def test_a_limit_that_cannot_be_checked_excludes_nothing() -> None:
    assert within(PRICES, Limits(energy_mj=1.0)).tolist() == [True] * 3
    assert violations(PRICES, Limits(energy_mj=1.0)).tolist() == [0.0] * 3


def test_the_violation_is_that_of_the_worst_limit() -> None:
    expected = [30 / 20 - 1, 2 / 2 - 1, 3 / 2 - 1]
    assert violations(PRICES, Limits(latency_ms=2.0, macs=20.0)).tolist() == pytest.approx(expected)
