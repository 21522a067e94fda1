"""A device that was lost or stolen: refused by its server at once, and replaced by another one of its name."""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_deployment import NAMES, Fleet, served

from fedsup_deploy.errors import FederationError

pytestmark = pytest.mark.slow


def rounds(fleet: Fleet) -> list[dict[str, Any]]:
    path = fleet.folder / "run" / "events.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [event for event in map(json.loads, lines) if event["event"] == "round"]


def test_a_device_is_refused_in_the_middle_of_a_round_and_one_of_its_name_takes_its_place(
    children_type: Any, eventually: Callable[..., bool]
) -> None:
    """It is connected, shows signs of life, and never answers: without a deadline the round would last for ever."""

    def working(process: Any) -> list[int]:
        names = {pid: Path(f"/proc/{pid}/comm") for pid in fleet.running(process)}
        return [pid for pid, path in names.items() if path.exists() and path.read_text().strip() == "fedsup-message"]

    def stops(process: Any) -> bool:
        for pid in working(process):
            os.kill(pid, signal.SIGSTOP)
        return bool(working(process))

    with served(children_type, eventually) as fleet:
        devices = {name: fleet.join(name) for name in NAMES}
        fleet.ours("fleet", "list", "--config", "server.yaml", "--devices", "2")
        settings = ("training.rounds=500", "training.local_epochs=40", "federation.quorum=0.5")
        words = ("train", "--config", "server.yaml", "--out", "run", *(f"--set={each}" for each in settings))
        training = fleet.start(sys.executable, "-m", "fedsup_deploy.cli.main", *words)
        assert eventually(lambda: len(rounds(fleet)) >= 1)
        assert eventually(lambda: stops(devices["phone"]))
        begun = len(rounds(fleet))
        told = json.loads(fleet.ours("fleet", "unregister", "phone", "--config", "server.yaml", "--json"))
        assert told == {"unregistered": ["phone"], "registered": ["camera"]}
        assert eventually(lambda: rounds(fleet)[-1]["absent"] == {"1": "not connected"})
        absent = [event["absent"] for event in rounds(fleet)]
        # Of the round that was on; it may have ended before the device was stopped, and the next have begun.
        gone = next(index for index in range(begun, len(absent)) if absent[index])
        assert absent[begun:gone] in ([], [{}])
        # Which of the first two comes first depends on how busy the machine is.
        reasons = {"the node is gone", "the message was lost", "not connected"}
        assert {each["1"] for each in absent[gone:]} <= reasons
        for pid in working(devices["phone"]):
            os.kill(pid, signal.SIGCONT)
        assert devices["phone"].wait(timeout=600) == FederationError.exit_code
        (fleet.folder / "kits" / "phone").rename(fleet.folder / "lost")
        outside = fleet.outside()
        fleet.ours("fleet", "kit", "phone", "--config", "server.yaml", "--out", "kits", *outside)
        fleet.ours("fleet", "register", "kits/phone/phone.key.pub", "--config", "server.yaml")
        fleet.edit("phone")
        fleet.join("phone")
        assert eventually(lambda: training.poll() is not None or rounds(fleet)[-1]["absent"] == {})
        assert training.poll() is None, fleet.log()
        assert devices["camera"].poll() is None
