"""Normalisers, against their formulas written out."""

import pytest
import torch

from fedsup_deploy.errors import DataError
from fedsup_deploy.supernet.normalization import (
    BY_BATCH,
    PARAMETRIC_EPSILON,
    ChannelAffine,
    ExceptFor,
    FixedAffine,
    SumCollector,
    batch_normalize,
    parametric_normalize,
)

#: Two channels: 1, 2, 3, 6 (mean 3, variance 3.5) and a constant 5.
X_BCHW = torch.tensor([[[[1.0, 2.0]], [[5.0, 5.0]]], [[[3.0, 6.0]], [[5.0, 5.0]]]])
WEIGHTS = {
    "l.norm.alpha": torch.tensor([1.0, 5.0]),
    "l.norm.gamma": torch.tensor([2.0, 3.0]),
    "l.norm.beta": torch.tensor([0.5, -1.0]),
}


def test_batch_normalisation_uses_the_mean_and_biased_variance_of_the_batch() -> None:
    y = batch_normalize("l", X_BCHW, WEIGHTS)
    expected = (torch.tensor([1.0, 2.0, 3.0, 6.0]) - 3) / (3.5 + 1e-5) ** 0.5 * 2 + 0.5
    assert torch.allclose(y[:, 0].flatten(), expected, atol=1e-6)
    # A constant channel: what float32 rounds off its mean is divided by the root of epsilon.
    assert torch.allclose(y[:, 1], torch.tensor(-1.0), atol=1e-3)


def test_parametric_normalisation_uses_the_rms_around_its_centre() -> None:
    """Around alpha = 1 the values are 0, 1, 2, 5: mean square 7.5. Eq. 2."""
    y = parametric_normalize("l", X_BCHW, WEIGHTS)
    expected = torch.tensor([0.0, 1.0, 2.0, 5.0]) / (7.5**0.5 + PARAMETRIC_EPSILON) * 2 + 0.5
    assert torch.allclose(y[:, 0].flatten(), expected, atol=1e-6)
    assert torch.allclose(y[:, 1], torch.tensor(-1.0), atol=1e-6)


@pytest.mark.parametrize("kind", ["batch", "parametric"])
def test_channel_that_is_the_same_everywhere_has_bounded_gradients(kind: str) -> None:
    x = torch.zeros(2, 1, 3, 3, requires_grad=True)
    weights = {f"l.norm.{name}": torch.full((1,), value) for name, value in (("alpha", 0.0), ("gamma", 1.0))}
    weights["l.norm.beta"] = torch.zeros(1)
    upstream = torch.randn(2, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    BY_BATCH[kind]("l", x, weights).backward(upstream)
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert x.grad.abs().max() < 1e3


def test_fixed_affine_does_not_look_at_the_batch() -> None:
    normalizer = FixedAffine({"l": ChannelAffine(torch.tensor([2.0, 0.5]), torch.tensor([1.0, -1.0]))})
    y = normalizer("l", X_BCHW, {})
    assert y[:, 0].flatten().tolist() == [3.0, 5.0, 7.0, 13.0]
    assert y[:, 1].flatten().tolist() == [1.5] * 4
    assert torch.equal(normalizer("l", X_BCHW[:1], {}), y[:1])


def test_layer_without_statistics_is_an_error() -> None:
    with pytest.raises(KeyError, match="no statistics for layer l"):
        FixedAffine({})("l", X_BCHW, WEIGHTS)


def test_one_value_per_channel_cannot_be_normalised_by_itself() -> None:
    """Its variance is 0: whatever it is, what came out would be beta."""
    expected = r"^layer l: got one image on a map of one pixel, expected batches of two images or more$"
    with pytest.raises(DataError, match=expected):
        batch_normalize("l", X_BCHW[:1, :, :1, :1], WEIGHTS)
    assert batch_normalize("l", X_BCHW[:2, :, :1, :1], WEIGHTS).isfinite().all()


def test_layers_that_nobody_looks_at_are_not_normalised() -> None:
    normalizer = ExceptFor(frozenset({"other"}), batch_normalize)
    assert torch.equal(normalizer("l", X_BCHW, WEIGHTS), batch_normalize("l", X_BCHW, WEIGHTS))
    assert normalizer("other", X_BCHW, {}) is X_BCHW


def test_collector_adds_up_what_it_sees_and_changes_nothing() -> None:
    collector = SumCollector(frozenset({"l"}), batch_normalize)
    y = collector("l", X_BCHW, WEIGHTS)
    assert torch.equal(y, batch_normalize("l", X_BCHW, WEIGHTS))
    collector("l", X_BCHW[:1], WEIGHTS)
    count, total, squares = collector.sums["l"]
    assert count == 4 + 2
    assert total.tolist() == [12.0 + 3.0, 20.0 + 10.0]
    assert squares.tolist() == [50.0 + 5.0, 100.0 + 50.0]
    assert total.dtype == squares.dtype == torch.float64


def test_collector_sees_only_the_layers_it_was_asked_for() -> None:
    collector = SumCollector(frozenset({"other"}), batch_normalize)
    collector("l", X_BCHW, WEIGHTS)
    assert collector.sums == {}


def test_collected_sums_carry_no_gradient_history() -> None:
    collector = SumCollector(frozenset({"l"}), batch_normalize)
    collector("l", X_BCHW.clone().requires_grad_(), WEIGHTS)
    assert not collector.sums["l"][1].requires_grad
