"""What a guard runs ends with it, whoever ends how: also what has lost its parents and ignores signals."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedsup_deploy.engines.flower import guard

#: Leaves a process that belongs to nobody and does not mind signals, and says which; then waits, or ends.
DAEMON = """
import os, signal, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        open(sys.argv[1], "w").write(str(os.getpid()))
        time.sleep(600)
    os._exit(0)
print("said", flush=True)
time.sleep(600 if sys.argv[2] == "stay" else 0)
"""


class Guarded:
    """A guard of such a command."""

    def __init__(self, children: Any, folder: Path, how: str) -> None:
        self.folder, self.number = folder / "work", folder / "number"
        self.folder.mkdir()
        theirs, self.pipe = os.pipe()
        command = [sys.executable, "-c", DAEMON, str(self.number), how]
        self.process: subprocess.Popen[bytes] = children.start(
            [sys.executable, "-I", guard.__file__, str(theirs), str(self.folder), *command], pass_fds=(theirs,)
        )
        os.close(theirs)

    def daemon(self) -> int:
        return int(self.number.read_text(encoding="utf-8") or 0) if self.number.exists() else 0


@pytest.fixture
def guarded(children: Any, tmp_path: Path, eventually: Callable[..., bool]) -> Callable[[str], Guarded]:
    def start(how: str) -> Guarded:
        found = Guarded(children, tmp_path, how)
        assert eventually(lambda: found.daemon() > 0)
        return found

    return start


def is_running(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return False


def test_all_ends_when_the_pipe_is_closed_and_the_folder_goes(guarded: Callable[[str], Guarded]) -> None:
    found = guarded("stay")
    assert is_running(found.daemon())
    os.close(found.pipe)
    found.process.wait(timeout=60)
    assert not is_running(found.daemon())
    assert not found.folder.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_are_for_whoever_holds_the_pipe(guarded: Callable[[str], Guarded], number: int) -> None:
    found = guarded("stay")
    found.process.send_signal(number)
    os.close(found.pipe)
    assert found.process.wait(timeout=60) == 0
    assert not is_running(found.daemon())


def test_when_the_command_ends_by_itself_what_it_has_said_is_left(guarded: Callable[[str], Guarded]) -> None:
    found = guarded("end")
    assert found.process.wait(timeout=60) == 0
    assert not is_running(found.daemon())
    assert (found.folder / "flower.log").read_text(encoding="utf-8") == "said\n"
    os.close(found.pipe)
