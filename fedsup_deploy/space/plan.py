"""The layers a choice of architecture leads to. The one description from which costs, slices and networks are made.

Shapes: N architectures described at once. Every number of a `Layer` is then an array of shape (N,), and a layer that
only some of them have carries a mask. The plan of a single architecture is the same computation with N = 1, in plain
integers, without what is not active.
"""

import dataclasses
from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedsup_deploy.space.layers.layer import Flag, Layer, Number, with_numbers

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


@dataclasses.dataclass(frozen=True)
class BlockPlan:
    """A residual block: main path plus shortcut, added, with or without a ReLU after the sum."""

    name: str
    main: tuple[Layer, ...]
    shortcut: tuple[Layer, ...]
    add: Layer


@dataclasses.dataclass(frozen=True)
class NetworkPlan:
    """A whole network: first convolution, blocks, global average pooling and classifier.

    `head` is empty in a network cut short by `until`.
    """

    stem: Layer
    blocks: tuple[BlockPlan, ...]
    head: tuple[Layer, ...]

    @property
    def parts(self) -> tuple[Layer | BlockPlan, ...]:
        """The first convolution and the blocks: each reads what the one before has written, and nothing else."""
        return (self.stem, *self.blocks)

    def layers(self) -> Iterator[Layer]:
        """Yield every layer in an order in which each comes after those it reads from."""
        yield self.stem
        for block in self.blocks:
            yield from block.main
            yield from block.shortcut
            yield block.add
        yield from self.head

    def norm_layers(self) -> tuple[Layer, ...]:
        """Return the layers that a normalisation follows, in order."""
        return tuple(layer for layer in self.layers() if layer.has_norm)

    def until(self, name: str) -> "NetworkPlan":
        """Return the shortest leading part that contains the layer `name`: whole blocks, no head."""
        if name == self.stem.name:
            return NetworkPlan(self.stem, (), ())
        for index, block in enumerate(self.blocks):
            if name in {layer.name for layer in (*block.main, *block.shortcut)}:
                return NetworkPlan(self.stem, self.blocks[: index + 1], ())
        raise KeyError(name)


@dataclasses.dataclass(frozen=True)
class BlockInput:
    """What a family builds a block from. Arrays of shape (N,), or integers."""

    name: str
    stride: int
    is_active: Flag
    in_channels: Number
    in_size: Number
    width: Number
    kernel_size: Number
    expand_ratio: Number
    has_se: Flag


class Family(Protocol):
    """How a block family turns choices into layers. One module in `space/families/` each."""

    def block(self, inputs: BlockInput) -> BlockPlan:
        """Return the block's layers; every number may be an array, and absence is a mask."""
        ...


def concrete(plan: NetworkPlan) -> NetworkPlan:
    """Return the plan of N = 1 architecture in plain integers, without inactive layers and blocks."""
    blocks = tuple(
        BlockPlan(block.name, _plain_path(block.main), _plain_path(block.shortcut), _plain(block.add))
        for block in plan.blocks
        if _is_active(block.add)
    )
    return NetworkPlan(_plain(plan.stem), blocks, tuple(_plain(layer) for layer in plan.head))


def largest_over(block: BlockPlan) -> BlockPlan:
    """Return the block, N = 1, with each layer as large as the largest among the N that have it."""

    def widest(layer: Layer) -> Layer:
        active = np.asarray(layer.is_active)

        def largest(values: Number) -> IntArray:
            return np.asarray(np.max(np.broadcast_to(values, active.shape), where=active, initial=0, keepdims=True))

        return with_numbers(layer, largest, is_active=active.any(keepdims=True))

    main, shortcut = (tuple(widest(layer) for layer in path) for path in (block.main, block.shortcut))
    return BlockPlan(block.name, main, shortcut, widest(block.add))


def _plain(layer: Layer) -> Layer:
    return with_numbers(layer, lambda values: int(np.broadcast_to(values, (1,))[0]), is_active=True)


def _plain_path(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    return tuple(_plain(layer) for layer in layers if _is_active(layer))


def _is_active(layer: Layer) -> bool:
    return bool(np.broadcast_to(layer.is_active, (1,))[0])
