"""`SearchSpace`: the elastic dimensions and their choices.

What an architecture of it is as a row of integers stands in `fedsup_deploy.space.encoding`, which layers it has in
`fedsup_deploy.space.planning`.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, JsonValue, StrictInt, field_validator, model_validator

from fedsup_deploy import registry
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.space import encoding, planning
from fedsup_deploy.space.architecture import Architecture, Block
from fedsup_deploy.space.layers.kind import kind_of
from fedsup_deploy.space.plan import BoolArray, Family, IntArray, NetworkPlan, concrete
from fedsup_deploy.space.stage import MOST_CHOICES, Stage, Stem, ascending

_MAX_ENUMERATED = 2_000_000
# More than any network has, and few enough for counts of MACs to be exact in 64 bits.
_MAX_PARAMS = 2**34
_MAX_BLOCKS = 256
_MAX_COMBINATIONS = 1_000

_Side = Annotated[StrictInt, Field(ge=1, le=2048)]


class SearchSpace(BaseModel):
    """All architectures one supernet contains.

    Source: the elastic dimensions are those of Once-for-All (arXiv 1908.09791) and FedSup (arXiv 2206.01366).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = Field(alias="schema")
    """Version of this file's layout."""
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=64)]
    """Short name of at most 64 characters."""
    family: str
    """Block family: a name registered under `family`."""
    in_channels: Annotated[StrictInt, Field(ge=1, le=1024)] = 3
    """Channels of the input image, at most 1024; set from the data when a run starts."""
    num_classes: Annotated[StrictInt, Field(ge=2, le=1_000_000)] = 10
    """Classes, at most a million; set from the data when a run starts."""
    resolutions: Annotated[tuple[_Side, ...], Field(min_length=1, max_length=MOST_CHOICES)]
    """Sides of the square input image in pixels, each at most 2048; at most 32 choices."""
    choices: Literal["per-stage", "per-block"] = "per-stage"
    """Whether the blocks of a stage share their choices."""
    stem: Stem
    """The first convolution."""
    stages: Annotated[tuple[Stage, ...], Field(min_length=1, max_length=32)]
    """The stages, from input to output: at most 32, of 256 blocks in all and 1,000 combinations of choices each."""

    _sorted = field_validator("resolutions")(ascending)

    @field_validator("family")
    @classmethod
    def _known_family(cls, name: str) -> str:
        if name not in registry.names("family"):
            raise ValueError(f"unknown family {name!r}{registry.nearest(name, registry.names('family'))}")
        return name

    @field_validator("stages")
    @classmethod
    def _distinct_names(cls, stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
        stage_names = [stage.name for stage in stages]
        if len(set(stage_names)) != len(stage_names) or {"stem", "head"} & set(stage_names):
            raise ValueError(f"got stage names {stage_names}, expected distinct names other than stem and head")
        return stages

    @field_validator("stages")
    @classmethod
    def _few(cls, stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
        num_blocks = sum(stage.depths[-1] for stage in stages)
        if num_blocks > _MAX_BLOCKS:
            raise ValueError(f"got {num_blocks} blocks in all, expected at most {_MAX_BLOCKS}")
        most = max(math.prod(map(len, stage.block_choices)) for stage in stages)
        if most > _MAX_COMBINATIONS:
            raise ValueError(f"got {most:,} combinations of a block's choices, expected at most {_MAX_COMBINATIONS:,}")
        return stages

    @model_validator(mode="after")
    def _is_of_this_world(self) -> "SearchSpace":
        if self.num_params > _MAX_PARAMS:
            raise ValueError(f"got a supernet of {self.num_params:,} parameters, expected at most {_MAX_PARAMS:,}")
        return self

    def to_dict(self) -> dict[str, JsonValue]:
        """Return the space as a JSON document with the keys of its YAML file."""
        return self.model_dump(mode="json", by_alias=True)

    def with_data(self, in_channels: int, num_classes: int) -> "SearchSpace":
        """Return the same space for other images and classes."""
        # A copy made by `model_copy` would keep the cached plan of other data.
        return self.model_validate({**self.to_dict(), "in_channels": in_channels, "num_classes": num_classes})

    @property
    def largest(self) -> Architecture:
        """The subnet with the largest choice everywhere."""
        return self._corner(max)

    @property
    def smallest(self) -> Architecture:
        """The subnet with the smallest choice everywhere."""
        return self._corner(min)

    @functools.cached_property
    def num_architectures(self) -> int:
        """How many architectures the space has; exact, of any size."""
        product = len(self.resolutions) * len(self.stem.widths)
        for stage in self.stages:
            per_block = int(np.prod([len(choices) for choices in stage.block_choices]))
            product *= (
                len(stage.depths) * per_block
                if self.choices == "per-stage"
                else sum(per_block**depth for depth in stage.depths)
            )
        return product

    @property
    def is_listable(self) -> bool:
        """Whether `enumerate_genes` can list all architectures."""
        return self.num_architectures <= _MAX_ENUMERATED

    def resolve(self, name: str) -> Architecture:
        """Return `largest`, `smallest` or, in a space small enough to enumerate, the architecture of an `arch_id`.

        Raises:
            ConfigError: No such architecture.
        """
        if name in {"largest", "smallest"}:
            corner: Architecture = getattr(self, name)
            return corner
        if not self.is_listable:
            raise ConfigError(
                f"architecture {name!r}: space {self.name} is too large to look up an arch_id; "
                "give largest, smallest or a JSON / YAML file of the architecture"
            )
        for genes in self.enumerate_genes():
            architecture = self.decode(genes)
            if architecture.arch_id == name:
                return architecture
        raise ConfigError(
            f"no architecture {name!r} in space {self.name}: expected largest, smallest, an arch_id of this space "
            "or a JSON / YAML file of an architecture"
        )

    def contains(self, architecture: Architecture) -> bool:
        """Return whether every choice of the architecture is one of this space."""
        try:
            self.encode(architecture)
        except ConfigError:
            return False
        return True

    def encode(self, architecture: Architecture) -> IntArray:
        """Return the genes of an architecture, shape (G,).

        Raises:
            ConfigError: A choice is not in the space; the message names it.
        """
        return encoding.encode(self, architecture)

    def decode(self, genes: IntArray) -> Architecture:
        """Return the architecture of one row of genes, shape (G,). Genes of inactive blocks are ignored."""
        return encoding.decode(self, genes)

    @functools.cached_property
    def num_choices(self) -> tuple[int, ...]:
        """Number of choices of each gene, shape (G,)."""
        return encoding.num_choices(self)

    def active_genes(self, genes_NG: IntArray) -> BoolArray:
        """Return which genes describe an active part of the network, shape (N, G)."""
        return encoding.active_genes(self, genes_NG)

    def canonical(self, genes_NG: IntArray) -> IntArray:
        """Return a copy in which the genes of inactive blocks are 0. Shape (N, G)."""
        return np.where(self.active_genes(genes_NG), genes_NG, 0)

    def enumerate_genes(self) -> IntArray:
        """Return the genes of every architecture, shape (N, G), in lexicographic order.

        Raises:
            ConfigError: The space is too large to list.
        """
        if not self.is_listable:
            raise ConfigError(
                f"space {self.name} has {self.num_architectures:,} architectures, too many to enumerate "
                f"(limit {_MAX_ENUMERATED:,}); use another search method"
            )
        return encoding.enumerate_genes(self)

    def plan(self, architecture: Architecture) -> NetworkPlan:
        """Return the layers of one architecture, in plain integers."""
        return concrete(self.plan_many(self.encode(architecture)[None]))

    def plan_many(self, genes_NG: IntArray) -> NetworkPlan:
        """Return the layers of N architectures at once: every number an array of shape (N,)."""
        return planning.plan_many(self, genes_NG)

    def distinct_parts(self, genes_NG: IntArray) -> list[tuple[NetworkPlan, int, IntArray]]:
        """Return first convolution, blocks and head of N architectures, each different one described once.

        N architectures have few different parts, so that what is a sum over layers need not be computed N times.

        Returns:
            For each part its layers, for U different ones at once; U; and which of them each architecture has, shape
            (N,). The layers stand in a plan without other active ones.
        """
        return planning.distinct_parts(self, genes_NG)

    @functools.cached_property
    def full_plan(self) -> NetworkPlan:
        """The layers of the supernet: each as large as any architecture needs it.

        That is more than the largest subnet when a smaller one has a layer the largest has not, such as the 1x1
        convolution of a shortcut between two widths.
        """
        return planning.full_plan(self)

    @functools.cached_property
    def num_params(self) -> int:
        """How many parameters the supernet has, its normalisations folded; exact, of any size."""
        layers = self.full_plan.layers()
        return sum(int(operation.num_params) for layer in layers for operation in kind_of(layer).operations(layer))

    @functools.cached_property
    def block_family(self) -> Family:
        """How a block's choices become layers."""
        make: Callable[[], Family] = registry.resolve("family", self.family)
        return make()

    def num_described(self, stage: Stage) -> int:
        """Return how many blocks of a stage have choices of their own."""
        return 1 if self.choices == "per-stage" else max(stage.depths)

    def _corner(self, extreme: Callable[[Sequence[Any]], Any]) -> Architecture:
        stages = tuple(
            (Block(*(extreme(choices) for choices in stage.block_choices)),) * extreme(stage.depths)
            for stage in self.stages
        )
        return Architecture(extreme(self.resolutions), extreme(self.stem.widths), stages)
