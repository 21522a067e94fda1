"""From pixels to what a model takes in: one value that says all a device has to do.

The same value normalises the training images, stands in a bundle's manifest and is carried out on the device: by
`ondevice/preprocessing.py`, here and there. Never looks at labels, never imports torch.

Shape suffixes: N images, H W pixels, C channels, S side of the model's input.
"""

from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from pydantic import JsonValue

from fedsup_deploy.data import pixel_counts
from fedsup_deploy.data.dataset import LabelledImages
from fedsup_deploy.data.pixel_counts import Counts
from fedsup_deploy.errors import ArtifactError, DataError
from fedsup_deploy.ondevice import preprocessing
from fedsup_deploy.ondevice.preprocessing import PIXEL_MAX, USUAL_PIXELS, PreprocessingSteps
from fedsup_deploy.ondevice.records import AnyPixels

#: Of pixels: what is divided by less is no longer a number of float32.
_LEAST_DEVIATION = 1e-15


@dataclass(frozen=True)
class Preprocessing:
    """What is done to square images; `PreprocessingSteps` says it step by step.

    A program that gets images from files or a camera decodes them first, as the training images were decoded if they
    came from an `image-folder` (`ondevice/image_file.py`): turned upright by their EXIF orientation, transparent pixels
    blended with white, 8 bits a channel, grey or RGB, no colour profile applied. Then, where `how` is given, it makes
    them square (`ondevice/source_resize.py`).

    Args:
        mean: Per channel, of pixels divided by what `PIXEL_MAX` says of their type.
        std: Per channel, of pixels so divided; positive.
        native_size: Side of the data set's images, pixels.
        padded_size: Side after padding, pixels; `native_size` means no padding.
        size: Side of the model's input, pixels; `padded_size` means no resizing.
        how: What made the images square of those in files, as of `PreprocessingSteps`.
        pixel_dtype: Type of the pixels, as of `PreprocessingSteps`.

    Raises:
        DataError: The values contradict each other.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    native_size: int
    padded_size: int
    size: int
    how: str | None = None
    pixel_dtype: str = USUAL_PIXELS

    def __post_init__(self) -> None:
        try:
            preprocessing.check_steps(self.steps)
        except ValueError as error:
            raise DataError(str(error)) from error

    @property
    def steps(self) -> PreprocessingSteps:
        """The same value, as what carries it out takes it."""
        sizes = (self.native_size, self.padded_size, self.size)
        return PreprocessingSteps(self.mean, self.std, *sizes, self.how, self.pixel_dtype)

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
        counts_CV = pixel_counts.count_pixels(train)
        try:
            return cls.from_counts(counts_CV, height, width, padded_size, size, train.pixel_dtype)
        except DataError as error:
            raise DataError(f"{train.name}: {error}") from error

    @classmethod
    def from_counts(
        cls,
        counts_CV: Counts,
        height: int,
        width: int,
        padded_size: int,
        size: int | None = None,
        pixel_dtype: str = USUAL_PIXELS,
    ) -> "Preprocessing":
        """Return the preprocessing for images of which the pixels were counted, wherever they are.

        Args:
            counts_CV: Of `pixel_counts`. They add up exactly, so the mean and the deviation (biased, before padding)
                depend neither on an order nor on who holds which image.
            height: Of the images, pixels.
            width: Of the images, pixels.
            padded_size: As of `fit`.
            size: As of `fit`.
            pixel_dtype: Type of the pixels.

        Raises:
            DataError: The images are not square, or a channel has the same value everywhere.
        """
        if height != width:
            advice = "set data.image_size" if pixel_dtype == USUAL_PIXELS else "crop them before they are saved"
            raise DataError(f"images are {width}x{height} pixels, expected square ones; {advice}")
        pixel_max = PIXEL_MAX[pixel_dtype]
        moments = [pixel_counts.sums_of(counts_V, pixel_dtype).moments(pixel_max) for counts_V in counts_CV]
        for channel, (_, std) in enumerate(moments):
            if std == 0.0:
                raise DataError(f"channel {channel} has one value everywhere; drop it or check the images")
            if std < _LEAST_DEVIATION:
                raise DataError(f"channel {channel} has a deviation of {std:.2g}, expected more; scale its values up")
        means, stds = tuple(mean for mean, _ in moments), tuple(std for _, std in moments)
        size = padded_size if size is None else size
        return cls(means, stds, height, max(height, padded_size), size, pixel_dtype=pixel_dtype)

    @property
    def fill(self) -> tuple[float, ...]:
        """What the pixels become that are added around an image, per channel."""
        parts = zip(self.steps.padding, self.mean, self.std, strict=True)
        return tuple((value - mean) / std for value, mean, std in parts)

    def apply(self, images_NHWC: AnyPixels) -> npt.NDArray[np.float32]:
        """Return images as (N, C, S, S), float32, C-contiguous; each depends on its own pixels only.

        Raises:
            DataError: The images' type, size or channels are not those of this preprocessing, or a pixel is not finite.
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
