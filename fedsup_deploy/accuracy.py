"""`CountedAccuracy`: a share of right answers together with the images that it was counted on, and so how sure it is.

Owns the interval of a share: whoever shows or stores one takes it from here. Looks at no image.
"""

import dataclasses
import math
from typing import Final

#: Probability that is meant wherever an interval is stated.
LEVEL: Final = 0.95
#: Standard deviations to both sides that hold 95 % of a normal distribution.
DEVIATIONS: Final = 1.959963984540054
#: Finer than any number of images can tell apart that anybody evaluates on, and short enough to be read.
DIGITS: Final = 6


@dataclasses.dataclass(frozen=True)
class CountedAccuracy:
    """The share of right answers.

    Args:
        correct: Right answers.
        num_images: Images looked at, at least one.
    """

    correct: int
    num_images: int

    @classmethod
    def of_share(cls, share: float, num_images: int) -> "CountedAccuracy":
        """Return the count that a share came from.

        Args:
            share: As `CountedAccuracy.share` returned it.
            num_images: Images looked at.

        Raises:
            ValueError: No number of right answers among so many images is that share.
        """
        found = cls(round(share * num_images), num_images)
        if num_images < 1 or found.share != share:
            raise ValueError(f"got {share}, which is no share of {num_images} images")
        return found

    @property
    def share(self) -> float:
        """In [0, 1]."""
        return self.correct / self.num_images

    @property
    def interval(self) -> tuple[float, float]:
        """What the share is of all images like these, with a probability of 95 %: lower and upper bound, in [0, 1].

        See `wilson`, in six digits. It takes the images for independent draws, and the network for one that was not
        chosen for its share of them: the best of many candidates on the images it was chosen by is worse on others.
        """
        low, high = wilson(self.share, self.num_images)
        return round(low, DIGITS), round(high, DIGITS)


def wilson(share: float, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a share of so many draws, at least one, in [0, 1].

    (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n) for a share p of n.

    Source: Wilson, Journal of the American Statistical Association 22, 1927.
    """
    z = DEVIATIONS
    centre = share + z**2 / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    low, high = ((centre + sign * half) / (1 + z**2 / count) for sign in (-1, 1))
    return max(low, 0.0), min(high, 1.0)
