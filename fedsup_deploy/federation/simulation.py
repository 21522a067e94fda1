"""A simulated federation: one data set divided into clients, and the server's own images. The one place that has all.

Torch-free.
"""

import dataclasses
import functools
import math
from collections.abc import Collection, Sequence
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from fedsup_deploy import files, rng
from fedsup_deploy.data.dataset import LabelledImages
from fedsup_deploy.federation.client import HELD_OUT, TESTED, TRAINED, Client, ClientId, ClientInfo

Indices = NDArray[np.int64]

#: Populations of a simulation: the clients, those that take no part, and the server's own images in parts that are
#: counted side by side.
CLIENTS, UNSEEN, VALIDATION, TEST = "clients", "unseen", "validation", "test"
#: Those that are there and no clients yet, where that can be.
NEWCOMERS = "newcomers"
#: Images of such a part, at most, and bytes that they take as float32: a part is prepared as a whole.
_PART_IMAGES: Final = 500
_PART_BYTES: Final = 2**26
#: Of its images a client trains on at least so many: one image has too little to normalise by.
_MIN_TRAINED = 2


class Population(Protocol):
    """Those that an engine can ask on this machine."""

    def infos(self) -> Sequence[ClientInfo]:
        """Return what each announces, ascending."""
        ...

    def client(self, client: ClientId) -> Client:
        """Return one of them."""
        ...


@dataclasses.dataclass(frozen=True)
class Shares:
    """Which of some images are whose.

    Args:
        images: Of all clients.
        of_client: For each client the ascending indices of its own, maybe none.
    """

    images: LabelledImages
    of_client: tuple[Indices, ...]

    def fingerprint(self) -> list[JsonValue]:
        """Return what decides them, as JSON."""
        return [self.images.fingerprint(), [indices.tolist() for indices in self.of_client]]


@dataclasses.dataclass(frozen=True)
class FederatedData:
    """Everything a simulated federation knows of its data.

    Args:
        train: The images the clients share among them.
        clients: For each client the indices in `train` of the images it trains on and takes statistics of; of one that
            is not seen, all that it has there.
        validation: Not trained on; search and progress reports are scored on it. None: the server has no image.
        test: The dataset's own test images; only final figures are taken on it. None: the server has no image.
        held_out: For each client the indices in `train` of the images it holds out to evaluate subnets on, maybe none;
            empty where no client holds anything out.
        tiers: For each client its class of capability; empty where there is one.
        notes: What the user is to know of how the images were read; a line each.
        own_validation: Images that clients have brought to hold out; whoever has such holds none of `train` out.
        own_test: Test images that clients have brought.
        unseen: The clients that take no part, ascending: only final figures are taken on them.
        names: Of all clients, where the data set names them.
        made_square: How images were made squares, where they were.
    """

    train: LabelledImages
    clients: tuple[Indices, ...]
    validation: LabelledImages | None
    test: LabelledImages | None
    held_out: tuple[Indices, ...] = ()
    tiers: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    own_validation: Shares | None = None
    own_test: Shares | None = None
    unseen: tuple[ClientId, ...] = ()
    names: tuple[str, ...] = ()
    made_square: str | None = None

    @property
    def num_clients(self) -> int:
        """Number of clients, seen or not."""
        return len(self.clients)

    @property
    def seen(self) -> tuple[ClientId, ...]:
        """The clients that take part."""
        unseen = set(self.unseen)
        return tuple(client for client in range(self.num_clients) if client not in unseen)

    def populations(self) -> dict[str, Population]:
        """Return the clients, those that are not seen if there are any, and what the server has of its own."""
        servers = {VALIDATION: self.validation, TEST: self.test}
        return {
            CLIENTS: _Clients(self, self.seen),
            **({UNSEEN: _Clients(self, self.unseen)} if self.unseen else {}),
            **{name: _Parts(images) for name, images in servers.items() if images is not None},
        }

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all images, labels and who holds which."""
        document = {
            "train": self.train.fingerprint(),
            "clients": [indices.tolist() for indices in self.clients],
            "validation": self.validation and self.validation.fingerprint(),
            "test": self.test and self.test.fingerprint(),
            "held_out": [indices.tolist() for indices in self.held_out] if any(map(len, self.held_out)) else None,
            # Left out where there are none: scores that were found before there could be any are still right.
            **({"unseen": list(self.unseen)} if self.unseen else {}),
            **({"own_validation": self.own_validation.fingerprint()} if self.own_validation else {}),
            **({"own_test": self.own_test.fingerprint()} if self.own_test else {}),
        }
        return files.sha256_of(document)


class _Clients:
    """Some clients of a federation. Each is made anew when it is asked, so that none takes up memory meanwhile."""

    def __init__(self, data: FederatedData, members: Sequence[ClientId]) -> None:
        self._data, self._members = data, members

    def infos(self) -> list[ClientInfo]:
        """Return how many images each has, its tier and its name."""
        found = []
        for client in self._members:
            num = {which: len(indices) for which, (_, indices) in self._shares(client).items()}
            tier = self._tier(client)
            name = self._data.names[client] if self._data.names else None
            found.append(ClientInfo(client, num.get(TRAINED, 0), num.get(HELD_OUT, 0), tier, num.get(TESTED, 0), name))
        return found

    def client(self, client: ClientId) -> Client:
        """Return one client with its images."""
        shares = self._shares(client).items()
        return Client({which: images.take(indices) for which, (images, indices) in shares}, self._tier(client))

    def _tier(self, client: ClientId) -> int:
        return self._data.tiers[client] if self._data.tiers else 0

    def _shares(self, client: ClientId) -> dict[str, tuple[LabelledImages, Indices]]:
        """Return what a client has: its images of each kind, among all of them."""
        data = self._data
        shares = {TRAINED: (data.train, data.clients[client])}
        if data.held_out:
            shares[HELD_OUT] = (data.train, data.held_out[client])
        for which, own in ((HELD_OUT, data.own_validation), (TESTED, data.own_test)):
            if own is not None and len(own.of_client[client]):
                shares[which] = (own.images, own.of_client[client])
        return {which: share for which, share in shares.items() if len(share[1])}


class _Parts:
    """Images of the server's, in parts of equal size but for the last. They are asked as clients are.

    Search looks at all of them again and again, so each is kept as it was prepared, if its pixels are held anyway.
    """

    def __init__(self, images: LabelledImages) -> None:
        self._images = images
        self._size = max(1, min(_PART_IMAGES, _PART_BYTES // (4 * math.prod(images.image_shape))))
        self.client = functools.cache(self._client) if images.is_held else self._client

    def infos(self) -> list[ClientInfo]:
        """Return how many images each part has."""
        starts = range(0, len(self._images), self._size)
        return [ClientInfo(part, 0, min(self._size, len(self._images) - start)) for part, start in enumerate(starts)]

    def _client(self, part: ClientId) -> Client:
        stop = min((part + 1) * self._size, len(self._images))
        return Client({HELD_OUT: self._images.take(np.arange(part * self._size, stop))})


def tiers_by_index(num_clients: int, num_tiers: int) -> tuple[int, ...]:
    """Return the tier of each client: equal runs of consecutive client indices, as in the paper's quarters."""
    return tuple(client * num_tiers // num_clients for client in range(num_clients))


def hold_out(
    clients: Sequence[Indices], fraction: float, seed: int, spared: Collection[ClientId] = ()
) -> tuple[tuple[Indices, ...], tuple[Indices, ...]]:
    """Split each client's images into those it trains on and those it holds out, at random.

    Args:
        clients: For each client the indices of its images.
        fraction: Share of its images that each holds out, in [0, 0.5], rounded to whole images; a client trains on at
            least two.
        seed: Seed of the run.
        spared: Clients that hold nothing out.

    Returns:
        For each client the sorted indices of the images it trains on, and of those it holds out: none where the share
        of a small client is less than half an image.
    """
    kept, held_out = [], []
    for client, indices in enumerate(clients):
        share = 0 if client in spared else round(fraction * len(indices))
        count = max(min(share, len(indices) - _MIN_TRAINED), 0)
        shuffled = rng.generator(seed, "client_validation", client).permutation(indices)
        kept.append(np.sort(shuffled[count:]))
        held_out.append(np.sort(shuffled[:count]))
    return tuple(kept), tuple(held_out)
