"""1x1 convolutions with the channels innermost, forward and backward: conv2d beside one matrix product.

    python benchmarks/pointwise.py

Where a product is faster decides which way `supernet/layers/convolution.py` takes.
"""

from collections.abc import Callable

import torch
from interleaved import ratio_of_medians, time_in_turn
from torch import Tensor
from torch.nn import functional

BATCH = 32
SIDES = (4, 7, 8, 14, 16, 24, 28, 32, 56)
CHANNELS = ((8, 32), (16, 16), (16, 96), (24, 24), (32, 8), (48, 192), (64, 64), (128, 128), (192, 32))
#: A step of the smallest layers takes a tenth of a millisecond; timed is about ten milliseconds of steps.
TIMED_MACS = 200_000_000


def product(x_BCHW: Tensor, weight: Tensor) -> Tensor:
    """Return the convolution as a matrix product."""
    return functional.linear(x_BCHW.permute(0, 2, 3, 1), weight.flatten(1)).permute(0, 3, 1, 2)


def steps(compute: Callable[[Tensor, Tensor], Tensor], side: int, inputs: int, outputs: int) -> Callable[[], None]:
    """Return what computes values and gradients some times."""
    x_BCHW = torch.randn(BATCH, inputs, side, side).to(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(outputs, inputs, 1, 1, requires_grad=True)
    gradient = torch.randn(BATCH, outputs, side, side).to(memory_format=torch.channels_last)
    times = max(1, TIMED_MACS // (BATCH * side * side * inputs * outputs))

    def call() -> None:
        for _ in range(times):
            x_BCHW.grad = weight.grad = None
            compute(x_BCHW, weight).backward(gradient)

    return call


def main() -> None:
    """Print how many times as long conv2d takes as a product, by multiply-accumulates of one image."""
    ratios = []
    for side in SIDES:
        for inputs, outputs in CHANNELS:
            forms = {
                "conv2d": steps(functional.conv2d, side, inputs, outputs),
                "product": steps(product, side, inputs, outputs),
            }
            ratio = ratio_of_medians(time_in_turn(forms, rounds=7), "conv2d", "product")
            ratios.append((side * side * inputs * outputs, f"{inputs} to {outputs}, {side}x{side}", ratio))
    for macs, which, ratio in sorted(ratios):
        print(f"{macs:>12,} MACs, {which}: {ratio:.2f}")


if __name__ == "__main__":
    main()
