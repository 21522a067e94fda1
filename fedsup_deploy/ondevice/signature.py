"""`model.sig`: who made a bundle, in the format of OpenSSF Model Signing, version 1.0, with a key of ECDSA over P-256.

The file is a sigstore bundle: JSON around an envelope (DSSE) around a statement (in-toto), which has the SHA-256 of
every file and, as a field of our own that other programs pass over, the version of the bundle. Nothing of the statement
is believed before the envelope's signature was found right. measured.json is written later and is never signed: so
says the statement, and so does this module, whatever a statement says. No name in a signature is ever opened: the
signed hashes are compared with those of SHA256SUMS, which were compared with the files.

Sources: github.com/ossf/model-signing-spec, github.com/secure-systems-lab/dsse (protocol.md), in-toto Statement v1.
"""

import base64
import binascii
import hashlib
import json
import re
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from fedsup_deploy.ondevice.bundle_files import (
    ALTERED,
    BESIDE_SUMS,
    MEASURED,
    MISSING,
    SIGNATURE,
    SUMS,
    CheckError,
    hashes_of_sums,
    read_text_file,
)
from fedsup_deploy.ondevice.printable import printable
from fedsup_deploy.ondevice.reading import parse_json

#: The largest version: every program reads so large a number of JSON exactly.
MOST_VERSION = 2**53 - 1

_MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PAYLOAD_TYPE = "application/vnd.in-toto+json"
_STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
_PREDICATE_TYPE = "https://model_signing/signature/v1.0"
#: What is our own in a predicate.
_OURS_IN_PREDICATE = "fedsup-deploy"
_HOW_SIGNED = {"method": "files", "hash_type": "sha256", "allow_symlinks": False}

_SHA256 = re.compile(r"[0-9a-f]{64}\Z")

#: Returns whether a message (first) has a signature in DER (second).
SignatureCheck = Callable[[bytes, bytes], bool]


class Signed(NamedTuple):
    """What a signature says."""

    version: Optional[int]
    """Of the bundle; None where another program signed it, which gives none."""
    hashes: Dict[str, str]
    """SHA-256 of each file, hexadecimal, by name."""


class Claimed(NamedTuple):
    """What a signature says of itself, and nobody has checked."""

    version: Optional[int]
    """Of the bundle; None where it gives none."""
    key_sha256: Optional[str]
    """SHA-256 of the public key's PEM text; None where it names no key."""


def statement_of(name: str, hashes: Dict[str, str], version: int) -> bytes:
    """Return what is to be signed.

    Args:
        name: What to call the bundle.
        hashes: As of `hashes_to_sign`.
        version: Of the bundle, 1 to MOST_VERSION.
    """
    resources = [{"name": each, "algorithm": "sha256", "digest": digest} for each, digest in sorted(hashes.items())]
    serialization = {**_HOW_SIGNED, "ignore_paths": sorted(BESIDE_SUMS - {SUMS})}
    statement = {
        "_type": _STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": _root_of([each["digest"] for each in resources])}}],
        "predicateType": _PREDICATE_TYPE,
        "predicate": {
            "serialization": serialization,
            "resources": resources,
            _OURS_IN_PREDICATE: {"version": version},
        },
    }
    return json.dumps(statement, ensure_ascii=False, separators=(",", ":")).encode()


def signature_text(statement: bytes, signature: bytes, key_sha256: str) -> bytes:
    """Return the content of `model.sig`.

    Args:
        statement: As of `statement_of`.
        signature: Of `signed_bytes(statement)`, in DER.
        key_sha256: SHA-256 of the public key's PEM text, by which other programs find the key.
    """
    envelope = {
        "payload": base64.b64encode(statement).decode(),
        "payloadType": _PAYLOAD_TYPE,
        "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
    }
    material = {"publicKey": {"hint": key_sha256}, "tlogEntries": []}  # type: Dict[str, Any]
    document = {"mediaType": _MEDIA_TYPE, "verificationMaterial": material, "dsseEnvelope": envelope}
    return json.dumps(document, indent=2).encode() + b"\n"


def signed_bytes(statement: bytes) -> bytes:
    """Return the bytes that are signed, as DSSE makes them of a statement."""
    kind = _PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(statement), statement)


def hashes_to_sign(folder: Path) -> Dict[str, str]:
    """Return what a signature has to say of a bundle whose files are known to be those of SHA256SUMS.

    Returns:
        SHA-256 of each file but measured.json and the signature itself, hexadecimal, by name.

    Raises:
        CheckError: SHA256SUMS is not there, or is none.
    """
    sums = read_text_file(folder, SUMS)
    return {**hashes_of_sums(sums), SUMS: hashlib.sha256(sums).hexdigest()}


def check_signature(folder: Path, is_signed: SignatureCheck) -> Signed:
    """Return what the signature of a bundle says, whose files are known to be those of SHA256SUMS.

    Args:
        folder: The bundle.
        is_signed: Whether the owner of the key signed a message.

    Raises:
        CheckError: There is none, it is not by that key, or it is of other files.
    """
    try:
        content = read_text_file(folder, SIGNATURE)
    except CheckError as error:
        if error.exit_code != MISSING:
            raise
        raise CheckError(MISSING, f"it is not signed: {SIGNATURE} is missing") from None
    try:
        statement, signature, hint = _envelope_of(content)
        if not is_signed(signed_bytes(statement), signature):
            by = f"; it names the key with sha256 {hint}" if hint else ""
            raise CheckError(ALTERED, f"{SIGNATURE} is not by this key, or was altered{by}")
        signed = _signed_of(statement)
    except ValueError as error:
        raise CheckError(ALTERED, f"{SIGNATURE} is no signature of a bundle: {printable(str(error))}") from None
    _check_hashes(signed.hashes, hashes_to_sign(folder))
    return signed


def claims_of(content: bytes) -> Claimed:
    """Return what the text of a `model.sig` says of itself; anybody can have written it.

    Raises:
        ValueError: It is no signature of a bundle; a few words say why.
    """
    statement, _, hint = _envelope_of(content)
    return Claimed(_signed_of(statement).version, hint)


def _check_hashes(signed: Dict[str, str], present: Dict[str, str]) -> None:
    """Compare the files of a signature with those that are there. Raises CheckError where they differ."""
    other = "; it is the signature of other files"
    for name in sorted(signed.keys() | present.keys()):
        if name not in present:
            reason = f"{SIGNATURE} signs {printable(name)}, which is not in the bundle"
        elif name not in signed:
            reason = f"{SIGNATURE} does not sign {printable(name)}"
        elif signed[name] != present[name]:
            reason = f"{SIGNATURE} signs another {printable(name)}"
        else:
            continue
        raise CheckError(ALTERED, reason + other)


def _envelope_of(content: bytes) -> Tuple[bytes, bytes, Optional[str]]:
    """Return statement, signature and what the file says of the key, none of which is believed yet.

    Raises:
        ValueError: It is no such file; a few words say why.
    """
    document = _mapping(parse_json(content), "the file")
    if document.get("mediaType") != _MEDIA_TYPE:
        raise ValueError(f"mediaType is not {_MEDIA_TYPE}")
    envelope = _mapping(document.get("dsseEnvelope"), "dsseEnvelope")
    if envelope.get("payloadType") != _PAYLOAD_TYPE:
        raise ValueError(f"payloadType is not {_PAYLOAD_TYPE}")
    signatures = _list(envelope.get("signatures"), "signatures")
    if len(signatures) != 1:
        raise ValueError(f"got {len(signatures)} signatures, expected one")
    signature = _bytes(_mapping(signatures[0], "signatures").get("sig"), "sig")
    material = _mapping(document.get("verificationMaterial"), "verificationMaterial")
    key = material.get("publicKey")
    hint = key.get("hint") if isinstance(key, dict) else None
    is_hint = isinstance(hint, str) and _SHA256.match(hint) is not None
    return _bytes(envelope.get("payload"), "payload"), signature, hint if is_hint else None


def _signed_of(statement: bytes) -> Signed:
    """Return what a statement says; whoever signed it may have signed anything.

    Raises:
        ValueError: It is no statement about the files of a model by their SHA-256.
    """
    document = _mapping(parse_json(statement), "the statement")
    for key, expected in (("_type", _STATEMENT_TYPE), ("predicateType", _PREDICATE_TYPE)):
        if document.get(key) != expected:
            raise ValueError(f"{key} is not {expected}")
    predicate = _mapping(document.get("predicate"), "predicate")
    how = _mapping(predicate.get("serialization"), "serialization")
    if (how.get("method"), how.get("hash_type")) != (_HOW_SIGNED["method"], _HOW_SIGNED["hash_type"]):
        raise ValueError("it signs something else than whole files by their sha256")
    hashes = {}  # type: Dict[str, str]
    for resource in _list(predicate.get("resources"), "resources"):
        name, digest = (_mapping(resource, "resources").get(key) for key in ("name", "digest"))
        if not isinstance(name, str) or not isinstance(digest, str) or resource.get("algorithm") != "sha256":
            raise ValueError("a resource has no name, or no digest by sha256")
        if name in hashes:
            raise ValueError(f"it signs {printable(name)} twice")
        hashes[name] = digest
    subjects = _list(document.get("subject"), "subject")
    subject = _mapping(subjects[0] if len(subjects) == 1 else None, "subject")
    if _mapping(subject.get("digest"), "digest").get("sha256") != _root_of(list(hashes.values())):
        raise ValueError("the digest of its subject is not that of its resources")
    # By our rule it is not signed, so a signature that has it says nothing of what is there now.
    hashes.pop(MEASURED, None)
    return Signed(_version_of(predicate), hashes)


def _version_of(predicate: Dict[str, Any]) -> Optional[int]:
    ours = predicate.get(_OURS_IN_PREDICATE)
    if ours is None:
        return None
    version = _mapping(ours, _OURS_IN_PREDICATE).get("version")
    if type(version) is not int or not 1 <= version <= MOST_VERSION:
        raise ValueError(f"its version is no integer from 1 to {MOST_VERSION}")
    return version


def _root_of(digests: List[str]) -> str:
    """Return what stands for all files: the hash of their hashes. Raises ValueError where one is none."""
    return hashlib.sha256(b"".join(map(bytes.fromhex, digests))).hexdigest()


def _mapping(value: object, what: str) -> Dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} is no JSON object")  # noqa: TRY004  whatever is wrong with it is a ValueError
    return value


def _list(value: object, what: str) -> List[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{what} is no list")  # noqa: TRY004
    return value


def _bytes(value: object, what: str) -> bytes:
    if not isinstance(value, str):
        raise ValueError(f"{what} is no text")  # noqa: TRY004
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error:
        raise ValueError(f"{what} is no base64") from None
