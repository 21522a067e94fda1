"""The digits that come with scikit-learn."""

import subprocess
import sys

import numpy as np
import pytest
from sklearn import datasets

from fedsup_deploy.data.digits import load_digits
from fedsup_deploy.errors import ConfigError


def test_they_are_those_that_scikit_learn_loads():
    splits, bundled = load_digits(None), datasets.load_digits()

    def listed(images, labels):
        return sorted(zip((image.tobytes() for image in images), labels.tolist(), strict=True))

    ours = [listed(split.images_NHWC, split.labels_N) for split in (splits.train, splits.test)]
    assert sorted(ours[0] + ours[1]) == listed((bundled.images * 15).astype(np.uint8), bundled.target)
    assert [len(images) for images in ours] == [1348, 449]


def test_scikit_learn_is_not_imported_for_them():
    program = "import sys; from fedsup_deploy.data.digits import load_digits; load_digits(None); print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "sklearn" not in ran.stdout.split()


def test_they_have_no_folder(tmp_path):
    with pytest.raises(ConfigError, match="digits are bundled"):
        load_digits(tmp_path)
