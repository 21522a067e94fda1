"""Results as short pages for people. Numbers are rounded for reading; `--json` gives them in full.

Owns how a page fits a width. A table whose lines would be too long is written as blocks instead, a field per line; text
is wrapped between words; and no word is ever broken or cut, for it may be a name, a path or an id to copy. A line is
longer than the width only where one such text is: `whole`.
"""

import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, TextIO, TypeGuard

from rich.cells import cell_len

from fedsup_deploy.ondevice.printable import printable

#: One row of a table: what stands in each column. A mapping becomes several columns.
Row = Mapping[str, object]
#: Takes the width there is, in columns of a terminal, and yields lines.
Page = Callable[[int], Iterator[str]]

_MAX_ROWS: Final = 20
_GAP: Final = "  "
# What comes before the words of a command at the end of a line.
_COMMAND: Final = ": fedsup-deploy "
#: Fields whose text is to be copied, spaces and all.
_TO_COPY: Final = ("path", "run", "out", "bundle", "folder", "file", "search", "command")


def width_of(stream: TextIO) -> int:
    """Return the width to keep to: what COLUMNS says, else that of a terminal; anything else has no end."""
    asked = os.environ.get("COLUMNS", "")
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    return shutil.get_terminal_size().columns if stream.isatty() else sys.maxsize


def overview(result: Row) -> Page:
    """Return all fields of a result, and below them a table of each list of mappings."""
    found: list[tuple[str, object]] = []
    lists: list[Page] = []
    for name, value in _flat(result):
        if _is_rows(value):
            lists += [*([text("")] if found or lists else []), text(name), rows(value)]
        else:
            found.append((name, value))
    return stacked(*([fields(found)] if found else []), *lists)


def rows(entries: Sequence[Row], most: int = _MAX_ROWS) -> Page:
    """Return a table with one row per entry and a column for each key that any entry has; or blocks of fields.

    Args:
        entries: The rows.
        most: How many are shown; the rest is counted.
    """
    flat = [dict(_flat(entry)) for entry in entries]
    shown = flat[:most]

    def lines(width: int) -> Iterator[str]:
        tables = (_table(shown, are_heads_wrapped=is_wrapped) for is_wrapped in (False, True))
        fitting = next((table for table in tables if max(map(cell_len, table)) <= width), None)
        if fitting is not None:
            yield from fitting
        else:
            for index, entry in enumerate(shown):
                yield from [""] if index else []
                yield from fields(list(entry.items()))(width)
        if len(flat) > len(shown):
            yield f"and {len(flat) - len(shown):,} more; --json gives all"

    return lines


def fields(of: Iterable[tuple[str, object]]) -> Page:
    """Return one field per line, the values below each other; a value that has no room there stands below its name."""
    shown = [_field(name, value) for name, value in of]

    def lines(width: int) -> Iterator[str]:
        indent = max(cell_len(name) for _, name, _ in shown) + len(_GAP)
        for is_copied, name, value in shown:
            words = [value] if is_copied else value.split(" ")
            if indent + max(map(cell_len, words)) > width:
                yield name
                start = _GAP
            else:
                start = name + " " * (indent - cell_len(name))
            first, *others = [value] if is_copied else _wrapped(value, width - cell_len(start))
            yield (start + first).rstrip()
            yield from (" " * cell_len(start) + other for other in others)

    return lines


def stacked(*pages: Page) -> Page:
    """Return pages one below the other."""
    return lambda width: (line for page in pages for line in page(width))


def titled(page: Page, *below: str | Page) -> Page:
    """Return a page with lines below it, and an empty one between."""
    return stacked(page, text(""), *(text(line) if isinstance(line, str) else line for line in below))


def text(line: str) -> Page:
    """Return a line that is wrapped between words; all that comes of it stands as far from the left as it does.

    A command that it ends with is not wrapped: it stands on a line of its own where the whole is too long.
    """
    shown = printable(line)
    said, colon, words = shown.partition(_COMMAND)

    def lines(width: int) -> Iterator[str]:
        if colon and cell_len(shown) > width:
            yield from _wrapped(f"{said}:", width)
            yield f"{_GAP}{colon.removeprefix(': ')}{words}"
        else:
            yield from _wrapped(shown, width)

    return lines


def whole(to_copy: object, label: str = "") -> Page:
    """Return a line that is never wrapped: a path or a command; its label on a line of its own where both are too long.

    Args:
        to_copy: The text.
        label: What stands before it.
    """
    copied = printable(str(to_copy))

    def lines(width: int) -> Iterator[str]:
        together = f"{label} {copied}" if label else copied
        if label and cell_len(together) > width:
            yield from (label, f"{_GAP}{copied}")
        else:
            yield together

    return lines


def cell(value: object) -> str:
    """Return a value as a person reads it: four digits of a fraction, separated thousands, `-` for nothing.

    Text may be of files that others wrote: it is made printable.
    """
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
    if isinstance(value, list):
        return f"{len(value)} entries" if _is_rows(value) else ", ".join(map(cell, value))
    return printable(str(value))


def _field(name: str, value: object) -> tuple[bool, str, str]:
    """Return whether a field's text is to be copied, its name and its text."""
    is_copied = name.rpartition(".")[2] in _TO_COPY
    words = [str(word) for word in value] if isinstance(value, list) else []
    return is_copied, printable(name), printable(shlex.join(words)) if is_copied and words else cell(value)


def _table(entries: Sequence[Row], *, are_heads_wrapped: bool) -> list[str]:
    """Return the lines of a table: a row takes one, heads may take several."""
    names = dict.fromkeys(name for entry in entries for name in entry)
    heads = {name: printable(name).split(" ") if are_heads_wrapped else [printable(name)] for name in names}
    columns = [_column(heads[name], [entry.get(name) for entry in entries]) for name in names]
    height = max(map(len, columns))
    standing = ([" " * cell_len(column[0])] * (height - len(column)) + column for column in columns)
    return [_GAP.join(line).rstrip() for line in zip(*standing, strict=True)]


def _column(head: Sequence[str], values: Sequence[object]) -> list[str]:
    """Return the lines of a column, all of one width: its head, a rule and its cells; numbers stand at the right.

    Args:
        head: What stays together of the head.
        values: Those of the column.
    """
    cells = [cell(value) for value in values]
    width = max(map(cell_len, (*head, *cells)))
    is_number = all(isinstance(value, (int, float, type(None))) for value in values)
    lines = [*_wrapped(" ".join(head), width), "-" * width, *cells]
    pads = [" " * (width - cell_len(line)) for line in lines]
    return [pad + line if is_number else line + pad for pad, line in zip(pads, lines, strict=True)]


def _wrapped(paragraph: str, width: int) -> Iterator[str]:
    """Yield the lines of a paragraph, each as far from the left as it is itself; no word is broken, nor `5 %`."""
    body = paragraph.lstrip(" ")
    indent = paragraph[: len(paragraph) - len(body)]
    line = ""
    for word in re.split(r" (?!%)", body):
        longer = f"{line} {word}" if line else word
        if line and cell_len(indent + longer) > width:
            yield indent + line
            longer = word
        line = longer
    yield (indent + line).rstrip()


def _flat(result: Row, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield the fields of nested mappings under dotted names."""
    for key, value in result.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", None if value == {} else value


def _is_rows(value: object) -> TypeGuard[list[Row]]:
    return isinstance(value, list) and bool(value) and all(isinstance(entry, Mapping) for entry in value)
