"""How much memory this process can have at most, in bytes. What cannot fit is refused before it is begun."""

import contextlib
import os
import resource
from pathlib import Path
from typing import Final

#: Where Linux says what a container or service may take, in its two versions of control groups.
_LIMITS: Final = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


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
