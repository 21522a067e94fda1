"""Locks between real processes, on a file system with locks of the kernel and as on one without."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fedsup_deploy import locks
from fedsup_deploy.locks import Busy, Holder

# What flock says on a file system that has no such locks, and when a file system at a distance has none left.
_NO_FLOCK = """
import errno, fcntl, os
def flock(descriptor, operation):
    raise OSError({code}, os.strerror({code}))
fcntl.flock = flock
"""
_HOLD = """
import sys
from pathlib import Path
from fedsup_deploy import locks
release = locks.acquire(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.readline()
release()
"""
# Each round is a process that waits for the lock and adds 1 to a file; every third dies before it gives the lock back.
_COUNT = """
import os, signal, sys, time
from pathlib import Path
from fedsup_deploy import locks

place, counter = Path(sys.argv[1]), Path(sys.argv[1]).with_name("counter")

def add_one(is_killed):
    while True:
        try:
            release = locks.acquire(place)
            break
        except locks.Busy:
            time.sleep(0.001)
    number = int(counter.read_text())
    time.sleep(0.001)
    new = counter.with_name(f"counter-{os.getpid()}")
    new.write_text(str(number + 1))
    new.replace(counter)
    if is_killed:
        os.kill(os.getpid(), signal.SIGKILL)
    release()

print("ready", flush=True)
sys.stdin.readline()
for index in range(int(sys.argv[2])):
    child = os.fork()
    if child == 0:
        add_one(index % 3 == 0)
        os._exit(0)
    os.waitpid(child, 0)
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(params=[None, "ENOSYS", "EOPNOTSUPP", "ENOLCK"], ids=["flock", "ENOSYS", "EOPNOTSUPP", "ENOLCK"])
def preamble(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What makes another process see the same file system as this test."""
    if request.param is None:
        return ""
    code = getattr(errno, request.param)

    def refuse(_descriptor: int, _operation: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    return _NO_FLOCK.format(code=code)


@pytest.fixture
def without_flock(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_descriptor: int, _operation: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", refuse)


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a Python program that reads a line when it shall go on; whoever still runs at the end is killed."""
    started = []

    def run(program: str, *words: Any) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", textwrap.dedent(program), *map(str, words)]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        assert started[-1].stdout is not None
        assert started[-1].stdout.readline() in {"held\n", "ready\n"}
        return started[-1]

    try:
        yield run
    finally:
        for process in started:
            process.kill()
            process.communicate()


def refusal_of(place: Path) -> Busy:
    with pytest.raises(Busy) as refused:
        locks.acquire(place)
    return refused.value


def planted(place: Path, **changes: Any) -> Path:
    """Plant the link of a process: of this one, but for the changes."""
    document = {**json.loads(Holder.here().to_text()), **changes}
    link = place.with_name(f".{place.name}.fedsup-holder")
    link.symlink_to(json.dumps(document))
    return link


def test_one_at_a_time_and_nothing_stays(tmp_path: Path, preamble: str) -> None:
    place = tmp_path / "x"
    for _ in range(2):
        release = locks.acquire(place)
        holder = refusal_of(place).holder
        assert holder is not None
        assert holder.pid == os.getpid()
        assert locks.holder_of(place) == holder
        release()
        assert locks.holder_of(place) is None
        assert list(tmp_path.iterdir()) == []


def test_places_do_not_disturb_each_other(tmp_path: Path, preamble: str) -> None:
    releases = [locks.acquire(tmp_path / name) for name in ("x", "y", "x.y")]
    for release in releases:
        release()
    assert list(tmp_path.iterdir()) == []


def test_another_process_is_named_and_a_killed_one_holds_nothing(tmp_path: Path, preamble: str, start: Start) -> None:
    """Not even while nobody has asked how it ended."""
    place = tmp_path / "x"
    other = start(preamble + _HOLD, place)
    busy = refusal_of(place)
    assert str(busy.holder) == f"process {other.pid} on {os.uname().nodename} (-c {place})"
    assert busy.holder == locks.holder_of(place)
    other.kill()
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
    assert locks.holder_of(place) is None
    assert list(tmp_path.iterdir()) != [], "what it left"
    locks.acquire(place)()
    assert list(tmp_path.iterdir()) == []


def test_of_many_that_are_killed_with_it_one_holds_it_at_a_time(tmp_path: Path, preamble: str, start: Start) -> None:
    place, counter = tmp_path / "x", tmp_path / "counter"
    counter.write_text("0")
    workers = [start(preamble + _COUNT, place, 25) for _ in range(4)]
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    assert [worker.wait() for worker in workers] == [0, 0, 0, 0]
    assert counter.read_text() == "100"
    locks.acquire(place)()
    assert list(tmp_path.iterdir()) == [counter]


def test_a_file_removed_before_it_is_locked_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its holder gave it back between our opening and our locking it."""
    place, flock, calls = tmp_path / "x", fcntl.flock, []

    def late(descriptor: int, operation: int) -> None:
        calls.append(descriptor)
        if len(calls) == 1:
            (tmp_path / ".x.fedsup-lock").unlink()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    release = locks.acquire(place)
    assert len(calls) == 2
    holder = refusal_of(place).holder
    assert holder is not None
    assert holder.pid == os.getpid()
    release()


@pytest.mark.usefixtures("without_flock")
@pytest.mark.parametrize("changes", [{"started": "another boot 1"}, {"pid": 2**31 - 1}], ids=["number reused", "ended"])
def test_a_link_of_a_dead_process_is_taken_over(tmp_path: Path, changes: dict[str, Any]) -> None:
    planted(tmp_path / "x", **changes)
    locks.acquire(tmp_path / "x")()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("without_flock")
def test_a_dead_process_that_was_taking_over_from_a_dead_one_does_no_harm(tmp_path: Path) -> None:
    """Twice over: the last one died while it took over from one that died while it took over."""
    dead = {"started": "another boot 1"}
    planted(tmp_path / "x", **dead, token="00000001")
    planted(tmp_path / "x.00000001", **dead, token="00000002")
    planted(tmp_path / "x.00000001.00000002", **dead, token="00000003")
    locks.acquire(tmp_path / "x")()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("without_flock")
def test_while_another_takes_over_the_place_is_taken(tmp_path: Path) -> None:
    link = planted(tmp_path / "x", started="another boot 1", token="00000001")
    release = locks.acquire(tmp_path / "x.00000001")
    refusal_of(tmp_path / "x")
    assert link.is_symlink()
    release()


@pytest.mark.usefixtures("without_flock")
@pytest.mark.parametrize(
    ("changes", "is_holder_known"),
    [
        ({"machine": "another", "pid": 2**31 - 1}, True),
        ({"token": "../../x"}, False),
        ({"pid": -1}, False),
        ({"pid": "1"}, False),
        ({"host": None}, False),
    ],
    ids=["of another machine", "path", "group", "text", "no host"],
)
def test_a_link_that_may_be_of_a_live_process_stays(
    tmp_path: Path, changes: dict[str, Any], is_holder_known: bool
) -> None:
    link = planted(tmp_path / "x", **changes)
    busy = refusal_of(tmp_path / "x")
    assert (busy.link, busy.holder is not None) == (link, is_holder_known)
    assert [link] == list(tmp_path.iterdir())


def test_a_holder_with_locks_of_the_kernel_and_one_without_see_each_other(tmp_path: Path, start: Start) -> None:
    place = tmp_path / "x"
    no_flock = _NO_FLOCK.format(code=errno.ENOSYS)
    other = start(no_flock + _HOLD, place)
    assert getattr(refusal_of(place).holder, "pid", None) == other.pid
    other.kill()
    other.wait()
    release = locks.acquire(place)
    refused = subprocess.run(
        [sys.executable, "-c", no_flock + _HOLD, place], input="", capture_output=True, text=True, check=False
    )
    assert "Busy" in refused.stderr
    release()
    assert list(tmp_path.iterdir()) == []


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (tmp_path / ".x.fedsup-lock").symlink_to(precious)
    with pytest.raises(OSError, match="symbolic links"):
        locks.acquire(tmp_path / "x")
    assert precious.read_text() == "precious"


def test_a_terminal_gets_no_control_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/train", "\x1b]0;x\x07", "a" * 200])
    text = str(Holder.here())
    assert text.isprintable()
    assert "(train '?]0;x?' aaa" in text
    assert text.endswith("aaa...)")


def test_a_full_disk_leaves_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", refuse)
    with pytest.raises(OSError, match="No space"):
        locks.acquire(tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_stopped_is_not_gone(tmp_path: Path, preamble: str, start: Start) -> None:
    other = start(preamble + _HOLD, tmp_path / "x")
    other.send_signal(signal.SIGSTOP)
    try:
        assert getattr(refusal_of(tmp_path / "x").holder, "pid", None) == other.pid
    finally:
        other.send_signal(signal.SIGCONT)
