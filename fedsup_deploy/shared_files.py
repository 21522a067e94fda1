"""A temporary file that this process and its worker processes have in common. It has no name, so nobody need remove it.

What is pickled is the number of its descriptor, which whoever starts a process hands on: `descriptors_of` tells which.
"""

import contextlib
import contextvars
import os
import tempfile
import weakref
from collections.abc import Iterator

#: Descriptors of the files that are pickled meanwhile; None where nobody asks.
_pickled: contextvars.ContextVar[set[int] | None] = contextvars.ContextVar("pickled", default=None)


class SharedFile:
    """A file for reading and writing at any place, by any process that has it.

    Attributes:
        descriptor: Its number; None in a process that was not handed it, and where there is no room for such files.
    """

    def __init__(self) -> None:
        self.descriptor: int | None = None
        with contextlib.suppress(OSError), tempfile.TemporaryFile() as file:
            self.descriptor = os.dup(file.fileno())
            # Open for as long as anybody has this value, who would not know when to close it.
            weakref.finalize(self, os.close, self.descriptor)

    def __getstate__(self) -> tuple[int, ...]:
        """Return what the file is known by in another process."""
        if self.descriptor is None:
            return ()
        found = _pickled.get()
        if found is not None:
            found.add(self.descriptor)
        status = os.fstat(self.descriptor)
        return self.descriptor, status.st_dev, status.st_ino

    def __setstate__(self, state: tuple[int, ...]) -> None:
        """Have the file again if this process was handed it; another may have its number instead."""
        self.descriptor = None
        if state:
            with contextlib.suppress(OSError):
                status = os.fstat(state[0])
                if (status.st_dev, status.st_ino) == state[1:]:
                    self.descriptor = state[0]


@contextlib.contextmanager
def descriptors_of() -> Iterator[set[int]]:
    """Yield the descriptors of the shared files that are pickled in the block, which fill in as they are."""
    found: set[int] = set()
    token = _pickled.set(found)
    try:
        yield found
    finally:
        _pickled.reset(token)
