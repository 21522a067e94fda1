"""`fedsup-deploy profile`: list, show, validate."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fedsup_deploy.cli import options
from fedsup_deploy.cli.commands import Group
from fedsup_deploy.cli.output import Output, Result

if TYPE_CHECKING:
    from rich.console import RenderableType

command = Group("profile", help="List, show and validate device profiles.")


@command.command("list")
@click.pass_obj
def list_command(output: Output) -> None:
    """List the shipped profiles."""
    from fedsup_deploy.device.profile import list_profiles

    output.emit({"profiles": [profile.summary() for profile in list_profiles()]}, _listing)


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

    profiles = [load_profile(path) for path in files]
    output.emit(
        {"valid": [{"file": str(path), "name": profile.name} for path, profile in zip(files, profiles, strict=True)]}
    )


def _listing(result: Result) -> "RenderableType":
    """Return one line per profile: the descriptions are for `show`."""
    from fedsup_deploy.cli import tables

    columns = ("name", "is_measured", "provenance", "error", "limits", "formats")
    lines = [{name: profile[name] for name in columns} for profile in result["profiles"]]
    for line in lines:
        line["limits"] = [f"{name} {tables.cell(value)}" for name, value in line["limits"].items()]
    return tables.rows(lines)
