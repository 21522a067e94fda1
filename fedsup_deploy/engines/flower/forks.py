"""Children of this process that are forked, and end with it."""

import contextlib
import ctypes
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Collection
from typing import Final

#: Of prctl(2): the signal that a process gets when its parent ends, and what it is called, in 15 letters.
_SET_PDEATHSIG: Final = 1
_SET_NAME: Final = 15
#: Bits that files of theirs do not have.
_PRIVATE: Final = 0o077
#: Seconds for children that were told to end, and between looks whether they have.
_PATIENCE_S: Final = 10.0
_TICK_S: Final = 0.02


def forked(name: str, run: Callable[[], int]) -> int:
    """Fork a process that runs something under a name, and gets SIGTERM when this one ends; return its number.

    What it writes, and what it starts, only this user can read: Flower's databases have the tokens of runs in them, and
    what devices send.

    This process has to have one thread.
    """
    parent = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    if pid := os.fork():
        return pid
    code = 1
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        prctl = ctypes.CDLL(None).prctl
        prctl(_SET_NAME, name.encode(), 0, 0, 0)
        prctl(_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        os.umask(_PRIVATE)
        if os.getppid() == parent:
            code = run()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001  the whole of a process: it says what has happened, and ends
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def collected(pids: Collection[int]) -> dict[int, int]:
    """Return those of some children that have ended, and their codes; -n where signal n has ended one."""
    found = [os.waitpid(pid, os.WNOHANG) for pid in pids]
    return {pid: os.waitstatus_to_exitcode(status) for pid, status in found if pid != 0}


def end(pids: Collection[int]) -> None:
    """End some children, by force those that do not within some seconds."""
    left = set(pids)
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in left:
            os.kill(pid, number)
        until = time.monotonic() + _PATIENCE_S
        while left and (number == signal.SIGKILL or time.monotonic() < until):
            left -= collected(left).keys()
            time.sleep(_TICK_S)
