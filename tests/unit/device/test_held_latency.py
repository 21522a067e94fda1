"""What a limit on a percentile of latency is held against, by profiles whose ratios are known."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedsup_deploy.config.device import System
from fedsup_deploy.config.load import dump
from fedsup_deploy.device.acceptance import Accepts
from fedsup_deploy.device.held_latency import HeldLatency, held_latency
from fedsup_deploy.device.heldout import held_out_error
from fedsup_deploy.device.percentiles import HIGHER, PercentileRatios, Percentiles, percentiles_of
from fedsup_deploy.device.profile import DeviceProfile, load_profile
from fedsup_deploy.device.summary import summary_of
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.ondevice.records import Percentile

MEASURED = {"kind": "measured", "protocol": "timed", "date": "2026-01-31", "environment": "a board"}
#: Makes a profile of a device whose p50 is 1.25 and whose p90 is 1.5 times its p10, by 19 networks.
Measured = Callable[..., DeviceProfile]


@pytest.mark.parametrize(
    ("percentile", "ratio", "upper_ratio"), [("p10", 1.0, 1.09), ("p50", 1.25, 1.3625), ("p90", 1.5, 1.6351)]
)
def test_a_percentile_is_the_prediction_times_its_ratio_and_the_bound_is_its_own(
    measured_profile: Measured, percentile: Percentile, ratio: float, upper_ratio: float
) -> None:
    """Of 19 networks the slowest bounds a new one at 95 %: by 1.09 at p10, and by what it took above.

    1.09 * 1.5 is a little more than 1.635 in binary, so it is written as 1.6351: bounds are rounded up.
    """
    held = held_latency(measured_profile(), percentile)
    assert held == HeldLatency(percentile, ratio, is_assumed=False)
    assert held.held(np.array([2.0])).tolist() == [2.0 * ratio]
    risky = held_latency(measured_profile(), percentile, 0.95)
    assert risky == HeldLatency(percentile, ratio, False, 0.95, upper_ratio)
    assert risky.held(np.array([2.0])).tolist() == [2.0 * upper_ratio]
    assert risky.predicted(np.array([2.0])).tolist() == [2.0 * ratio]


def test_the_ratio_is_that_of_the_median_network() -> None:
    """Three networks, of which one has a long tail."""
    p10_N, p90_N = np.array([1.0, 2.0, 4.0]), np.array([1.2, 2.6, 20.0])
    known = percentiles_of(p10_N, {"p50": p10_N, "p90": p90_N}, p10_N / 2, {"p50": p10_N, "p90": p90_N})
    assert (known.num_networks, known.by_name()) == (3, {"p50": 1.0, "p90": 1.3})
    assert known.p90.ratios == (2.4, 2.6, 10.0), "measured / predicted, not / p10"


@pytest.mark.parametrize("percentile", ["p50", "p90"])
def test_a_profile_from_before_there_were_percentiles_converts_nothing(
    measured_profile: Measured, percentile: Percentile
) -> None:
    with pytest.raises(ConfigError) as caught:
        held_latency(measured_profile(has_percentiles=False), percentile)
    assert str(caught.value) == (
        f"percentile: got {percentile}, but profile measured predicts p10 and holds no measured ratio to another "
        "percentile; build or fit it again (fedsup-deploy profile build), or limit what it predicts: --percentile p10, "
        "or in its limits latency_percentile: p10"
    )
    assert held_latency(measured_profile(has_percentiles=False), "p10") == HeldLatency("p10", 1.0, is_assumed=False)


@pytest.mark.parametrize("percentile", ["p10", "p90"])
def test_published_figures_count_as_the_median_only(percentile: Percentile) -> None:
    profile = load_profile("raspberry-pi-4")
    with pytest.raises(ConfigError) as caught:
        held_latency(profile, percentile)
    assert str(caught.value) == (
        f"percentile: got {percentile}, but profile raspberry-pi-4 is made of published figures, which count as p50, "
        "and nobody measured other percentiles; search with --percentile p50, or time networks on the device: "
        "fedsup-deploy profile build or fit"
    )
    assert held_latency(profile, "p50") == HeldLatency("p50", 1.0, is_assumed=True)


@pytest.mark.parametrize("percentile", ["p10", "p50", "p90"])
def test_a_bound_needs_networks_enough_at_every_percentile(measured_profile: Measured, percentile: Percentile) -> None:
    with pytest.raises(ConfigError, match=r"risk: got 0\.99, but .* checked with 19 networks, .* with at most 0\.95;"):
        held_latency(measured_profile(), percentile, 0.99)
    with pytest.raises(ConfigError, match="risk: got 2, expected a probability between 0 and 1"):
        held_latency(measured_profile(), percentile, 2.0)


def test_published_errors_bound_nothing() -> None:
    with pytest.raises(ConfigError, match=r"risk: got 0\.5, but profile raspberry-pi-4 was not checked with measured"):
        held_latency(load_profile("raspberry-pi-4"), "p50", 0.5)


def test_a_profile_with_percentiles_and_their_limit_is_read_back(measured_profile: Measured, tmp_path: Path) -> None:
    profile = measured_profile(limits={"latency_ms": 2.0, "latency_percentile": "p90"})
    path = tmp_path / "measured.yaml"
    path.write_text(dump(profile), encoding="utf-8")
    assert load_profile(path) == profile
    assert profile.limit_percentile == "p90"
    assert profile.limits.given() == {"latency_ms": 2.0}, "a percentile is no limit"
    assert dataclasses.asdict(summary_of(profile).percentile) == {
        "limit": "p90",
        "predicted": "p10",
        "is_assumed": False,
        "ratios": {"p50": 1.25, "p90": 1.5},
    }


def test_what_says_nothing_of_percentiles_has_the_hash_it_had(measured_profile: Measured) -> None:
    """Searches and bundles of before name it."""
    expected = "dc7987ca83ae6767097547ef9782931b74df592d8e8747113502163a91a9cc7e"
    shipped = load_profile("raspberry-pi-4")
    assert shipped.profile_hash != expected
    # As it was shipped then, when it said nothing else of the device either.
    costs = {path: entry for path, entry in shipped.provenance.items() if path.startswith("latency")}
    profile = shipped.model_copy(
        update={"accepts": Accepts(), "system": System(), "known_bad": (), "also_loads": (), "provenance": costs}
    )
    assert profile.profile_hash == expected
    limits = profile.limits.model_copy(update={"latency_percentile": "p50"})
    assert profile.model_copy(update={"limits": limits}).profile_hash != expected
    assert measured_profile().profile_hash != measured_profile(has_percentiles=False).profile_hash


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"provenance": {"latency": MEASURED}}, "its provenance"),
        ({"error": "none"}, "0 of them, as many as error has"),
        ({"error": held_out_error(np.ones(2), np.ones(2), "held-out").model_dump()}, "2 of them"),
        ({"limits": {"latency_percentile": "p95"}}, "p95"),
    ],
)
def test_percentiles_that_agree_with_nothing_are_refused(
    measured_profile: Measured, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        measured_profile(**changes)


def test_a_profile_of_published_figures_cannot_have_measured_percentiles(measured_profile: Measured) -> None:
    document = load_profile("raspberry-pi-4").model_dump(by_alias=True)
    known = measured_profile().model_dump()["percentiles"]
    document |= {"percentiles": known, "provenance": {**document["provenance"], "percentiles": MEASURED}}
    with pytest.raises(ValueError, match="expected null: predictions are of published figures"):
        DeviceProfile.model_validate(document)


def test_percentiles_are_ordered(measured_profile: Measured) -> None:
    known = measured_profile().model_dump()["percentiles"]
    with pytest.raises(ValueError, match=r"got the ratio 1\.5 of p50, expected at most that of p90, 1\.25"):
        Percentiles.model_validate({**known, "p50": known["p90"], "p90": known["p50"]})
    with pytest.raises(ValueError, match="expected them ascending"):
        Percentiles.model_validate({**known, "p50": {**known["p50"], "ratios": (2.0, 1.0)}})
    for name in HIGHER:
        with pytest.raises(ValueError, match="greater than or equal to 1"):
            Percentiles.model_validate({**known, name: {**known[name], "ratio": 0.9}})
        for absurd in ({"ratio": 1e300}, {"ratios": (*known[name]["ratios"], 1e300)}):
            with pytest.raises(ValueError, match="less than or equal to 1000"):
                Percentiles.model_validate({**known, name: {**known[name], **absurd}})
    with pytest.raises(ValueError, match="num_networks: got 18, expected at least 19, as many as there are ratios"):
        Percentiles.model_validate({**known, "num_networks": 18})


def test_no_percentile_is_below_the_one_that_is_predicted(measured_profile: Measured) -> None:
    known = measured_profile().model_dump()["percentiles"]
    low = {**known["p50"], "ratios": (0.5, *known["p50"]["ratios"][1:])}
    with pytest.raises(ValueError, match=r"expected >= \S+, which the network took of the percentile below"):
        measured_profile(percentiles={**known, "p50": low})


@pytest.mark.parametrize("meant", ["p50", "p90"])
def test_a_profile_whose_limits_mean_a_percentile_that_nobody_measured_is_refused(
    measured_profile: Measured, meant: Percentile
) -> None:
    """Every search with its limits would be."""
    with pytest.raises(ValueError, match="expected one that is known of this device: p10"):
        measured_profile(has_percentiles=False, limits={"latency_percentile": meant})
    assert measured_profile(limits={"latency_percentile": meant}).limit_percentile == meant


@pytest.mark.parametrize("higher", [(1.0, 1.1), (1.0,)])
def test_no_network_takes_less_at_a_higher_percentile(higher: tuple[float, ...]) -> None:
    """Else a bound at p90 could be below one at p50."""
    p50 = PercentileRatios(ratio=1.0, ratios=(1.0, 1.2))
    with pytest.raises(ValueError, match="expected those of p90 to be of the same networks as those of p50, and none"):
        Percentiles(num_networks=2, p50=p50, p90=PercentileRatios(ratio=1.5, ratios=higher))
