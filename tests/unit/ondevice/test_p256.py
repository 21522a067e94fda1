"""Signatures that are right and wrong, held against the library that everybody uses."""

import random
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsup_deploy import rng
from fedsup_deploy.ondevice.p256 import PublicKey, is_signed, public_key_of

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
FIELD = 2**256 - 2**224 + 2**192 + 2**96 - 1
library = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ec", reason="cryptography (the extra sign)")


class Pair(NamedTuple):
    private: "library.EllipticCurvePrivateKey"
    pem: bytes
    public: PublicKey


def pair_of(secret: int) -> Pair:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    private = library.derive_private_key(secret, library.SECP256R1())
    pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return Pair(private, pem, public_key_of(pem))


def by_library(pair: Pair, message: bytes, signature: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes

    try:
        pair.private.public_key().verify(signature, message, library.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def signed(pair: Pair, message: bytes) -> bytes:
    from cryptography.hazmat.primitives import hashes

    signature: bytes = pair.private.sign(message, library.ECDSA(hashes.SHA256()))
    return signature


def integer(value: int, *, zeros: int = 0) -> bytes:
    """DER of an integer, with zeros before it that DER forbids."""
    content = value.to_bytes(value.bit_length() // 8 + 1, "big")
    content = b"\0" * zeros + content
    return bytes([2, len(content)]) + content


def sequence(*parts: bytes) -> bytes:
    content = b"".join(parts)
    return bytes([0x30, len(content)]) + content


@pytest.mark.parametrize("secret", [1, 2, 3, ORDER - 1, ORDER - 2, (ORDER - 1) // 2, 2**255, 0xDEADBEEF])
def test_signatures_of_the_library_are_right_also_by_keys_at_the_ends(secret: int) -> None:
    """With the keys 1 and ORDER - 1 both points that are added are the same, or each other's negative."""
    pair = pair_of(secret)
    for message in (b"", b"a", bytes(200)):
        signature = signed(pair, message)
        assert is_signed(pair.public, message, signature)
        assert not is_signed(pair.public, message + b"x", signature)
        assert not is_signed(pair_of(7).public, message, signature)


@settings(max_examples=25)
@given(secret=st.integers(1, ORDER - 1), message=st.binary(max_size=60), seed=st.integers(0, 2**32))
def test_damaged_signatures_are_judged_as_the_library_does(secret: int, message: bytes, seed: int) -> None:
    pair, draw = pair_of(secret), random.Random(seed)
    signature = bytearray(signed(pair, message))
    assert is_signed(pair.public, message, bytes(signature))
    signature[draw.randrange(len(signature))] ^= 1 << draw.randrange(8)
    assert is_signed(pair.public, message, bytes(signature)) == by_library(pair, message, bytes(signature))


def test_random_numbers_sign_nothing() -> None:
    pair, numbers = pair_of(5), rng.generator(0, "p256")
    for _ in range(20):
        r, s = (int.from_bytes(numbers.bytes(32), "big") % ORDER for _ in range(2))
        assert not is_signed(pair.public, b"message", sequence(integer(r), integer(s)))


# What Wycheproof calls them: each is a spelling or a number that careless programs take.
R, S = 0x123456789ABCDEF, 0xFEDCBA987654321
FORGED = {
    "r and s are zero": sequence(integer(0), integer(0)),
    "r is zero": sequence(integer(0), integer(S)),
    "s is zero": sequence(integer(R), integer(0)),
    "r and s are one": sequence(integer(1), integer(1)),
    "r is the order": sequence(integer(ORDER), integer(1)),
    "s is the order": sequence(integer(1), integer(ORDER)),
    "r and s are the order": sequence(integer(ORDER), integer(ORDER)),
    "r is above the order": sequence(integer(ORDER + 1), integer(1)),
    "r is the field": sequence(integer(FIELD), integer(1)),
    "r has 40 bytes": sequence(integer(2**319), integer(S)),
    "r is negative": sequence(b"\x02\x01\xff", integer(S)),
    "no bytes": b"",
    "an empty sequence": b"\x30\x00",
    "one integer": sequence(integer(R)),
    "empty integers": sequence(b"\x02\x00", b"\x02\x00"),
    "other types": sequence(b"\x03\x01\x01", b"\x03\x01\x01"),
    "a length of several bytes": b"\x30\x81\x06" + integer(1) + integer(1),
    "an endless length": b"\x30\x80" + integer(1) + integer(1) + b"\0\0",
}


@pytest.mark.parametrize("name", FORGED)
def test_forged_signature_is_refused_by_both(name: str) -> None:
    pair = pair_of(9)
    assert not by_library(pair, b"message", FORGED[name])
    assert not is_signed(pair.public, b"message", FORGED[name])


@pytest.mark.parametrize(
    "how", ["zeros before r", "zeros before s", "bytes after", "bytes inside", "cut", "too long r"]
)
def test_right_numbers_in_another_spelling_are_refused_by_both(how: str) -> None:
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

    pair = pair_of(11)
    right = signed(pair, b"message")
    r, s = decode_dss_signature(right)
    wrong = {
        "zeros before r": sequence(integer(r, zeros=1), integer(s)),
        "zeros before s": sequence(integer(r), integer(s, zeros=1)),
        "bytes after": right + b"\0",
        "bytes inside": sequence(integer(r), integer(s), b"\x05\x00"),
        "cut": right[:-1],
        "too long r": sequence(integer(r + ORDER), integer(s)),
    }[how]
    assert not by_library(pair, b"message", wrong)
    assert not is_signed(pair.public, b"message", wrong)


def test_both_s_of_a_signature_are_right_as_for_the_library() -> None:
    """ECDSA has two; nothing here depends on there being one."""
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

    pair = pair_of(13)
    r, s = decode_dss_signature(signed(pair, b"message"))
    other = sequence(integer(r), integer(ORDER - s))
    assert by_library(pair, b"message", other)
    assert is_signed(pair.public, b"message", other)


def test_key_is_read_whatever_its_line_ends() -> None:
    pair = pair_of(17)
    assert public_key_of(pair.pem.replace(b"\n", b"\r\n")) == public_key_of(pair.pem.strip()) == pair.public


def test_what_is_no_key_of_the_curve_is_refused() -> None:
    from cryptography.hazmat.primitives.asymmetric import ed25519
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
    )

    pair = pair_of(19)
    private = pair.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    spki, of_ours = (
        (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        b"-----BEGIN PUBLIC KEY-----\n%s\n-----END PUBLIC KEY-----",
    )
    compressed = pair.private.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    import base64

    der = base64.b64decode(b"".join(pair.pem.splitlines()[1:-1]))
    off_the_curve = der[:-1] + bytes([der[-1] ^ 1])
    too_large = der[:27] + FIELD.to_bytes(32, "big") + der[59:]
    for content, reason in (
        (private, "private key"),
        (b"", "no public key in PEM"),
        (b"\xff\xfe", "no public key in PEM"),
        (pair.pem.replace(b"PUBLIC", b"RSA PUBLIC"), "no public key in PEM"),
        (of_ours % b"not base64!", "no public key in PEM"),
        (of_ours % base64.b64encode(compressed), "P-256"),
        (of_ours % base64.b64encode(der + b"\0"), "P-256"),
        (of_ours % base64.b64encode(off_the_curve), "no point"),
        (of_ours % base64.b64encode(too_large), "no point"),
        (ed25519.Ed25519PrivateKey.generate().public_key().public_bytes(*spki), "P-256"),
        (library.derive_private_key(5, library.SECP384R1()).public_key().public_bytes(*spki), "P-256"),
        (library.derive_private_key(5, library.SECP256K1()).public_key().public_bytes(*spki), "P-256"),
    ):
        with pytest.raises(ValueError, match=reason):
            public_key_of(content)
