"""What is priced part by part costs, to the last bit, what every network costs on its own."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsup_deploy import resources, rng
from fedsup_deploy.config.load import load_yaml, validate
from fedsup_deploy.device.held_latency import held_latency
from fedsup_deploy.device.latency import FittedLatency, TableLatency
from fedsup_deploy.device.predictor import predictor_for
from fedsup_deploy.device.profile import Calibration, DeviceProfile, load_profile
from fedsup_deploy.searchers import pricing
from fedsup_deploy.searchers.limits import Limits
from fedsup_deploy.searchers.pricing import Target, price
from fedsup_deploy.space import cost
from fedsup_deploy.space.cost import OP_KINDS, LayerCosts
from fedsup_deploy.space.graph_size import FRAME_BYTES, graph_bytes
from fedsup_deploy.space.parts import part_names
from fedsup_deploy.space.sampling import random_genes
from fedsup_deploy.space.search_space import SearchSpace

SHIPPED = resources.shipped_names("configs/spaces")
MIB = 2**20
Seeds = st.integers(0, 2**32)


def shipped(name: str) -> SearchSpace:
    return validate(load_yaml(resources.find("configs/spaces", name)), SearchSpace)


def fitted(space: SearchSpace, genes_NG: Any, **more: Any) -> FittedLatency:
    """Costs that are no round numbers."""
    del space, genes_NG
    ops = {
        op: {"us_per_mmac": 41.3 / place, "us_per_kelement": 0.71 * place, "us_per_layer": 3.3 + place / 7}
        for place, op in enumerate(OP_KINDS, start=1)
    }
    dtype = {"dtype": "float32", "bytes_per_element": 4}
    document = {"kind": "fitted", **dtype, "network_overhead_us": 17.7, "ops": ops, "num_networks": 9}
    return FittedLatency.model_validate({**document, **more})


def fitted_with_cache(space: SearchSpace, genes_NG: Any) -> FittedLatency:
    """Blocks of 8 channels, and a cache that some networks fit in and some do not."""
    sizes = cost.costs(space, genes_NG, bytes_per_element=4)
    size_mib_N = (sizes.num_params * 4 + sizes.peak_activation_bytes) / MIB
    fits_mib, misses_mib = float(size_mib_N.min()), float(size_mib_N.max())
    cache = {"us_per_kelement": 2.3, "fits_mib": fits_mib * 0.99, "misses_mib": misses_mib * 1.01}
    return fitted(space, genes_NG, channel_block=8, cache=cache)


def table(space: SearchSpace, genes_NG: Any) -> TableLatency:
    """A time for every part of the networks, in no relation to its size."""
    names = sorted({name for part in part_names(space.plan_many(genes_NG), len(genes_NG)) for name in part.names})
    numbers = rng.generator(len(names)).uniform(5.0, 900.0, size=(len(names), 2))
    times = {
        name: {"cached_us": float(low), "uncached_us": float(low + more)}
        for name, (low, more) in zip(names, numbers, strict=True)
    }
    cache = fitted_with_cache(space, genes_NG).cache
    assert cache is not None
    calibration = {
        "scale": 1.07,
        "cached_overhead_us": 1.3,
        "uncached_overhead_us": 2.1,
        "network_overhead_us": 11.1,
        "fits_mib": cache.fits_mib,
        "misses_mib": cache.misses_mib,
        "num_networks": 9,
    }
    dtype = {"dtype": "float32", "bytes_per_element": 4}
    document = {"kind": "table", **dtype, "space": space.name, "parts": times, "calibration": calibration}
    return TableLatency.model_validate(document)


def roofline(space: SearchSpace, genes_NG: Any) -> Any:
    """As shipped."""
    del space, genes_NG
    return load_profile("raspberry-pi-4").latency


CALIBRATION = Calibration(scale=1.37, offset_us=53.1, num_networks=3, donor="other", donor_hash="0")
MODELS = {
    "roofline": (roofline, None),
    "calibrated roofline": (roofline, CALIBRATION.model_copy(update={"op_scales": {"conv": 1.1, "add": 0.3}})),
    "fitted": (fitted, None),
    "fitted with cache and channel blocks": (fitted_with_cache, None),
    "calibrated fit": (fitted_with_cache, CALIBRATION),
    "table": (table, None),
}


def target_of(model: str, space: SearchSpace, genes_NG: Any) -> Target:
    make, calibration = MODELS[model]
    update = {"latency": make(space, genes_NG), "calibration": calibration, "error": "none"}
    profile: DeviceProfile = load_profile("raspberry-pi-4").model_copy(update=update)
    return device_of(profile)


def device_of(profile: DeviceProfile) -> Target:
    """A device without limits."""
    held = held_latency(profile, profile.predicted_percentile)
    return Target(profile, Limits(), predictor_for(profile), lambda _: None, held)


def check_bit_for_bit(space: SearchSpace, genes_NG: Any, targets: list[Target]) -> None:
    """One network at a time, from all of its layers."""
    for target, prices in zip(targets, price(space, genes_NG, targets), strict=True):
        for row, genes in enumerate(genes_NG):
            costs = cost.costs(space, genes[None], bytes_per_element=4)
            num_params, peak_bytes = int(costs.num_params[0]), int(costs.peak_activation_bytes[0])
            assert prices.latency_ms[row] == target.predictor.predict(costs.layers)[0]
            assert prices.num_macs[row] == costs.num_macs[0]
            assert prices.num_params[row] == num_params
            assert prices.by_limit()["activation_mib"][row] == peak_bytes / MIB
            num_bytes = int(graph_bytes(space.plan_many(genes[None]), 1)[0]) + FRAME_BYTES
            assert prices.by_limit()["storage_mib"][row] == (4 * num_params + num_bytes) / MIB
            assert prices.by_limit()["memory_mib"][row] == (4 * num_params + peak_bytes) / MIB
            assert prices.by_limit()["resolution"][row] == space.decode(genes).resolution
    assert len({tuple(prices.latency_ms) for prices in price(space, genes_NG, targets)}) == len(targets)


@pytest.mark.parametrize("name", SHIPPED)
def test_in_every_shipped_space_with_every_latency_model(name: str) -> None:
    space = shipped(name)
    genes_NG = np.concatenate(
        [
            space.encode(space.smallest)[None],
            space.encode(space.largest)[None],
            random_genes(space, rng.generator(1), 25),
        ]
    )
    check_bit_for_bit(space, genes_NG, [target_of(model, space, genes_NG) for model in MODELS])


@settings(max_examples=15)
@given(data=st.data(), seed=Seeds)
def test_in_any_space(spaces, data: st.DataObject, seed: int) -> None:
    """Both families, choices per stage and per block, odd sizes, strides."""
    space = data.draw(spaces)
    genes_NG = random_genes(space, rng.generator(seed), 6)
    model = data.draw(st.sampled_from(sorted(MODELS)))
    check_bit_for_bit(space, genes_NG, [target_of(model, space, genes_NG)])


@settings(max_examples=15)
@given(data=st.data(), seed=Seeds)
def test_distinct_parts_are_the_layers_of_each_network(spaces, data: st.DataObject, seed: int) -> None:
    """Each part described once, and together every active layer of every network."""
    space = data.draw(spaces)
    genes_NG = random_genes(space, rng.generator(seed), 12)
    parts = space.distinct_parts(genes_NG)
    assert all(index_N.max() == count - 1 for _, count, index_N in parts)
    layers = [cost.costs_of_plan(plan, count, bytes_per_element=1).layers for plan, count, _ in parts]
    for row, genes in enumerate(genes_NG):
        found = [
            layer for each, (_, _, index_N) in zip(layers, parts, strict=True) for layer in active(each, index_N[row])
        ]
        assert found == active(cost.costs(space, genes[None], bytes_per_element=1).layers, 0)


def active(layers: LayerCosts, row: int) -> list[tuple[str, int, int]]:
    """Kind, MACs and moved elements of each active layer of one network."""
    columns = (layers.num_macs_NL[row].tolist(), layers.moved_elements_NL[row].tolist())
    every = zip(layers.ops, *columns, layers.is_active_NL[row], strict=True)
    return [(op, num_macs, moved) for op, num_macs, moved, is_active in every if is_active]


@pytest.mark.parametrize("model", MODELS)
def test_prices_do_not_depend_on_what_else_is_priced(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor on where a chunk of rows ends, nor on their order."""
    space = shipped("fedsup-mobilenet")
    genes_NG = random_genes(space, rng.generator(2), 60)
    target = target_of(model, space, genes_NG)
    (whole,) = price(space, genes_NG, [target])
    order_N = rng.generator(3).permutation(60)
    (shuffled,) = price(space, genes_NG[order_N], [target])
    assert shuffled.latency_ms.tolist() == whole.latency_ms[order_N].tolist()
    monkeypatch.setattr(pricing, "_CHUNK", 7)
    (chunked,) = price(space, genes_NG, [target])
    for name, values in whole.by_limit().items():
        assert chunked.by_limit()[name].tolist() == values.tolist(), name


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_the_same_work_in_other_layers_takes_the_same_time(data: st.DataObject) -> None:
    """As many layers of each kind, and as many MACs and elements in all of them together, but divided otherwise."""
    model = data.draw(st.sampled_from(["roofline", "calibrated roofline", "fitted"]))
    predictor = target_of(model, shipped("digits"), np.empty(0)).predictor
    numbers = rng.generator(data.draw(Seeds))
    ops = tuple(numbers.choice(["conv", "pointwise", "depthwise"], 12))
    # So few elements that every layer waits for its MACs.
    macs_2L = numbers.integers(10_000, 10**7, (1, 12)).repeat(2, axis=0)
    moved_2L = numbers.integers(1, 9, (1, 12)).repeat(2, axis=0)
    for op in set(ops):
        of_op = [index for index, each in enumerate(ops) if each == op]
        for work_2L, least in ((macs_2L, 9_000), (moved_2L, 1)):
            given_up = numbers.integers(0, work_2L[1, of_op].min() - least + 1)
            work_2L[1, of_op[0]] -= given_up
            work_2L[1, of_op[-1]] += given_up
    layers = LayerCosts(ops, np.ones((2, 12), np.bool_), macs_2L, moved_2L)
    first, second = predictor.latency(predictor.terms(layers), None)
    assert first == second


@pytest.mark.parametrize("profile", resources.shipped_names("profiles"))
def test_no_latencies_of_a_space_differ_by_rounding_alone(profile: str) -> None:
    """What is equal by the profile's costs is equal in every digit, so that ties are ties."""
    space, known = shipped("fedsup-mobilenet"), load_profile(profile)
    (prices,) = price(space, space.enumerate_genes(), [device_of(known)])
    different = np.unique(prices.latency_ms)
    assert (np.diff(different) > 1e-9 * different[1:]).all()
