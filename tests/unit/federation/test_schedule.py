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
