"""Tiers of clients and what they train."""

from collections import Counter

import numpy as np
import pytest

from fedsup_deploy import rng
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.federation.server import assignment
from fedsup_deploy.federation.server.assignment import Tier, TierSampler
from fedsup_deploy.federation.simulation import tiers_by_index
from fedsup_deploy.space import cost
from fedsup_deploy.space.search_space import SearchSpace


def test_tiers_are_equal_runs_of_client_indices() -> None:
    assert tiers_by_index(8, 4) == (0, 0, 1, 1, 2, 2, 3, 3)
    assert Counter(tiers_by_index(10, 4)) == {0: 3, 1: 2, 2: 3, 3: 2}
    assert tiers_by_index(2, 4) == (0, 2)


@pytest.mark.parametrize("name", ["largest", "smallest"])
def test_fixed_tier_always_draws_its_architecture(tiny_space: SearchSpace, name: str) -> None:
    sampler = TierSampler(tiny_space, Tier(architecture=name))
    assert {sampler.draw(rng.generator(seed)) for seed in range(5)} == {getattr(tiny_space, name)}


def test_fixed_tier_may_name_an_arch_id(tiny_space: SearchSpace) -> None:
    middle = tiny_space.decode(tiny_space.enumerate_genes()[31])
    assert TierSampler(tiny_space, Tier(architecture=middle.arch_id)).draw(rng.generator(0)) == middle


def test_free_tier_draws_from_the_whole_space(tiny_space: SearchSpace) -> None:
    sampler, generator = TierSampler(tiny_space, Tier(random=True)), rng.generator(0)
    assert len({sampler.draw(generator) for _ in range(600)}) == 64


def test_tier_of_a_size_draws_every_subnet_of_that_size_and_no_other(tiny_space: SearchSpace) -> None:
    genes_NG = tiny_space.enumerate_genes()
    params_N = cost.costs(tiny_space, genes_NG).num_params
    low, high = (int(np.quantile(params_N, share, method="nearest")) for share in (0.25, 0.5))
    expected = {tiny_space.decode(genes_NG[index]) for index in np.flatnonzero((params_N >= low) & (params_N <= high))}
    sampler, generator = TierSampler(tiny_space, Tier(params=(low, high))), rng.generator(0)
    assert {sampler.draw(generator) for _ in range(600)} == expected
    assert low in params_N
    assert high in params_N


def test_bounds_of_a_size_are_included(tiny_space: SearchSpace) -> None:
    smallest = int(cost.costs_of(tiny_space, [tiny_space.smallest]).num_params[0])
    drawn = TierSampler(tiny_space, Tier(params=(smallest, smallest))).draw(rng.generator(0))
    assert cost.costs_of(tiny_space, [drawn]).num_params[0] == smallest


def test_size_no_subnet_has_is_refused_with_the_sizes_there_are(tiny_space: SearchSpace) -> None:
    params_N = cost.costs(tiny_space, tiny_space.enumerate_genes()).num_params
    message = f"no subnet of space tiny has 1 to 2 parameters; they have {params_N.min():,} to {params_N.max():,}"
    with pytest.raises(ConfigError, match=message):
        TierSampler(tiny_space, Tier(params=(1, 2)))


def test_unknown_architecture_is_refused(tiny_space: SearchSpace) -> None:
    with pytest.raises(ConfigError, match="no architecture 'medium'"):
        TierSampler(tiny_space, Tier(architecture="medium"))


def test_large_space_draws_from_a_fixed_sample(tiny_space: SearchSpace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same sample in every run: what a tier may train is part of its definition, not of a run's seed."""
    monkeypatch.setattr(assignment, "_MAX_LISTED", 10)
    monkeypatch.setattr(assignment, "_NUM_SAMPLED", 20)
    generator = rng.generator(0)
    samplers = [TierSampler(tiny_space, Tier(params=(1, 10**9))) for _ in range(2)]
    drawn = [{sampler.draw(generator) for _ in range(500)} for sampler in samplers]
    assert drawn[0] == drawn[1]
    assert 5 < len(drawn[0]) <= 20
