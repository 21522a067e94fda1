"""The front and the pick, on numbers that can be checked by eye."""

import numpy as np
import pytest

from fedsup_deploy.searchers.objective import front, most_accurate


@pytest.mark.parametrize(
    ("accuracy", "latency_ms", "expected"),
    [
        ([0.5], [1.0], [0]),
        ([0.5, 0.6, 0.7], [3.0, 2.0, 1.0], [2]),
        ([0.7, 0.6, 0.5], [3.0, 2.0, 1.0], [2, 1, 0]),
        # As accurate and faster, or as fast and more accurate, is better.
        ([0.5, 0.5], [2.0, 1.0], [1]),
        ([0.5, 0.6], [1.0, 1.0], [1]),
        # Of equals neither beats the other.
        ([0.5, 0.5, 0.4], [1.0, 1.0, 2.0], [0, 1]),
        ([0.5, 0.5, 0.6], [2.0, 2.0, 1.0], [2]),
    ],
)
def test_the_front_holds_what_nothing_beats(
    accuracy: list[float], latency_ms: list[float], expected: list[int]
) -> None:
    objectives_KM = np.array([latency_ms, [-share for share in accuracy]]).T
    assert front(objectives_KM).tolist() == expected


def test_a_third_objective_can_keep_a_candidate_in_the_front() -> None:
    """Latency, then two shares: the second is slower and less accurate, but the best for the worst clients."""
    objectives_KM = -np.array([[-1.0, 0.9, 0.2], [-2.0, 0.8, 0.5], [-3.0, 0.8, 0.4], [-2.0, 0.8, 0.5]])
    assert front(objectives_KM).tolist() == [0, 1, 3]


@pytest.mark.parametrize(
    ("accuracy", "latency_ms", "expected"),
    [([0.5, 0.7, 0.6], [1.0, 9.0, 1.0], 1), ([0.7, 0.7, 0.6], [2.0, 1.0, 0.5], 1), ([0.7, 0.7, 0.7], [1.0] * 3, 2)],
)
def test_the_pick_is_the_most_accurate_then_the_fastest_then_the_first_by_name(
    accuracy: list[float], latency_ms: list[float], expected: int
) -> None:
    arch_ids = ["ac", "ab", "aa"]
    assert most_accurate(arch_ids.__getitem__, np.array(accuracy), np.array(latency_ms)) == expected
