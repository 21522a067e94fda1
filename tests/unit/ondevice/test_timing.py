"""Visits and sessions, by a clock that tests move."""

import gc
from collections.abc import Iterator

import pytest

from fedsup_deploy.ondevice import timing
from fedsup_deploy.ondevice.latency_statistics import pooled_p10, speed_of, stability


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
    visits = timing.time_session([clock.run_once], protocol, clock)[0]
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
    visits = timing.time_session([clock.run_once], timing.Protocol("test", 1, 1.0, 60.0, 60.0), clock)[0]
    found = stability(visits, pooled_p10, "p10")
    assert found["verdict"] == "stable"
    assert len(visits) > 10
    assert len(visits) % 10 == 0
    before = stability(visits[:-10], pooled_p10, "p10")
    assert before["verdict"] == "unstable"


def test_a_session_that_never_settles_ends() -> None:
    clock = DriftingClock(until_run=10**9)
    visits = timing.time_session([clock.run_once], timing.Protocol("test", 1, 1.0, 3.0, 60.0), clock)[0]
    assert stability(visits, pooled_p10, "p10")["verdict"] == "unstable"
    seconds = sum(sum(visit) for visit in visits) / 1e9
    assert 3.0 <= seconds < 3.0 + 2 * 10 * timing.VISIT_SECONDS


class TwoModels(Clock):
    """A clock that two models move: one by 10 ms, the other by as much as a schedule says, run by run.

    Args:
        int8_ms: Of each run of the second model, in turn.
    """

    def __init__(self, *int8_ms: int) -> None:
        super().__init__()
        self.int8_ms, self.runs = int8_ms, 0
        self.order: list[str] = []

    def fp32(self) -> None:
        self.now_ns += 10_000_000
        self.order.append("fp32")

    def int8(self) -> None:
        self.now_ns += 1_000_000 * self.int8_ms[self.runs % len(self.int8_ms)]
        self.runs += 1
        self.order.append("int8")


SHORT = timing.Protocol("test", 1, 1.0, settle_seconds=2.0, max_seconds=60.0, warm_up_runs=1, warm_up_seconds=0.0)


def test_two_models_are_visited_in_turns_the_other_way_round_in_every_second_round() -> None:
    """Three runs bring each back into the caches; then come ten of 10 ms, or twenty of 5 ms."""
    clock = TwoModels(5)
    fp32_ns, int8_ns = timing.time_session([clock.fp32, clock.int8], SHORT, clock)
    assert [len(visit) for visit in fp32_ns] == [10] * 10
    assert [len(visit) for visit in int8_ns] == [20] * 10
    turn = ["fp32"] * 13 + ["int8"] * 23
    back = ["int8"] * 23 + ["fp32"] * 13
    assert clock.order == (turn + back) * 5


def test_int8_is_as_many_times_as_fast_as_its_tenth_percentile_is_lower() -> None:
    clock = TwoModels(4)
    fp32, int8, speed = timing.measure_both(clock.fp32, clock.int8, SHORT, clock)
    assert (fp32["statistics"]["p10_ms"], int8["statistics"]["p10_ms"]) == (10.0, 4.0)
    assert speed == {"times_as_fast": 2.5, "noise": 0.0, "faster_above": 1.02, "verdict": "stable"}
    assert fp32["protocol"] == int8["protocol"]
    assert (int8["is_min_runs_met"], int8["is_min_duration_met"]) == (True, True)


def test_the_model_that_is_timed_alone_is_timed_as_before() -> None:
    """No run brings it back into the caches: nothing ran in between."""
    clock = TwoModels(5)
    timing.time_session([clock.fp32], SHORT, clock)
    assert clock.order == ["fp32"] * 100


def test_two_models_go_on_until_the_slower_in_settling_has_settled() -> None:
    """int8 gets slower for 30 visits of 0.1 s; fp32 never changes."""
    clock = TwoModels(*(10 + visit for visit in range(15) for _ in range(12)), *[25] * 10_000)
    visits = timing.time_session([clock.fp32, clock.int8], SHORT._replace(settle_seconds=60.0), clock)
    assert len(visits[0]) == len(visits[1]) > 10
    assert stability(visits[1], pooled_p10, "p10")["verdict"] == "stable"
    assert speed_of(*visits)["verdict"] == "stable"


def test_two_models_that_never_settle_end() -> None:
    clock = TwoModels(*range(10, 1000))
    visits = timing.time_session([clock.fp32, clock.int8], SHORT, clock)
    assert speed_of(*visits)["verdict"] == "unstable"
    assert 2.0 <= sum(map(sum, visits[0])) / 1e9 < 4.0


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
