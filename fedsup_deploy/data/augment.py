"""Random variants of training images, in the model's own input space. Never seeds anything.

Shape suffixes: N images, C channels, H W pixels.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedsup_deploy.errors import ConfigError


@dataclass(frozen=True)
class Augmentation:
    """Shift each image by a random number of pixels, and mirror half of them left to right. Off by default.

    Args:
        crop_padding: Largest shift in either direction, pixels; 0 shifts nothing.
        flip: Whether to mirror.
        fill: What is shifted in, per channel, or one value for all: `Preprocessing.fill`.

    Raises:
        ConfigError: `crop_padding` is negative.
    """

    crop_padding: int = 0
    flip: bool = False
    fill: tuple[float, ...] = (0.0,)

    def __post_init__(self) -> None:
        if self.crop_padding < 0:
            raise ConfigError(f"augmentation: got crop_padding {self.crop_padding}, expected 0 or more")

    def apply(self, x_NCHW: npt.NDArray[np.float32], generator: np.random.Generator) -> npt.NDArray[np.float32]:
        """Return the images, each shifted and mirrored on its own; `x_NCHW` itself where both are off.

        Args:
            x_NCHW: Preprocessed images; not changed.
            generator: Drawn from only for what is on.

        Raises:
            ConfigError: `fill` has neither one value nor one per channel.
        """
        if self.crop_padding == 0 and not self.flip:
            return x_NCHW
        num_images, num_channels, height, width = x_NCHW.shape
        rows_NH = np.broadcast_to(np.arange(height), (num_images, height))
        columns_NW = np.broadcast_to(np.arange(width), (num_images, width))
        if self.crop_padding:
            x_NCHW = self._padded(x_NCHW)
            shifts = generator.integers(0, 2 * self.crop_padding, size=(2, num_images, 1), endpoint=True)
            rows_NH, columns_NW = rows_NH + shifts[0], columns_NW + shifts[1]
        if self.flip:
            is_flipped = generator.random((num_images, 1)) < 0.5
            columns_NW = np.where(is_flipped, columns_NW[:, ::-1], columns_NW)
        images = np.arange(num_images)[:, np.newaxis, np.newaxis, np.newaxis]
        channels = np.arange(num_channels)[:, np.newaxis, np.newaxis]
        return x_NCHW[images, channels, rows_NH[:, np.newaxis, :, np.newaxis], columns_NW[:, np.newaxis, np.newaxis]]

    def _padded(self, x_NCHW: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        num_images, num_channels, height, width = x_NCHW.shape
        if len(self.fill) not in (1, num_channels):
            raise ConfigError(f"augmentation: got {len(self.fill)} fill values, expected 1 or {num_channels}")
        pad = self.crop_padding
        padded = np.empty((num_images, num_channels, height + 2 * pad, width + 2 * pad), dtype=np.float32)
        padded[:] = np.array(self.fill, dtype=np.float32)[:, np.newaxis, np.newaxis]
        padded[:, :, pad:-pad, pad:-pad] = x_NCHW
        return padded
