"""`fedsup-deploy sign`: a bundle, verified, is signed with a private key. Offline and torch-free."""

import dataclasses
from pathlib import Path

from fedsup_deploy.artifact.signing import Passphrase, checked_hashes, load_signing_key, sign_bundle
from fedsup_deploy.artifact.store import verify_bundle
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.ondevice import bundle_files
from fedsup_deploy.ondevice.signature import MOST_VERSION
from fedsup_deploy.results import Result


@dataclasses.dataclass(frozen=True)
class SignedBundle(Result):
    """A bundle that is signed.

    Args:
        bundle: Its folder.
        signature: The file.
        version: What devices go by: they refuse one lower than they had.
        key_sha256: SHA-256 of the public key's PEM text.
        num_files: Number of files that are signed.
        is_key_readable_by_others: Whether the private key's file is.
    """

    bundle: Path
    signature: Path
    version: int
    key_sha256: str
    num_files: int
    is_key_readable_by_others: bool


def sign(bundle: Path, key: Path, version: int, passphrase: Passphrase) -> SignedBundle:
    """Sign a bundle that is whole, unaltered and computes what it did when it was made.

    Args:
        bundle: Its folder.
        key: The private key, in PEM.
        version: 1 to MOST_VERSION.
        passphrase: Asked where the key is encrypted; None: nobody knows.

    Raises:
        ConfigError: The key is none of ECDSA over P-256, or cannot be decrypted; the version is no such number.
        DependencyError: The library `cryptography` is not installed.
        ArtifactError: A file is missing, altered or not part of the bundle, the bundle contradicts itself, or it was
            altered while it was verified.
        GateError: The model computes something else.
        OutputError: The signature cannot be written.

    Side effects: Writes `model.sig`; every other file stays as it is.
    """
    if not 1 <= version <= MOST_VERSION:
        raise ConfigError(f"version: got {version}, expected 1 to {MOST_VERSION}")
    signing_key = load_signing_key(key, passphrase)
    hashes = checked_hashes(bundle)
    verified = verify_bundle(bundle)
    signed, num_files = sign_bundle(bundle, signing_key, verified.arch_id, version, hashes)
    return SignedBundle(
        bundle=bundle,
        signature=bundle / bundle_files.SIGNATURE,
        version=version,
        key_sha256=signed.key_sha256,
        num_files=num_files,
        is_key_readable_by_others=signing_key.is_readable_by_others,
    )
