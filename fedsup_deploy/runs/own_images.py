"""A device's own images as a client, on the device."""

import functools
from collections.abc import Sequence

import numpy as np

from fedsup_deploy import rng
from fedsup_deploy.config.client import ClientConfig
from fedsup_deploy.config.images import ImagesConfig
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
    splits = load_dataset(data.dataset, data.root, reading_of(data))
    images = {TRAINED: splits.train, HELD_OUT: splits.validation, TESTED: splits.test}
    if splits.validation is None:
        (kept,), (held_out,) = hold_out([np.arange(len(splits.train))], data.validation_fraction, _SEED)
        images |= {TRAINED: splits.train.take(kept)}
        images |= {HELD_OUT: splits.train.take(held_out)} if len(held_out) else {}
    trained = images[TRAINED]
    assert trained is not None
    if data.max_images is not None and len(trained) > data.max_images:
        drawn = rng.generator(_SEED, "max_images").choice(len(trained), data.max_images, replace=False)
        images |= {TRAINED: trained.take(np.sort(drawn))}
    has = {which: some for which, some in images.items() if some is not None and len(some)}
    return Client(has, config.tier, config.profile, data.made_square)


def reading_of(images: ImagesConfig) -> Reading:
    """Return how images are read."""
    resize = None if images.image_size is None else SourceResize(images.image_size, images.resize)
    return Reading(resize, None if images.cache_mib is None else images.cache_mib * 2**20)


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
