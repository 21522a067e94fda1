"""`fedsup-deploy verify`."""

from pathlib import Path

import click

from fedsup_deploy.cli import options
from fedsup_deploy.cli.commands import Command
from fedsup_deploy.cli.output import Output


@click.command("verify", cls=Command)
@click.argument("bundle", metavar="BUNDLE", type=options.OLD_FOLDER)
@click.pass_obj
def command(output: Output, bundle: Path) -> None:
    """Check a bundle's hashes and that its models compute what they must.

    Exit code 4: a file is missing or altered. 6: a model computes something else.
    """
    from fedsup_deploy.pipeline.verification import verify

    with output.progress():
        result = verify(bundle)
    output.emit(result)
