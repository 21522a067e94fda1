"""`SearchSpace`: the elastic dimensions and their choices, and the integer encoding of an architecture.

An encoding is one row of *genes*: indices into the choices. Columns: resolution, stem width, then per stage the depth
followed by (width, kernel size, expand ratio, SE) once for the stage or once per block. Genes of blocks that are not
active are 0, so each architecture has exactly one row.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, StrictInt, field_validator

from fedsup_deploy import registry
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.space.architecture import Architecture, Block
from fedsup_deploy.space.layers.layer import Layer
from fedsup_deploy.space.plan import BlockInput, BoolArray, Family, IntArray, NetworkPlan, concrete, largest_over
from fedsup_deploy.space.stage import Choices, Positive, Stage, Stem, ascending

_BLOCK_DIMENSIONS = ("width", "kernel_size", "expand_ratio", "has_se")
_BLOCK_GENES = len(_BLOCK_DIMENSIONS)
_MAX_ENUMERATED = 2_000_000


class SearchSpace(BaseModel):
    """All architectures one supernet contains.

    Source: the elastic dimensions are those of Once-for-All (arXiv 1908.09791) and FedSup (arXiv 2206.01366).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    schema_version: Literal[1] = Field(alias="schema")
    """Version of this file's layout."""
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    """Short name."""
    family: str
    """Block family: a name registered under `family`."""
    in_channels: Positive = 3
    """Channels of the input image; set from the data when a run starts."""
    num_classes: Annotated[StrictInt, Field(ge=2)] = 10
    """Classes; set from the data when a run starts."""
    resolutions: Choices
    """Sides of the square input image in pixels."""
    choices: Literal["per-stage", "per-block"] = "per-stage"
    """Whether the blocks of a stage share their choices."""
    stem: Stem
    """The first convolution."""
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)]
    """The stages, from input to output."""

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

    def to_dict(self) -> dict[str, Any]:
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
        genes = [
            _index(self.resolutions, architecture.resolution, "resolution", self),
            _index(self.stem.widths, architecture.stem_width, "stem_width", self),
        ]
        if len(architecture.stages) != len(self.stages):
            got = len(architecture.stages)
            raise ConfigError(f"got {got} stages, expected {len(self.stages)} of space {self.name}")
        for stage, blocks in zip(self.stages, architecture.stages, strict=True):
            genes.append(_index(stage.depths, len(blocks), f"depth of {stage.name}", self))
            if self.choices == "per-stage" and len(set(blocks)) > 1:
                raise ConfigError(f"blocks of {stage.name} differ, but space {self.name} chooses per stage")
            for block in blocks if self.choices == "per-block" else blocks[:1]:
                genes += [
                    _index(choices, getattr(block, dimension), f"{dimension} of a block of {stage.name}", self)
                    for choices, dimension in zip(stage.block_choices, _BLOCK_DIMENSIONS, strict=True)
                ]
            if self.choices == "per-block":
                genes += [0] * (_BLOCK_GENES * (max(stage.depths) - len(blocks)))
        return np.array(genes, np.int64)

    def decode(self, genes: IntArray) -> Architecture:
        """Return the architecture of one row of genes, shape (G,). Genes of inactive blocks are ignored."""
        row = [int(gene) for gene in genes]
        stages, column = [], 2
        for stage in self.stages:
            depth, column = stage.depths[row[column]], column + 1
            num_described = self._num_described(stage)
            described = []
            for start in range(column, column + _BLOCK_GENES * num_described, _BLOCK_GENES):
                width, kernel, expand, has_se = (
                    choices[row[start + offset]] for offset, choices in enumerate(stage.block_choices)
                )
                described.append(Block(width, kernel, float(expand), has_se))
            column += _BLOCK_GENES * num_described
            stages.append(tuple(described * depth if self.choices == "per-stage" else described[:depth]))
        return Architecture(self.resolutions[row[0]], self.stem.widths[row[1]], tuple(stages))

    @functools.cached_property
    def num_choices(self) -> tuple[int, ...]:
        """Number of choices of each gene, shape (G,)."""
        counts = [len(self.resolutions), len(self.stem.widths)]
        for stage in self.stages:
            counts.append(len(stage.depths))
            counts += [len(choices) for choices in stage.block_choices] * self._num_described(stage)
        return tuple(counts)

    def active_genes(self, genes_NG: IntArray) -> BoolArray:
        """Return which genes describe an active part of the network, shape (N, G)."""
        active_NG = np.ones(genes_NG.shape, np.bool_)
        if self.choices == "per-block":
            column = 2
            for stage in self.stages:
                depth_N = np.asarray(stage.depths)[genes_NG[:, column]]
                column += 1
                for index in range(max(stage.depths)):
                    active_NG[depth_N <= index, column : column + _BLOCK_GENES] = False
                    column += _BLOCK_GENES
        return active_NG

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
        parts = [np.arange(len(self.resolutions))[:, None], np.arange(len(self.stem.widths))[:, None]]
        parts += [self._stage_rows(stage) for stage in self.stages]
        picks = np.indices([len(part) for part in parts]).reshape(len(parts), -1)
        return np.concatenate([part[pick] for part, pick in zip(parts, picks, strict=True)], axis=1).astype(np.int64)

    def plan(self, architecture: Architecture) -> NetworkPlan:
        """Return the layers of one architecture, in plain integers."""
        return concrete(self.plan_many(self.encode(architecture)[None]))

    def plan_many(self, genes_NG: IntArray) -> NetworkPlan:
        """Return the layers of N architectures at once: every number an array of shape (N,)."""
        resolution, width = (np.asarray(c)[genes_NG[:, i]] for i, c in enumerate((self.resolutions, self.stem.widths)))
        stem = self._stem(width, resolution)
        in_channels, size, blocks = width, stem.out_size, []
        for stage, index, depth_column, column in self._block_columns():
            width, *others = (np.asarray(c)[genes_NG[:, column + i]] for i, c in enumerate(stage.block_choices))
            is_active = np.asarray(stage.depths)[genes_NG[:, depth_column]] > index
            stride = stage.stride if index == 0 else 1
            inputs = BlockInput(f"{stage.name}.{index}", stride, is_active, in_channels, size, width, *others)
            blocks.append(self._family.block(inputs))
            in_channels = np.where(is_active, width, in_channels)
            size = np.where(is_active, -(-size // stride), size)
        return NetworkPlan(stem, tuple(blocks), self._head(in_channels, size))

    def distinct_parts(self, genes_NG: IntArray) -> list[tuple[NetworkPlan, int, IntArray]]:
        """Return first convolution, blocks and head of N architectures, each different one described once.

        N architectures have few different parts, so that what is a sum over layers need not be computed N times.

        Returns:
            For each part its layers, for U different ones at once; U; and which of them each architecture has, shape
            (N,). The layers stand in a plan without other active ones.
        """
        resolutions, stem_widths = np.asarray(self.resolutions), np.asarray(self.stem.widths)
        widths = np.array(sorted({*self.stem.widths, *(width for stage in self.stages for width in stage.widths)}))
        genes_GN = np.ascontiguousarray(genes_NG.T)
        resolution_N, stem_width_N = genes_GN[:2]
        (resolution_U, width_U), index_N = _distinct((resolution_N, stem_width_N), (len(resolutions), len(stem_widths)))
        stem = self._stem(stem_widths[width_U], resolutions[resolution_U])
        none = dataclasses.replace(self._stem(np.ones(1, np.int64), np.ones(1, np.int64)), is_active=False)
        parts = [(NetworkPlan(stem, (), ()), len(width_U), index_N)]
        in_width_N = np.searchsorted(widths, stem_widths)[stem_width_N]
        # A stage has at least one block, so that the side of a block's input follows from the resolution alone.
        size_R = self._stem(stem_widths[:1], resolutions).out_size
        for stage, index, depth_column, column in self._block_columns():
            is_active_N = (np.asarray(stage.depths) > index)[genes_GN[depth_column]]
            columns = (resolution_N, in_width_N, is_active_N, *genes_GN[column : column + _BLOCK_GENES])
            counts = (len(resolutions), len(widths), 2, *(len(choices) for choices in stage.block_choices))
            (resolution_U, in_width_U, is_active_U, *genes_U), index_N = _distinct(columns, counts)
            stride = stage.stride if index == 0 else 1
            own = (np.asarray(choices)[gene_U] for choices, gene_U in zip(stage.block_choices, genes_U, strict=True))
            before = (is_active_U.astype(np.bool_), widths[in_width_U], size_R[resolution_U])
            block = self._family.block(BlockInput(f"{stage.name}.{index}", stride, *before, *own))
            parts.append((NetworkPlan(none, (block,), ()), len(in_width_U), index_N))
            own_width_N = np.searchsorted(widths, stage.widths)[genes_GN[column]]
            in_width_N, size_R = np.where(is_active_N, own_width_N, in_width_N), -(-size_R // stride)
        counts = (len(resolutions), len(widths))
        (resolution_U, width_U), index_N = _distinct((resolution_N, in_width_N), counts)
        head = self._head(widths[width_U], size_R[resolution_U])
        return [*parts, (NetworkPlan(none, (), head), len(width_U), index_N)]

    @functools.cached_property
    def full_plan(self) -> NetworkPlan:
        """The layers of the supernet: each as large as any architecture needs it.

        That is more than the largest subnet when a smaller one has a layer the largest has not, such as the 1x1
        convolution of a shortcut between two widths.
        """
        in_choices: tuple[int, ...] = self.stem.widths
        size = self._stem(np.array([in_choices[-1]]), np.array([max(self.resolutions)])).out_size
        blocks = []
        for stage in self.stages:
            for index in range(max(stage.depths)):
                same_width = index > 0 and self.choices == "per-stage"
                rows = [
                    (before, *values)
                    for before, *values in itertools.product(in_choices, *stage.block_choices)
                    if not same_width or before == values[0]
                ]
                before, *columns = (np.array(column) for column in zip(*rows, strict=True))
                always, stride = np.ones(len(rows), np.bool_), stage.stride if index == 0 else 1
                inputs = BlockInput(f"{stage.name}.{index}", stride, always, before, size, *columns)
                blocks.append(largest_over(self._family.block(inputs)))
                in_choices, size = stage.widths, -(-size // stride)
        plan = NetworkPlan(
            self._stem(np.array([self.stem.widths[-1]]), np.array([max(self.resolutions)])),
            tuple(blocks),
            self._head(np.array([max(in_choices)]), size),
        )
        return concrete(plan)

    @functools.cached_property
    def _family(self) -> Family:
        make: Callable[[], Family] = registry.resolve("family", self.family)
        return make()

    def _block_columns(self) -> Iterator[tuple[Stage, int, int, int]]:
        """Yield for each block its stage, its index there, the column of the depth and the first of its own genes."""
        column = 2
        for stage in self.stages:
            depth_column, column = column, column + 1
            for index in range(max(stage.depths)):
                yield stage, index, depth_column, column + (_BLOCK_GENES * index if self.choices == "per-block" else 0)
            column += _BLOCK_GENES * self._num_described(stage)

    def _num_described(self, stage: Stage) -> int:
        return 1 if self.choices == "per-stage" else max(stage.depths)

    def _corner(self, extreme: Callable[[Sequence[Any]], Any]) -> Architecture:
        stages = tuple(
            (Block(*(extreme(choices) for choices in stage.block_choices)),) * extreme(stage.depths)
            for stage in self.stages
        )
        return Architecture(extreme(self.resolutions), extreme(self.stem.widths), stages)

    def _stage_rows(self, stage: Stage) -> IntArray:
        """Genes of every different choice for one stage, shape (S, genes of the stage)."""
        block_rows = np.indices([len(choices) for choices in stage.block_choices]).reshape(_BLOCK_GENES, -1).T
        parts = []
        for depth_gene, depth in enumerate(stage.depths):
            repeats = depth if self.choices == "per-block" else 1
            picks = np.indices([len(block_rows)] * repeats).reshape(repeats, -1)
            chosen = np.concatenate([block_rows[pick] for pick in picks], axis=1)
            rows = np.zeros((len(chosen), 1 + _BLOCK_GENES * self._num_described(stage)), np.int64)
            rows[:, 0] = depth_gene
            rows[:, 1 : 1 + chosen.shape[1]] = chosen
            parts.append(rows)
        return np.concatenate(parts)

    def _stem(self, width: Any, resolution: Any) -> Layer:
        return Layer(
            "stem",
            "conv",
            self.in_channels,
            width,
            resolution,
            self.stem.kernel_size,
            self.stem.stride,
            has_norm=True,
            has_activation=True,
        )

    def _head(self, in_channels: Any, size: Any) -> tuple[Layer, ...]:
        pool = Layer("head.pool", "global_pool", in_channels, in_channels, size, size)
        return pool, Layer("head", "linear", in_channels, self.num_classes, np.ones_like(size))


def _distinct(columns: Sequence[IntArray], counts: Sequence[int]) -> tuple[list[IntArray], IntArray]:
    """Return the different rows that columns of small numbers form, column by column, and which row each is."""
    key_N = columns[0].copy()
    for column_N, count in zip(columns[1:], counts[1:], strict=True):
        key_N *= count
        key_N += column_N
    is_there = np.zeros(math.prod(counts), np.bool_)
    is_there[key_N] = True
    position = np.cumsum(is_there) - 1
    return list(np.unravel_index(np.flatnonzero(is_there), counts)), position[key_N]


def _index(choices: Sequence[Any], value: Any, what: str, space: SearchSpace) -> int:
    if value not in choices:
        raise ConfigError(f"{what}: got {value}, expected one of {list(choices)} of space {space.name}")
    return choices.index(value)
