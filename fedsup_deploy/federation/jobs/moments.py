"""`CountPixels`: how often a client's images have each value. All clients' together give a mean and a deviation.

Shapes: C channels, V = 256 values.
"""

import dataclasses
from typing import ClassVar

from fedsup_deploy.data.preprocess import histograms
from fedsup_deploy.federation.client import TRAINED, Client
from fedsup_deploy.federation.encoding import WireHistogram, WireInt


@dataclasses.dataclass(frozen=True, eq=False)
class Pixels:
    """The answer.

    Args:
        histogram_CV: For each channel, how many pixels have each value.
        height: Of the images, in pixels.
        width: Of the images, in pixels.
    """

    histogram_CV: WireHistogram
    height: WireInt
    width: WireInt


@dataclasses.dataclass(frozen=True)
class CountPixels:
    """Count the values of the pixels of the images that a client trains on. What it holds out takes no part."""

    kind: ClassVar[str] = "moments"
    reply: ClassVar[type] = Pixels

    def perform(self, client: Client) -> Pixels:
        """Return the counts."""
        images = client.images(TRAINED)
        height, width, _ = images.image_shape
        return Pixels(histograms(images), height, width)
