"""`fedsup-deploy verify`."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fedsup_deploy.cli import options
from fedsup_deploy.cli.commands import Command
from fedsup_deploy.cli.output import Output

if TYPE_CHECKING:
    from pydantic import JsonValue

    from fedsup_deploy.artifact.verified import VerifiedBundle
    from fedsup_deploy.cli.tables import Page
    from fedsup_deploy.ondevice.records import Int8Outputs, Outputs


@click.command("verify", cls=Command)
@click.argument("bundle", metavar="BUNDLE", type=options.OLD_FOLDER)
@click.option(
    "--key",
    type=options.OLD_FILE,
    metavar="PUB",
    help="The public key, in PEM, that has to have signed it. Needs the extra sign.",
)
@click.pass_obj
def command(output: Output, bundle: Path, key: Path | None) -> None:
    """Check that a bundle is unaltered and computes what it must.

    Every byte of every file, what the manifest says against the model's graph, and the outputs of model.onnx and of
    files in other formats whose runtime is installed; with --key, who signed it. TorchScript and .pt2 files can hold
    code, and the runtimes of .pte and .tflite trust what a file says: they are hashed, and run only where --key has
    proved who made them.

    Exit code 4: a file is missing, altered or not of the bundle, the bundle contradicts itself, or its signature is
    missing, not by that key, or of other files. 6: a model computes something else.
    """
    from fedsup_deploy.commands.verify import verify

    with output.progress():
        result = verify(bundle, key)
    output.emit(result, _table)


def _table(result: "VerifiedBundle") -> "Page":
    from fedsup_deploy.cli import tables

    document = result.to_dict()
    where_any = ("exceeded_limits", "not_executed", "not_compared")
    names = ("bundle", "verdict", "exceeded_limits", "arch_id", "profile", "files", "not_executed", "not_compared")
    short: dict[str, JsonValue] = {name: document[name] for name in names if document[name] or name not in where_any}
    if result.signature is not None:
        short["signature"] = document["signature"]
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
    if result.executed:
        short["executed"] = document["executed"]
    notes = list(_notes(result))
    return tables.titled(tables.overview(short), *notes) if notes else tables.overview(short)


def _notes(result: "VerifiedBundle") -> "Iterator[str]":
    """Yield what was not looked at, and what would."""
    if result.is_signed and result.signature is None:
        yield "note: it is signed, and nobody looked by whom: --key PUB checks the signature"
    left = [name for name in result.not_executed if name not in result.not_installed]
    if left and result.signature is None:
        names = ", ".join(left)
        yield f"note: {names}: hashed, not run, as no stranger's is; --key PUB runs what its owner signed"
    for how in dict.fromkeys(result.not_installed.values()):
        names = ", ".join(name for name, needed in result.not_installed.items() if needed == how)
        yield f"note: {names}: hashed, not run, as its runtime is not installed; run: {how}"


def _compared(found: "Outputs | Int8Outputs") -> "dict[str, JsonValue]":
    return {
        "num_inputs": found["num_inputs"],
        "max_scaled_diff": found["max_scaled_diff"],
        "tolerance": found["tolerance"],
    }
