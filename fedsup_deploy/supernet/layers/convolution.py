"""Convolutions with padding kernel // 2, by the fastest way on CPU with the channels innermost.

Shapes: B batch, C channels, H W spatial.
"""

from collections.abc import Mapping
from typing import Final

from torch import Tensor, nn
from torch.nn import functional

from fedsup_deploy.space.layers.kind import kind_of
from fedsup_deploy.space.layers.layer import Layer
from fedsup_deploy.supernet.layers.depthwise import depthwise_conv2d

#: Pixels of a map up to which a 1x1 convolution is a matrix product. Up to 4x4 that is faster than conv2d in any case.
#: Up to 16x16 conv2d is up to half faster on batches of one size, but takes 1.2 to 9 times as long for a size that is
#: new to it, for it compiles a kernel for each; and the last batches of clients are of all sizes. On larger maps a
#: product is up to 6 times slower, in its gradients (torch 2.13, AVX-512, `benchmarks/pointwise.py`).
_PIXELS_OF_A_PRODUCT: Final = 256


class Convolution:
    """Dense convolutions."""

    def forward(self, layer: Layer, weights: Mapping[str, Tensor], x_BCHW: Tensor) -> Tensor:
        """Return the convolution."""
        # Contiguous: cut out of a larger kernel, it would be added up in another order.
        weight, bias = weights[f"{layer.name}.weight"].contiguous(), weights.get(f"{layer.name}.bias")
        if layer.kernel_size == 1:
            return _of_one_pixel(layer, weight, bias, x_BCHW)
        return functional.conv2d(x_BCHW, weight, bias, layer.stride, layer.kernel_size // 2)

    def module(self, layer: Layer) -> nn.Module:
        """Return a Conv2d with a bias."""
        groups, padding = kind_of(layer).groups(layer), layer.kernel_size // 2
        channels = (layer.in_channels, layer.out_channels)
        return nn.Conv2d(*channels, layer.kernel_size, layer.stride, padding, groups=groups)


class Pointwise(Convolution):
    """1x1 convolutions."""

    def forward(self, layer: Layer, weights: Mapping[str, Tensor], x_BCHW: Tensor) -> Tensor:
        """Return the convolution."""
        return _of_one_pixel(layer, weights[f"{layer.name}.weight"], weights.get(f"{layer.name}.bias"), x_BCHW)


class Depthwise(Convolution):
    """Convolutions of each channel for itself."""

    def forward(self, layer: Layer, weights: Mapping[str, Tensor], x_BCHW: Tensor) -> Tensor:
        """Return the convolution."""
        weight, bias = weights[f"{layer.name}.weight"], weights.get(f"{layer.name}.bias")
        if bias is None:
            return depthwise_conv2d(x_BCHW, weight, layer.stride)
        return functional.conv2d(x_BCHW, weight, bias, layer.stride, layer.kernel_size // 2, groups=layer.in_channels)


def _of_one_pixel(layer: Layer, weight: Tensor, bias: Tensor | None, x_BCHW: Tensor) -> Tensor:
    """Return a 1x1 convolution: of a small map as one matrix product, of a large one by conv2d, whichever is faster.

    With a stride always as a product: there the weight gradient of conv2d, channels innermost, writes outside of its
    memory (torch 2.13, AVX2, few channels).
    """
    if layer.stride == 1 and x_BCHW.shape[2:].numel() > _PIXELS_OF_A_PRODUCT:
        return functional.conv2d(x_BCHW, weight, bias)
    seen = x_BCHW[:, :, :: layer.stride, :: layer.stride]
    return functional.linear(seen.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)
