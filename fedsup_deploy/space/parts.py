"""Networks cut into the parts that are timed alone: first convolution, blocks, head. And a name for each part.

A part is named by what it computes, not by where it stands, so that two networks share the parts they have in common:
`depthwise 7x7/2 64@16, pointwise 64-128@8 | pool 64@16, pointwise 64-128@8` is the main path, then the shortcut.

Shapes: N architectures.
"""

import dataclasses
import re
from typing import Any, Final

import numpy as np

from fedsup_deploy import registry
from fedsup_deploy.space.layers.kind import kind_of
from fedsup_deploy.space.layers.layer import Layer, with_numbers
from fedsup_deploy.space.plan import BlockPlan, IntArray, NetworkPlan

#: Consecutive layers that are timed together: a block, or the layers before the first and after the last one.
Part = BlockPlan | tuple[Layer, ...]

# Odd, and the same everywhere: a part's name must not depend on the process.
_MULTIPLIER: Final = 0x9E3779B97F4A7C15


@dataclasses.dataclass(frozen=True)
class PartNames:
    """The names of one part of N architectures.

    Args:
        names: The distinct ones.
        index_N: Which of them each architecture has; -1 where it has no such part.
    """

    names: tuple[str, ...]
    index_N: IntArray


def parts_of(plan: NetworkPlan) -> tuple[Part, ...]:
    """Return the parts of a network, in order."""
    return ((plan.stem,), *plan.blocks, plan.head)


def layers_of(part: Part) -> tuple[Layer, ...]:
    """Return all layers of a part, each after those it reads from."""
    return (*part.main, *part.shortcut, part.add) if isinstance(part, BlockPlan) else part


def name_of(part: Part) -> str:
    """Return the name of a part in plain integers."""
    if not isinstance(part, BlockPlan):
        return _path(part)
    # The shape of the sum follows from the paths; whether a ReLU comes after it does not.
    end = " | relu" if part.add.has_activation else ""
    return f"{_path(part.main)} | {_path(part.shortcut) or 'identity'}{end}"


def is_name(text: str) -> bool:
    """Return whether a text has the form of a part's name."""
    layer = rf"({'|'.join(registry.names('layer'))})( \d+x\d+)?(/2)? \d+(-\d+)?@\d+"
    path = rf"{layer}(, {layer})*"
    return re.fullmatch(rf"{path}( \| ({path}|identity)( \| relu)?)?", text) is not None


def part_names(plan: NetworkPlan, count: int) -> list[PartNames]:
    """Return the names of every part of N architectures. Parts in the order of `parts_of`.

    Args:
        plan: Of N architectures at once.
        count: N.
    """
    return [_names(part, count) for part in parts_of(plan) if layers_of(part)]


def _names(part: Part, count: int) -> PartNames:
    is_active_N = np.broadcast_to(layers_of(part)[-1].is_active, (count,))
    if not is_active_N.any():
        return PartNames((), np.full(count, -1, np.int64))
    # One number per architecture, equal where everything about the part is equal.
    key_N = np.zeros(count, np.uint64)
    for layer in layers_of(part):
        for values in (layer.is_active, layer.in_channels, layer.out_channels, layer.in_size, layer.kernel_size):
            key_N = (key_N ^ np.asarray(values).astype(np.uint64)) * np.uint64(_MULTIPLIER)
            key_N ^= key_N >> np.uint64(29)
    _, first_U, inverse_N = np.unique(key_N[is_active_N], return_index=True, return_inverse=True)
    rows = np.flatnonzero(is_active_N)[first_U]
    index_N = np.full(count, -1, np.int64)
    index_N[is_active_N] = inverse_N
    return PartNames(tuple(name_of(_row(part, int(row), count)) for row in rows), index_N)


def _row(part: Part, row: int, count: int) -> Part:
    """Return the part of one of the architectures, in plain integers, without inactive layers."""

    def plain(values: Any) -> int:
        # What all have in common is a single number, or an array of one.
        return int(values[row if len(values) == count else 0]) if isinstance(values, np.ndarray) else int(values)

    def layer_at(layer: Layer) -> Layer:
        return with_numbers(layer, plain, is_active=True)

    def path(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
        return tuple(layer_at(layer) for layer in layers if plain(layer.is_active))

    if isinstance(part, BlockPlan):
        return BlockPlan(part.name, path(part.main), path(part.shortcut), layer_at(part.add))
    return path(part)


def _path(layers: tuple[Layer, ...]) -> str:
    return ", ".join(_layer(layer) for layer in layers)


def _layer(layer: Layer) -> str:
    kernel = f" {layer.kernel_size}x{layer.kernel_size}" if layer.kernel_size > 1 else ""
    stride = "/2" if layer.stride == 2 else ""
    channels = str(layer.in_channels)
    if kind_of(layer).is_named_by_outputs:
        channels += f"-{layer.out_channels}"
    return f"{layer.op}{kernel}{stride} {channels}@{layer.in_size}"
