"""How long a run still takes, held to what recorded runs did take."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedsup_deploy.run_events import Evaluation, Phase, Round, RunEvent, TrainStarted
from fedsup_deploy.runs.history import read_run_events
from fedsup_deploy.runs.time_left import POWER, TimeLeft

RECORDED = Path(__file__).parents[2] / "data" / "recorded-runs"
NEAR = 0.2


def told_and_true(events: list[RunEvent]) -> Iterator[tuple[float, float | None, float]]:
    """Yield after each event the share of the work that is done, what is told, and what it did take."""
    times = [0.0]
    for before, event in itertools.pairwise(events):
        assert before.unix_time_s is not None
        assert event.unix_time_s is not None
        # Nobody worked between a stop and the start after it.
        is_gap = isinstance(event, TrainStarted)
        times.append(times[-1] + (0.0 if is_gap else event.unix_time_s - before.unix_time_s))
    time_left = TimeLeft()
    for event, time in zip(events, times, strict=True):
        time_left.read(event)
        yield time / times[-1], time_left.seconds, times[-1] - time


@pytest.mark.parametrize("run", ["digits", "fashion-mnist", "cifar10"])
@pytest.mark.parametrize("share", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
def test_it_is_right_within_a_fifth_after_a_tenth_of_the_work(run: str, share: float) -> None:
    """A tenth is done while all still train the smallest subnet, and before the first evaluation."""
    events = read_run_events(RECORDED / run)
    told, true = next((told, true) for done, told, true in told_and_true(events) if done >= share)
    assert told == pytest.approx(true, rel=NEAR)


def test_it_is_right_from_the_moment_a_run_goes_on() -> None:
    """Workers start in the first round then, which took four times as long as others."""
    events = read_run_events(RECORDED / "digits-resumed")
    (resumed,) = (at for at, event in enumerate(events) if at and isinstance(event, TrainStarted))
    found = list(told_and_true(events))[resumed : resumed + 10]
    assert [told for _, told, _ in found] == [pytest.approx(true, rel=NEAR) for _, _, true in found]


def test_what_a_run_has_told_of_itself_is_what_a_reader_finds() -> None:
    time_left, recorded = TimeLeft(), []
    for event in read_run_events(RECORDED / "digits-resumed"):
        time_left.read(event)
        recorded.append((event.document().get("seconds_left"), time_left.seconds))
    assert len(recorded) > 20
    assert [found for _, found in recorded] == [pytest.approx(told, abs=0.001) for told, _ in recorded]


def started(first_round: int = 0, **fields: object) -> TrainStarted:
    return TrainStarted.model_validate({"round": first_round, "rounds": 10, "num_clients": 2, **fields})


def played(number: int, seconds: float, macs: int = 0) -> Round:
    return Round(round=number, loss=1.0, clients=[0], bytes_down=1, bytes_up=1, client_macs=macs, seconds=seconds)


def told(*events: RunEvent) -> float | None:
    time_left = TimeLeft()
    for event in events:
        time_left.read(event)
    return time_left.seconds


def test_nothing_is_known_before_the_first_round() -> None:
    assert told() is None
    assert told(started()) is None


def test_a_run_of_an_older_version_has_one_phase() -> None:
    assert told(started(), played(0, 9.0), played(1, 2.0)) == pytest.approx(16.0)


def test_the_first_round_counts_only_while_there_is_no_other() -> None:
    assert told(started(), played(0, 9.0)) == pytest.approx(81.0)
    assert told(started(), played(0, 9.0), played(1, 1.0)) == pytest.approx(8.0)


def test_rounds_to_come_that_are_more_work_take_longer() -> None:
    phases = [Phase(rounds=2, client_macs=100), Phase(rounds=8, client_macs=800)]
    events = started(phases=phases), played(0, 5.0, 100), played(1, 1.0, 100)
    assert told(*events) == pytest.approx(8 * 8**POWER)
    assert told(*events, played(2, 3.0, 800)) == pytest.approx(7 * 3.0), "as soon as one was seen, that counts"


def test_the_evaluations_to_come_are_counted() -> None:
    evaluated = started(evaluate_every=4, evaluation_macs=0)
    evaluation = Evaluation(round=3, accuracy_largest=0.5, accuracy_smallest=0.5, seconds=7.0)
    before = [evaluated, *(played(number, 1.0) for number in range(4))]
    assert told(*before, evaluation) == pytest.approx(6 + 2 * 7.0), "after the eighth round, and after the last"
    assert told(*before, evaluation, *(played(number, 1.0) for number in range(4, 10))) == pytest.approx(7.0)


def test_after_a_start_the_rounds_of_before_count_until_there_are_some_of_now() -> None:
    before = started(), *(played(number, 1.0) for number in range(4)), started(4)
    assert told(*before) == pytest.approx(6.0)
    assert told(*before, played(4, 9.0)) == pytest.approx(5.0)
    assert told(*before, played(4, 9.0), *(played(number, 3.0) for number in (5, 6, 7))) == pytest.approx(6.0)
