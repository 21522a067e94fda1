"""`fedsup-deploy fleet`: the devices of a federation."""

import click

from fedsup_deploy.cli.commands import Group
from fedsup_deploy.cli.output import Output

command = Group("fleet", help="See which devices can take part in a federation.")


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
