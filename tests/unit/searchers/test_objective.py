"""The front and the pick, on numbers that can be checked by eye."""

import numpy as np
import pytest

from fedsup_deploy.cli.options import OBJECTIVES
from fedsup_deploy.searchers.objective import best_of, counting, front, goals, goodness


def test_what_counts_is_the_goal_in_place_of_the_accuracy_and_beside_it_the_worst_decile() -> None:
    names = {goal: [row.name for row in counting(goal)] for goal in goals()}
    assert names["accuracy"] == names["worst_decile"] == ["latency_ms", "accuracy", "worst_decile"]
    for goal in ("balanced_accuracy", "macro_f1", "auc", "calibration_error"):
        assert names[goal] == ["latency_ms", "worst_decile", goal]
    assert {name.replace("-", "_") for name in OBJECTIVES} == set(goals())


def test_of_a_calibration_error_the_lowest_is_the_best() -> None:
    values = np.array([0.25, 0.75])
    assert goodness("calibration_error", values).tolist() == [0.75, 0.25]
    assert goodness("auc", values).tolist() == [0.25, 0.75]


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
def test_the_pick_is_the_best_of_then_the_fastest_then_the_first_by_name(
    accuracy: list[float], latency_ms: list[float], expected: int
) -> None:
    arch_ids = ["ac", "ab", "aa"]
    assert best_of(arch_ids.__getitem__, np.array(accuracy), np.array(latency_ms)) == expected
