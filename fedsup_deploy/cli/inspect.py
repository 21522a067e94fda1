"""`fedsup-deploy inspect`."""

from pathlib import Path

import click

from fedsup_deploy.cli import options
from fedsup_deploy.cli.commands import Command
from fedsup_deploy.cli.output import Output


@click.command("inspect", cls=Command)
@click.argument("path", metavar="PATH", type=options.OLD_PATH)
@click.pass_obj
def command(output: Output, path: Path) -> None:
    """Say what a file or folder of ours is and what made it.

    What it says of itself: whether a bundle is unaltered is for `verify` to find out.
    """
    from fedsup_deploy.commands.inspect import inspect

    with output.progress():
        result = inspect(path)
    output.emit(result)
