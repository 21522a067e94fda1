"""The learning rate, round by round."""

import pytest

from fedsup_deploy.federation.server.schedule import learning_rate


def rates(rounds: int, warmup: int, peak: float, final: float) -> list[float]:
    return [learning_rate(index, rounds, warmup, peak, final) for index in range(rounds)]


def test_warm_up_is_linear_and_the_cosine_falls_from_the_peak() -> None:
    """Three quarters of the way up, then cosines of 0, 45, 90 and 135 degrees."""
    root = 2**0.5 / 2
    expected = [0.25, 0.5, 0.75, 1.0, (1 + root) / 2, 0.5, (1 - root) / 2]
    assert rates(7, 3, 1.0, 0.0) == pytest.approx(expected, rel=1e-12)


def test_final_rate_is_where_the_cosine_ends() -> None:
    """One round after the last it would be there; half-way it is between peak and final."""
    assert rates(4, 0, 0.5, 0.1) == pytest.approx([0.5, 0.3 + 0.2 * 0.5**0.5, 0.3, 0.3 - 0.2 * 0.5**0.5], rel=1e-12)
    assert learning_rate(4, 4, 0, 0.5, 0.1) == pytest.approx(0.1)


def test_warm_up_may_take_all_rounds() -> None:
    assert rates(3, 3, 1.0, 0.0) == [0.25, 0.5, 0.75]


def test_one_round_has_the_peak() -> None:
    assert rates(1, 0, 0.3, 0.0) == [0.3]


def test_the_rate_warms_up_again_towards_the_cosine() -> None:
    """From round 3 on: a third, two thirds, then all of what it would be."""
    once = rates(8, 2, 1.0, 0.1)
    again = [learning_rate(index, 8, 2, 1.0, 0.1, 3) for index in range(8)]
    assert again == pytest.approx([*once[:3], once[3] / 3, once[4] * 2 / 3, *once[5:]], rel=1e-12)


def test_two_warm_ups_do_not_multiply() -> None:
    """The second begins in the first: what counts is where the second stands."""
    assert [learning_rate(index, 6, 3, 1.0, 0.0, 1) for index in range(4)] == [0.25, 0.25, 0.5, 0.75]
