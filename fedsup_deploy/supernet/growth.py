"""Growing a supernet from one trained subnet: every larger subnet computes what that one has learned.

A channel beyond the subnet's is a copy of one of its own, changed a little so that the two can part, and what reads it
starts with weights of zero; the ring of a larger kernel is zero; a block beyond its depth adds nothing. So a subnet of
any width, kernel and depth gives the same answers. Where it has a layer in place of the identity, such as a convolution
on a shortcut that needed none, that layer starts as the identity, but for its normalisation, and the answers are close.
They are not where a larger subnet's shortcut is the identity and this one's is a convolution.

Source: function-preserving widening and deepening of T. Chen et al., arXiv 1511.05641 (Net2Net). There the weights of
copied channels are divided among the copies; here copies start unread, so that every number of channels works.
"""

from collections.abc import Iterator, Mapping
from typing import Final

import torch
from torch import Tensor

from fedsup_deploy import rng
from fedsup_deploy.space.architecture import Architecture
from fedsup_deploy.space.layers.kind import kind_of
from fedsup_deploy.space.layers.layer import Layer
from fedsup_deploy.supernet.layout import Layout

#: Standard deviation of the factor between the weights of a copied channel and those it is copied from, which is around
#: 1. Copies that are exact have equal gradients, and stay equal.
NOISE: Final = 0.5


def grow(weights: Mapping[str, Tensor], layout: Layout, architecture: Architecture, seed: int) -> dict[str, Tensor]:
    """Return the supernet's tensors with all that lies outside of a subnet made from it.

    Args:
        weights: Every shared tensor. Of those the subnet does not use, such as in deeper blocks, all but the last
            normalisation of a block and layers in place of the identity stay as they are.
        layout: Of the supernet.
        architecture: The subnet; what it computes does not change.
        seed: Seed of the run.
    """
    own = layout.slices(architecture)
    identities, last_norms = set(_identities(layout, architecture)), set(_last_norms(layout, architecture))
    grown = {}
    for name, tensor in weights.items():
        if name in own:
            grown[name] = _widened(tensor, tensor[own[name]], own[name], rng.torch_generator(seed, "growth", name))
        elif name in last_norms:
            grown[name] = torch.zeros_like(tensor)
        elif name in identities:
            outputs, inputs = tensor.shape[:2]
            grown[name] = torch.eye(inputs)[torch.arange(outputs) % inputs][:, :, None, None]
        else:
            grown[name] = tensor
    return grown


def _widened(tensor: Tensor, own: Tensor, where: tuple[slice, ...], generator: torch.Generator) -> Tensor:
    """Return a tensor whose channels are copies of those of its part `own`, at `where`."""
    outputs = torch.arange(len(tensor)) % len(own)
    if tensor.ndim == 1:
        return own[outputs]
    copies = own[outputs]
    grown = torch.zeros_like(tensor)
    grown[(slice(None), slice(own.shape[1]), *where[2:])] = copies * (
        1 + NOISE * torch.randn(copies.shape, generator=generator)
    )
    grown[where] = own
    return grown


def _identities(layout: Layout, architecture: Architecture) -> Iterator[str]:
    """Yield the weights of 1x1 convolutions that the subnet's blocks do without."""
    plan = layout.plan(architecture)
    blocks, layers = {block.name for block in plan.blocks}, {layer.name for layer in plan.layers()}
    for block in layout.space.full_plan.blocks:
        for layer in (*block.main, *block.shortcut):
            if block.name in blocks and layer.name not in layers and _mixes_channels(layer):
                yield f"{layer.name}.weight"


def _mixes_channels(layer: Layer) -> bool:
    """Return whether a layer is a matrix over the channels of each pixel, which can be an identity."""
    return kind_of(layer).weights(layer).get("", ())[1:] == (layer.in_channels, 1, 1)


def _last_norms(layout: Layout, architecture: Architecture) -> Iterator[str]:
    """Yield the last gamma and beta of each block that the subnet has not."""
    blocks = {block.name for block in layout.plan(architecture).blocks}
    for block in layout.space.full_plan.blocks:
        for layer in block.main:
            if block.name not in blocks and layer.ends_residual:
                yield from (f"{layer.name}.norm.gamma", f"{layer.name}.norm.beta")
