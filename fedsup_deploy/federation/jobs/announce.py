"""`Announce`: what a client has, in numbers. It is asked once, before a federation is made of those that answer.

Shapes: K classes.
"""

import dataclasses
from typing import ClassVar

import numpy as np

from fedsup_deploy import files
from fedsup_deploy.federation.client import HELD_OUT, IMAGES, TESTED, TRAINED, Client
from fedsup_deploy.federation.encoding import WireHistogram, WireInt


@dataclasses.dataclass(frozen=True, eq=False)
class Announcement:
    """The answer.

    Args:
        classes: Names of the classes, in the order of the labels.
        trained_K: Images of each class that it trains on.
        held_out_K: The same of those it evaluates subnets on.
        tested_K: The same of its test images.
        height: Of the images, in pixels.
        width: Of the images, in pixels.
        channels: Of the images.
        pixel_dtype: Type of the pixels.
        resize: How it makes squares of its images; empty where they are used as they are.
        tier: Its class of capability.
        profile: Name of its device profile; empty where it says none.
        fingerprint: SHA-256 of all its images and labels: tells whether they have changed, and nothing else.
    """

    classes: tuple[str, ...]
    trained_K: WireHistogram
    held_out_K: WireHistogram
    tested_K: WireHistogram
    height: WireInt
    width: WireInt
    channels: WireInt
    pixel_dtype: str
    resize: str
    tier: WireInt
    profile: str
    fingerprint: str


@dataclasses.dataclass(frozen=True)
class Announce:
    """Tell how many images of which classes there are."""

    kind: ClassVar[str] = "announce"
    reply: ClassVar[type] = Announcement

    def perform(self, client: Client) -> Announcement:
        """Return the numbers."""
        has = {which: client.images(which) for which in IMAGES if client.has(which)}
        trained = client.images(TRAINED)
        counts = {
            which: np.bincount(has[which].labels_N if which in has else [], minlength=len(trained.classes))
            for which in IMAGES
        }
        height, width, channels = trained.image_shape
        return Announcement(
            trained.classes,
            counts[TRAINED].astype(np.int64),
            counts[HELD_OUT].astype(np.int64),
            counts[TESTED].astype(np.int64),
            height,
            width,
            channels,
            trained.pixel_dtype,
            client.resize or "",
            client.tier,
            client.profile or "",
            files.sha256_of([[which, images.fingerprint()] for which, images in has.items()]),
        )
