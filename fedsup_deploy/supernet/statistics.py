"""`PooledStatistics`: counts, sums and sums of squares per channel. Sums of clients add up to those of their union.

Source: our eq. 4 (FedSup, arXiv 2206.01366, has no such statistics). Unlike an average of per-client means and
variances, the pooled variance contains the variance between clients. Float64 throughout.
"""

import dataclasses
from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedsup_deploy.space.plan import NetworkPlan

FloatArray = NDArray[np.float64]

#: Statistics with a larger sum are refused.
MAX_SUM: Final = 2.0**40
#: Statistics that can be added up. So many whole multiples of each unit fit into the 53 bits of a float64.
MAX_PARTS: Final = 2**20
# Most values of a channel; whole numbers up to it are exact in float64.
_MAX_COUNT: Final = 2**52
#: A sum is split into multiples of these, each of which is added up on its own.
_UNITS: Final = (2.0**7, 2.0**-27, 2.0**-61)


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
        """Return the statistics written by `to_arrays`.

        Raises:
            ValueError: They are of another type or shape, or a count is none.
        """
        for name, array in arrays.items():
            if array.dtype != np.float64 or array.ndim != 2 or array.shape[0] != 3 or array.shape[1] == 0:
                raise ValueError(f"layer {name}: {array.dtype} of shape {array.shape}")
            count = array[0, 0]
            if not 0 <= count <= _MAX_COUNT or count != np.floor(count) or np.any(array[0] != count):
                raise ValueError(f"layer {name}: count {count}")
        return cls({name: ChannelSums(int(array[0, 0]), array[1], array[2]) for name, array in arrays.items()})

    def check(self, plan: NetworkPlan) -> None:
        """Fail unless they are what a network needs.

        Raises:
            ValueError: They are of other layers or channels, of no image, or not finite.
        """
        expected = {layer.name: layer.out_channels for layer in plan.norm_layers()}
        if (channels := {name: len(sums.total_C) for name, sums in self.layers.items()}) != expected:
            wrong = sorted(name for name, _ in channels.items() ^ expected.items())
            raise ValueError(f"layer {wrong[0]}: missing, unknown, or of another number of channels")
        for name, sums in self.layers.items():
            if sums.count < 1 or not np.isfinite([sums.total_C, sums.squares_C]).all():
                raise ValueError(f"layer {name}: of no image, or not finite")


class StatisticsSum:
    """Adds up the statistics of clients. Neither their order nor adding up some of them elsewhere changes a bit.

    Every sum is rounded to a multiple of 2^-61 and split into parts whose additions are exact, for up to `MAX_PARTS`
    statistics of up to `MAX_SUM` each.

    Args:
        plan: Of the network observed.
        observed: Names of its layers that statistics are of.
    """

    def __init__(self, plan: NetworkPlan, observed: frozenset[str]) -> None:
        layers = [layer for layer in plan.norm_layers() if layer.name in observed]
        self._map_pixels = {layer.name: layer.out_size**2 for layer in layers}
        self._sums = {layer.name: np.zeros((len(_UNITS), 2, layer.out_channels)) for layer in layers}
        self._num_images = self._num_parts = 0

    def add(self, part: PooledStatistics, num_images: int) -> str | None:
        """Add one client's statistics.

        Args:
            part: What the client sent.
            num_images: How many images it was to look at.

        Returns:
            None, or why they are rejected; what is rejected changes nothing.
        """
        reason = self.reason_to_reject(part, num_images)
        if reason is None:
            self._num_images += num_images
            self._num_parts += 1
            for name, sums in part.layers.items():
                rest = np.stack([sums.total_C, sums.squares_C])
                for index, unit in enumerate(_UNITS):
                    multiple = np.round(rest / unit) * unit
                    self._sums[name][index] += multiple
                    rest -= multiple
        return reason

    def merge(self, other: "StatisticsSum") -> None:
        """Add the statistics that were added to another one of the same layers.

        Raises:
            ValueError: They are too many.
        """
        if self._num_parts + other._num_parts > MAX_PARTS:
            raise ValueError(f"statistics of more than {MAX_PARTS:,} clients cannot be added exactly")
        self._num_images += other._num_images
        self._num_parts += other._num_parts
        for name, theirs in other._sums.items():
            self._sums[name] += theirs

    def result(self) -> PooledStatistics:
        """Return the statistics of the union of the clients' images; at least one client's must have been added."""
        return PooledStatistics(
            {
                name: ChannelSums(self._num_images * self._map_pixels[name], *np.add.reduce(total))
                for name, total in self._sums.items()
            }
        )

    def reason_to_reject(self, part: PooledStatistics, num_images: int) -> str | None:
        """Return why `add` would reject statistics, or None."""
        if self._num_parts >= MAX_PARTS:
            return f"statistics of {MAX_PARTS:,} clients are enough"
        if part.layers.keys() != self._sums.keys():
            return "statistics of other layers than asked for"
        reasons = (self._problem_with(name, sums, num_images) for name, sums in part.layers.items())
        named = zip(part.layers, reasons, strict=True)
        return next((f"layer {name}: {reason}" for name, reason in named if reason is not None), None)

    def _problem_with(self, name: str, sums: ChannelSums, num_images: int) -> str | None:
        if sums.count != num_images * self._map_pixels[name]:
            return f"{sums.count} values, expected those of {num_images} images"
        for array in (sums.total_C, sums.squares_C):
            if array.shape != self._sums[name].shape[2:]:
                return f"statistics of {array.shape} channels"
            # Also false where one is not a number.
            if not np.all(np.abs(array) <= MAX_SUM):
                return f"a sum is not finite or beyond {MAX_SUM:g}"
        # Of any real values, but for rounding.
        is_possible = sums.total_C**2 <= sums.squares_C * sums.count * (1 + 1e-9)
        return None if is_possible.all() else "sums that no values have"
