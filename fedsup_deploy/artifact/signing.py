"""Signing a bundle, and checking who signed one, with a key of ECDSA over P-256.

What is signed is the business of `ondevice/signature.py`. Owns the keys. The library `cryptography` signs and checks;
what it says of a private key is never shown. Where it is missing, nothing else of this package is.
"""

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from fedsup_deploy import files
from fedsup_deploy.artifact.failures import failing_as_ours
from fedsup_deploy.artifact.verified import CheckedSignature
from fedsup_deploy.errors import ArtifactError, ConfigError, DependencyError
from fedsup_deploy.ondevice import bundle_files, p256, signature
from fedsup_deploy.ondevice.printable import reason_of
from fedsup_deploy.ondevice.reading import read_bytes

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey

#: How to make a key pair without this program.
MAKE_A_KEY: Final = "openssl ecparam -name prime256v1 -genkey -noout -out key.pem"
_MOST_BYTES_OF_A_KEY: Final = 2**16
_READABLE_BY_OTHERS: Final = 0o077

Passphrase = Callable[[], str | None]


@dataclasses.dataclass(frozen=True)
class SigningKey:
    """A private key.

    Args:
        private: Itself.
        is_readable_by_others: Whether its file is.
    """

    private: "EllipticCurvePrivateKey" = dataclasses.field(repr=False)
    is_readable_by_others: bool

    @property
    def public_pem(self) -> bytes:
        """Return its public half, as openssl writes it."""
        return _pem_of(self.private.public_key())


class SignedFiles(NamedTuple):
    """What a key was found to have signed."""

    signature: CheckedSignature
    hashes: Mapping[str, str]
    """SHA-256 of every file by name: what has another one now is not what was signed."""


def load_signing_key(path: Path, passphrase: Passphrase) -> SigningKey:
    """Return the private key of a PEM file.

    Args:
        path: The file.
        passphrase: Asked where the key is encrypted; None: nobody knows.

    Raises:
        ConfigError: It is none, of another kind, or the passphrase is missing or wrong.
        DependencyError: The library is not installed.
    """
    with _library():
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    content = _key_file(path)
    with _refusing_key(path, "it is no private key in PEM", (ValueError, UnsupportedAlgorithm)):
        try:
            key = load_pem_private_key(content, None)
        except TypeError:  # it is encrypted
            said = passphrase()
            if not said:
                raise ConfigError(
                    f"{path}: the key is encrypted; set FEDSUP_KEY_PASSPHRASE to its passphrase"
                ) from None
            with _refusing_key(path, "the passphrase is wrong, or the key is damaged", (ValueError, TypeError)):
                key = load_pem_private_key(content, said.encode())
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ConfigError(f"{path}: expected a key of ECDSA over P-256; make one: {MAKE_A_KEY}")
    return SigningKey(key, bool(path.stat().st_mode & _READABLE_BY_OTHERS))


def load_public_key(path: Path) -> "EllipticCurvePublicKey":
    """Return the public key of a PEM file.

    Raises:
        ConfigError: It is none, or of another kind.
        DependencyError: The library is not installed.
    """
    with _library():
        from cryptography.hazmat.primitives.asymmetric import ec
    try:
        point = p256.public_key_of(_key_file(path))
    except ValueError as error:
        raise ConfigError(f"{path}: {error}; expected a public key of ECDSA over P-256, in PEM") from error
    return ec.EllipticCurvePublicNumbers(point.x, point.y, ec.SECP256R1()).public_key()


def checked_hashes(folder: Path) -> Mapping[str, str]:
    """Return the SHA-256 of every file of a bundle by name, which SHA256SUMS has as well.

    Raises:
        ArtifactError: The files are not those of SHA256SUMS.
    """
    with failing_as_ours(folder):
        bundle_files.check_files(folder)
        return signature.hashes_to_sign(folder)


def sign_bundle(
    folder: Path, key: SigningKey, name: str, version: int, hashes: Mapping[str, str]
) -> tuple[CheckedSignature, int]:
    """Sign a bundle that was verified. A signature that is there is replaced.

    Args:
        folder: The bundle.
        key: The private key.
        name: What to call the bundle in the signature.
        version: Of the bundle: devices refuse one lower than they had.
        hashes: As of `checked_hashes`, before it was verified.

    Returns:
        What the signature says, and how many files it signs.

    Raises:
        ArtifactError: The files are not those of SHA256SUMS, or not those any more that were verified.
        OutputError: The signature cannot be written.

    Side effects: Writes `model.sig`.
    """
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256

    if checked_hashes(folder) != hashes:
        raise ArtifactError(f"{folder}: it was altered while it was verified; nothing is signed")
    statement = signature.statement_of(name, dict(hashes), version)
    signed = key.private.sign(signature.signed_bytes(statement), ec.ECDSA(SHA256()))
    key_sha256 = _sha256_of(key.private.public_key())
    files.write_bytes(folder / bundle_files.SIGNATURE, signature.signature_text(statement, signed, key_sha256))
    return CheckedSignature(key_sha256, version), len(hashes)


def check_signed(folder: Path, key: "EllipticCurvePublicKey") -> SignedFiles:
    """Return what the signature of a bundle says and signs, if it is by a key and of the very files that are there.

    Raises:
        ArtifactError: It is not, there is none, or a file is missing or altered.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    def is_signed(message: bytes, signed: bytes) -> bool:
        try:
            key.verify(signed, message, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            return False
        return True

    with failing_as_ours(folder):
        bundle_files.check_files(folder)
        found = signature.check_signature(folder, is_signed)
    return SignedFiles(CheckedSignature(_sha256_of(key), found.version), found.hashes)


def claimed_signature(folder: Path) -> signature.Claimed | None:
    """Return what the signature of a bundle says, which nobody has checked; None where there is none.

    Raises:
        ArtifactError: It is no signature of a bundle.
    """
    if not os.path.lexists(folder / bundle_files.SIGNATURE):
        return None
    with failing_as_ours(folder):
        content = bundle_files.read_text_file(folder, bundle_files.SIGNATURE)
    try:
        return signature.claims_of(content)
    except ValueError as error:
        what = f"{bundle_files.SIGNATURE} is no signature of a bundle: {reason_of(error)}"
        raise ArtifactError(f"{folder}: {what}; sign it again") from error


@contextlib.contextmanager
def _library() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        missing = "signatures need the library cryptography, which is not installed"
        raise DependencyError(f"{missing}; run: pip install 'fedsup-deploy[sign]'") from error


@contextlib.contextmanager
def _refusing_key(path: Path, reason: str, errors: tuple[type[Exception], ...]) -> Iterator[None]:
    """Refuse a key without a word of what the library says of it."""
    try:
        yield
    except errors:
        raise ConfigError(f"{path}: {reason}") from None


def _key_file(path: Path) -> bytes:
    try:
        return read_bytes(path, _MOST_BYTES_OF_A_KEY)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: the key cannot be read: {reason_of(error)}") from error


def _pem_of(key: "EllipticCurvePublicKey") -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    pem: bytes = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem


def _sha256_of(key: "EllipticCurvePublicKey") -> str:
    return hashlib.sha256(_pem_of(key)).hexdigest()
