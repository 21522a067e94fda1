"""NumPy archives (.npz) of strangers: what an archive promises is looked at before anything of it is read.

`numpy.load` decompresses a member before it looks at its header, and believes the header. Here a member is read only if
it is a plain array, not encrypted, as long as its header says, and small enough. Nothing is ever unpickled.
"""

import math
import zipfile
from collections.abc import Collection
from typing import Any, BinaryIO, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from fedsup_deploy.ondevice.array_file import ARRAY_SUFFIX, ArrayHeader, array_header

#: Any: the element types are for the caller to look at.
Arrays = dict[str, npt.NDArray[Any]]

_ENCRYPTED: Final = 0x1
# What NumPy writes. The other methods need far more memory to unpack.
_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_PIECE_BYTES: Final = 1 << 20


class Archive(NamedTuple):
    """What was read of an archive.

    Args:
        arrays: Those of the wanted arrays that are there.
        unread: Names of the other members, in their order.
    """

    arrays: Arrays
    unread: tuple[str, ...]


def read_npz(file: BinaryIO, wanted: Collection[str], max_bytes: int) -> Archive:
    """Read arrays from an archive.

    Args:
        file: The archive, seekable.
        wanted: Names of arrays to read, if they are there.
        max_bytes: Of all wanted arrays together, in memory.

    Raises:
        ValueError: A wanted member is no plain array, encrypted, of another length than it says, or all are too large.
        zipfile.BadZipFile: The file is no archive, or damaged.
        OSError, EOFError, zlib.error: It cannot be read, or is damaged.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            members = {info.filename.removesuffix(ARRAY_SUFFIX): info for info in archive.infolist()}
            if len(members) < len(archive.infolist()):
                raise ValueError("two arrays have one name")
            chosen = {name: members[name] for name in wanted if name in members}
            headers = {name: _header(archive, name, info) for name, info in chosen.items()}
            total_bytes = sum(header.array_bytes for header in headers.values())
            if total_bytes > max_bytes:
                raise ValueError(f"its arrays take {total_bytes:,} bytes, more than {max_bytes:,}")
            arrays = {name: _array(archive, info, headers[name]) for name, info in chosen.items()}
            return Archive(arrays, tuple(name for name in members if name not in chosen))
    # NotImplementedError: a newer kind of archive. The last two: nonsense in its directory.
    except (NotImplementedError, OverflowError, IndexError) as error:
        raise ValueError(str(error)) from error


def _header(archive: zipfile.ZipFile, name: str, info: zipfile.ZipInfo) -> ArrayHeader:
    """Read the header of an array and refuse what is none, or will not be read."""
    if info.flag_bits & _ENCRYPTED:
        raise ValueError(f"{name} is encrypted")
    if info.compress_type not in _METHODS:
        raise ValueError(f"{name} is compressed by method {info.compress_type}, expected none or deflate")
    with archive.open(info) as member:
        header = array_header(member, name)
    if header.num_bytes + header.array_bytes != info.file_size:
        got, expected = f"{info.file_size - header.num_bytes:,} bytes", f"{header.array_bytes:,} for {header.shape}"
        raise ValueError(f"{name} has {got}, expected {expected}")
    return header


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo, header: ArrayHeader) -> npt.NDArray[Any]:
    flat = np.empty(math.prod(header.shape), dtype=header.dtype)
    content = flat.view(np.uint8).data
    with archive.open(info) as member:
        member.read(header.num_bytes)
        done = 0
        while done < len(content) and (piece := member.read(_PIECE_BYTES)):
            content[done : done + len(piece)] = piece
            done += len(piece)
    if done < len(content):
        raise EOFError(f"{info.filename} is cut short")
    return flat.reshape(header.shape, order="F" if header.is_fortran else "C")
