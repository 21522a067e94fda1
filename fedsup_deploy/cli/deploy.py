"""`fedsup-deploy deploy`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fedsup_deploy.cli import index_page, options
from fedsup_deploy.cli.commands import Command
from fedsup_deploy.cli.output import Output

if TYPE_CHECKING:
    from fedsup_deploy.cli.tables import Page
    from fedsup_deploy.commands.deploy import Deployed
    from fedsup_deploy.variant import Precision


@click.command("deploy", cls=Command)
@options.search_options
@options.variant_options
@options.seed_option(0, "Decides every random choice of the search.")
@options.engine_option()
@click.option(
    "--out", type=options.NEW_PATH, metavar="DIR", default=Path("exports"), show_default=True, help="Folder of bundles."
)
@click.pass_obj
def command(
    output: Output,
    /,
    profiles: tuple[str, ...],
    out: Path,
    formats: tuple[str, ...],
    precisions: tuple["Precision", ...],
    **given: Any,
) -> None:
    """Search and export for a whole fleet in one call.

    A limit given here replaces that of the profiles.
    """
    from fedsup_deploy.commands.deploy import deploy
    from fedsup_deploy.commands.search import SearchRequest

    request = SearchRequest(profiles=list(profiles), limits=options.take_limits(given), **given)
    with output.progress() as listeners:
        result = deploy(request, out, formats, precisions, listeners)
    output.emit(result, _table)


def _table(result: "Deployed") -> "Page":
    from fedsup_deploy.cli import tables

    found = [{"limits": options.limits_words(made.limits), "certified best": made.certified} for made in result.bundles]
    bundles = options.bundle_table(result.bundles, found)
    granted = dict.fromkeys(made.certified_relative_to for made in result.bundles if made.certified)
    certified = [tables.text(f"certified relative to {what}") for what in granted]
    run = tables.whole(options.searched_run_line(result.run, result.search))
    fleet = (
        []
        if result.fleet is None
        else [options.fleet_table(result.fleet, result.bundles[0].objective), tables.text("")]
    )
    return tables.stacked(*fleet, bundles, *certified, index_page.line(result.index), run)
