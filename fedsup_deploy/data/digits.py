"""Handwritten digits that come with scikit-learn: real images without a download."""

from importlib import metadata
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedsup_deploy.data.dataset import DatasetSplits, ImageDataset, split_off
from fedsup_deploy.errors import ConfigError

# The set has no official split. This one belongs to the data set as defined here, so no run's seed changes it.
_TEST_FRACTION = 0.25
_TEST_SEED = 0


def load_digits(root: Path | None) -> DatasetSplits:
    """Load 1,797 grey 8x8 images of the digits 0 to 9; a fixed stratified quarter (449) is the test split.

    The original grey values 0..16 are multiplied by 15, so white is 240.

    Raises:
        ConfigError: `root` is given: this set has no folder.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI repository, 1998 (its test part).
    """
    if root is not None:
        raise ConfigError(f"digits are bundled: got data.root {str(root)!r}, expected none; remove data.root")
    rows = _bundled_rows()
    images_NHWC = (rows[:, :-1] * 15).astype(np.uint8).reshape(-1, 8, 8, 1)
    classes = tuple(str(digit) for digit in range(10))
    everything = ImageDataset("digits", images_NHWC, rows[:, -1], classes)
    train, test = split_off(everything, _TEST_FRACTION, _TEST_SEED)
    return DatasetSplits(train, test)


def _bundled_rows() -> NDArray[np.int64]:
    """Return one row per image: its 64 grey values, then its digit.

    Its file is read here, because to import scikit-learn for it takes as long as to import torch.
    """
    file = metadata.distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")
    return np.loadtxt(str(file), delimiter=",", dtype=np.int64)
