"""One client: its images, and what is made of them."""

import numpy as np
import pytest

from fedsup_deploy.data.dataset import DatasetSplits
from fedsup_deploy.data.preprocess import Preprocessing
from fedsup_deploy.errors import DataError
from fedsup_deploy.federation.client import HELD_OUT, TRAINED, Client
from fedsup_deploy.federation.jobs.moments import CountPixels

PREPROCESSING = Preprocessing((0.5,), (0.25,), 8, 8, 8)


@pytest.fixture(scope="module")
def client(digits: DatasetSplits) -> Client:
    return Client({TRAINED: digits.train.take(np.arange(6)), HELD_OUT: digits.test.take(np.arange(4))})


@pytest.mark.parametrize(("which", "count"), [(TRAINED, 6), (HELD_OUT, 4)])
def test_images_are_prepared_for_the_size_asked_for(
    client: Client, digits: DatasetSplits, which: str, count: int
) -> None:
    """Also one size after the other, and back."""
    images = (digits.train if which == TRAINED else digits.test).take(np.arange(count))
    for size in (8, 6, 8):
        preprocessing = PREPROCESSING.for_size(size)
        x_NCHW, labels_N = client.prepared(which, preprocessing)
        assert x_NCHW.shape == (count, 1, size, size)
        assert np.array_equal(x_NCHW, preprocessing.apply(images.images_NHWC))
        assert np.array_equal(labels_N, images.labels_N)


def test_images_are_prepared_once_for_one_network_after_the_other(client: Client) -> None:
    first, _ = client.prepared(TRAINED, PREPROCESSING)
    again, _ = client.prepared(TRAINED, PREPROCESSING.for_size(8))
    assert again is first


def test_a_client_without_images_says_so(digits: DatasetSplits) -> None:
    for which, other in ((TRAINED, HELD_OUT), (HELD_OUT, TRAINED)):
        client = Client({other: digits.train.take([0])})
        with pytest.raises(DataError, match=f"^no {which} images$"):
            client.images(which)
        with pytest.raises(DataError, match=f"^no {which} images$"):
            client.prepared(which, PREPROCESSING)


def test_images_of_another_size_are_refused(client: Client) -> None:
    with pytest.raises(DataError, match="expected uint8 of shape"):
        client.prepared(TRAINED, Preprocessing((0.5,), (0.25,), 6, 8, 8))


def test_a_job_is_done_with_the_clients_own_images(client: Client) -> None:
    """Six images of 64 pixels."""
    assert client.perform(CountPixels()).histogram_CV.sum() == 6 * 64
