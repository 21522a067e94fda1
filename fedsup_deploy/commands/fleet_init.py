"""`fedsup-deploy fleet init`: what the server of a fleet needs once: an authority, and a certificate for its name."""

import dataclasses
import datetime
from pathlib import Path
from typing import Final

from fedsup_deploy import files
from fedsup_deploy.engines.flower.submission import check_installed
from fedsup_deploy.errors import ArtifactError
from fedsup_deploy.results import Result

AUTHORITY_KEY, AUTHORITY, SERVER_KEY, SERVER = "ca.key", "ca.crt", "server.key", "server.pem"
#: Days that an authority is good for: as long as a device may be without a visit.
_AUTHORITY_DAYS: Final = 3650


@dataclasses.dataclass(frozen=True)
class MadeAuthority(Result):
    """What was made.

    Args:
        folder: Where it is.
        servers: Names and addresses that the certificate is for.
        days: How long it is good for.
        is_new_authority: Whether the authority was made, too; false: the certificate is by one that there was.
    """

    folder: Path
    servers: tuple[str, ...]
    days: int
    is_new_authority: bool


def fleet_init(
    servers: tuple[str, ...], out: Path, days: int, by: Path | None = None, now: datetime.datetime | None = None
) -> MadeAuthority:
    """Make a certificate for a server and, where there is none yet, the authority that vouches for it.

    Args:
        servers: Names or addresses by which devices know the server.
        out: The folder to make.
        days: How long the certificate is good for.
        by: The folder of an authority of before, which devices trust already; None makes one.
        now: In UTC; None: by the clock.

    Raises:
        ArtifactError: `by` holds no authority.
        ConfigError: A server is neither a name nor an address, or the authority is damaged.
        DependencyError: Flower is not installed.
        OutputError: The folder is there already, or cannot be written.
    """
    check_installed("flwr", "flower")
    from fedsup_deploy.engines.flower.keys import Secret, authority, server_certificate

    today = datetime.datetime.now(datetime.timezone.utc) if now is None else now
    if by is None:
        vouching = authority(_AUTHORITY_DAYS, today)
    else:
        vouching = Secret(_read(by / AUTHORITY_KEY), _read(by / AUTHORITY))
    server = server_certificate(vouching, servers, days, today)
    with files.new_private_directory(out) as folder:
        if by is None:
            files.write_secret(folder / AUTHORITY_KEY, vouching.private)
        files.write_secret(folder / SERVER_KEY, server.private)
        files.write_bytes(folder / AUTHORITY, vouching.public)
        files.write_bytes(folder / SERVER, server.public)
    return MadeAuthority(out, servers, days, by is None)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ArtifactError(f"{path}: {reason}; expected the folder that fleet init has made") from error
