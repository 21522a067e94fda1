"""`fedsup-deploy verify`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fedsup_deploy.cli import options
from fedsup_deploy.cli.commands import Command
from fedsup_deploy.cli.output import Output

if TYPE_CHECKING:
    from pydantic import JsonValue

    from fedsup_deploy.artifact.store import VerifiedBundle
    from fedsup_deploy.cli.tables import Page


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
    from fedsup_deploy.commands.verify import verify

    with output.progress():
        result = verify(bundle)
    output.emit(result, _table)


def _table(result: "VerifiedBundle") -> "Page":
    from fedsup_deploy.cli import tables

    document = result.to_dict()
    over = ("exceeded_limits",) if result.exceeded_limits else ()
    kept = ("bundle", "verdict", *over, "arch_id", "profile", "files", "not_executed", "not_compared")
    parity = result.parity
    short: dict[str, JsonValue] = {
        **{name: document[name] for name in kept},
        "parity": {
            "num_inputs": parity["num_inputs"],
            "max_scaled_diff": parity["max_scaled_diff"],
            "tolerance": parity["tolerance"],
        },
        "measured": None,
    }
    if (latency := result.measured) is not None:
        found = latency.statistics
        short["measured"] = {
            "p10_ms": found.p10_ms,
            "p50_ms": found.p50_ms,
            "p90_ms": found.p90_ms,
            "verdict": latency.stability.verdict,
        }
    return tables.overview(short)
