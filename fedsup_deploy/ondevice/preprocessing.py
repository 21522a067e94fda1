"""From decoded pixels to what a model takes in: the document that says how, and doing it.

Training images and those that a device classifies are prepared here, so both mean the same. How image files become
pixels is in `image_file.py`, how these become square in `source_resize.py`. Works with NumPy 1.16 as with the newest.

Shape suffixes: N images, H W pixels, C channels, S side of the model's input.
"""

import math
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Dict, NamedTuple, Optional, Tuple

from fedsup_deploy.ondevice.source_resize import HOW, SourceResize, document_of_resize, resize_of

if TYPE_CHECKING:
    from fedsup_deploy.ondevice.records import AnyPixels, Floats32

#: Types of pixels -> what they are divided by. Numbers of float32 have a unit of their own, and stay as they are.
PIXEL_MAX = MappingProxyType({"uint8": 255, "uint16": 65535, "float32": 1})
#: Of pixels in files of pictures; what documents say nothing of.
USUAL_PIXELS = "uint8"
#: Of a pixel in float32: beyond it are marks for "no value", which files of measurements have.
MOST_VALUE = 1e15
#: What nothing can be computed with.
UNUSABLE = f"has a pixel that is NaN, infinite or beyond {MOST_VALUE:g}"
# What the added pixels of integers are, after the division: black. Nothing is known of what 0 means in float32.
_BLACK = 0.0
#: Key of a document: of images of any size only, how they are made square. Without it they must have the native size.
SOURCE = "source_resize"
#: Key of a document: which type its pixels have; only where they are not the usual ones.
PIXEL_DTYPE = "pixel_dtype"


class PreprocessingSteps(NamedTuple):
    """What is done to square images, in this order.

    1. Divide by what `PIXEL_MAX` says of `pixel_dtype`.
    2. Pad from `native_size` to `padded_size`, evenly; an odd row goes below, an odd column right. The value is 0
       (black), in float32 the mean of each channel.
    3. Resize from `padded_size` to `size`: bilinear, half-pixel centres, no antialiasing, edges repeated.
    4. Per channel, subtract `mean` and divide by `std`.

    Args:
        mean: Per channel, of pixels so divided.
        std: Per channel, of pixels so divided; positive.
        native_size: Side of the images, pixels.
        padded_size: Side after padding, pixels; `native_size` means no padding.
        size: Side of the model's input, pixels; `padded_size` means no resizing.
        how: What made the images square of those in files, of any size, before all this, one of `source_resize.HOW`;
            None where they have `native_size` as they are.
        pixel_dtype: Type of the pixels, one of `PIXEL_MAX`. Only uint8 ones can be made square.
    """

    mean: Tuple[float, ...]
    std: Tuple[float, ...]
    native_size: int
    padded_size: int
    size: int
    how: Optional[str] = None
    pixel_dtype: str = USUAL_PIXELS

    @property
    def padding(self) -> Tuple[float, ...]:
        """What added pixels are, per channel, after the division."""
        return self.mean if self.pixel_dtype == "float32" else (_BLACK,) * len(self.mean)

    @property
    def source(self) -> Optional[SourceResize]:
        """What makes them square; None where files must have `native_size`."""
        return None if self.how is None else SourceResize(self.native_size, self.how)


def check_steps(steps: PreprocessingSteps) -> None:
    """Refuse values that contradict each other.

    Raises:
        ValueError: They do.
    """
    if not 1 <= steps.native_size <= steps.padded_size or steps.size < 1:
        got = f"native_size {steps.native_size}, padded_size {steps.padded_size}, size {steps.size}"
        raise ValueError(f"preprocessing: got {got}, expected 1 <= native_size <= padded_size and size >= 1")
    if steps.how is not None and steps.how not in HOW:
        raise ValueError(f"preprocessing: got source_resize {steps.how!r}, expected one of {', '.join(HOW)}")
    if steps.pixel_dtype not in PIXEL_MAX:
        raise ValueError(f"preprocessing: got {PIXEL_DTYPE} {steps.pixel_dtype!r}, expected {', '.join(PIXEL_MAX)}")
    if steps.how is not None and steps.pixel_dtype != USUAL_PIXELS:
        raise ValueError(f"preprocessing: got source_resize for {steps.pixel_dtype}, expected {USUAL_PIXELS}")
    are_finite = all(math.isfinite(value) for value in (*steps.mean, *steps.std))
    if not steps.mean or len(steps.mean) != len(steps.std) or not are_finite or min(steps.std) <= 0.0:
        got = f"mean {steps.mean}, std {steps.std}"
        raise ValueError(f"preprocessing: got {got}, expected as many finite means as positive finite deviations")


def first_unusable(images_NHWC: "AnyPixels") -> Optional[int]:
    """Return the index of the first image that `UNUSABLE` holds of; None: of no image."""
    if images_NHWC.dtype.kind != "f" or not images_NHWC.size or _is_usable(images_NHWC):
        return None
    return next(index for index in range(len(images_NHWC)) if not _is_usable(images_NHWC[index]))


def _is_usable(pixels: "AnyPixels") -> bool:
    # NaN is in no range. No array of answers: there may be no room for one.
    return float(pixels.min()) >= -MOST_VALUE and float(pixels.max()) <= MOST_VALUE


def prepare(images_NHWC: "AnyPixels", steps: PreprocessingSteps) -> "Floats32":
    """Return images as (N, C, S, S), float32, C-contiguous; each depends on its own pixels only.

    Raises:
        ValueError: The images' type, size or channels are not those of the steps, or a pixel is not finite.
    """
    import numpy

    expected = (steps.native_size, steps.native_size, len(steps.mean))
    is_of_type = images_NHWC.dtype == numpy.dtype(steps.pixel_dtype)
    if not is_of_type or images_NHWC.ndim != 4 or images_NHWC.shape[1:] != expected:
        got = f"{images_NHWC.dtype} images of shape {images_NHWC.shape}"
        raise ValueError(f"preprocessing: got {got}, expected {steps.pixel_dtype} of shape {('N', *expected)}")
    unusable = first_unusable(images_NHWC)
    if unusable is not None:
        raise ValueError(f"preprocessing: image {unusable} {UNUSABLE}")
    most = numpy.float32(PIXEL_MAX[steps.pixel_dtype])
    x_NCHW = numpy.divide(images_NHWC.transpose(0, 3, 1, 2), most, dtype=numpy.float32, order="C")
    before, _ = _margins(steps)
    if steps.padded_size > steps.native_size:
        inner_NCHW, end = x_NCHW, before + steps.native_size
        x_NCHW = numpy.empty(inner_NCHW.shape[:2] + (steps.padded_size,) * 2, dtype=numpy.float32)
        x_NCHW[:] = numpy.array(steps.padding, dtype=numpy.float32)[:, numpy.newaxis, numpy.newaxis]
        x_NCHW[:, :, before:end, before:end] = inner_NCHW
    if steps.size != steps.padded_size:
        weights = _bilinear_weights(steps.padded_size, steps.size)
        x_NCHW = weights @ x_NCHW @ weights.T
    x_NCHW -= numpy.array(steps.mean, dtype=numpy.float32)[:, numpy.newaxis, numpy.newaxis]
    x_NCHW /= numpy.array(steps.std, dtype=numpy.float32)[:, numpy.newaxis, numpy.newaxis]
    return x_NCHW


def document_of(steps: PreprocessingSteps) -> Dict[str, object]:
    """Return a JSON document from which anybody can do the same without this program."""
    before, after = _margins(steps)
    value = list(steps.padding) if steps.pixel_dtype == "float32" else _BLACK
    return {
        "mean": list(steps.mean),
        "std": list(steps.std),
        "native_size": steps.native_size,
        "padded_size": steps.padded_size,
        "size": steps.size,
        "padding": {"top": before, "bottom": after, "left": before, "right": after, "value": value},
        **_fixed(steps.pixel_dtype),
        **({} if steps.pixel_dtype == USUAL_PIXELS else {PIXEL_DTYPE: steps.pixel_dtype}),
        **({} if steps.source is None else {SOURCE: document_of_resize(steps.source)}),
    }


def steps_of(document: Dict[str, Any]) -> PreprocessingSteps:
    """Return what `document_of` was made from.

    Raises:
        ValueError: A key is missing, unknown or holds something else.
    """
    pixel_dtype = document.get(PIXEL_DTYPE, USUAL_PIXELS)
    if not (isinstance(pixel_dtype, str) and pixel_dtype in PIXEL_MAX):
        raise ValueError(f"preprocessing: {PIXEL_DTYPE} is {pixel_dtype!r}, expected one of {', '.join(PIXEL_MAX)}")
    fixed = _fixed(pixel_dtype)
    keys = {"mean", "std", "native_size", "padded_size", "size", "padding", *fixed}
    if document.keys() - {SOURCE, PIXEL_DTYPE} != keys:
        wrong = ", ".join(sorted((document.keys() - {SOURCE, PIXEL_DTYPE}) ^ keys))
        raise ValueError(f"preprocessing: missing or unknown {wrong}; the document is not whole")
    for key, value in fixed.items():
        if document[key] != value:
            raise ValueError(f"preprocessing: {key} is {document[key]!r}, expected {value!r}")
    _check_numbers(document)
    try:
        mean, std = (tuple(map(float, document[key])) for key in ("mean", "std"))
        native_size, padded_size, size = (document[key] for key in ("native_size", "padded_size", "size"))
        source = resize_of(document[SOURCE]) if SOURCE in document else None
        steps = PreprocessingSteps(mean, std, native_size, padded_size, size, source and source.how, pixel_dtype)
        check_steps(steps)
    except (OverflowError, ValueError) as error:
        raise ValueError(f"preprocessing: the document holds no valid values: {error}") from error
    if source is not None and source.size != native_size:
        raise ValueError(f"preprocessing: source_resize makes {source.size} pixels, not native_size")
    expected = document_of(steps)["padding"]
    if document["padding"] != expected:
        raise ValueError(f"preprocessing: padding is {document['padding']!r}, expected {expected!r}")
    return steps


def _check_numbers(document: Dict[str, Any]) -> None:
    for key in ("native_size", "padded_size", "size"):
        if type(document[key]) is not int:
            raise ValueError(f"preprocessing: {key} is {document[key]!r}, expected a whole number")
    for key in ("mean", "std"):
        values = document[key]
        if not isinstance(values, (list, tuple)) or not all(map(_is_number, values)):
            raise ValueError(f"preprocessing: {key} is {values!r}, expected a list of numbers")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _fixed(pixel_dtype: str) -> Dict[str, object]:
    """Return what holds for all steps of a type of pixels, and which whoever reads the document still has to know."""
    return {
        "layout": "NCHW",
        "dtype": "float32",
        "pixel_max": PIXEL_MAX[pixel_dtype],
        "interpolation": "bilinear, half-pixel centers, no antialiasing, edges repeated",
        "order": "divide by pixel_max, pad, resize to size, subtract mean, divide by std",
    }


def _margins(steps: PreprocessingSteps) -> Tuple[int, int]:
    """Return how many rows are added above and below, and columns on the left and right."""
    before = (steps.padded_size - steps.native_size) // 2
    return before, steps.padded_size - steps.native_size - before


def _bilinear_weights(num_in: int, num_out: int) -> "Floats32":
    """Return the (num_out, num_in) matrix that resizes one axis, as torch's `interpolate` with align_corners=False.

    Positions are in float64. Torch has them in the image's type; in float32 that moves a pixel by up to 1e-5.
    """
    import numpy

    centers = numpy.maximum((numpy.arange(num_out) + 0.5) * num_in / num_out - 0.5, 0.0)
    left = numpy.minimum(centers.astype(numpy.int64), num_in - 1)
    right = numpy.minimum(left + 1, num_in - 1)
    fraction = centers - left
    rows = numpy.arange(num_out)
    weights = numpy.zeros((num_out, num_in))
    numpy.add.at(weights, (rows, left), 1.0 - fraction)
    numpy.add.at(weights, (rows, right), fraction)
    return weights.astype(numpy.float32)
