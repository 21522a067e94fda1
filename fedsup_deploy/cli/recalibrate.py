"""`fedsup-deploy recalibrate`."""

from pathlib import Path

import click

from fedsup_deploy.cli import options
from fedsup_deploy.cli.commands import Command
from fedsup_deploy.cli.output import Output


@click.command("recalibrate", cls=Command)
@options.run_argument()
@options.arch_option()
@click.option("--out", type=options.NEW_PATH, metavar="FILE", help="Also write the calibrated subnet: .safetensors.")
@options.schedule_option()
@options.engine_option()
@click.pass_obj
def command(
    output: Output, run: Path, architecture: str, out: Path | None, schedule: str | None, engine: str | None
) -> None:
    """Take a subnet's normalisation statistics from the clients.

    They are kept in the run's folder.
    """
    from fedsup_deploy.commands.recalibrate import recalibrate

    with output.progress() as listeners:
        result = recalibrate(run, architecture, out, schedule, listeners, engine)
    output.emit(result)
