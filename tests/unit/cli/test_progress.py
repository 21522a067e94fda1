"""Progress from events."""

import io
import re
import sys
from typing import Any

import pytest

from fedsup_deploy.cli.progress import Lines, StageProgress, Steps, bars, remarks_into


def test_what_events_say_about_progress():
    steps = Steps()
    assert steps.read({"event": "train_started", "round": 0, "rounds": 30}) == StageProgress("rounds", 0, 30, "")
    assert steps.read({"event": "round", "round": 0, "loss": 1.25, "accuracy": None}) == StageProgress(
        "rounds", 1, 30, "loss 1.250"
    )
    assert steps.read({"event": "warning", "message": "hot"}) is None
    assert steps.read({"event": "exported", "done": 1, "total": 3, "name": "onnx"}) == StageProgress(
        "exported", 1, 3, "name onnx"
    )
    assert steps.read({"event": "x", "stage": "accuracy", "done": 0, "total": 2}) == StageProgress("accuracy", 0, 2, "")
    assert steps.read({"event": "x", "done": 0, "total": 0}) is None


def test_rounds_show_the_accuracy_of_the_last_evaluation():
    steps = Steps()
    steps.read({"event": "train_started", "round": 10, "rounds": 20})
    steps.read({"event": "round", "round": 10, "loss": 2.0})
    steps.read({"event": "evaluation", "round": 10, "accuracy_largest": 0.5})
    expected = StageProgress("rounds", 12, 20, "loss 1.000, accuracy_largest 0.500")
    assert steps.read({"event": "round", "round": 11, "loss": 1.0}) == expected


def test_an_accuracy_is_shown_with_its_images_and_its_interval():
    """A mean over clients has images and no interval; what counts other images says nothing of them."""
    steps, of_all = Steps(), {"event": "evaluation", "done": 1, "total": 2, "num_images": 1202}
    found = steps.read({**of_all, "accuracy": 0.9, "accuracy_interval": [0.88169, 0.91577]})
    assert found is not None
    assert found.detail == "accuracy 0.900 (0.88-0.92, 1,202 images)"
    found = steps.read({**of_all, "accuracy": 0.9})
    assert found is not None
    assert found.detail == "accuracy 0.900 (1,202 images)"
    assert steps.read({"event": "train_started", "round": 0, "rounds": 3, "num_images": 9}) == StageProgress(
        "rounds", 0, 3, ""
    )


def test_a_balanced_accuracy_is_shown_where_it_is_another():
    steps, event = Steps(), {"event": "evaluation", "done": 1, "total": 2, "num_images": 200, "accuracy": 0.975}
    found = steps.read({**event, "balanced_accuracy": 0.5})
    assert found is not None
    assert found.detail == "accuracy 0.975 (200 images, balanced 0.500)"
    found = steps.read({**event, "balanced_accuracy": 0.968})
    assert found is not None
    assert found.detail == "accuracy 0.975 (200 images)"


def test_rounds_of_unknown_number_show_no_progress():
    assert Steps().read({"event": "round", "round": 0}) is None


def lines_of(events: list[dict[str, Any]], seconds_per_event: float = 2.0) -> list[str]:
    lines: list[str] = []
    times = iter(seconds_per_event * index for index in range(10_000))
    listener = Lines(lines.append, lambda: next(times))
    for event in events:
        listener(event)
    return lines


def test_without_a_terminal_there_is_a_line_for_every_tenth():
    lines = lines_of([{"event": "round", "round": index, "rounds": 40} for index in range(40)])
    assert len(lines) == 11
    expected = ["rounds 1/40", "rounds 4/40, about 72 s left", "rounds 8/40, about 64 s left"]
    assert lines[:3] == expected
    assert lines[-1] == "rounds 40/40"


def test_a_resumed_run_counts_time_from_where_it_went_on():
    rounds = [{"event": "round", "round": index, "loss": 0.5} for index in (7, 8, 9)]
    lines = lines_of([{"event": "train_started", "round": 7, "rounds": 10}, *rounds])
    expected = [
        "rounds 7/10",
        "rounds 8/10, loss 0.500, about 4 s left",
        "rounds 9/10, loss 0.500, about 2 s left",
        "rounds 10/10, loss 0.500",
    ]
    assert lines == expected


def test_less_than_half_a_second_left_is_not_told():
    """As where the first are known from before: what is left may take longer."""
    lines = lines_of([{"event": "evaluation", "done": done, "total": 4} for done in (1, 2, 3, 4)], 0.2)
    expected = ["evaluation 1/4", "evaluation 2/4", "evaluation 3/4", "evaluation 4/4"]
    assert lines == expected
    assert lines_of([{"event": "x", "done": done, "total": 3} for done in (1, 2, 3)], 0.6)[1] == "x 2/3, about 1 s left"


def test_each_stage_has_its_own_lines():
    events = [{"event": "x", "stage": stage, "done": 1, "total": 1} for stage in ("search", "export")]
    assert lines_of(events) == ["search 1/1", "export 1/1"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_bars_on_stderr(monkeypatch: pytest.MonkeyPatch):
    terminal, stdout = Terminal(), io.StringIO()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(sys, "stdout", stdout)
    with bars() as listener:
        listener({"event": "ignored"})
        for index in range(3):
            listener({"event": "round", "round": index, "rounds": 3, "name": "[bold]"})
    assert "rounds" in terminal.getvalue()
    assert "3/3" in terminal.getvalue()
    assert "name [bold]" in terminal.getvalue(), "text of events is not markup"
    assert stdout.getvalue() == ""


@pytest.mark.parametrize("columns", [40, 80])
def test_on_a_narrow_terminal_only_details_are_cut(monkeypatch: pytest.MonkeyPatch, columns: int):
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys, "stderr", terminal)
    accuracies = {"accuracy_smallest": 0.8661, "accuracy_largest": 0.8712, "num_images": 3000}
    with bars() as listener:
        for index in range(24):
            listener({"event": "round", "round": index, "rounds": 24, "loss": 0.379, **accuracies})
    shown = [line for line in re.split(r"[\r\n]|\x1b\[[0-9;?]*[A-Za-z]", terminal.getvalue()) if line.strip()]
    assert "24/24" in "".join(shown)
    assert "rounds" in "".join(shown)
    assert ("loss 0.379, accuracy_smallest" in "".join(shown)) == (columns == 80)
    assert "accuracy_largest" not in terminal.getvalue()


def test_who_is_absent_is_told_in_a_line_and_once_for_passes_that_are_alike() -> None:
    """Layer-wise statistics ask the same clients again and again."""
    lines: list[str] = []
    listener = Lines(lines.append, lambda: 0.0)
    absent = {"3": "no answer within 5 s", "7": "battery"}
    for _ in range(19):
        listener({"event": "absences", "what": "statistics", "num_asked": 20, "absent": absent})
    listener({"event": "absences", "what": "statistics", "num_asked": 20, "absent": {"7": "battery"}})
    names = {"7": "yard"}
    listener(
        {"event": "absences", "what": "statistics", "num_asked": 20, "absent": {"7": "rain"}, "absent_names": names}
    )
    assert lines == [
        "statistics: 2 of 20 clients absent (client 3: no answer within 5 s)",
        "statistics: 1 of 20 clients absent (client 7: battery)",
        "statistics: 1 of 20 clients absent (client 7, yard: rain)",
    ]


def test_a_rejected_update_is_told_in_a_line_once_for_each_client_and_reason() -> None:
    def rejected(number: int, client: int, reason: str, **name: str) -> dict[str, Any]:
        return {"event": "rejected", "round": number, "client": client, "reason": reason, **name}

    events = [rejected(0, 4, "too far"), rejected(1, 4, "too far"), rejected(1, 4, "loss is not finite")]
    assert lines_of([*events, rejected(1, 5, "too far", client_name="yard")]) == [
        "training in round 0: the update of client 4 was rejected: too far",
        "training in round 1: the update of client 4 was rejected: loss is not finite",
        "training in round 1: the update of client 5, yard was rejected: too far",
    ]


def test_notes_are_told_in_lines_of_their_own() -> None:
    event = {"event": "train_started", "round": 0, "rounds": 30, "notes": ["passed over: 2", "[bold]"]}
    assert lines_of([event]) == ["note: passed over: 2", "note: [bold]", "rounds 0/30"]


def test_a_fault_of_a_run_is_a_warning_in_a_line_of_its_own() -> None:
    found = {"event": "health", "round": 29, "kind": "tier-starved", "words": "tier 1: 0 of 9 updates came"}
    lines = lines_of([{"event": "train_started", "round": 0, "rounds": 30}, found])
    assert lines == ["rounds 0/30", "warning: tier 1: 0 of 9 updates came", "rounds 30/30"]


def test_a_terminal_gets_notes_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal)
    with bars() as listener:
        listener({"event": "train_started", "round": 0, "rounds": 3, "notes": ["passed over: [bold]"]})
    assert "note: passed over: [bold]" in terminal.getvalue()


def test_what_is_dropped_is_told_though_no_progress_is() -> None:
    lines: list[str] = []
    listener = remarks_into(lines.append)
    listener({"event": "train_started", "round": 0, "rounds": 2, "notes": ["3 images are not used"]})
    listener({"event": "absences", "what": "statistics", "num_asked": 2, "absent": {"0": "battery"}})
    listener({"event": "round", "round": 0, "loss": 1.0})
    listener({"event": "health", "round": 0, "words": "a fault"})
    listener({"event": "tracking_stopped", "round": 0, "tracker": "tensorboard", "reason": "the disk is full"})
    expected = ["warning: a fault", "warning: nothing more is written for tensorboard: the disk is full"]
    assert lines == ["note: 3 images are not used", *expected]


def test_the_time_left_that_events_tell_is_shown_from_the_first_line_of_a_resumed_run() -> None:
    """What was done before it was resumed took no time of this process."""
    started = {"event": "train_started", "round": 8, "rounds": 10, "seconds_left": 30.4}
    rounds = [{"event": "round", "round": 8, "seconds_left": 14.6}, {"event": "round", "round": 9, "seconds_left": 0.0}]
    expected = ["rounds 8/10, about 30 s left", "rounds 9/10, about 15 s left", "rounds 10/10"]
    assert lines_of([started, *rounds]) == expected


def test_bars_count_down_the_time_left_that_events_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "stderr", terminal)
    with bars() as listener:
        listener({"event": "train_started", "round": 8, "rounds": 10, "seconds_left": 3723.4})
    assert "1:02:03" in terminal.getvalue()


def test_who_joins_and_who_cannot_is_told_in_lines_of_their_own() -> None:
    lines: list[str] = []
    told = Lines(lines.append)
    told({"event": "not_joined", "round": 0, "devices": {"old": "protocol 1, here it is 2", "desk": "tier 3"}})
    told({"event": "joined", "round": 0, "since_round": 1, "names": {"2": "gate", "3": "yard"}, "num_images": 9})
    assert lines == [
        "not joined: old: protocol 1, here it is 2",
        "not joined: desk: tier 3",
        "joined: gate, yard; from round 1 on",
    ]
