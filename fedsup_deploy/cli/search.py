"""`fedsup-deploy search`."""

from typing import TYPE_CHECKING, Any

import click

from fedsup_deploy.cli import options
from fedsup_deploy.cli.commands import Command
from fedsup_deploy.cli.output import Output, Result

if TYPE_CHECKING:
    from rich.console import RenderableType


@click.command("search", cls=Command)
@options.search_options
@options.seed_option(0, "Decides every random choice of the search.")
@click.option("--out", type=options.NEW_PATH, metavar="FILE", help="Where to write search.json.")
@click.pass_obj
def command(output: Output, /, profiles: tuple[str, ...], **given: Any) -> None:
    """Find the most accurate subnet within the limits of each device profile.

    A limit given here replaces that of the profiles.
    """
    from fedsup_deploy.pipeline.searching import SearchRequest, search

    request = SearchRequest(profiles=list(profiles), limits=options.take_limits(given), **given)
    with output.progress() as listeners:
        result = search(request, listeners)
    output.emit(result, _table)


def _table(result: Result) -> "RenderableType":
    from fedsup_deploy.cli import tables

    rows = []
    for found in result["results"]:
        pick = next(candidate for candidate in found["candidates"] if candidate["arch_id"] == found["pick"])
        rows.append(
            {
                "profile": found["profile"]["name"],
                "pick": found["pick"],
                "accuracy": pick["accuracy"],
                "ms predicted": pick["latency_ms_predicted"],
                "limits": ", ".join(f"{name} <= {limit:g}" for name, limit in found["limits"].items()) or "none",
                "MMACs": pick["num_macs"] / 1e6,
                "evaluated": f"{found['num_evaluated']:,} of {found['num_feasible']:,} that fit",
                "certified best": found["certified"],
                "costs are": "measured" if found["profile"]["provenance"] == ["measured"] else "not measured",
            }
        )
    return tables.titled(
        tables.rows(rows), f"wrote {result['out']}; next: fedsup-deploy export --search {result['out']}"
    )
