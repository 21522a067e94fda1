"""Random architectures: uniform, mutated, crossed over. Works on genes; nothing leaves the space."""

import numpy as np

from fedsup_deploy.space.architecture import Architecture
from fedsup_deploy.space.plan import IntArray
from fedsup_deploy.space.search_space import SearchSpace


def random_genes(space: SearchSpace, rng: np.random.Generator, count: int) -> IntArray:
    """Return genes of `count` architectures, each choice uniform and independent, shape (count, G)."""
    genes_NG = rng.integers(0, space.num_choices, size=(count, len(space.num_choices)), dtype=np.int64)
    return space.canonical(genes_NG)


def random_architecture(space: SearchSpace, rng: np.random.Generator) -> Architecture:
    """Return one architecture, each choice uniform and independent."""
    return space.decode(random_genes(space, rng, 1)[0])


def sandwich(space: SearchSpace, rng: np.random.Generator, count: int) -> tuple[Architecture, ...]:
    """Return the largest subnet, the smallest, and `count - 2` random ones, in this order.

    Source: sandwich rule, J. Yu and T. Huang, arXiv 1903.05134.
    """
    middle = (random_architecture(space, rng) for _ in range(count - 2))
    return space.largest, space.smallest, *middle


def mutate(space: SearchSpace, genes_NG: IntArray, rng: np.random.Generator, probability: float) -> IntArray:
    """Return the genes with each redrawn uniformly with the given probability, shape (N, G)."""
    redrawn_NG = rng.integers(0, space.num_choices, size=genes_NG.shape, dtype=np.int64)
    return space.canonical(np.where(rng.random(genes_NG.shape) < probability, redrawn_NG, genes_NG))


def crossover(space: SearchSpace, first_NG: IntArray, second_NG: IntArray, rng: np.random.Generator) -> IntArray:
    """Return children that take each gene from one of two parents with equal chance, shape (N, G)."""
    return space.canonical(np.where(rng.random(first_NG.shape) < 0.5, first_NG, second_NG))
