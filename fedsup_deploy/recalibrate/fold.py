"""Normalisations become affine maps, affine maps become part of their convolution. Eq. 3.

Conventions: y = s * x + t per channel after a convolution with weight w and no bias is a convolution with weight s * w
and bias t. All of it is computed in float64 and rounded once.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from fedsup_deploy.recalibrate.pooled import ChannelSums, PooledStatistics
from fedsup_deploy.space.plan import WEIGHT_OPS
from fedsup_deploy.supernet.deployable import DeployableNet
from fedsup_deploy.supernet.model import Subnet
from fedsup_deploy.supernet.normalization import BATCH_EPSILON, PARAMETRIC_EPSILON, ChannelAffine


def affines(
    weights: Mapping[str, Tensor], normalization: str, statistics: PooledStatistics
) -> dict[str, ChannelAffine]:
    """Return the affine map each normalisation is with these statistics.

    Args:
        weights: Tensors of the subnet.
        normalization: `batch` or `parametric`.
        statistics: Pooled sums of the layers wanted.
    """
    make = {"batch": _batch_affine, "parametric": _parametric_affine}[normalization]
    return {name: make(f"{name}.norm", weights, sums) for name, sums in statistics.layers.items()}


def fold(subnet: Subnet, statistics: PooledStatistics) -> DeployableNet:
    """Return the subnet as a plain module without a normalisation.

    Args:
        subnet: A subnet with its own weights; it is left as it is.
        statistics: Pooled sums of every layer that has a normalisation.
    """
    maps = affines(subnet.weights, subnet.normalization, statistics)
    folded: dict[str, Tensor] = {}
    for layer in subnet.plan.layers():
        if layer.op == "squeeze_excite":
            folded |= {name: t for name, t in subnet.weights.items() if name.startswith(f"{layer.name}.")}
        elif layer.op in WEIGHT_OPS:
            weight = subnet.weights[f"{layer.name}.weight"]
            bias = subnet.weights.get(f"{layer.name}.bias", torch.zeros(layer.out_channels))
            if layer.has_norm:
                affine = maps[layer.name]
                weight = (weight.double() * affine.scale_C.double()[:, None, None, None]).float()
                bias = affine.shift_C
            folded |= {f"{layer.name}.weight": weight.detach(), f"{layer.name}.bias": bias.detach()}
    return DeployableNet(subnet.plan, folded)


def _batch_affine(prefix: str, weights: Mapping[str, Tensor], sums: ChannelSums) -> ChannelAffine:
    mean_C, variance_C = sums.mean_and_variance()
    scale_C = _float64(weights[f"{prefix}.gamma"]) / np.sqrt(variance_C + BATCH_EPSILON)
    return _affine(scale_C, _float64(weights[f"{prefix}.beta"]) - scale_C * mean_C)


def _parametric_affine(prefix: str, weights: Mapping[str, Tensor], sums: ChannelSums) -> ChannelAffine:
    alpha_C = _float64(weights[f"{prefix}.alpha"])
    scale_C = _float64(weights[f"{prefix}.gamma"]) / (sums.rms_around(alpha_C) + PARAMETRIC_EPSILON)
    return _affine(scale_C, _float64(weights[f"{prefix}.beta"]) - scale_C * alpha_C)


def _affine(scale_C: np.ndarray, shift_C: np.ndarray) -> ChannelAffine:
    return ChannelAffine(torch.from_numpy(scale_C).float(), torch.from_numpy(shift_C).float())


def _float64(tensor: Tensor) -> np.ndarray:
    return tensor.detach().numpy().astype(np.float64)
