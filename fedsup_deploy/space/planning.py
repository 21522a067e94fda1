"""The layers of a space's architectures: of many at once, of their different parts, and of the supernet.

All three are read off one walk over the blocks.

Shapes: N architectures, G genes, R resolutions, U different parts.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fedsup_deploy.space.encoding import BLOCK_GENES, stage_columns
from fedsup_deploy.space.layers.layer import Flag, Layer, Number
from fedsup_deploy.space.plan import BlockInput, BlockPlan, IntArray, NetworkPlan, concrete, largest_over
from fedsup_deploy.space.stage import Stage

if TYPE_CHECKING:
    from fedsup_deploy.space.search_space import SearchSpace


@dataclasses.dataclass(frozen=True)
class _BlockPlace:
    """Where a block stands.

    Args:
        stage: Its stage.
        index: Its number in it.
        in_size: Side of what it reads, in pixels, for each of the resolutions walked with.
        depth_column: The gene of the stage's depth.
        column: The first of its own genes.
    """

    stage: Stage
    index: int
    in_size: Number
    depth_column: int
    column: int

    @property
    def stride(self) -> int:
        """Step of the block: only the first of a stage has one."""
        return self.stage.stride if self.index == 0 else 1

    @property
    def out_size(self) -> Number:
        """Side of what it writes."""
        return -(-self.in_size // self.stride)

    @property
    def depths(self) -> IntArray:
        """The choices of depth of its stage."""
        return np.asarray(self.stage.depths)


def plan_many(space: "SearchSpace", genes_NG: IntArray) -> NetworkPlan:
    """Return the layers of N architectures at once: every number an array of shape (N,)."""
    choices = (space.resolutions, space.stem.widths)
    resolution_N, in_channels_N = (np.asarray(c)[genes_NG[:, column]] for column, c in enumerate(choices))
    stem, blocks, size_N = _stem(space, in_channels_N, resolution_N), [], resolution_N
    for place in _walk(space, resolution_N):
        own = [np.asarray(c)[genes_NG[:, place.column + i]] for i, c in enumerate(place.stage.block_choices)]
        is_active_N = place.depths[genes_NG[:, place.depth_column]] > place.index
        blocks.append(_block(space, place, is_active_N, in_channels_N, place.in_size, own))
        in_channels_N, size_N = np.where(is_active_N, own[0], in_channels_N), place.out_size
    return NetworkPlan(stem, tuple(blocks), _head(space, in_channels_N, size_N))


def distinct_parts(space: "SearchSpace", genes_NG: IntArray) -> list[tuple[NetworkPlan, int, IntArray]]:
    """Return first convolution, blocks and head of N architectures: see `SearchSpace.distinct_parts`."""
    resolutions, stem_widths = np.asarray(space.resolutions), np.asarray(space.stem.widths)
    widths = np.array(sorted({*space.stem.widths, *(width for stage in space.stages for width in stage.widths)}))
    genes_GN = np.ascontiguousarray(genes_NG.T)
    resolution_N, stem_width_N = genes_GN[:2]
    (resolution_U, width_U), index_N = _distinct((resolution_N, stem_width_N), (len(resolutions), len(stem_widths)))
    stem = _stem(space, stem_widths[width_U], resolutions[resolution_U])
    none = dataclasses.replace(_stem(space, np.ones(1, np.int64), np.ones(1, np.int64)), is_active=False)
    parts = [(NetworkPlan(stem, (), ()), len(width_U), index_N)]
    in_width_N, size_R = np.searchsorted(widths, stem_widths)[stem_width_N], resolutions
    for place in _walk(space, resolutions):
        stage = place.stage
        is_active_N = (place.depths > place.index)[genes_GN[place.depth_column]]
        columns = (resolution_N, in_width_N, is_active_N, *genes_GN[place.column : place.column + BLOCK_GENES])
        counts = (len(resolutions), len(widths), 2, *(len(choices) for choices in stage.block_choices))
        (resolution_U, in_width_U, is_active_U, *genes_U), index_N = _distinct(columns, counts)
        own = [np.asarray(choices)[gene_U] for choices, gene_U in zip(stage.block_choices, genes_U, strict=True)]
        before = (is_active_U.astype(np.bool_), widths[in_width_U], place.in_size[resolution_U])
        parts.append((NetworkPlan(none, (_block(space, place, *before, own),), ()), len(in_width_U), index_N))
        own_width_N = np.searchsorted(widths, stage.widths)[genes_GN[place.column]]
        in_width_N, size_R = np.where(is_active_N, own_width_N, in_width_N), place.out_size
    (resolution_U, width_U), index_N = _distinct((resolution_N, in_width_N), (len(resolutions), len(widths)))
    head = _head(space, widths[width_U], size_R[resolution_U])
    return [*parts, (NetworkPlan(none, (), head), len(width_U), index_N)]


def full_plan(space: "SearchSpace") -> NetworkPlan:
    """Return the layers of the supernet: each as large as any architecture needs it."""
    resolution, in_choices = np.array([max(space.resolutions)]), space.stem.widths
    stem, blocks, size = _stem(space, np.array([in_choices[-1]]), resolution), [], resolution
    for place in _walk(space, resolution):
        same_width = place.index > 0 and space.choices == "per-stage"
        rows = [
            (before, *values)
            for before, *values in itertools.product(in_choices, *place.stage.block_choices)
            if not same_width or before == values[0]
        ]
        before, *own = (np.array(column) for column in zip(*rows, strict=True))
        always = np.ones(len(rows), np.bool_)
        blocks.append(largest_over(_block(space, place, always, before, place.in_size, own)))
        in_choices, size = place.stage.widths, place.out_size
    return concrete(NetworkPlan(stem, tuple(blocks), _head(space, np.array([max(in_choices)]), size)))


def _walk(space: "SearchSpace", resolution: Number) -> Iterator[_BlockPlace]:
    """Yield where each block stands, for one resolution or an array of them.

    A stage has at least one block, so that the side of a block's input follows from the resolution alone.
    """
    size = _stem(space, 1, resolution).out_size
    for stage, depth_column in stage_columns(space):
        for index in range(max(stage.depths)):
            described = min(index, space.num_described(stage) - 1)
            place = _BlockPlace(stage, index, size, depth_column, depth_column + 1 + BLOCK_GENES * described)
            yield place
            size = place.out_size


def _block(
    space: "SearchSpace",
    place: _BlockPlace,
    is_active: Flag,
    in_channels: Number,
    in_size: Number,
    own: Sequence[Number],
) -> BlockPlan:
    name = f"{place.stage.name}.{place.index}"
    return space.block_family.block(BlockInput(name, place.stride, is_active, in_channels, in_size, *own))


def _stem(space: "SearchSpace", width: Number, resolution: Number) -> Layer:
    return Layer(
        "stem",
        "conv",
        space.in_channels,
        width,
        resolution,
        space.stem.kernel_size,
        space.stem.stride,
        has_norm=True,
        has_activation=True,
    )


def _head(space: "SearchSpace", in_channels: Number, size: Number) -> tuple[Layer, ...]:
    pool = Layer("head.pool", "global_pool", in_channels, in_channels, size, size)
    return pool, Layer("head", "linear", in_channels, space.num_classes, np.ones_like(size))


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
