"""Curves in a terminal: dots of braille signs, or stars where the encoding has no braille."""

from collections.abc import Sequence
from typing import Final

#: Bits of a braille sign by column and row of its dots, from the top.
_DOTS: Final = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
_EMPTY: Final = 0x2800
#: Least columns for dots.
_LEAST: Final = 4


def curve(
    points: Sequence[tuple[float, float]], width: int, height: int, *, labels: tuple[str, str], braille: bool
) -> list[str]:
    """Return the lines of one curve.

    Args:
        points: From left to right, at least one; x may not fall.
        width: Columns.
        height: Lines.
        labels: What is written beside the top line and the bottom line: the highest and the lowest value.
        braille: Whether each sign is two dots wide and four high; otherwise one.
    """
    margin = max(map(len, labels))
    columns = max(_LEAST, width - margin - 1)
    across, down = (2, 4) if braille else (1, 1)
    rows_of = _heights(points, columns * across, height * down)
    cells = [[0] * columns for _ in range(height)]
    before = rows_of[0]
    for x, row in enumerate(rows_of):
        # Strokes connect what lies one above the other.
        for y in range(min(before, row), max(before, row) + 1):
            cells[y // down][x // across] |= _DOTS[x % across][y % down] if braille else 1
        before = row
    shown = ["".join(_sign(cell, braille=braille) for cell in line) for line in cells]
    beside = [labels[0], *[""] * (height - 2), labels[1]]
    return [f"{label:>{margin}} {line}".rstrip() for label, line in zip(beside, shown, strict=True)]


def _sign(cell: int, *, braille: bool) -> str:
    if not cell:
        return " "
    return chr(_EMPTY + cell) if braille else "*"


def _heights(points: Sequence[tuple[float, float]], num_x: int, num_y: int) -> list[int]:
    """Return for each column of dots the row from the top: of the mean of what falls there, or between others."""
    first, last = points[0][0], points[-1][0]
    low, high = min(y for _, y in points), max(y for _, y in points)
    sums: dict[int, tuple[float, int]] = {}
    for x, y in points:
        at = 0 if last == first else round((x - first) / (last - first) * (num_x - 1))
        total, count = sums.get(at, (0.0, 0))
        sums[at] = total + y, count + 1
    known = {at: total / count for at, (total, count) in sums.items()}
    values, left = [], 0
    ahead = sorted(known)
    for x in range(num_x):
        if x in known:
            left = x
        right = next((at for at in ahead if at >= x), left)
        share = 0.0 if right == left else (x - left) / (right - left)
        values.append(known[left] + share * (known[right] - known[left]))
    return [round((high - value) / (high - low) * (num_y - 1)) if high > low else num_y - 1 for value in values]
