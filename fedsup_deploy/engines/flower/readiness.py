"""What has to be so before a program of Flower's is started, which else would end with pages that say nothing clear."""

import socket
import ssl
from pathlib import Path
from typing import Final

from fedsup_deploy.errors import ConfigError, FederationError
from fedsup_deploy.federation.frame import one_line

#: Seconds for a SuperLink to answer.
_REACHED_S: Final = 30.0


def check_port(host: str, port: int, setting: str) -> None:
    """Refuse an address where nothing can listen, or another program does.

    Args:
        host: Name or address of this machine.
        port: The port.
        setting: What says the port, for the message.

    Raises:
        ConfigError: It is one.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            # As servers do: connections of one that has ended may be there for a while.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except (OSError, UnicodeError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise ConfigError(f"{setting}: cannot listen on {host}:{port}: {reason}; choose another") from error


def check_authority(path: Path, setting: str) -> None:
    """Refuse a file that is no certificate of an authority; for its setting, see `check_port`.

    Raises:
        ConfigError: It is none.
    """
    _trusting(path, setting)


def check_superlink(address: str, root_certificates: Path | None) -> None:
    """Refuse a SuperLink that cannot be reached, or shows another certificate than is expected.

    Args:
        address: Host and port.
        root_certificates: Of the authority that vouches for it; None: it is not encrypted.

    Raises:
        ConfigError: The authority cannot be read.
        FederationError: It is one.
    """
    trusting = None if root_certificates is None else _trusting(root_certificates, "engine.root_certificates")
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), _REACHED_S) as plain:
            if trusting is not None:
                trusting.wrap_socket(plain, server_hostname=host).close()
    except ssl.SSLCertVerificationError as error:
        what = f"{address} shows a certificate that engine.root_certificates does not vouch for"
        raise FederationError(f"{what}: {one_line(error)}") from error
    except (OSError, UnicodeError) as error:
        raise FederationError(
            f"{address} cannot be reached: {one_line(error)}; is fleet serve running there?"
        ) from error


def check_certificate(authority: Path, certificate: Path, key: Path, server: str) -> None:
    """Refuse a certificate that those who trust an authority would: as they do it, but without a network.

    Args:
        authority: PEM file of what is trusted.
        certificate: PEM file that is shown.
        key: Its private key.
        server: The name by which it is asked for.

    Raises:
        ConfigError: The certificate is not that of the key, not for the server, by another authority, or not valid now.
    """
    trusting = _trusting(authority, "--authority")
    showing = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        showing.load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as error:
        what = f"--certificate and --key: {certificate} is not the certificate of the key {key}"
        raise ConfigError(f"{what}: {one_line(error)}; expected server.pem and server.key of fleet init") from error
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    device = trusting.wrap_bio(back, there, server_hostname=server)
    served = showing.wrap_bio(there, back, server_side=True)
    is_done = False
    while not is_done:
        try:
            is_done = True
            for side in (device, served):
                try:
                    side.do_handshake()
                except ssl.SSLWantReadError:
                    is_done = False
        except ssl.SSLError as error:
            what = f"--certificate: {certificate} is none for {server} that {authority} vouches for"
            raise ConfigError(f"{what}: {one_line(error)}; fleet init makes one") from error


def _trusting(path: Path, setting: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=path.read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{setting}: {path}: {one_line(error)}; expected the ca.crt of fleet init") from error
    return context
