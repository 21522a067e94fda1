"""`Document`: the content of a YAML file, and where each part of it was written. It neither reads nor checks."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import JsonValue

from fedsup_deploy.config.reader import KeyPath


@dataclasses.dataclass(frozen=True)
class Document:
    """A YAML mapping and where its parts were written."""

    path: Path
    """The file, as the user named it."""
    data: dict[str, JsonValue]
    """JSON-like content."""
    lines: Mapping[KeyPath, int]
    """Line (from 1) of every key and list entry of the file."""
    overrides: Mapping[KeyPath, str]
    """What stands for a line where a value came from the command line, such as `--set training.rounds`."""

    def where(self, path: KeyPath) -> str:
        """Return `file:line`, or the option, of a value or of the closest thing around it."""
        return self._origin(path)[1]

    def line(self, path: KeyPath) -> int:
        """Return the line of a value or of the closest thing around it; 0 if it came from the command line."""
        return self._origin(path)[0]

    def is_overridden(self, path: KeyPath) -> bool:
        """Return whether a value came from the command line."""
        return self.line(path) == 0

    def get(self, path: KeyPath) -> JsonValue:
        """Return the value at a path.

        Raises:
            KeyError: The document does not say it.
        """
        value: JsonValue = self.data
        for key in path:
            inside = enumerate(value) if isinstance(value, list) else value.items() if isinstance(value, dict) else ()
            known: dict[str | int, JsonValue] = dict(inside)
            if key not in known:
                raise KeyError(path)
            value = known[key]
        return value

    def _origin(self, path: KeyPath) -> tuple[int, str]:
        for length in range(len(path), 0, -1):
            part = path[:length]
            if part in self.overrides:
                return 0, self.overrides[part]
            if part in self.lines:
                return self.lines[part], f"{display(self.path)}:{self.lines[part]}"
        return 1, f"{display(self.path)}:1"


def display(path: Path) -> str:
    """Return a file's name for messages: relative where it lies below the working folder."""
    absolute = path.absolute()
    return str(absolute.relative_to(Path.cwd())) if absolute.is_relative_to(Path.cwd()) else str(path)


def dotted(path: KeyPath) -> str:
    """Return `strategy.tiers.0` for a path."""
    return ".".join(str(key) for key in path)


def show(value: object) -> str:
    """Return a value for messages, as YAML would write it, shortened."""
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else f"{value[:57]}...")
    text = json.dumps(value, default=str)
    if len(text) <= 60:
        return text
    if isinstance(value, dict):
        return f"a mapping of {len(value)} keys"
    return f"a list of {len(value)} entries" if isinstance(value, (list, tuple)) else f"{text[:57]}..."
