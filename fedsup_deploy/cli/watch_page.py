"""What `watch` shows of a run: text of a given width, the most important first, for a terminal may be low."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from rich.cells import cell_len

from fedsup_deploy.cli import tables
from fedsup_deploy.cli.curves import curve
from fedsup_deploy.cli.tables import Page
from fedsup_deploy.commands.watch import RECENT, RunView, Size, TierView
from fedsup_deploy.ondevice.printable import printable
from fedsup_deploy.report import apart, words

#: What a page is wide where nothing says so, such as in a pipe.
_USUAL_WIDTH: Final = 100
#: Columns of a curve at least, and its lines.
_CURVE_WIDTH: Final = 38
_CURVE_HEIGHT: Final = 5
#: Its lines where a page has to be lower.
_LOW_CURVE: Final = 3
_GAP: Final = "  "
_MOST_WARNINGS: Final = 5
_MOST_REASONS: Final = 3
_TIERS: Final = "answered: updates that were used; never: clients of it that nobody asked yet"
_SIGNS: Final = "\u28ff"

_STATES: Final = {
    "not begun": "not begun",
    "running": "running",
    "stopped": "stopped before its end: nobody on this machine trains it",
    "ended": "ended",
}
_CUT: Final = "ended, but its log tells of fewer rounds than it has: events.jsonl was cut, or is another's"


class _Room(NamedTuple):
    """What there is room for.

    Args:
        height: Lines of a curve.
        most_rows: Rows of curves beside each other; None where there is no end, and 0 for no curves.
    """

    height: int
    most_rows: int | None


#: What a page gives up to be lower, step by step.
_ROOMS: Final = (_Room(_CURVE_HEIGHT, None), _Room(_LOW_CURVE, None), _Room(_LOW_CURVE, 1), _Room(_LOW_CURVE, 0))


def page(view: RunView, *, braille: bool, most_lines: int | None = None) -> Page:
    """Return the page of a run.

    Args:
        view: What there is to see.
        braille: Whether curves may be drawn with braille signs.
        most_lines: As many as there is room for: curves get lower and are left out first, then the empty lines between
            parts; what there is no room for then is counted. None where there is no end.
    """

    def lines(width: int) -> Iterator[str]:
        found = [*_lines(view, width, _ROOMS[0], braille=braille)]
        if most_lines is None:
            return iter(found)
        for room in _ROOMS[1:]:
            if len(found) > most_lines:
                found = [*_lines(view, width, room, braille=braille)]
        if len(found) > most_lines:
            found = [line for line in found if line]
        kept = max(1, most_lines - 1)
        more = len(found) - kept
        return iter(found if more <= 1 else [*found[:kept], f"... {more} more lines; --once prints all of them"])

    return lines


def _lines(view: RunView, width: int, room: _Room, *, braille: bool) -> Iterator[str]:
    """Yield the lines of a page, parts apart by an empty one."""
    parts = [_top(view)]
    if len(view.loss) > 1 and room.most_rows != 0:
        parts.append(_curves(view, room, braille=braille))
    if view.sizes:
        parts.append(tables.stacked(tables.rows(_sizes(view)), tables.text(_of_images(view))))
    if view.asked:
        parts.append(tables.fields(_clients(view)))
    if view.worst:
        more = view.num_absent - len(view.worst)
        others = [tables.text(f"and {more:,} more clients were absent")] if more else []
        parts.append(tables.stacked(tables.rows(_worst(view)), *others))
    if view.tiers is not None:
        parts.append(tables.stacked(tables.rows(_tiers(view)), tables.text(_TIERS)))
    if view.notes:
        parts.append(tables.stacked(*(tables.text(f"note: {note}") for note in view.notes)))
    for number, part in enumerate(parts):
        yield from [""] if number else []
        yield from part(width)


def _top(view: RunView) -> Page:
    """Return how far it is, what comes next, and what is wrong."""
    return tables.stacked(
        tables.fields(_head(view)),
        *(tables.whole(command, "next:") for command in view.next_commands),
        *(tables.text(line) for line in _wrong(view)),
    )


def can_draw(encoding: str | None) -> bool:
    """Return whether an encoding has braille signs."""
    try:
        _SIGNS.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def duration(seconds: float) -> str:
    """Return a time in its two largest units: `3 min 20 s`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    hours = whole // 3600
    return f"{hours} h {whole % 3600 // 60} min" if hours < 48 else f"{hours // 24} days {hours % 24} h"


def _head(view: RunView) -> list[tuple[str, object]]:
    state = _CUT if view.is_cut else _STATES[view.state]
    found: list[tuple[str, object]] = [("run", view.run), ("state", state)]
    if view.state == "not begun":
        return found
    of = "" if not view.rounds else f" of {view.rounds:,} ({words.rounded(view.rounds_done / view.rounds)})"
    found.append(("rounds", f"{view.rounds_done:,}{of}"))
    if view.state != "ended":
        left = (
            "not known before the first round" if view.seconds_left is None else f"about {duration(view.seconds_left)}"
        )
        found.append(("time left", left if view.state == "running" else f"{left}, when it goes on"))
    if view.loss:
        found.append(("loss", f"{words.number(view.loss[-1])}, in the first round {words.number(view.loss[0])}"))
    if view.learning is not None:
        found.append(("accuracy", view.learning))
    if view.seconds_a_round is not None:
        recent = words.counted(min(len(view.loss), RECENT), "round")
        a_round = f"{words.number(view.seconds_a_round, 's')} a round in the mean of the last {recent}"
        found.append(("time", f"{duration(view.seconds)} until now, {a_round}"))
    if view.state == "running" and view.seconds_silent is not None:
        found.append(("last event", f"{duration(view.seconds_silent)} ago"))
    return found


def _wrong(view: RunView) -> Iterator[str]:
    """Yield what is wrong: the last warnings, and what has fallen."""
    yield from (f"fallen: {line}" for line in view.fallen)
    shown = view.warnings[-_MOST_WARNINGS:]
    if len(view.warnings) > len(shown):
        yield f"{len(view.warnings) - len(shown)} more warnings before these"
    for each in shown:
        yield f"warning, round {each.round}: {each.words}"
    if not shown and not view.fallen and view.loss:
        yield (
            "no warnings"
            if view.state in {"running", "ended"} and not view.is_cut
            else (f"no warnings in the {words.counted(view.rounds_done, 'round')} that there were")
        )


class _Curve(NamedTuple):
    """What is drawn: points, how their values are told, and which of them is the best."""

    title: str
    points: Sequence[tuple[float, float]]
    told_as: Callable[[float], str]
    best_of: Callable[[Iterable[float]], float]


def _curves(view: RunView, most: _Room, *, braille: bool) -> Page:
    plots = [_Curve("loss", [(at + 1.0, value) for at, value in enumerate(view.loss)], words.number, min)]
    plots += [
        _Curve(f"accuracy, {each.size} subnet", [*zip(each.rounds, each.accuracy, strict=True)], words.percent, max)
        for each in view.sizes
        if len(each.rounds) > 1
    ]

    def lines(width: int) -> Iterator[str]:
        room = min(width, _USUAL_WIDTH) if width > 1000 else width
        beside = max(1, min(len(plots), (room + len(_GAP)) // (_CURVE_WIDTH + len(_GAP))))
        each = (room - (beside - 1) * len(_GAP)) // beside
        drawn = [_plot(plot, each, most.height, braille=braille) for plot in plots]
        drawn = drawn if most.most_rows is None else drawn[: beside * most.most_rows]
        for start in range(0, len(drawn), beside):
            for together in zip(*drawn[start : start + beside], strict=True):
                yield _GAP.join(line + " " * (each - cell_len(line)) for line in together).rstrip()

    return lines


def _plot(of: _Curve, width: int, height: int, *, braille: bool) -> list[str]:
    points, told_as = of.points, of.told_as
    values = [value for _, value in points]
    best = of.best_of(values)
    told = f"from {told_as(values[0])} to {told_as(values[-1])}"
    if best not in (values[0], values[-1]):
        told += f", best {told_as(best)} in round {points[values.index(best)][0]:.0f}"
        told = told if len(told) <= width else told.removeprefix("from ").replace(" in round", ", round")
    labels = told_as(max(values)), told_as(min(values))
    margin = max(map(len, labels)) + 1
    first, last = f"{points[0][0]:.0f}", f"round {points[-1][0]:.0f}"
    below = " " * margin + first + " " * max(1, width - margin - len(first) - len(last)) + last
    lines = curve(points, width, height, labels=labels, braille=braille)
    return [of.title, told, *lines, below]


def _sizes(view: RunView) -> list[dict[str, object]]:
    after = view.sizes[0].rounds[-1]
    best, worst = _best_and_worst(view.sizes)
    is_told = apart.can_be(best.interval, worst.interval)
    found: list[dict[str, object]] = []
    for each in view.sizes:
        row: dict[str, object] = {
            "subnet": each.size,
            f"accuracy after round {after}": words.share(each.accuracy[-1], each.interval),
            "change": None if each.change is None else words.points(each.change),
            "highest": _highest(each),
        }
        found.append({**row, "compared": "best" if each is best else "worst"} if is_told else row)
    return found


def _best_and_worst(sizes: Sequence[Size]) -> tuple[Size, Size]:
    """Return the sizes that were the most and the least accurate when they were evaluated last."""
    return max(sizes, key=lambda each: each.accuracy[-1]), min(sizes, key=lambda each: each.accuracy[-1])


def _of_images(view: RunView) -> str:
    """Return whether the sizes can be told apart, and what the brackets behind accuracies are."""
    best, worst = _best_and_worst(view.sizes)
    of = "" if view.num_images is None else f", of {words.counted(view.num_images, 'image')}"
    return f"the sizes: {apart.in_words(best.interval, worst.interval)}; in brackets: 95 % interval{of}"


def _highest(size: Size) -> str:
    at = max(range(len(size.accuracy)), key=lambda index: size.accuracy[index])
    return f"{words.share(size.accuracy[at])} in round {size.rounds[at]}"


def _clients(view: RunView) -> list[tuple[str, object]]:
    may = "" if view.num_clients is None else f" ({view.num_clients:,} may take part)"
    missing = view.asked - view.answered
    lost = f", {words.percent(missing / view.asked)} are missing" if missing else ""
    refused = f"{view.rejected:,} rejected" if view.rejected else "none rejected"
    found: list[tuple[str, object]] = [
        ("last round", f"{view.last_answered:,} of {view.last_asked:,} clients answered{may}"),
        ("all rounds", f"{view.answered:,} of {view.asked:,} updates were used{lost}, {refused}"),
    ]
    if view.never_asked:
        found.append(("never asked", f"{view.never_asked:,} of {words.counted(view.num_clients or 0, 'client')}"))
    if view.reasons:
        shown = [
            f"{printable(reason, 60)} ({number:,})" for reason, number in list(view.reasons.items())[:_MOST_REASONS]
        ]
        more = len(view.reasons) - len(shown)
        found.append(("why", "; ".join([*shown, *([f"{more} more reasons"] if more else [])])))
    a_round = max(1, view.rounds_played)
    down, up = view.bytes_down, view.bytes_up
    found.append(("bytes down", f"{words.size(down)}, {words.size(down / a_round)} a round"))
    found.append(("bytes up", f"{words.size(up)}, {words.size(up / a_round)} a round"))
    if view.bytes_a_client is not None:
        found.append(("a client", view.bytes_a_client))
    return found


def _worst(view: RunView) -> list[dict[str, object]]:
    return [
        {
            "most often absent": f"client {each.client}" if each.name is None else words.short(each.name),
            "asked": each.asked,
            "absent": each.absent,
            "last reason": printable(each.reason, 60),
        }
        for each in view.worst
    ]


def _tiers(view: RunView) -> list[dict[str, object]]:
    assert view.tiers is not None
    least = min((each.answered / each.asked for each in view.tiers if each.asked), default=1.0)
    return [
        {
            "tier": each.tier,
            "clients": each.clients,
            "asked": each.asked,
            "answered": each.answered,
            "missing": _missing(each, least),
            "never": each.never_asked,
            "trains": each.trains,
        }
        for each in view.tiers
    ]


def _missing(tier: TierView, least: float) -> str | None:
    """Return the share of the updates that are missing, and whether no tier has a larger one."""
    if not tier.asked:
        return None
    share = tier.answered / tier.asked
    return words.percent(1 - share) + (", worst" if share == least < 1 else "")
