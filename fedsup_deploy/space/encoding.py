"""An architecture as one row of *genes*: indices into the choices of its space. It knows no layers.

Columns: resolution, stem width, then per stage the depth followed by (width, kernel size, expand ratio, SE) once for
the stage or once per block. Genes of blocks that are not active are 0, so each architecture has exactly one row.

Shapes: N architectures, G genes.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from fedsup_deploy.errors import ConfigError
from fedsup_deploy.space.architecture import Architecture, Block
from fedsup_deploy.space.plan import BoolArray, IntArray
from fedsup_deploy.space.stage import Stage

if TYPE_CHECKING:
    from fedsup_deploy.space.search_space import SearchSpace

_BLOCK_DIMENSIONS: Final = ("width", "kernel_size", "expand_ratio", "has_se")
#: Genes of a block.
BLOCK_GENES: Final = len(_BLOCK_DIMENSIONS)


def stage_columns(space: "SearchSpace") -> Iterator[tuple[Stage, int]]:
    """Yield each stage and the column of its depth; the genes of its blocks follow."""
    column = 2
    for stage in space.stages:
        yield stage, column
        column += 1 + BLOCK_GENES * space.num_described(stage)


def encode(space: "SearchSpace", architecture: Architecture) -> IntArray:
    """Return the genes of an architecture, shape (G,).

    Raises:
        ConfigError: A choice is not in the space; the message names it.
    """
    genes = [
        _index(space.resolutions, architecture.resolution, "resolution", space),
        _index(space.stem.widths, architecture.stem_width, "stem_width", space),
    ]
    if len(architecture.stages) != len(space.stages):
        got = len(architecture.stages)
        raise ConfigError(f"got {got} stages, expected {len(space.stages)} of space {space.name}")
    for stage, blocks in zip(space.stages, architecture.stages, strict=True):
        genes.append(_index(stage.depths, len(blocks), f"depth of {stage.name}", space))
        if space.choices == "per-stage" and len(set(blocks)) > 1:
            raise ConfigError(f"blocks of {stage.name} differ, but space {space.name} chooses per stage")
        described = blocks[: space.num_described(stage)]
        for block in described:
            genes += [
                _index(choices, getattr(block, dimension), f"{dimension} of a block of {stage.name}", space)
                for choices, dimension in zip(stage.block_choices, _BLOCK_DIMENSIONS, strict=True)
            ]
        genes += [0] * (BLOCK_GENES * (space.num_described(stage) - len(described)))
    return np.array(genes, np.int64)


def decode(space: "SearchSpace", genes: IntArray) -> Architecture:
    """Return the architecture of one row of genes, shape (G,). Genes of inactive blocks are ignored."""
    row = [int(gene) for gene in genes]
    stages = []
    for stage, column in stage_columns(space):
        depth, described = stage.depths[row[column]], []
        widths, kernel_sizes, expand_ratios, squeeze_excite = stage.block_choices
        for index in range(space.num_described(stage)):
            start = column + 1 + BLOCK_GENES * index
            width, kernel_size, expand_ratio, has_se = row[start : start + BLOCK_GENES]
            described.append(
                Block(
                    width=widths[width],
                    kernel_size=kernel_sizes[kernel_size],
                    expand_ratio=float(expand_ratios[expand_ratio]),
                    has_se=squeeze_excite[has_se],
                )
            )
        stages.append(tuple(described * depth if space.choices == "per-stage" else described[:depth]))
    return Architecture(space.resolutions[row[0]], space.stem.widths[row[1]], tuple(stages))


def num_choices(space: "SearchSpace") -> tuple[int, ...]:
    """Return the number of choices of each gene, shape (G,)."""
    counts = [len(space.resolutions), len(space.stem.widths)]
    for stage in space.stages:
        counts.append(len(stage.depths))
        counts += [len(choices) for choices in stage.block_choices] * space.num_described(stage)
    return tuple(counts)


def active_genes(space: "SearchSpace", genes_NG: IntArray) -> BoolArray:
    """Return which genes describe an active part of the network, shape (N, G)."""
    active_NG = np.ones(genes_NG.shape, np.bool_)
    if space.choices == "per-block":
        for stage, column in stage_columns(space):
            depth_N = np.asarray(stage.depths)[genes_NG[:, column]]
            for index in range(max(stage.depths)):
                start = column + 1 + BLOCK_GENES * index
                active_NG[depth_N <= index, start : start + BLOCK_GENES] = False
    return active_NG


def enumerate_genes(space: "SearchSpace") -> IntArray:
    """Return the genes of every architecture, shape (N, G), in lexicographic order. Of a space that can be listed."""
    parts = [np.arange(len(space.resolutions))[:, None], np.arange(len(space.stem.widths))[:, None]]
    parts += [_stage_rows(space, stage) for stage in space.stages]
    picks = np.indices([len(part) for part in parts]).reshape(len(parts), -1)
    return np.concatenate([part[pick] for part, pick in zip(parts, picks, strict=True)], axis=1).astype(np.int64)


def _stage_rows(space: "SearchSpace", stage: Stage) -> IntArray:
    """Return the genes of every different choice for one stage, shape (S, genes of the stage)."""
    block_rows = np.indices([len(choices) for choices in stage.block_choices]).reshape(BLOCK_GENES, -1).T
    parts = []
    for depth_gene, depth in enumerate(stage.depths):
        repeats = min(depth, space.num_described(stage))
        picks = np.indices([len(block_rows)] * repeats).reshape(repeats, -1)
        chosen = np.concatenate([block_rows[pick] for pick in picks], axis=1)
        rows = np.zeros((len(chosen), 1 + BLOCK_GENES * space.num_described(stage)), np.int64)
        rows[:, 0] = depth_gene
        rows[:, 1 : 1 + chosen.shape[1]] = chosen
        parts.append(rows)
    return np.concatenate(parts)


def _index(choices: Sequence[object], value: object, what: str, space: "SearchSpace") -> int:
    if value not in choices:
        raise ConfigError(f"{what}: got {value}, expected one of {list(choices)} of space {space.name}")
    return choices.index(value)
