"""`fedsup-deploy fleet`: the devices of a federation."""

import os
from pathlib import Path

import click

from fedsup_deploy.cli import options
from fedsup_deploy.cli.commands import Group
from fedsup_deploy.cli.output import Output

command = Group("fleet", help="Serve a federation of devices, and see which can take part.")


@command.command("list")
@click.option("--config", required=True, metavar="FILE", help="The server's config.")
@click.option(
    "--devices", "at_least", type=click.IntRange(min=1), default=1, show_default=True, help="Wait for so many."
)
@click.pass_obj
def list_command(output: Output, config: str, at_least: int) -> None:
    """Ask the devices that are connected what they have.

    Writes the list that `data.root` of the config names, which `train` begins with.
    """
    from fedsup_deploy.config.schema import load_train_config

    settings = load_train_config(config)
    from fedsup_deploy.commands.fleet_list import fleet_list

    with output.progress() as listeners:
        result = fleet_list(settings, at_least, listeners)
    output.emit(result)


@command.command("serve")
@click.option("--authority", required=True, type=options.OLD_FILE, metavar="FILE", help="PEM file that devices trust.")
@click.option(
    "--certificate",
    required=True,
    type=options.OLD_FILE,
    metavar="FILE",
    help="PEM file of the server's certificate, which names `localhost` as well.",
)
@click.option("--key", required=True, type=options.OLD_FILE, metavar="FILE", help="Its private key.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address of this machine to listen on.")
@click.option("--port", type=click.IntRange(1, 65_535), default=9093, show_default=True, help="Port to listen on.")
@click.option(
    "--folder", type=options.NEW_PATH, default=Path("fleet"), show_default=True, help="What is kept: who is registered."
)
@click.pass_obj
def serve_command(
    output: Output, authority: Path, certificate: Path, key: Path, host: str, port: int, folder: Path
) -> None:
    """Run a SuperLink for devices, until it is stopped.

    It lets in whose key is registered, and runs no app but ours, whoever submits one.
    """
    from fedsup_deploy.commands.fleet_serve import prepare, serve

    program, environment = prepare(authority, certificate, key, (host, port), folder)
    if not output.is_quiet:
        click.echo(f"listening on {host}:{port}; Ctrl-C ends it", err=True)
    # Before flwr is imported, which reads it then; what is started has it, too.
    os.environ.update(environment)
    serve(program, (host, port), authority)
