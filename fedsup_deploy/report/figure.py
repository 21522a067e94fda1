"""`Figure`: a plot in the words of Vega-Lite, and the same values as a table for those who read."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Final

from pydantic import JsonValue

from fedsup_deploy.artifact.document import JsonObject

#: A value in a table or a row of a plot.
Value = str | float | int | bool | None
Row = Mapping[str, Value]
#: Width of a picture, in pixels; on a page a plot is as wide as there is room.
WIDTH: Final = 640
#: Rows of a table; of more it is said how many.
MOST_ROWS: Final = 100


@dataclasses.dataclass(frozen=True)
class Table:
    """Values in rows.

    Args:
        columns: Their heads.
        rows: Of as many texts each.
        num_left_out: Rows that are not here.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    num_left_out: int = 0

    @classmethod
    def of(cls, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> "Table":
        """Return a table of at most `MOST_ROWS` rows."""
        kept = tuple(tuple(row) for row in rows[:MOST_ROWS])
        return cls(tuple(columns), kept, len(rows) - len(kept))


@dataclasses.dataclass(frozen=True)
class Figure:
    """A plot.

    Args:
        name: In lower case, for files.
        title: What it shows.
        says: How it is to be read.
        spec: In Vega-Lite: marks, encodings and rows; no colour and no width.
        table: The same values.
    """

    name: str
    title: str
    says: str
    spec: JsonObject
    table: Table


def rows(values: Sequence[Row]) -> JsonObject:
    """Return rows as the data of a spec."""
    return {"data": {"name": "rows", "values": [{**row} for row in values]}}


def quantity(field: str, title: str | None, **more: JsonValue) -> JsonObject:
    """Return the encoding of a number on an axis."""
    axis: JsonObject = {"tickCount": 5}
    scale = more.pop("scale", {"zero": False, "nice": True})
    form = more.pop("format", None)
    if form is not None:
        axis["format"] = form
    return {"field": field, "type": "quantitative", "title": title, "scale": scale, "axis": axis, **more}


def category(field: str, title: str | None = None, **more: JsonValue) -> JsonObject:
    """Return the encoding of a name, in the order of the rows."""
    return {"field": field, "type": "nominal", "title": title, "sort": None, **more}
