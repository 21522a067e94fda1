"""Zip archives as torch reads them, written so that equal contents give equal bytes.

Owns only the container. Records are stored, not compressed, on 64-byte boundaries, so that a runtime can map them.
"""

import io
import zipfile
from collections.abc import Mapping

_ALIGNMENT = 64
_LOCAL_HEADER_BYTES = 30
_EXTRA_HEADER_BYTES = 4
_PADDING_ID = b"FB"  # the id that torch itself pads with
_NO_DATE = (1980, 1, 1, 0, 0, 0)
_ROOT = "archive"


def read_records(content: bytes) -> dict[str, bytes]:
    """Return the records of a torch archive by their names below its root folder, in their order."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {info.filename.partition("/")[2]: archive.read(info) for info in archive.infolist()}


def write_records(records: Mapping[str, bytes]) -> bytes:
    """Return a torch archive holding the records in the order given."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in records.items():
            info = zipfile.ZipInfo(f"{_ROOT}/{name}", _NO_DATE)
            info.create_system = 3  # ZipInfo takes it from the platform
            info.extra = _padding(buffer.tell() + _LOCAL_HEADER_BYTES + len(info.filename.encode()))
            archive.writestr(info, content)
    return buffer.getvalue()


def _padding(offset: int) -> bytes:
    """Return an extra field such that what follows it starts on a boundary."""
    fill = -(offset + _EXTRA_HEADER_BYTES) % _ALIGNMENT
    return _PADDING_ID + fill.to_bytes(2, "little") + b"Z" * fill
