"""What decides the mean and the deviation of pixels, as whole numbers: those of many clients add up without rounding.

Of uint8 it is how many pixels have each of the 256 values. Numbers of other types are sorted by their exponent: of
those of one exponent it is how many there are, the sum of their mantissas, and the sum of the squares of these. Every
uint16 is a float32, so one way serves both. Neither who holds which image nor who answers first changes a bit.

Shapes: N images, H W pixels, C channels, V whole numbers per channel.
"""

import math
from types import MappingProxyType
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from fedsup_deploy.data.dataset import LabelledImages
from fedsup_deploy.ondevice.preprocessing import MOST_VALUE, PIXEL_MAX, USUAL_PIXELS
from fedsup_deploy.ondevice.records import AnyPixels

#: Of images that are looked at together; to count floats takes up to 80 bytes for each.
_VALUES_PER_PASS: Final = 2**20
#: A number is a mantissa, a whole number of 24 bits and a sign, times 2^(exponent - 24).
_MANTISSA_BITS: Final = 24
#: Of the smallest float32, 2^-149, and what the largest has at most: `frexp`.
_LEAST_EXPONENT, _MOST_EXPONENT = -148, 128
_NUM_EXPONENTS: Final = _MOST_EXPONENT - _LEAST_EXPONENT + 1
#: A mantissa is high * 2^12 + low, so that sums of products of these are exact in float64 and in 64 bits.
_LOW_BITS: Final = 12
#: Of numbers of one exponent: how many, sums of the mantissa, high^2, high * low and low^2.
_PER_EXPONENT: Final = 5
#: What the smallest mantissa is a multiple of is 2 to minus this.
_UNIT_BITS: Final = _MANTISSA_BITS - _LEAST_EXPONENT
#: Whole numbers per channel, by the type of pixels.
WIDTH_OF: Final = MappingProxyType(
    {name: 256 if name == USUAL_PIXELS else _NUM_EXPONENTS * _PER_EXPONENT for name in PIXEL_MAX}
)

#: As they are sent, and as Python's own, which nothing is too large for.
Counts = npt.NDArray[np.int64] | npt.NDArray[np.object_]


class Sums(NamedTuple):
    """Of the pixels of one channel, in units of 2^-`unit_bits`: exact.

    Args:
        num: How many there are.
        total: Their sum.
        squares: The sum of their squares, in squared units.
        unit_bits: 0 of uint8.
    """

    num: int
    total: int
    squares: int
    unit_bits: int

    @property
    def spread(self) -> int:
        """Their number times the squared distances from the mean, added up; negative of sums that no numbers have."""
        return self.num * self.squares - self.total * self.total

    def moments(self, pixel_max: int) -> tuple[float, float]:
        """Return mean and biased deviation of the pixels divided by `pixel_max`."""
        one = self.num * pixel_max << self.unit_bits
        # Python integers: the difference loses nothing, whatever the number of pixels.
        return self.total / one, math.sqrt(self.spread) / one


def count_pixels(images: LabelledImages) -> npt.NDArray[np.int64]:
    """Return the whole numbers of some images, shape (C, V)."""
    num_channels = images.image_shape[2]
    num_together = max(1, _VALUES_PER_PASS // math.prod(images.image_shape))
    counts_CV = np.zeros((num_channels, WIDTH_OF[images.pixel_dtype]), dtype=np.int64)
    for start in range(0, len(images), num_together):
        part = images.pixels(np.arange(start, min(start + num_together, len(images))))
        for channel in range(num_channels):
            values = part[..., channel].ravel()
            counts_CV[channel] += _by_value(values) if images.pixel_dtype == USUAL_PIXELS else _by_exponent(values)
    return counts_CV


def sums_of(counts_V: Counts, pixel_dtype: str) -> Sums:
    """Return the sums that the whole numbers of a channel say."""
    if pixel_dtype == USUAL_PIXELS:
        numbers = counts_V.tolist()
        total = sum(value * times for value, times in enumerate(numbers))
        return Sums(sum(numbers), total, sum(value * value * times for value, times in enumerate(numbers)), 0)
    count = total = squares = 0
    rows_E5 = counts_V.reshape(_NUM_EXPONENTS, _PER_EXPONENT)
    for place in np.flatnonzero(rows_E5.any(axis=1)).tolist():
        times, mantissas, high, mixed, low = rows_E5[place].tolist()
        count += times
        total += mantissas << place
        squares += (high << 2 * _LOW_BITS) + (mixed << _LOW_BITS + 1) + low << 2 * place
    return Sums(count, total, squares, _UNIT_BITS)


def why_impossible(counts_CV: npt.NDArray[np.int64], pixel_dtype: str, num_pixels: int) -> str | None:
    """Return why no images have these whole numbers, or None.

    Args:
        counts_CV: What a client sent, of the width of its type.
        pixel_dtype: The type.
        num_pixels: Of each channel.
    """
    if pixel_dtype == USUAL_PIXELS:
        # Each before their sum, which could overflow.
        is_possible = not np.any((counts_CV < 0) | (counts_CV > num_pixels))
        return None if is_possible and np.all(counts_CV.sum(axis=1) == num_pixels) else "other counts"
    rows_CE5 = counts_CV.reshape(len(counts_CV), _NUM_EXPONENTS, _PER_EXPONENT)
    if rows_CE5[..., 0].min() < 0 or rows_CE5[..., 0].max() > num_pixels:
        return "other counts"
    most = (int(MOST_VALUE) if pixel_dtype == "float32" else PIXEL_MAX[pixel_dtype]) << _UNIT_BITS
    for counts_V in counts_CV:
        sums = sums_of(counts_V, pixel_dtype)
        if sums.num != num_pixels:
            return "other counts"
        if sums.spread < 0 or not 0 <= sums.squares <= sums.num * most * most:
            return "other sums"
    return None


def _by_value(values: AnyPixels) -> npt.NDArray[np.int64]:
    return np.bincount(values, minlength=256)


def _by_exponent(values: AnyPixels) -> npt.NDArray[np.int64]:
    fractions, exponents = np.frexp(values.astype(np.float32))
    mantissas = np.ldexp(fractions, _MANTISSA_BITS).astype(np.int64)
    high, low = mantissas >> _LOW_BITS, mantissas & (1 << _LOW_BITS) - 1
    places = exponents - _LEAST_EXPONENT
    columns = [np.bincount(places, minlength=_NUM_EXPONENTS)]
    for numbers in (mantissas, high * high, high * low, low * low):
        # In float64, in which whole numbers below 2^53 are exact: no image has pixels for more.
        columns.append(np.bincount(places, numbers, _NUM_EXPONENTS).astype(np.int64))
    return np.stack(columns, axis=1).ravel()
