"""The average of 2x2 pixels.

Shapes: B batch, C channels, H W spatial.
"""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional

from fedsup_deploy.space.layers.layer import Layer


class AveragePool:
    """Where a window overhangs the map, the average is that of the pixels within."""

    def forward(self, layer: Layer, weights: Mapping[str, Tensor], x_BCHW: Tensor) -> Tensor:  # noqa: ARG002
        """Return the averages."""
        return functional.avg_pool2d(x_BCHW, 2, ceil_mode=True)

    def module(self, layer: Layer) -> nn.Module:
        """Return an AvgPool2d."""
        # Without need, ceil_mode stays off: fewer runtimes know it. Whether padding counts makes no difference where
        # there is none, except to converters: ncnn's then divide by the whole window where one overhangs.
        return nn.AvgPool2d(2, ceil_mode=layer.in_size % 2 == 1, count_include_pad=False)
