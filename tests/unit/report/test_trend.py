"""Whether accuracy still rises: the one rule of pages and of `watch`."""

from typing import Any

import pytest

from fedsup_deploy.report import trend
from fedsup_deploy.run_events import Evaluation


def evaluations(*largest: float, smallest: float = 0.5, num_images: int | None = 1000) -> list[Any]:
    """Return evaluations every ten rounds, of the largest subnet these accuracies."""
    return [
        Evaluation(round=10 * at + 9, accuracy_largest=each, accuracy_smallest=smallest, num_images=num_images)
        for at, each in enumerate(largest)
    ]


def test_one_evaluation_tells_of_no_change() -> None:
    assert trend.in_words(evaluations(0.5)) is None
    assert trend.of(evaluations(0.5)) == ()


@pytest.mark.parametrize(
    ("accuracies", "told"),
    [
        ((0.5, 0.7), "it still rises, so more rounds may bring more"),
        ((0.5, 0.51), "whether more rounds would help, these images cannot tell"),
        ((0.7, 0.5), "it has fallen, and more rounds like these do not help"),
        ((0.9, 0.7, 0.69), "it has fallen, and more rounds like these do not help"),
    ],
)
def test_whether_more_rounds_would_help_is_said_as_far_as_images_tell(accuracies: Any, told: str) -> None:
    assert (trend.in_words(evaluations(*accuracies)) or "").endswith(told)


def test_a_change_that_cannot_be_told_apart_is_told_all_the_same() -> None:
    """With its size: nothing on the page would otherwise say how training ended."""
    told = trend.in_words(evaluations(0.50, 0.51))
    assert told is not None
    assert told.startswith(
        "in the last 10 rounds, by size: the largest +1.0 points, the smallest 0.0 points, "
        "cannot be told apart from no change; "
    )
    told = trend.in_words(evaluations(0.5, 0.7))
    assert "largest +20.0 points, can be told apart from no change, the smallest" in (told or "")
    unknown = trend.in_words(evaluations(0.5, 0.7, num_images=None))
    assert "nobody knows whether that is a change" in (unknown or "")


def test_of_many_evaluations_means_are_compared_so_that_one_swing_is_no_trend() -> None:
    """The last one alone is 20 points below the one before."""
    swinging = [0.60, 0.62, 0.61, 0.63, 0.62, 0.64, 0.74, 0.54]
    found = trend.of(evaluations(*swinging))[0]
    assert found.change == pytest.approx(0.64 - 0.63)
    assert found.is_apart is False
    told = trend.in_words(evaluations(*swinging))
    assert told is not None
    assert told.startswith(
        "in the last 20 rounds, the mean of 2 evaluations less that of 2 before, by size: the largest"
    )


def test_a_fall_below_the_best_is_said_with_its_round() -> None:
    assert list(trend.fallen(evaluations(0.5, 0.926, 0.837))) == [
        "the largest subnet is -8.9 points against its best, 92.6 % in round 20: they can be told apart"
    ]
    assert list(trend.fallen(evaluations(0.5, 0.845, 0.837))) == []
