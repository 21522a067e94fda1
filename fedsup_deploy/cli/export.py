"""`fedsup-deploy export`."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fedsup_deploy.cli import index_page, options
from fedsup_deploy.cli.commands import Command
from fedsup_deploy.cli.output import Output

if TYPE_CHECKING:
    from fedsup_deploy.cli.tables import Page
    from fedsup_deploy.commands.export import Exported, ExportedRefinement


@click.command("export", cls=Command)
@options.run_argument(required=False)
@options.arch_option(required=False)
@click.option(
    "--search", type=options.OLD_FILE, metavar="FILE", help="A search.json: exports the pick of each profile."
)
@click.option(
    "--run",
    "moved_to",
    type=options.OLD_FOLDER,
    metavar="RUN",
    help="With --search: where its run is now.  [default: as the file says]",
)
@click.option(
    "--profile",
    "profiles",
    multiple=True,
    metavar="NAME|FILE",
    help="A device; may be repeated.  [default with --search: all it holds]",
)
@options.variant_options
@click.option(
    "--out",
    type=options.NEW_PATH,
    metavar="DIR",
    default=Path("exports"),
    show_default=True,
    help="Folder of the bundles.",
)
@click.option(
    "--refine",
    is_flag=True,
    help="With --search: also trim larger subnets to the limits; one that is more accurate gets a second bundle.",
)
@click.option(
    "--over-limit", is_flag=True, help="Export a subnet beyond the profile's limits, too; its manifest says so."
)
@click.option(
    "--max-accuracy-drop",
    "max_drop_points",
    type=float,
    callback=options.percentage_points,
    default=1.0,
    show_default=True,
    metavar="POINTS",
    help="Right answers that int8 may lose against fp32; a variant that loses more is not shipped.",
)
@options.engine_option()
@click.pass_context
def command(context: click.Context, /, **given: Any) -> None:
    """Make one verified bundle of model files per device profile.

    Takes either --search FILE, or RUN with --arch and --profile.
    """
    moved_to = given.pop("moved_to")
    names_subnet = given["run"] is not None or given["architecture"] is not None
    if (given["search"] is not None) == names_subnet:
        context.fail("expected either --search FILE, or RUN with --arch")
    if names_subnet and not (given["run"] and given["architecture"] and given["profiles"]):
        context.fail("RUN, --arch and --profile are needed together")
    if given["refine"] and names_subnet:
        context.fail("--refine goes with --search, whose limits are to be met")
    if moved_to is not None and names_subnet:
        context.fail("--run goes with --search; without it, RUN is the first argument")
    from fedsup_deploy.commands.export import ExportRequest, export

    output = context.ensure_object(Output)
    given |= {name: list(given[name]) for name in ("profiles", "formats", "precisions")}
    given |= {} if moved_to is None else {"run": moved_to}
    given["max_accuracy_drop"] = given.pop("max_drop_points") / 100
    with output.progress() as listeners:
        result = export(ExportRequest(**given), listeners)
    output.emit(result, _table)


def _table(result: "Exported") -> "Page":
    """Return the bundles as a table, with what became of each refinement below it."""
    from fedsup_deploy.cli import tables

    bundles = tables.stacked(options.bundle_table(result.bundles), index_page.line(result.index))
    if result.refinements is None:
        return bundles
    return tables.titled(bundles, "Refined:", *(line for found in result.refinements for line in _outcome(found)))


def _outcome(found: "ExportedRefinement") -> "Iterator[str | Page]":
    """Yield what became of the refinement for one device, and why some subnets could not be trimmed."""
    from fedsup_deploy.cli import tables

    yield f"  {found.profile}: {_best(found)}"
    if found.bundle is not None:
        yield tables.whole(f"    {found.bundle.folder}")
    yield from (f"    {each.arch_id} cannot be trimmed to the limits: {each.reason}" for each in found.not_trimmed)


def _best(found: "ExportedRefinement") -> str:
    if not found.num_tried:
        return "no subnet one choice larger than the pick is just beyond the limits, so nothing was trimmed"
    if not found.networks:
        return f"none of {found.num_tried} larger subnets can be trimmed to the limits"
    best = found.networks[0]
    figures = (
        f"accuracy {options.share(best.accuracy, best.accuracy_interval)} on {found.num_images:,} {found.split} images"
    )
    pick = f"the pick's is {options.share(found.accuracy_of_pick, found.accuracy_of_pick_interval)}"
    if found.bundle is None:
        return f"no bundle: the best trimmed subnet has {figures}, {pick}"
    return f"a second bundle, {found.bundle.arch_id}: {figures}, {pick}"
