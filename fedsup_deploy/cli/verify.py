"""`fedsup-deploy verify`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fedsup_deploy.cli import options
from fedsup_deploy.cli.commands import Command
from fedsup_deploy.cli.output import Output, Result

if TYPE_CHECKING:
    from rich.console import RenderableType


@click.command("verify", cls=Command)
@click.argument("bundle", metavar="BUNDLE", type=options.OLD_FOLDER)
@click.pass_obj
def command(output: Output, bundle: Path) -> None:
    """Check that a bundle is unaltered and computes what it must.

    Every byte of every file, what the manifest says against the model's graph, and the outputs of model.onnx.
    TorchScript and .pt2 files can hold code: they are hashed, not executed.

    Exit code 4: a file is missing, altered or not of the bundle, or the bundle contradicts itself. 6: the model
    computes something else.
    """
    from fedsup_deploy.pipeline.verification import verify

    with output.progress():
        result = verify(bundle)
    output.emit(result, _table)


def _table(result: Result) -> "RenderableType":
    from fedsup_deploy.cli import tables

    kept = ("bundle", "verdict", "arch_id", "profile", "files", "not_executed", "not_compared")
    parity = {name: result["parity"][name] for name in ("num_inputs", "max_scaled_diff", "tolerance")}
    short = {**{name: result[name] for name in kept}, "parity": parity, "measured": None}
    if (latency := result["measured"]) is not None:
        found = {f"p{percent}_ms": latency["statistics"][f"p{percent}_ms"] for percent in (10, 50, 90)}
        short["measured"] = {**found, "verdict": latency["stability"]["verdict"]}
    return tables.overview(short)
