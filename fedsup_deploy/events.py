"""What happened, one JSON line per event, and live to whoever listens.

A progress bar is a listener, so the file and the screen cannot disagree. Nothing here prints. What a run records is
defined in `run_events`.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedsup_deploy import files
from fedsup_deploy.errors import ArtifactError, as_output_error
from fedsup_deploy.ondevice.reading import MOST_BYTES_OF_JOURNAL, parse_json, read_bytes

if TYPE_CHECKING:
    from pydantic import JsonValue

    from fedsup_deploy.run_events import RunEvent

#: Any: an event has the JSON values of its kind.
Listener = Callable[[dict[str, Any]], None]


class EventFile:
    """Events in a file, one line each.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, event: Mapping[str, Any]) -> None:
        """Write the line of an event: JSON values, and among them its kind as `event`.

        Raises:
            OutputError: It cannot be written, such as to a full disk.
        """
        line = json.dumps({**event, "unix_time_s": round(time.time(), 3)}, allow_nan=False)
        with as_output_error(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def drop_after(self, round_index: int) -> None:
        """Forget the rounds from `round_index` on: who goes on repeats them.

        A last line cut short by a kill is dropped as well.
        """
        if not self._path.exists():
            return
        kept = [line for line, event in _whole_lines(self._path) if event.get("round", -1) < round_index]
        files.write_text(self._path, "".join(kept))


class EventLog:
    """Passes events to the listeners, and appends those of a run to its file.

    Args:
        path: Where the lines go; None keeps them off the disk.
        listeners: Called with each event, in order, after it was written.
    """

    def __init__(self, path: Path | None = None, listeners: tuple[Listener, ...] = ()) -> None:
        self._file = None if path is None else EventFile(path)
        self._listeners = listeners

    def emit(self, kind: str, /, **fields: Any) -> None:
        """Tell of the progress of a command, which is not recorded.

        Args:
            kind: What happened: `pricing`, `export`, ...
            fields: JSON values. Units are part of their names (`_s`, `_bytes`).

        Raises:
            ValueError: The log has a file; what stands there is recorded.

        Side effects: Calls the listeners.
        """
        if self._file is not None:
            raise ValueError(f"event {kind!r}: what a run records is a class of run_events.py, for `record`")
        self._tell({"event": kind, **fields})

    def record(self, event: "RunEvent") -> None:
        """Record an event of a run.

        Raises:
            OutputError: The line cannot be written, such as to a full disk.

        Side effects: Appends one line to the file, if there is one, and calls the listeners.
        """
        document = event.document()
        if self._file is not None:
            self._file.append(document)
        self._tell(document)

    def drop_after(self, round_index: int) -> None:
        """Forget the rounds from `round_index` on, as of `EventFile.drop_after`."""
        if self._file is not None:
            self._file.drop_after(round_index)

    def _tell(self, event: dict[str, Any]) -> None:
        for listener in self._listeners:
            listener(event)


def read_events(path: Path) -> "list[dict[str, JsonValue]]":
    """Return the events of a run, without a last line cut short by a kill.

    Raises:
        ArtifactError: The file is missing, or a line is damaged.
    """
    return [event for _, event in _whole_lines(path)]


def _whole_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each line that was written to its end, and the event it holds."""
    try:
        lines = read_bytes(path, MOST_BYTES_OF_JOURNAL).decode("utf-8").split("\n")
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} is missing: what happened in the run is not known") from error
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: cannot be read: {error}; remove it to train on without it") from error
    # What follows the last line end was cut short by a kill.
    for number, line in enumerate(lines[:-1], start=1):
        try:
            event = parse_json(line)
        except ValueError as error:
            raise ArtifactError(f"{path}:{number}: damaged: {error}; remove the line") from error
        if not isinstance(event, dict) or not isinstance(event.get("event"), str):
            raise ArtifactError(f"{path}:{number}: got {line[:40]}, expected an event; remove the line")
        if type(event.get("round", 0)) is not int:
            got = repr(event["round"])[:40]
            raise ArtifactError(f"{path}:{number}: got round {got}, expected a number; remove the line")
        yield line + "\n", event
