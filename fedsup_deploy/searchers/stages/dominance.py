"""Which rows of a table no other row beats, in any number of columns. Smaller is better; what a row is does not matter.

`fedsup_deploy.searchers.objective.front` keeps equal rows and is made for few; this keeps one of them and is made for
hundreds of thousands.

Shapes: N rows, K others, D columns.
"""

from typing import Final

import numpy as np

from fedsup_deploy.searchers.prices import FloatArray
from fedsup_deploy.space.plan import BoolArray, IntArray

# Comparing so many directly with each other is faster than dividing further.
_FEW_ROWS: Final = 64
_FEW_PAIRS: Final = _FEW_ROWS**2


def undominated(costs_ND: FloatArray, order_N: IntArray) -> IntArray:
    """Return the rows that no other is at most as large as in every column; of equal rows the first by `order_N`."""
    costs_ND = costs_ND[:, np.ptp(costs_ND, axis=0) > 0] if len(costs_ND) else costs_ND
    sorted_N = np.lexsort((order_N, *costs_ND.T[::-1]))
    rows_ND = costs_ND[sorted_N]
    is_new_N = np.append(True, (rows_ND[1:] != rows_ND[:-1]).any(axis=1))[: len(rows_ND)]
    kept_N: IntArray = sorted_N[is_new_N][_kept(rows_ND[is_new_N])]
    return kept_N


def _kept(rows_ND: FloatArray) -> BoolArray:
    """Return which of different rows, in lexicographic order, none dominates, shape (N,).

    Source: H. T. Kung, F. Luccio and F. P. Preparata, "On finding the maxima of a set of vectors", JACM 22(4), 1975.
    """
    num_rows, num_criteria = rows_ND.shape
    if num_criteria < 2 or num_rows < 2:
        return np.asarray(np.arange(num_rows) == 0)
    if num_criteria == 2:
        return np.asarray(rows_ND[:, 1] < np.minimum.accumulate(np.append(np.inf, rows_ND[:-1, 1])))
    if num_rows <= _FEW_ROWS:
        is_above_NN = (rows_ND[:, None] <= rows_ND).all(axis=2)
        return np.asarray(is_above_NN.sum(axis=0) == 1)
    half = num_rows // 2
    # In this order none is dominated by a later one, and the first criterion is settled between the halves.
    kept_N = np.append(_kept(rows_ND[:half]), _kept(rows_ND[half:]))
    later = half + np.flatnonzero(kept_N[half:])
    kept_N[later] = ~_beaten(rows_ND[:half][kept_N[:half], 1:], rows_ND[later, 1:])
    return kept_N


def _beaten(by_KD: FloatArray, rows_ND: FloatArray) -> BoolArray:
    """Return which rows are at least as large in every column as one of `by_KD`, shape (N,)."""
    if not len(by_KD) or not len(rows_ND):
        return np.zeros(len(rows_ND), np.bool_)
    if by_KD.shape[1] == 2:
        return _beaten_in_two(by_KD, rows_ND)
    if len(by_KD) * len(rows_ND) <= _FEW_PAIRS:
        return np.asarray((by_KD[:, None] <= rows_ND).all(axis=2).any(axis=0))
    by_K, rows_N = by_KD[:, -1], rows_ND[:, -1]
    if by_K.max() <= rows_N.min():
        return _beaten(by_KD[:, :-1], rows_ND[:, :-1])
    low_K, low_N = _split(by_K, rows_N)
    beaten_N = np.zeros(len(rows_ND), np.bool_)
    beaten_N[low_N] = _beaten(by_KD[low_K], rows_ND[low_N])
    # The low are below the high in the last column already.
    beaten_N[~low_N] = _beaten(by_KD[low_K][:, :-1], rows_ND[~low_N][:, :-1])
    left = np.flatnonzero(~beaten_N & ~low_N)
    beaten_N[left] = _beaten(by_KD[~low_K], rows_ND[left])
    return beaten_N


def _beaten_in_two(by_KD: FloatArray, rows_ND: FloatArray) -> BoolArray:
    by_KD = by_KD[np.argsort(by_KD[:, 0])]
    least_K = np.minimum.accumulate(np.append(np.inf, by_KD[:, 1]))
    return np.asarray(least_K[np.searchsorted(by_KD[:, 0], rows_ND[:, 0], "right")] <= rows_ND[:, 1])


def _split(by_K: FloatArray, rows_N: FloatArray) -> tuple[BoolArray, BoolArray]:
    """Return which of both are low: at most, or below, a value in the middle, so that some are and some are not."""
    values = np.concatenate([by_K, rows_N])
    middle = np.partition(values, len(values) // 2)[len(values) // 2]
    if middle == values.min():
        return by_K <= middle, rows_N <= middle
    return by_K < middle, rows_N < middle
