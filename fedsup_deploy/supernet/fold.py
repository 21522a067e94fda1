"""Normalisations become affine maps, affine maps become part of their convolution. Eq. 3.

Conventions: y = s * x + t per channel after a convolution with weight w and no bias is a convolution with weight s * w
and bias t. All of it is computed in float64 and rounded once.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from fedsup_deploy.space.layers.kind import folded_shapes
from fedsup_deploy.space.plan import NetworkPlan
from fedsup_deploy.supernet.deployable import FoldedNetwork
from fedsup_deploy.supernet.model import Subnet
from fedsup_deploy.supernet.normalization import BATCH_EPSILON, PARAMETRIC_EPSILON, ChannelAffine
from fedsup_deploy.supernet.statistics import ChannelSums, PooledStatistics


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


def fold(subnet: Subnet, statistics: PooledStatistics) -> FoldedNetwork:
    """Return the subnet without a normalisation.

    Args:
        subnet: A subnet with its own weights; it is left as it is.
        statistics: Pooled sums of every layer that has a normalisation.

    Raises:
        KeyError: A layer has none.
    """
    known = affines(subnet.weights, subnet.normalization, statistics)
    maps = {layer.name: known[layer.name] for layer in subnet.plan.norm_layers()}
    folded = fold_weights(subnet.plan, subnet.weights, maps)
    for layer in subnet.plan.layers():
        for name, shape in folded_shapes(layer).items():
            folded.setdefault(name, torch.zeros(shape))
    return FoldedNetwork(subnet.plan, {name: folded[name].detach() for name in folded if ".norm." not in name})


def fold_weights(
    plan: NetworkPlan, weights: Mapping[str, Tensor], maps: Mapping[str, ChannelAffine]
) -> dict[str, Tensor]:
    """Return a network's tensors with each known normalisation made part of its convolution, which then has a bias.

    Args:
        plan: The layers of the network.
        weights: Its tensors.
        maps: What is known of its normalisations, by the name of the layer.
    """
    folded = dict(weights)
    for layer in plan.layers():
        if layer.has_norm and layer.name in maps:
            affine, name = maps[layer.name], f"{layer.name}.weight"
            folded[name] = (weights[name].double() * affine.scale_C.double()[:, None, None, None]).float()
            folded[f"{layer.name}.bias"] = affine.shift_C
    return folded


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
