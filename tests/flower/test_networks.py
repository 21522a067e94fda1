"""Networks as they are: the fleet of docs/fleet.md on hosts of its own, over links that are slow, silent, torn or cut.

Devices are lost and come back, and whoever is killed goes on. Where every update has arrived in the end, a run ends in
the bytes of one that nothing happened to.
"""

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fleet import FarFleet
from hosts import SERVER, Hosts, missing
from test_deployment import NAMES, nginx

from fedsup_deploy.runs.run import SUPERNET

pytestmark = pytest.mark.slow

CONFIG = """
schema: 1
name: fleet
space: digits
partition: {kind: natural}
strategy: {name: e-fedsup, tiers: [{architecture: smallest}, {architecture: largest}]}
training: {rounds: 4, warmup_rounds: 1, batch_size: 16, checkpoint_every: 1, evaluate_every: 4}
calibration: {samples_per_client: 32, batch_size: 16, schedule: one-shot}
federation: {quorum: 1.0}
"""
#: Bytes: most answers of the SuperLink that bring nothing are smaller.
LARGE = 520


@pytest.fixture(scope="module")
def fleet(children_type: Any, eventually: Callable[..., bool]) -> Iterator[FarFleet]:
    """A fleet with a run `together`, of all images in one place; all that the camera sends goes through a wire."""
    if why := missing():
        pytest.skip(why)
    if nginx() is None:
        pytest.skip("nginx (install nginx-light)")
    folder = Path(tempfile.mkdtemp(prefix="test-", dir="/tmp"))
    with children_type() as children, Hosts(NAMES, children) as hosts:
        fleet = FarFleet(children, folder, hosts, eventually, CONFIG)
        hosts.through_wire("camera", fleet.outer_port)
        fleet.set_up()
        fleet.ours("train", "--config", "all.yaml", "--out", "together", "--set", "engine.workers=1", "--quiet")
        yield fleet
    shutil.rmtree(folder)


def is_as_together(fleet: FarFleet, run: str) -> bool:
    """Return whether a run ended in the bytes of all images in one place."""
    return (fleet.folder / run / SUPERNET).read_bytes() == (fleet.folder / "together" / SUPERNET).read_bytes()


def train(fleet: FarFleet, run: str, *words: str) -> Any:
    """Start training over the fleet."""
    return fleet.start_ours(run, "train", "--config", "server.yaml", "--out", run, *words)


def test_same_bytes_over_a_link_that_is_torn_silent_slow_and_cut(
    fleet: FarFleet, eventually: Callable[..., bool]
) -> None:
    """Which answer is torn off is not known, for all is encrypted; `test_lost_messages.py` has those with jobs."""
    hosts = fleet.hosts
    hosts.tell("camera", f"tear {LARGE}")
    process = train(fleet, "bad-link")
    assert eventually(lambda: len(fleet.rounds("bad-link")) >= 1)
    assert hosts.tell("camera", "torn") == "1"
    for _ in range(4):
        hosts.tell("camera", "reset")
    hosts.tell("camera", "stall")
    with hosts.cut("phone"):
        time.sleep(3)
    hosts.tell("camera", "go")
    hosts.tell("camera", "delay 0.3")
    hosts.shape("camera", 1)
    assert process.wait(timeout=900) == 0, fleet.log("bad-link")
    hosts.tell("camera", "delay 0")
    hosts.shape("camera", None)
    assert [event["absent"] for event in fleet.rounds("bad-link")] == [{}] * 4
    assert is_as_together(fleet, "bad-link")


def test_same_bytes_where_the_server_is_killed_twice_and_a_device_is_lost_and_comes_back(
    fleet: FarFleet, eventually: Callable[..., bool]
) -> None:
    process = train(fleet, "killed")
    assert eventually(lambda: len(fleet.rounds("killed")) >= 1)
    process.kill()
    process.wait()
    fleet.kill("phone")
    fleet.join("phone")
    # Until the server misses it, it is not let in again, and goes on trying.
    before = fleet.log("phone").count("SuperNode ID: ")
    assert eventually(lambda: fleet.log("phone").count("SuperNode ID: ") > before)
    process = train(fleet, "killed", "--resume")
    assert eventually(lambda: len(fleet.rounds("killed")) >= 2)
    process.kill()
    process.wait()
    process = train(fleet, "killed", "--resume")
    assert process.wait(timeout=900) == 0, fleet.log("killed")
    assert is_as_together(fleet, "killed")
    assert list(fleet.folder.glob("fedsup-*")) == []


def test_a_superlink_that_is_killed_ends_the_command_and_devices_come_back_to_the_next(
    fleet: FarFleet, eventually: Callable[..., bool]
) -> None:
    process = train(fleet, "restarted")
    assert eventually(lambda: len(fleet.rounds("restarted")) >= 1)
    fleet.kill(SERVER)
    assert process.wait(timeout=900) == 7, fleet.log("restarted")
    assert "--resume" in fleet.log("restarted")
    fleet.start_superlink()
    process = train(fleet, "restarted", "--resume")
    assert process.wait(timeout=900) == 0, fleet.log("restarted")
    assert is_as_together(fleet, "restarted")


def test_a_node_whose_program_dies_is_started_again(fleet: FarFleet, eventually: Callable[..., bool]) -> None:
    before = fleet.log("phone").count("SuperNode ID: ")
    (pid,) = fleet.pids("phone", "flower-supernod")
    os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: fleet.log("phone").count("SuperNode ID: ") > before)
    assert len(fleet.pids("phone", "flower-supernod")) == 1


def test_a_device_whose_own_process_dies_is_gone_and_never_one_that_is_connected_and_silent(
    fleet: FarFleet, eventually: Callable[..., bool]
) -> None:
    (pid,) = fleet.pids("phone", "flower-supernod")
    process = fleet.started["phone"]
    process.kill()
    process.wait()
    assert eventually(lambda: not Path(f"/proc/{pid}").exists())
    before = fleet.log("phone").count("SuperNode ID: ")
    fleet.join("phone")
    assert eventually(lambda: fleet.log("phone").count("SuperNode ID: ") > before)


def test_a_device_that_is_slow_is_waited_for_and_one_that_is_frozen_is_absent_until_it_goes_on(
    fleet: FarFleet, eventually: Callable[..., bool]
) -> None:
    process = train(fleet, "frozen", "--set", "training.rounds=500", "--set", "federation.quorum=0.5")
    absences: list[dict[str, str]] = []

    def rounds_go_on_until(is_so: Callable[[dict[str, str]], bool]) -> bool:
        absences[:] = [event["absent"] for event in fleet.rounds("frozen")]
        return process.poll() is not None or any(map(is_so, absences[begun:]))

    assert eventually(lambda: len(fleet.rounds("frozen")) >= 1)
    begun = len(fleet.rounds("frozen")) + 1
    with fleet.slowed("phone", 20):
        assert eventually(lambda: rounds_go_on_until(lambda absent: absent == {}))
    fleet.send("phone", signal.SIGSTOP)
    assert eventually(lambda: rounds_go_on_until(lambda absent: absent == {"1": "the node is gone"}))
    begun = len(absences)
    fleet.send("phone", signal.SIGCONT)
    assert eventually(lambda: rounds_go_on_until(lambda absent: absent == {}))
    process.terminate()
    assert process.wait(timeout=900) == 143, fleet.log("frozen")
