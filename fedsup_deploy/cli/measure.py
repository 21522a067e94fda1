"""`fedsup-deploy measure`."""

from pathlib import Path

import click

from fedsup_deploy.cli import options
from fedsup_deploy.cli.commands import Command
from fedsup_deploy.cli.output import Output


@click.command("measure", cls=Command)
@click.argument("path", metavar="BUNDLE|MODEL", type=options.OLD_PATH)
@click.option(
    "--threads", type=click.IntRange(min=1), default=1, show_default=True, metavar="N", help="Threads of the runtime."
)
@click.option(
    "--protocol",
    type=click.Choice(["quick", "full"]),
    default="quick",
    show_default=True,
    help="full takes longer and is steadier.",
)
@click.pass_obj
def command(output: Output, path: Path, threads: int, protocol: str) -> None:
    """Time a bundle or an ONNX model on this machine."""
    from fedsup_deploy.pipeline.measuring import measure

    with output.progress() as listeners:
        result = measure(path, threads, protocol, listeners)
    output.emit(result)
