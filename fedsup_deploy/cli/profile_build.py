"""`fedsup-deploy profile build` and `fit`: profiles from measurements."""

import functools
import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from fedsup_deploy.cli import options
from fedsup_deploy.cli.commands import Command
from fedsup_deploy.cli.output import Output
from fedsup_deploy.cli.remote import remote_options, take_access
from fedsup_deploy.cli.signals import advising
from fedsup_deploy.device.limits import TABLE

if TYPE_CHECKING:
    from fedsup_deploy.cli.tables import Page
    from fedsup_deploy.commands.profile_build import BuiltProfile, WrittenProfile
    from fedsup_deploy.commands.profile_fit import FittedProfile

_SPACE = "A search space, or a run: whose networks it is about."
_THREADS = "Threads of the runtime."
_PRECISION = "Number format of the networks."
_MINUTES = "Time for the measurement itself."
_MEASUREMENTS = "A measured bundle, or what measure --json printed about one; may be repeated."
_MEMORY = "Memory of the device, with --measurements."
_DEFAULTS = {row.default_option: (name, row.default) for name, row in TABLE.items() if row.default is not None}


@click.command("build", cls=Command)
@click.option("--space", default="fedsup-mobilenet", show_default=True, metavar="NAME|FILE|RUN", help=_SPACE)
@click.option("--name", metavar="NAME", help="Name of the profile; with --on one has to be given.  [default: host]")
@click.option("--out", type=options.NEW_PATH, metavar="FILE", help="Where to write it.  [default: profiles/NAME.yaml]")
@remote_options
@click.option("--precision", type=click.Choice(["fp32", "int8"]), default="fp32", show_default=True, help=_PRECISION)
@click.option(
    "--threads", type=click.IntRange(min=1), default=1, show_default=True, metavar="N", help="Of the runtime."
)
@click.option(
    "--minutes", type=float, callback=options.positive, default=4.0, show_default=True, metavar="X", help=_MINUTES
)
@click.option("--resume", is_flag=True, help="Go on with an interrupted build.")
@options.amount_options(_DEFAULTS)
@options.seed_option(0, "Decides which networks are timed.")
@click.pass_obj
def build_command(output: Output, /, name: str | None, **given: Any) -> None:
    """Build the profile of this machine, or of another.

    Times the blocks of a search space, or whole networks where it has too many blocks, fits a latency model, and checks
    it on networks it was not made from. Another machine needs what measure --on needs, and nothing of this package.
    """
    from fedsup_deploy.commands.profile_build import GO_ON, BuildRequest, build

    access = take_access(given)
    if access is not None and name is None:
        raise click.UsageError("--on builds the profile of another machine; give it a name of its own with --name")
    request = BuildRequest(name=name or "host", limits=options.take_limits(given), access=access, **given)
    if request.resume and not request.workplace.exists():
        click.echo(f"note: no interrupted build at {request.workplace}; starting one", err=True)
    with advising(lambda: GO_ON), output.progress() as listeners:
        result = build(request, listeners)
    output.emit(result, functools.partial(built_page, minutes=request.minutes))


@click.command("fit", cls=Command)
@click.argument("donor", metavar="DONOR")
@click.option("--name", required=True, metavar="NAME", help="Name of the new profile.")
@click.option("--measurements", type=options.OLD_PATH, multiple=True, metavar="FILE", help=_MEASUREMENTS)
@click.option("--here", "is_here", is_flag=True, help="Time networks on this machine.")
@click.option("--saved", "is_saved", is_flag=True, help="Learn from what measure --save-to-profile kept in DONOR.")
@click.option(
    "--networks", type=click.IntRange(3, 12), default=12, show_default=True, metavar="N", help="How many, with --here."
)
@click.option(
    "--minutes", type=float, callback=options.positive, default=0.5, show_default=True, metavar="X", help=_MINUTES
)
@click.option("--device-memory-mib", "memory_mib", type=click.IntRange(min=1), metavar="N", help=_MEMORY)
@click.option("--space", default="fedsup-mobilenet", show_default=True, metavar="NAME|FILE|RUN", help=_SPACE)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, metavar="N", help=_THREADS)
@click.option("--out", type=options.NEW_PATH, metavar="FILE", help="Where to write it.  [default: profiles/NAME.yaml]")
@options.seed_option(0, "Decides which networks are timed.")
@click.pass_obj
def fit_command(output: Output, /, **given: Any) -> None:
    """Adapt a profile to another device.

    From at most 12 networks timed there, or here: DONOR's latency model is scaled, and its error is that of predicting
    each network from the others.
    """
    from fedsup_deploy.commands.profile_fit import FitRequest, fit

    if [bool(given["measurements"]), given["is_here"], given["is_saved"]].count(True) != 1:
        raise click.UsageError("give one of --here, --saved and --measurements")
    if given["measurements"] and given["memory_mib"] is None:
        raise click.UsageError("--measurements need --device-memory-mib, which they do not tell")
    request = FitRequest(**given)
    with output.progress() as listeners:
        result = fit(request, listeners)
    output.emit(result, functools.partial(fitted_page, minutes=request.minutes if request.is_here else None))


def fitted_page(result: "FittedProfile", minutes: float | None) -> "Page":
    """Return how good an adapted profile is; `minutes` of the measurement, None where it was made elsewhere."""
    model, lines = f"{result.donor}, calibrated on {result.num_networks} networks", []
    if (calibration := result.calibration) is not None:
        own = ", operations each with a scale of its own" if calibration.op_scales else ""
        lines = [f"scale {calibration.scale:g}, offset {calibration.offset_us:g} us{own}"]
    again = "measure more networks, or take another donor"
    if minutes is not None:
        again = f"close other programs, then the same command with --minutes={2 * minutes:g}, or with another donor"
    return _error_table(result, model, again, *lines)


def built_page(result: "BuiltProfile", minutes: float) -> "Page":
    """Return how good a profile is that took so many minutes to measure."""
    model = f"table of {result.num_parts} parts" if result.num_parts else f"fitted to {result.num_networks} networks"
    again = f"close other programs, then the same command with --minutes={2 * minutes:g}"
    rounds = f"{result.num_rounds} rounds in {result.seconds:.0f} s"
    return _error_table(result, model, again, f"{rounds}; even and odd rounds differ by {result.disagreement:.1%}")


def _error_table(result: "WrittenProfile", model: str, again: str, *lines: str) -> "Page":
    """Return how far predictions are off beside those of the MACs alone, and what to do next.

    Args:
        result: The profile.
        model: The latency model that it was to have.
        again: How to get a better one.
        lines: What else there is to say.
    """
    from fedsup_deploy.cli import tables

    error, name = result.profile.error, result.profile.name
    assert error != "none", "a profile that was made here was checked"
    of_model = error if result.left_out is None else result.left_out.error
    rows = [
        {
            "latency model": what,
            "within 5 %": f"{figures.acc5:.0%}",
            "within 10 %": f"{figures.acc10:.0%}",
            "mean error": f"{figures.mape:.1%}",
            "rank correlation": figures.spearman,
        }
        for what, figures in {model: of_model, "MACs alone": error.macs_only}.items()
        if figures is not None
    ]
    percentiles = result.profile.percentile.ratios
    if percentiles is not None:
        lines = (*lines, "latency: " + ", ".join(f"{name} is {ratio:.4g} x p10" for name, ratio in percentiles.items()))
    checked = f"checked on {error.num_heldout} networks ({error.method})"
    profile = name if str(result.out) == f"profiles/{name}.yaml" else str(result.out)
    return tables.titled(
        tables.rows(rows),
        checked,
        *_about_left_out(result, again),
        *lines,
        tables.whole(result.out, "wrote"),
        tables.whole(shlex.join(["fedsup-deploy", "search", "--profile", profile]), "next:"),
    )


def _about_left_out(result: "WrittenProfile", again: str) -> Iterator[str]:
    """Yield what the profile has in place of a latency model that predicts worse, why that may be, and what to do."""
    if result.left_out is None:
        return
    yield "NOTE: a straight line through the MACs predicts better, so the profile has that line"
    reasons = result.left_out.reasons or ("nothing is known that disturbed the measurement",)
    yield from (f"  {reason}" for reason in reasons)
    yield f"for a better one: {again}"
