"""Normalisation as an argument of the forward pass, never as hidden state.

A network holds only learned vectors. What the activations are normalised *with* is passed in: the batch's own
statistics (training), or fixed statistics (evaluation and deployment). So nothing depends on a train / eval mode.

Shapes: B batch, C channels, H W spatial.
"""

import dataclasses
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from fedsup_deploy.errors import DataError

#: Added to the variance of batch normalisation before the root.
BATCH_EPSILON = 1e-5
#: Added to the RMS of parametric normalisation. The paper has 1e-8, with which the gradient of a channel that is zero
#: throughout a batch grows by 1e8; this is the square root of BATCH_EPSILON, so both bound it alike.
PARAMETRIC_EPSILON = 3.2e-3


@dataclasses.dataclass(frozen=True)
class ChannelAffine:
    """A normalisation with its statistics known: y = scale * x + shift, both of shape (C,)."""

    scale_C: Tensor
    shift_C: Tensor


class Normalizer(Protocol):
    """Normalises the output of one layer; given to every forward pass."""

    def __call__(self, name: str, x_BCHW: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
        """Return the normalised activations.

        Args:
            name: Name of the layer whose output `x_BCHW` is.
            x_BCHW: Activations.
            weights: Tensors of the network; the layer's learned vectors are at `<name>.norm.*`.
        """
        ...


def batch_normalize(name: str, x_BCHW: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    """Normalise by the mean and biased variance of the batch itself.

    Raises:
        DataError: There is one value per channel, a single image on a map of one pixel: its variance is 0, and what
            came out would be `beta` whatever the image.

    Source: S. Ioffe and C. Szegedy, arXiv 1502.03167, without running statistics.
    """
    if x_BCHW.numel() == x_BCHW.shape[1]:
        raise DataError(f"layer {name}: got one image on a map of one pixel, expected batches of two images or more")
    gamma, beta = weights[f"{name}.norm.gamma"], weights[f"{name}.norm.beta"]
    return functional.batch_norm(x_BCHW, None, None, gamma, beta, training=True, eps=BATCH_EPSILON)


def parametric_normalize(name: str, x_BCHW: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    """Normalise by a learned centre alpha and the batch's RMS around it.

    Source: FedSup (arXiv 2206.01366), eq. 2: (x - alpha) / (RMS(x - alpha) + eps) * gamma + beta.
    """
    alpha, gamma, beta = (weights[f"{name}.norm.{part}"] for part in ("alpha", "gamma", "beta"))
    centred = x_BCHW - alpha[:, None, None]
    mean_square = centred.square().mean(dim=(0, 2, 3))
    # The tiny constant keeps the root differentiable at zero. It changes the scale of a channel that is zero throughout
    # by 1e-6 / PARAMETRIC_EPSILON, 0.03 %, and that of an ordinary one by less than float32 resolves.
    scale = gamma / ((mean_square + 1e-12).sqrt() + PARAMETRIC_EPSILON)
    return centred * scale[:, None, None] + beta[:, None, None]


#: How each kind of normalisation treats a training batch.
BY_BATCH: dict[str, Normalizer] = {"batch": batch_normalize, "parametric": parametric_normalize}


class FixedAffine:
    """Normalises with statistics known beforehand; the answer for an image does not depend on its batch.

    Args:
        affines: For each layer that has a normalisation, its scale and shift.
    """

    def __init__(self, affines: Mapping[str, ChannelAffine]) -> None:
        self._affines = affines

    def __call__(self, name: str, x_BCHW: Tensor, weights: Mapping[str, Tensor]) -> Tensor:  # noqa: ARG002
        """Return scale * x + shift of the layer."""
        affine = self._affines.get(name)
        if affine is None:
            raise KeyError(f"no statistics for layer {name}")
        return x_BCHW * affine.scale_C[:, None, None] + affine.shift_C[:, None, None]


class ExceptFor:
    """Normalises as another normaliser does, but for layers whose output nobody looks at.

    Args:
        unused: Names of these layers.
        normalizer: What normalises all others.
    """

    def __init__(self, unused: frozenset[str], normalizer: Normalizer) -> None:
        self._unused = unused
        self._normalizer = normalizer

    def __call__(self, name: str, x_BCHW: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
        """Return the normalised activations, or `x_BCHW` itself."""
        return x_BCHW if name in self._unused else self._normalizer(name, x_BCHW, weights)


class SumCollector:
    """Adds up what passes through chosen layers before normalising it as another normaliser does.

    Args:
        layers: Names of the layers to observe.
        normalizer: What normalises, for these and all other layers.
    """

    def __init__(self, layers: frozenset[str], normalizer: Normalizer) -> None:
        self._layers = layers
        self._normalizer = normalizer
        self.sums: dict[str, tuple[int, Tensor, Tensor]] = {}

    def __call__(self, name: str, x_BCHW: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
        """Return the normalised activations.

        Side effects: Adds the activations' count, sum and sum of squares per channel, in float64, to `sums`.
        """
        if name in self._layers:
            # Two axes: torch sums float64 over three, channels innermost, up to 8 times as slowly.
            x_MC = x_BCHW.detach().permute(0, 2, 3, 1).reshape(-1, x_BCHW.shape[1])
            wide_MC = x_MC.to(torch.float64, copy=True)
            count, total_C, squares_C = self.sums.get(name, (0, 0, 0))
            count, total_C = count + len(wide_MC), total_C + wide_MC.sum(dim=0)
            self.sums[name] = count, total_C, squares_C + wide_MC.square_().sum(dim=0)
        return self._normalizer(name, x_BCHW, weights)
