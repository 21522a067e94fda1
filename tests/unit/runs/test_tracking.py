"""Trackers: TensorBoard's files as TensorBoard reads them, and trackers that fail."""

import threading
from pathlib import Path
from typing import Any

import pytest

from fedsup_deploy import registry
from fedsup_deploy.errors import DependencyError
from fedsup_deploy.run_events import RunEvent
from fedsup_deploy.runs import tensorboard, tracking
from fedsup_deploy.runs.history import read_run_events

RECORDED = Path(__file__).parents[2] / "data" / "recorded-runs" / "digits-resumed"


def points(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return all points that TensorBoard finds, by tag."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder / tensorboard.FOLDER), size_guidance={"scalars": 0})
    found.Reload()
    return {tag: [(each.step, each.value) for each in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def tracked(folder: Path, before: list[RunEvent], now: list[RunEvent]) -> tracking.Tracking:
    with tracking.track(["tensorboard"], folder, before) as (tracker,):
        for event in now:
            tracker.tell(event)
    return tracker


def test_tensorboard_reads_every_round_and_evaluation(tmp_path: Path) -> None:
    events = read_run_events(RECORDED)
    assert tracked(tmp_path, [], events).failure() is None
    found = points(tmp_path)
    rounds = {event.round: event for event in events if event.event == "round"}
    assert [step for step, _ in found["loss/training"]] == list(range(1, 25))
    for tag, name in {
        "loss/training": "loss",
        "loss/before_training": "loss_before",
        "bytes/up": "bytes_up",
        "bytes/down": "bytes_down",
        "seconds/round": "seconds",
    }.items():
        assert [value for _, value in found[tag]] == pytest.approx([getattr(each, name) for each in rounds.values()])
    assert [step for step, _ in found["accuracy/largest"]] == [8, 16, 24]
    assert found["accuracy/smallest"][-1][1] == pytest.approx(events[-1].accuracy_smallest)
    assert {value for _, value in found["clients/answered"]} == {10.0}
    assert {value for _, value in found["health/warnings"]} == {0.0}


def test_no_point_is_there_twice_after_a_run_was_resumed(tmp_path: Path) -> None:
    """Killed after twelve rounds, of which the last three are trained again."""
    events = read_run_events(RECORDED)
    rounds = [event for event in events if event.event == "round"]
    tracked(tmp_path, [], rounds[:12])
    tracked(tmp_path, rounds[:9], rounds[9:])
    assert [step for step, _ in points(tmp_path)["loss/training"]] == list(range(1, 25))


class Failing:
    """Fails at the third event."""

    num_read = 0

    def __init__(self, folder: Path) -> None:
        pass

    def read(self, _event: RunEvent) -> None:
        type(self).num_read += 1
        if type(self).num_read == 3:
            raise OSError(28, "No space left on device")

    def close(self) -> None:
        pass


def test_a_tracker_that_fails_is_told_of_once_and_asked_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Failing, "num_read", 0)
    monkeypatch.setitem(registry.TABLES["tracker"], "failing", "x:y")
    monkeypatch.setattr(registry, "load", lambda _: Failing)
    events = read_run_events(RECORDED)
    with tracking.track(["failing"], tmp_path, []) as (tracker,):
        for event in events:
            tracker.tell(event)
    assert tracker.failure() == "No space left on device"
    assert tracker.failure() is None
    assert Failing.num_read == 3


def test_a_tracker_that_hangs_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    class Hanging(Failing):
        def read(self, _event: RunEvent) -> None:
            released.wait()

    monkeypatch.setitem(registry.TABLES["tracker"], "hanging", "x:y")
    monkeypatch.setattr(registry, "load", lambda _: Hanging)
    monkeypatch.setattr(tracking, "_PATIENCE_S", 0.0)
    monkeypatch.setattr(tracking, "_MOST_WAITING", 5)
    with tracking.track(["hanging"], tmp_path, []) as (tracker,):
        for event in read_run_events(RECORDED):
            tracker.tell(event)
    assert tracker.failure() == "it is 5 events behind"
    released.set()


def test_a_missing_library_is_said_before_anything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(_name: str, *_rest: Any) -> None:
        return None

    monkeypatch.setattr("importlib.util.find_spec", nothing)
    with pytest.raises(DependencyError, match=r"pip install 'fedsup-deploy\[tensorboard\]'$"):
        tracking.require(["tensorboard"])
