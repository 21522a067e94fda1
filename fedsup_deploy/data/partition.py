"""Which client holds which images: pure functions from labels and a seed to indices, or as the data set says.

Every partition covers all images exactly once, and one that divides them gives every client at least `min_samples`.
Never looks at pixels, never keeps state, never imports torch.

Shape suffixes: N images, K clients.
"""

import inspect
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from fedsup_deploy import places, registry, rng
from fedsup_deploy.config.partition import ClientList, Holdings, Ownership, PartitionConfig
from fedsup_deploy.config.section import Count, Text
from fedsup_deploy.errors import ConfigError

Indices = npt.NDArray[np.int64]

_MAX_ATTEMPTS = 10
_COMMON_ARGUMENTS = ("labels_N", "num_clients", "generator")


def partition(labels_N: npt.ArrayLike, kind: str, num_clients: int, seed: int, **options: float) -> list[Indices]:
    """Divide images among clients.

    Args:
        labels_N: Class of each image.
        kind: A name from `registry.names("partition")`, of a partition that divides.
        num_clients: How many clients.
        seed: The run's seed; the same arguments give the same partition on every machine.
        options: What the kind takes: `min_samples`, and `beta` or `shards_per_client`.

    Returns:
        Per client the sorted indices of its images.

    Raises:
        ConfigError: Unknown kind or option, an option is missing or out of range, or too few images.
    """
    options_type = registry.resolve("partition", kind)
    if not issubclass(options_type, DividedPartition):
        raise ConfigError(f"partition: {kind} divides no images: the data set says whose they are")
    function = options_type.divide
    parameters = {
        name: parameter
        for name, parameter in inspect.signature(function).parameters.items()
        if name not in _COMMON_ARGUMENTS
    }
    for name in options:
        if name not in parameters:
            raise ConfigError(f"partition: {kind} takes no {name!r}{registry.nearest(name, parameters)}")
    for name, parameter in parameters.items():
        if name not in options and parameter.default is inspect.Parameter.empty:
            raise ConfigError(f"partition: {kind} needs {name!r}; set partition.{name}")
    labels = np.asarray(labels_N, dtype=np.int64)
    parts: list[Indices] = function(labels, num_clients, rng.generator(seed, "partition"), **options)
    return parts


def iid(labels_N: Indices, num_clients: int, generator: np.random.Generator, min_samples: int = 2) -> list[Indices]:
    """Give every client a random, equal share (to one image).

    Args:
        labels_N: Class of each image; only their number matters.
        num_clients: How many clients.
        generator: Decides who gets what.
        min_samples: Fewest images of a client.

    Returns:
        Per client the sorted indices of its images.

    Raises:
        ConfigError: Fewer than `num_clients * min_samples` images.
    """
    _check(len(labels_N), num_clients, min_samples)
    return [np.sort(part) for part in np.array_split(generator.permutation(len(labels_N)), num_clients)]


def shards(
    labels_N: Indices,
    num_clients: int,
    generator: np.random.Generator,
    shards_per_client: int = 2,
    min_samples: int = 2,
) -> list[Indices]:
    """Sort the images by class, cut them into equal shards, and give every client the same number of random shards.

    Args:
        labels_N: Class of each image.
        num_clients: How many clients.
        generator: Decides the order within a class and who gets which shard.
        shards_per_client: 1 gives most clients one class; many approach an even mixture.
        min_samples: Fewest images of a client; where shards are smaller, single images move from the largest clients.

    Returns:
        Per client the sorted indices of its images.

    Raises:
        ConfigError: Fewer images than shards, or than `num_clients * min_samples`.

    Source: B. McMahan et al., arXiv:1602.05629, section 3.
    """
    _check(len(labels_N), num_clients, min_samples)
    num_shards = num_clients * shards_per_client
    if shards_per_client < 1 or num_shards > len(labels_N):
        got = f"{num_clients} clients x shards_per_client {shards_per_client}"
        raise ConfigError(f"partition: got {got}, expected 1 to {len(labels_N)} shards, one image or more in each")
    shuffled = generator.permutation(len(labels_N))
    by_class = shuffled[np.argsort(labels_N[shuffled], kind="stable")]
    pieces = np.array_split(by_class, num_shards)
    deal = generator.permutation(num_shards).reshape(num_clients, shards_per_client)
    return _topped_up([np.concatenate([pieces[shard] for shard in hand]) for hand in deal], min_samples, generator)


def dirichlet(
    labels_N: Indices, num_clients: int, generator: np.random.Generator, beta: float, min_samples: int = 2
) -> list[Indices]:
    """Divide each class among the clients in proportions drawn from Dirichlet(beta, ..., beta).

    Args:
        labels_N: Class of each image.
        num_clients: How many clients.
        generator: Decides the proportions and who gets what.
        beta: Above 0. Small values (0.01) give a class to one or two clients; large ones (100) approach iid.
        min_samples: Fewest images of a client. Of a few draws the one that leaves least to correct is taken, and then
            single images move from the largest clients to those below the minimum.

    Returns:
        Per client the sorted indices of its images.

    Raises:
        ConfigError: `beta` is not positive and finite, or fewer than `num_clients * min_samples` images.

    Source: M. Yurochkin et al., arXiv:1905.12022, section 4; the correction is ours: they draw until all clients have
    enough, which for small beta and many clients does not end.
    """
    _check(len(labels_N), num_clients, min_samples)
    if not (math.isfinite(beta) and beta > 0):
        raise ConfigError(f"partition: got beta {beta}, expected a finite number above 0")
    best: list[Indices] = []
    least = math.inf
    for _ in range(_MAX_ATTEMPTS):
        parts = _draw_dirichlet(labels_N, num_clients, generator, beta)
        deficit = sum(max(min_samples - len(part), 0) for part in parts)
        if deficit < least:
            best, least = parts, deficit
        if deficit == 0:
            break
    return _topped_up(best, min_samples, generator)


def _draw_dirichlet(labels_N: Indices, num_clients: int, generator: np.random.Generator, beta: float) -> list[Indices]:
    pieces_of_client: list[list[Indices]] = [[] for _ in range(num_clients)]
    for label in np.unique(labels_N):
        members = generator.permutation(np.flatnonzero(labels_N == label))
        shares_K = generator.dirichlet(np.full(num_clients, beta))
        cuts = (np.cumsum(shares_K)[:-1] * len(members)).astype(np.int64)
        for pieces, piece in zip(pieces_of_client, np.split(members, cuts), strict=True):
            pieces.append(piece)
    return [np.concatenate(pieces) for pieces in pieces_of_client]


def _topped_up(parts: Sequence[Indices], min_samples: int, generator: np.random.Generator) -> list[Indices]:
    """Move random single images from whoever has most to the clients below the minimum; return all parts sorted."""
    held = [part.tolist() for part in parts]
    sizes = np.array([len(part) for part in parts])
    for poor in np.flatnonzero(sizes < min_samples):
        while sizes[poor] < min_samples:
            # The largest has more than the minimum, as there are num_clients * min_samples images and `poor` lacks one.
            rich = int(np.argmax(sizes))
            held[poor].append(held[rich].pop(int(generator.integers(sizes[rich]))))
            sizes[rich] -= 1
            sizes[poor] += 1
    return [np.sort(np.array(part, dtype=np.int64)) for part in held]


def _check(num_images: int, num_clients: int, min_samples: int) -> None:
    if num_clients < 1 or min_samples < 1:
        got = f"num_clients {num_clients}, min_samples {min_samples}"
        raise ConfigError(f"partition: got {got}, expected 1 or more of each")
    needed = num_clients * min_samples
    if num_images < needed:
        got = f"{num_clients} clients x min_samples {min_samples} = {needed:,} images, but there are {num_images:,}"
        raise ConfigError(f"partition: got {got}; lower num_clients or min_samples")


class DividedPartition(PartitionConfig):
    """What partitions have in common that divide the images among a stated number of clients."""

    divide: ClassVar[Callable[..., Any]]
    """Called with the labels, the number of clients, a generator, and all other options but the kind and `unseen`."""

    num_clients: Annotated[int, Field(ge=1, le=1_000_000)]
    """How many clients hold the training images; at most a million."""

    @property
    def stated_clients(self) -> int:
        """How many clients there are."""
        return self.num_clients

    def holdings(self, labels_N: Indices, owners: Ownership | None, seed: int) -> Holdings:
        """Return the images of each client, which is named by its number. Whose they are does not count."""
        del owners
        options = self.model_dump(exclude={"kind", "num_clients", "unseen"})
        parts = partition(labels_N, self.kind, self.num_clients, seed, **options)
        return Holdings(tuple(map(str, range(self.num_clients))), parts)


class IidPartition(DividedPartition):
    """Every client holds the same mixture of classes."""

    divide: ClassVar = iid

    kind: Literal["iid"]
    """Which partition."""


class ShardsPartition(DividedPartition):
    """Every client holds images of a few classes."""

    divide: ClassVar = shards

    kind: Literal["shards"]
    """Which partition."""
    shards_per_client: Count = 2
    """Runs of class-sorted images per client. 1: most clients hold one class; many: nearly iid."""


class DirichletPartition(DividedPartition):
    """The share of each class is drawn per client."""

    divide: ClassVar = dirichlet

    kind: Literal["dirichlet"]
    """Which partition."""
    beta: Annotated[float, Field(gt=0)] = 0.5
    """Evenness of the class shares. 0.01: a class lies with one or two clients; 100: nearly iid."""


class NaturalPartition(PartitionConfig):
    """Every client holds the images that are its own, as the data set says."""

    server_has_images: ClassVar[bool] = False

    kind: Literal["natural"]
    """Which partition."""
    clients: Text | None = None
    """For images in `train/<class>/`: a CSV file with columns `file` and `client`, which starts at `data.root` as the
    files it lists do. null: the data set tells by itself, in a folder per client (`image-folder`: `<client>/<class>/`,
    or `<client>/train/<class>/` and, if wanted, `val` and `test` beside `train`) or in `train_clients` (`npz`)."""

    def client_list(self, root: Path | None) -> ClientList:
        """Return where the data set says whose images are whose."""
        path = None if self.clients is None else Path(places.expanded(self.clients))
        return ClientList(path if path is None or root is None else root / path)

    def holdings(self, labels_N: Indices, owners: Ownership | None, seed: int) -> Holdings:
        """Return the images of each client."""
        del labels_N, seed
        parts = None if owners is None else owners.parts("train")
        if owners is None or parts is None:
            raise ConfigError("partition: natural, but the data set does not say whose images are whose")
        return Holdings(owners.names, parts)
