"""Checking signatures of ECDSA over the curve P-256 with SHA-256, in plain Python: for devices without a library of it.

It only checks, and whoever checks knows no secret, so nothing here needs to take the same time for all numbers. Signing
is left to a library. Keys and signatures have one spelling each; others are refused.

Sources: SEC 1 (version 2, sections 2.3 and 4.1.4), RFC 5480 (public keys), FIPS 186-4 (the numbers of the curve).
"""

import base64
import binascii
import hashlib
from typing import NamedTuple, Tuple

# y^2 = x^3 - 3x + B modulo P; ORDER is how many points there are.
_P = 2**256 - 2**224 + 2**192 + 2**96 - 1
_B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

_NUM_BYTES = 32
#: What an uncompressed point of this curve begins with in a public key, by RFC 5480.
_HEAD_OF_KEY = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")
_PEM_BEGINS, _PEM_ENDS = b"-----BEGIN PUBLIC KEY-----", b"-----END PUBLIC KEY-----"
_SEQUENCE, _INTEGER = 0x30, 0x02


class PublicKey(NamedTuple):
    """A point of the curve."""

    x: int
    y: int


#: A point (x / z^2, y / z^3); of the point that is zero z is 0.
_Point = Tuple[int, int, int]

_ZERO = (1, 1, 0)  # type: _Point
_GENERATOR = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
    1,
)  # type: _Point


def public_key_of(pem: bytes) -> PublicKey:
    """Return the public key of a PEM file, as openssl writes it.

    Raises:
        ValueError: It is none of this curve; a few words say what it is.
    """
    text = b"".join(pem.splitlines())
    if b"PRIVATE KEY" in text:
        raise ValueError("it is a private key; expected the public one")
    if not (text.startswith(_PEM_BEGINS) and text.endswith(_PEM_ENDS)):
        raise ValueError("it is no public key in PEM")
    try:
        content = base64.b64decode(text[len(_PEM_BEGINS) : -len(_PEM_ENDS)], validate=True)
    except binascii.Error:
        raise ValueError("it is no public key in PEM") from None
    numbers = content[len(_HEAD_OF_KEY) :]
    if not content.startswith(_HEAD_OF_KEY) or len(numbers) != 2 * _NUM_BYTES:
        raise ValueError("it is no public key of ECDSA over P-256")
    x, y = int.from_bytes(numbers[:_NUM_BYTES], "big"), int.from_bytes(numbers[_NUM_BYTES:], "big")
    if max(x, y) >= _P or (y * y - x * x * x + 3 * x - _B) % _P != 0:
        raise ValueError("it is no point of P-256")
    return PublicKey(x, y)


def is_signed(key: PublicKey, message: bytes, signature: bytes) -> bool:
    """Return whether a signature is that of a message by the owner of a key.

    Args:
        key: The public key.
        message: What was signed; its SHA-256 is compared.
        signature: Two integers in DER, in their only right spelling.
    """
    try:
        r, s = _integers_of(signature)
    except ValueError:
        return False
    if not (0 < r < _ORDER and 0 < s < _ORDER):
        return False
    inverse = pow(s, _ORDER - 2, _ORDER)
    digest = int.from_bytes(hashlib.sha256(message).digest(), "big")
    x, _, z = _sum_of_products(digest * inverse % _ORDER, r * inverse % _ORDER, (key.x, key.y, 1))
    return z != 0 and x * pow(z, 2 * (_P - 2), _P) % _P % _ORDER == r


def _integers_of(der: bytes) -> Tuple[int, int]:
    """Return the two integers of a signature. Raises ValueError where they are spelled otherwise than DER wants."""
    # Two integers of 33 bytes at most, so every length is one byte below 128.
    if len(der) < 2 or der[0] != _SEQUENCE or der[1] != len(der) - 2:
        raise ValueError("no sequence")
    r, rest = _integer_of(der[2:])
    s, rest = _integer_of(rest)
    if rest:
        raise ValueError("bytes after the end")
    return r, s


def _integer_of(der: bytes) -> Tuple[int, bytes]:
    """Return an integer that is not negative, and what follows it."""
    if len(der) < 3 or der[0] != _INTEGER or not 0 < der[1] <= min(_NUM_BYTES + 1, len(der) - 2):
        raise ValueError("no integer")
    content, rest = der[2 : 2 + der[1]], der[2 + der[1] :]
    if content[0] >= 128 or (content[0] == 0 and len(content) > 1 and content[1] < 128):
        raise ValueError("negative, or zeros before it")
    return int.from_bytes(content, "big"), rest


def _sum_of_products(one: int, other: int, point: _Point) -> _Point:
    """Return one * generator + other * point."""
    terms = {(True, False): _GENERATOR, (False, True): point, (True, True): _add(_GENERATOR, point)}
    total = _ZERO
    for bit in range(255, -1, -1):
        total = _double(total)
        which = (bool(one >> bit & 1), bool(other >> bit & 1))
        if which in terms:
            total = _add(total, terms[which])
    return total


def _double(point: _Point) -> _Point:
    x, y, z = point
    if z == 0 or y == 0:
        return _ZERO
    squared = y * y % _P
    distance = 4 * x * squared % _P
    slope = 3 * (x - z * z) * (x + z * z) % _P
    new_x = (slope * slope - 2 * distance) % _P
    return new_x, (slope * (distance - new_x) - 8 * squared * squared) % _P, 2 * y * z % _P


def _add(one: _Point, other: _Point) -> _Point:
    x1, y1, z1 = one
    x2, y2, z2 = other
    if z1 == 0 or z2 == 0:
        return other if z1 == 0 else one
    square1, square2 = z1 * z1 % _P, z2 * z2 % _P
    x1, x2 = x1 * square2 % _P, x2 * square1 % _P
    y1, y2 = y1 * square2 * z2 % _P, y2 * square1 * z1 % _P
    if x1 == x2:
        return _double(one) if y1 == y2 else _ZERO
    step, rise = (x2 - x1) % _P, (y2 - y1) % _P
    square = step * step % _P
    cube, distance = square * step % _P, x1 * square % _P
    new_x = (rise * rise - cube - 2 * distance) % _P
    return new_x, (rise * (distance - new_x) - y1 * cube) % _P, step * z1 * z2 % _P
