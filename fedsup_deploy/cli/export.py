"""`fedsup-deploy export`."""

from pathlib import Path
from typing import Any

import click

from fedsup_deploy import registry
from fedsup_deploy.cli import options
from fedsup_deploy.cli.commands import Command
from fedsup_deploy.cli.output import Output


@click.command("export", cls=Command)
@options.run_argument(required=False)
@options.arch_option(required=False)
@click.option(
    "--search", type=options.OLD_FILE, metavar="FILE", help="A search.json: exports the pick of each profile."
)
@click.option(
    "--profile",
    "profiles",
    multiple=True,
    metavar="NAME|FILE",
    help="A device; may be repeated.  [default with --search: all it holds]",
)
@click.option(
    "--format",
    "formats",
    multiple=True,
    type=click.Choice(registry.names("exporter")),
    help="A file format; may be repeated.  [default: the profile's]",
)
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    type=click.Choice(["fp32"]),
    default=["fp32"],
    show_default=True,
    help="Precision of the weights.",
)
@click.option(
    "--out",
    type=options.NEW_PATH,
    metavar="DIR",
    default=Path("exports"),
    show_default=True,
    help="Folder of the bundles.",
)
@click.pass_context
def command(context: click.Context, /, **given: Any) -> None:
    """Make one verified bundle of model files per device profile.

    Takes either --search FILE, or RUN with --arch and --profile.
    """
    names_subnet = given["run"] is not None or given["architecture"] is not None
    if (given["search"] is not None) == names_subnet:
        context.fail("expected either --search FILE, or RUN with --arch")
    if names_subnet and not (given["run"] and given["architecture"] and given["profiles"]):
        context.fail("RUN, --arch and --profile are needed together")
    from fedsup_deploy.pipeline.exporting import ExportRequest, export

    output = context.ensure_object(Output)
    given |= {name: list(given[name]) for name in ("profiles", "formats", "precisions")}
    with output.progress() as listeners:
        result = export(ExportRequest(**given), listeners)
    output.emit(result, options.bundle_table)
