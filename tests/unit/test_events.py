"""The event log: lines on disk, listeners, what a resumed run forgets."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from fedsup_deploy.errors import ArtifactError, OutputError
from fedsup_deploy.events import EventFile, EventLog, read_events
from fedsup_deploy.run_events import Absences, HealthWarning


def warned(words: str, round_index: int = 3) -> HealthWarning:
    return HealthWarning(round=round_index, kind="new", subject="", words=words, figures={})


def test_event_is_one_line_with_the_time_and_reaches_the_listeners_without_it(tmp_path: Path) -> None:
    heard: list[dict[str, Any]] = []
    path = tmp_path / "events.jsonl"
    EventLog(path, (heard.append,)).record(warned("café\nline\u2028two"))
    fields = {"round": 3, "kind": "new", "subject": "", "words": "café\nline\u2028two", "figures": {}}
    expected = {"event": "health", **fields}
    assert heard == [expected]
    (line,) = path.read_text(encoding="utf-8").splitlines()
    on_disk = json.loads(line)
    assert on_disk.pop("unix_time_s") > 1.7e9
    assert on_disk == expected
    assert read_events(path)[0]["words"] == expected["words"]


def test_listeners_hear_in_order_and_after_the_line_is_written(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    heard: list[tuple[str, str, int]] = []

    def first(event: dict[str, Any]) -> None:
        heard.append(("first", event["words"], len(read_events(path))))

    def second(event: dict[str, Any]) -> None:
        heard.append(("second", event["words"], len(read_events(path))))

    log = EventLog(path, (first, second))
    log.record(warned("a"))
    log.record(warned("b"))
    assert heard == [("first", "a", 1), ("second", "a", 1), ("first", "b", 2), ("second", "b", 2)]


def test_what_was_not_said_of_an_event_is_not_recorded() -> None:
    heard: list[dict[str, Any]] = []
    EventLog(None, (heard.append,)).record(Absences(what="statistics", num_asked=3, absent={"1": "battery"}))
    assert heard == [{"event": "absences", "what": "statistics", "num_asked": 3, "absent": {"1": "battery"}}]


def test_what_a_run_records_has_a_class(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"event 'late': what a run records is a class of run_events\.py"):
        EventLog(tmp_path / "events.jsonl").emit("late", round=0)


def test_log_without_a_path_only_tells_the_listeners() -> None:
    heard: list[dict[str, Any]] = []
    log = EventLog(listeners=(heard.append,))
    log.emit("a", round=1)
    log.drop_after(0)
    assert heard == [{"event": "a", "round": 1}]


def test_not_a_number_is_refused_and_leaves_no_half_line(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log = EventFile(path)
    log.append({"event": "a"})
    with pytest.raises(ValueError, match="JSON compliant"):
        log.append({"event": "b", "loss": float("nan")})
    assert [event["event"] for event in read_events(path)] == ["a"]


def test_drop_after_forgets_that_round_and_later_ones_but_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log = EventFile(path)
    log.append({"event": "started"})
    for round_index in range(4):
        log.append({"event": "round", "round": round_index})
        log.append({"event": "evaluation", "round": round_index})
    log.drop_after(2)
    kept = [(event["event"], event.get("round")) for event in read_events(path)]
    assert kept == [("started", None), ("round", 0), ("evaluation", 0), ("round", 1), ("evaluation", 1)]


@pytest.mark.parametrize("cut", range(1, 30, 4))
def test_a_line_cut_short_by_a_kill_is_neither_read_nor_kept(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "events.jsonl"
    log = EventFile(path)
    log.append({"event": "round", "round": 0})
    whole = path.read_bytes()
    log.append({"event": "round", "round": 1})
    path.write_bytes(path.read_bytes()[:-cut])
    assert [event["round"] for event in read_events(path)] == [0]
    log.drop_after(5)
    assert path.read_bytes() == whole
    log.append({"event": "round", "round": 1})
    assert [event["round"] for event in read_events(path)] == [0, 1]


def test_drop_after_without_a_file_makes_none(tmp_path: Path) -> None:
    EventFile(tmp_path / "events.jsonl").drop_after(0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("[" * 200_000, "nested deeper"),
        ('{"event": "a", "round": 1e999}', "expected a finite number"),
        ('{"event": "a", "event": "b"}', "stands twice"),
        ('{"event": "a", "round": [[]]}', "expected a number"),
        ("\x1b", "damaged"),
    ],
    ids=lambda text: text[:20],
)
def test_a_damaged_line_is_named(tmp_path: Path, line: str, problem: str) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text(f'{{"event": "a"}}\n{line}\n', encoding="utf-8")
    with pytest.raises(ArtifactError, match=rf"events\.jsonl:2: .*{problem}.*; remove the line$"):
        read_events(path)


def test_a_pipe_is_no_log(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "events.jsonl")
    with pytest.raises(ArtifactError, match="it is no regular file"):
        read_events(tmp_path / "events.jsonl")


def test_a_full_disk_is_said_and_no_listener_hears_of_what_was_not_written(tmp_path: Path) -> None:
    heard: list[dict[str, Any]] = []
    path = tmp_path / "events.jsonl"
    path.symlink_to("/dev/full")
    with pytest.raises(OutputError, match=r"^cannot write .*events\.jsonl: the disk is full; make room there$"):
        EventLog(path, (heard.append,)).record(warned("a"))
    assert heard == []
