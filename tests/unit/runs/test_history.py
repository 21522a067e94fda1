"""What happened in a run, read from its events."""

import json
from pathlib import Path
from typing import Any

import pytest

from fedsup_deploy.errors import ArtifactError
from fedsup_deploy.runs.history import read_history

STARTED = {"event": "train_started", "round": 0, "rounds": 2, "num_clients": 5, "num_images": 70, "notes": ["a note"]}
ROUND = {
    "event": "round",
    "round": 0,
    "loss": 1.5,
    "clients": [1, 3, 4],
    "absent": {"3": "too late"},
    "bytes_down": 100,
    "bytes_up": 60,
    "seconds": 0.5,
}
EVALUATION = {
    "event": "evaluation",
    "round": 0,
    "accuracy_largest": 0.5,
    "accuracy_smallest": 0.25,
    "num_images": 100,
}


def written(folder: Path, *events: Any, rest: str = "") -> Path:
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events) + rest)
    return folder


def test_rounds_and_evaluations_in_their_order(tmp_path: Path) -> None:
    """Whatever else later versions say; a line that was cut short by a kill is none."""
    later = {**ROUND, "round": 1, "absent": {}, "loss_before": 2.5, "weather": "fine"}
    warned = {"event": "health", "round": 1, "kind": "new", "subject": "", "words": "a fault", "figures": {}}
    events = (
        STARTED,
        {"event": "absences", "what": "x", "num_asked": 3, "absent": {"0": "battery"}},
        {"event": "of a later version"},
        ROUND,
        EVALUATION,
        later,
        warned,
    )
    history = read_history(written(tmp_path, *events, rest='{"event": "round", "ro'))
    assert [each.round for each in history.rounds] == [0, 1]
    assert [each.answered for each in history.rounds] == [[1, 4], [1, 3, 4]]
    assert (history.num_clients, history.num_images, history.notes) == (5, 70, ("a note",))
    assert [each.loss_before for each in history.rounds] == [None, 2.5]
    assert [(each.round, each.words) for each in history.health] == [(1, "a fault")]
    [evaluation] = history.evaluations
    assert evaluation.accuracy("largest") == 0.5
    assert evaluation.interval("largest") == (0.403832, 0.596168)


def test_a_run_of_an_older_version_has_no_intervals(tmp_path: Path) -> None:
    older = {key: value for key, value in EVALUATION.items() if key != "num_images"}
    history = read_history(written(tmp_path, ROUND, older))
    assert history.evaluations[0].interval("smallest") is None
    assert (history.num_clients, history.notes) == (None, ())


def test_a_run_that_has_just_begun_is_empty(tmp_path: Path) -> None:
    history = read_history(written(tmp_path, STARTED))
    assert (history.rounds, history.evaluations, history.num_clients) == ((), (), 5)


@pytest.mark.parametrize(
    "change",
    [
        {"loss": "low"},
        {"loss": None},
        {"clients": ["a"]},
        {"clients": [-1]},
        {"bytes_up": 1.5},
        {"bytes_up": 10**40},
        {"seconds": -1},
        {"absent": {"1": 2}},
    ],
)
def test_a_damaged_event_is_named_by_its_line(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(ArtifactError, match=r"events.jsonl:2: damaged: .*remove the line"):
        read_history(written(tmp_path, STARTED, {**ROUND, **change}))


def test_an_accuracy_is_a_share(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"events.jsonl:1: damaged: accuracy_largest"):
        read_history(written(tmp_path, {**EVALUATION, "accuracy_largest": 1.5}))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is missing"):
        read_history(tmp_path)
