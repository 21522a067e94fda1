"""From pixels to what a model takes in: one value that says all a device has to do, and doing it.

The same value normalises the training images, stands in a bundle's manifest and is carried out on the device. Never
looks at labels, never imports torch.

Shape suffixes: N images, H W pixels, C channels, S side of the model's input.
"""

import math
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import JsonValue

from fedsup_deploy.data.dataset import ImageDataset
from fedsup_deploy.errors import ArtifactError, DataError

_IMAGES_PER_PASS = 4096
# What the added pixels are, after the division by 255: black.
_PADDING_VALUE = 0.0
# What holds for every Preprocessing, and which whoever reads the document still has to know.
_FIXED = MappingProxyType(
    {
        "layout": "NCHW",
        "dtype": "float32",
        "pixel_max": 255,
        "interpolation": "bilinear, half-pixel centers, no antialiasing, edges repeated",
        "order": "divide by pixel_max, pad, resize to size, subtract mean, divide by std",
    }
)


@dataclass(frozen=True)
class Preprocessing:
    """What is done to square uint8 images, in this order.

    1. Divide by 255.
    2. Pad with zeros (black) from `native_size` to `padded_size`, evenly; an odd row goes below, an odd column right.
    3. Resize from `padded_size` to `size`: bilinear, half-pixel centres, no antialiasing, edges repeated.
    4. Per channel, subtract `mean` and divide by `std`.

    A program that gets images from files or a camera decodes them first, as the training images were decoded if they
    came from an `image-folder` (see `image_file`): turned upright by their EXIF orientation, transparent pixels blended
    with white, 8 bits a channel, grey or RGB, no colour profile applied.

    Args:
        mean: Per channel, of pixels divided by 255.
        std: Per channel, of pixels divided by 255; positive.
        native_size: Side of the data set's images, pixels.
        padded_size: Side after padding, pixels; `native_size` means no padding.
        size: Side of the model's input, pixels; `padded_size` means no resizing.

    Raises:
        DataError: The values contradict each other.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    native_size: int
    padded_size: int
    size: int

    def __post_init__(self) -> None:
        if not 1 <= self.native_size <= self.padded_size or self.size < 1:
            got = f"native_size {self.native_size}, padded_size {self.padded_size}, size {self.size}"
            raise DataError(f"preprocessing: got {got}, expected 1 <= native_size <= padded_size and size >= 1")
        are_finite = all(math.isfinite(value) for value in (*self.mean, *self.std))
        if not self.mean or len(self.mean) != len(self.std) or not are_finite or min(self.std) <= 0.0:
            got = f"mean {self.mean}, std {self.std}"
            raise DataError(f"preprocessing: got {got}, expected as many finite means as positive finite deviations")

    @classmethod
    def fit(cls, train: ImageDataset, padded_size: int, size: int | None = None) -> "Preprocessing":
        """Return the preprocessing of a training set in one place, with its pixel mean and deviation.

        Args:
            train: Square images.
            padded_size: Side to pad smaller images to, pixels. Larger images are not padded but resized to it; so are
                smaller ones if `size` asks for it: `fit(train, 8, size=32)` enlarges 8x8 images without padding.
            size: Side of the model's input, pixels; None means `padded_size`.

        Raises:
            DataError: The images are not square, or a channel has the same value everywhere.
        """
        _, height, width, _ = train.images_NHWC.shape
        try:
            return cls.from_histograms(histograms(train.images_NHWC), height, width, padded_size, size)
        except DataError as error:
            raise DataError(f"{train.name}: {error}") from error

    @classmethod
    def from_histograms(
        cls, histogram_CV: npt.NDArray[np.int64], height: int, width: int, padded_size: int, size: int | None = None
    ) -> "Preprocessing":
        """Return the preprocessing for images of which the pixels were counted, wherever they are.

        Args:
            histogram_CV: For each channel how many pixels have each value 0..255. Counts add up exactly, so the mean
                and the deviation (biased, before padding) depend neither on an order nor on who holds which image.
            height: Of the images, pixels.
            width: Of the images, pixels.
            padded_size: As of `fit`.
            size: As of `fit`.

        Raises:
            DataError: The images are not square, or a channel has the same value everywhere.
        """
        if height != width:
            raise DataError(f"images are {width}x{height} pixels, expected square ones; crop them first")
        moments = [_moments(histogram.tolist()) for histogram in histogram_CV]
        for channel, (_, std) in enumerate(moments):
            if std == 0.0:
                raise DataError(f"channel {channel} has one value everywhere; drop it or check the images")
        means, stds = tuple(mean for mean, _ in moments), tuple(std for _, std in moments)
        return cls(means, stds, height, max(height, padded_size), padded_size if size is None else size)

    @property
    def black(self) -> tuple[float, ...]:
        """What a black pixel becomes, per channel."""
        return tuple(-mean / std for mean, std in zip(self.mean, self.std, strict=True))

    @property
    def padding(self) -> dict[str, int]:
        """Rows and columns of pixels that are added on each side."""
        before = (self.padded_size - self.native_size) // 2
        after = self.padded_size - self.native_size - before
        return {"top": before, "bottom": after, "left": before, "right": after}

    def apply(self, images_NHWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return images as (N, C, S, S), float32, C-contiguous; each depends on its own pixels only.

        Raises:
            DataError: The images are not uint8, or their size or channels are not those of this preprocessing.
        """
        expected = (self.native_size, self.native_size, len(self.mean))
        if images_NHWC.dtype != np.uint8 or images_NHWC.ndim != 4 or images_NHWC.shape[1:] != expected:
            got = f"{images_NHWC.dtype} images of shape {images_NHWC.shape}"
            raise DataError(f"preprocessing: got {got}, expected uint8 of shape {('N', *expected)}")
        x_NCHW = np.divide(images_NHWC.transpose(0, 3, 1, 2), np.float32(255), dtype=np.float32, order="C")
        margin = self.padding
        if any(margin.values()):
            rows, columns = (margin["top"], margin["bottom"]), (margin["left"], margin["right"])
            x_NCHW = np.pad(x_NCHW, ((0, 0), (0, 0), rows, columns), constant_values=_PADDING_VALUE)
        if self.size != self.padded_size:
            weights = _bilinear_weights(self.padded_size, self.size)
            x_NCHW = weights @ x_NCHW @ weights.T
        x_NCHW -= np.array(self.mean, dtype=np.float32)[:, np.newaxis, np.newaxis]
        x_NCHW /= np.array(self.std, dtype=np.float32)[:, np.newaxis, np.newaxis]
        return x_NCHW

    def for_size(self, size: int) -> "Preprocessing":
        """Return the same preprocessing for a model whose input has another side, pixels."""
        return replace(self, size=size)

    def to_dict(self) -> dict[str, JsonValue]:
        """Return a JSON document from which a device can do the same without this program."""
        padding = {**self.padding, "value": _PADDING_VALUE}
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std), "padding": padding, **_FIXED}

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> "Preprocessing":
        """Return what `to_dict` was made from.

        Raises:
            ArtifactError: A key is missing, unknown or holds something else.
        """
        keys = {"mean", "std", "native_size", "padded_size", "size", "padding", *_FIXED}
        if document.keys() != keys:
            wrong = ", ".join(sorted(document.keys() ^ keys))
            raise ArtifactError(f"preprocessing: missing or unknown {wrong}; the document is not whole")
        for key, value in _FIXED.items():
            if document[key] != value:
                raise ArtifactError(f"preprocessing: {key} is {document[key]!r}, expected {value!r}")
        try:
            mean, std = (tuple(float(value) for value in document[key]) for key in ("mean", "std"))
            sizes = [int(document[key]) for key in ("native_size", "padded_size", "size")]
            made = cls(mean, std, *sizes)
        except (TypeError, ValueError, DataError) as error:
            raise ArtifactError(f"preprocessing: the document holds no valid values: {error}") from error
        if document["padding"] != (expected := made.to_dict()["padding"]):
            raise ArtifactError(f"preprocessing: padding is {document['padding']!r}, expected {expected!r}")
        return made


def histograms(images_NHWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Return for each channel how many pixels have each value, shape (C, 256)."""
    num_channels = images_NHWC.shape[3]
    histogram_CV = np.zeros((num_channels, 256), dtype=np.int64)
    for start in range(0, len(images_NHWC), _IMAGES_PER_PASS):
        part = images_NHWC[start : start + _IMAGES_PER_PASS]
        for channel in range(num_channels):
            histogram_CV[channel] += np.bincount(part[..., channel].ravel(), minlength=256)
    return histogram_CV


def _moments(histogram: list[int]) -> tuple[float, float]:
    """Return mean and biased deviation of value/255 for counts of the values 0..255."""
    count = sum(histogram)
    total = sum(value * times for value, times in enumerate(histogram))
    squares = sum(value * value * times for value, times in enumerate(histogram))
    # Python integers: the difference loses nothing, whatever the number of pixels.
    return total / (count * 255), math.sqrt(count * squares - total * total) / (count * 255)


def _bilinear_weights(num_in: int, num_out: int) -> npt.NDArray[np.float32]:
    """Return the (num_out, num_in) matrix that resizes one axis, as torch's `interpolate` with align_corners=False.

    Positions are in float64. Torch has them in the image's type; in float32 that moves a pixel by up to 1e-5.
    """
    centers = np.maximum((np.arange(num_out) + 0.5) * num_in / num_out - 0.5, 0.0)
    left = np.minimum(centers.astype(np.int64), num_in - 1)
    right = np.minimum(left + 1, num_in - 1)
    fraction = centers - left
    rows = np.arange(num_out)
    weights = np.zeros((num_out, num_in))
    np.add.at(weights, (rows, left), 1.0 - fraction)
    np.add.at(weights, (rows, right), fraction)
    return weights.astype(np.float32)
