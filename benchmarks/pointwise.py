"""1x1 convolutions with the channels innermost, forward and backward: conv2d beside one matrix product.

    python benchmarks/pointwise.py

Full batches again and again, then batches of sizes that conv2d has not computed yet, as clients have them: it compiles
a kernel for each. Where a product is faster decides which way `supernet/layers/convolution.py` takes.
"""

import time
from collections.abc import Callable

import torch
from interleaved import ratio_of_medians, time_in_turn
from torch import Tensor
from torch.nn import functional

BATCH = 32
SIDES = (2, 4, 7, 8, 14, 16, 24, 28, 32, 56, 112)
CHANNELS = ((8, 32), (16, 16), (16, 96), (24, 24), (32, 8), (48, 192), (64, 64), (128, 128), (192, 32), (256, 512))
#: Sizes of the last batches of clients.
LAST_BATCHES = range(5, BATCH)
#: What a step of the largest layers may take.
MOST_MACS = 30_000_000
#: A step of the smallest layers takes a tenth of a millisecond; timed is about ten milliseconds of steps.
TIMED_MACS = 200_000_000


def product(x_BCHW: Tensor, weight: Tensor) -> Tensor:
    """Return the convolution as a matrix product."""
    return functional.linear(x_BCHW.permute(0, 2, 3, 1), weight.flatten(1)).permute(0, 3, 1, 2)


def step(
    compute: Callable[[Tensor, Tensor], Tensor], batch: int, side: int, inputs: int, outputs: int
) -> Callable[[], None]:
    """Return what computes values and gradients of one batch."""
    x_BCHW = torch.randn(batch, inputs, side, side).to(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(outputs, inputs, 1, 1, requires_grad=True)
    gradient = torch.randn(batch, outputs, side, side).to(memory_format=torch.channels_last)

    def call() -> None:
        x_BCHW.grad = weight.grad = None
        compute(x_BCHW, weight).backward(gradient)

    return call


def repeated(call: Callable[[], None], times: int) -> Callable[[], None]:
    """Return what does `call` so often."""

    def calls() -> None:
        for _ in range(times):
            call()

    return calls


def seconds_of_new_sizes(compute: Callable[[Tensor, Tensor], Tensor], side: int, inputs: int, outputs: int) -> float:
    """Return the seconds of one step of each size of a last batch; call it once for each shape."""
    calls = [step(compute, batch, side, inputs, outputs) for batch in LAST_BATCHES]
    started = time.perf_counter()
    for call in calls:
        call()
    return time.perf_counter() - started


def main() -> None:
    """Print how many times as long conv2d takes as a product, by pixels of the map."""
    print("| map | channels | full batches | new sizes |\n| --- | --- | --- | --- |")
    forms = {"conv2d": functional.conv2d, "product": product}
    for side in SIDES:
        for inputs, outputs in CHANNELS:
            macs = side * side * inputs * outputs
            if macs > MOST_MACS:
                continue
            times = max(1, TIMED_MACS // (BATCH * macs))
            full = {name: repeated(step(form, BATCH, side, inputs, outputs), times) for name, form in forms.items()}
            ratio = ratio_of_medians(time_in_turn(full, rounds=7), "conv2d", "product")
            new = {name: seconds_of_new_sizes(form, side, inputs, outputs) for name, form in forms.items()}
            print(f"| {side}x{side} | {inputs} to {outputs} | {ratio:.2f} | {new['conv2d'] / new['product']:.2f} |")


if __name__ == "__main__":
    main()
