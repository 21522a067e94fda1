"""`fedsup-deploy demo`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fedsup_deploy.cli import options
from fedsup_deploy.cli.commands import Command
from fedsup_deploy.cli.output import Output

if TYPE_CHECKING:
    from fedsup_deploy.cli.tables import Page
    from fedsup_deploy.commands.demo import Demonstration


@click.command("demo", cls=Command)
@click.option(
    "--out",
    type=options.NEW_PATH,
    metavar="DIR",
    default=Path(),
    show_default=True,
    help="Folder that runs/demo, exports and report.html go to.",
)
@click.pass_obj
def command(output: Output, out: Path) -> None:
    """Run the whole way on bundled images: train, search, export, measure, show what came of it."""
    from fedsup_deploy.commands.demo import demo

    with output.progress() as listeners:
        result = demo(out, listeners)
    output.emit(result, table)


def table(result: "Demonstration") -> "Page":
    """Return what each device class got, and what to try next."""
    from fedsup_deploy.cli import tables
    from fedsup_deploy.searchers.prices import rounded_up

    rows = [
        {
            "device class": made.profile,
            "arch": made.arch_id,
            "accuracy": options.share(made.accuracy, made.accuracy_interval),
            **options.not_recalibrated(made),
            "ms predicted": rounded_up(made.latency_ms_predicted),
            "percentile": str(made.percentile),
            "limit ms": made.latency_ms_limit,
            "ms measured here": made.latency_ms_measured_here,
            "KiB": ", ".join(f"{name} {size / 1024:.0f}" for name, size in made.bytes.items()),
        }
        for made in result.devices
    ]
    training = result.training
    is_one = len({made.arch_id for made in result.devices}) == 1
    same = (
        ["No larger subnet was more accurate on the validation images, so all classes get this one."] if is_one else []
    )
    return tables.titled(
        tables.rows(rows),
        f"Trained {training.rounds} rounds in {training.seconds:.0f} s into {training.run}; "
        f"{result.seconds:.0f} s in all.",
        *same,
        options.about_shares(result.devices),
        "Predicted: for the device, from published figures, not measured on it.",
        "Measured here: the same file, on this machine. Every file computes what the supernet computes (parity gate).",
        "",
        "Bundles:",
        *(tables.whole(f"  {made.folder}") for made in result.devices),
        _look(result),
        "Next, try:",
        *(tables.whole(f"  {line}") for line in result.next),
    )


def _look(result: "Demonstration") -> "Page":
    """Return where the page is, or how to get one."""
    from fedsup_deploy.cli import tables
    from fedsup_deploy.report.library import INSTALL

    if result.report is None:
        return tables.text(f"For a page to look at: {INSTALL}; then run the demo again, or fedsup-deploy report.")
    return tables.whole(result.report, "To look at, in a browser:")
