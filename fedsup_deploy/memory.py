"""How much memory this process can have at most, in bytes, and whether it keeps what it had.

What cannot fit is refused before it is begun.
"""

import contextlib
import ctypes
import os
import resource
from pathlib import Path
from typing import Final

#: Where Linux says what a container or service may take, in its two versions of control groups.
_LIMITS: Final = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
#: Parameters of mallopt(3): the free end of the heap beyond which it is given back, and how many arrays are not in it.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def machine_bytes() -> int:
    """Return the memory of this machine, or what this process was given of it where that is less."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        limits.append(soft)
    for path in _LIMITS:
        with contextlib.suppress(OSError, ValueError):  # no such file, or `max`
            limits.append(int(path.read_text(encoding="ascii")))
    return min(limits)


def keep_freed() -> None:
    """Have this process keep memory that it has freed, for its next arrays, until it ends.

    An array of more than 32 MiB is otherwise asked of the system, and given back, each time: where a network's maps are
    so large, a fifth of a training step was spent on new pages.

    Side effects: Of the whole process, where its C library is glibc; elsewhere none.
    """
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
