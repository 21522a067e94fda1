"""Numbers as a person reads them, each with its unit."""

from fedsup_deploy.ondevice.printable import printable

#: Of a bound, in what it is about.
Interval = tuple[float, float]
#: Beyond it, digits are not counted any more.
_MOST_DIGITS = 1e15
#: A difference of two shares that is none: floats of equal shares may differ by less.
NOTHING = 1e-9


def share(value: float | None, interval: Interval | None = None) -> str:
    """Return a share as percent, with its interval."""
    if value is None:
        return "not known"
    told = f"{100 * value:.1f} %"
    return told if interval is None else f"{told} ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})"


def percent(value: float) -> str:
    """Return a share as percent, such as an error, without an interval."""
    return f"{100 * value:.1f} %"


def rounded(value: float) -> str:
    """Return a share that is told roughly, such as of a limit, as percent without a fraction."""
    return f"{100 * value:.0f} %"


def points(value: float) -> str:
    """Return a difference of shares in percentage points, with its sign; a small one with digits enough to see it."""
    if abs(value) < NOTHING:
        return "0.0 points"
    told = f"{100 * value:+.1f}"
    return f"{told if float(told) else f'{100 * value:+.1g}'} points"


def number(value: float | None, unit: str = "", digits: int = 3) -> str:
    """Return a number with so many digits that count, and its unit; a whole one as it is."""
    if value is None:
        return "not known"
    is_whole = isinstance(value, int) or abs(value) >= 10**digits
    told = f"{int(value):,}" if is_whole and abs(value) < _MOST_DIGITS else f"{value:.{digits}g}"
    return f"{told} {unit}".rstrip()


def between(interval: Interval, unit: str = "") -> str:
    """Return an interval, both of its ends with the unit once."""
    return f"{number(interval[0])} to {number(interval[1], unit)}"


def size(num_bytes: float) -> str:
    """Return a number of bytes in the unit that fits."""
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if num_bytes >= scale:
            return f"{num_bytes / scale:.3g} {unit}" if num_bytes < 1000 * scale else f"{num_bytes / scale:,.0f} {unit}"
    return f"{num_bytes:.0f} bytes"


def seconds(value: float) -> str:
    """Return a time in the unit that fits."""
    if value < 120:
        return f"{value:.3g} s"
    return f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.1f} h"


def counted(count: int, one: str, many: str | None = None) -> str:
    """Return `1 image`, `2,000 images`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def short(text: str, most: int = 48) -> str:
    """Return a text that others chose in one line, its middle left out where it is long."""
    return printable(text, most)
