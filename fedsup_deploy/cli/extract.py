"""`fedsup-deploy extract`."""

from pathlib import Path

import click

from fedsup_deploy.cli import options
from fedsup_deploy.cli.commands import Command
from fedsup_deploy.cli.output import Output


@click.command("extract", cls=Command)
@options.run_argument()
@options.arch_option()
@click.option("--out", type=options.NEW_PATH, required=True, metavar="FILE", help="The .safetensors file to write.")
@click.pass_obj
def command(output: Output, run: Path, architecture: str, out: Path) -> None:
    """Write one subnet's own weights and its architecture."""
    from fedsup_deploy.commands.extract import extract

    with output.progress():
        result = extract(run, architecture, out)
    output.emit(result)
