"""What `fedsup-deploy profile check` and `profile diff` show to a person."""

from rich.console import Group, RenderableType

from fedsup_deploy.cli import tables
from fedsup_deploy.device.difference import NoPredictions, ProfileDifference
from fedsup_deploy.device.published.check import CheckedProfile, CheckedRow, ProfileCheck


def checks(result: ProfileCheck) -> RenderableType:
    """Return a table per profile, with a conclusion below it."""
    return Group(
        *(
            tables.titled(tables.rows([_check_row(row) for row in entry.rows]), *_conclusion(entry, result.factor), "")
            if entry.rows
            else f"{entry.name}: nothing published about this profile is known, so there is nothing to check"
            for entry in result.profiles
        )
    )


def _check_row(row: CheckedRow) -> tables.Row:
    scaled = "" if row.scaled_by == 1 else f" x {row.scaled_by:g}"
    return {
        "network": row.network,
        "published ms": tables.cell(row.published_ms) + scaled,
        "predicted ms": row.predicted_ms,
        "ratio": row.ratio,
        "role": row.role,
        "runtime": row.runtime,
        "threads": row.threads,
        "verdict": row.verdict,
        "device": row.device,
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


def difference(result: ProfileDifference) -> RenderableType:
    """Return the figures as a table, and what they do to predictions below it."""
    rows: list[tables.Row] = [
        {
            "path": entry.path,
            "first": entry.first,
            "second": entry.second,
            "change": None if entry.change is None else f"{entry.change:+.1%}",
        }
        for entry in result.figures
    ]
    found = result.predictions
    if isinstance(found, NoPredictions):
        said = found.problem
    else:
        said = (
            f"{result.second.name} / {result.first.name}, {found.num_architectures:,} subnets of {found.space}: median "
            f"{found.median_ratio:.3g}, {found.smallest_ratio:.3g} to {found.largest_ratio:.3g}, "
            f"rank correlation {tables.cell(found.spearman)}"
        )
    sources = f"{len(result.provenance)} figures have another source; --json names them"
    return tables.titled(tables.rows(rows), f"predictions: {said}", sources) if rows else "no figure differs"
