"""`FederatedData`: the images of a simulated federation, split into clients and what the server holds out."""

import dataclasses
import functools

import numpy as np
from numpy.typing import NDArray

from fedsup_deploy.data.augment import Augmentation
from fedsup_deploy.data.dataset import ImageDataset
from fedsup_deploy.data.preprocess import Preprocessing


@dataclasses.dataclass(frozen=True)
class FederatedData:
    """Everything a simulated federation knows of its data.

    Args:
        train: The images the clients share among them.
        clients: For each client the indices of its images in `train`.
        validation: Held out from training; search and progress reports are scored on it.
        test: The dataset's own test images; only final figures are taken on it.
        preprocessing: From pixels to the tensors networks take, at the largest resolution of the space.
        augmentation: Random changes of training images.
    """

    train: ImageDataset
    clients: tuple[NDArray[np.int64], ...]
    validation: ImageDataset
    test: ImageDataset
    preprocessing: Preprocessing
    augmentation: Augmentation

    @property
    def num_clients(self) -> int:
        """Number of clients."""
        return len(self.clients)

    def client(self, index: int) -> ImageDataset:
        """Return the images of one client."""
        return self.train.take(self.clients[index])

    def split(self, name: str) -> ImageDataset:
        """Return the images of `validation` or `test`."""
        return {"validation": self.validation, "test": self.test}[name]

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all images, labels and who holds which."""
        from fedsup_deploy import files

        return files.sha256_of(
            {
                "train": self.train.fingerprint(),
                "clients": [indices.tolist() for indices in self.clients],
                "validation": self.validation.fingerprint(),
                "test": self.test.fingerprint(),
                "preprocessing": self.preprocessing.to_dict(),
            }
        )
