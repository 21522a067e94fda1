"""Whether two shares can be told apart: the one rule of pages and of `watch`.

They can where 0 is outside of the 95 % interval of their difference, which follows from their own intervals. Both count
as of draws that are independent. Candidates err on the same images mostly, so that a comparison image by image, which
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


def can_be(one: float, one_interval: Interval | None, other: float, other_interval: Interval | None) -> bool | None:
    """Return whether two shares in [0, 1] can be told apart, by their 95 % intervals; None where one has none.

    Source: Newcombe, Statistics in Medicine 17, 1998, method 10.
    """
    if one_interval is None or other_interval is None:
        return None
    if one < other:
        one, one_interval, other, other_interval = other, other_interval, one, one_interval
    return one - other > math.hypot(one - one_interval[0], other_interval[1] - other)


def in_words(one: float, one_interval: Interval | None, other: float, other_interval: Interval | None) -> str:
    """Return the same in words."""
    return _TOLD[can_be(one, one_interval, other, other_interval)]
