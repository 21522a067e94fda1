"""Results as short tables for people. Numbers are rounded for reading; `--json` gives them in full."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, TextIO, TypeGuard

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from fedsup_deploy.ondevice.printable import printable

#: One row of a table: what stands in each column. A mapping becomes several columns.
Row = Mapping[str, object]

_MAX_ROWS: Final = 20
_WIDTH_OF_PIPES: Final = 240


def console(file: TextIO) -> Console:
    """Return a console for a stream. Only a terminal has a width to keep to."""
    return Console(file=file, width=None if file.isatty() else _WIDTH_OF_PIPES, highlight=False)


def overview(result: Row) -> RenderableType:
    """Return all fields of a result, and below them a table of each list of mappings."""
    fields = Table(box=None, show_header=False, pad_edge=False)
    lists: list[RenderableType] = []
    for name, value in _flat(result):
        if _is_rows(value):
            lists += [Text(f"\n{printable(name)}"), rows(value)]
        else:
            fields.add_row(Text(printable(name)), Text(cell(value), overflow="fold"))
    return Group(*([fields] if fields.row_count else []), *lists)


def rows(entries: Sequence[Row]) -> RenderableType:
    """Return a table with one row per entry and a column for each key that any entry has."""
    flat = [dict(_flat(entry)) for entry in entries]
    columns = list(dict.fromkeys(name for entry in flat for name in entry))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(columns):
        is_number = all(isinstance(entry.get(name), (int, float, type(None))) for entry in flat)
        table.add_column(
            Text(printable(name)), justify="right" if is_number else "left", overflow="fold", no_wrap=index == 0
        )
    for entry in flat[:_MAX_ROWS]:
        table.add_row(*(Text(cell(entry.get(name))) for name in columns))
    if len(flat) <= _MAX_ROWS:
        return table
    return Group(table, Text(f"and {len(flat) - _MAX_ROWS:,} more; --json gives all"))


def stacked(*tables: RenderableType) -> RenderableType:
    """Return tables one below the other."""
    return Group(*tables)


def titled(table: RenderableType, *lines: str) -> RenderableType:
    """Return a table with lines of text below it."""
    return Group(table, *(Text(printable(line), overflow="fold") for line in lines))


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


def _flat(result: Row, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield the fields of nested mappings under dotted names."""
    for key, value in result.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", None if value == {} else value


def _is_rows(value: object) -> TypeGuard[list[Row]]:
    return isinstance(value, list) and bool(value) and all(isinstance(entry, Mapping) for entry in value)
