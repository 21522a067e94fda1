"""Pickles of plain data and uint8 arrays, read without running anything that a file names.

A pickle may call any importable function. Here the few names that a pickled NumPy array needs stand for inert classes
of this module, every other name is refused, and the array is then built from the recorded bytes by our own code:
not even NumPy's `__setstate__`, which trusts what it is given, sees the content of the file.
"""

import io
import math
import pickle
import warnings
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from fedsup_deploy.data import source
from fedsup_deploy.data.pickle_program import check_pickle
from fedsup_deploy.data.source import MAX_FILE_BYTES
from fedsup_deploy.errors import DataError
from fedsup_deploy.ondevice.printable import reason_of

_MAX_DIMENSIONS = 4


class _Inert:
    """Remembers how the pickle would have made an object, and makes nothing."""

    __slots__ = ("arguments", "state")

    def __init__(self, *arguments: object) -> None:
        self.arguments = arguments
        self.state: object = None

    # Defined so that the unpickler hands over the state whole, rather than setting attributes from it.
    def __setstate__(self, state: object) -> None:
        self.state = state


class _Reconstructed(_Inert):
    """Stands for `numpy._core.multiarray._reconstruct`: up to pickle protocol 4."""

    __slots__ = ()


class _FromBuffer(_Inert):
    """Stands for `numpy._core.numeric._frombuffer`: pickle protocol 5."""

    __slots__ = ()


class _Dtype(_Inert):
    """Stands for `numpy.dtype`."""

    __slots__ = ()


class _Encoded(_Inert):
    """Stands for `_codecs.encode`, by which Python 3 writes bytes in protocol 2. Makes those bytes, and only those."""

    __slots__ = ()

    def __new__(cls, text: object, encoding: object) -> bytes:  # type: ignore[misc]  # the one stand-in that is a value
        if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
            raise ValueError("bytes that are not in latin1")
        return text.encode("latin1")


_STAND_INS = MappingProxyType(
    {
        ("numpy.core.multiarray", "_reconstruct"): _Reconstructed,
        ("numpy._core.multiarray", "_reconstruct"): _Reconstructed,
        ("numpy.core.numeric", "_frombuffer"): _FromBuffer,
        ("numpy._core.numeric", "_frombuffer"): _FromBuffer,
        ("numpy", "ndarray"): _Inert,
        ("numpy", "dtype"): _Dtype,
        ("_codecs", "encode"): _Encoded,
    }
)


class _RestrictedUnpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, path: Path) -> None:
        super().__init__(file, encoding="bytes")
        self._path = path

    def find_class(self, module: str, name: str) -> type[_Inert]:
        """Return the stand-in for a name, or refuse it. Nothing is ever imported."""
        if (module, name) not in _STAND_INS:
            got = f"{module}.{name}"[:80]
            raise DataError(f"{self._path}: names {got!r}, expected only data; do not trust this file")
        return _STAND_INS[module, name]


def read_pickled_dict(path: Path) -> dict[str, object]:
    """Read a pickled dictionary of plain values, written by Python 2 or 3.

    Returns:
        The dictionary. Keys are text; text that Python 2 wrote is `bytes`; arrays are as yet unread: see `uint8_array`.

    Raises:
        DataError: The file is unreadable, too large, no pickle, holds no dictionary, names anything that is not data,
            or is a program that data does not need (see `pickle_program`).
    """
    try:
        stored = source.read_whole(path)
        with warnings.catch_warnings():
            # Of odd escapes in text: a word to the author of a program, which a file has not.
            warnings.simplefilter("ignore", DeprecationWarning)
            check_pickle(stored)
            content = _RestrictedUnpickler(io.BytesIO(stored), path).load()
    except (
        pickle.UnpicklingError,
        AttributeError,
        EOFError,
        ImportError,
        IndexError,
        KeyError,
        MemoryError,
        OverflowError,
        TypeError,
        ValueError,
    ) as error:
        reason = reason_of(error)
        raise DataError(f"{path}: not a readable pickle ({reason}); get the file again") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: got a pickled {type(content).__name__}, expected a dictionary; not this file")
    keys = [key.decode("latin1") if isinstance(key, bytes) else key for key in content]
    if not all(isinstance(key, str) for key in keys):
        raise DataError(f"{path}: got a pickled dictionary whose keys are no text; not this file")
    return dict(zip(keys, content.values(), strict=True))


def uint8_array(value: object, where: str) -> npt.NDArray[np.uint8]:
    """Return the uint8 array that a value of `read_pickled_dict` stands for, read-only.

    Args:
        value: The value.
        where: File and key, for the message.

    Raises:
        DataError: It is no array, of another type, or its shape and bytes disagree.
    """
    match value:
        case _Reconstructed(state=(_, tuple() as shape, _Dtype(arguments=(code, *_)), is_fortran, stored)):
            order = "F" if is_fortran else "C"
        case _FromBuffer(arguments=(stored, _Dtype(arguments=(code, *_)), tuple() as shape, ("C" | "F") as order)):
            pass
        case _:
            raise DataError(f"{where}: got {type(value).__name__}, expected an array; not this file")
    if code not in ("u1", b"u1") or not isinstance(stored, bytes | bytearray):
        # Whatever else a file has in this place may be too deep to print.
        got = repr(code) if isinstance(code, str | bytes) else type(code).__name__
        raise DataError(f"{where}: got an array of type {got}, expected uint8 ('u1'); not this file")
    if len(shape) > _MAX_DIMENSIONS or not all(type(side) is int and 0 < side <= MAX_FILE_BYTES for side in shape):
        raise DataError(f"{where}: got no shape of up to {_MAX_DIMENSIONS} positive sides; get the file again")
    if math.prod(shape) != len(stored):
        raise DataError(f"{where}: {len(stored):,} bytes do not fill shape {shape}; get the file again")
    return np.frombuffer(bytes(stored), dtype=np.uint8).reshape(shape, order="F" if order == "F" else "C")
