"""`PooledStatistics`: counts, sums and sums of squares per channel. Sums of clients add up to those of their union.

Source: our eq. 4 (FedSup, arXiv 2206.01366, has no such statistics). Unlike an average of per-client means and
variances, the pooled variance contains the variance between clients. Float64 throughout.
"""

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from fedsup_deploy.errors import DataError

FloatArray = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class ChannelSums:
    """What one layer's channels were seen to be.

    Args:
        count: Values per channel: images x height x width.
        total_C: Sum per channel.
        squares_C: Sum of squares per channel.
    """

    count: int
    total_C: FloatArray
    squares_C: FloatArray

    def __add__(self, other: "ChannelSums") -> "ChannelSums":
        return ChannelSums(self.count + other.count, self.total_C + other.total_C, self.squares_C + other.squares_C)

    def mean_and_variance(self) -> tuple[FloatArray, FloatArray]:
        """Return the mean and the biased variance per channel, eq. 4."""
        mean_C = self.total_C / self.count
        return mean_C, np.maximum(self.squares_C / self.count - mean_C**2, 0.0)

    def rms_around(self, centre_C: FloatArray) -> FloatArray:
        """Return sqrt(mean((x - centre)^2)) per channel, eq. 4 for parametric normalisation."""
        mean_square_C = (self.squares_C - 2 * centre_C * self.total_C) / self.count + centre_C**2
        root: FloatArray = np.sqrt(np.maximum(mean_square_C, 0.0))
        return root


@dataclasses.dataclass(frozen=True)
class PooledStatistics:
    """Sums of several layers, over any number of clients and batches.

    Args:
        layers: For each layer with a normalisation, what was observed there.
    """

    layers: Mapping[str, ChannelSums]

    def with_layers(self, other: "PooledStatistics") -> "PooledStatistics":
        """Return the statistics with further layers added, or replaced."""
        return PooledStatistics({**self.layers, **other.layers})

    def to_arrays(self) -> dict[str, NDArray[np.float64]]:
        """Return one array of shape (3, C) per layer: count, sum, sum of squares."""
        return {
            name: np.stack([np.full_like(sums.total_C, sums.count), sums.total_C, sums.squares_C])
            for name, sums in self.layers.items()
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.float64]]) -> "PooledStatistics":
        """Return the statistics written by `to_arrays`."""
        return cls({name: ChannelSums(int(array[0, 0]), array[1], array[2]) for name, array in arrays.items()})


def pool(parts: Iterable[PooledStatistics]) -> PooledStatistics:
    """Return the statistics of the union of the parts' data.

    Args:
        parts: Statistics of the same layers. They are added in the order given; another order changes the result by
            no more than float64 rounding.

    Raises:
        DataError: There is no part, or a part is not finite or not of these layers and channels.
    """
    result: dict[str, ChannelSums] = {}
    for index, part in enumerate(parts):
        if index > 0 and part.layers.keys() != result.keys():
            raise DataError("client statistics: got other layers from one client than from another")
        for name, sums in part.layers.items():
            if sums.count < 1 or not np.isfinite(sums.total_C).all() or not np.isfinite(sums.squares_C).all():
                raise DataError(f"client statistics of layer {name}: got no or not finite values")
            if index > 0 and sums.total_C.shape != result[name].total_C.shape:
                raise DataError(f"client statistics of layer {name}: got other channels from one client than another")
            result[name] = result[name] + sums if index > 0 else sums
    if not result:
        raise DataError("client statistics: got none, expected those of at least one client")
    return PooledStatistics(result)
