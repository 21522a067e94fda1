"""Sums of clients, on numbers small enough to check by hand. The laws are in tests/property."""

import numpy as np
import pytest

from fedsup_deploy.errors import DataError
from fedsup_deploy.recalibrate.pooled import ChannelSums, PooledStatistics, pool


def sums_of(*values: float) -> ChannelSums:
    """Return the sums of one channel that took these values."""
    array = np.array(values)
    return ChannelSums(len(values), np.array([array.sum()]), np.array([np.square(array).sum()]))


def test_mean_and_biased_variance() -> None:
    """1, 2, 3, 6: mean 12 / 4 = 3, variance 50 / 4 - 9 = 3.5."""
    mean_C, variance_C = sums_of(1, 2, 3, 6).mean_and_variance()
    assert (mean_C.tolist(), variance_C.tolist()) == ([3.0], [3.5])


def test_variance_is_never_below_zero() -> None:
    """In floats, the mean of squares of a constant may come out below the square of its mean."""
    _, variance_C = sums_of(*[0.1] * 10).mean_and_variance()
    assert variance_C[0] >= 0
    _, variance_C = ChannelSums(1, np.array([1.0]), np.array([1.0 - 1e-12])).mean_and_variance()
    assert variance_C[0] == 0


def test_rms_around_a_centre() -> None:
    """Around 1 the values 1, 2, 3, 6 are 0, 1, 2, 5: sqrt(30 / 4)."""
    assert sums_of(1, 2, 3, 6).rms_around(np.array([1.0]))[0] == pytest.approx(7.5**0.5, rel=1e-12)
    assert sums_of(0.1, 0.1, 0.1).rms_around(np.array([0.1]))[0] == pytest.approx(0, abs=1e-8)


def test_pooled_variance_contains_the_variance_between_clients() -> None:
    """Two clients of constant images, 0 and 2: each has variance 0, together it is 1."""
    first, second = sums_of(0, 0), sums_of(2, 2)
    average_of_variances = (first.mean_and_variance()[1] + second.mean_and_variance()[1]) / 2
    pooled = pool([PooledStatistics({"l": first}), PooledStatistics({"l": second})])
    mean_C, variance_C = pooled.layers["l"].mean_and_variance()
    assert (mean_C[0], variance_C[0]) == (1.0, 1.0)
    assert average_of_variances[0] == 0.0


def test_larger_client_weighs_more() -> None:
    pooled = pool([PooledStatistics({"l": sums_of(0)}), PooledStatistics({"l": sums_of(4, 4, 4)})])
    assert pooled.layers["l"].count == 4
    assert pooled.layers["l"].mean_and_variance()[0][0] == 3.0


def test_parts_are_left_alone() -> None:
    parts = [PooledStatistics({"l": sums_of(1)}), PooledStatistics({"l": sums_of(2)})]
    pool(parts)
    assert [part.layers["l"].total_C[0] for part in parts] == [1.0, 2.0]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"other": sums_of(1)}, "other layers from one client"),
        ({"l": sums_of(1), "m": sums_of(1)}, "other layers from one client"),
        ({}, "other layers from one client"),
        ({"l": ChannelSums(0, np.zeros(1), np.zeros(1))}, "layer l: got no or not finite values"),
        ({"l": ChannelSums(1, np.array([np.nan]), np.zeros(1))}, "layer l: got no or not finite values"),
        ({"l": ChannelSums(1, np.zeros(1), np.array([np.inf]))}, "layer l: got no or not finite values"),
        ({"l": ChannelSums(1, np.zeros(2), np.zeros(2))}, "layer l: got other channels"),
    ],
)
def test_statistics_that_do_not_go_together_are_refused(second: dict[str, ChannelSums], message: str) -> None:
    with pytest.raises(DataError, match=message):
        pool([PooledStatistics({"l": sums_of(1)}), PooledStatistics(second)])


def test_no_statistics_are_refused() -> None:
    with pytest.raises(DataError, match="got none, expected those of at least one client"):
        pool([])
    with pytest.raises(DataError, match="got no or not finite"):
        pool([PooledStatistics({"l": ChannelSums(0, np.zeros(1), np.zeros(1))})])


def test_layers_are_added_and_replaced() -> None:
    first = PooledStatistics({"a": sums_of(1), "b": sums_of(2)})
    both = first.with_layers(PooledStatistics({"b": sums_of(3), "c": sums_of(4)}))
    assert {name: sums.total_C[0] for name, sums in both.layers.items()} == {"a": 1.0, "b": 3.0, "c": 4.0}
    assert first.layers.keys() == {"a", "b"}


def test_arrays_round_trip_exactly() -> None:
    """Also counts above 2^24, which float32 would round."""
    sums = ChannelSums(2**24 + 1, np.array([1 / 3, 1e300]), np.array([2 / 3, 1e-300]))
    arrays = PooledStatistics({"l": sums}).to_arrays()
    assert arrays["l"].shape == (3, 2)
    again = PooledStatistics.from_arrays(arrays).layers["l"]
    assert again.count == sums.count
    assert again.total_C.tolist() == sums.total_C.tolist()
    assert again.squares_C.tolist() == sums.squares_C.tolist()
