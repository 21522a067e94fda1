"""The program of a guard: runs a command, and ends with it all that came of it, however whoever started it ends.

Flower and Ray start processes that outlive those they belong to. Here all are the guard's: Linux makes it the parent of
whatever loses its own (a "subreaper"), so that it finds and kills each by its number. `python -I guard.py PIPE FOLDER
COMMAND...`; PIPE is the number of a descriptor whose other end closes when all is to end, and FOLDER is removed then.
The command's output is `flower.log` there.
As a script it imports the standard library only.
"""

import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

#: Of prctl(2).
_SET_CHILD_SUBREAPER: Final = 36
_TICK_S: Final = 0.2
#: Seconds for what was killed to end.
_PATIENCE_S: Final = 30.0


def main() -> None:
    """Run the command until it ends, or until the pipe is closed."""
    pipe, folder, command = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
    ctypes.CDLL(None, use_errno=True).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with (folder / "flower.log").open("ab") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    # Not before: the command would inherit it. What ends this process is the pipe.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    is_over = False
    while process.poll() is None and not is_over:
        _collect(process.pid)
        is_over = bool(select.select([pipe], [], [], _TICK_S)[0])
    end = time.monotonic() + _PATIENCE_S
    while (left := _descendants()) and time.monotonic() < end:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.poll()
        _collect(process.pid)
        time.sleep(_TICK_S / 10)
    if is_over:
        # Where the command has ended by itself, its starter still reads what it has said.
        shutil.rmtree(folder, ignore_errors=True)


def _collect(but: int) -> None:
    """Collect the processes that were handed to this one and have ended."""
    for pid in _children().get(os.getpid(), []):
        if pid != but:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def _descendants() -> list[int]:
    children, found = _children(), [os.getpid()]
    for pid in found:
        found.extend(children.get(pid, []))
    return found[1:]


def _children() -> dict[int, list[int]]:
    """Return the children of every process of this machine."""
    found: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):
            before, _, after = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")
            found.setdefault(int(after.split()[1]), []).append(int(before.partition(" (")[0]))
    return found


if __name__ == "__main__":
    main()
