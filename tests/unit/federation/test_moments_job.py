"""`CountPixels`, counted by hand."""

import numpy as np
import pytest

from fedsup_deploy.data.dataset import ImageDataset
from fedsup_deploy.errors import DataError
from fedsup_deploy.federation.client import HELD_OUT, TRAINED, Client
from fedsup_deploy.federation.jobs.moments import CountPixels


def images_of(pixels: list[list[list[list[int]]]]) -> ImageDataset:
    """Return images, one after the other: rows of pixels of channels."""
    pixels_NHWC = np.array(pixels, dtype=np.uint8)
    return ImageDataset("by hand", pixels_NHWC, np.zeros(len(pixels_NHWC), dtype=np.int64), ("a",))


def test_each_channel_is_counted_on_its_own_and_what_is_held_out_is_not() -> None:
    """Two images of one row and three columns, two channels each."""
    trained = images_of([[[[0, 255], [7, 255], [7, 3]]], [[[0, 255], [0, 255], [9, 255]]]])
    held_out = images_of([[[[200, 200]] * 3]])
    pixels = Client({TRAINED: trained, HELD_OUT: held_out}).perform(CountPixels())
    assert (pixels.height, pixels.width) == (1, 3)
    assert pixels.histogram_CV.shape == (2, 256)
    assert pixels.histogram_CV.dtype == np.int64
    found = [{int(value): int(counts[value]) for value in np.flatnonzero(counts)} for counts in pixels.histogram_CV]
    assert found == [{0: 3, 7: 2, 9: 1}, {3: 1, 255: 5}]


def test_client_without_images_to_train_on_says_so() -> None:
    with pytest.raises(DataError, match=r"^no trained images$"):
        Client({HELD_OUT: images_of([[[[0]]]])}).perform(CountPixels())
