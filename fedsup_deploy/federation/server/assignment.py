"""Which architectures a tier of clients trains."""

from typing import Any

import numpy as np
from pydantic import SerializerFunctionWrapHandler, model_serializer, model_validator

from fedsup_deploy.config.problems import misfit
from fedsup_deploy.config.section import Count, Section, Text
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.rng import generator
from fedsup_deploy.space import cost, sampling
from fedsup_deploy.space.architecture import Architecture
from fedsup_deploy.space.search_space import SearchSpace

_MAX_LISTED = 200_000
_NUM_SAMPLED = 20_000


class Tier(Section):
    """What one class of clients trains: exactly one of `architecture`, `params` and `random`."""

    architecture: Text | None = None
    """One subnet in every round: `largest`, `smallest` or an arch_id."""
    params: tuple[Count, Count] | None = None
    """A random subnet per round with this many parameters: [lowest, highest], both included."""
    random: bool = False
    """A random subnet of the whole space per round."""

    @model_validator(mode="after")
    def _one_choice(self) -> "Tier":
        given = [self.architecture is not None, self.params is not None, self.random]
        if sum(given) != 1:
            raise ValueError(f"got {sum(given)} of 'architecture', 'params' and 'random: true', expected exactly one")
        if self.params is not None and self.params[0] > self.params[1]:
            raise misfit([(("params",), self.params, "[lowest, highest]")])
        return self

    @model_serializer(mode="wrap")
    def _as_written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if value not in (None, False)}


class TierSampler:
    """Draws the architecture of a client of one tier.

    Raises:
        ConfigError: The tier names no architecture of the space, or a range no subnet falls in.
    """

    def __init__(self, space: SearchSpace, tier: Tier) -> None:
        self._space = space
        self._fixed = space.resolve(tier.architecture) if tier.architecture else None
        self._pool = _in_range(space, tier.params) if tier.params else None

    def draw(self, rng: np.random.Generator) -> Architecture:
        """Return the architecture one client trains this round."""
        if self._fixed is not None:
            return self._fixed
        if self._pool is not None:
            return self._space.decode(self._pool[rng.integers(len(self._pool))])
        return sampling.random_architecture(self._space, rng)


def _in_range(space: SearchSpace, bounds: tuple[int, int]) -> np.ndarray:
    """Return the genes of subnets within the range: all of them, or of a fixed sample where the space is large."""
    if space.num_architectures <= _MAX_LISTED:
        genes_NG = space.enumerate_genes()
    else:
        genes_NG = sampling.random_genes(space, generator(0, "tiers"), _NUM_SAMPLED)
    params_N = cost.costs(space, genes_NG).num_params
    chosen = genes_NG[(params_N >= bounds[0]) & (params_N <= bounds[1])]
    if not len(chosen):
        raise ConfigError(
            f"strategy.tiers: no subnet of space {space.name} has {bounds[0]:,} to {bounds[1]:,} parameters; "
            f"they have {params_N.min():,} to {params_N.max():,}"
        )
    return chosen
