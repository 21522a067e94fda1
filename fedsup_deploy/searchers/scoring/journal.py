"""`Journal`: JSON lines that several processes may append to one file, whichever of them is killed.

Owns the file's layout: the first line says what the others are about. Never changes a whole line, and never reads what
a killed process left of one.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Final

from pydantic import JsonValue

from fedsup_deploy import places
from fedsup_deploy.errors import ArtifactError, as_output_error
from fedsup_deploy.ondevice.reading import MOST_BYTES_OF_JOURNAL, parse_json, read_bytes

_SCHEMA: Final = 1
_NEWLINE: Final = b"\n"


class Journal:
    """A file of entries about one subject. There need not be a file yet.

    Args:
        path: The file.
        about: The subject, a JSON mapping.
    """

    def __init__(self, path: Path, about: Mapping[str, JsonValue]) -> None:
        self.path = path
        self._header = {"schema": _SCHEMA, "about": dict(about)}

    def read(self) -> Iterator[tuple[str, dict[str, JsonValue]]]:
        """Yield `file:line` and the entry of every whole line.

        Raises:
            ArtifactError: The file cannot be read or is about something else, or a line of it is damaged.
        """
        try:
            content = read_bytes(self.path, MOST_BYTES_OF_JOURNAL)
        except FileNotFoundError:
            return
        except OSError as error:
            raise ArtifactError(f"{self.path}: cannot be read: {error.strerror}; make it readable") from error
        except ValueError as error:
            raise ArtifactError(f"{self.path}: cannot be read: {error}; remove it") from error
        # What follows the last line end was cut short by a kill, or is being written now.
        for number, line in enumerate(content.split(_NEWLINE)[:-1], start=1):
            where = f"{self.path}:{number}"
            try:
                entry = parse_json(line)
            except ValueError as error:
                raise ArtifactError(f"{where}: damaged: {error}; remove the line") from error
            if not isinstance(entry, dict):
                got = line[:40].decode(errors="replace")
                raise ArtifactError(f"{where}: got {got}, expected a JSON mapping; remove the line")
            if number > 1:
                yield where, entry
            elif entry != self._header:
                raise ArtifactError(f"{where}: got another subject than its name says; remove the file")

    def append(self, entry: Mapping[str, JsonValue]) -> None:
        """Add one entry. At whatever moment the process is killed, only this entry can be lost.

        Side effects: Writes the file, and its folder if that is missing. Waits while another process appends.

        Raises:
            OutputError: The file cannot be written.
        """
        with (
            places.hold(self.path, brief=True),
            as_output_error(self.path),
            self.path.open("a+b") as file,
        ):
            is_new = _drop_cut_line(file) == 0
            for document in [self._header, entry] if is_new else [entry]:
                file.write(json.dumps(document, allow_nan=False).encode() + _NEWLINE)


def _drop_cut_line(file: BinaryIO) -> int:
    """Remove what follows the last line end, which a killed process left. Returns the size of the file then."""
    size = file.seek(0, 2)
    if size:
        file.seek(size - 1)
        if file.read(1) != _NEWLINE:
            file.seek(0)
            size = file.read().rfind(_NEWLINE) + 1
            file.truncate(size)
    return size
