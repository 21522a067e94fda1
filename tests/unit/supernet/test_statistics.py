"""Sums of clients, on numbers small enough to check by hand. The laws are in tests/property."""

import itertools
import math
from typing import Any

import numpy as np
import pytest

from fedsup_deploy.space.layers.layer import Layer
from fedsup_deploy.space.plan import BlockPlan, NetworkPlan
from fedsup_deploy.supernet import statistics
from fedsup_deploy.supernet.statistics import ChannelSums, PooledStatistics, StatisticsSum


def sums_of(*values: float) -> ChannelSums:
    """Return the sums of one channel that took these values."""
    array = np.array(values, dtype=np.float64)
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


def plan_of(**channels: int) -> NetworkPlan:
    """Return a network of layers with maps of one pixel, so that an image has one value per channel, and a block."""
    first, *others = (Layer(name, "conv", 1, count, in_size=1, has_norm=True) for name, count in channels.items())
    return NetworkPlan(first, (BlockPlan("b", tuple(others), (), Layer("b.add", "add", 1, 1, in_size=1)),), ())


def summed(*parts: ChannelSums) -> ChannelSums:
    """Return the sum of clients with as many images as values."""
    total = StatisticsSum(plan_of(l=1), frozenset({"l"}))
    for part in parts:
        assert total.add(PooledStatistics({"l": part}), part.count) is None
    return total.result().layers["l"]


def test_pooled_variance_contains_the_variance_between_clients() -> None:
    """Two clients of constant images, 0 and 2: each has variance 0, together it is 1."""
    first, second = sums_of(0, 0), sums_of(2, 2)
    average_of_variances = (first.mean_and_variance()[1] + second.mean_and_variance()[1]) / 2
    mean_C, variance_C = summed(first, second).mean_and_variance()
    assert (mean_C[0], variance_C[0]) == (1.0, 1.0)
    assert average_of_variances[0] == 0.0


def test_larger_client_weighs_more() -> None:
    pooled = summed(sums_of(0), sums_of(4, 4, 4))
    assert pooled.count == 4
    assert pooled.mean_and_variance()[0][0] == 3.0


def test_a_map_has_its_side_squared_values_of_each_image() -> None:
    """Of 6 pixels a stride of 4 leaves 2, so two images have 8 values."""
    plan = NetworkPlan(Layer("l", "conv", 1, 1, in_size=6, stride=4, has_norm=True), (), ())
    total = StatisticsSum(plan, frozenset({"l"}))
    assert total.add(PooledStatistics({"l": sums_of(*[1.0] * 8)}), 2) is None
    assert total.add(PooledStatistics({"l": sums_of(*[1.0] * 8)}), 3) == "layer l: 8 values, expected those of 3 images"
    assert total.result().layers["l"].count == 8


def test_only_layers_observed_have_sums_and_in_the_order_of_the_network() -> None:
    """A layer of the network that is not observed has none, and neither has one that is observed elsewhere."""
    total = StatisticsSum(plan_of(a=1, b=2, c=3), frozenset({"c", "a", "z"}))
    part = {"c": ChannelSums(1, np.ones(3), np.ones(3)), "a": sums_of(2)}
    assert total.add(PooledStatistics(part), 1) is None
    assert {name: sums.total_C.tolist() for name, sums in total.result().layers.items()} == {"a": [2.0], "c": [1.0] * 3}
    assert list(total.result().layers) == ["a", "c"]


def test_statistics_may_be_added_up_elsewhere() -> None:
    """1, 2 and 3 here, 6 there: the mean is 3 and the variance 3.5, as above."""
    total, relay = (StatisticsSum(plan_of(l=1), frozenset({"l"})) for _ in range(2))
    assert total.add(PooledStatistics({"l": sums_of(1, 2, 3)}), 3) is None
    assert relay.add(PooledStatistics({"l": sums_of(6)}), 1) is None
    total.merge(relay)
    assert total.result().layers["l"].count == 4
    assert [array.tolist() for array in total.result().layers["l"].mean_and_variance()] == [[3.0], [3.5]]
    assert relay.result().layers["l"].total_C.tolist() == [6.0]


def test_what_is_small_beside_a_large_sum_is_not_lost() -> None:
    """2^20 and 2^-61 and -2^20 leave 2^-61, in any order; floats would leave nothing."""
    parts = [ChannelSums(1, np.array([value]), np.array([2.0**40])) for value in (2.0**20, 2.0**-61, -(2.0**20))]
    for order in itertools.permutations(parts):
        assert summed(*order).total_C.tolist() == [2.0**-61]
        assert summed(*order).squares_C.tolist() == [3 * 2.0**40]


def test_less_than_a_unit_is_rounded() -> None:
    """To a multiple of 2^-61, each client's by itself."""
    tiny = ChannelSums(1, np.array([2.0**-63]), np.array([3 * 2.0**-63]))
    assert (summed(tiny).total_C[0], summed(tiny).squares_C[0]) == (0.0, 2.0**-61)
    assert summed(*[tiny] * 4).total_C[0] == 0.0


def test_parts_are_left_alone() -> None:
    parts = [sums_of(1), sums_of(2)]
    summed(*parts)
    assert [(part.total_C.tolist(), part.squares_C.tolist()) for part in parts] == [([1.0], [1.0]), ([2.0], [4.0])]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"other": sums_of(1)}, "statistics of other layers than asked for"),
        ({"l": sums_of(1), "m": sums_of(1)}, "statistics of other layers than asked for"),
        ({}, "statistics of other layers than asked for"),
        ({"l": ChannelSums(0, np.zeros(1), np.zeros(1))}, "layer l: 0 values, expected those of 1 images"),
        ({"l": sums_of(1, 1)}, "layer l: 2 values, expected those of 1 images"),
        ({"l": ChannelSums(1, np.array([np.nan]), np.zeros(1))}, "layer l: a sum is not finite or beyond 1.09951e+12"),
        ({"l": ChannelSums(1, np.zeros(1), np.array([np.inf]))}, "layer l: a sum is not finite or beyond 1.09951e+12"),
        (
            {"l": ChannelSums(1, np.array([-(2.0**40) - 1]), np.ones(1))},
            "layer l: a sum is not finite or beyond 1.09951e+12",
        ),
        ({"l": ChannelSums(1, np.zeros(1), np.array([-1.0]))}, "layer l: sums that no values have"),
        ({"l": ChannelSums(1, np.zeros(2), np.zeros(2))}, "layer l: statistics of (2,) channels"),
        ({"l": ChannelSums(1, np.zeros(1), np.zeros(2))}, "layer l: statistics of (2,) channels"),
    ],
)
def test_statistics_that_cannot_be_are_rejected_and_change_nothing(bad: dict[str, ChannelSums], reason: str) -> None:
    total = StatisticsSum(plan_of(l=1), frozenset({"l"}))
    assert total.add(PooledStatistics({"l": sums_of(3)}), 1) is None
    assert total.reason_to_reject(PooledStatistics(bad), 1) == reason
    assert total.add(PooledStatistics(bad), 1) == reason
    found = total.result().layers["l"]
    assert (found.count, found.total_C[0], found.squares_C[0]) == (1, 3.0, 9.0)


def test_one_bad_layer_of_several_rejects_all() -> None:
    total = StatisticsSum(plan_of(a=1, b=1), frozenset({"a", "b"}))
    assert total.add(PooledStatistics({"a": sums_of(1), "b": sums_of(2)}), 1) is None
    assert total.add(PooledStatistics({"a": sums_of(1), "b": sums_of(np.nan)}), 1) is not None
    assert [sums.total_C[0] for sums in total.result().layers.values()] == [1.0, 2.0]


def test_no_more_statistics_are_taken_than_can_be_added_up_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two here in place of a million."""
    monkeypatch.setattr(statistics, "MAX_PARTS", 2)
    total = StatisticsSum(plan_of(l=1), frozenset({"l"}))
    assert [total.add(PooledStatistics({"l": sums_of(1)}), 1) for _ in range(3)] == [
        None, None, "statistics of 2 clients are enough"
    ]  # fmt: skip
    assert total.result().layers["l"].count == 2


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


@pytest.mark.parametrize(
    ("array", "problem"),
    [
        (np.ones((3, 2), np.float32), r"layer l: float32 of shape \(3, 2\)"),
        (np.ones((2, 2)), r"layer l: float64 of shape \(2, 2\)"),
        (np.ones(3), r"layer l: float64 of shape \(3,\)"),
        (np.ones((3, 0)), r"layer l: float64 of shape \(3, 0\)"),
        (np.full((3, 2), np.nan), "layer l: count nan"),
        (np.full((3, 2), 0.5), "layer l: count 0.5"),
        (np.full((3, 2), -1.0), "layer l: count -1"),
        (np.arange(6.0).reshape(3, 2), "layer l: count 0"),
    ],
)
def test_arrays_that_nobody_wrote_are_refused(array: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        PooledStatistics.from_arrays({"l": array})


@pytest.mark.parametrize(
    ("layers", "problem"),
    [
        ({"a": sums_of(1)}, "layer b: missing"),
        ({"a": sums_of(1), "b": sums_of(1), "c": sums_of(1)}, "layer c: missing, unknown"),
        ({"a": sums_of(1), "b": ChannelSums(1, np.ones(2), np.ones(2))}, "layer b: .*another number of channels"),
        ({"a": sums_of(1), "b": sums_of(math.inf)}, "layer b: of no image, or not finite"),
        ({"a": sums_of(1), "b": ChannelSums(0, np.ones(1), np.ones(1))}, "layer b: of no image, or not finite"),
    ],
)
def test_statistics_of_another_network_are_refused(layers: dict[str, ChannelSums], problem: str) -> None:
    plan = plan_of(a=1, b=1)
    PooledStatistics({"a": sums_of(1), "b": sums_of(2, 3)}).check(plan)
    with pytest.raises(ValueError, match=problem):
        PooledStatistics(layers).check(plan)
