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
    from fedsup_deploy.ondevice.records import Int8Outputs, Outputs


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
    where_any = ("exceeded_limits", "not_executed", "not_compared")
    names = ("bundle", "verdict", "exceeded_limits", "arch_id", "profile", "files", "not_executed", "not_compared")
    short: dict[str, JsonValue] = {name: document[name] for name in names if document[name] or name not in where_any}
    short["parity"] = _compared(result.parity)
    if (int8 := result.int8) is not None:
        short["int8"] = {**_compared(int8), "num_classes_compared": int8["num_classes_compared"]}
    if (latency := result.measured) is not None:
        found = latency.statistics
        short["measured"] = {
            "p10_ms": found.p10_ms,
            "p50_ms": found.p50_ms,
            "p90_ms": found.p90_ms,
            "verdict": latency.stability.verdict,
        }
    return tables.overview(short)


def _compared(found: "Outputs | Int8Outputs") -> "dict[str, JsonValue]":
    return {
        "num_inputs": found["num_inputs"],
        "max_scaled_diff": found["max_scaled_diff"],
        "tolerance": found["tolerance"],
    }
