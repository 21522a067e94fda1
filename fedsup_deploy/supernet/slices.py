"""THE weight-sharing rule: which part of every shared tensor a subnet uses. Nobody else cuts a tensor.

A subnet uses the first c channels of each axis, the centre k x k of a kernel, and the blocks with the lowest index.
The elastic forward, extraction, what travels to a client and what comes back all go through this module.

Source: FedSup (arXiv 2206.01366); first-channel slicing as in HeteroFL (2010.01264), centre kernels as in
Once-for-All (1908.09791) without its learned kernel transform.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from fedsup_deploy.space.layers.kind import kind_of, owned_weights
from fedsup_deploy.space.layers.layer import Layer
from fedsup_deploy.space.plan import NetworkPlan

Slices = dict[str, tuple[slice, ...]]
Shapes = dict[str, tuple[int, ...]]

#: Learned vectors of a normalisation, one number per channel each.
NORM_PARAMETERS = {"batch": ("gamma", "beta"), "parametric": ("alpha", "gamma", "beta")}


def shapes(plan: NetworkPlan, normalization: str) -> Shapes:
    """Return the shape of every tensor of the network with this plan, in a fixed order.

    Args:
        plan: The layers, in plain integers.
        normalization: `batch` or `parametric`.
    """
    result: Shapes = {}
    for layer in plan.layers():
        result |= _layer_shapes(layer)
        if layer.has_norm:
            result |= {f"{layer.name}.norm.{name}": (layer.out_channels,) for name in NORM_PARAMETERS[normalization]}
    return result


def slices(full: NetworkPlan, plan: NetworkPlan, normalization: str) -> Slices:
    """Return the part of each shared tensor that the network with `plan` uses.

    Args:
        full: Plan of the supernet.
        plan: Plan of one of its architectures.
        normalization: `batch` or `parametric`.

    Returns:
        For each tensor the subnet has, one slice per axis. Tensors of inactive layers are absent.
    """
    full_shapes = shapes(full, normalization)
    return {
        name: tuple(
            _centre(have, use) if axis >= 2 else slice(0, use)
            for axis, (have, use) in enumerate(zip(full_shapes[name], shape, strict=True))
        )
        for name, shape in shapes(plan, normalization).items()
    }


def within(outer: Slices, inner: Slices) -> Slices:
    """Return the part of each tensor that `inner` uses, counted from the corner of what `outer` uses of it.

    Args:
        outer: Parts of the shared tensors.
        inner: Smaller parts of some of them.

    Raises:
        KeyError: `inner` uses a tensor that `outer` does not.
    """
    return {
        name: tuple(
            slice(use.start - have.start, use.stop - have.start) for have, use in zip(outer[name], index, strict=True)
        )
        for name, index in inner.items()
    }


def gather(tensors: Mapping[str, Tensor], where: Slices) -> dict[str, Tensor]:
    """Return views of the parts that `where` names; gradients flow back to the shared tensors."""
    return {name: tensors[name][index] for name, index in where.items()}


def scatter_add(target: Mapping[str, Tensor], tensors: Mapping[str, Tensor], where: Slices, weight: float) -> None:
    """Add `weight` times each tensor into its place.

    Side effects: Changes `target`.
    """
    for name, index in where.items():
        target[name][index].add_(tensors[name], alpha=weight)


def coverage(full_shapes: Shapes, parts: list[Slices]) -> dict[str, Tensor]:
    """Return for each shared tensor a mask of the entries that at least one of `parts` uses."""
    masks = {name: torch.zeros(shape, dtype=torch.bool) for name, shape in full_shapes.items()}
    for name, mask in masks.items():
        for part in parts:
            if name in part:
                mask[part[name]] = True
    return masks


def _layer_shapes(layer: Layer) -> Shapes:
    result: Shapes = {}
    for owner, shape in owned_weights(layer).items():
        result[f"{owner}.weight"] = shape
        if kind_of(layer).has_bias:
            result[f"{owner}.bias"] = shape[:1]
    return result


def _centre(have: int, use: int) -> slice:
    start = (have - use) // 2
    return slice(start, start + use)
