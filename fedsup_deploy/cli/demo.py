"""`fedsup-deploy demo`."""

from pathlib import Path

import click

from fedsup_deploy.cli import options
from fedsup_deploy.cli.commands import Command
from fedsup_deploy.cli.output import Output


@click.command("demo", cls=Command)
@click.option(
    "--out",
    type=options.NEW_PATH,
    metavar="DIR",
    default=Path(),
    show_default=True,
    help="Folder that runs/demo and exports go to.",
)
@click.pass_obj
def command(output: Output, out: Path) -> None:
    """Run the whole way on bundled images: train, search, export, measure."""
    from fedsup_deploy.pipeline.demo import demo

    with output.progress() as listeners:
        result = demo(out, listeners)
    output.emit(result)
