"""Options that lead to another machine."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from fedsup_deploy.cli import options

if TYPE_CHECKING:
    from fedsup_deploy.device.remote.ssh import Access

_Function = TypeVar("_Function", bound=Callable[..., object])
_NAMES = ("on", "python", "install", "ssh_config")


def remote_options(function: _Function) -> _Function:
    """Add what says which other machine, and how to get into it."""
    for decorate in (
        click.option(
            "--ssh-config", type=options.OLD_FILE, metavar="FILE", help="A configuration for ssh instead of yours."
        ),
        click.option("--install", is_flag=True, help="Get what Python lacks there with pip, for this run only."),
        click.option("--python", metavar="NAME", help="Python 3.6 or later on that machine.  [default: python3]"),
        click.option("--on", metavar="ssh://[USER@]HOST[:PORT]", help="Another machine."),
    ):
        function = decorate(function)
    return function


def take_access(given: dict[str, Any]) -> "Access | None":
    """Return how to get into the other machine that was given; None if it is this one.

    Raises:
        UsageError: Options that are about another machine are given without one.
        ConfigError: The machine is not named as it should be.

    Side effects: Removes the options from `given`.
    """
    on, python, install, ssh_config = (given.pop(name) for name in _NAMES)
    if on is None:
        if python is not None or install or ssh_config is not None:
            raise click.UsageError("--python, --install and --ssh-config are about another machine; name it with --on")
        return None
    from fedsup_deploy.device.remote.ssh import Access, SshHost

    config: Path | None = ssh_config
    return Access(SshHost.parse(on), python or "python3", install, config)
