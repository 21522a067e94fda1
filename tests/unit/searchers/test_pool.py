"""Which architectures a search looks at."""

import numpy as np

from fedsup_deploy.searchers.pool import NUM_SAMPLES, make_pool
from fedsup_deploy.space.search_space import SearchSpace


def test_a_small_space_is_listed(digits_space: SearchSpace) -> None:
    pool = make_pool(digits_space, seed=0)
    assert pool.is_complete
    assert pool.genes_NG.tolist() == digits_space.enumerate_genes().tolist()
    assert pool.coverage() == "all 128 tried"


def test_a_huge_space_is_sampled_with_its_corners(huge_space: SearchSpace) -> None:
    pool = make_pool(huge_space, seed=0)
    rows = {tuple(row) for row in pool.genes_NG.tolist()}
    assert not pool.is_complete
    assert NUM_SAMPLES * 0.9 < len(rows) == len(pool.genes_NG) <= NUM_SAMPLES + 2
    for corner in (huge_space.smallest, huge_space.largest):
        assert tuple(huge_space.encode(corner).tolist()) in rows
    assert pool.coverage() == (
        f"20,000 sampled of {huge_space.num_architectures:,}, the smallest and the largest tried"
    )
    assert (pool.genes_NG == huge_space.canonical(pool.genes_NG)).all()


def test_the_seed_alone_decides_the_sample(huge_space: SearchSpace) -> None:
    first, again, other = (make_pool(huge_space, seed).genes_NG for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
