"""A depthwise convolution with a fast weight gradient on CPU.

On CPU, torch's weight gradient of a depthwise convolution whose kernel is larger than the feature map takes most of a
training step. There is a shorter way: sum the products of every input pixel p with every output pixel q over the batch,

    M[c, p, q] = sum over images b of x[b, c, p] * g[b, c, q],

and add up the entries of M that share an offset p - stride * q, which is the kernel's index. That is exact; only the
order of the sum differs. `benchmarks/depthwise_gradient.py` compares the two.

Shapes: B batch, C channels, S side of the input map, Q side of the output map.
"""

import functools
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

#: Elements of the product over all pairs of pixels that are still summed without matrix products.
_SMALL = 1_500_000
#: Largest side of a feature map on which the sum over pairs beats torch: with a kernel of 3, and with a larger one.
_MAX_SIDE_OF_3 = 2
_MAX_SIDE = 4


def is_by_pairs(side: int, kernel: int) -> bool:
    """Return whether the weight gradient of a kernel on such a feature map is summed over pairs of pixels."""
    return side <= (_MAX_SIDE if kernel > 3 else _MAX_SIDE_OF_3)


def depthwise_conv2d(x_BCSS: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Return the depthwise convolution with padding kernel // 2, as `torch.nn.functional.conv2d` does.

    Args:
        x_BCSS: Square feature maps, channels innermost in memory.
        weight: Kernels, shape (C, 1, k, k) with odd k.
        stride: Step of the kernel.
    """
    if not is_by_pairs(x_BCSS.shape[-1], weight.shape[-1]):
        return functional.conv2d(x_BCSS, weight, None, stride, weight.shape[-1] // 2, groups=len(weight))
    result: Tensor = _ByPairs.apply(x_BCSS, weight, stride)  # type: ignore[no-untyped-call]  # torch has no types
    return result


class _ByPairs(torch.autograd.Function):
    @staticmethod
    # Any: torch gives the context no type.
    def forward(ctx: Any, x_BCSS: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(x_BCSS, weight)
        ctx.stride = stride
        return functional.conv2d(x_BCSS, weight, stride=stride, padding=weight.shape[-1] // 2, groups=weight.shape[0])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x_BCSS, weight = ctx.saved_tensors
        (gradient_BCQQ,) = gradients
        kernel = weight.shape[-1]
        needs_input, needs_weight, _ = ctx.needs_input_grad
        input_gradient, _, _ = torch.ops.aten.convolution_backward(
            gradient_BCQQ,
            x_BCSS,
            weight,
            None,
            [ctx.stride] * 2,
            [kernel // 2] * 2,
            [1, 1],
            False,
            [0, 0],
            weight.shape[0],
            [needs_input, False, False],
        )
        weight_gradient = _weight_gradient(x_BCSS, gradient_BCQQ, kernel, ctx.stride) if needs_weight else None
        return input_gradient, weight_gradient, None


def _weight_gradient(x_BCSS: Tensor, gradient_BCQQ: Tensor, kernel: int, stride: int) -> Tensor:
    batch, channels, side, _ = x_BCSS.shape
    out = gradient_BCQQ.shape[-1]
    if x_BCSS.numel() * out**2 <= _SMALL:
        x = x_BCSS.permute(0, 2, 3, 1).reshape(batch, side**2, 1, channels)
        gradient = gradient_BCQQ.permute(0, 2, 3, 1).reshape(batch, 1, out**2, channels)
        products_CM = (x * gradient).sum(dim=0).view(-1, channels).t()
    else:
        x = x_BCSS.permute(1, 2, 3, 0).reshape(channels, side**2, batch)
        gradient = gradient_BCQQ.permute(1, 0, 2, 3).reshape(channels, batch, out**2)
        products_CM = torch.bmm(x, gradient).view(channels, -1)
    offsets = _offsets(side, out, kernel, stride).to(products_CM.dtype)
    return (products_CM @ offsets).view(channels, 1, kernel, kernel)


@functools.lru_cache(maxsize=64)
def _offsets(side: int, out: int, kernel: int, stride: int) -> Tensor:
    """Return the matrix (side^2 out^2, kernel^2) with a 1 where a pair of pixels meets a kernel entry."""
    offset = torch.arange(side)[:, None] - torch.arange(out)[None, :] * stride + kernel // 2
    is_entry = functional.one_hot(offset.clamp(0, kernel - 1), kernel).float() * (
        (offset >= 0) & (offset < kernel)
    ).unsqueeze(-1)
    pairs = torch.einsum("yvi,xwj->yxvwij", is_entry, is_entry)
    return pairs.reshape(side**2 * out**2, kernel**2)
