"""How images are split into batches that can be normalised: one rule for training and for client statistics."""

from collections.abc import Mapping, Sequence
from typing import Final

from torch import Tensor

from fedsup_deploy.errors import ConfigError
from fedsup_deploy.federation.client import ClientInfo
from fedsup_deploy.supernet.layout import Layout

#: Fewest images of a batch that is normalised by itself where a map is one pixel.
_FEWEST: Final = 2


def split(indices_N: Tensor, batch_size: int) -> list[Tensor]:
    """Return the indices in batches; a last batch of one image, too little to normalise by, joins the one before.

    Args:
        indices_N: Which images, in order; at least one.
        batch_size: Images per batch. The last may have fewer, or one more.
    """
    batches = list(indices_N.split(batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1 < batch_size:
        batches[-2:] = [indices_N[-batch_size - 1 :]]
    return batches


def check_can_be_normalized(layout: Layout, infos: Sequence[ClientInfo], settings: Mapping[str, int]) -> None:
    """Refuse a federation in which a client would have to normalise a map of one pixel by one image.

    Args:
        layout: Of the supernet.
        infos: How many images each client has.
        settings: Each setting that bounds the images of a batch, with its value.

    Raises:
        ConfigError: It would. The message names the setting.
    """
    space = layout.space
    is_one_pixel = any(layer.out_size == 1 for layer in layout.plan(space.smallest).norm_layers())
    if layout.normalization != "batch" or not is_one_pixel:
        return
    why = f"the maps of this space shrink to one pixel at {min(space.resolutions)}x{min(space.resolutions)}"
    for setting, value in settings.items():
        if value < _FEWEST:
            raise ConfigError(f"{setting}: got {value}, expected {_FEWEST} or more to normalise by: {why}")
    for info in infos:
        if info.num_samples < _FEWEST:
            got = f"{info} has {info.num_samples} image to train on"
            raise ConfigError(f"{got}, expected {_FEWEST} or more to normalise by: {why}; raise partition.min_samples")
