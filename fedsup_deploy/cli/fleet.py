"""`fedsup-deploy fleet`: the devices of a federation."""

import os
from pathlib import Path

import click

from fedsup_deploy.cli import options
from fedsup_deploy.cli.commands import Group
from fedsup_deploy.cli.output import Output

command = Group("fleet", help="Set up a federation of devices, serve it, and see which can take part.")
_CONFIG = click.option("--config", required=True, metavar="FILE", help="The server's config.")


@command.command("init")
@click.option(
    "--server",
    "servers",
    required=True,
    multiple=True,
    metavar="HOST",
    help="What devices know it by; may be repeated.",
)
@click.option("--out", required=True, type=options.NEW_PATH, metavar="FOLDER", help="The folder to make.")
@click.option(
    "--days", type=click.IntRange(1, 3650), default=825, show_default=True, metavar="N", help="How long it is good for."
)
@click.option(
    "--authority", type=options.OLD_FOLDER, metavar="FOLDER", help="An authority of before.  [default: a new one]"
)
@click.pass_obj
def init_command(output: Output, servers: tuple[str, ...], out: Path, days: int, authority: Path | None) -> None:
    """Make a certificate for a server, and the authority that vouches for it.

    For a new certificate of a fleet that is out there, --authority names the folder that its devices trust.
    """
    from fedsup_deploy.commands.fleet_init import fleet_init

    output.emit(fleet_init(servers, out, days, authority))


@command.command("kit")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@_CONFIG
@click.option("--out", required=True, type=options.NEW_PATH, metavar="FOLDER", help="Gets a folder for each device.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="A setting of the devices: data.image_size=64."
)
@click.option(
    "--at",
    default="/opt/fedsup",
    show_default=True,
    metavar="FOLDER",
    help="Where it will be on the device.",
)
@click.option("--no-keys", is_flag=True, help="Without keys: each device makes its own.")
@click.pass_obj
def kit_command(
    output: Output, names: tuple[str, ...], config: str, out: Path, settings: tuple[str, ...], at: str, no_keys: bool
) -> None:
    """Make for each device a folder with all that it needs to join.

    Its config, a key, the certificate of the authority, the versions of packages that the server has, and a service for
    systemd, which says how to install it. Give several names at once where their settings are the same.
    """
    from fedsup_deploy.config.schema import load_train_config

    server = load_train_config(config)
    from fedsup_deploy.commands.fleet_kit import fleet_kit

    output.emit(fleet_kit(server, config, names, out, settings, at=at, has_keys=not no_keys))


@command.command("register")
@click.argument("keys", metavar="KEY...", nargs=-1, required=True, type=options.OLD_FILE)
@_CONFIG
@click.pass_obj
def register_command(output: Output, keys: tuple[Path, ...], config: str) -> None:
    """Let devices in, by their public keys.

    A device is known by the name of its file, without .key.pub, whatever it calls itself.
    """
    from fedsup_deploy.config.schema import load_train_config

    server = load_train_config(config)
    from fedsup_deploy.commands.fleet_register import fleet_register

    output.emit(fleet_register(server, keys))


@command.command("unregister")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@_CONFIG
@click.pass_obj
def unregister_command(output: Output, names: tuple[str, ...], config: str) -> None:
    """Refuse devices from now on, such as one that was lost or stolen.

    Whatever it is at, its server hears no more of it. It comes back by a new key alone.
    """
    from fedsup_deploy.config.schema import load_train_config

    server = load_train_config(config)
    from fedsup_deploy.commands.fleet_unregister import fleet_unregister

    output.emit(fleet_unregister(server, names))


@command.command("list")
@_CONFIG
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
    serve(program, (host, port), authority, folder)
