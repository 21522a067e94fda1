"""Visits and sessions, by a clock that tests move."""

import gc
from collections.abc import Iterator

import pytest

from fedsup_deploy.ondevice import timing
from fedsup_deploy.ondevice.latency_statistics import pooled_p10, stability


class Clock:
    """A clock that only running the model moves, by 10 ms."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.was_collecting: list[bool] = []

    def run_once(self) -> None:
        self.now_ns += 10_000_000
        self.was_collecting.append(gc.isenabled())

    def __call__(self) -> int:
        return self.now_ns


@pytest.mark.parametrize(
    ("min_runs", "min_seconds", "max_seconds", "expected_runs"),
    [(5, 0.0, 60.0, 5), (1, 0.1, 60.0, 10), (5, 0.1, 60.0, 10), (100, 0.1, 0.2, 20), (1, 0.0, 0.0, 1)],
)
def test_a_visit_ends_when_both_minima_are_reached_or_time_is_up(
    min_runs: int, min_seconds: float, max_seconds: float, expected_runs: int
) -> None:
    clock = Clock()
    samples = timing.time_visit(clock.run_once, min_runs, min_seconds, max_seconds, clock)
    assert samples == [10_000_000] * expected_runs


@pytest.mark.parametrize(
    ("min_runs", "min_seconds", "max_seconds", "expected_visits", "expected_runs"),
    [
        (1, 1.0, 60.0, 10, 10),  # visits of 0.1 s, 10 runs each
        (1, 0.1, 60.0, 10, 1),  # visits of 0.01 s
        (150, 1.0, 60.0, 20, 10),  # more runs are wanted: on to the next look
        (1000, 1.0, 0.5, 5, 10),  # time is up
        (1000, 1.0, 0.0, 2, 10),  # but two visits there are
    ],
)
def test_a_session_has_visits_that_together_reach_the_minima(
    min_runs: int, min_seconds: float, max_seconds: float, expected_visits: int, expected_runs: int
) -> None:
    clock = Clock()
    protocol = timing.Protocol("test", min_runs, min_seconds, settle_seconds=9.0, max_seconds=max_seconds)
    visits = timing.time_session(clock.run_once, protocol, clock)
    assert [len(visit) for visit in visits] == [expected_runs] * expected_visits


class DriftingClock(Clock):
    """A clock by which the model gets slower with every run, at first."""

    def __init__(self, until_run: int) -> None:
        super().__init__()
        self.until_run, self.runs = until_run, 0

    def run_once(self) -> None:
        self.runs += 1
        self.now_ns += 10_000_000 + 1_000_000 * min(self.runs, self.until_run)


def test_a_session_goes_on_until_its_parts_agree() -> None:
    """p10 of the halves of 10 visits differs; when most visits are of the last speed it does not."""
    clock = DriftingClock(until_run=20)
    visits = timing.time_session(clock.run_once, timing.Protocol("test", 1, 1.0, 60.0, 60.0), clock)
    found = stability(visits, pooled_p10, "p10")
    assert found["verdict"] == "stable"
    assert len(visits) > 10
    assert len(visits) % 10 == 0
    before = stability(visits[:-10], pooled_p10, "p10")
    assert before["verdict"] == "unstable"


def test_a_session_that_never_settles_ends() -> None:
    clock = DriftingClock(until_run=10**9)
    visits = timing.time_session(clock.run_once, timing.Protocol("test", 1, 1.0, 3.0, 60.0), clock)
    assert stability(visits, pooled_p10, "p10")["verdict"] == "unstable"
    seconds = sum(sum(visit) for visit in visits) / 1e9
    assert 3.0 <= seconds < 3.0 + 2 * 10 * timing.VISIT_SECONDS


def test_a_measurement_says_whether_the_minima_were_met() -> None:
    """A model that takes 10 ms gets ten runs in 0.1 s."""
    clock = Clock()
    protocol = timing.Protocol("test", min_runs=200, min_seconds=0.05, settle_seconds=0.05, max_seconds=0.1)
    latency = timing.measure_latency(clock.run_once, protocol, clock)
    assert latency["statistics"]["num_runs"] == 10
    assert (latency["is_min_runs_met"], latency["is_min_duration_met"]) == (False, True)
    assert latency["statistics"]["p90_bound_ms"] is None
    assert latency["protocol"] == {
        "batch": 1,
        "warm_up_runs": 50,
        "warm_up_seconds": 0.5,
        "name": "test",
        "min_runs": 200,
        "min_seconds": 0.05,
        "settle_seconds": 0.05,
        "max_seconds": 0.1,
    }


def test_the_warm_up_does_not_count() -> None:
    """50 runs of 10 ms warm up, and take 0.5 s; then come ten visits of 0.1 s."""
    clock = Clock()
    protocol = timing.Protocol("test", min_runs=1, min_seconds=1.0, settle_seconds=1.0, max_seconds=60.0)
    latency = timing.measure_latency(clock.run_once, protocol, clock)
    assert (latency["statistics"]["num_runs"], clock.now_ns) == (100, (50 + 100) * 10_000_000)


def test_garbage_is_not_collected_while_timing_and_is_afterwards() -> None:
    clock = Clock()
    assert gc.isenabled()
    timing.time_visit(clock.run_once, 3, 0.0, 1.0, clock)
    assert clock.was_collecting == [False] * 3
    assert gc.isenabled()


def test_garbage_collection_is_back_after_a_failing_run() -> None:
    def fail() -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        timing.time_visit(fail, 1, 0.0, 1.0)
    assert gc.isenabled()


@pytest.fixture
def collecting() -> Iterator[None]:
    yield
    gc.enable()


def test_garbage_collection_stays_off_if_it_was(collecting: None) -> None:
    gc.disable()
    timing.time_visit(Clock().run_once, 1, 0.0, 0.0)
    assert not gc.isenabled()
