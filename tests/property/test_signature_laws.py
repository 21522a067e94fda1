"""Laws of signatures, for any files: what is signed is what is read, and nothing else is."""

import base64
import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsup_deploy.ondevice.bundle_files import CheckError
from fedsup_deploy.ondevice.signature import (
    MOST_VERSION,
    Signed,
    check_signature,
    signature_text,
    signed_bytes,
    statement_of,
)

names = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=12).filter(
    lambda name: name.strip() == name and name not in {"SHA256SUMS", "measured.json", "model.sig"}
)
files = st.dictionaries(names, st.binary(max_size=8), min_size=1, max_size=5)
versions = st.integers(1, MOST_VERSION)


def is_signed(message: bytes, signature: bytes) -> bool:
    """Stands for a key: who signs writes the hash."""
    return hashlib.sha256(b"key" + message).digest() == signature


def written(folder: Path, sums: bytes, statement: bytes) -> Path:
    (folder / "SHA256SUMS").write_bytes(sums)
    signature = hashlib.sha256(b"key" + signed_bytes(statement)).digest()
    (folder / "model.sig").write_bytes(signature_text(statement, signature, "0" * 64))
    return folder


def sums_of(content: dict[str, bytes]) -> tuple[bytes, dict[str, str]]:
    hashes = {name: hashlib.sha256(content[name]).hexdigest() for name in sorted(content)}
    sums = "".join(f"{digest}  {name}\n" for name, digest in hashes.items()).encode()
    return sums, {**hashes, "SHA256SUMS": hashlib.sha256(sums).hexdigest()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundle")


@given(content=files, version=versions)
def test_what_was_signed_is_what_is_read(folder: Path, content: dict[str, bytes], version: int) -> None:
    sums, hashes = sums_of(content)
    written(folder, sums, statement_of("a123", hashes, version))
    assert check_signature(folder, is_signed) == Signed(version, hashes)


@given(content=files, other=files, version=versions)
def test_no_other_files_are_taken_for_those_that_were_signed(
    folder: Path, content: dict[str, bytes], other: dict[str, bytes], version: int
) -> None:
    (_, hashes), (sums, _) = sums_of(content), sums_of(other)
    written(folder, sums, statement_of("a123", hashes, version))
    if content == other:
        check_signature(folder, is_signed)
    else:
        with pytest.raises(CheckError):
            check_signature(folder, is_signed)


@given(content=files, version=versions, place=st.integers(0), bit=st.integers(0, 7))
def test_whatever_bit_of_a_signature_is_flipped_it_says_the_same_or_is_refused(
    folder: Path, content: dict[str, bytes], version: int, place: int, bit: int
) -> None:
    sums, hashes = sums_of(content)
    path = written(folder, sums, statement_of("a123", hashes, version)) / "model.sig"
    damaged = bytearray(path.read_bytes())
    damaged[place % len(damaged)] ^= 1 << bit
    path.write_bytes(bytes(damaged))
    try:
        found, reason = check_signature(folder, is_signed), ""
    except CheckError as error:
        found, reason = Signed(version, hashes), str(error)
    assert found == Signed(version, hashes)
    assert reason.isprintable()


@given(content=files, version=versions)
def test_nothing_of_a_statement_is_looked_at_before_it_is_known_who_made_it(
    folder: Path, content: dict[str, bytes], version: int
) -> None:
    """What follows is no JSON, and nobody says so."""
    sums, hashes = sums_of(content)
    path = written(folder, sums, statement_of("a123", hashes, version)) / "model.sig"
    document = json.loads(path.read_bytes())
    document["dsseEnvelope"]["payload"] = base64.b64encode(b"no JSON").decode()
    path.write_text(json.dumps(document))
    with pytest.raises(CheckError, match="is not by this key, or was altered"):
        check_signature(folder, is_signed)
