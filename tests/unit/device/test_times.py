"""From visits to times, on made visits of a machine with two speeds."""

from typing import Any

import pytest

from fedsup_deploy.device.building.times import times_of
from fedsup_deploy.errors import GateError


def events_of(visits_ms: dict[tuple[str, str], list[float]]) -> list[dict[str, Any]]:
    """The events of a session, by model and state."""
    num_rounds = len(next(iter(visits_ms.values())))
    events: list[dict[str, Any]] = [{"event": "environment", "cpu": "Toy"}]
    for index in range(num_rounds):
        events += [
            {"event": "visit", "round": index, "model": model, "state": state, "p10_ms": of[index]}
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
    first = {**next(event for event in events if event.get("round") == 1), "p10_ms": 9.0}
    times = times_of([*events[:1], first, *events[1:]], ["a"], "")
    assert times.cached_us == {"a": 2000.0}


def test_a_restless_session_is_refused() -> None:
    visits = [1.0, 1.2] * 6
    with pytest.raises(
        GateError, match=r"unstable: even and odd rounds of the median network differ by 20\.0%.*and measure longer"
    ):
        times_of(events_of({("a", "cached"): visits}), ["a"], "measure longer")
