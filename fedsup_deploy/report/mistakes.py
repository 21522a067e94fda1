"""Images that a bundle answers wrongly, as a page shows them: small, few, the surest answers first.

An image is shown only where the server has it of its own: those of clients never come here.
"""

import base64
import dataclasses
import struct
import zlib
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from fedsup_deploy.ondevice.preprocessing import PIXEL_MAX
from fedsup_deploy.ondevice.records import AnyPixels

#: Images that are shown of one model.
MOST_SHOWN: Final = 12
#: Side of what is shown, pixels; larger images are made smaller.
MOST_SIDE: Final = 48
#: Of all images of a page; of many models fewer images each are shown.
MOST_BYTES: Final = 250_000
_COLOURS: Final = 3
_PNG_GREY, _PNG_RGB = 0, 2


@dataclasses.dataclass(frozen=True)
class Mistake:
    """An image, and what was said of it.

    Args:
        png: The image, small.
        truth: Its class.
        said: The class that was answered.
        confidence: Softmax of that answer.
    """

    png: bytes
    truth: str
    said: str
    confidence: float

    @property
    def source(self) -> str:
        """The image as an address that holds it."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


@dataclasses.dataclass(frozen=True)
class Mistakes:
    """What a model answers wrongly.

    Args:
        shown: Some of it, the surest answers first.
        num_wrong: How many images.
        num_images: Of how many.
        of: Which images.
    """

    shown: tuple[Mistake, ...]
    num_wrong: int
    num_images: int
    of: str

    def within(self, most_bytes: int) -> "Mistakes":
        """Return the first ones that so many bytes have room for."""
        sizes = np.cumsum([len(each.png) for each in self.shown])
        return dataclasses.replace(self, shown=self.shown[: int((sizes <= most_bytes).sum())])


def surest_first(logits_NK: npt.NDArray[np.float32], labels_N: npt.NDArray[np.int64]) -> list[tuple[int, float]]:
    """Return the images that are answered wrongly and the softmax of that answer, the surest first, then the first."""
    shifted_NK = logits_NK.astype(np.float64) - logits_NK.max(axis=1, keepdims=True)
    confidence_N = 1 / np.exp(shifted_NK).sum(axis=1)
    wrong = np.flatnonzero(logits_NK.argmax(axis=1) != labels_N)
    order = wrong[np.argsort(-confidence_N[wrong], kind="stable")]
    return [(int(index), float(confidence_N[index])) for index in order]


def thumbnail(image_HWC: AnyPixels) -> bytes:
    """Return an image as a small PNG: three channels as colours, of others the first as grey.

    Args:
        image_HWC: Pixels of a type in `preprocessing.PIXEL_MAX`; those of float32 from their lowest to their highest.
    """
    channels = _COLOURS if image_HWC.shape[2] == _COLOURS else 1
    pixels_HWC = image_HWC[:, :, :channels].astype(np.float64)
    if image_HWC.dtype.name == "float32":
        low, high = float(pixels_HWC.min()), float(pixels_HWC.max())
        pixels_HWC = (pixels_HWC - low) / (high - low) if high > low else np.zeros_like(pixels_HWC)
    else:
        pixels_HWC /= PIXEL_MAX[image_HWC.dtype.name]
    return _png((255 * _smaller(pixels_HWC)).round().astype(np.uint8))


def _smaller(pixels_HWC: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the means of equal squares, of which there are at most `MOST_SIDE` a side; a rest is cut off."""
    height, width, channels = pixels_HWC.shape
    step = -(-max(height, width) // MOST_SIDE)
    rows, columns = max(1, height // step), max(1, width // step)
    cut_HWC = pixels_HWC[: rows * step, : columns * step]
    means_HWC: npt.NDArray[np.float64] = cut_HWC.reshape(rows, step, columns, step, channels).mean(axis=(1, 3))
    return means_HWC


def _png(pixels_HWC: npt.NDArray[np.uint8]) -> bytes:
    height, width, channels = pixels_HWC.shape
    kind = _PNG_RGB if channels == _COLOURS else _PNG_GREY
    lines = b"".join(b"\0" + line.tobytes() for line in pixels_HWC)  # 0: no filter
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)),
        (b"IDAT", zlib.compress(lines, 9)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in parts
    )


def bounded(found: Sequence[Mistakes]) -> list[Mistakes]:
    """Return what several models answer wrongly within `MOST_BYTES`, the same share for each."""
    return [each.within(MOST_BYTES // len(found)) for each in found]
