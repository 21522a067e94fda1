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
    from fedsup_deploy.ondevice.records import Floats32, Pixels

# What the added pixels are, after the division by 255: black.
_PADDING_VALUE = 0.0
# What holds for all PreprocessingSteps, and which whoever reads the document still has to know.
_FIXED = MappingProxyType(
    {
        "layout": "NCHW",
        "dtype": "float32",
        "pixel_max": 255,
        "interpolation": "bilinear, half-pixel centers, no antialiasing, edges repeated",
        "order": "divide by pixel_max, pad, resize to size, subtract mean, divide by std",
    }
)
# Of images of any size only. Without it they must have the native size.
_SOURCE = "source_resize"


class PreprocessingSteps(NamedTuple):
    """What is done to square uint8 images, in this order.

    1. Divide by 255.
    2. Pad with zeros (black) from `native_size` to `padded_size`, evenly; an odd row goes below, an odd column right.
    3. Resize from `padded_size` to `size`: bilinear, half-pixel centres, no antialiasing, edges repeated.
    4. Per channel, subtract `mean` and divide by `std`.

    Args:
        mean: Per channel, of pixels divided by 255.
        std: Per channel, of pixels divided by 255; positive.
        native_size: Side of the images, pixels.
        padded_size: Side after padding, pixels; `native_size` means no padding.
        size: Side of the model's input, pixels; `padded_size` means no resizing.
        how: What made the images square of those in files, of any size, before all this, one of `source_resize.HOW`;
            None where they have `native_size` as they are.
    """

    mean: Tuple[float, ...]
    std: Tuple[float, ...]
    native_size: int
    padded_size: int
    size: int
    how: Optional[str] = None

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
    are_finite = all(math.isfinite(value) for value in (*steps.mean, *steps.std))
    if not steps.mean or len(steps.mean) != len(steps.std) or not are_finite or min(steps.std) <= 0.0:
        got = f"mean {steps.mean}, std {steps.std}"
        raise ValueError(f"preprocessing: got {got}, expected as many finite means as positive finite deviations")


def prepare(images_NHWC: "Pixels", steps: PreprocessingSteps) -> "Floats32":
    """Return images as (N, C, S, S), float32, C-contiguous; each depends on its own pixels only.

    Raises:
        ValueError: The images are not uint8, or their size or channels are not those of the steps.
    """
    import numpy

    expected = (steps.native_size, steps.native_size, len(steps.mean))
    if images_NHWC.dtype != numpy.uint8 or images_NHWC.ndim != 4 or images_NHWC.shape[1:] != expected:
        got = f"{images_NHWC.dtype} images of shape {images_NHWC.shape}"
        raise ValueError(f"preprocessing: got {got}, expected uint8 of shape {('N', *expected)}")
    x_NCHW = numpy.divide(images_NHWC.transpose(0, 3, 1, 2), numpy.float32(255), dtype=numpy.float32, order="C")
    before, after = _margins(steps)
    if before or after:
        margins = ((0, 0), (0, 0), (before, after), (before, after))
        x_NCHW = numpy.pad(x_NCHW, margins, mode="constant", constant_values=_PADDING_VALUE)
    if steps.size != steps.padded_size:
        weights = _bilinear_weights(steps.padded_size, steps.size)
        x_NCHW = weights @ x_NCHW @ weights.T
    x_NCHW -= numpy.array(steps.mean, dtype=numpy.float32)[:, numpy.newaxis, numpy.newaxis]
    x_NCHW /= numpy.array(steps.std, dtype=numpy.float32)[:, numpy.newaxis, numpy.newaxis]
    return x_NCHW


def document_of(steps: PreprocessingSteps) -> Dict[str, object]:
    """Return a JSON document from which anybody can do the same without this program."""
    before, after = _margins(steps)
    return {
        "mean": list(steps.mean),
        "std": list(steps.std),
        "native_size": steps.native_size,
        "padded_size": steps.padded_size,
        "size": steps.size,
        "padding": {"top": before, "bottom": after, "left": before, "right": after, "value": _PADDING_VALUE},
        **_FIXED,
        **({} if steps.source is None else {_SOURCE: document_of_resize(steps.source)}),
    }


def steps_of(document: Dict[str, Any]) -> PreprocessingSteps:
    """Return what `document_of` was made from.

    Raises:
        ValueError: A key is missing, unknown or holds something else.
    """
    keys = {"mean", "std", "native_size", "padded_size", "size", "padding", *_FIXED}
    if document.keys() - {_SOURCE} != keys:
        wrong = ", ".join(sorted((document.keys() - {_SOURCE}) ^ keys))
        raise ValueError(f"preprocessing: missing or unknown {wrong}; the document is not whole")
    for key, value in _FIXED.items():
        if document[key] != value:
            raise ValueError(f"preprocessing: {key} is {document[key]!r}, expected {value!r}")
    try:
        mean, std = (tuple(float(value) for value in document[key]) for key in ("mean", "std"))
        native_size, padded_size, size = (int(document[key]) for key in ("native_size", "padded_size", "size"))
        source = resize_of(document[_SOURCE]) if _SOURCE in document else None
        steps = PreprocessingSteps(mean, std, native_size, padded_size, size, source and source.how)
        check_steps(steps)
    except (TypeError, ValueError) as error:
        raise ValueError(f"preprocessing: the document holds no valid values: {error}") from error
    if source is not None and source.size != native_size:
        raise ValueError(f"preprocessing: source_resize makes {source.size} pixels, not native_size")
    expected = document_of(steps)["padding"]
    if document["padding"] != expected:
        raise ValueError(f"preprocessing: padding is {document['padding']!r}, expected {expected!r}")
    return steps


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
