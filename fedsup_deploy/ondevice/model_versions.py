"""Which onnxruntime an ONNX file needs: by its opset, which says which operators there are, and its IR version.

Reads a few bytes of the file itself, because what is too old to load it cannot say so. Owns the numbers of
onnxruntime's releases; older ones than the first of them can run nothing of ours.
"""

import os
import re
from typing import IO, Iterator, NamedTuple, Optional, Tuple

Release = Tuple[int, int]


class ModelVersions(NamedTuple):
    """What an ONNX file says of what it is written in."""

    opset: int
    ir: int


#: Releases with the newest opset and IR version that each knows; each was tried.
RELEASES = (
    ((1, 8), ModelVersions(14, 7)),
    ((1, 9), ModelVersions(15, 8)),
    ((1, 11), ModelVersions(16, 8)),
    ((1, 12), ModelVersions(17, 8)),
    ((1, 14), ModelVersions(18, 8)),
    ((1, 15), ModelVersions(19, 9)),
    ((1, 17), ModelVersions(20, 9)),
    ((1, 18), ModelVersions(21, 10)),
    ((1, 21), ModelVersions(22, 10)),
    ((1, 23), ModelVersions(23, 11)),
    ((1, 24), ModelVersions(25, 13)),
    ((1, 25), ModelVersions(26, 13)),
    ((1, 32), ModelVersions(28, 14)),
)

# Numbers of fields in the protobuf messages of ONNX, and how protobuf writes a value.
_IR_VERSION, _OPSET_IMPORT = 1, 8
_DOMAIN, _VERSION = 1, 2
_VARINT, _EIGHT_BYTES, _WITH_LENGTH, _FOUR_BYTES = 0, 1, 2, 5
_MOST_BYTES_OF_A_NUMBER = 10


def release_of(version: str) -> Release:
    """Return the first two numbers of a version, zeros where there are none."""
    numbers = re.match(r"(\d+)\.(\d+)", version)
    return (int(numbers.group(1)), int(numbers.group(2))) if numbers else (0, 0)


def known_to(version: str) -> Optional[ModelVersions]:
    """Return the newest that a release of onnxruntime loads, as far as it was tried; None of one that is too old."""
    known = [known for release, known in RELEASES if release <= release_of(version)]
    return known[-1] if known else None


def least_release(path: str) -> Optional[str]:
    """Return the oldest onnxruntime that loads a model; None of one newer than all that was tried, or of no model."""
    try:
        model = _versions_of(path)
    except (OSError, ValueError):
        return None
    enough = _enough_for(model)
    return "{}.{}".format(*enough) if enough else None


def why_too_old(version: str, path: str, name: str) -> Optional[str]:
    """Return why an onnxruntime could not run a model, if it is because it is older than the model.

    Args:
        version: Of onnxruntime.
        path: The .onnx file.
        name: What to call it.
    """
    try:
        model = _versions_of(path)
    except (OSError, ValueError):
        return None  # it is no model, whatever would read it
    enough = _enough_for(model)
    if enough and release_of(version) >= enough:
        return None
    if not enough and release_of(version) > RELEASES[-1][0]:
        return None
    needed = "{}.{} or later".format(*enough) if enough else "one later than {}.{}".format(*RELEASES[-1][0])
    what = f"{name} (opset {model.opset}, IR version {model.ir})"
    return f"onnxruntime {version} is too old for {what}, which needs {needed}; run: pip install --upgrade onnxruntime"


def _enough_for(model: ModelVersions) -> Optional[Release]:
    """Return the first release that loads what is written so; None where none is known to."""
    enough = (release for release, known in RELEASES if model.opset <= known.opset and model.ir <= known.ir)
    return next(enough, None)


def _versions_of(path: str) -> ModelVersions:
    """Return what the ONNX file at a path says of itself. Raises as `read_versions`, or OSError."""
    with open(path, "rb") as file:  # noqa: PTH123  a path may be bytes there
        return read_versions(file, os.fstat(file.fileno()).st_size)


def read_versions(file: IO[bytes], num_bytes: int) -> ModelVersions:
    """Return what an ONNX file says of itself; its graph is skipped.

    Raises:
        ValueError: It is no such file.
    """
    opset = ir = 0
    for number, value, end in _fields(file, num_bytes):
        if number == _IR_VERSION:
            ir = value
        elif number == _OPSET_IMPORT:
            opset = max(opset, _version_of_onnx(file, end))
    if not opset or not ir:
        raise ValueError("it has no opset or no IR version")
    return ModelVersions(opset, ir)


def _version_of_onnx(file: IO[bytes], end: int) -> int:
    """Return the version of a set of operators if it is that of ONNX itself, whose name is empty; else 0."""
    version = 0
    for number, value, end_of_field in _fields(file, end):
        if number == _DOMAIN and file.read(end_of_field - file.tell()) not in {b"", b"ai.onnx"}:
            return 0
        if number == _VERSION:
            version = value
    return version


def _fields(file: IO[bytes], end: int) -> Iterator[Tuple[int, int, int]]:
    """Yield number, value and end of each field of a protobuf message; the file stands at the content of a long one."""
    position = file.tell()
    while position < end:
        file.seek(position)
        key = _number(file)
        kind, value, position = key & 7, 0, file.tell()
        if kind == _VARINT:
            value = _number(file)
            position = file.tell()
        elif kind == _WITH_LENGTH:
            num_bytes = _number(file)
            position = file.tell() + num_bytes
        elif kind in {_EIGHT_BYTES, _FOUR_BYTES}:
            position += 8 if kind == _EIGHT_BYTES else 4
        else:
            raise ValueError("it is no protobuf message")
        if position > end:
            raise ValueError("it is cut short")
        yield key >> 3, value, position


def _number(file: IO[bytes]) -> int:
    """Read an integer of any length: seven bits in each byte, the lowest first."""
    number = 0
    for index in range(_MOST_BYTES_OF_A_NUMBER):
        byte = file.read(1)
        if not byte:
            break
        number |= (byte[0] & 127) << (7 * index)
        if byte[0] < 128:
            return number
    raise ValueError("it is no protobuf message")
