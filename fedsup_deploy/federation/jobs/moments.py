"""`CountPixels`: whole numbers of a client's pixels. All clients' together give a mean and a deviation.

Shapes: C channels, V numbers.
"""

import dataclasses
from typing import ClassVar

from fedsup_deploy.data.pixel_counts import count_pixels
from fedsup_deploy.federation.client import TRAINED, Client
from fedsup_deploy.federation.encoding import WireHistogram, WireInt
from fedsup_deploy.ondevice.preprocessing import USUAL_PIXELS


@dataclasses.dataclass(frozen=True, eq=False)
class Pixels:
    """The answer.

    Args:
        histogram_CV: For each channel, how many pixels have each value; of other types than uint8 what `pixel_counts`
            says of each exponent.
        height: Of the images, in pixels.
        width: Of the images, in pixels.
        pixel_dtype: Type of the pixels.
    """

    histogram_CV: WireHistogram
    height: WireInt
    width: WireInt
    pixel_dtype: str = USUAL_PIXELS


@dataclasses.dataclass(frozen=True)
class CountPixels:
    """Count the pixels of the images that a client trains on. What it holds out takes no part."""

    kind: ClassVar[str] = "moments"
    reply: ClassVar[type] = Pixels

    def perform(self, client: Client) -> Pixels:
        """Return the counts."""
        images = client.images(TRAINED)
        height, width, _ = images.image_shape
        return Pixels(count_pixels(images), height, width, images.pixel_dtype)
