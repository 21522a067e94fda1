"""What was measured stands as it was measured; only the rest is predicted, and marked."""

from typing import Any

import numpy as np
import pytest

from fedsup_deploy.searchers.scoring.known import KnownAccuracy
from fedsup_deploy.searchers.scoring.score import Scores

GENES_TG = np.array([[1, 0], [0, 2], [1, 0]])


class Half:
    """Predicts 0.5, and remembers for whom."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def predict(self, genes_NG: Any) -> Any:
        self.asked += genes_NG.tolist()
        return np.full(len(genes_NG), 0.5)


@pytest.fixture
def known() -> KnownAccuracy:
    """Two were measured, one of them twice."""
    return KnownAccuracy(Half(), GENES_TG, Scores(np.array([0.9, 0.2, 0.1]), np.array([0.8, 0.1, 0.0])))


def test_a_measured_accuracy_comes_before_a_prediction(known: KnownAccuracy) -> None:
    scores = known.scores(np.array([[0, 0], [0, 2], [1, 0], [1, 1]]))
    assert scores.accuracy_K.tolist() == [0.5, 0.2, 0.9, 0.5]
    assert scores.is_measured().tolist() == [False, True, True, False]
    assert scores.worst_decile_K is None
    assert known.predictor.asked == [[0, 0], [1, 1]]
    assert known.predict(np.array([[1, 0], [2, 2]])).tolist() == [0.9, 0.5]


def test_what_was_measured_keeps_its_worst_decile(known: KnownAccuracy) -> None:
    scores = known.measured(np.array([[1, 0], [0, 2]]))
    assert (scores.accuracy_K.tolist(), scores.worst_decile_K.tolist()) == ([0.9, 0.2], [0.8, 0.1])
    assert scores.is_measured().all()
    assert known.to_list() == [[0, 2, 0.2], [1, 0, 0.9]]


def test_where_nothing_was_measured_all_is_predicted() -> None:
    known = KnownAccuracy(Half(), GENES_TG[:0], Scores(np.empty(0)))
    assert known.predict(GENES_TG).tolist() == [0.5] * 3
    assert not known.is_measured(GENES_TG).any()


def test_marks_stay_with_their_scores(known: KnownAccuracy) -> None:
    first, second = known.scores(GENES_TG), known.scores(np.array([[2, 2]]))
    both = first.with_more(second)
    assert both.is_measured().tolist() == [True, True, True, False]
    assert both.take(np.array([3, 0])).is_measured().tolist() == [False, True]
