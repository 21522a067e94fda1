"""What a device's process puts in place of Flower's, and a run that Flower does not begin."""

import time
from pathlib import Path

import pytest

from fedsup_deploy.engines.flower import submission
from fedsup_deploy.engines.flower.keeper import Looks
from fedsup_deploy.errors import FederationError


def test_a_node_looks_for_the_next_message_soon_after_one_and_then_less_and_less_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    looks = Looks()
    for _ in range(12):
        looks.sleep(3)
    assert slept[0] == 0.1
    assert slept == sorted(slept)
    assert slept[-1] == 3
    slept.clear()
    # It waits for an answer: there was a message.
    looks.sleep(0.5)
    looks.sleep(3)
    assert slept == [0.1, 0.1]


def test_of_a_run_that_does_not_begin_it_is_said_where_to_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submission, "_LOOK_S", 0.01)
    monkeypatch.setattr(submission, "_BEGIN_S", 0.0)
    with (
        submission.listening(tmp_path / "relay") as listener,
        pytest.raises(FederationError, match=r"^Flower has not begun the run within 0 s; .* valid for localhost$"),
        submission.connected(listener, lambda: True, lambda: "the Flower run has ended: pending"),
    ):
        pass
