"""Every shipped profile: complete, and true to where its figures come from.

What was deduced from published figures promises no interval and gives them back; what was measured says how far off it
is on networks that it was not made from. A measured profile that nobody ships is held to the same.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from fedsup_deploy import registry
from fedsup_deploy.config.load import load_yaml, validate
from fedsup_deploy.device.held_latency import held_latency
from fedsup_deploy.device.heldout import HeldOutError
from fedsup_deploy.device.predictor import predict_interval, predictor_for
from fedsup_deploy.device.profile import Published, load_profile
from fedsup_deploy.device.published.check import check_profiles, published_error
from fedsup_deploy.device.published.tables import KIND, load_published, published_tables
from fedsup_deploy.device.summary import summary_of
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.ondevice.records import Percentile
from fedsup_deploy.resources import find, shipped_names
from fedsup_deploy.space.cost import costs, costs_of
from fedsup_deploy.space.search_space import SearchSpace

#: What `profile build` makes looks like this one.
ADDED = Path(__file__).parent / "added" / "added-board.yaml"
NAMES = [*shipped_names("profiles"), str(ADDED)]
MEASURED = [name for name in NAMES if load_profile(name).is_measured]
DEDUCED = [name for name in NAMES if name not in MEASURED]


@pytest.fixture(scope="module")
def paper_space() -> SearchSpace:
    return validate(load_yaml(find("configs/spaces", "fedsup-mobilenet")), SearchSpace)


def test_the_profiles_of_the_contract_are_shipped() -> None:
    expected = {
        "coral-edge-tpu",
        "intel-n100",
        "jetson-nano",
        "jetson-orin-nano",
        "pixel-class-phone",
        "raspberry-pi-4",
        "raspberry-pi-5",
        "stm32h7",
        "x86-laptop",
    }
    assert expected <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_profile_is_complete(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == Path(name).stem
    assert set(profile.formats) <= set(registry.names("exporter"))
    assert profile.limits.latency_ms is not None
    assert json.loads(json.dumps(summary_of(profile).to_dict()))["name"] == profile.name
    assert len(profile.profile_hash) == 64


@pytest.mark.parametrize("name", DEDUCED)
def test_a_profile_that_was_not_measured_claims_no_interval_and_says_so(name: str) -> None:
    """What others measured tells how far off the profile is; it is no ground for a probability."""
    profile = load_profile(name)
    assert profile.error == "none" or profile.error.method == "published"
    assert predict_interval(profile, np.array([1.0])) is None
    assert "measure before promising" in profile.description


@pytest.mark.parametrize("name", MEASURED)
def test_a_measured_profile_says_how_it_was_measured_and_how_far_off_it_is(name: str) -> None:
    profile = load_profile(name)
    assert profile.runtime.version is not None
    assert profile.error != "none"
    assert profile.error.method in {"held-out", "leave-one-out"}
    assert profile.error.num_heldout >= 10
    interval = predict_interval(profile, np.array([1.0]))
    assert interval is not None
    low, high = np.ravel(interval)
    assert 0 < low < high


@pytest.mark.parametrize("name", DEDUCED)
def test_published_figures_count_as_a_median_and_as_nothing_else(name: str) -> None:
    profile = load_profile(name)
    assert (profile.predicted_percentile, profile.percentiles) == ("p50", None)
    held = held_latency(profile, "p50")
    assert (held.ratio, held.is_assumed, str(held)) == (1.0, True, "p50, assumed")
    percentiles: tuple[Percentile, ...] = ("p10", "p90")
    for percentile in percentiles:
        with pytest.raises(ConfigError, match=f"got {percentile}, but profile {name} is made of published figures"):
            held_latency(profile, percentile)


@pytest.mark.parametrize("name", DEDUCED)
def test_a_profile_states_the_error_that_follows_from_the_published_rows(name: str) -> None:
    profile = load_profile(name)
    expected = published_error(profile) or "none"
    if isinstance(expected, HeldOutError) and profile.error != "none":
        assert profile.error.ratios == pytest.approx(expected.ratios, abs=2e-4)
        assert profile.error.spearman == expected.spearman
    else:
        assert profile.error == expected


@pytest.mark.parametrize("name", NAMES)
def test_a_source_says_where_a_figure_comes_from_and_how(name: str) -> None:
    for path, entry in load_profile(name).provenance.items():
        if isinstance(entry, Published):
            assert any(character.isdigit() for character in entry.source) or "that of" in entry.source, path


@pytest.mark.parametrize("name", [name for name in NAMES if load_profile(name).latency.knows_any_network])
def test_costs_and_limits_make_sense_for_the_paper_space(name: str, paper_space: SearchSpace) -> None:
    """No subnet is slower than the largest, hardly one faster than the smallest, and the limit lets some of them pass.

    A wider subnet may have one layer less, a 1x1 convolution on a shortcut: where overheads rule, that can save 1 %.
    """
    profile = load_profile(name)
    predictor = predictor_for(profile)
    all_ms = predictor.predict(costs(paper_space, paper_space.enumerate_genes()).layers)
    corners = costs_of(paper_space, [paper_space.smallest, paper_space.largest])
    smallest_ms, largest_ms = predictor.predict(corners.layers)
    assert profile.limits.latency_ms is not None
    assert all_ms.max() == pytest.approx(largest_ms, rel=1e-12)
    assert all_ms.min() == pytest.approx(smallest_ms, rel=0.02)
    assert smallest_ms < min(profile.limits.latency_ms, largest_ms)


@pytest.mark.parametrize("name", ["stm32h7", "coral-edge-tpu"])
def test_a_small_device_has_room_for_the_paper_space(name: str, paper_space: SearchSpace) -> None:
    """In int8; else its limits would leave nothing to search."""
    profile = load_profile(name)
    work = costs_of(paper_space, [paper_space.largest], profile.latency.bytes_per_element)
    assert profile.latency.bytes_per_element == 1
    assert profile.limits.storage_mib is not None
    assert work.num_params[0] <= profile.limits.storage_mib * 2**20
    if profile.limits.activation_mib is not None:
        assert work.peak_activation_bytes[0] <= profile.limits.activation_mib * 2**20


def test_default_limits_of_the_fleet_admit_different_shares_of_the_paper_space(paper_space: SearchSpace) -> None:
    work = costs(paper_space, paper_space.enumerate_genes())
    largest = {}
    for name in ("jetson-nano", "raspberry-pi-4", "pixel-class-phone"):
        profile = load_profile(name)
        fits = predictor_for(profile).predict(work.layers) <= profile.limits.latency_ms
        if profile.limits.storage_mib is not None:
            fits &= work.num_params * 4 <= profile.limits.storage_mib * 2**20
        largest[name] = int(work.num_macs[fits].max())
    assert len(set(largest.values())) == 3


@pytest.mark.parametrize("name", NAMES)
def test_no_profile_fails_its_check(name: str) -> None:
    """A device that nobody has published anything about passes: nothing is judged."""
    assert check_profiles([name]).is_inside


@pytest.mark.parametrize("name", DEDUCED)
def test_a_profile_gives_back_what_it_was_deduced_from(name: str) -> None:
    result = check_profiles([name])
    assert result.profiles[0].num_judged >= 2
    deduced_from = [row.ratio for row in result.profiles[0].rows if row.role == "deduced from"]
    assert deduced_from
    assert deduced_from == pytest.approx([1] * len(deduced_from), rel=0.01)


@pytest.mark.parametrize("stem", shipped_names(KIND))
def test_published_latencies_are_about_shipped_profiles(stem: str) -> None:
    assert set(load_published(stem).profiles) <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_no_published_row_stands_there_twice(name: str) -> None:
    rows = [
        (table.source, table.device, table.runtime, table.threads, row.network)
        for table in published_tables(name)
        for row in table.rows
    ]
    assert len(rows) == len(set(rows))
