"""`fedsup-deploy evaluate`."""

from pathlib import Path

import click

from fedsup_deploy.cli import options
from fedsup_deploy.cli.commands import Command
from fedsup_deploy.cli.output import Output


@click.command("evaluate", cls=Command)
@options.run_argument()
@options.arch_option()
@click.option(
    "--split",
    type=click.Choice(["test", "validation", "held-out"]),
    help="Images to evaluate on: the server's, or those that clients hold out. Default: test, or where the server has "
    "no images held-out.",
)
@click.option(
    "--per-client",
    is_flag=True,
    help="Also the mean accuracy over clients, and of the worst tenth: on what they hold out, or else train on.",
)
@options.schedule_option()
@click.pass_obj
def command(
    output: Output, run: Path, architecture: str, split: str | None, per_client: bool, schedule: str | None
) -> None:
    """Measure the accuracy of one subnet after recalibration."""
    from fedsup_deploy.commands.evaluate import evaluate

    with output.progress() as listeners:
        result = evaluate(run, architecture, split=split, per_client=per_client, schedule=schedule, listeners=listeners)
    output.emit(result)
