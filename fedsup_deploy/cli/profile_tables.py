"""What `fedsup-deploy profile check` and `profile diff` show to a person."""

from rich.console import Group, RenderableType

from fedsup_deploy.cli import tables
from fedsup_deploy.cli.output import Result


def checks(result: Result) -> RenderableType:
    """Return a table per profile, with a conclusion below it."""
    return Group(
        *(
            tables.titled(tables.rows([_check_row(row) for row in entry["rows"]]), *_conclusion(entry, result), "")
            if entry["rows"]
            else f"{entry['name']}: nothing published about this profile is known, so there is nothing to check"
            for entry in result["profiles"]
        )
    )


def _check_row(row: Result) -> Result:
    scaled = "" if row["scaled_by"] == 1 else f" x {row['scaled_by']:g}"
    shown = ("role", "runtime", "threads", "verdict", "device")
    return {
        "network": row["network"],
        "published ms": tables.cell(row["published_ms"]) + scaled,
        "predicted ms": row["predicted_ms"],
        "ratio": row["ratio"],
        **{name: row[name] for name in shown},
    }


def _conclusion(entry: Result, result: Result) -> list[str]:
    if entry["is_inside"] is None:
        return [f"{entry['name']}: no row has the conditions of the profile, so nothing was judged"]
    judged = "1 row was judged" if entry["num_judged"] == 1 else f"{entry['num_judged']} rows were judged"
    word = "all inside" if entry["is_inside"] else "not all inside"
    lines = [f"{entry['name']}: {judged}, {word} a factor of {result['factor']:g}"]
    if entry["heldout"] is not None:
        error = entry["heldout"]
        rows = f"{error['num_heldout']} rows under its conditions that no cost was deduced from, known misses included"
        lines.append(f"  off by {error['mape']:.0%} on average on {rows}")
    return lines


def difference(result: Result) -> RenderableType:
    """Return the figures as a table, and what they do to predictions below it."""
    first, second = result["first"]["name"], result["second"]["name"]
    rows = [
        {
            "path": entry["path"],
            "first": entry["first"],
            "second": entry["second"],
            "change": None if entry["change"] is None else f"{entry['change']:+.1%}",
        }
        for entry in result["figures"]
    ]
    found = result["predictions"]
    if "problem" in found:
        said = found["problem"]
    else:
        said = (
            f"{second} / {first}, {found['num_architectures']:,} subnets of {found['space']}: median "
            f"{found['median_ratio']:.3g}, {found['smallest_ratio']:.3g} to {found['largest_ratio']:.3g}, "
            f"rank correlation {tables.cell(found['spearman'])}"
        )
    sources = f"{len(result['provenance'])} figures have another source; --json names them"
    return tables.titled(tables.rows(rows), f"predictions: {said}", sources) if rows else "no figure differs"
