"""`fedsup-deploy client`."""

import os
from pathlib import Path

import click

from fedsup_deploy.cli import options
from fedsup_deploy.cli.commands import Command
from fedsup_deploy.cli.output import Output


@click.command("client", cls=Command)
@click.option("--config", required=True, type=options.OLD_PATH, metavar="FILE", help="The device's own config.")
@click.pass_obj
def command(output: Output, config: Path) -> None:
    """Join a federation as a device, with its own images.

    Runs until it is stopped. What the config says cannot be changed by a server.
    """
    from fedsup_deploy.commands.client import prepare
    from fedsup_deploy.config.client import load_client_config

    settings = load_client_config(config)
    program, environment = prepare(settings, config)
    if not output.is_quiet:
        click.echo(f"{settings.name}: connecting to {settings.superlink}; Ctrl-C ends it", err=True)
    # In place of this process: whoever starts, watches and stops it has the node itself.
    os.execve(program[0], program, environment)
