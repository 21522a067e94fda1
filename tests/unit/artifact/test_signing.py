"""Who made a bundle: what is signed, what is not, and what is refused."""

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fedsup_deploy.artifact.signing import (
    SigningKey,
    check_signed,
    checked_hashes,
    claimed_signature,
    load_public_key,
    load_signing_key,
    sign_bundle,
)
from fedsup_deploy.errors import ArtifactError, ConfigError
from fedsup_deploy.ondevice import bundle_files, signature

ec = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ec", reason="cryptography (the extra sign)")
FILES = {"manifest.json": b"{}", "model.onnx": b"a model", "vectors.npz": b"vectors", "model.ncnn/weights.bin": b"w"}
THEIRS = Path(__file__).parents[2] / "data" / "model-signing"


class Signed(NamedTuple):
    """Files that stand for a bundle, signed, and the key's two halves."""

    folder: Path
    private: Path
    public: Path


def write_sums(folder: Path) -> None:
    names = bundle_files.list_files(folder).keys() - bundle_files.BESIDE_SUMS
    (folder / "SHA256SUMS").write_text("".join(bundle_files.sha256sums(folder, names)))


def write_files(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    write_sums(folder)


def write_keys(folder: Path, name: str = "key", passphrase: bytes | None = None, curve: Any = None) -> SigningKey:
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
    )

    private = ec.generate_private_key(curve or ec.SECP256R1())
    how = NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase)
    pem = folder / f"{name}.pem"
    pem.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how))
    pem.chmod(0o600)
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / f"{name}.pub").write_bytes(public)
    return SigningKey(private, is_readable_by_others=False)


@pytest.fixture
def signed(tmp_path: Path) -> Signed:
    folder = tmp_path / "bundle"
    write_files(folder, FILES)
    sign_bundle(folder, write_keys(tmp_path), "a123", 7, checked_hashes(folder))
    return Signed(folder, tmp_path / "key.pem", tmp_path / "key.pub")


def document_of(folder: Path) -> Any:
    return json.loads((folder / "model.sig").read_bytes())


def statement_in(folder: Path) -> Any:
    return json.loads(base64.b64decode(document_of(folder)["dsseEnvelope"]["payload"]))


def test_a_signature_says_by_whom_and_which_version(signed: Signed) -> None:
    found = check_signed(signed.folder, load_public_key(signed.public)).signature
    assert found.version == 7
    assert found.key_sha256 == document_of(signed.folder)["verificationMaterial"]["publicKey"]["hint"]
    assert found.key_sha256 == bundle_files.sha256(signed.public)


def test_what_a_signature_claims_is_read_without_a_key_and_believed_by_nobody(signed: Signed) -> None:
    """With another signature in it, which no key has made, it claims the same."""
    true = claimed_signature(signed.folder)
    assert true == signature.Claimed(7, bundle_files.sha256(signed.public))
    document = document_of(signed.folder)
    document["dsseEnvelope"]["signatures"][0]["sig"] = base64.b64encode(b"anything").decode()
    document["verificationMaterial"]["publicKey"] = {"hint": "no hash"}
    (signed.folder / "model.sig").write_text(json.dumps(document))
    assert claimed_signature(signed.folder) == signature.Claimed(7, None)
    with pytest.raises(ArtifactError, match="is not by this key"):
        check_signed(signed.folder, load_public_key(signed.public))
    (signed.folder / "model.sig").unlink()
    assert claimed_signature(signed.folder) is None


def test_every_file_is_signed_but_what_is_measured_later(signed: Signed) -> None:
    names = [each["name"] for each in statement_in(signed.folder)["predicate"]["resources"]]
    assert names == sorted({*FILES, "SHA256SUMS"})
    sums = (signed.folder / "SHA256SUMS").read_bytes()
    (signed.folder / "measured.json").write_bytes(bundle_files.sealed(b"{\n", sums))
    assert check_signed(signed.folder, load_public_key(signed.public)).signature.version == 7
    # What a desktop leaves is no part of a bundle, and was not signed.
    (signed.folder / ".DS_Store").write_bytes(b"x")
    assert check_signed(signed.folder, load_public_key(signed.public)).signature.version == 7


def test_what_is_signed_again_has_the_new_version(signed: Signed) -> None:
    key = load_signing_key(signed.private, lambda: None)
    sign_bundle(signed.folder, key, "a123", 8, checked_hashes(signed.folder))
    assert check_signed(signed.folder, load_public_key(signed.public)).signature.version == 8


def test_what_is_signed_is_said_and_is_all_that_a_signature_is_good_for(signed: Signed) -> None:
    """Whoever runs a file later compares it with these, not with what stands in the folder by then."""
    found = check_signed(signed.folder, load_public_key(signed.public))
    assert found.hashes == {name: bundle_files.sha256(signed.folder / name) for name in (*FILES, "SHA256SUMS")}
    changed_file(signed.folder)
    write_sums(signed.folder)
    with pytest.raises(ArtifactError, match="it was altered while it was verified; nothing is signed"):
        sign_bundle(signed.folder, load_signing_key(signed.private, lambda: None), "a123", 8, found.hashes)
    with pytest.raises(ArtifactError, match="signs another"):
        check_signed(signed.folder, load_public_key(signed.public))


def changed_file(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"another")


def added_file(folder: Path) -> None:
    (folder / "evil.py").write_bytes(b"x")


def removed_file(folder: Path) -> None:
    shutil.rmtree(folder / "model.ncnn")


def renamed_file(folder: Path) -> None:
    (folder / "model.ncnn").rename(folder / "model.other")


def swapped_files(folder: Path) -> None:
    (folder / "model.onnx").rename(folder / "x")
    (folder / "vectors.npz").rename(folder / "model.onnx")
    (folder / "x").rename(folder / "vectors.npz")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (changed_file, "model.sig signs another SHA256SUMS"),
        (added_file, "model.sig signs another SHA256SUMS"),
        (removed_file, "model.sig signs another SHA256SUMS"),
        (renamed_file, "model.sig signs another SHA256SUMS"),
        (swapped_files, "model.sig signs another SHA256SUMS"),
    ],
)
def test_other_files_under_hashes_that_are_right_are_refused(
    signed: Signed, change: Callable[[Path], None], reason: str
) -> None:
    """Whoever changes a file can write its hash again; then nothing but the signature tells."""
    change(signed.folder)
    with pytest.raises(ArtifactError, match=r"altered|no file of the bundle|missing"):
        check_signed(signed.folder, load_public_key(signed.public))
    write_sums(signed.folder)
    with pytest.raises(ArtifactError, match=f"{reason}; it is the signature of other files"):
        check_signed(signed.folder, load_public_key(signed.public))


def test_a_signature_of_another_bundle_by_the_same_key_is_refused(signed: Signed, tmp_path: Path) -> None:
    other = tmp_path / "other"
    write_files(other, {**FILES, "model.onnx": b"another model"})
    shutil.copy(signed.folder / "model.sig", other)
    with pytest.raises(ArtifactError, match="it is the signature of other files"):
        check_signed(other, load_public_key(signed.public))


def test_another_key_and_no_signature_are_refused(signed: Signed, tmp_path: Path) -> None:
    write_keys(tmp_path, "other")
    by = bundle_files.sha256(signed.public)
    with pytest.raises(ArtifactError, match=f"model.sig is not by this key, or was altered; it names the key .* {by}"):
        check_signed(signed.folder, load_public_key(tmp_path / "other.pub"))
    (signed.folder / "model.sig").unlink()
    with pytest.raises(ArtifactError, match=r"it is not signed: model\.sig is missing"):
        check_signed(signed.folder, load_public_key(signed.public))


def resigned(signed: Signed, change: Callable[[Any], None]) -> None:
    """Let the owner sign another statement."""
    from cryptography.hazmat.primitives import hashes

    statement = statement_in(signed.folder)
    change(statement)
    text = json.dumps(statement).encode()
    key = load_signing_key(signed.private, lambda: None)
    made = key.private.sign(signature.signed_bytes(text), ec.ECDSA(hashes.SHA256()))
    (signed.folder / "model.sig").write_bytes(signature.signature_text(text, made, "0" * 64))


def set_in(*path: Any, value: Any) -> Callable[[Any], None]:
    def change(document: Any) -> None:
        for key in path[:-1]:
            document = document[key]
        if value is None:
            del document[path[-1]]
        else:
            document[path[-1]] = value

    return change


RESOURCES = ("predicate", "resources")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (set_in(*RESOURCES, 0, "name", value="../SHA256SUMS"), "signs ../SHA256SUMS, which is not in the bundle"),
        (set_in(*RESOURCES, 0, "name", value="/etc/passwd"), "signs /etc/passwd, which is not in the bundle"),
        (set_in(*RESOURCES, 0, "name", value="./SHA256SUMS"), "signs ./SHA256SUMS, which is not in the bundle"),
        (set_in(*RESOURCES, 0, "name", value="\x1b[2J"), r"signs \\x1b\[2J, which is not in the bundle"),
        (set_in(*RESOURCES, 0, "name", value="manifest.json"), "it signs manifest.json twice"),
        (set_in(*RESOURCES, 0, "algorithm", value="blake3"), "no digest by sha256"),
        (set_in(*RESOURCES, 0, "digest", value="zz"), "no signature of a bundle"),
        (set_in(*RESOURCES, 0, "digest", value="00" * 32), "the digest of its subject is not that of its resources"),
        (set_in("predicate", "resources", value=[]), "the digest of its subject"),
        (set_in("subject", value=[]), "subject is no JSON object"),
        (set_in("predicateType", value="https://model_signing/Digests/v0.1"), "predicateType is not"),
        (set_in("_type", value="x"), "_type is not"),
        (set_in("predicate", "serialization", "method", value="shards"), "something else than whole files"),
        (set_in("predicate", "fedsup-deploy", "version", value=0), "no integer from 1"),
        (set_in("predicate", "fedsup-deploy", "version", value="7"), "no integer from 1"),
        (set_in("predicate", "fedsup-deploy", "version", value=True), "no integer from 1"),
        (set_in("predicate", "fedsup-deploy", "version", value=2**53), "no integer from 1"),
        (set_in("predicate", "fedsup-deploy", value=[7]), "fedsup-deploy is no JSON object"),
        (set_in("predicate", value=None), "predicate is no JSON object"),
    ],
)
def test_a_statement_that_says_something_else_is_refused_though_its_owner_signed_it(
    signed: Signed, change: Callable[[Any], None], reason: str
) -> None:
    resigned(signed, change)
    with pytest.raises(ArtifactError, match=reason):
        check_signed(signed.folder, load_public_key(signed.public))


def test_what_is_ignored_is_our_rule_and_not_that_of_a_statement(signed: Signed) -> None:
    """A file that a statement says to ignore is a file that is not signed."""

    def ignoring(statement: Any) -> None:
        digests = [each for each in statement["predicate"]["resources"] if each["name"] != "model.onnx"]
        statement["predicate"]["resources"] = digests
        statement["predicate"]["serialization"]["ignore_paths"].append("model.onnx")
        import hashlib

        root = hashlib.sha256(b"".join(bytes.fromhex(each["digest"]) for each in digests)).hexdigest()
        statement["subject"][0]["digest"]["sha256"] = root

    resigned(signed, ignoring)
    with pytest.raises(ArtifactError, match=r"model\.sig does not sign model\.onnx"):
        check_signed(signed.folder, load_public_key(signed.public))


def outer(*path: Any, value: Any) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        document = json.loads(content)
        set_in(*path, value=value)(document)
        return json.dumps(document).encode()

    return change


def other_version(content: bytes) -> bytes:
    """Give the statement a higher version, as whoever has no key can."""
    document = json.loads(content)
    statement = json.loads(base64.b64decode(document["dsseEnvelope"]["payload"]))
    statement["predicate"]["fedsup-deploy"]["version"] = 99
    document["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (other_version, "is not by this key, or was altered"),
        (outer("dsseEnvelope", "signatures", 0, "sig", value="AAAA"), "is not by this key, or was altered"),
        (outer("dsseEnvelope", "signatures", 0, "sig", value="!"), "sig is no base64"),
        (outer("dsseEnvelope", "signatures", 0, "sig", value="\u00e9"), "no signature of a bundle"),
        (outer("dsseEnvelope", "signatures", value=[]), "got 0 signatures, expected one"),
        (outer("dsseEnvelope", "payload", value=7), "payload is no text"),
        (outer("dsseEnvelope", "payloadType", value="text/plain"), "payloadType is not"),
        (outer("dsseEnvelope", value=None), "dsseEnvelope is no JSON object"),
        (outer("verificationMaterial", value=None), "verificationMaterial is no JSON object"),
        (outer("mediaType", value="x"), "mediaType is not"),
        (lambda content: content[:-20], "no signature of a bundle"),
        (lambda _: b"", "no signature of a bundle"),
        (lambda _: b"[" * 100_000, "nested deeper"),
        (lambda _: b"\xff" * 10, "no signature of a bundle"),
        (lambda content: content + b" " * 2**22, "it has more than 4,194,304 bytes"),
    ],
)
def test_a_damaged_signature_is_refused_in_one_line(
    signed: Signed, change: Callable[[bytes], bytes], reason: str
) -> None:
    path = signed.folder / "model.sig"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ArtifactError, match=reason) as raised:
        check_signed(signed.folder, load_public_key(signed.public))
    assert "\n" not in str(raised.value)


def test_a_signature_that_is_a_link_or_a_pipe_is_refused(signed: Signed, tmp_path: Path) -> None:
    path = signed.folder / "model.sig"
    path.rename(tmp_path / "model.sig")
    path.symlink_to(tmp_path / "model.sig")
    with pytest.raises(ArtifactError, match=r"model\.sig is no regular file"):
        check_signed(signed.folder, load_public_key(signed.public))
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ArtifactError, match=r"model\.sig is no regular file"):
        check_signed(signed.folder, load_public_key(signed.public))


def test_a_key_with_a_passphrase_is_asked_for_it(tmp_path: Path) -> None:
    made = write_keys(tmp_path, "secret", b"words")
    path = tmp_path / "secret.pem"
    assert load_signing_key(path, lambda: "words").public_pem == made.public_pem
    for said, reason in ((None, "set FEDSUP_KEY_PASSPHRASE"), ("other", "the passphrase is wrong")):
        with pytest.raises(ConfigError, match=reason) as raised:
            load_signing_key(path, lambda said=said: said)  # type: ignore[misc]
        assert "other" not in str(raised.value)


def test_a_private_key_that_others_can_read_is_told(tmp_path: Path) -> None:
    write_keys(tmp_path)
    path = tmp_path / "key.pem"
    assert not load_signing_key(path, lambda: None).is_readable_by_others
    path.chmod(0o640)
    key = load_signing_key(path, lambda: None)
    assert key.is_readable_by_others
    assert str(key.private) not in repr(key)


def test_what_is_no_key_for_it_is_refused(tmp_path: Path) -> None:
    write_keys(tmp_path)
    write_keys(tmp_path, "large", curve=ec.SECP384R1())
    (tmp_path / "none").write_bytes(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    for name, reason in (
        ("large.pem", "expected a key of ECDSA over P-256"),
        ("key.pub", "no private key"),
        ("none", "no private key"),
    ):
        with pytest.raises(ConfigError, match=reason):
            load_signing_key(tmp_path / name, lambda: None)
    for name, reason in (
        ("large.pub", "P-256"),
        ("key.pem", "it is a private key"),
        ("none", "private"),
        ("x", "read"),
    ):
        with pytest.raises(ConfigError, match=reason):
            load_public_key(tmp_path / name)


def test_theirs_is_right_for_us() -> None:
    """What `model_signing` 1.1.1 signed: it gives no version."""
    found = check_signed(THEIRS / "bundle", load_public_key(THEIRS / "key.pub")).signature
    assert (found.version, found.key_sha256) == (None, bundle_files.sha256(THEIRS / "key.pub"))


def test_theirs_of_a_file_less_is_wrong(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(THEIRS / "bundle", folder)
    shutil.rmtree(folder / "model.ncnn")
    write_sums(folder)
    with pytest.raises(ArtifactError, match=r"model\.sig signs another SHA256SUMS"):
        check_signed(folder, load_public_key(THEIRS / "key.pub"))


def test_ours_is_right_for_them_and_theirs_for_us(signed: Signed, model_signing: Path) -> None:
    """By the program of OpenSSF, before and after the bundle was measured, and not with another file."""

    def theirs(*words: object) -> int:
        command = [str(model_signing), *map(str, words)]
        # With libraries of its own, and none of ours.
        return subprocess.run(command, env={"PATH": os.environ["PATH"]}, capture_output=True, check=False).returncode

    sig = signed.folder / "model.sig"
    check = ("verify", "key", signed.folder, "--signature", sig, "--public_key", signed.public)
    assert theirs(*check) == 0
    sums = (signed.folder / "SHA256SUMS").read_bytes()
    (signed.folder / "measured.json").write_bytes(bundle_files.sealed(b"{\n", sums))
    assert theirs(*check) == 0
    (signed.folder / "more").write_bytes(b"x")
    assert theirs(*check) != 0
    (signed.folder / "more").unlink()
    sig.unlink()
    assert theirs("sign", "key", signed.folder, "--signature", sig, "--private_key", signed.private) == 0
    assert check_signed(signed.folder, load_public_key(signed.public)).signature.version is None
