"""The predictors, on numbers that can be checked by hand."""

from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsup_deploy.device.heldout import HeldOutError, held_out_error
from fedsup_deploy.device.latency import CacheMisses, FittedLatency, LinearCost, OpKind, TableLatency
from fedsup_deploy.device.predictor import (
    CalibratedPredictor,
    FittedPredictor,
    LatencyPredictor,
    RooflinePredictor,
    TablePredictor,
    miss_share,
    predict_interval,
    predictor_for,
)
from fedsup_deploy.device.profile import DeviceProfile, load_profile
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.space import cost
from fedsup_deploy.space.cost import OP_KINDS, LayerCosts, costs_of
from fedsup_deploy.space.parts import name_of, parts_of
from fedsup_deploy.space.search_space import SearchSpace


def toy_profile(error: Any = "none") -> DeviceProfile:
    """2,000 MACs per us in convolutions; 1,000 elements per us; 3 us per computing and 1 us per moving layer; 5 us."""
    shipped = load_profile("raspberry-pi-4").model_dump(by_alias=True)
    compute, move = {"gmacs_per_s": 2.0, "overhead_us": 3.0}, {"overhead_us": 1.0}
    ops = {op: move if op in {"pool", "global_pool", "add", "scale"} else compute for op in OP_KINDS}
    latency = {**shipped["latency"], "memory_bandwidth_gb_s": 4.0, "network_overhead_us": 5.0, "ops": ops}
    return DeviceProfile.model_validate({**shipped, "latency": latency, "error": error})


def layers(ops: tuple[str, ...], active: Any, macs: Any, moved: Any) -> LayerCosts:
    return LayerCosts(ops, np.array(active, np.bool_), np.array(macs, np.int64), np.array(moved, np.int64))


def test_a_layer_takes_the_longer_of_computing_and_moving_and_its_overhead() -> None:
    costs = layers(
        ("conv", "add"),
        active=[[True, True], [True, True], [False, True]],
        macs=[[20_000, 0], [2_000, 0], [0, 0]],
        moved=[[4_000, 2_000], [4_000, 2_000], [0, 500]],
    )
    # us: max(10, 4) + 3 + 2 + 1 + 5;  max(1, 4) + 3 + 2 + 1 + 5;  0.5 + 1 + 5
    expected = np.array([0.021, 0.015, 0.0065])
    np.testing.assert_allclose(predictor_for(toy_profile()).predict(costs), expected, rtol=1e-12)


def test_the_predictor_is_the_one_of_the_profiles_kind() -> None:
    assert isinstance(predictor_for(toy_profile()), RooflinePredictor)


def test_a_kind_of_layer_without_a_cost_is_refused() -> None:
    costs = layers(("conv", "softmax"), [[True, True]], [[1, 0]], [[1, 1]])
    with pytest.raises(ConfigError, match="no cost for 'softmax'"):
        predictor_for(toy_profile()).predict(costs)


@given(st.data())
def test_many_at_once_are_predicted_as_one_by_one(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 4))
    shape = (count, len(OP_KINDS))
    numbers = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    active = numbers.random(shape) < 0.7
    macs, moved = (numbers.integers(0, 10**7, shape) * active for _ in range(2))
    predictor = predictor_for(toy_profile())
    together = predictor.predict(layers(OP_KINDS, active, macs, moved))
    alone = [predictor.predict(layers(OP_KINDS, active[[i]], macs[[i]], moved[[i]])) for i in range(count)]
    np.testing.assert_allclose(together, np.concatenate(alone), rtol=1e-12)
    assert (together >= 0.005).all()


def error(ratios: list[float], method: Any = "held-out") -> HeldOutError:
    return held_out_error(np.ones(len(ratios)), np.array(ratios), method)


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ("none", None),
        # With 19 networks the bound of 95 % is the largest difference: 20 x 0.95 = 19.
        # Of a ratio below 1 as written, the true one may be lower by one unit of its last digit.
        (error([0.9, *[1.0] * 17, 1.02]), (8.999, 11.001)),
        (error([0.98, *[1.0] * 17, 1.2]), (8.0, 12.0)),
        (error([1.0] * 18), None),
        (error([1.0] * 19, method="published"), None),
        (error([*[1.0] * 18, 3.5]), (0.0, 35.0)),
    ],
)
def test_an_interval_is_claimed_only_where_held_out_networks_support_it(known: Any, expected: Any) -> None:
    interval = predict_interval(toy_profile(known), np.array([10.0]))
    if expected is None:
        assert interval is None
    else:
        assert interval is not None
        assert (float(interval[0][0]), float(interval[1][0])) == pytest.approx(expected)


def test_a_calibrated_profile_predicts_on_a_straight_line() -> None:
    document = toy_profile().model_dump(by_alias=True)
    calibration = {"scale": 2.0, "offset_us": 100.0, "num_networks": 3, "donor": "toy", "donor_hash": "0"}
    provenance = {**document["provenance"], "calibration": next(iter(document["provenance"].values()))}
    profile = DeviceProfile.model_validate({**document, "calibration": calibration, "provenance": provenance})
    costs = layers(("conv",), [[True]], [[20_000]], [[0]])
    # us: 2 x (10 + 3 + 5) + 100
    assert predictor_for(profile).predict(costs) == pytest.approx([0.136])
    assert isinstance(predictor_for(profile), CalibratedPredictor)


FITTED = FittedLatency.model_validate(
    {
        "kind": "fitted",
        "dtype": "float32",
        "bytes_per_element": 4,
        "network_overhead_us": 5.0,
        "ops": {
            "conv": {"us_per_mmac": 100.0, "us_per_kelement": 2.0, "us_per_layer": 1.0},
            "add": {"us_per_mmac": 0.0, "us_per_kelement": 3.0, "us_per_layer": 0.0},
        },
        "num_networks": 2,
    }
)


def test_fitted_costs_add_up() -> None:
    costs = layers(("conv", "add"), [[True, True], [True, False]], [[20_000, 0]] * 2, [[4_000, 1_000], [4_000, 0]])
    # us: 2 + 8 + 1, and 3 for the sum that only the first has, and 5
    expected = np.array([0.019, 0.016])
    np.testing.assert_allclose(FittedPredictor(FITTED).predict(costs), expected, rtol=1e-12)


def test_fitted_costs_of_missing_the_cache_grow_with_the_size() -> None:
    cache = {"us_per_kelement": 10.0, "fits_mib": 1.0, "misses_mib": 3.0}
    latency = FittedLatency.model_validate({**FITTED.model_dump(), "cache": cache})
    small, middle, large = (round(size * 2**20 / 4) for size in (1, 2, 9))
    costs = LayerCosts(
        ("conv",),
        np.ones((3, 1), np.bool_),
        np.zeros((3, 1), np.int64),
        np.full((3, 1), 1_000, np.int64),
        working_set_elements_N=np.array([small, middle, large]),
    )
    # us: 2 + 1 + 5, and none, half and all of 10
    np.testing.assert_allclose(FittedPredictor(latency).predict(costs), [0.008, 0.013, 0.018], rtol=1e-5)
    with pytest.raises(ConfigError, match="needs the size of a network"):
        FittedPredictor(latency).predict(layers(("conv",), [[True]], [[0]], [[0]]))


def test_channels_count_in_whole_blocks(space_of: Callable[..., SearchSpace]) -> None:
    """Widths of 5 and 8 cost the same where 8 channels are computed together; the image's one channel stays one."""
    space = space_of({"widths": [5, 8], "depths": [1]}, stem={"widths": [8]})
    ops = {op: {"us_per_mmac": 1.0, "us_per_kelement": 1.0, "us_per_layer": 0.0} for op in OP_KINDS}
    alone, together = (
        FittedPredictor(FittedLatency.model_validate({**FITTED.model_dump(), "ops": ops, "channel_block": block}))
        for block in (1, 8)
    )
    both = costs_of(space, [space.smallest, space.largest]).layers
    narrow_ms, wide_ms = together.predict(both)
    # The narrow one has a 1x1 convolution on its shortcut that the wide one can do without.
    assert narrow_ms > wide_ms
    assert alone.predict(both)[0] < narrow_ms
    # The classes of the wide one are 3, of a block of 8: 8 weights and 1 bias more for each of the other 5.
    extra_us = 5 * (8 + 1 + 1) / 1e3 + 5 * 8 / 1e6
    assert wide_ms == pytest.approx(alone.predict(both)[1] + extra_us / 1e3)
    with pytest.raises(ConfigError, match="needs the layers of a search space"):
        together.predict(layers(("conv",), [[True]], [[0]], [[0]]))


def test_an_operation_no_timed_network_had_is_refused_only_where_it_occurs() -> None:
    absent, present = (layers(("conv", "scale"), [[True, there]], [[0, 0]], [[0, 0]]) for there in (False, True))
    assert FittedPredictor(FITTED).predict(absent) == pytest.approx([0.006])
    with pytest.raises(ConfigError, match="no cost for 'scale'"):
        FittedPredictor(FITTED).predict(present)


def table_of(space: SearchSpace, cached_us: float, uncached_us: float, **calibration: float) -> TableLatency:
    """A table in which every part of the space costs the same."""
    names = {name_of(part) for genes in space.enumerate_genes() for part in parts_of(space.plan(space.decode(genes)))}
    identity = {
        "scale": 1.0,
        "cached_overhead_us": 0.0,
        "uncached_overhead_us": 0.0,
        "network_overhead_us": 0.0,
        "fits_mib": 1.0,
        "misses_mib": 2.0,
        "num_networks": 1,
    }
    return TableLatency.model_validate(
        {
            "kind": "table",
            "dtype": "float32",
            "bytes_per_element": 4,
            "space": space.name,
            "parts": {name: {"cached_us": cached_us, "uncached_us": uncached_us} for name in names},
            "calibration": {**identity, **calibration},
        }
    )


def test_a_table_adds_the_parts_that_each_network_has(tiny_space: SearchSpace) -> None:
    """Stem, head, one block of the second stage and one or two of the first: 4 or 5 parts."""
    found = cost.costs(tiny_space, tiny_space.enumerate_genes())
    num_parts_N = np.array([len(parts_of(tiny_space.plan(tiny_space.decode(g)))) for g in tiny_space.enumerate_genes()])
    assert set(num_parts_N) == {4, 5}
    latency = table_of(tiny_space, 10.0, 99.0, scale=2.0, cached_overhead_us=3.0, network_overhead_us=1.0)
    expected = (num_parts_N * (2 * 10.0 - 3.0) + 1.0) / 1e3
    np.testing.assert_allclose(TablePredictor(latency).predict(found.layers), expected, rtol=1e-12)


def test_a_table_takes_uncached_times_for_networks_larger_than_the_cache(tiny_space: SearchSpace) -> None:
    found = costs_of(tiny_space, [tiny_space.smallest])
    latency = table_of(tiny_space, 10.0, 50.0, fits_mib=0.0, misses_mib=1e-6, uncached_overhead_us=5.0)
    assert TablePredictor(latency).predict(found.layers) == pytest.approx([4 * 45.0 / 1e3])


def test_a_table_knows_its_own_space_only(tiny_space: SearchSpace, detour_space: SearchSpace) -> None:
    predictor = TablePredictor(table_of(tiny_space, 1.0, 1.0))
    with pytest.raises(
        ConfigError, match="was not timed: the table is about space tiny and images of certain channels"
    ):
        predictor.predict(costs_of(detour_space, [detour_space.largest]).layers)
    with pytest.raises(ConfigError, match="not lists of layers"):
        predictor.predict(layers(("conv",), [[True]], [[0]], [[0]]))


def test_a_network_takes_some_time_whatever_the_overheads(tiny_space: SearchSpace) -> None:
    latency = table_of(tiny_space, 1.0, 1.0, cached_overhead_us=50.0)
    assert TablePredictor(latency).predict(costs_of(tiny_space, [tiny_space.largest]).layers) == pytest.approx([1e-5])


def test_the_share_that_misses_the_cache_rises_from_none_to_all() -> None:
    expected = [0.0, 0.0, 0.25, 1.0, 1.0]
    assert miss_share(np.array([0.1, 1.0, 1.5, 3.0, 9.0]), 1.0, 3.0).tolist() == expected


@pytest.mark.parametrize("kind", ["roofline", "fitted", "table"])
def test_a_network_is_predicted_the_same_alone_and_among_others(tiny_space: SearchSpace, kind: str) -> None:
    """To the last digit: a limit that equals a prediction has to be met by it."""
    genes_NG = tiny_space.enumerate_genes()
    predictor: LatencyPredictor = {
        "roofline": lambda: predictor_for(load_profile("raspberry-pi-4")),
        "fitted": lambda: FittedPredictor(fitted_of_everything()),
        "table": lambda: TablePredictor(table_of(tiny_space, 1.1, 2.3)),
    }[kind]()
    together = predictor.predict(cost.costs(tiny_space, genes_NG).layers)
    alone = [
        float(predictor.predict(cost.costs(tiny_space, genes_NG[[row]]).layers)[0]) for row in range(len(genes_NG))
    ]
    assert together.tolist() == alone


def fitted_of_everything() -> FittedLatency:
    linear = LinearCost(us_per_mmac=0.123, us_per_kelement=0.0457, us_per_layer=0.891)
    return FittedLatency(
        kind="fitted",
        dtype="float32",
        bytes_per_element=4,
        network_overhead_us=1.7,
        ops=dict.fromkeys(get_args(OpKind), linear),
        cache=CacheMisses(us_per_kelement=0.3, fits_mib=0.0001, misses_mib=0.01),
        num_networks=75,
    )
