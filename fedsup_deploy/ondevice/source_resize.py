"""A photograph of any size becomes a square of one size: cut, scaled, with bars if wanted; the document that says how.

Training images and those that a device classifies are resized here, so both mean the same: with Pillow's bilinear
filter, which is antialiased, in integers, so that every Pillow from 8.1 to the newest makes the same bytes of the same
pixels. Another program can make them from the document alone.

Shape suffixes: H W pixels as decoded, N side of the square, C channels.
"""

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Dict, NamedTuple, Tuple

if TYPE_CHECKING:
    from fedsup_deploy.ondevice.records import Pixels

# How -> which part of an image of w x h pixels becomes which part of the square of n x n, in words of a document. All
# divisions without a remainder, `//`, round down.
_PLACE_OF = MappingProxyType(
    {
        "crop": (
            "with s = min(w, h): cut out s columns from column (w - s) // 2 on and s rows from row (h - s) // 2 on, "
            "and scale these s x s pixels to n x n; pixels outside take no part"
        ),
        "pad": (
            "with m = max(w, h): scale all of the image to c = max(1, (2 * w * n + m) // (2 * m)) columns and "
            "r = max(1, (2 * h * n + m) // (2 * m)) rows, and put these on n x n pixels of value 0 (black) from column "
            "(n - c) // 2 and row (n - r) // 2 on"
        ),
        "stretch": "scale all of the image to n x n, whatever its shape",
    }
)
# As Pillow has numbered it from the first release to the newest, which differ in the name.
_BILINEAR = 2
#: Ways of making a square of an image.
HOW = tuple(_PLACE_OF)
# What whoever reads the document has to know as well: what Pillow's `Image.resize(..., BILINEAR)` does.
_RULES = MappingProxyType(
    {
        "applies_to": (
            "decoded pixels of w x h, uint8, upright, before anything else is done; n is size; columns and rows count "
            "from 0, left and top"
        ),
        "filter": (
            "triangle, antialiased; to scale an axis of a pixels to b: with f = max(a / b, 1) and, for output i, "
            "p = (i + 0.5) * (a / b), input j from max(0, floor(p - f + 0.5)) up to but not including "
            "min(a, floor(p + f + 0.5)) has the weight max(0, 1 - abs(j + 0.5 - p) / f), divided by the sum of the "
            "weights of output i, in 64-bit floating point, and rounded to the nearest multiple of 2**-22"
        ),
        "rounding": (
            "first each row is scaled to the new columns, then each column to the new rows; the other way round if "
            "what is scaled has more rows than columns; the sums of either step are exact, and rounded to the nearest "
            "of 0..255, half up (uint8)"
        ),
    }
)


class SourceResize(NamedTuple):
    """What makes a square of an image of any size.

    Args:
        size: Side of the square, pixels.
        how: One of `HOW`: `crop`, `pad` or `stretch`.
    """

    size: int
    how: str


def resized(pixels: "Pixels", resize: SourceResize) -> "Pixels":
    """Return an image as a square; each of its channels depends on itself only.

    Args:
        pixels: (H, W) or (H, W, C), uint8.
        resize: What is done.

    Returns:
        (N, N) or (N, N, C), uint8.
    """
    import numpy

    columns, rows, box = _geometry(pixels.shape[1], pixels.shape[0], resize)
    left, top, right, bottom = box
    scaled = _scaled(pixels[top:bottom, left:right], columns, rows)
    if columns == rows == resize.size:
        return scaled
    square = numpy.zeros((resize.size, resize.size, *pixels.shape[2:]), dtype=numpy.uint8)
    left, top = (resize.size - columns) // 2, (resize.size - rows) // 2
    square[top : top + rows, left : left + columns] = scaled
    return square


def scale_of(width: int, height: int, resize: SourceResize) -> Tuple[float, float]:
    """Return how many pixels of an image become one of the square, along the axis where they are fewest and most."""
    columns, rows, (left, top, right, bottom) = _geometry(width, height, resize)
    return min((right - left) / columns, (bottom - top) / rows), max((right - left) / columns, (bottom - top) / rows)


def document_of_resize(resize: SourceResize) -> Dict[str, object]:
    """Return a JSON document from which anybody can do the same without this program."""
    return {"how": resize.how, "size": resize.size, "place": _PLACE_OF[resize.how], **_RULES}


def resize_of(document: Any) -> SourceResize:
    """Return what `document_of_resize` was made from.

    Raises:
        ValueError: A key is missing, unknown or holds something else.
    """
    how, size = (document.get("how"), document.get("size")) if isinstance(document, dict) else (None, None)
    if not (isinstance(how, str) and how in HOW) or type(size) is not int or size < 1:
        raise ValueError(f"source_resize has how {how!r} and size {size!r}")
    resize = SourceResize(size, how)
    expected = document_of_resize(resize)
    if document != expected:
        wrong = sorted(key for key in {*document, *expected} if document.get(key) != expected.get(key))
        raise ValueError(f"source_resize: missing, unknown or other {', '.join(map(str, wrong))}")
    return resize


def _geometry(width: int, height: int, resize: SourceResize) -> Tuple[int, int, Tuple[int, int, int, int]]:
    """Return the columns and rows that an image is scaled to, and which box of it: left, top, right, bottom."""
    size = resize.size
    if resize.how == "crop":
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        return size, size, (left, top, left + side, top + side)
    if resize.how == "pad":
        longer = max(width, height)
        columns, rows = (max(1, (2 * side * size + longer) // (2 * longer)) for side in (width, height))
        return columns, rows, (0, 0, width, height)
    return size, size, (0, 0, width, height)


def _scaled(pixels: "Pixels", columns: int, rows: int) -> "Pixels":
    import numpy
    import PIL.Image

    if pixels.shape[:2] == (rows, columns):
        return pixels
    if pixels.ndim == 2 or pixels.shape[2] == 3:
        image = PIL.Image.fromarray(numpy.ascontiguousarray(pixels))
        # One axis after the other: which comes first if both are asked for depends on the release of Pillow. The longer
        # one, for a thread of a million pixels would fill the memory if it were made wide first.
        width, height = image.size
        for size in ((columns, height) if width >= height else (width, rows), (columns, rows)):
            image = image.resize(size, _BILINEAR)
        return numpy.asarray(image)
    # Pillow would take a fourth channel for transparency, and blend the others by it.
    return numpy.stack([_scaled(pixels[..., channel], columns, rows) for channel in range(pixels.shape[2])], axis=2)
