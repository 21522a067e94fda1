"""One client: its images, and what it announces of itself. It knows no other client, nor the run's seed. Torch-free."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Final, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from fedsup_deploy.data.dataset import LabelledImages
from fedsup_deploy.data.preprocess import Preprocessing
from fedsup_deploy.errors import DataError

ClientId = int
R_co = TypeVar("R_co", covariant=True)

#: Images that a client trains on and takes statistics of; those that it evaluates subnets on; test images of its own,
#: which only final figures are taken on.
TRAINED, HELD_OUT, TESTED = "trained", "held-out", "tested"
IMAGES: Final = (TRAINED, HELD_OUT, TESTED)


@dataclasses.dataclass(frozen=True)
class ClientInfo:
    """What a client announces.

    Args:
        client: Who it is.
        num_samples: Images that it trains on.
        num_held_out: Images that it holds out.
        tier: Class of capability, an index of the strategy's tiers.
        num_tested: Test images of its own.
        name: What people call it; None where it has a number only.
    """

    client: ClientId
    num_samples: int
    num_held_out: int = 0
    tier: int = 0
    num_tested: int = 0
    name: str | None = None

    def __str__(self) -> str:
        """Return who it is, for messages."""
        return called(self.client, self.name)

    def num_images(self, which: str) -> int:
        """Return how many images it has of one of `IMAGES`."""
        return {TRAINED: self.num_samples, HELD_OUT: self.num_held_out, TESTED: self.num_tested}[which]

    @property
    def num_of_all(self) -> int:
        """How many images it has in all."""
        return sum(map(self.num_images, IMAGES))


def called(client: ClientId, name: str | None) -> str:
    """Return who a client is, for messages: its number, as in records, and its name, if it has one."""
    return f"client {client}" if name is None else f"client {client}, {name}"


class Performs(Protocol[R_co]):
    """What a client can be asked for: `messages.Job`, seen from here."""

    def perform(self, client: "Client") -> R_co:
        """Return the answer."""
        ...


class Client:
    """One client.

    Args:
        images: What it has of `IMAGES`.
        tier: Its class of capability.
        profile: Name of its device profile, where it says one.
        resize: How it makes squares of its images, where it does.
    """

    def __init__(
        self,
        images: Mapping[str, LabelledImages],
        tier: int = 0,
        profile: str | None = None,
        resize: str | None = None,
    ) -> None:
        self._images, self.tier, self.profile, self.resize = images, tier, profile, resize
        # The same images are looked at by one network after the other.
        self._prepared = functools.lru_cache(maxsize=1)(self._prepare)

    def perform(self, job: Performs[R_co]) -> R_co:
        """Return the answer to a job.

        Raises:
            DataError: It cannot be done with this client's images.
        """
        return job.perform(self)

    def has(self, which: str) -> bool:
        """Return whether the client has any of these images."""
        return which in self._images

    def images(self, which: str) -> LabelledImages:
        """Return the client's images.

        Raises:
            DataError: It has none of these.
        """
        if which not in self._images:
            raise DataError(f"no {which} images")
        return self._images[which]

    def batch(self, which: str, preprocessing: Preprocessing, indices_B: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return some images as networks take them, shape (B, C, S, S).

        Raises:
            DataError: It has none of these, or they are of another size than `preprocessing` is for.
        """
        return preprocessing.apply(self.images(which).pixels(indices_B))

    def prepared(self, which: str, preprocessing: Preprocessing) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return images as networks take them, shape (N, C, S, S), and labels, shape (N,). They must not be changed.

        Raises:
            DataError: It has none of these, or they are of another size than `preprocessing` is for.
        """
        return self._prepared(which, preprocessing)

    def _prepare(self, which: str, preprocessing: Preprocessing) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        images = self.images(which)
        return preprocessing.apply(images.images_NHWC), images.labels_N.copy()
