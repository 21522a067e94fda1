"""Laws of mutation and crossover where blocks choose for themselves: nobody inherits what nobody has."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsup_deploy import resources, rng
from fedsup_deploy.config.load import load_yaml, validate
from fedsup_deploy.space import sampling
from fedsup_deploy.space.search_space import SearchSpace

Seeds = st.integers(0, 2**32)


@pytest.fixture(scope="module")
def per_block() -> SearchSpace:
    """The paper's space with choices for each block: depths of 2 or 3 in several stages."""
    return validate(load_yaml(resources.find("configs/spaces", "fedsup-mobilenet-per-block")), SearchSpace)


def parents(space: SearchSpace, seed: int) -> tuple[np.ndarray, np.ndarray]:
    drawn = sampling.random_genes(space, rng.generator(seed), 40)
    return drawn[:20], drawn[20:]


@settings(max_examples=30)
@given(data=st.data(), seed=Seeds)
def test_active_genes_are_those_that_decide_the_architecture(spaces, data: st.DataObject, seed: int) -> None:
    """Changing one that is active gives another architecture, changing one that is not gives the same."""
    space = data.draw(spaces)
    genes = sampling.random_genes(space, rng.generator(seed), 1)
    (active_G,) = space.active_genes(genes)
    for gene, count in enumerate(space.num_choices):
        changed = genes.copy()
        changed[0, gene] = (changed[0, gene] + 1) % count
        is_same = space.decode(changed[0]) == space.decode(genes[0])
        assert is_same == (count == 1 or not active_G[gene])


@settings(max_examples=30)
@given(data=st.data(), seed=Seeds)
def test_every_gene_of_a_child_is_that_of_a_parent_who_has_it(spaces, data: st.DataObject, seed: int) -> None:
    """What only one parent has comes from that one; what both have from either; what the child has not is 0."""
    space = data.draw(spaces)
    first_NG, second_NG = parents(space, seed)
    children_NG = sampling.crossover(space, first_NG, second_NG, rng.generator(seed, "children"))
    in_first_NG, in_second_NG = space.active_genes(first_NG), space.active_genes(second_NG)
    in_child_NG = space.active_genes(children_NG)
    assert ((in_first_NG | in_second_NG) | ~in_child_NG).all(), "a child has no block that neither parent has"
    for only, parent_NG in ((in_first_NG & ~in_second_NG, first_NG), (in_second_NG & ~in_first_NG, second_NG)):
        inherited_NG = only & in_child_NG
        assert (children_NG == parent_NG)[inherited_NG].all()
    assert ((children_NG == first_NG) | (children_NG == second_NG))[in_child_NG].all()
    assert (children_NG[~in_child_NG] == 0).all()


@settings(max_examples=30)
@given(data=st.data(), seed=Seeds, probability=st.floats(0, 1))
def test_a_mutant_has_no_genes_of_blocks_that_it_has_not(
    spaces, data: st.DataObject, seed: int, probability: float
) -> None:
    space = data.draw(spaces)
    genes_NG, _ = parents(space, seed)
    mutated_NG = sampling.mutate(space, genes_NG, rng.generator(seed, "mutants"), probability)
    active_NG = space.active_genes(mutated_NG)
    assert (mutated_NG[~active_NG] == 0).all()
    assert np.array_equal(sampling.mutate(space, genes_NG, rng.generator(seed, "mutants"), 0.0), genes_NG)


def deepened(space: SearchSpace) -> tuple[np.ndarray, np.ndarray]:
    """Mutants of the smallest subnet: which of their genes belong to a block that it has not, and which are not 0.

    Counted over genes with a choice only.
    """
    genes_NG = np.repeat(space.encode(space.smallest)[None], 4_000, axis=0)
    mutated_NG = sampling.mutate(space, genes_NG, rng.generator(0), 0.1)
    is_elastic_G = np.array(space.num_choices) > 1
    is_new_NG = space.active_genes(mutated_NG) & ~space.active_genes(genes_NG) & is_elastic_G
    return is_new_NG, mutated_NG


def test_a_block_that_a_mutation_adds_has_any_genes(per_block: SearchSpace) -> None:
    """Each choice about equally often, though a gene of a block that was there is redrawn only one time in ten."""
    is_new_NG, mutated_NG = deepened(per_block)
    new_G = np.flatnonzero(is_new_NG.any(axis=0))
    assert len(new_G) > 0
    for gene in new_G:
        drawn = mutated_NG[is_new_NG[:, gene], gene]
        count = per_block.num_choices[gene]
        assert len(drawn) > 100
        shares = np.bincount(drawn, minlength=count) / len(drawn)
        np.testing.assert_allclose(shares, 1 / count, atol=5 * np.sqrt(1 / count / len(drawn)))


def test_genes_of_a_block_that_was_there_are_redrawn_as_rarely_as_asked(per_block: SearchSpace) -> None:
    """One in ten, and of these one of so many choices is what it was."""
    is_new_NG, mutated_NG = deepened(per_block)
    is_old_G = per_block.active_genes(per_block.encode(per_block.smallest)[None])[0]
    for gene in np.flatnonzero(is_old_G & (np.array(per_block.num_choices) > 1)):
        assert not is_new_NG[:, gene].any()
        expected = 0.1 * (1 - 1 / per_block.num_choices[gene])
        assert np.mean(mutated_NG[:, gene] != 0) == pytest.approx(expected, abs=0.025)


def test_a_block_that_only_one_parent_has_is_inherited_whole(per_block: SearchSpace) -> None:
    """From the largest and the smallest: where the child is as deep as the largest, all its extra genes are those."""
    large, small = (per_block.encode(each)[None] for each in (per_block.largest, per_block.smallest))
    for first, second in ((large, small), (small, large)):
        children_NG = sampling.crossover(
            per_block, np.repeat(first, 500, axis=0), np.repeat(second, 500, axis=0), rng.generator(0)
        )
        extra_NG = per_block.active_genes(children_NG) & ~per_block.active_genes(small)
        assert extra_NG.any(axis=1).sum() > 200
        assert (children_NG == large)[extra_NG].all()
