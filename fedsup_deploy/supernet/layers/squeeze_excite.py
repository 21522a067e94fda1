"""Squeeze-excitation.

Shapes: B batch, C channels, H W spatial.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedsup_deploy.space.layers.layer import Layer


class SqueezeExcite:
    """Scales each channel by a gate computed from all channels' means."""

    def forward(self, layer: Layer, weights: Mapping[str, Tensor], x_BCHW: Tensor) -> Tensor:
        """Return the scaled map."""
        reduce, expand = f"{layer.name}.reduce", f"{layer.name}.expand"
        gate = x_BCHW.mean(dim=(2, 3), keepdim=True)
        gate = functional.relu(functional.conv2d(gate, weights[f"{reduce}.weight"], weights[f"{reduce}.bias"]))
        gate = functional.conv2d(gate, weights[f"{expand}.weight"], weights[f"{expand}.bias"])
        return x_BCHW * functional.hardsigmoid(gate)

    def module(self, layer: Layer) -> nn.Module:
        """Return the layer as a module."""
        return SqueezeExciteModule(layer.in_channels, layer.out_channels)


class SqueezeExciteModule(nn.Module):
    """The layer with tensors of its own."""

    def __init__(self, num_channels: int, num_hidden: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(num_channels, num_hidden, 1)
        self.expand = nn.Conv2d(num_hidden, num_channels, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the scaled map."""
        gate = self.expand(torch.relu(self.reduce(x_BCHW.mean(dim=(2, 3), keepdim=True))))
        # The hard sigmoid in plain operations: as one, OpenCV 4.14 computes it wrongly, and 5.0 not at all.
        result: Tensor = x_BCHW * (gate * (1 / 6) + 0.5).clamp(0.0, 1.0)
        return result
