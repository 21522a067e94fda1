"""Arrays in NumPy's format (.npy): what the header promises is looked at before any of them is read.

Nothing is ever unpickled. Works with NumPy 1.16 as with the newest. Shapes: H W pixels, C channels.
"""

import io
import tokenize
from typing import IO, TYPE_CHECKING, Any, NamedTuple, Optional, Tuple

from fedsup_deploy.ondevice.image_file import ImageError
from fedsup_deploy.ondevice.preprocessing import UNUSABLE, first_unusable

if TYPE_CHECKING:
    from fedsup_deploy.ondevice.records import AnyPixels

#: How names of such files end.
ARRAY_SUFFIX = ".npy"

_MAGIC = b"\x93NUMPY\x01\x00"
# NumPy's own limit: longer ones can take long to parse.
_MOST_BYTES_OF_A_HEADER = 10000


class ArrayHeader(NamedTuple):
    """What the header of an array says.

    Args:
        dtype: Type of its elements, a `numpy.dtype`; never Python objects.
        shape: Its sizes.
        is_fortran: Whether the first index runs fastest.
        num_bytes: Size of the header itself.
        array_bytes: Size of the array.
    """

    dtype: Any
    shape: Tuple[int, ...]
    is_fortran: bool
    num_bytes: int
    array_bytes: int


def array_header(file: IO[bytes], name: str) -> ArrayHeader:
    """Read the header of an array, and refuse what is none.

    Args:
        file: The array, at its start; is left after the header.
        name: What to call it.

    Raises:
        ValueError: It is no array of plain values.
    """
    import numpy

    start = file.read(len(_MAGIC) + 2)
    if len(start) < len(_MAGIC) + 2 or not start.startswith(_MAGIC):
        raise ValueError(f"{name} is no array of NumPy's format 1.0")
    length = int.from_bytes(start[len(_MAGIC) :], "little")
    if length > _MOST_BYTES_OF_A_HEADER:
        raise ValueError(f"{name} has a header of {length:,} bytes, expected at most {_MOST_BYTES_OF_A_HEADER:,}")
    text = io.BytesIO(start[len(_MAGIC) :] + file.read(length))
    try:
        shape, is_fortran, dtype = numpy.lib.format.read_array_header_1_0(text)
    except (SyntaxError, TypeError, RecursionError, MemoryError, tokenize.TokenError) as error:
        raise ValueError(f"{name} has a garbled header") from error
    if dtype.hasobject:
        raise ValueError(f"{name} holds Python objects, and allow_pickle=False")
    if dtype.itemsize == 0 or min(shape, default=0) < 0:
        raise ValueError(f"{name} is {dtype} of shape {shape}")
    array_bytes = dtype.itemsize
    for size in shape:
        array_bytes *= size
    return ArrayHeader(dtype, shape, is_fortran, len(start) + length, array_bytes)


def pixels_of_array(content: bytes, name: str, dtype: str, channels: int, side: Optional[int]) -> "AnyPixels":
    """Return the image (H, W, C) that a file holds.

    Args:
        content: Of the file: an array (H, W, C), or (H, W) of one channel.
        name: What to call it.
        dtype: Type of its pixels.
        channels: How many it has to have.
        side: Height and width that it has to have; None takes any.

    Raises:
        ImageError: It is no such array, is cut short, or a pixel is not finite.
    """
    import numpy

    try:
        header = array_header(io.BytesIO(content), name)
    except ValueError as error:
        raise ImageError(f"{error}; save one image with numpy.save") from None
    # Whatever the order of the bytes of a number: that of this machine is made of it.
    if header.dtype.newbyteorder("=") != numpy.dtype(dtype):
        raise ImageError(f"{name}: is {header.dtype}, expected {dtype} as in training; convert it")
    shape = (*header.shape, 1) if len(header.shape) == 2 else header.shape
    sides = shape[:2] if side is None else (side, side)
    if shape != (*sides, channels) or 0 in shape:
        wanted = f"({'height, width' if side is None else f'{side}, {side}'}, {channels})"
        raise ImageError(f"{name}: has shape {header.shape}, expected {wanted} as in training")
    if len(content) != header.num_bytes + header.array_bytes:
        got = f"{len(content) - header.num_bytes:,} bytes of pixels, expected {header.array_bytes:,}"
        raise ImageError(f"{name}: has {got}; get the file again")
    flat = numpy.frombuffer(content, dtype=header.dtype, offset=header.num_bytes)
    pixels: AnyPixels = flat.reshape(shape, order="F" if header.is_fortran else "C").astype(dtype)
    if first_unusable(pixels[numpy.newaxis]) is not None:
        raise ImageError(f"{name}: {UNUSABLE}; mend it")
    return pixels
