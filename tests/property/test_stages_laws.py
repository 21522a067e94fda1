"""Exact search over stages is brute force, whatever the space, the device, the accuracies and the limits."""

import dataclasses
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedsup_deploy import registry, resources
from fedsup_deploy.config.load import load_yaml, validate
from fedsup_deploy.device.held_latency import HeldLatency, held_latency
from fedsup_deploy.device.latency import FittedLatency
from fedsup_deploy.device.predictor import predictor_for
from fedsup_deploy.device.profile import Calibration, DeviceProfile, Energy, load_profile
from fedsup_deploy.searchers.limits import Limits, within
from fedsup_deploy.searchers.objective import front
from fedsup_deploy.searchers.prices import Prices
from fedsup_deploy.searchers.pricing import Target, price
from fedsup_deploy.searchers.scoring.additive import AdditiveAccuracy
from fedsup_deploy.searchers.stages.dominance import undominated
from fedsup_deploy.searchers.stages.front import front_over_stages, is_additive
from fedsup_deploy.searchers.stages.labels import (
    ACTIVATIONS,
    LATENCY,
    LOSS,
    NUM_COSTS,
    PARAMS,
    Most,
    Step,
    best_paths,
    combined,
)
from fedsup_deploy.space.cost import OP_KINDS
from fedsup_deploy.space.search_space import SearchSpace

#: Few enough to try all.
MOST_ARCHITECTURES = 3000

law = settings(max_examples=40, suppress_health_check=[HealthCheck.filter_too_much])


def some(*choices: Any, least: int = 1) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.sampled_from(choices), min_size=least, max_size=3, unique=True).map(sorted)


@st.composite
def small_spaces(draw: st.DrawFn) -> SearchSpace:
    """Spaces with any kind of choice, of at most `MOST_ARCHITECTURES`."""
    stage = st.fixed_dictionaries(
        {"widths": some(4, 8, 12, least=2), "depths": some(1, 2, 3), "stride": st.sampled_from([1, 2])},
        optional={
            "kernel_sizes": some(1, 3, 5),
            "expand_ratios": some(0.5, 1, 2),
            "squeeze_excite": some(False, True),
        },
    )
    stages = draw(st.lists(stage, min_size=1, max_size=3))
    document = {
        "schema": 1,
        "name": "random",
        "family": draw(st.sampled_from(registry.names("family"))),
        "in_channels": draw(st.sampled_from([1, 3])),
        "num_classes": 3,
        "resolutions": draw(some(5, 8, 12)),
        "choices": draw(st.sampled_from(["per-stage", "per-block"])),
        "stem": {"widths": draw(some(2, 4, 8)), "stride": draw(st.sampled_from([1, 2]))},
    }
    spaces = (
        SearchSpace.model_validate(
            {**document, "stages": [{"name": f"s{index}", **fields} for index, fields in enumerate(stages[:count])]}
        )
        for count in range(len(stages), 0, -1)
    )
    fitting = [space for space in spaces if space.num_architectures <= MOST_ARCHITECTURES]
    return fitting[0] if fitting else draw(st.nothing())


def fitted(profile: DeviceProfile) -> FittedLatency:
    costs = {
        op: {"us_per_mmac": 40.0 * place, "us_per_kelement": 0.7 * place, "us_per_layer": 3.0}
        for place, op in enumerate(OP_KINDS, start=1)
    }
    return FittedLatency.model_validate(
        {
            "kind": "fitted",
            "dtype": profile.latency.dtype,
            "bytes_per_element": profile.latency.bytes_per_element,
            "network_overhead_us": 25.0,
            "ops": costs,
            "channel_block": 8,
            "num_networks": 1,
        }
    )


@st.composite
def devices(draw: st.DrawFn) -> Target:
    """Devices of every kind whose latency is a sum over layers, without limits."""
    profile = load_profile(draw(st.sampled_from(["raspberry-pi-4", "x86-laptop", "stm32h7"])))
    changes: dict[str, Any] = {
        "unsupported_ops": draw(st.sampled_from([(), (), ("scale",), ("depthwise",), ("conv",)])),
        "energy": draw(st.sampled_from([None, Energy(active_power_w=3.7)])),
    }
    if draw(st.booleans()):
        changes["latency"] = fitted(profile)
    if draw(st.booleans()):
        changes["calibration"] = Calibration(
            scale=1.37, offset_us=11.0, num_networks=9, donor="another", donor_hash="0" * 64
        )
    profile = profile.model_copy(update=changes)
    factor = draw(st.sampled_from([None, 0.9, 1.21]))
    return Target(
        profile,
        Limits(),
        predictor_for(profile),
        lambda _: None,
        HeldLatency("p90", 1.3, False, None if factor is None else 0.95, factor),
    )


@st.composite
def limits(draw: st.DrawFn, prices: Prices) -> Limits:
    """Limits about the costs of one architecture, often the very costs; now and then below all."""
    row = draw(st.integers(0, len(prices.latency_ms) - 1))
    costs = {name: float(values[row]) for name, values in prices.by_limit().items()}
    names = draw(st.sets(st.sampled_from(sorted(costs))))
    return Limits(**{name: costs[name] * draw(st.sampled_from([1.0, 1.0, 1.02, 1.2, 0.9])) for name in sorted(names)})


def accuracy_in_steps(space: SearchSpace, seed: int, num_steps: int) -> AdditiveAccuracy:
    """An accuracy of few different values: sums are exact, and equal ones occur."""
    generator = np.random.default_rng(seed)
    values = tuple(generator.integers(0, num_steps, count) / 1024 for count in space.num_choices)
    return AdditiveAccuracy(0.25, values)


def check(space: SearchSpace, target: Target, accuracy: AdditiveAccuracy) -> int:
    """Compare with brute force, to the last digit; return the number of architectures on the front."""
    genes_NG = space.enumerate_genes()
    (prices,) = price(space, genes_NG, [target])
    fits = np.flatnonzero(within(prices.by_limit(), target.limits) & prices.is_supported)
    objectives = np.stack([prices.latency_ms, -accuracy.of(genes_NG)], axis=1)[fits]
    first = np.sort(np.unique(objectives, axis=0, return_index=True)[1])
    expected = fits[first][front(objectives[first])] if len(fits) else fits
    assert front_over_stages(space, target, accuracy).tolist() == genes_NG[expected].tolist()
    return len(expected)


@law
@given(st.data(), small_spaces(), devices(), st.integers(0, 2**32), st.sampled_from([1, 3, 50]))
def test_the_front_over_stages_is_that_of_brute_force(
    data: st.DataObject, space: SearchSpace, device: Target, seed: int, num_steps: int
) -> None:
    """Any limits, several at once, also none and impossible ones; accuracies of many, few or one value."""
    assert is_additive(device)
    (prices,) = price(space, space.enumerate_genes(), [device])
    target = dataclasses.replace(device, limits=data.draw(limits(prices)))
    check(space, target, accuracy_in_steps(space, seed, num_steps))


@pytest.mark.parametrize(
    "name", [name for name in resources.shipped_names("configs/spaces") if name != "large-mobilenet"]
)
def test_on_the_shipped_spaces_that_can_be_listed_as_well(name: str) -> None:
    space = validate(load_yaml(resources.find("configs/spaces", name)), SearchSpace)
    profile = load_profile("raspberry-pi-4")
    device = Target(profile, Limits(), predictor_for(profile), lambda _: None, held_latency(profile, "p50"))
    middle = space.enumerate_genes()[:: max(space.num_architectures // 1000, 1)]
    (prices,) = price(space, middle, [device])
    quantiles = {"latency_ms": 0.8, "macs": 0.7, "params": 0.6, "memory_mib": 0.5, "activation_mib": 0.9}
    chosen = {key: float(np.quantile(prices.by_limit()[key], share)) for key, share in quantiles.items()}
    target = dataclasses.replace(device, limits=Limits(**chosen))
    assert check(space, target, accuracy_in_steps(space, seed=0, num_steps=1000)) > 3


def random_steps(generator: np.random.Generator) -> list[Step]:
    """A chain whose costs have nothing to do with each other, so that what is good in one respect is bad in another."""
    counts = [1, *generator.integers(1, 4, generator.integers(1, 5)), 1]
    largest, steps = generator.choice([3, 12]), []
    for before, after in pairwise(counts):
        num_options = int(generator.integers(1, 5))
        next_SO = generator.integers(-1, after, (before, num_options))
        steps.append(Step(generator.integers(0, largest, (before, num_options, NUM_COSTS)).astype(np.float64), next_SO))
    return steps


def all_paths(steps: list[Step]) -> dict[tuple[int, ...], Any]:
    """Return the options of every way to the end, in their order, and its costs."""
    paths: dict[tuple[int, ...], Any] = {(): (0, np.zeros(NUM_COSTS))}
    for step in steps:
        paths = {
            (*options, option): (int(after), combined(costs, step.costs_SOC[state, option]))
            for options, (state, costs) in paths.items()
            for option, after in enumerate(step.next_SO[state])
            if after >= 0
        }
    return {options: costs for options, (_, costs) in paths.items()}


def test_the_best_ways_are_those_of_trying_all() -> None:
    """Of thousands of chains: most are too simple for the rare mistakes to show."""
    for seed in range(3000):
        check_chain(seed)


def check_chain(seed: int) -> None:
    """The first by options of each latency and loss that no other beats, under limits on anything."""
    generator = np.random.default_rng(seed)
    steps = random_steps(generator)
    paths = all_paths(steps)
    of_one = generator.choice(list(paths.values())) if paths else np.zeros(NUM_COSTS)
    limit_C = np.where(generator.random(NUM_COSTS) < 0.6, of_one + generator.integers(-2, 9, NUM_COSTS), np.inf)
    limit_C[LOSS] = np.inf
    memory = of_one[PARAMS] + of_one[ACTIVATIONS] + generator.choice([0.0, 4.0, np.inf])
    chosen_KT, costs_KC = best_paths(steps, Most(limit_C, memory))
    best: dict[tuple[float, float], tuple[int, ...]] = {}
    for options, costs in paths.items():
        if (costs <= limit_C).all() and costs[PARAMS] + costs[ACTIVATIONS] <= memory:
            best.setdefault((costs[LATENCY], costs[LOSS]), options)
    expected = [
        options
        for (latency, loss), options in best.items()
        if not any(other != (latency, loss) and other[0] <= latency and other[1] <= loss for other in best)
    ]
    assert [tuple(row) for row in chosen_KT.tolist()] == sorted(expected), seed
    assert costs_KC.tolist() == [paths[options].tolist() for options in sorted(expected)]


@law
@given(
    st.integers(0, 2**32),
    st.integers(1, 400),
    st.integers(1, 5),
    st.integers(1, 40),
)
def test_undominated_rows_are_those_of_comparing_all(seed: int, count: int, num_criteria: int, largest: int) -> None:
    """Of equal rows the first by the given order stays."""
    generator = np.random.default_rng(seed)
    costs = generator.integers(0, largest, (count, num_criteria)).astype(np.float64)
    order = generator.permutation(count)
    expected = {
        index
        for index, row in enumerate(costs)
        if not any((other <= row).all() and (other < row).any() for other in costs)
        and order[index] == min(order[(costs == row).all(axis=1)])
    }
    assert set(undominated(costs, order).tolist()) == expected
