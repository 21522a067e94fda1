"""`fedsup-deploy sign`."""

import contextlib
import getpass
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fedsup_deploy.cli import options
from fedsup_deploy.cli.commands import Command
from fedsup_deploy.cli.output import Output
from fedsup_deploy.ondevice.signature import MOST_VERSION

if TYPE_CHECKING:
    from fedsup_deploy.cli.tables import Page
    from fedsup_deploy.commands.sign import SignedBundle


@click.command("sign", cls=Command)
@click.argument("bundle", metavar="BUNDLE", type=options.OLD_FOLDER)
@click.option(
    "--key",
    type=options.OLD_FILE,
    required=True,
    metavar="KEY",
    help="The private key: ECDSA over P-256, in PEM.",
)
@click.option(
    "--version",
    "number",
    type=click.IntRange(1, MOST_VERSION),
    required=True,
    metavar="N",
    help="The bundle's version, a number: devices refuse one lower than they had.",
)
@click.pass_obj
def command(output: Output, bundle: Path, key: Path, number: int) -> None:
    """Sign a bundle, so that whoever has the public key can tell who made it.

    The bundle is verified first. All of its files are signed but measured.json, with the version, in the format of
    OpenSSF Model Signing (model.sig); nothing is sent anywhere. Make a key with: openssl ecparam -name prime256v1
    -genkey -noout -out key.pem, and its public half with: openssl ec -in key.pem -pubout -out key.pub. Where the key is
    encrypted, its passphrase is that of the variable FEDSUP_KEY_PASSPHRASE, or asked for. Needs the extra sign.
    """
    from fedsup_deploy.commands.sign import sign

    with output.progress():
        result = sign(bundle, key, number, _passphrase)
    output.emit(result, _table)


def _passphrase() -> str | None:
    """Return the passphrase of the key; None where nobody can be asked."""
    said = os.environ.get("FEDSUP_KEY_PASSPHRASE")
    if said is None and sys.stdin is not None and sys.stdin.isatty():
        with contextlib.suppress(EOFError):
            said = getpass.getpass("Passphrase of the key: ")
    return said


def _table(result: "SignedBundle") -> "Page":
    from fedsup_deploy.cli import tables

    document = result.to_dict()
    is_open = document.pop("is_key_readable_by_others")
    warning = ["warning: others can read the private key; run: chmod 600 KEY"] if is_open else []
    return tables.titled(tables.overview(document), *warning)
