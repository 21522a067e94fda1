"""How inputs are damaged: where their structure says what stands where, and byte by byte."""

import copy
import io
import json
import random
import zipfile
from typing import Any

import numpy as np

#: Values that programs trip over, in place of any other.
NASTY: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3.5, -0.0, 1e308, -1e308, 5e-324, 2**31, 2**63, -(2**63), 10**80, 10**400),
    *(float("nan"), float("inf"), [], {}, [[]], [{}], [None], {"": None}, "", " ", "0", "nan", "batch"),
    *("\x1b]0;title\a", "\x9b31m", "\u202egnp.exe", "\ud800", "a\nb", "\0", "x" * 5000, "../../etc/passwd", "/etc"),
    *("~/x", "-o", "--", "%s%n", "{0}", "\u2028", "1e5", "1_000", "é" * 40, [0] * 3000, ["x" * 300] * 20),
)
_BYTES = (b"\0", b"\xff", b"\x1b[2J", b"\n", b"[", b"{", b'"', b"]" * 40, b"[" * 3000, b"9" * 500, b"\xed\xa0\x80", b"")


def damaged(rng: random.Random, document: Any) -> Any:
    """Return a copy of a JSON document with one to three parts replaced, removed, added, doubled or moved."""
    document = copy.deepcopy(document)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        document = _changed(rng, document)
    return document


def damaged_bytes(rng: random.Random, content: bytes) -> bytes:
    """Return bytes with one to three places cut, flipped, inserted into, doubled or swapped."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        start = rng.randrange(len(content) + 1)
        end = min(len(content), start + rng.choice((1, 1, 2, 8, 64, 512)))
        match rng.randrange(6):
            case 0:
                content = content[:start]
            case 1:
                content = content[:start] + bytes(byte ^ (1 << rng.randrange(8)) for byte in content[start:end])
                content += b"" if start == end else content[end:]
            case 2:
                content = content[:start] + rng.choice(_BYTES) + content[start:]
            case 3:
                content = content[:end] + content[start:]
            case 4:
                content = content[:start] + content[end:]
            case _:
                content = content[:start] + rng.randbytes(end - start) + content[end:]
    return content


def damaged_npz(rng: random.Random, content: bytes) -> bytes:
    """Return an archive of arrays with its bytes, or one of its arrays, damaged."""
    if rng.random() < 0.4:
        return damaged_bytes(rng, content)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice(sorted(members))
    match rng.randrange(5):
        case 0:
            members[name] = damaged_bytes(rng, members[name][:128]) + members[name][128:]
        case 1:
            shape = rng.choice(("(4611686018427387904,)", "(-1,)", "()", "(((", "(1" + ",1" * 70 + ")", "(10**9,)"))
            header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}".encode()
            members[name] = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\0" * 64
        case 2:
            del members[name]
        case 3:
            values: Any = rng.choice((np.zeros(3), np.array("x"), np.zeros((16, 1, 8, 8), "f4"), np.zeros(0, "f4")))
            buffer = io.BytesIO()
            np.save(buffer, values)
            members[name] = buffer.getvalue()
        case _:
            members[name] = rng.choice((b"", b"\x93NUMPY", b"\x80\x04K\x01."))
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return made.getvalue()


def as_json(rng: random.Random, document: Any) -> bytes:
    """Return a damaged document as JSON text, which may be damaged once more."""
    made = damaged(rng, document)
    try:
        content = json.dumps(made, indent=rng.choice((None, 2))).encode()
    except (ValueError, RecursionError):
        content = b"[" * 200_000
    return damaged_bytes(rng, content) if rng.random() < 0.2 else content


def as_yaml(rng: random.Random, text: str) -> bytes:
    """Return a YAML text with a value, a line or some bytes of it damaged."""
    lines = text.splitlines()
    index = rng.randrange(len(lines))
    match rng.randrange(5):
        case 0:
            return damaged_bytes(rng, text.encode())
        case 1:
            del lines[index]
        case 2:
            lines.insert(index, rng.choice(lines))
        case _:
            key, colon, _ = lines[index].partition(":")
            lines[index] = f"{key}{colon} {scalar(rng)}"
    return "\n".join(lines).encode(errors="surrogatepass")


def scalar(rng: random.Random) -> str:
    """Return a value as YAML may have it."""
    value = rng.choice(NASTY)
    if rng.random() < 0.2:
        return rng.choice(
            ("[" * 200, "{a: " * 40, "*x", "&x 1", "!!python/object:os.system", "0x" + "f" * 70, ".inf", "- -")
        )
    return value if isinstance(value, str) and rng.random() < 0.5 else json.dumps(value)


def _changed(rng: random.Random, document: Any) -> Any:
    found = list(places(document))
    if not found:
        return _nasty(rng)
    owner, key = rng.choice(found)
    match rng.randrange(8):
        case 0:
            owner.pop(key)
        case 1 if isinstance(owner, dict):
            owner[rng.choice(("surplus", "\x1b[2J", "", "schema", "x" * 3000))] = _nasty(rng)
        case 1:
            owner.insert(key, _nasty(rng))
        case 2:
            owner[key] = copy.deepcopy(owner)
        case 3:
            other, inside = rng.choice(found)
            owner[key], other[inside] = copy.deepcopy(other[inside]), copy.deepcopy(owner[key])
        case 4 if isinstance(owner[key], (int, float)):
            owner[key] = rng.choice((owner[key] + 1, -owner[key], owner[key] * 1e9, str(owner[key]), float(owner[key])))
        case 5:
            owner[key] = _nested(rng)
        case _:
            owner[key] = _nasty(rng)
    return document


def _nasty(rng: random.Random) -> Any:
    """Return a copy: the next damage may be to it."""
    return copy.deepcopy(rng.choice(NASTY))


def _nested(rng: random.Random) -> Any:
    deep: Any = _nasty(rng)
    for _ in range(rng.choice((3, 40, 90))):
        deep = [deep] if rng.random() < 0.5 else {"a": deep}
    return deep


def places(document: Any) -> Any:
    """Yield each mapping or list with each of its keys. However deep: an earlier damage may have nested it."""
    owners = [document]
    while owners:
        owner = owners.pop()
        inside = list(owner.items() if isinstance(owner, dict) else enumerate(owner) if isinstance(owner, list) else ())
        for key, value in inside:
            yield owner, key
            owners.append(value)
