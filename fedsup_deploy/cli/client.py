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
    from fedsup_deploy.commands.client import LOCALHOST, prepare
    from fedsup_deploy.config.client import load_client_config
    from fedsup_deploy.engines.flower.keeper import keep

    def tell(line: str) -> None:
        if not output.is_quiet:
            click.echo(f"{settings.name}: {line}", err=True)

    settings = load_client_config(config)
    arguments, environment = prepare(settings, config)
    # Before flwr is imported, which reads it then; what is forked has it, too.
    os.environ.update(environment)
    tell(f"connecting to {settings.superlink}; Ctrl-C ends it")
    keep(settings.home, arguments, f"{LOCALHOST}:{settings.port}", tell)
