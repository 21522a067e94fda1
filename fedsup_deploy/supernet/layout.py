"""`Layout`: what tensors a supernet has and which part of them each architecture uses. No weights."""

import functools

from torch import Tensor

from fedsup_deploy.space import cost
from fedsup_deploy.space.architecture import Architecture
from fedsup_deploy.space.search_space import SearchSpace
from fedsup_deploy.supernet import slices as rule

_CACHED = 4096


class Layout:
    """The tensors of a supernet over a search space.

    Args:
        space: The search space.
        normalization: `batch` or `parametric`.

    Attributes:
        shapes: Shape of every shared tensor by name.
        whole: Slices that take every shared tensor as it is.
        plan: From an architecture to its layers.
        slices: From an architecture to the part of each shared tensor that it uses.
        num_macs: From an architecture to the multiply-accumulates of its forward pass, for one image.
    """

    def __init__(self, space: SearchSpace, normalization: str) -> None:
        self.space = space
        self.normalization = normalization
        self.shapes = rule.shapes(space.full_plan, normalization)
        self.whole = rule.slices(space.full_plan, space.full_plan, normalization)
        self.plan = functools.lru_cache(_CACHED)(space.plan)
        self.slices = functools.lru_cache(_CACHED)(self._slices)
        self.num_macs = functools.lru_cache(_CACHED)(self._num_macs)

    @functools.cached_property
    def most_macs(self) -> int:
        """Multiply-accumulates that no architecture exceeds, for one image: of all layers at once."""
        return int(cost.costs_of_plan(self.space.full_plan).num_macs[0])

    def __reduce__(self) -> tuple[object, ...]:
        """Travel to another process without the caches."""
        return Layout, (self.space, self.normalization)

    def partial_coverage(self, architectures: tuple[Architecture, ...]) -> dict[str, Tensor]:
        """Return masks of the entries the given subnets use, for the tensors they use only in part or not at all."""
        parts = [self.slices(architecture) for architecture in architectures]
        shapes = {
            name: shape
            for name, shape in self.shapes.items()
            if not any(part.get(name) == self.whole[name] for part in parts)
        }
        return {name: mask for name, mask in rule.coverage(shapes, parts).items() if not bool(mask.all())}

    def _slices(self, architecture: Architecture) -> rule.Slices:
        return rule.slices(self.space.full_plan, self.plan(architecture), self.normalization)

    def _num_macs(self, architecture: Architecture) -> int:
        return int(cost.costs_of_plan(self.plan(architecture)).num_macs[0])
