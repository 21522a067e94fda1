"""The depthwise convolution: values and gradients are those of torch."""

import itertools

import pytest
import torch
from torch.nn import functional

from fedsup_deploy.supernet.layers import depthwise
from fedsup_deploy.supernet.layers.depthwise import depthwise_conv2d


def random(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def way_taken(batch: int, channels: int, side: int, kernel: int, stride: int) -> str:
    """Return which branch computes the weight gradient; the test below makes sure that none is left out."""
    if not depthwise.is_by_pairs(side, kernel):
        return "torch"
    is_small = batch * channels * side**2 * (-(-side // stride)) ** 2 <= depthwise._SMALL
    return "pairs" if is_small else "matrix products"


CASES = [
    *(
        (2, 3, side, kernel, stride)
        for side, kernel, stride in itertools.product((1, 2, 4, 7, 8), (1, 3, 5, 7), (1, 2))
    ),
    *((32, 128, 8, kernel, stride) for kernel, stride in itertools.product((3, 5, 7), (1, 2))),
    *((64, 200, 4, kernel, 1) for kernel in (3, 5, 7)),
    *((8, 48, 16, kernel, stride) for kernel, stride in itertools.product((3, 7), (1, 2))),
]


def test_cases_take_every_way() -> None:
    assert {way_taken(*case) for case in CASES} == {"pairs", "matrix products", "torch"}


@pytest.mark.parametrize(("batch", "channels", "side", "kernel", "stride"), CASES)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_values_and_gradients_are_those_of_torch(
    batch: int, channels: int, side: int, kernel: int, stride: int, memory_format: torch.memory_format
) -> None:
    x = random(batch, channels, side, side, seed=0).to(memory_format=memory_format)
    weight = random(channels, 1, kernel, kernel, seed=1)
    out = -(-side // stride)
    upstream = random(batch, channels, out, out, seed=2).to(memory_format=memory_format)
    results = []
    for function in (
        lambda x, w: depthwise_conv2d(x, w, stride),
        lambda x, w: functional.conv2d(x, w, stride=stride, padding=kernel // 2, groups=channels),
    ):
        inputs = x.clone().requires_grad_(), weight.clone().requires_grad_()
        y = function(*inputs)
        results.append((y.detach(), *torch.autograd.grad(y, inputs, upstream)))
    (y, x_gradient, weight_gradient), (expected_y, expected_x, expected_weight) = results
    assert torch.equal(y, expected_y)
    assert torch.allclose(x_gradient, expected_x, rtol=1e-5, atol=1e-5)
    # A sum of batch x out^2 products, in another order.
    assert torch.allclose(weight_gradient, expected_weight, rtol=1e-4, atol=1e-6 * batch * out**2)
    assert weight_gradient.shape == weight.shape


@pytest.mark.parametrize(("side", "kernel", "stride"), [(4, 3, 1), (5, 3, 2), (4, 5, 1), (5, 7, 2), (1, 5, 1)])
def test_gradients_are_the_slopes(side: int, kernel: int, stride: int) -> None:
    """Against finite differences, in float64."""
    x = random(2, 2, side, side, seed=0, dtype=torch.float64).requires_grad_()
    weight = random(2, 1, kernel, kernel, seed=1, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, w: depthwise_conv2d(x, w, stride), (x, weight))


def test_slopes_of_matrix_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(depthwise, "_SMALL", 0)
    for kernel, stride in itertools.product((5, 7), (1, 2)):
        x = random(2, 1, 4, 4, seed=0, dtype=torch.float64).requires_grad_()
        weight = random(1, 1, kernel, kernel, seed=1, dtype=torch.float64).requires_grad_()
        assert way_taken(2, 1, 4, kernel, stride) == "matrix products"
        assert torch.autograd.gradcheck(lambda x, w, stride=stride: depthwise_conv2d(x, w, stride), (x, weight))


@pytest.mark.parametrize("wanted", ["x", "weight"])
def test_only_the_gradient_asked_for_is_computed(wanted: str) -> None:
    x, weight = random(2, 3, 6, 6, seed=0), random(3, 1, 3, 3, seed=1)
    {"x": x, "weight": weight}[wanted].requires_grad_()
    depthwise_conv2d(x, weight, 1).sum().backward()
    assert (x.grad is not None, weight.grad is not None) == (wanted == "x", wanted == "weight")
