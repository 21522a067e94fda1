"""What a search wants: ONE row for each objective. And the front and the best that follow from them.

One of those that evaluations tell is the goal of a search: the pick is the best in it. It prices nothing and proposes
nothing.

Shapes: N architectures, K candidates, M objectives, U different rows.
"""

import dataclasses
from collections.abc import Callable, Mapping
from operator import attrgetter, methodcaller
from typing import Final

import numpy as np

from fedsup_deploy.measures import ACCURACY, AUC, BALANCED_ACCURACY, CALIBRATION_ERROR, MACRO_F1
from fedsup_deploy.searchers.prices import FloatArray, Prices
from fedsup_deploy.searchers.scoring.score import Scores
from fedsup_deploy.space.plan import BoolArray, IntArray


@dataclasses.dataclass(frozen=True)
class Objective:
    """What is known of one objective: exactly one of `price` and `score`.

    Args:
        name: In Python.
        column: Its heading in the table of a search.
        is_maximised: Whether more is better.
        price: What is known before anything is evaluated, shape (N,).
        score: What only an evaluation or a prediction tells, shape (N,); None where nobody was asked.
        recorded_as: What a candidate in search.json calls it; None puts it under `more`.
        predicted_as: The same where it was predicted from other architectures.
        is_summed: Whether exact search over stages adds it up.
        is_for_goal: Whether it counts only in a search whose goal it is, and then in place of the accuracy.
    """

    name: str
    column: str
    is_maximised: bool = False
    price: Callable[[Prices], FloatArray] | None = None
    score: Callable[[Scores], FloatArray | None] | None = None
    recorded_as: str | None = None
    predicted_as: str | None = None
    is_summed: bool = False
    is_for_goal: bool = False


def _measure(name: str, column: str, *, is_maximised: bool = True) -> Objective:
    """Return the row of what answers are worth beside their accuracy."""
    return Objective(name, column, is_maximised, score=methodcaller("measure", name), is_for_goal=True)


_ROWS: Final = (
    Objective(
        "latency_ms",
        "ms predicted",
        price=attrgetter("latency_ms"),
        recorded_as="latency_ms_predicted",
        is_summed=True,
    ),
    Objective(
        "accuracy",
        "accuracy",
        is_maximised=True,
        score=attrgetter("accuracy_K"),
        recorded_as="accuracy",
        predicted_as="accuracy_predicted",
        is_summed=True,
    ),
    Objective(
        "worst_decile",
        "worst decile",
        is_maximised=True,
        score=attrgetter("worst_decile_K"),
        recorded_as="worst_decile",
    ),
    _measure(BALANCED_ACCURACY, "balanced accuracy"),
    _measure(MACRO_F1, "macro-F1"),
    _measure(AUC, "AUC"),
    _measure(CALIBRATION_ERROR, "calibration error", is_maximised=False),
)
#: By name. The latency comes first, and so decides the order of a front.
TABLE: Final = {row.name: row for row in _ROWS}
WORST_DECILE: Final = "worst_decile"


def goals() -> tuple[str, ...]:
    """Return the names of the objectives that a search can have for its goal."""
    return tuple(row.name for row in TABLE.values() if row.score is not None)


def counting(goal: str) -> list[Objective]:
    """Return the objectives that count in a search with a goal, in the order of the table."""
    replaced = ACCURACY if TABLE[goal].is_for_goal else None
    return [row for row in TABLE.values() if row.name == goal or not (row.is_for_goal or row.name == replaced)]


def goodness(goal: str, values: FloatArray) -> FloatArray:
    """Return shares of which more is better, in [0, 1], of the values of a goal."""
    return values if TABLE[goal].is_maximised else 1 - values


def goal_of(scores: Scores) -> FloatArray:
    """Return the values of the goal of a search, shape (N,)."""
    score = TABLE[scores.goal].score
    found = None if score is None else score(scores)
    assert found is not None, "whoever finds scores knows the goal"
    return found


def priced(prices: Prices) -> dict[str, FloatArray]:
    """Return the values that are known before anything is evaluated, by the objective's name, shape (N,) each."""
    return {name: row.price(prices) for name, row in TABLE.items() if row.price is not None}


def scored(scores: Scores) -> dict[str, FloatArray]:
    """Return the values that evaluations told and that count, by the objective's name, shape (N,) each.

    None of what nobody asked.
    """
    values = {row.name: row.score(scores) for row in counting(scores.goal) if row.score is not None}
    return {name: values_N for name, values_N in values.items() if values_N is not None}


def minimised(values: Mapping[str, FloatArray]) -> FloatArray:
    """Return what a search minimises, in the order of the table, shape (N, M).

    Args:
        values: By the objective's name, shape (N,) each; what has none is no objective of this search.
    """
    known = [(row, values[name]) for name, row in TABLE.items() if name in values]
    return np.stack([-values_N if row.is_maximised else values_N for row, values_N in known], axis=1)


def are_summed() -> bool:
    """Return whether exact search over stages knows every objective that needs no evaluation."""
    return all(row.is_summed for row in TABLE.values() if row.price is not None)


def front(objectives_KM: FloatArray) -> IntArray:
    """Return the candidates that no other dominates: none is as good in every objective and better in one.

    Args:
        objectives_KM: What is to be minimised, the latency first.

    Returns:
        Their indices, fastest first; of equal ones in their order. Equal candidates are all in it or all not.
    """
    order_K = np.lexsort(objectives_KM.T[::-1])
    rows_KM = objectives_KM[order_K]
    is_new_K = np.append(True, (rows_KM[1:] != rows_KM[:-1]).any(axis=1))
    # In this order a row is dominated by none after it.
    kept_U = _kept(rows_KM[is_new_K])
    front_F: IntArray = order_K[kept_U[np.cumsum(is_new_K) - 1]]
    return front_F


def best_of(arch_id: Callable[[int], str], goodness_K: FloatArray, latency_ms_K: FloatArray) -> int:
    """Return the index of the best candidate; of equals the fastest, then the first by arch_id.

    Args:
        arch_id: Index of a candidate -> its arch_id.
        goodness_K: Of each candidate; at least one. More is better.
        latency_ms_K: Of each candidate.
    """
    best = np.flatnonzero(goodness_K == goodness_K.max())
    best = best[latency_ms_K[best] == latency_ms_K[best].min()]
    return min((int(index) for index in best), key=arch_id)


def _kept(rows_UM: FloatArray) -> BoolArray:
    """Return which of different rows, in lexicographic order, none dominates, shape (U,)."""
    if rows_UM.shape[1] == 2:
        best_before_U = np.minimum.accumulate(np.append(np.inf, rows_UM[:-1, 1]))
        return np.asarray(rows_UM[:, 1] < best_before_U)
    kept: list[int] = []
    for index, row_M in enumerate(rows_UM):
        if not (rows_UM[kept] <= row_M).all(axis=1).any():
            kept.append(index)
    return np.isin(np.arange(len(rows_UM)), kept)
