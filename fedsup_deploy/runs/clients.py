"""Who the clients of a run are: whose images are whose, who takes part, and what of that the user is to know."""

import dataclasses
import statistics
from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, NonNegativeInt

from fedsup_deploy import registry, rng
from fedsup_deploy.config.partition import Unseen
from fedsup_deploy.config.schema import TrainConfig
from fedsup_deploy.data import source
from fedsup_deploy.data.dataset import DatasetSplits, LabelledImages
from fedsup_deploy.errors import ConfigError, DataError
from fedsup_deploy.federation.client import ClientId
from fedsup_deploy.federation.simulation import FederatedData, Indices, Shares, hold_out, tiers_by_index

_NOTHING: Indices = np.empty(0, dtype=np.int64)


class ClientFacts(BaseModel):
    """What a run says of its clients.

    Args:
        num_clients: Those that take part.
        unseen: Names of those that do not, or their numbers.
        names: Of all, in the order of their numbers; None where they have none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_clients: NonNegativeInt
    unseen: tuple[str, ...]
    names: tuple[str, ...] | None

    @classmethod
    def of(cls, data: FederatedData) -> "ClientFacts":
        """Return what is to be said of the clients of some data."""
        unseen = tuple(_name(data, client) for client in data.unseen)
        return cls(num_clients=len(data.seen), unseen=unseen, names=data.names or None)

    def and_of(self, names: Sequence[str]) -> "ClientFacts":
        """Return the same with clients of these names after all others."""
        return ClientFacts(
            num_clients=self.num_clients + len(names), unseen=self.unseen, names=(*(self.names or ()), *names)
        )


@dataclasses.dataclass(frozen=True)
class _Held:
    """What the clients hold before any of it is held out.

    Args:
        names: Of the clients.
        train: For each the indices of its training images.
        validation: The validation images that clients have brought.
        test: The same of test images.
        notes: Lines for the user.
        tiers: The class of capability of each, where they say it themselves.
    """

    names: tuple[str, ...]
    train: tuple[Indices, ...]
    validation: Shares | None
    test: Shares | None
    notes: tuple[str, ...]
    tiers: Indices | None = None

    def num_images(self, client: ClientId) -> int:
        """Return how many images a client has of all kinds."""
        own = sum(len(share.of_client[client]) for share in (self.validation, self.test) if share is not None)
        return len(self.train[client]) + own


def divided(
    config: TrainConfig,
    splits: DatasetSplits,
    train: LabelledImages,
    validation: LabelledImages | None,
    test: LabelledImages | None,
    notes: Sequence[str],
) -> FederatedData:
    """Return the images of a federation by who holds them.

    Args:
        config: Who holds what, who takes part, what is held out.
        splits: The data set, and whose images are whose, if it says so.
        train: Those of its training images that are for clients.
        validation: The server's validation images.
        test: The server's test images.
        notes: What is to be said of the images otherwise.

    Raises:
        ConfigError: The config does not fit to the clients there are.
        DataError: A class has no image that is trained on.
    """
    held = _held(config, splits, train)
    unseen = _unseen(config.partition.unseen, held, config.seed)
    seen = [client for client in range(len(held.names)) if client not in unseen]
    _check(config, held, seen, train)
    spared = set(unseen) | {
        client for client in seen if held.validation is not None and len(held.validation.of_client[client])
    }
    # Whoever says of which class it is has chosen what to hold out, too.
    decided = held.tiers is not None
    clients, held_out = hold_out(held.train, 0.0 if decided else config.held_out_fraction, config.seed, spared)
    tiers = np.zeros(len(held.names), dtype=np.int64)
    tiers[seen] = tiers_by_index(len(seen), config.strategy.num_tiers) if held.tiers is None else held.tiers[seen]
    is_named = splits.owners is not None
    about_seen = _about(held, seen, train) if is_named else []
    return FederatedData(
        train,
        clients,
        validation,
        test,
        held_out,
        tuple(tiers.tolist()),
        (*notes, *held.notes, *about_seen, *_about_unseen(held, unseen)),
        held.validation,
        held.test,
        unseen,
        held.names if is_named else (),
        splits.made_square if splits.made_square is not None else config.data.made_square,
    )


def _held(config: TrainConfig, splits: DatasetSplits, train: LabelledImages) -> _Held:
    """Return what the clients hold that have enough images, or that the config calls unseen."""
    settings, owners = config.partition, splits.owners
    names, parts = settings.holdings(train.labels_N, owners, config.seed)
    named = set(map(str, settings.unseen)) if isinstance(settings.unseen, tuple) else set()
    is_kept = [len(part) >= settings.min_samples or name in named for name, part in zip(names, parts, strict=True)]
    kept, small = (np.flatnonzero(np.array(is_kept) == which).tolist() for which in (True, False))
    if not kept:
        got = f"no client has {settings.min_samples} images to train on"
        raise DataError(f"{train.name}: {got}; lower partition.min_samples or add images")
    shares: dict[str, Shares | None] = {}
    num_lost = sum(len(parts[client]) for client in small)
    for split, images in (("validation", splits.validation), ("test", splits.test)):
        of_client = None if owners is None else owners.parts(split)
        if images is None or of_client is None:
            shares[split] = None
        else:
            shares[split] = Shares(images, _chosen(of_client, kept))
            num_lost += sum(len(of_client[client]) for client in small)
    notes = []
    if small:
        fewest = f"fewer than partition.min_samples ({settings.min_samples}) images to train on"
        told = source.counted([names[client] for client in small])
        notes.append(f"clients left out, with {fewest}: {told}, their images: {num_lost:,}")
    kept_names = tuple(names[client] for client in kept)
    tiers = np.array(owners.tiers)[kept] if owners is not None and owners.tiers else None
    return _Held(kept_names, _chosen(parts, kept), shares["validation"], shares["test"], tuple(notes), tiers)


def _chosen(parts: Sequence[Indices], clients: Sequence[ClientId]) -> tuple[Indices, ...]:
    return tuple(parts[client] for client in clients)


def _unseen(asked: Unseen | None, held: _Held, seed: int) -> tuple[ClientId, ...]:
    """Return the clients that take no part, ascending.

    Raises:
        ConfigError: One that is asked for is not there or has no image, or nobody would be left.
    """
    names = held.names
    if asked is None:
        return ()
    if isinstance(asked, tuple):
        wanted = [str(client) for client in asked]
        places = {name: client for client, name in enumerate(names)}
        for name in wanted:
            if name not in places:
                raise ConfigError(f"partition.unseen: no client {name!r}{registry.nearest(name, names[:_MOST_TOLD])}")
            if not held.num_images(places[name]):
                raise ConfigError(f"partition.unseen: client {name!r} has no images")
        chosen = {places[name] for name in wanted}
    else:
        number = asked if isinstance(asked, int) else max(1, round(asked * len(names)))
        # In one order whoever is drawn first: with a larger number those that were drawn before are drawn again.
        chosen = set(rng.generator(seed, "unseen").permutation(len(names))[:number].tolist())
    if len(chosen) >= len(names):
        got = f"{len(asked)} clients" if isinstance(asked, tuple) else f"{asked:g}"
        raise ConfigError(f"partition.unseen: got {got}, expected fewer than all of the {len(names)} clients")
    return tuple(sorted(chosen))


def _check(config: TrainConfig, held: _Held, seen: Sequence[ClientId], train: LabelledImages) -> None:
    """Refuse clients that the rest of the config does not fit to, or that lack a class."""
    for path, value, expected in config.misfits_of_clients(len(held.names), "the number of clients of the data"):
        raise ConfigError(f"{'.'.join(map(str, path))}: got {value}, expected {expected}")
    most = config.strategy.num_tiers
    if held.tiers is not None and (too_high := [held.names[client] for client in seen if held.tiers[client] >= most]):
        expected = f"strategy: got {most} tiers, numbered from 0, which these clients are beyond"
        raise ConfigError(f"{expected}: {source.counted(too_high)}; give them a lower tier, or the strategy more")
    there = np.zeros(len(train.classes), dtype=np.bool_)
    for client in seen:
        there[train.labels_N[held.train[client]]] = True
    if not there.all():
        names = ", ".join(train.classes[label] for label in np.flatnonzero(~there))
        lacking = f"no client that is trained on has an image of class {names}"
        raise DataError(f"{train.name}: {lacking}; choose other clients for partition.unseen, or add images")


def _about(held: _Held, seen: Sequence[ClientId], train: LabelledImages) -> list[str]:
    """Return what is to be known of clients that are as they are."""
    sizes = [len(held.train[client]) for client in seen]
    median = f"median {statistics.median(sizes):g}"
    notes = [f"clients: {len(seen)}, with {min(sizes):,} to {max(sizes):,} images to train on ({median})"]
    for what, share in (("validation", held.validation), ("test", held.test)):
        num = [len(share.of_client[client]) for client in seen] if share is not None else []
        if any(num):
            notes.append(f"clients with {what} images of their own: {np.count_nonzero(num)}, images: {sum(num):,}")
    counts_KC = np.array([np.bincount(train.labels_N[held.train[c]], minlength=len(train.classes)) for c in seen])
    of_one = [held.names[client] for client, row in zip(seen, counts_KC, strict=True) if np.count_nonzero(row) == 1]
    if of_one:
        notes.append(f"clients with images of one class only: {source.counted(of_one)}")
    lacking = [(int(number), name) for number, name in zip((counts_KC == 0).sum(axis=0), train.classes, strict=True)]
    told = [f"{name} at {number}" for number, name in sorted(lacking, key=lambda each: -each[0]) if number]
    if told:
        notes.append(f"classes that clients have no images of: {source.counted(told)}")
    return notes


def _about_unseen(held: _Held, unseen: Sequence[ClientId]) -> list[str]:
    if not unseen:
        return []
    names = source.counted([held.names[client] for client in unseen])
    num_images = sum(held.num_images(client) for client in unseen)
    return [f"unseen clients, which only evaluate asks: {names}, their images: {num_images:,}"]


def _name(data: FederatedData, client: ClientId) -> str:
    return data.names[client] if data.names else str(client)


#: Names that are told where one is not found.
_MOST_TOLD = 20


def nothing_held_out(config: TrainConfig) -> ConfigError:
    """Return the error where no client of a config holds an image out."""
    what = f"run {config.name}: no client holds images out to evaluate subnets on"
    fraction = config.held_out_fraction
    if fraction > 0:
        return ConfigError(
            f"{what}: each has too few for data.client_validation_fraction {fraction:g}; train with more or with "
            "fewer clients"
        )
    return ConfigError(f"{what}; train with --set data.client_validation_fraction=0.2")
