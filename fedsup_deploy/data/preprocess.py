"""From pixels to what a model takes in: one value that says all a device has to do.

The same value normalises the training images, stands in a bundle's manifest and is carried out on the device: by
`ondevice/preprocessing.py`, here and there. Never looks at labels, never imports torch.

Shape suffixes: N images, H W pixels, C channels, S side of the model's input.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from pydantic import JsonValue

from fedsup_deploy.data.dataset import LabelledImages
from fedsup_deploy.errors import ArtifactError, DataError
from fedsup_deploy.ondevice import preprocessing
from fedsup_deploy.ondevice.preprocessing import PreprocessingSteps

#: Of images that are looked at together; to count them takes eight times as much.
_BYTES_PER_PASS = 2**22


@dataclass(frozen=True)
class Preprocessing:
    """What is done to square uint8 images; `PreprocessingSteps` says it step by step.

    A program that gets images from files or a camera decodes them first, as the training images were decoded if they
    came from an `image-folder` (`ondevice/image_file.py`): turned upright by their EXIF orientation, transparent pixels
    blended with white, 8 bits a channel, grey or RGB, no colour profile applied. Then, where `how` is given, it makes
    them square (`ondevice/source_resize.py`).

    Args:
        mean: Per channel, of pixels divided by 255.
        std: Per channel, of pixels divided by 255; positive.
        native_size: Side of the data set's images, pixels.
        padded_size: Side after padding, pixels; `native_size` means no padding.
        size: Side of the model's input, pixels; `padded_size` means no resizing.
        how: What made the images square of those in files, as of `PreprocessingSteps`.

    Raises:
        DataError: The values contradict each other.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    native_size: int
    padded_size: int
    size: int
    how: str | None = None

    def __post_init__(self) -> None:
        try:
            preprocessing.check_steps(self.steps)
        except ValueError as error:
            raise DataError(str(error)) from error

    @property
    def steps(self) -> PreprocessingSteps:
        """The same value, as what carries it out takes it."""
        return PreprocessingSteps(self.mean, self.std, self.native_size, self.padded_size, self.size, self.how)

    @classmethod
    def fit(cls, train: LabelledImages, padded_size: int, size: int | None = None) -> "Preprocessing":
        """Return the preprocessing of a training set in one place, with its pixel mean and deviation.

        Args:
            train: Square images.
            padded_size: Side to pad smaller images to, pixels. Larger images are not padded but resized to it; so are
                smaller ones if `size` asks for it: `fit(train, 8, size=32)` enlarges 8x8 images without padding.
            size: Side of the model's input, pixels; None means `padded_size`.

        Raises:
            DataError: The images are not square, or a channel has the same value everywhere.
        """
        height, width, _ = train.image_shape
        try:
            return cls.from_histograms(histograms(train), height, width, padded_size, size)
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
            raise DataError(f"images are {width}x{height} pixels, expected square ones; set data.image_size")
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

    def apply(self, images_NHWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return images as (N, C, S, S), float32, C-contiguous; each depends on its own pixels only.

        Raises:
            DataError: The images are not uint8, or their size or channels are not those of this preprocessing.
        """
        try:
            return preprocessing.prepare(images_NHWC, self.steps)
        except ValueError as error:
            raise DataError(str(error)) from error

    def for_size(self, size: int) -> "Preprocessing":
        """Return the same preprocessing for a model whose input has another side, pixels."""
        return replace(self, size=size)

    def to_dict(self) -> dict[str, JsonValue]:
        """Return a JSON document from which a device can do the same without this program."""
        return cast("dict[str, JsonValue]", preprocessing.document_of(self.steps))

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> "Preprocessing":
        """Return what `to_dict` was made from.

        Raises:
            ArtifactError: A key is missing, unknown or holds something else.
        """
        try:
            return cls(*preprocessing.steps_of(document))
        except ValueError as error:
            raise ArtifactError(str(error)) from error


def histograms(images: LabelledImages) -> npt.NDArray[np.int64]:
    """Return for each channel how many pixels have each value, shape (C, 256)."""
    num_channels = images.image_shape[2]
    num_together = max(1, _BYTES_PER_PASS // math.prod(images.image_shape))
    histogram_CV = np.zeros((num_channels, 256), dtype=np.int64)
    for start in range(0, len(images), num_together):
        part = images.pixels(np.arange(start, min(start + num_together, len(images))))
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
