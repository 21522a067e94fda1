"""One image file, as a viewer shows it on a white page: upright, opaque, 8 bits a channel.

- The orientation that a camera recorded (EXIF, or the same tag of TIFF) is applied.
- Transparent pixels are blended with white (alpha compositing). What colour lies hidden below them does not matter.
- Palettes, CMYK and YCbCr become RGB. Of 16 bits a channel in a colour PNG or TIFF the upper 8 are kept.
- Colour profiles and gamma are not applied: devices seldom can.
- Of a camera's file with further views of one photo (MPO) it is the first, which every viewer shows.

Refused is what has no one right picture of 8 bits: grey of 16 or 32 bits, floating-point pixels, several frames.
Whoever feeds a trained model on a device has to decode in the same way.

Needs Pillow (extra `images`). Never resizes.
"""

import contextlib
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from fedsup_deploy.data import source
from fedsup_deploy.data.names import escaped
from fedsup_deploy.errors import DataError

if TYPE_CHECKING:
    import PIL.Image

#: Ends of names of the files that are read, in small letters.
SUFFIXES: Final = (
    ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip
# Content decides, not the name; and Pillow knows formats that run other programs (EPS).
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_SEVERAL_VIEWS = "MPO"
_GREY = "L"
_MODES = ("1", "CMYK", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "YCbCr")
_WHITE = (255, 255, 255, 255)
_ORIENTATION_TAG = 0x0112
# Tag value -> Pillow's operation that sets the image upright. 1 is upright; all else means nothing.
_UPRIGHT_BY = MappingProxyType(
    {
        2: "FLIP_LEFT_RIGHT",
        3: "ROTATE_180",
        4: "FLIP_TOP_BOTTOM",
        5: "TRANSPOSE",
        6: "ROTATE_270",
        7: "TRANSVERSE",
        8: "ROTATE_90",
    }
)


class ImageHeader(NamedTuple):
    """What is known of an image before its pixels are decoded.

    Args:
        width: As stored, pixels; the height of an image that lies on its side.
        height: As stored, pixels.
        is_grey: Whether it is stored as grey alone.
    """

    width: int
    height: int
    is_grey: bool


class ShownImage(NamedTuple):
    """An image as a viewer shows it.

    Args:
        pixels: (H, W) of a file that is stored as grey alone, (H, W, 3) of any other; uint8.
        complaint: What Pillow finds wrong with what the file says beside its pixels; None if nothing.
    """

    pixels: npt.NDArray[np.uint8]
    complaint: str | None


def read_header(path: Path) -> ImageHeader:
    """Read what a file says of its pixels.

    Raises:
        DataError: It is no regular file, no image, or none that can be shown in 8 bits a channel.
    """
    with _opened(path) as (image, _):
        if image.mode not in _MODES:
            got = f"has pixels of mode {image.mode}"
            raise DataError(f"{escaped(path)}: {got}, expected 8 bits a channel; convert it")
        if getattr(image, "is_animated", False) and image.format != _SEVERAL_VIEWS:
            got = f"is a {image.format} of several frames (mode {image.mode})"
            raise DataError(f"{escaped(path)}: {got}, expected one image; save one frame")
        return ImageHeader(*image.size, image.mode == _GREY)


def read_image(path: Path) -> ShownImage:
    """Decode a file whose header was found good.

    Raises:
        DataError: It is damaged.
    """
    with _opened(path) as (image, said):
        image.load()
        # After loading, when Pillow has seen all that a PNG says, and has turned a TIFF itself.
        operation = _UPRIGHT_BY.get(image.getexif().get(_ORIENTATION_TAG, 1))
        shown = _opaque(image)
        if operation is not None:
            shown = shown.transpose(_transposition(operation))
        complaint = source.reason_of(said[0].message) if said else None
        return ShownImage(np.asarray(shown), complaint)


def _transposition(operation: str) -> "PIL.Image.Transpose":
    import PIL.Image

    return PIL.Image.Transpose[operation]


def _opaque(image: "PIL.Image.Image") -> "PIL.Image.Image":
    """Return an image of mode L if it is stored so, of mode RGB otherwise, on white where it is transparent."""
    import PIL.Image

    mode = _GREY if image.mode == _GREY else "RGB"
    if image.has_transparency_data:
        shown = image.convert("RGBA")
        image = PIL.Image.alpha_composite(PIL.Image.new("RGBA", shown.size, _WHITE), shown)
    return image.convert(mode)


def _identified(file: BinaryIO, path: Path) -> "PIL.Image.Image":
    import PIL.Image

    try:
        # Not the path: Pillow 13 would map a TIFF that lies on its side as if it stood upright.
        return PIL.Image.open(file, formats=_FORMATS)
    except PIL.UnidentifiedImageError as error:
        got = f"it is none of {', '.join(_FORMATS)}"
        raise DataError(f"cannot read {escaped(path)}: {got}; get the file again") from error


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple["PIL.Image.Image", list[warnings.WarningMessage]]]:
    """Yield an image that is not yet decoded, and what is said of it meanwhile."""
    import PIL.Image

    try:
        with source.opened(path, source.MAX_FILE_BYTES) as file, warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", UserWarning)
            # A file that claims more than 90 million pixels: Pillow only warns, and would then decode it.
            warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
            with _identified(file, path) as image:
                yield image, said
    except (
        PIL.Image.DecompressionBombError,
        PIL.Image.DecompressionBombWarning,
        # What Pillow's decoders let through for some damaged files.
        ArithmeticError,
        AttributeError,
        LookupError,
        MemoryError,
        SyntaxError,
        TypeError,
        ValueError,
        struct.error,
    ) as error:
        raise DataError(f"cannot read {escaped(path)}: {source.reason_of(error)}; get the file again") from error
