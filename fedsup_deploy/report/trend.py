"""Whether accuracy still rises over the evaluations of a run: the one rule of pages and of `watch`.

The last evaluations are held against as many before them. All are of the same images, so the interval of a mean of
several counts as that of one of them: it is not narrower.
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from fedsup_deploy.report import apart, words
from fedsup_deploy.report.apart import Interval
from fedsup_deploy.run_events import CORNERS, Evaluation

#: Evaluations that are taken together at most, and of how many one is.
_MOST_TOGETHER: Final = 5
_SHARE_TOGETHER: Final = 4


class Trend(NamedTuple):
    """How the accuracy of the subnet of one size has changed at the end.

    Args:
        size: One of `CORNERS`.
        change: Mean of the last evaluations less that of those before.
        is_apart: Whether both can be told apart; None where nobody knows.
        best: The highest accuracy of all evaluations.
        best_round: The first round, from 1, after which it was so.
        below_best: How far the last one is below it; 0 where it is the best.
        is_below: Whether that can be told apart; None where nobody knows.
    """

    size: str
    change: float
    is_apart: bool | None
    best: float
    best_round: int
    below_best: float
    is_below: bool | None

    @property
    def is_rising(self) -> bool:
        """Whether it rose for certain."""
        return self.change > 0 and self.is_apart is True

    @property
    def is_falling(self) -> bool:
        """Whether it fell for certain: since those before, or since its best."""
        return (self.change < 0 and self.is_apart is True) or (self.below_best > 0 and self.is_below is True)


def together(num_evaluations: int) -> int:
    """Return how many of the last evaluations are held against as many before them."""
    return max(1, min(_MOST_TOGETHER, num_evaluations // _SHARE_TOGETHER))


def of(evaluations: Sequence[Evaluation]) -> tuple[Trend, ...]:
    """Return how accuracy has changed, by size; nothing before the second evaluation."""
    return tuple(_trend(evaluations, corner) for corner in CORNERS) if len(evaluations) > 1 else ()


def _trend(evaluations: Sequence[Evaluation], corner: str) -> Trend:
    number = together(len(evaluations))
    last, before = evaluations[-number:], evaluations[-2 * number : -number]
    means = [sum(each.accuracy(corner) for each in some) / number for some in (last, before)]
    best = max(evaluations, key=lambda each: each.accuracy(corner))
    end = evaluations[-1]
    return Trend(
        corner,
        means[0] - means[1],
        apart.can_be(_mean_interval(last, corner), _mean_interval(before, corner)),
        best.accuracy(corner),
        best.round + 1,
        best.accuracy(corner) - end.accuracy(corner),
        apart.can_be(best.interval(corner), end.interval(corner)),
    )


def _mean_interval(some: Sequence[Evaluation], corner: str) -> Interval | None:
    known = [interval for each in some if (interval := each.interval(corner)) is not None]
    if len(known) < len(some):
        return None
    low, high = (sum(ends) / len(known) for ends in zip(*known, strict=True))
    return low, high


def in_words(evaluations: Sequence[Evaluation]) -> str | None:
    """Return how accuracy changed at the end, and whether more rounds would help; None before the second evaluation."""
    found = of(evaluations)
    if not found:
        return None
    number = together(len(evaluations))
    span = words.counted(evaluations[-1].round - evaluations[-1 - number].round, "round")
    how = "" if number == 1 else f", the mean of {number} evaluations less that of {number} before"
    changes = ", ".join(f"the {each.size} {words.points(each.change)}{_alone(each, found)}" for each in found)
    return f"in the last {span}{how}, by size: {changes}{_both(found)}; {_more_rounds(found)}"


_FROM_NONE: Final = {
    True: "can be told apart from no change",
    False: "cannot be told apart from no change",
    None: "nobody knows whether that is a change",
}


def _both(found: Sequence[Trend]) -> str:
    return f", {_FROM_NONE[found[0].is_apart]}" if len({each.is_apart for each in found}) == 1 else ""


def _alone(one: Trend, found: Sequence[Trend]) -> str:
    return "" if _both(found) else f", {_FROM_NONE[one.is_apart]}"


def _more_rounds(found: Sequence[Trend]) -> str:
    """Return whether more rounds would help, as far as anybody can tell."""
    if any(each.is_falling for each in found):
        return "it has fallen, and more rounds like these do not help"
    if any(each.is_rising for each in found):
        return "it still rises, so more rounds may bring more"
    return "whether more rounds would help, these images cannot tell"


def fallen(evaluations: Sequence[Evaluation]) -> Iterator[str]:
    """Yield of which size the last accuracy is below its best, where that can be told apart."""
    for each in of(evaluations):
        if each.is_below and each.below_best > 0:
            best = f"its best, {words.share(each.best)} in round {each.best_round}"
            yield f"the {each.size} subnet is {words.points(-each.below_best)} against {best}: they can be told apart"
