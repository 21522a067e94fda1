"""One image file, as a viewer shows it on a white page: upright, opaque, 8 bits a channel.

- The orientation that a camera recorded (EXIF, or the same tag of TIFF) is applied; what XMP says of it is not.
- Transparent pixels are blended with white (alpha compositing). What colour lies hidden below them does not matter.
- Palettes, CMYK and YCbCr become RGB. Of 16 bits a channel in a colour PNG or TIFF the upper 8 are kept.
- Colour profiles and gamma are not applied: devices seldom can.
- Of a camera's file with further views of one photo (MPO) it is the first, which every viewer shows.

Refused is what has no one right picture of 8 bits: grey of 16 or 32 bits, floating-point pixels, several frames.
Training images and those that a device classifies are decoded here, so both mean the same. Never resizes: that is for
`source_resize.py`.

Everything used here is in Pillow 8.1 and in the newest.
"""

import contextlib
import logging
import re
import struct
import warnings
import zlib
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Iterator, List, NamedTuple, Optional, Tuple

from fedsup_deploy.ondevice.model_versions import release_of
from fedsup_deploy.ondevice.printable import reason_of

if TYPE_CHECKING:
    import PIL.Image

    from fedsup_deploy.ondevice.records import Pixels

#: The first that tries just the formats that it is told to.
OLDEST_PILLOW = (8, 1)

#: Ends of names of the image files in a folder, in small letters.
SUFFIXES = (
    ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip
# Content decides, not the name; and Pillow knows formats that run other programs (EPS).
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_SEVERAL_VIEWS = "MPO"
_TURNED_BY_PILLOW = "TIFF"
_GREY = "L"
_MODES = ("1", "CMYK", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "YCbCr")
_MODES_WITH_ALPHA = ("LA", "PA", "RGBA")
_WHITE = (255, 255, 255, 255)
_ORIENTATION_TAG = 0x0112
# Where Pillow keeps EXIF. Whether it looks into XMP as well depends on its release and on the format.
_EXIF_KEYS = ("exif", "Raw profile type exif")
# Value of the tag -> whether rows and columns change places, then the steps through rows and columns that set the image
# upright. 1 is upright; all else means nothing.
_UPRIGHT_BY = MappingProxyType(
    {
        2: (False, 1, -1),
        3: (False, -1, -1),
        4: (False, -1, 1),
        5: (True, 1, 1),
        6: (True, 1, -1),
        7: (True, -1, -1),
        8: (True, -1, 1),
    }
)
# What Pillow's decoders let through for some damaged files.
_OF_DECODERS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
_SILENT = logging.NullHandler()


class ImageError(ValueError):
    """An image that cannot be used: one line that names the file, says why and what to do."""


class ImageHeader(NamedTuple):
    """What is known of an image before its pixels are decoded.

    Args:
        width: As stored, pixels; the height of an image that lies on its side.
        height: As stored, pixels.
        is_grey: Whether it is stored as grey alone.
        is_turned: Whether it says, before its pixels, that it is stored turned or mirrored.
        is_transparent: Whether it says, before its pixels, that some of these may be transparent.
        complaint: What Pillow finds wrong with what the file says before its pixels; None if nothing.
    """

    width: int
    height: int
    is_grey: bool
    is_turned: bool
    is_transparent: bool
    complaint: Optional[str]


class ShownImage(NamedTuple):
    """An image as a viewer shows it.

    Args:
        pixels: (H, W) of a file that is stored as grey alone, (H, W, 3) of any other; uint8.
        complaint: What Pillow finds wrong with what the file says beside its pixels; None if nothing.
    """

    pixels: "Pixels"
    complaint: Optional[str]


def check_pillow() -> None:
    """Fail where images cannot be decoded.

    Raises:
        ImportError: Pillow is not installed, cannot be imported, or is too old.
    """
    import PIL.Image

    version = str(getattr(PIL, "__version__", "of long ago"))
    if release_of(version) < OLDEST_PILLOW:
        needed = "{}.{}".format(*OLDEST_PILLOW)
        raise ImportError(f"version {version} is older than {needed}; run: pip install --upgrade pillow", name="PIL")


def header_of(file: IO[bytes], name: str) -> ImageHeader:
    """Read what a file says of its pixels.

    Args:
        file: The file, at its start.
        name: What to call it.

    Raises:
        ImageError: It is no image, or none that can be shown in 8 bits a channel.
    """
    with _opened(file, name) as (image, said):
        if image.mode not in _MODES:
            raise ImageError(f"{name}: has pixels of mode {image.mode}, expected 8 bits a channel; convert it")
        if getattr(image, "is_animated", False) and image.format != _SEVERAL_VIEWS:
            got = f"is a {image.format} of several frames (mode {image.mode})"
            raise ImageError(f"{name}: {got}, expected one image; save one frame")
        (width, height), is_grey, is_turned = image.size, image.mode == _GREY, _lies(image)
        return ImageHeader(width, height, is_grey, is_turned, _is_transparent(image), _complaint(said))


def shown_image(file: IO[bytes], name: str) -> ShownImage:
    """Decode a file whose header was found good.

    Args:
        file: The file, at its start.
        name: What to call it.

    Raises:
        ImageError: It is damaged.
    """
    import numpy

    with _opened(file, name) as (image, said):
        image.load()
        # After loading, when Pillow has seen all that a PNG says.
        is_turned, row_step, column_step = _UPRIGHT_BY.get(_orientation(image), (False, 1, 1))
        pixels = numpy.asarray(_opaque(image))
        pixels = (pixels.swapaxes(0, 1) if is_turned else pixels)[::row_step, ::column_step]
        return ShownImage(pixels, _complaint(said))


def _complaint(said: "List[warnings.WarningMessage]") -> Optional[str]:
    return reason_of(said[0].message) if said else None


def _lies(image: "PIL.Image.Image") -> bool:
    """Return whether an image that is not yet loaded is stored otherwise than upright."""
    tags = getattr(image, "tag_v2", {}) if image.format == _TURNED_BY_PILLOW else {}
    return (tags.get(_ORIENTATION_TAG, 1) if tags else _orientation(image)) in _UPRIGHT_BY


def _orientation(image: "PIL.Image.Image") -> int:
    """Return what the EXIF of a loaded image says of how it lies; 1 where Pillow has set it upright itself."""
    import PIL.Image

    if image.format == _TURNED_BY_PILLOW or not any(key in image.info for key in _EXIF_KEYS):
        return 1
    alone = PIL.Image.new("1", (1, 1))
    alone.info = {key: image.info[key] for key in _EXIF_KEYS if key in image.info}
    orientation: object = alone.getexif().get(_ORIENTATION_TAG, 1)
    return orientation if isinstance(orientation, int) else 1


def _opaque(image: "PIL.Image.Image") -> "PIL.Image.Image":
    """Return an image of mode L if it is stored so, of mode RGB otherwise, on white where it is transparent."""
    import PIL.Image

    mode = _GREY if image.mode == _GREY else "RGB"
    if _is_transparent(image):
        shown = image.convert("RGBA")
        image = PIL.Image.alpha_composite(PIL.Image.new("RGBA", shown.size, _WHITE), shown)
    return image.convert(mode)


def _is_transparent(image: "PIL.Image.Image") -> bool:
    """Return whether an image has any of an alpha channel, a transparent colour and a palette with alpha."""
    palette = image.palette if image.mode == "P" else None
    has_alpha = image.mode in _MODES_WITH_ALPHA or (palette is not None and palette.mode.endswith("A"))
    return has_alpha or "transparency" in image.info


@contextlib.contextmanager
def _opened(file: IO[bytes], name: str) -> "Iterator[Tuple[PIL.Image.Image, List[warnings.WarningMessage]]]":
    """Yield an image that is not yet decoded, and what is said of it meanwhile."""
    import PIL.Image

    logging.getLogger("PIL").addHandler(_SILENT)  # else Python prints what it logs
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", UserWarning)
            # A file that claims more than 90 million pixels: Pillow only warns, and would then decode it.
            warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
            # Not the path: Pillow 13 would map a TIFF that lies on its side as if it stood upright.
            with PIL.Image.open(file, formats=_FORMATS) as image:
                yield image, said
    except ImageError:
        raise
    except PIL.UnidentifiedImageError as error:
        got = f"it is none of {', '.join(_FORMATS)}"
        raise ImageError(f"cannot read {name}: {got}; get the file again") from error
    except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning) as error:
        # How many they are stands in Pillow's words alone.
        found, most = re.search("[0-9]+", str(error)), PIL.Image.MAX_IMAGE_PIXELS or 0
        got = f"{int(found.group()):,}" if found else "more"
        raise ImageError(f"{name}: has {got} pixels, expected at most {most:,}; shrink it or leave it out") from error
    except _OF_DECODERS as error:
        raise ImageError(f"cannot read {name}: {reason_of(error)}; get the file again") from error
