"""`fedsup-deploy fit-accuracy`."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fedsup_deploy import registry
from fedsup_deploy.cli import options
from fedsup_deploy.cli.commands import Command
from fedsup_deploy.cli.output import Output
from fedsup_deploy.cli.signals import advising

if TYPE_CHECKING:
    from fedsup_deploy.cli.tables import Page
    from fedsup_deploy.commands.fit_accuracy import AccuracyFit

_ACCURACY = (
    "measured on the server's validation images, or by the clients on images they hold out. Default: measured, or "
    "clients where the server has no images."
)
_PREDICTOR = "auto takes the smallest error; ridge lets exact search prove the best in spaces too large to list."
_EVALUATIONS = "Subnets to measure; all of a smaller space."


@click.command("fit-accuracy", cls=Command)
@click.argument("run", metavar="[RUN]", type=options.OLD_FOLDER, required=False)
@click.option(
    "--evaluations", type=click.IntRange(min=20), metavar="N", default=300, show_default=True, help=_EVALUATIONS
)
@click.option("--accuracy", type=click.Choice(["measured", "clients"]), help=_ACCURACY)
@click.option(
    "--predictor",
    type=click.Choice(["auto", *registry.names("accuracy")]),
    default="auto",
    show_default=True,
    help=_PREDICTOR,
)
@options.seed_option(0, "Decides which subnets, and every random choice of the fit.")
@click.pass_obj
def command(
    output: Output, run: Path | None, evaluations: int, accuracy: str | None, predictor: str, seed: int
) -> None:
    """Measure some subnets of a run and predict the accuracy of all others.

    Without RUN, of the newest run below runs/. The predictor stays in the run's folder; from then on a search takes
    seconds. What was measured before is not measured again.
    """
    from fedsup_deploy.commands.fit_accuracy import fit_accuracy

    with advising(lambda: "the same command goes on where it was stopped"), output.progress() as listeners:
        result = fit_accuracy(
            run,
            evaluations=evaluations,
            measured_by=accuracy,
            predictor=predictor,
            seed=seed,
            listeners=tuple(listeners),
        )
    output.emit(result, _table)


def _table(result: "AccuracyFit") -> "Page":
    from fedsup_deploy.cli import tables

    rows = [
        {
            "predictor": kind,
            "Kendall tau": judged.kendall_tau,
            "mean absolute error": judged.mae,
            "on subnets": judged.num_architectures,
            "chosen": kind == result.predictor,
        }
        for kind, judged in result.cross_validation.items()
    ]
    held_out = result.held_out
    return tables.titled(
        tables.rows(rows),
        f"{result.predictor} {options.held_out_words(held_out.kendall_tau, held_out.mae, held_out.num_architectures)}; "
        f"then fitted to all {result.num_measured:,}, each measured on {result.num_images:,} images",
        *_about_use(result),
        tables.whole(options.run_line(str(result.run), result.rounds)),
        tables.whole(result.out, "wrote"),
        tables.whole(f"fedsup-deploy search --run {shlex.quote(str(result.run))} --profile NAME", "next:"),
    )


def _about_use(result: "AccuracyFit") -> Iterator[str]:
    """Yield what a search will make of it."""
    if result.num_measured == result.num_architectures:
        yield "every subnet is measured: a search goes by that, and predicts nothing"
    else:
        yield from options.warning_about(result.held_out.kendall_tau, result.held_out.num_architectures)
