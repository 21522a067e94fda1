"""A device's own images as a client, on the device."""

import functools
from collections.abc import Sequence

import numpy as np

from fedsup_deploy.config.client import ClientConfig
from fedsup_deploy.data.dataset import Reading, load_dataset
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.federation.client import HELD_OUT, TESTED, TRAINED, Client, ClientId, ClientInfo
from fedsup_deploy.federation.simulation import hold_out
from fedsup_deploy.ondevice.source_resize import SourceResize

#: Which images are held out is the device's own matter, and the same in every run.
_SEED = 0


def client_of(config: ClientConfig) -> Client:
    """Return the client that a device is.

    Raises:
        ConfigError: It has no root where it needs one.
        DataError: The images are missing or malformed.
    """
    data = config.data
    resize = None if data.image_size is None else SourceResize(data.image_size, data.resize)
    reading = Reading(resize, None if data.cache_mib is None else data.cache_mib * 2**20)
    splits = load_dataset(data.dataset, data.root, reading)
    images = {TRAINED: splits.train, HELD_OUT: splits.validation, TESTED: splits.test}
    if splits.validation is None:
        (kept,), (held_out,) = hold_out([np.arange(len(splits.train))], data.validation_fraction, _SEED)
        images |= {TRAINED: splits.train.take(kept)}
        images |= {HELD_OUT: splits.train.take(held_out)} if len(held_out) else {}
    return Client({which: some for which, some in images.items() if some is not None and len(some)}, config.tier)


class OneDevice:
    """A population of one: the device that this is, whatever number the server knows it by.

    Args:
        config: Of the device.
    """

    def __init__(self, config: ClientConfig) -> None:
        self._client = functools.cache(lambda: client_of(config))

    def infos(self) -> Sequence[ClientInfo]:
        """Raise a ConfigError: what it has it announces when it is asked."""
        raise ConfigError("a device knows no clients")

    def client(self, client: ClientId) -> Client:
        """Return the device."""
        del client
        return self._client()
