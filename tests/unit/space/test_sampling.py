"""Random architectures. That they stay in the space is a law in tests/property."""

import numpy as np
import pytest

from fedsup_deploy import rng
from fedsup_deploy.space import sampling
from fedsup_deploy.space.search_space import SearchSpace


@pytest.mark.parametrize("count", [2, 3, 6])
def test_sandwich_is_the_largest_then_random_ones_then_the_smallest(tiny_space: SearchSpace, count: int) -> None:
    subnets = sampling.sandwich(tiny_space, rng.generator(0), count)
    assert len(subnets) == count
    assert (subnets[0], subnets[-1]) == (tiny_space.largest, tiny_space.smallest)


def test_random_middles_of_the_sandwich_differ(tiny_space: SearchSpace) -> None:
    subnets = sampling.sandwich(tiny_space, rng.generator(0), 12)
    assert len(set(subnets[1:-1])) >= 5


def test_every_choice_is_equally_likely(tiny_space: SearchSpace) -> None:
    """Each of 64 architectures is expected 50 times in 3,200 draws; 5 standard deviations are 35."""
    drawn = sampling.random_genes(tiny_space, rng.generator(0), 3200)
    _, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(counts) == 64
    assert abs(counts - 50).max() < 35


def test_same_seed_same_architectures(tiny_space: SearchSpace) -> None:
    first, second = (sampling.random_genes(tiny_space, rng.generator(3), 50) for _ in range(2))
    assert np.array_equal(first, second)
    assert sampling.random_architecture(tiny_space, rng.generator(3)) == tiny_space.decode(first[0])


def test_mutation_with_probability_zero_changes_nothing(tiny_space: SearchSpace) -> None:
    genes_NG = tiny_space.enumerate_genes()
    assert np.array_equal(sampling.mutate(tiny_space, genes_NG, rng.generator(0), 0.0), genes_NG)


def test_mutation_with_probability_one_forgets_the_parent(tiny_space: SearchSpace) -> None:
    """The 64 different parents all become a random architecture: from equal draws, the same as from one parent."""
    genes_NG = tiny_space.enumerate_genes()
    mutated = sampling.mutate(tiny_space, genes_NG, rng.generator(0), 1.0)
    same = sampling.mutate(tiny_space, np.repeat(genes_NG[:1], 64, axis=0), rng.generator(0), 1.0)
    assert np.array_equal(mutated, same)
    assert len(np.unique(mutated, axis=0)) > 20


def test_mutation_changes_about_the_given_share(tiny_space: SearchSpace) -> None:
    """A redrawn gene of 2 choices changes half the time, so probability 0.4 changes 0.2 of the genes with 2 choices."""
    genes_NG = np.repeat(tiny_space.encode(tiny_space.largest)[None], 2000, axis=0)
    is_elastic = np.array(tiny_space.num_choices) == 2
    changed = sampling.mutate(tiny_space, genes_NG, rng.generator(0), 0.4) != genes_NG
    assert changed[:, is_elastic].mean() == pytest.approx(0.2, abs=0.02)
    assert not changed[:, ~is_elastic].any()


def test_crossover_takes_every_gene_from_one_of_the_parents(tiny_space: SearchSpace) -> None:
    first = np.repeat(tiny_space.encode(tiny_space.largest)[None], 500, axis=0)
    second = np.repeat(tiny_space.encode(tiny_space.smallest)[None], 500, axis=0)
    children = sampling.crossover(tiny_space, first, second, rng.generator(0))
    assert ((children == first) | (children == second)).all()
    is_elastic = np.array(tiny_space.num_choices) == 2
    assert children[:, is_elastic].mean() == pytest.approx(0.5, abs=0.05)


def test_parents_are_left_alone(space_of) -> None:
    space = space_of({"widths": [4, 8], "depths": [1, 2]}, choices="per-block")
    genes_NG = np.ones((4, len(space.num_choices)), np.int64) * (np.array(space.num_choices) > 1)
    before = genes_NG.copy()
    sampling.mutate(space, genes_NG, rng.generator(0), 0.5)
    sampling.crossover(space, genes_NG, np.zeros_like(genes_NG), rng.generator(0))
    assert np.array_equal(genes_NG, before)
