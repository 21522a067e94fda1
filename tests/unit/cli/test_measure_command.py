"""What `measure` prints for people, from made results; nothing is measured."""

import sys
from typing import Any

import pytest

from fedsup_deploy.cli.measure import _table
from fedsup_deploy.commands.measure import EstimatedEnergy, MeasuredModel
from fedsup_deploy.ondevice.records import EnergyRecord

ENERGY = EnergyRecord(
    energy_mj=4.0, net_energy_mj=1.5, idle_power_w=0.5, num_runs=10, seconds=2.0, covers="package", source="RAPL"
)


def result(**changes: Any) -> MeasuredModel:
    statistics = {"num_runs": 1500, "min_ms": 0.5, "p10_ms": 0.75, "p50_ms": 1.0, "p90_ms": 2.0, "mean_ms": 1.25}
    stability = {
        "statistic": "p10",
        "disagreement": 0.01,
        "drift": 0.125,
        "stable_within": 0.05,
        "spread": 0.25,
        "spread_within": 0.1,
    }
    given: dict[str, Any] = {
        "protocol": {"name": "quick"},
        "statistics": {**statistics, "p90_bound_ms": 2.5},
        "stability": {**stability, "verdict": "unstable"},
        "noise": {"p10": 0.125, "p50": 0.2, "p90": 0.3},
        "is_min_runs_met": True,
        "is_min_duration_met": True,
        "load_ms": 10.0,
        "first_run_ms": 3.0,
        "peak_rss_mib": None,
        "ruler": None,
        "energy": None,
        "int8": None,
        "pictures": None,
        "energy_estimated": None,
        "is_recorded": False,
        "saved_to": None,
        "environment": {},
    }
    return MeasuredModel(**{**given, **changes})


def printed(shown: MeasuredModel) -> list[str]:
    """Return the lines of the output, without the rule below the table's heads."""
    lines = [line.strip() for line in _table(shown)(sys.maxsize)]
    return [line for line in lines if line.strip("- ")]


def test_the_latency_stands_in_a_table_and_the_verdict_in_the_last_line() -> None:
    head, row, *lines = printed(result())
    assert head.split("  ") == ["min ms", "p10 ms", "p50 ms", "p90 ms", "runs"]
    assert row.split() == ["0.5", "0.75", "1", "2", "1500"]
    assert lines == [
        "once: load 10 ms, first run 3 ms, cold: no latency",
        "memory: - MiB, the most this process held",
        "unstable: p10 differs by 12.5% between parts of the session (stable: 5%), by 25.0% between visits "
        "(stable: 10%)",
    ]


@pytest.mark.parametrize(
    ("times_as_fast", "expected"),
    [
        (1.5, "int8: 1.5 times as fast as fp32 (stable)"),
        (1.0, "int8: 1 times as fast as fp32 (stable): not faster here (that is above 1.02); use the fp32 file"),
        (0.5, "int8: 0.5 times as fast as fp32 (stable): not faster here (that is above 1.02); use the fp32 file"),
    ],
)
def test_both_files_of_a_bundle_stand_in_the_table_and_how_they_compare_below(
    times_as_fast: float, expected: str
) -> None:
    speed = {"times_as_fast": times_as_fast, "noise": 0.02, "faster_above": 1.02, "verdict": "stable"}
    shown = result()
    int8 = {"statistics": {**shown.statistics, "p10_ms": 0.5, "num_runs": 1600}, "speed": speed}
    head, fp32_row, int8_row, *lines = printed(result(int8=int8))
    assert head.split("  ") == ["file", "min ms", "p10 ms", "p50 ms", "p90 ms", "runs"]
    assert fp32_row.split() == ["fp32", "0.5", "0.75", "1", "2", "1500"]
    assert int8_row.split() == ["int8", "0.5", "0.5", "1", "2", "1600"]
    assert expected in lines


@pytest.mark.parametrize(
    ("limit_ms", "percentile", "changes", "verdict"),
    [
        (1.0, "p50", {}, "met"),
        (0.99, "p50", {}, "undecided"),  # the made measurement is unstable
        (0.75, "p10", {}, "met"),
        (1.99, "p90", {}, "undecided"),
        (1.99, "p90", {"noise": {"p90": 0.001}}, "not met"),
        (1.99, "p90", {"noise": {"p90": 0.1}}, "undecided"),
    ],
)
def test_what_a_latency_is_held_to_is_told_with_its_verdict(
    limit_ms: float, percentile: Any, changes: dict[str, Any], verdict: str
) -> None:
    shown = result(**changes)
    stability = {**shown.stability, "verdict": "stable" if changes else "unstable"}
    held = result(**changes, stability=stability).held_to(limit_ms, percentile)
    assert held.fail_above is not None
    assert (held.fail_above.measured_ms, held.fail_above.verdict) == (shown.statistics[f"{percentile}_ms"], verdict)
    assert f"{percentile} at most {limit_ms:g} ms: {verdict}" in printed(held)


@pytest.mark.parametrize(("precision", "measured_ms"), [("fp32", 1.0), ("int8", 0.5), (None, 1.0)])
def test_what_is_held_is_the_file_in_the_number_format_of_the_profile(precision: Any, measured_ms: float) -> None:
    shown = result(precision=precision)
    speed = {"times_as_fast": 2.0, "noise": 0.02, "faster_above": 1.02, "verdict": "stable"}
    int8 = {
        "statistics": {**shown.statistics, "p50_ms": 0.5},
        "stability": shown.stability,
        "noise": shown.noise,
        "speed": speed,
    }
    found = result(precision=precision, int8=int8).held_to(2.0, "p50").fail_above
    assert found is not None
    assert found.measured_ms == measured_ms


def test_where_the_machine_is_not_the_device_that_is_said_first() -> None:
    """And not what to do about the speed of int8 there."""
    speed = {"times_as_fast": 0.5, "noise": 0.02, "faster_above": 1.02, "verdict": "stable"}
    given = {"int8": {"statistics": result().statistics, "speed": speed}}
    there = {"arch": "aarch64", "arch_here": "x86_64", "may_be_here": False}
    first, *lines = printed(result(**given, device=there))
    assert first.startswith("not the device (x86_64 here, aarch64 there): ")
    assert "int8: 0.5 times as fast as fp32 (stable), not on the device" in lines
    here = printed(result(**given, device={**there, "arch_here": "aarch64", "may_be_here": True}))
    assert here == printed(result(**given))


def test_pictures_have_lines_of_their_own() -> None:
    shown = result()
    step = {"statistics": {**shown.statistics, "num_runs": 640}, "stability": {**shown.stability, "verdict": "stable"}}
    pictures = {
        "num_pictures": 32,
        "num_found": 4500,
        "smallest": {"width": 160, "height": 120},
        "largest": {"width": 640, "height": 480},
        "pillow": "11.1.0",
        "decode": {**step, "statistics": {**step["statistics"], "p50_ms": 6.02, "p90_ms": 7.5}},
        "prepare": step,
    }
    lines = printed(result(pictures=pictures))
    of_pictures = [
        "pictures: 32 of 4,500, 160x120 to 640x480 pixels; before the network, by Pillow 11.1.0",
        "decode: p50 6.02 ms, p90 7.5 ms a picture, 640 runs, stable",
        "prepare: p50 1 ms, p90 2 ms a picture, 640 runs, stable",
    ]
    assert [line for line in lines if line not in printed(shown)] == of_pictures
    one = {**pictures, "num_pictures": 1, "num_found": 1, "smallest": pictures["largest"]}
    assert "pictures: 1, 640x480 pixels; before the network, by Pillow 11.1.0" in printed(result(pictures=one))


def test_the_full_protocol_shows_the_bound() -> None:
    head, row, *_ = printed(result(protocol={"name": "full"}))
    assert "p90 bound ms" in head
    assert row.split() == ["0.5", "0.75", "1", "2", "2.5", "1500"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"is_recorded": True}, "recorded in the bundle's measured.json"),
        ({"saved_to": "profiles/a.yaml"}, "saved to profiles/a.yaml; as it is unstable, profile fit leaves it out"),
        (
            {"energy_estimated": EstimatedEnergy(energy_mj=4.0, active_power_w=10.0)},
            "energy: 4 mJ ESTIMATED as 10 W, which the profile states, x the median latency; not measured",
        ),
        ({"is_min_runs_met": False}, "too short: fewer runs or less time than the protocol wants"),
        (
            {"energy": ENERGY},
            "energy: 4 mJ, 1.5 mJ above idle; RAPL of the package",
        ),
        ({"why_no_energy": "no sensor"}, "energy: not measured: no sensor"),
        (
            {"ruler": {"ratio": 1.5, "num_visits": 50, "num_visits_kept": 40, "stability": {"verdict": "stable"}}},
            "ratio to the ruler: 1.5, by 40 of 50 visits during which it was steady; stable",
        ),
        (
            {"ruler": {"ratio": None, "num_visits": 50, "num_visits_kept": 0, "stability": {"verdict": "unstable"}}},
            "ratio to the ruler: -, by 0 of 50 visits during which it was steady; unstable",
        ),
    ],
)
def test_what_else_is_known_has_a_line_each(changes: dict[str, Any], expected: str) -> None:
    assert expected in printed(result(**changes))
    assert expected not in printed(result())
