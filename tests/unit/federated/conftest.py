"""A federation over the bundled digits, for tests of what happens inside and around clients."""

from collections.abc import Callable

import numpy as np
import pytest

from fedsup_deploy.data.augment import Augmentation
from fedsup_deploy.data.dataset import DatasetSplits, load_dataset
from fedsup_deploy.data.federated import FederatedData
from fedsup_deploy.data.partition import partition
from fedsup_deploy.data.preprocess import Preprocessing
from fedsup_deploy.space.search_space import SearchSpace

DataOf = Callable[..., FederatedData]


@pytest.fixture(scope="session")
def digits() -> DatasetSplits:
    return load_dataset("digits", None)


@pytest.fixture(scope="session")
def data_of(digits: DatasetSplits) -> DataOf:
    """Divide the first images of the digits among clients."""

    def make(num_images: int, num_clients: int, *, kind: str = "iid", size: int = 8, **options: float) -> FederatedData:
        train = digits.train.take(np.arange(num_images))
        clients = partition(train.labels_N, kind, num_clients, 0, **options)
        held_out = digits.test.take(np.arange(60))
        preprocessing = Preprocessing.fit(train, size)
        return FederatedData(train, tuple(clients), held_out, digits.test, preprocessing, Augmentation())

    return make


@pytest.fixture(scope="session")
def digits_space(space_of) -> SearchSpace:
    """Two stages for 8x8 digits: 2 x (2 x 2 x 2) x 2 = 32 architectures."""
    return space_of(
        {"widths": [4, 8], "depths": [1, 2], "kernel_sizes": [3, 5]},
        {"widths": [8, 12], "depths": [1], "stride": 2},
        stem={"widths": [4, 6]},
        num_classes=10,
    )
