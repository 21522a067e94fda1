"""`FederatedData`: the images of a simulated federation, split into clients and what they and the server hold out."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedsup_deploy import files, rng
from fedsup_deploy.data.augment import Augmentation
from fedsup_deploy.data.dataset import ImageDataset
from fedsup_deploy.data.preprocess import Preprocessing

Indices = NDArray[np.int64]

#: Of its images a client trains on at least so many: one image has too little to normalise by.
_MIN_TRAINED = 2

#: How `calibration_images` chooses: what was found with images chosen another way is found anew.
CALIBRATION_DRAW: Final = "random"


@dataclasses.dataclass(frozen=True)
class FederatedData:
    """Everything a simulated federation knows of its data.

    Args:
        train: The images the clients share among them.
        clients: For each client the indices in `train` of the images it trains on and takes statistics of.
        validation: Held out from training; search and progress reports are scored on it.
        test: The dataset's own test images; only final figures are taken on it.
        preprocessing: From pixels to the tensors networks take, at the largest resolution of the space.
        augmentation: Random changes of training images.
        held_out: For each client the indices in `train` of the images it holds out to evaluate subnets on, maybe none;
            empty where no client holds anything out.
    """

    train: ImageDataset
    clients: tuple[Indices, ...]
    validation: ImageDataset
    test: ImageDataset
    preprocessing: Preprocessing
    augmentation: Augmentation
    held_out: tuple[Indices, ...] = ()

    @property
    def num_clients(self) -> int:
        """Number of clients."""
        return len(self.clients)

    def client(self, index: int) -> ImageDataset:
        """Return the images that one client trains on."""
        return self.train.take(self.clients[index])

    def calibration_images(self, index: int, count: int, seed: int) -> ImageDataset:
        """Return the images that one client takes statistics of, in random order.

        They are drawn from all that it trains on: a file order, such as class by class, must not decide which they are,
        nor which share a batch.

        Args:
            index: Which client.
            count: Images, at most.
            seed: Seed of the run.
        """
        drawn = rng.generator(seed, "calibration", index).permutation(self.clients[index])
        return self.train.take(drawn[:count])

    def held_out_by(self, index: int) -> ImageDataset:
        """Return the images that one client holds out.

        Raises:
            DataError: It holds none out.
        """
        return self.train.take(self.held_out[index])

    @property
    def clients_with_held_out(self) -> tuple[int, ...]:
        """The clients that hold images out."""
        return tuple(client for client, indices in enumerate(self.held_out) if len(indices))

    def split(self, name: str) -> ImageDataset:
        """Return the images of `validation` or `test`."""
        return {"validation": self.validation, "test": self.test}[name]

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all images, labels and who holds which."""
        document = {
            "train": self.train.fingerprint(),
            "clients": [indices.tolist() for indices in self.clients],
            "validation": self.validation.fingerprint(),
            "test": self.test.fingerprint(),
            "preprocessing": self.preprocessing.to_dict(),
        }
        if self.clients_with_held_out:
            document["held_out"] = [indices.tolist() for indices in self.held_out]
        return files.sha256_of(document)


def hold_out(clients: Sequence[Indices], fraction: float, seed: int) -> tuple[tuple[Indices, ...], tuple[Indices, ...]]:
    """Split each client's images into those it trains on and those it holds out, at random.

    Args:
        clients: For each client the indices of its images.
        fraction: Share of its images that each holds out, in [0, 0.5], rounded to whole images; a client trains on at
            least two.
        seed: Seed of the run.

    Returns:
        For each client the sorted indices of the images it trains on, and of those it holds out: none where the share
        of a small client is less than half an image.
    """
    kept, held_out = [], []
    for client, indices in enumerate(clients):
        count = max(min(round(fraction * len(indices)), len(indices) - _MIN_TRAINED), 0)
        shuffled = rng.generator(seed, "client_validation", client).permutation(indices)
        kept.append(np.sort(shuffled[count:]))
        held_out.append(np.sort(shuffled[:count]))
    return tuple(kept), tuple(held_out)
