"""Laws of activation counts: they belong to bins by size, add up in any order, and never say more than was seen.

Shapes: N numbers, V values of a graph, B bins.
"""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedsup_deploy.supernet.ranges import EDGES, NUM_BINS, ActivationCounts, count

NUMBERS = st.floats(-(2.0**20), 2.0**20, width=32)
SOME = arrays(np.float32, st.integers(1, 50), elements=NUMBERS)


def counted(values_N: np.ndarray) -> ActivationCounts:
    extremes_V2 = np.array([[values_N.min(), values_N.max()]], dtype=np.float32)
    return ActivationCounts(count(values_N)[None], extremes_V2)


@given(SOME)
def test_a_number_is_counted_in_the_bin_that_it_lies_in(values_N: np.ndarray) -> None:
    """Of its two ends a bin has the one that is nearer to zero."""
    right_N, left_N = (np.searchsorted(EDGES, values_N, side) - 1 for side in ("right", "left"))
    bins_N = np.where(values_N < 0, left_N, right_N)
    assert (count(values_N) == np.bincount(bins_N, minlength=NUM_BINS)).all()


@given(SOME, SOME)
def test_counts_of_parts_add_up_to_those_of_the_whole(one_N: np.ndarray, other_N: np.ndarray) -> None:
    whole, parts = counted(np.concatenate([one_N, other_N])), [counted(one_N), counted(other_N)]
    for added in (parts[0] + parts[1], parts[1] + parts[0]):
        assert (added.counts_VB == whole.counts_VB).all()
        assert (added.extremes_V2 == whole.extremes_V2).all()


@given(SOME, st.floats(0, 0.4))
def test_a_range_leaves_no_more_out_than_it_may(values_N: np.ndarray, share: float) -> None:
    ((low, high),) = counted(values_N).ranges(share)
    assert values_N.min() <= low <= high <= values_N.max()
    for outside in ((values_N < low).sum(), (values_N > high).sum()):
        assert outside <= share * len(values_N)


@given(SOME)
def test_the_range_of_all_ends_where_the_numbers_do(values_N: np.ndarray) -> None:
    assert counted(values_N).ranges(0.0).tolist() == [[values_N.min(), values_N.max()]]


@given(SOME)
def test_honest_counts_are_taken_and_others_are_not(values_N: np.ndarray) -> None:
    honest, sizes = counted(values_N), {"value": len(values_N)}
    assert honest.reason_to_reject(sizes, 1) is None
    assert honest.reason_to_reject(sizes, 2) == "other counts than 2 images have"
    moved = ActivationCounts(honest.counts_VB, honest.extremes_V2 + np.float32([[-(2.0**21), 2.0**21]]))
    is_known = {0, NUM_BINS - 1} <= set(np.flatnonzero(honest.counts_VB[0]))
    assert is_known or "not those of the counts" in str(moved.reason_to_reject(sizes, 1))
