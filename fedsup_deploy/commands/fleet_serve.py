"""`fedsup-deploy fleet serve`: the SuperLink of a federation of devices."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from fedsup_deploy import places
from fedsup_deploy.engines.flower.environment import QUIET
from fedsup_deploy.engines.flower.launch import launch_server
from fedsup_deploy.engines.flower.readiness import check_certificate, check_port
from fedsup_deploy.engines.flower.submission import check_installed, program
from fedsup_deploy.errors import FederationError, as_output_error

#: The file in which Flower keeps everything, live tokens of runs and what devices have sent as well.
_DATABASE: Final = "state.db"
#: Addresses where it is reached as `localhost`.
_ANY: Final = ("127.0.0.1", "0.0.0.0", "::", "::1")


def prepare(
    authority: Path, certificate: Path, key: Path, address: tuple[str, int], folder: Path
) -> tuple[list[str], dict[str, str]]:
    """Return the command of a SuperLink, and the variables of its environment.

    Args:
        authority: PEM file that vouches for the certificate.
        certificate: PEM file, of the server.
        key: Its private key.
        address: Where to listen: host and port.
        folder: What it keeps.

    Raises:
        ConfigError: The certificate is of no use to devices, or nothing can listen at the address.
        DependencyError: Flower is not installed.
    """
    check_installed("flwr", "flower")
    host, port = address
    check_certificate(authority, certificate, key, _asked_as(host))
    check_port(host, port, "--host and --port")
    command = [
        program("flower-superlink"),
        *("--ssl-ca-certfile", str(authority), "--ssl-certfile", str(certificate), "--ssl-keyfile", str(key)),
        *("--enable-supernode-auth", "--disable-runtime-dependency-installation"),
        *("--host", host, "--port", str(port), "--database", str(folder.resolve() / _DATABASE)),
    ]
    return command, {**QUIET, "FLWR_HOME": str(folder.resolve())}


def serve(command: Sequence[str], address: tuple[str, int], authority: Path, folder: Path) -> None:
    """Run a SuperLink until this process is told to end.

    Args:
        command: Of `prepare`; what that says of the environment is so.
        address: As of `prepare`, as are `authority` and `folder`.
        authority: See there.
        folder: See there; it is made. What Flower keeps in it only this user can read.

    Raises:
        FederationError: It ends by itself.
        OutputError: The folder cannot be made, or another SuperLink has it.
    """
    host, port = address
    with as_output_error(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A folder that is there already may hold other things, for others; what Flower adds to it is this user's alone.
        for path in folder.glob(f"{_DATABASE}*"):
            path.chmod(0o600)
    with places.hold(folder, inside=True, advice="name another --folder"):
        code = launch_server(f"{_asked_as(host)}:{port}", authority.resolve(), command)
    raise FederationError(f"the SuperLink has ended with exit code {code}; what it says of that is above")


def _asked_as(host: str) -> str:
    return "localhost" if host in _ANY else host
