"""The architectures a search looks at: all of a space that can be listed, else a sample of it. It prices nothing.

Shapes: N architectures, G genes.
"""

import dataclasses
from typing import Final

import numpy as np

from fedsup_deploy import rng
from fedsup_deploy.space import sampling
from fedsup_deploy.space.plan import IntArray
from fedsup_deploy.space.search_space import SearchSpace

#: Rows drawn from a space that cannot be listed.
NUM_SAMPLES: Final = 20_000


@dataclasses.dataclass(frozen=True)
class Pool:
    """Different architectures of one space.

    Args:
        space: The space.
        genes_NG: One row of genes per architecture.
        is_complete: Whether these are all the space has.
    """

    space: SearchSpace
    genes_NG: IntArray
    is_complete: bool

    def coverage(self) -> str:
        """Return which part of the space this is, in words."""
        if self.is_complete:
            return f"all {self.space.num_architectures:,} tried"
        return f"{NUM_SAMPLES:,} sampled of {self.space.num_architectures:,}, the smallest and the largest tried"


def make_pool(space: SearchSpace, seed: int) -> Pool:
    """Return all architectures of a space, or of a space too large to list `NUM_SAMPLES` random ones and both corners.

    Each choice of a random one is uniform and independent, and of equal ones one is kept.
    """
    if space.is_listable:
        return Pool(space, space.enumerate_genes(), is_complete=True)
    drawn = sampling.random_genes(space, rng.generator(seed, "search", "pool"), NUM_SAMPLES)
    corners = [space.encode(space.smallest)[None], space.encode(space.largest)[None]]
    return Pool(space, np.unique(np.concatenate([*corners, drawn]), axis=0), is_complete=False)
