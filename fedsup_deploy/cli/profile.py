"""`fedsup-deploy profile`: list, show, validate, check, diff."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from fedsup_deploy.cli import options
from fedsup_deploy.cli.commands import Group
from fedsup_deploy.cli.output import Output
from fedsup_deploy.cli.profile_build import build_command, fit_command
from fedsup_deploy.device.limits import TABLE
from fedsup_deploy.errors import GateError
from fedsup_deploy.results import Result

if TYPE_CHECKING:
    from fedsup_deploy.cli.tables import Page
    from fedsup_deploy.device.heldout import SummarizedError
    from fedsup_deploy.device.summary import ProfileList, ProfileSummary

command = Group("profile", help="Build, adapt, check and compare device profiles.")
command.add_command(build_command)
command.add_command(fit_command)


@dataclasses.dataclass(frozen=True)
class ValidFile:
    """A file, and the profile that it holds."""

    file: Path
    name: str


@dataclasses.dataclass(frozen=True)
class ValidFiles(Result):
    """Files without a mistake."""

    valid: tuple[ValidFile, ...]


@command.command("list")
@click.pass_obj
def list_command(output: Output) -> None:
    """List the shipped profiles."""
    from fedsup_deploy.device.profile import list_profiles
    from fedsup_deploy.device.summary import ProfileList, summary_of

    output.emit(ProfileList(tuple(map(summary_of, list_profiles()))), _listing)


@command.command("show")
@click.argument("profile", metavar="NAME|FILE")
@click.pass_obj
def show_command(output: Output, profile: str) -> None:
    """Show one profile in full.

    With the source of every figure.
    """
    from fedsup_deploy.config.load import dump
    from fedsup_deploy.device.profile import load_profile

    loaded = load_profile(profile)
    output.emit(loaded.model_dump(mode="json", by_alias=True), lambda _: dump(loaded).rstrip())


@command.command("validate")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=options.OLD_FILE)
@click.pass_obj
def validate_command(output: Output, files: tuple[Path, ...]) -> None:
    """Check profile files.

    The first mistake is an error that names its file and line.
    """
    from fedsup_deploy.device.profile import load_profile

    output.emit(ValidFiles(tuple(ValidFile(path, load_profile(path).name) for path in files)))


@command.command("check")
@click.argument("profiles", metavar="NAME|FILE...", nargs=-1, required=True)
@click.option(
    "--factor",
    type=float,
    default=1.5,
    show_default=True,
    callback=options.positive,
    metavar="X",
    help="How far a prediction may be from a published latency under the same conditions.",
)
@click.pass_context
def check_command(context: click.Context, profiles: tuple[str, ...], factor: float) -> None:
    """Compare predictions with published latencies of known networks.

    Exit code 6: one that was measured under the profile's conditions is further off than the factor.
    """
    from fedsup_deploy.cli import profile_tables
    from fedsup_deploy.device.published.check import check_profiles

    result = check_profiles(profiles, factor)
    context.ensure_object(Output).emit(result, profile_tables.checks)
    if not result.is_inside:
        outside = ", ".join(entry.name for entry in result.profiles if entry.is_inside is False)
        click.echo(f"error: {outside}: a prediction is off by more than a factor of {factor:g}", err=True)
        context.exit(GateError.exit_code)


@command.command("diff")
@click.argument("first", metavar="NAME|FILE")
@click.argument("second", metavar="NAME|FILE")
@click.option(
    "--space",
    default="fedsup-mobilenet",
    show_default=True,
    metavar="NAME|FILE|RUN",
    help="A search space, or a run: whose networks' predictions are compared.",
)
@click.pass_obj
def diff_command(output: Output, first: str, second: str, space: str) -> None:
    """Show what two profiles say differently.

    And how that changes what they predict.
    """
    from fedsup_deploy.cli import profile_tables
    from fedsup_deploy.commands.profile_diff import diff

    output.emit(diff(first, second, space), profile_tables.difference)


def _listing(result: "ProfileList") -> "Page":
    """Return one line per profile: the descriptions are for `show`."""
    from fedsup_deploy.cli import tables

    rows = [
        {
            "name": profile.name,
            "costs are": list(profile.provenance),
            "mean error": _words(profile.error),
            **{name: profile.limits.get(name) for name in TABLE if TABLE[name].is_predicted},
            "percentile": _meaning(profile),
        }
        for profile in result.profiles
    ]
    return tables.titled(
        tables.rows(rows), "profile show NAME has other limits, formats, and the source of every figure"
    )


def _words(error: "SummarizedError | Literal['none']") -> str:
    return "unknown" if error == "none" else f"{error.mape:.0%} (n = {error.num_heldout})"


def _meaning(profile: "ProfileSummary") -> str:
    """Return which percentile a limit on latency means."""
    percentile = profile.percentile
    return f"{percentile.limit}, assumed" if percentile.is_assumed else percentile.limit
