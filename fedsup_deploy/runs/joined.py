"""Devices that join a federation that trains already: they come after all others, whose numbers stay. Torch-free."""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, PositiveInt

from fedsup_deploy.data.devices import AnnouncedDevice, AnnouncedImages
from fedsup_deploy.errors import DataError
from fedsup_deploy.federation.simulation import FederatedData, Indices, Shares


class JoinedDevice(BaseModel):
    """A device that has come in.

    Args:
        since: The first round that it could take part in.
        device: What it has announced.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    since: PositiveInt
    device: AnnouncedDevice


def with_joined(data: FederatedData, devices: Sequence[AnnouncedDevice]) -> FederatedData:
    """Return the data of a federation with further devices, whose numbers follow those that there are.

    Raises:
        DataError: The clients are no devices, or one is there already.
    """
    if not devices:
        return data
    if not isinstance(data.train, AnnouncedImages):
        raise DataError("devices have joined the run, but its clients are none; put data.dataset devices back")
    if there := sorted({each.name for each in devices} & set(data.names)):
        raise DataError(f"the list of devices has {there[0]}, which has joined the run since; put the list back")
    train = _after(data, "train", Shares(data.train, data.clients), devices)
    assert train is not None
    return dataclasses.replace(
        data,
        train=train.images,
        clients=train.of_client,
        held_out=(*data.held_out, *(_NONE for _ in devices)) if data.held_out else (),
        tiers=(*data.tiers, *(each.tier for each in devices)),
        own_validation=_after(data, "validation", data.own_validation, devices),
        own_test=_after(data, "test", data.own_test, devices),
        names=(*data.names, *(each.name for each in devices)),
    )


def _after(data: FederatedData, split: str, shares: Shares | None, devices: Sequence[AnnouncedDevice]) -> Shares | None:
    """Return which images of a split are whose, with those of the devices last; None where nobody has any."""
    before, of_client = None, tuple(_NONE for _ in data.clients)
    if shares is not None:
        assert isinstance(shares.images, AnnouncedImages)
        before, of_client = shares.images, shares.of_client
    images = AnnouncedImages(split, devices) if before is None else before.and_of(devices)
    if not len(images):
        return None
    starts = (0 if before is None else len(before)) + np.cumsum([0, *(sum(each.counts(split)) for each in devices)])
    theirs = (np.arange(start, stop) for start, stop in itertools.pairwise(starts))
    return Shares(images, (*of_client, *theirs))


_NONE: Indices = np.empty(0, dtype=np.int64)
