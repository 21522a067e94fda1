"""Exact search over stages, on spaces whose fronts follow by hand, and on one that nobody can list."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fedsup_deploy.device.held_latency import HeldLatency, held_latency
from fedsup_deploy.device.latency import CacheMisses, FittedLatency
from fedsup_deploy.device.predictor import predictor_for
from fedsup_deploy.device.profile import Energy, load_profile
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.rng import generator
from fedsup_deploy.searchers.limits import Limits, within
from fedsup_deploy.searchers.pricing import Target, price
from fedsup_deploy.searchers.scoring.additive import AdditiveAccuracy
from fedsup_deploy.searchers.stages import labels
from fedsup_deploy.searchers.stages.front import front_over_stages, is_additive
from fedsup_deploy.space import sampling
from fedsup_deploy.space.search_space import SearchSpace

MakeTarget = Callable[..., Target]
MIB = 2**20


def zeros(space: SearchSpace) -> list[Any]:
    return [np.zeros(count) for count in space.num_choices]


def accuracy_of(space: SearchSpace, **values: list[float]) -> AdditiveAccuracy:
    """An accuracy of 0.5 plus the given values of genes, named `g3` for the gene in column 3."""
    table = zeros(space)
    for name, given in values.items():
        table[int(name.removeprefix("g"))] = np.array(given)
    return AdditiveAccuracy(0.5, tuple(table))


def fitted(**changes: Any) -> FittedLatency:
    cost = {"us_per_mmac": 1.0, "us_per_kelement": 0.0, "us_per_layer": 0.0}
    document = {
        "kind": "fitted",
        "dtype": "float32",
        "bytes_per_element": 4,
        "network_overhead_us": 0.0,
        "ops": {"conv": cost},
        "num_networks": 1,
    }
    return FittedLatency.model_validate({**document, **changes})


def test_an_accuracy_is_the_sum_over_genes(tiny_space: SearchSpace) -> None:
    accuracy = accuracy_of(tiny_space, g0=[0.0, 0.25], g2=[0.125, 0.0])
    genes_NG = np.zeros((2, len(tiny_space.num_choices)), np.int64)
    genes_NG[1, 0] = genes_NG[1, 2] = 1
    assert accuracy.of(genes_NG).tolist() == [0.625, 0.75]


@pytest.mark.parametrize(
    ("latency", "expected"),
    [
        (None, True),
        (fitted(), True),
        (fitted(channel_block=8), True),
        (fitted(cache=CacheMisses(us_per_kelement=1.0, fits_mib=0.5, misses_mib=1.0)), False),
    ],
)
def test_only_what_misses_the_cache_makes_a_latency_no_sum(
    make_target: MakeTarget, latency: FittedLatency | None, expected: bool
) -> None:
    target = make_target()
    if latency is not None:
        target = dataclasses.replace(target, profile=target.profile.model_copy(update={"latency": latency}))
    assert is_additive(target) is expected


def test_the_front_is_the_one_counted_by_hand(toy_space: SearchSpace, make_target: MakeTarget) -> None:
    """`narrow` takes 0.644 ms, `wide` 0.84 ms; see conftest.py."""
    better_wide, worse_wide = accuracy_of(toy_space, g3=[0.0, 0.1]), accuracy_of(toy_space, g3=[0.1, 0.0])
    narrow, wide = toy_space.enumerate_genes().tolist()
    assert front_over_stages(toy_space, make_target(), better_wide).tolist() == [narrow, wide]
    assert front_over_stages(toy_space, make_target(), worse_wide).tolist() == [narrow]


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"latency_ms": 0.840}, 2),
        ({"latency_ms": 0.839}, 1),
        ({"latency_ms": 0.643}, 0),
        ({"macs": 840}, 2),
        ({"macs": 839}, 1),
        ({"params": 74}, 2),
        ({"params": 73}, 1),
        # Their graphs take 1,562 and 1,295 bytes beside the numbers.
        ({"storage_mib": (74 * 4 + 1562) / MIB}, 2),
        ({"storage_mib": (74 * 4 + 1561) / MIB}, 1),
        ({"storage_mib": (52 * 4 + 1295) / MIB}, 1),
        ({"storage_mib": (52 * 4 + 1294) / MIB}, 0),
        ({"activation_mib": 160 * 4 / MIB}, 2),
        ({"activation_mib": 159 * 4 / MIB}, 1),
        ({"memory_mib": 234 * 4 / MIB}, 2),
        ({"memory_mib": 233 * 4 / MIB}, 1),
        ({"memory_mib": 147 * 4 / MIB}, 0),
        ({"resolution": 4}, 2),
        ({"resolution": 3}, 0),
        ({"params": 73, "activation_mib": 95 * 4 / MIB}, 0),
    ],
)
def test_a_cost_equal_to_its_limit_is_within_it(
    toy_space: SearchSpace, make_target: MakeTarget, limits: dict[str, float], expected: int
) -> None:
    accuracy = accuracy_of(toy_space, g3=[0.0, 0.1])
    assert front_over_stages(toy_space, make_target(**limits), accuracy).shape == (expected, 7)


def test_a_risk_and_energy_limit_the_latency(toy_space: SearchSpace, make_target: MakeTarget) -> None:
    """0.84 ms stay within 1.26 ms, and take 4.2 mJ at 5 W."""
    accuracy = accuracy_of(toy_space, g3=[0.0, 0.1])
    for limit_ms, expected in ((1.27, 2), (1.25, 1)):
        target = make_target(latency_ms=limit_ms)
        risky = dataclasses.replace(target, held=HeldLatency("p50", 1.2, False, 0.95, 1.5))
        assert len(front_over_stages(toy_space, risky, accuracy)) == expected
    for limit_mj, expected in ((4.21, 2), (4.19, 1)):
        target = make_target()
        profile = target.profile.model_copy(update={"energy": Energy(active_power_w=5.0)})
        hungry = dataclasses.replace(target, profile=profile, limits=Limits(energy_mj=limit_mj))
        assert len(front_over_stages(toy_space, hungry, accuracy)) == expected


def test_a_limit_on_a_percentile_is_met_by_that_percentile(toy_space: SearchSpace, make_target: MakeTarget) -> None:
    """0.84 ms predicted are 1.26 ms at p90."""
    accuracy = accuracy_of(toy_space, g3=[0.0, 0.1])
    for limit_ms, expected in ((1.27, 2), (1.25, 1)):
        p90 = dataclasses.replace(make_target(latency_ms=limit_ms), held=HeldLatency("p90", 1.5, is_assumed=False))
        assert len(front_over_stages(toy_space, p90, accuracy)) == expected


def test_what_the_device_cannot_run_is_left_out(make_target: MakeTarget, space_of: Callable[..., SearchSpace]) -> None:
    """A squeeze-excitation ends in a `scale`; every architecture has a `depthwise`."""
    space = space_of({"widths": [4], "depths": [1], "squeeze_excite": [False, True]})
    accuracy = accuracy_of(space, g6=[0.0, 0.1])
    expected = {("pool",): 2, ("scale",): 1, ("depthwise",): 0}
    for ops, count in expected.items():
        target = make_target()
        target = dataclasses.replace(target, profile=target.profile.model_copy(update={"unsupported_ops": ops}))
        assert len(front_over_stages(space, target, accuracy)) == count


@pytest.fixture
def twin_space(space_of: Callable[..., SearchSpace]) -> SearchSpace:
    """Two blocks of one shape with a kernel each: 3 then 5 takes as long as 5 then 3. The kernels are genes 4 and 8."""
    return space_of({"widths": [4], "depths": [2], "kernel_sizes": [3, 5]}, choices="per-block")


def test_of_equal_ones_the_first_is_returned(twin_space: SearchSpace, make_target: MakeTarget) -> None:
    accuracy = accuracy_of(twin_space, g4=[0.0, 0.1], g8=[0.0, 0.1])
    front_KG = front_over_stages(twin_space, make_target(), accuracy)
    assert front_KG[:, [4, 8]].tolist() == [[0, 0], [0, 1], [1, 1]]


def test_a_latency_that_is_no_sum_is_refused(toy_space: SearchSpace, make_target: MakeTarget) -> None:
    """It may be any function that grows with the sum, but of nothing besides."""
    accuracy = accuracy_of(toy_space, g3=[0.0, 0.1])
    target = make_target(predict=lambda macs_N, _: macs_N**2 / 1e3, latency_ms=500.0)
    assert len(front_over_stages(toy_space, target, accuracy)) == 1
    with pytest.raises(AssertionError, match="no sum over layers"):
        front_over_stages(toy_space, make_target(predict=lambda macs_N, layers_N: macs_N + layers_N), accuracy)


def test_progress_is_told_step_by_step(toy_space: SearchSpace, make_target: MakeTarget) -> None:
    """Resolution, stem, one stage, head."""
    calls: list[tuple[int, int]] = []
    front_over_stages(toy_space, make_target(), accuracy_of(toy_space), lambda done, total: calls.append((done, total)))
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]


def random_accuracy(space: SearchSpace) -> AdditiveAccuracy:
    numbers = generator(0, "accuracy")
    return AdditiveAccuracy(0.5, tuple(numbers.normal(0, 0.01, count) for count in space.num_choices))


@pytest.fixture(scope="module")
def pi_with_limits(huge_space: SearchSpace) -> Target:
    """A device with four limits that about half of the architectures exceed each."""
    profile = load_profile("raspberry-pi-4")
    free = Target(profile, Limits(), predictor_for(profile), lambda _: None, held_latency(profile, "p50"))
    (prices,) = price(huge_space, sampling.random_genes(huge_space, generator(1), 500), [free])
    names = ("latency_ms", "macs", "params", "memory_mib")
    return dataclasses.replace(
        free, limits=Limits(**{name: float(np.median(prices.by_limit()[name])) for name in names})
    )


def test_nothing_beats_the_front_of_a_space_too_large_to_list(huge_space: SearchSpace, pi_with_limits: Target) -> None:
    """Not thousands of random architectures, nor any that differs from one of the front in one gene."""
    accuracy = random_accuracy(huge_space)
    assert huge_space.num_architectures > 10**13
    front_KG = front_over_stages(huge_space, pi_with_limits, accuracy)
    (prices,) = price(huge_space, front_KG, [pi_with_limits])
    assert within(prices.by_limit(), pi_with_limits.limits).all()
    latency_ms_K, accuracy_K = prices.latency_ms, accuracy.of(front_KG)
    assert len(front_KG) > 50
    assert (np.diff(latency_ms_K) > 0).all()
    assert (np.diff(accuracy_K) > 0).all()
    others_NG = np.concatenate(
        [sampling.random_genes(huge_space, generator(2), 5000), *neighbours(huge_space, front_KG)]
    )
    (prices,) = price(huge_space, others_NG, [pi_with_limits])
    fits_N = within(prices.by_limit(), pi_with_limits.limits)
    assert fits_N.sum() > 500
    num_as_fast_N = np.searchsorted(latency_ms_K, prices.latency_ms[fits_N], "right")
    best_N = np.append(-np.inf, accuracy_K)[num_as_fast_N]
    assert (accuracy.of(others_NG[fits_N]) <= best_N + 1e-9).all()


def neighbours(space: SearchSpace, front_KG: Any) -> list[Any]:
    found = []
    for gene, count in enumerate(space.num_choices):
        for choice in range(count):
            changed_KG = front_KG.copy()
            changed_KG[:, gene] = choice
            found.append(space.canonical(changed_KG))
    return found


def test_too_many_partial_architectures_are_given_up(
    huge_space: SearchSpace, pi_with_limits: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labels, "MAX_LABELS", 200)
    with pytest.raises(
        ConfigError, match=r"got [\d,]+ partial architectures .* expected at most 200; give fewer limits"
    ):
        front_over_stages(huge_space, pi_with_limits, random_accuracy(huge_space))
