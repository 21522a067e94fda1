"""Whether two shares can be told apart: the one rule of pages and of `watch`.

They can where the middles of their 95 % intervals are farther apart than half the widths of both together, as the sides
of a right triangle: where 0 is outside of the interval of their difference. Intervals of shares are Wilson's, whose
middle is drawn to a half, as Agresti and Caffo ask for; so what a search calls noise is never told apart here. Both
count as of draws that are independent: networks err on the same images mostly, and a comparison image by image, which
needs every answer, would tell more of them apart.
"""

import math
from typing import Final

Interval = tuple[float, float]

_TOLD: Final = {
    True: "can be told apart",
    False: "cannot be told apart",
    None: "nobody knows whether they can be told apart",
}


def can_be(one: Interval | None, other: Interval | None) -> bool | None:
    """Return whether two shares can be told apart, by their 95 % intervals in [0, 1]; None where one has none.

    Source: Agresti and Caffo, The American Statistician 54, 2000.
    """
    if one is None or other is None:
        return None
    apart = abs(sum(one) - sum(other)) / 2
    return apart > math.hypot((one[1] - one[0]) / 2, (other[1] - other[0]) / 2)


def in_words(one: Interval | None, other: Interval | None) -> str:
    """Return the same in words."""
    return _TOLD[can_be(one, other)]
