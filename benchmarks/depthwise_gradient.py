"""Our depthwise convolution beside torch's: forward and backward at batch 32, shapes of the paper's space, one thread.

Run: python benchmarks/depthwise_gradient.py
"""

import torch
from interleaved import ratio_of_medians, time_in_turn
from torch.nn import functional

from fedsup_deploy.supernet.layers.depthwise import depthwise_conv2d

SHAPES = [(32, 16, 1), (64, 16, 2), (128, 8, 1), (128, 8, 2), (256, 4, 1), (256, 4, 2), (1024, 2, 1)]


def main() -> None:
    """Print a row per channels, side, stride and kernel."""
    print("channels side stride kernel  torch ms  ours ms  ratio of medians")
    for channels, side, stride in SHAPES:
        for kernel in (3, 5, 7):
            x = torch.randn(32, channels, side, side).contiguous(memory_format=torch.channels_last).requires_grad_()
            weight = torch.randn(channels, 1, kernel, kernel, requires_grad=True)
            gradient = torch.randn_like(depthwise_conv2d(x, weight, stride))

            def by_torch(x=x, weight=weight, gradient=gradient, stride=stride) -> object:  # type: ignore[no-untyped-def]
                y = functional.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2, groups=len(weight))
                return torch.autograd.grad(y, (x, weight), gradient)

            def by_us(x=x, weight=weight, gradient=gradient, stride=stride) -> object:  # type: ignore[no-untyped-def]
                return torch.autograd.grad(depthwise_conv2d(x, weight, stride), (x, weight), gradient)

            seconds = time_in_turn({"torch": by_torch, "ours": by_us}, rounds=15)
            best = [1e3 * min(seconds[name]) for name in ("torch", "ours")]
            ratio = ratio_of_medians(seconds, "torch", "ours")
            print(f"{channels:8} {side:4} {stride:6} {kernel:6}  {best[0]:8.2f} {best[1]:8.2f}  {ratio:6.2f}")


if __name__ == "__main__":
    main()
