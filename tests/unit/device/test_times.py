"""From visits to times, on made visits of a machine with two speeds."""

from typing import Any

import numpy as np
import pytest

from fedsup_deploy.device.building.times import times_of
from fedsup_deploy.errors import GateError
from fedsup_deploy.ondevice.latency_statistics import quantile, summarize


def events_of(visits_ms: dict[tuple[str, str], list[float]]) -> list[dict[str, Any]]:
    """The events of a session, by model and state."""
    num_rounds = len(next(iter(visits_ms.values())))
    events: list[dict[str, Any]] = [{"event": "environment", "cpu": "Toy"}]
    for index in range(num_rounds):
        events += [
            {"event": "visit", "round": index, "model": model, "state": state, "num_runs": 20}
            | dict.fromkeys(("min_ms", "p10_ms", "p50_ms", "p90_ms"), of[index])
            for (model, state), of in visits_ms.items()
        ]
        events.append({"event": "round", "done": index + 1, "seconds": index + 0.5})
    return events


def test_a_time_is_the_quantile_on_which_even_and_odd_rounds_agree() -> None:
    """Half the visits are fast: the median of even rounds is slow, that of odd ones fast; the quarter fast in both."""
    fast, slow = 1.0, 1.5
    visits = [slow, fast, slow, slow, slow, fast, fast, fast, fast, slow, slow, fast] * 2
    times = times_of(events_of({("a", "cached"): visits, ("a", "uncached"): visits}), ["a"], "")
    assert times.share < 0.5
    assert (times.cached_us, times.uncached_us) == ({"a": 1000.0}, {"a": 1000.0})
    assert times.disagreement == {"a": 0.0}
    assert (times.num_rounds, times.seconds) == (24, 23.5)


def test_a_rare_fast_visit_is_no_time() -> None:
    """Only one round was fast: the fastest visit is a lottery, the median is not."""
    times = times_of(events_of({("a", "cached"): [2.0] * 19 + [1.0]}), ["a"], "")
    assert times.share > 0
    assert times.cached_us["a"] == pytest.approx(2000.0)


def test_of_a_round_that_was_made_twice_the_second_counts() -> None:
    events = events_of({("a", "cached"): [2.0, 2.0, 2.0]})
    first = {**next(event for event in events if event.get("round") == 1), "p10_ms": 9.0, "p90_ms": 9.0}
    times = times_of([*events[:1], first, *events[1:]], ["a"], "")
    assert times.cached_us == {"a": 2000.0}
    assert times.higher_us == {"p50": {"a": 2000.0}, "p90": {"a": 2000.0}}


def test_a_restless_session_is_refused() -> None:
    visits = [1.0, 1.2] * 6
    with pytest.raises(
        GateError, match=r"unstable: even and odd rounds of the median network differ by 20\.0%.*and measure longer"
    ):
        times_of(events_of({("a", "cached"): visits}), ["a"], "measure longer")


def summaries_of(samples_ns: list[list[int]]) -> list[dict[str, Any]]:
    """The events of a session of so many visits of one model, with the times of their runs."""
    events: list[dict[str, Any]] = [{"event": "environment", "cpu": "Toy"}]
    for index, visit_ns in enumerate(samples_ns):
        events.append({"event": "visit", "round": index, "model": "a", "state": "cached", **summarize(visit_ns)})
        events.append({"event": "round", "done": index + 1, "seconds": index + 0.5})
    return events


@pytest.mark.parametrize(
    ("slow", "share_slow", "spread", "num_runs"),
    [(1.0, 0.0, 0.05, 25), (1.5, 0.3, 0.03, 25), (1.5, 0.5, 0.03, 25), (1.4, 0.08, 0.1, 5)],
)
def test_a_higher_percentile_is_that_of_all_runs(slow: float, share_slow: float, spread: float, num_runs: int) -> None:
    """Of a machine with one speed or two: though visits are told by a few figures only, within 2 %."""
    draw = np.random.default_rng(0)
    visits: list[list[int]] = []
    for _ in range(120):
        ns = 1e6 * (slow if draw.random() < share_slow else 1.0)
        visits.append((ns * (1 + np.abs(draw.normal(0, spread, num_runs)))).astype(int).tolist())
    times = times_of(summaries_of(visits), ["a"], "")
    every_run_ns = [ns for visit_ns in visits for ns in visit_ns]
    found = {name: of["a"] for name, of in times.higher_us.items()}
    expected = {"p50": quantile(every_run_ns, 0.5) / 1e3, "p90": quantile(every_run_ns, 0.9) / 1e3}
    assert found == pytest.approx(expected, rel=0.02)


def test_a_visit_counts_by_its_runs() -> None:
    """Half of the visits are slow, and have fewer runs: a sixth of all, or less than a tenth."""
    fast = [1_000_000] * 10
    for num_slow, expected in ((2, {"p50": 1000.0, "p90": 2000.0}), (1, {"p50": 1000.0, "p90": 1000.0})):
        slow = [2_000_000] * num_slow
        times = times_of(summaries_of([fast, fast, slow, slow] * 6), ["a"], "")
        assert {name: of["a"] for name, of in times.higher_us.items()} == pytest.approx(expected)


def test_no_percentile_is_below_a_lower_one() -> None:
    """The 10th is that of the median visit, which is slow; most runs belong to the fast ones, and are in the median."""
    times = times_of(summaries_of([[1_000_000] * 20, [1_040_000] * 2, [1_040_000] * 2] * 4), ["a"], "")
    assert times.cached_us["a"] <= times.higher_us["p50"]["a"] <= times.higher_us["p90"]["a"]
