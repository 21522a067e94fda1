"""Keys and certificates of a fleet, as the SuperLink and its nodes read them. Imports cryptography, which is Flower's.

A private key is in `Secret`s only, which show nothing of it; whoever writes one down lets its owner alone read it.
"""

import dataclasses
import datetime
import ipaddress
import re
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_ssh_private_key,
    load_ssh_public_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

from fedsup_deploy.errors import ConfigError

#: The curve that Flower's documentation has, and those that its SuperLink takes: NIST's.
_CURVE: Final = ec.SECP384R1()
_CURVES: Final = (ec.SECP192R1, ec.SECP224R1, ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_KEYGEN: Final = "ssh-keygen -t ecdsa -b 384"
#: Before now: clocks of devices may be behind.
_SLACK: Final = datetime.timedelta(days=1)
#: The server itself reaches its SuperLink here.
_HERE: Final = ("localhost", "127.0.0.1")
_HOST: Final = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*")


@dataclasses.dataclass(frozen=True)
class Secret:
    """A private key and what may be known of it.

    Args:
        private: The file of the private key.
        public: That of the public key, or of the certificate.
    """

    private: bytes = dataclasses.field(repr=False)
    public: bytes


def device_key() -> Secret:
    """Return a new key of a device: private and public key as `ssh-keygen -t ecdsa -b 384` writes them."""
    key = ec.generate_private_key(_CURVE)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    return Secret(private, key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH) + b"\n")


def check_private_key(content: bytes) -> None:
    """Refuse what is no private key of a device, a file as `device_key` or ssh-keygen has it.

    Raises:
        ConfigError: It is none.
    """
    try:
        key = load_ssh_private_key(content, None)
    except (TypeError, ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"no private key without a password, expected that of `{_KEYGEN}`") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"a private key of another kind, expected that of `{_KEYGEN}`")


def public_key(content: bytes) -> bytes:
    """Return a device's public key, of a file as `device_key` or ssh-keygen has it, as a SuperLink takes it.

    Raises:
        ConfigError: It is none.
    """
    try:
        key = load_ssh_public_key(content)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"no public key, expected that of `{_KEYGEN}`") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, _CURVES):
        raise ConfigError(f"a public key of another kind, expected that of `{_KEYGEN}`")
    pem: bytes = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem


def authority(days: int, now: datetime.datetime) -> Secret:
    """Return a new authority, which vouches for servers of one fleet: its key, and the certificate that devices get."""
    key, name = ec.generate_private_key(_CURVE), _name("fedsup-deploy fleet")
    certificate = (
        _certificate(name, name, key.public_key(), days, now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA384())
    )
    return Secret(_pem(key), certificate.public_bytes(Encoding.PEM))


def server_certificate(by: Secret, servers: tuple[str, ...], days: int, now: datetime.datetime) -> Secret:
    """Return a new key of a server, and its certificate, which is also good for what runs on the server's machine.

    Args:
        by: The authority.
        servers: Names or addresses by which devices know the server; the first is its common name.
        days: How long it holds.
        now: In UTC.

    Raises:
        ConfigError: The authority is none, its certificate is that of another key, or a server is no host.
    """
    try:
        signer, vouching = load_pem_private_key(by.private, None), x509.load_pem_x509_certificate(by.public)
    except (TypeError, ValueError) as error:
        raise ConfigError("the authority cannot be read, expected ca.key and ca.crt of fleet init") from error
    if not isinstance(signer, ec.EllipticCurvePrivateKey) or signer.public_key() != vouching.public_key():
        raise ConfigError("ca.key is not the key of ca.crt")
    names, key = (
        [_general_name(server) for server in dict.fromkeys((*servers, *_HERE))],
        ec.generate_private_key(_CURVE),
    )
    certificate = (
        _certificate(_name(servers[0][:64]), vouching.subject, key.public_key(), days, now)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA384())
    )
    return Secret(_pem(key), certificate.public_bytes(Encoding.PEM))


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int, now: datetime.datetime
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number())
    return builder.not_valid_before(now - _SLACK).not_valid_after(now + datetime.timedelta(days=days))


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(server: str) -> x509.GeneralName:
    """Return a name or an address as certificates have it.

    Raises:
        ConfigError: It is neither.
    """
    try:
        return x509.IPAddress(ipaddress.ip_address(server))
    except ValueError:
        if _HOST.fullmatch(server) is None or len(server) > 253:
            raise ConfigError(f"got server {server!r}, expected a host name or an address, without a port") from None
        return x509.DNSName(server)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common)])


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    content: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return content
