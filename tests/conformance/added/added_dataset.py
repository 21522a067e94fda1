"""A data set that nobody ships: the bundled digits, upside down."""

import dataclasses
from pathlib import Path

from fedsup_deploy.data.dataset import DatasetSplits
from fedsup_deploy.data.digits import load_digits


def load_turned(root: Path | None) -> DatasetSplits:
    digits = load_digits(root)
    train, test = (
        dataclasses.replace(part, name="turned-digits", images_NHWC=part.images_NHWC[:, ::-1, ::-1])
        for part in (digits.train, digits.test)
    )
    return DatasetSplits(train, test)
