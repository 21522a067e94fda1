"""What `fedsup-deploy profile check` and `profile diff` show to a person."""

import statistics
from typing import TYPE_CHECKING, Final

from fedsup_deploy.cli import tables
from fedsup_deploy.device.difference import DifferentFigure, NoPredictions, ProfileDifference
from fedsup_deploy.device.published.check import CheckedProfile, CheckedRow, ProfileCheck

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import JsonValue

# More figures alike than there are kinds of operations are told by one row.
_MOST_ALIKE: Final = 8
_MOST_TEXT: Final = 16
_MOST_LISTED: Final = 4
# Keys of a figure in a table of figures: `latency.ops.conv.overhead_us`.
_DEPTH_OF_TABLES: Final = 4


def checks(result: ProfileCheck) -> tables.Page:
    """Return a table per profile, with a conclusion below it."""
    return tables.stacked(
        *(page for entry in result.profiles for page in (_check(entry, result.factor), tables.text("")))
    )


def _check(entry: CheckedProfile, factor: float) -> tables.Page:
    """Return a table for all rows under the same conditions, and the conclusion below them."""
    if not entry.rows:
        return tables.text(f"{entry.name}: nothing published about this profile is known, so there is nothing to check")
    conditions = list(dict.fromkeys(map(_conditions, entry.rows)))
    pages = [
        tables.stacked(
            tables.text(under),
            tables.rows([_check_row(row) for row in entry.rows if _conditions(row) == under]),
            tables.text(""),
        )
        for under in conditions
    ]
    return tables.stacked(*pages, *map(tables.text, _conclusion(entry, factor)))


def _conditions(row: CheckedRow) -> str:
    """Return under which conditions a latency was published."""
    return f"{row.device}; {row.runtime}, {row.threads} {'thread' if row.threads == 1 else 'threads'}:"


def _check_row(row: CheckedRow) -> tables.Row:
    scaled = "" if row.scaled_by == 1 else f" x {row.scaled_by:g}"
    return {
        "network": row.network,
        "published ms": tables.cell(row.published_ms) + scaled,
        "predicted ms": row.predicted_ms,
        "ratio": row.ratio,
        "role": row.role,
        "verdict": row.verdict,
    }


def _conclusion(entry: CheckedProfile, factor: float) -> list[str]:
    if entry.is_inside is None:
        return [f"{entry.name}: no row has the conditions of the profile, so nothing was judged"]
    judged = "1 row was judged" if entry.num_judged == 1 else f"{entry.num_judged} rows were judged"
    word = "all inside" if entry.is_inside else "not all inside"
    lines = [f"{entry.name}: {judged}, {word} a factor of {factor:g}"]
    if entry.heldout is not None:
        error = entry.heldout
        rows = f"{error.num_heldout} rows under its conditions that no cost was deduced from, known misses included"
        lines.append(f"  off by {error.mape:.0%} on average on {rows}")
    return lines


def difference(result: ProfileDifference) -> tables.Page:
    """Return the figures as a table, and what they do to predictions below it; long texts and many alike in short."""
    if not result.figures:
        return tables.text("no figure differs")
    groups: dict[str, list[DifferentFigure]] = {}
    for figure in result.figures:
        groups.setdefault(_group(figure.path), []).append(figure)
    alone = {path for path, of in groups.items() if len(of) == 1 or (len(of) <= _MOST_ALIKE and _changes(of))}
    shown = [figure for figure in result.figures if _group(figure.path) in alone]
    texts = [
        figure for figure in shown if max(len(_short(value)) for value in (figure.first, figure.second)) > _MOST_TEXT
    ]
    names = (result.first.name, result.second.name)
    names = names if names[0] != names[1] else ("first", "second")
    many = {path: of for path, of in groups.items() if path not in alone}
    # First, for a table shows so many rows.
    rows = [_group_row(path, of, names) for path, of in many.items()]
    rows += [_figure_row(figure, names) for figure in shown if figure not in texts]
    return tables.titled(
        tables.rows(rows) if rows else tables.text("figures that differ:"),
        *(f"{figure.path}: {_short(figure.first)} -> {_short(figure.second)}" for figure in texts),
        *(_about_group(path, of) for path, of in many.items() if _changes(of)),
        f"predictions: {_predictions(result)}",
        f"{len(result.provenance)} figures have another source; --json names them",
    )


def _group(path: str) -> str:
    """Return which figures are of one kind: `latency.parts.*.cached_us`; one without a table around it is alone."""
    keys = path.split(".")
    return path if len(keys) < _DEPTH_OF_TABLES else ".".join((*keys[:2], "*", keys[-1]))


def _short(value: "JsonValue") -> str:
    return f"{len(value)} entries" if isinstance(value, list) and len(value) > _MOST_LISTED else tables.cell(value)


def _figure_row(figure: DifferentFigure, names: tuple[str, str]) -> tables.Row:
    change = None if figure.change is None else f"{figure.change:+.1%}"
    sides = dict(zip(names, map(_short, (figure.first, figure.second)), strict=True))
    return {"figure": figure.path, **sides, "change": change}


def _group_row(path: str, figures: "Sequence[DifferentFigure]", names: tuple[str, str]) -> tables.Row:
    changes = _changes(figures)
    change = f"{statistics.median(changes):+.1%} (median)" if changes else None
    sides = ([figure.first for figure in figures], [figure.second for figure in figures])
    return {"figure": path, **dict(zip(names, map(_range, sides), strict=True)), "change": change}


def _range(values: "Sequence[JsonValue]") -> str | None:
    numbers = [value for value in values if isinstance(value, (int, float))]
    return f"{min(numbers):.4g} to {max(numbers):.4g}" if numbers else None


def _about_group(path: str, figures: "Sequence[DifferentFigure]") -> str:
    """Return what differs how much in a table of figures that are alike."""
    changes, said = _changes(figures), f"{path}: {len(figures)} figures"
    if len(changes) < len(figures):
        said += f", {len(figures) - len(changes)} of them in one profile only"
    most = max(
        (figure for figure in figures if figure.change is not None), key=lambda figure: abs(figure.change or 0.0)
    )
    name = ".".join(most.path.split(".")[2:-1])
    return f"{said}; changes of {min(changes):+.1%} to {max(changes):+.1%}, the largest of {name}"


def _changes(figures: "Sequence[DifferentFigure]") -> list[float]:
    return [figure.change for figure in figures if figure.change is not None]


def _predictions(result: ProfileDifference) -> str:
    found = result.predictions
    if isinstance(found, NoPredictions):
        return found.problem
    return (
        f"{result.second.name} / {result.first.name}, {found.num_architectures:,} subnets of {found.space}: median "
        f"{found.median_ratio:.3g}, {found.smallest_ratio:.3g} to {found.largest_ratio:.3g}, "
        f"rank correlation {tables.cell(found.spearman)}"
    )
