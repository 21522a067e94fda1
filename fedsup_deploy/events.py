"""What happened, one JSON line per event, and live to whoever listens.

A progress bar is a listener, so the file and the screen cannot disagree. Nothing here prints.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fedsup_deploy import files

Listener = Callable[[dict[str, Any]], None]


class EventLog:
    """Appends events to a file and passes each to the listeners.

    Args:
        path: Where the lines go; None keeps them off the disk.
        listeners: Called with each event, in order, after it was written.
    """

    def __init__(self, path: Path | None = None, listeners: tuple[Listener, ...] = ()) -> None:
        self._path = path
        self._listeners = listeners

    def emit(self, kind: str, **fields: Any) -> None:
        """Record one event.

        Args:
            kind: What happened: `train_started`, `round`, `evaluation`, ...
            fields: JSON values. Units are part of their names (`_s`, `_bytes`).

        Side effects: Appends one line to the file and calls the listeners.
        """
        event = {"event": kind, **fields}
        if self._path is not None:
            line = json.dumps({**event, "unix_time_s": round(time.time(), 3)}, allow_nan=False)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        for listener in self._listeners:
            listener(event)

    def drop_after(self, round_index: int) -> None:
        """Forget the rounds from `round_index` on: a resumed run repeats them.

        A last line cut short by a kill is dropped as well.
        """
        if self._path is None or not self._path.exists():
            return
        kept = [
            line
            for line in self._path.read_text(encoding="utf-8").splitlines(keepends=True)
            if line.endswith("\n") and json.loads(line).get("round", -1) < round_index
        ]
        files.write_text(self._path, "".join(kept))


def read_events(path: Path) -> list[dict[str, Any]]:
    """Return the events of a run, without a last line cut short by a kill."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]
