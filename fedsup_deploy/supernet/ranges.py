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

#: Bits of a float32 that take part: its sign, its exponent and 3 of the mantissa, so that a bin is 1/8 to 1/16 of its
#: place wide.
_BITS: Final = 12
#: Magnitudes from 2^-16 to 2^16 are told apart.
_NUM_MAGNITUDES: Final = 32 * 2**3
_FIRST: Final = (127 - 16) * 2**3
NUM_BINS: Final = 2 * _NUM_MAGNITUDES


def _edges() -> FloatArray:
    """Return the ends of the bins, ascending, shape (B + 1,): 0 in the middle, the last without bound."""
    magnitudes = (np.arange(_FIRST, _FIRST + _NUM_MAGNITUDES + 1, dtype=np.uint32) << (32 - _BITS)).view(np.float32)
    magnitudes[0], magnitudes[-1] = 0.0, np.inf
    return np.concatenate([-magnitudes[:0:-1], magnitudes])


def _bins_of_bits() -> IntArray:
    """Return the bin of each number of which these bits are known, shape (2^12,)."""
    bits = np.arange(2**_BITS)
    magnitudes = np.clip(bits % 2 ** (_BITS - 1) - _FIRST, 0, _NUM_MAGNITUDES - 1)
    bins: IntArray = np.where(bits >= 2 ** (_BITS - 1), _NUM_MAGNITUDES - 1 - magnitudes, _NUM_MAGNITUDES + magnitudes)
    return bins


EDGES: Final = _edges()
_BINS: Final = _bins_of_bits()


def count(values: FloatArray) -> IntArray:
    """Return how many of some finite numbers are in each bin, shape (B,)."""
    # Plus 0.0: there is a zero of either sign, and their bin is one.
    upper_N2 = (np.asarray(values, dtype="<f4") + np.float32(0)).reshape(-1, 1).view("<u2")
    # A histogram of the bits first: seven times as fast as to find the bin of every number.
    counts = np.bincount(upper_N2[:, 1] >> (16 - _BITS), minlength=2**_BITS)
    result = np.zeros(NUM_BINS, dtype=np.int64)
    np.add.at(result, _BINS, counts)
    return result


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
