"""Random architectures: uniform, mutated, crossed over. Works on genes; nothing leaves the space."""

import numpy as np
from numpy.typing import NDArray

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


def row_keys(genes_NG: IntArray) -> NDArray[np.bytes_]:
    """Return a value for each row of genes, shape (N,): equal for equal rows, and in the order of the rows."""
    rows_NG = np.ascontiguousarray(genes_NG, np.uint8)
    assert (rows_NG == genes_NG).all(), "more choices than a byte can tell apart"
    keys_N: NDArray[np.bytes_] = rows_NG.view(f"S{rows_NG.shape[1]}").ravel()
    return keys_N


def sandwich(space: SearchSpace, rng: np.random.Generator, count: int) -> tuple[Architecture, ...]:
    """Return the largest subnet, `count - 2` random ones, and the smallest, in this order.

    Source: sandwich rule, J. Yu and T. Huang, arXiv 1903.05134.
    """
    middle = (random_architecture(space, rng) for _ in range(count - 2))
    return space.largest, *middle, space.smallest


def mutate(space: SearchSpace, genes_NG: IntArray, rng: np.random.Generator, probability: float) -> IntArray:
    """Return the genes with each redrawn uniformly with the given probability, shape (N, G).

    The genes of a block that a redrawn depth makes active are drawn as well: it has none to inherit.
    """
    redrawn_NG = rng.integers(0, space.num_choices, size=genes_NG.shape, dtype=np.int64)
    mutated_NG = np.where(rng.random(genes_NG.shape) < probability, redrawn_NG, genes_NG)
    is_new_NG = space.active_genes(mutated_NG) & ~space.active_genes(genes_NG)
    return space.canonical(np.where(is_new_NG, redrawn_NG, mutated_NG))


def crossover(space: SearchSpace, first_NG: IntArray, second_NG: IntArray, rng: np.random.Generator) -> IntArray:
    """Return children that take each gene from one of two parents with equal chance, shape (N, G).

    The genes of a block that only one parent has come from that one.
    """
    in_first_NG, in_second_NG = space.active_genes(first_NG), space.active_genes(second_NG)
    from_first_NG = np.where(in_first_NG == in_second_NG, rng.random(first_NG.shape) < 0.5, in_first_NG)
    return space.canonical(np.where(from_first_NG, first_NG, second_NG))
