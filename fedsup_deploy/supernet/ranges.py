"""`ActivationCounts`: how often a network's activations have which size. Those of clients add up to those of all.

What int8 needs to know of activations. The bins are the same for everybody, so that one exchange is enough and no order
of adding changes anything: a number's bin is its sign, its exponent and the first bits of its mantissa.

Shapes: V values of a graph (its input, and what each node writes), B bins.
"""

import dataclasses
from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float32]

#: Bits of a float32 that do not take part: all of the mantissa but 3, so that a bin is 1/8 to 1/16 of its place wide.
_DROPPED_BITS: Final = 20
#: Magnitudes from 2^-16 to 2^16 are told apart.
_NUM_MAGNITUDES: Final = 32 * 2**3
_FIRST: Final = (127 - 16) * 2**3
NUM_BINS: Final = 2 * _NUM_MAGNITUDES


def _edges() -> FloatArray:
    """Return the ends of the bins, ascending, shape (B + 1,): 0 in the middle, the last without bound."""
    magnitudes = (np.arange(_FIRST, _FIRST + _NUM_MAGNITUDES + 1, dtype=np.uint32) << _DROPPED_BITS).view(np.float32)
    magnitudes[0], magnitudes[-1] = 0.0, np.inf
    return np.concatenate([-magnitudes[:0:-1], magnitudes])


EDGES: Final = _edges()


def count(values: FloatArray) -> IntArray:
    """Return how many of some finite numbers are in each bin, shape (B,)."""
    values_N = np.ascontiguousarray(values, dtype=np.float32).reshape(-1)
    bits_N = (np.abs(values_N).view(np.uint32) >> _DROPPED_BITS).astype(np.int64)
    magnitude_N = np.clip(bits_N - _FIRST, 0, _NUM_MAGNITUDES - 1)
    # Compared and not read off the sign: there is a zero with either.
    bins = np.where(values_N < 0, _NUM_MAGNITUDES - 1 - magnitude_N, _NUM_MAGNITUDES + magnitude_N)
    return np.bincount(bins, minlength=NUM_BINS)


@dataclasses.dataclass(frozen=True, eq=False)
class ActivationCounts:
    """What was seen of a graph's values.

    Args:
        counts_VB: Of each value, how many numbers are in each bin.
        extremes_V2: The smallest and the largest number of each.
    """

    counts_VB: IntArray
    extremes_V2: FloatArray

    def __add__(self, other: "ActivationCounts") -> "ActivationCounts":
        low_V = np.minimum(self.extremes_V2[:, 0], other.extremes_V2[:, 0])
        high_V = np.maximum(self.extremes_V2[:, 1], other.extremes_V2[:, 1])
        return ActivationCounts(self.counts_VB + other.counts_VB, np.stack([low_V, high_V], axis=1))

    def reason_to_reject(self, sizes: Mapping[str, int], num_images: int) -> str | None:
        """Return why these cannot be counts of so many images; None where they can.

        Args:
            sizes: For each value its numbers per image, in the order of the counts.
            num_images: How many images were to be looked at.
        """
        shapes = self.counts_VB.shape, self.extremes_V2.shape
        types = self.counts_VB.dtype.name, self.extremes_V2.dtype.name
        if shapes != ((len(sizes), NUM_BINS), (len(sizes), 2)) or types != ("int64", "float32"):
            return f"counts of {types[0]} {shapes[0]} and extremes of {types[1]} {shapes[1]}"
        if not np.isfinite(self.extremes_V2).all():
            return "activations that are not finite"
        expected_V = num_images * np.array(list(sizes.values()), dtype=np.int64)
        # Each before their sum, which could overflow.
        are_none_VB = (self.counts_VB < 0) | (self.counts_VB > expected_V[:, None])
        if np.any(are_none_VB) or np.any(self.counts_VB.sum(axis=1) != expected_V):
            return f"other counts than {num_images} images have"
        for counts_B, (low, high) in zip(self.counts_VB, self.extremes_V2, strict=True):
            (bins,) = np.nonzero(counts_B)
            if not (low <= high and count(low).argmax() == bins[0] and count(high).argmax() == bins[-1]):
                return f"extremes {low:g} and {high:g} that are not those of the counts"
        return None

    def ranges(self, share: float) -> FloatArray:
        """Return between which numbers nearly all of each value are, shape (V, 2): never beyond the extremes.

        A single client's outlier so does not decide how coarse all others' activations become.

        Args:
            share: How many of the numbers at either end may be outside, in [0, 0.5).
        """
        cumulated_VB = self.counts_VB.cumsum(axis=1)
        allowed_V1 = share * cumulated_VB[:, -1:]
        # The first bin that is not left out, from below and from above.
        low_V = (cumulated_VB <= allowed_V1).sum(axis=1)
        high_V = (cumulated_VB < cumulated_VB[:, -1:] - allowed_V1).sum(axis=1)
        low = np.maximum(EDGES[low_V], self.extremes_V2[:, 0])
        high = np.minimum(EDGES[high_V + 1], self.extremes_V2[:, 1])
        return np.stack([low, high], axis=1)
