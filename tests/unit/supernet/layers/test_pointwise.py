"""1x1 convolutions, by a matrix product or by conv2d: the same values and gradients."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fedsup_deploy.space.layers.layer import Layer
from fedsup_deploy.supernet.layers.convolution import Pointwise

#: Sides of maps to both sides of where the way changes.
SIDES = (4, 16, 17, 40)


def _layer(side: int, stride: int) -> Layer:
    return Layer("part", "pointwise", 24, 40, side, stride=stride)


def _computed(side: int, stride: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield what we compute and what conv2d computes in float64: the values and both gradients."""
    generator = torch.Generator().manual_seed(side)
    x_BCHW = torch.randn(3, 24, side, side, generator=generator).to(memory_format=torch.channels_last)
    weight = torch.randn(40, 24, 1, 1, generator=generator)
    results = []
    for dtype in (torch.float32, torch.float64):
        x, w = (tensor.detach().to(dtype).requires_grad_() for tensor in (x_BCHW, weight))
        if dtype == torch.float32:
            y = Pointwise().forward(_layer(side, stride), {"part.weight": w}, x)
        else:
            y = functional.conv2d(x.contiguous(), w, None, stride)
        (y * torch.linspace(-1, 1, y.shape[-1])).sum().backward()
        assert x.grad is not None
        assert w.grad is not None
        results.append((y.detach(), x.grad, w.grad))
    yield from zip(*results, strict=True)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", SIDES)
def test_it_is_the_convolution(side: int, stride: int) -> None:
    for ours, exact in _computed(side, stride):
        torch.testing.assert_close(ours.double(), exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("side", SIDES)
def test_the_channels_stay_innermost(side: int) -> None:
    x_BCHW = torch.zeros(3, 24, side, side).to(memory_format=torch.channels_last)
    y_BCHW = Pointwise().forward(_layer(side, 1), {"part.weight": torch.zeros(40, 24, 1, 1)}, x_BCHW)
    assert y_BCHW.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("side", SIDES)
def test_conv2d_is_never_given_a_stride(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its weight gradient would write outside of its memory."""
    monkeypatch.setattr(functional, "conv2d", pytest.fail)
    x_BCHW = torch.zeros(3, 24, side, side).to(memory_format=torch.channels_last)
    assert Pointwise().forward(_layer(side, 2), {"part.weight": torch.zeros(40, 24, 1, 1)}, x_BCHW).abs().sum() == 0


def test_both_ways_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    monkeypatch.setattr(functional, "conv2d", lambda x, *_: taken.append(x.shape[-1]) or torch.zeros(1))
    for side in SIDES:
        x_BCHW = torch.zeros(3, 24, side, side)
        Pointwise().forward(_layer(side, 1), {"part.weight": torch.zeros(40, 24, 1, 1)}, x_BCHW)
    assert taken == [17, 40]
