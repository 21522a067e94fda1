"""`Layer`: one operation of a network, or the same operation of many networks at once.

Shapes: N architectures described at once. Every number is then an array of shape (N,), and a layer that only some of
them have carries a mask.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias

#: An integer, or an array with one for each of N architectures, shape (N,). It is `Any`, for arithmetic means the same
#: for both, and of a union of them no type checker knows what a sum or a product is.
Number: TypeAlias = Any
#: The same of truth values.
Flag: TypeAlias = Any


@dataclasses.dataclass(frozen=True)
class Layer:
    """One operation on a square feature map.

    Args:
        name: Dotted path, unique in the network: `mb2.1.depthwise`.
        op: Its kind, one of those registered; `space.layers` has them.
        in_channels: Channels read.
        out_channels: Channels written; for `squeeze_excite` the hidden channels.
        in_size: Side of the feature map read, in pixels.
        kernel_size: Side of the kernel; 1 where there is none.
        stride: Step of the kernel; the side of the result is ceil(in_size / stride).
        is_active: Which architectures have the layer.
        has_norm: Whether a normalisation follows.
        has_activation: Whether a ReLU follows (after the normalisation).
        ends_residual: Whether it is the last of a block's main path, whose normalisation starts damped.
    """

    name: str
    op: str
    in_channels: Number
    out_channels: Number
    in_size: Number
    kernel_size: Number = 1
    stride: int = 1
    is_active: Flag = True
    has_norm: bool = False
    has_activation: bool = False
    ends_residual: bool = False

    @property
    def out_size(self) -> Number:
        """Side of the feature map written, in pixels."""
        return -(-self.in_size // self.stride)


def with_numbers(layer: Layer, change: Callable[[Number], Number], is_active: Flag) -> Layer:
    """Return the layer with every number changed, and another mask."""
    return dataclasses.replace(
        layer,
        in_channels=change(layer.in_channels),
        out_channels=change(layer.out_channels),
        in_size=change(layer.in_size),
        kernel_size=change(layer.kernel_size),
        is_active=is_active,
    )
