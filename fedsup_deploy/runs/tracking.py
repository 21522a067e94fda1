"""Trackers: they write elsewhere, live, what a run records. None can fail or slow the run."""

import contextlib
import queue
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol

from fedsup_deploy import registry
from fedsup_deploy.ondevice.printable import reason_of
from fedsup_deploy.run_events import RunEvent

#: Events that may wait for a tracker. One so far behind writes nowhere, such as to a disk that is gone.
_MOST_WAITING: Final = 10_000
#: How long the end of a run waits for what is still to be written.
_PATIENCE_S: Final = 10.0


class Tracker(Protocol):
    """Writes what it is told. Called in one thread, never in that of the run; any exception ends it."""

    def read(self, event: RunEvent) -> None:
        """Take in an event."""
        ...

    def close(self) -> None:
        """Write what is left."""
        ...


class Tracking:
    """Passes events on to one tracker, in a thread of its own.

    Args:
        name: Of the tracker.
        folder: Of the run.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self._folder = folder
        self._waiting: queue.SimpleQueue[RunEvent | None] = queue.SimpleQueue()
        self._failure: str | None = None
        self._has_told = False
        # A thread that waits for a disk that is gone may not keep the process from ending.
        self._thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)
        self._thread.start()

    def tell(self, event: RunEvent) -> None:
        """Pass on an event; returns at once."""
        if self._failure is None and self._waiting.qsize() >= _MOST_WAITING:
            self._failure = f"it is {_MOST_WAITING:,} events behind"
        if self._failure is None:
            self._waiting.put(event)

    def failure(self) -> str | None:
        """Return what went wrong, once; None where nothing has, or where it was returned before."""
        if self._failure is None or self._has_told:
            return None
        self._has_told = True
        return self._failure

    def close(self) -> None:
        """Let the tracker write what is left, for a few seconds."""
        self._waiting.put(None)
        self._thread.join(_PATIENCE_S)
        if self._thread.is_alive() and self._failure is None:
            self._failure = f"it has not written all within {_PATIENCE_S:g} s"

    def _work(self) -> None:
        try:
            tracker: Tracker = registry.resolve("tracker", self.name)(self._folder)
            try:
                while self._failure is None and (event := self._waiting.get()) is not None:
                    tracker.read(event)
            finally:
                tracker.close()
        except Exception as error:  # noqa: BLE001  whatever it is, the run goes on
            self._failure = reason_of(error)


def require(names: Sequence[str]) -> None:
    """Fail now where a tracker cannot be had.

    Raises:
        ConfigError: There is none of that name.
        DependencyError: Its library is not installed; the message says how to install it.
    """
    for name in names:
        registry.resolve("tracker", name).require()


@contextlib.contextmanager
def track(names: Sequence[str], folder: Path, before: Sequence[RunEvent]) -> Iterator[tuple[Tracking, ...]]:
    """Yield what passes events on to trackers.

    Args:
        names: Of the trackers.
        folder: Of the run.
        before: What was recorded of a run that goes on. Trackers begin anew, so that no point is there twice.
    """
    tracked = tuple(Tracking(name, folder) for name in dict.fromkeys(names))
    try:
        for each in tracked:
            for event in before:
                each.tell(event)
        yield tracked
    finally:
        for each in tracked:
            each.close()
