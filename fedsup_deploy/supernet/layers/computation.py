"""What a kind of layer computes. Which tensors it has, and what it costs, says `space.layers`.

Shapes: B batch, C channels, H W spatial.
"""

import functools
from collections.abc import Mapping
from typing import Protocol

from torch import Tensor, nn

from fedsup_deploy import registry
from fedsup_deploy.space.layers.layer import Layer


class Computation(Protocol):
    """A kind of layer, without the normalisation and the activation that follow it."""

    def forward(self, layer: Layer, weights: Mapping[str, Tensor], x_BCHW: Tensor) -> Tensor:
        """Return what the layer makes of a feature map, channels innermost in both.

        Args:
            layer: In plain integers.
            weights: All tensors of the network, by name; a bias may be missing.
            x_BCHW: What it reads.
        """
        ...

    def module(self, layer: Layer) -> nn.Module:
        """Return the layer as a module, whose tensors have the names that follow the layer's in a folded network."""
        ...


def computation_of(layer: Layer) -> Computation:
    """Return what computes a layer.

    Raises:
        ConfigError: No such kind is registered.
    """
    return _computation(registry.resolve("computation", layer.op))


@functools.cache
def _computation(kind: type[Computation]) -> Computation:
    return kind()
