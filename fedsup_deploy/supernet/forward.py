"""The one forward pass: a plan, its tensors and a normaliser make a network. Supernet and subnet both run it.

Shapes: B batch, C channels, H W spatial, K classes.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from fedsup_deploy.errors import DataError
from fedsup_deploy.space.layers.layer import Layer
from fedsup_deploy.space.plan import BlockPlan, NetworkPlan
from fedsup_deploy.supernet.layers.computation import computation_of
from fedsup_deploy.supernet.normalization import Normalizer


def forward(plan: NetworkPlan, weights: Mapping[str, Tensor], x_BCHW: Tensor, normalizer: Normalizer) -> Tensor:
    """Return the logits, shape (B, K); of a plan without a head, the last feature map.

    Args:
        plan: Layers in plain integers.
        weights: For each tensor name its values, already of the plan's shapes. A convolution that has a bias here has
            its normalisation folded into it.
        x_BCHW: Images, preprocessed, at the plan's resolution.
        normalizer: What the activations of all other convolutions are normalised with.
    """
    # Convolutions of this size are about 1.6 times as fast on CPU with the channels innermost.
    x_BCHW = x_BCHW.contiguous(memory_format=torch.channels_last)
    for part in plan.parts:
        x_BCHW = forward_part(part, weights, x_BCHW, normalizer)
    return classify(plan, weights, x_BCHW) if plan.head else x_BCHW


def forward_part(
    part: Layer | BlockPlan, weights: Mapping[str, Tensor], x_BCHW: Tensor, normalizer: Normalizer
) -> Tensor:
    """Return the feature map that one of `plan.parts` makes of the one before, channels innermost in both."""
    if isinstance(part, BlockPlan):
        return _block(part, weights, x_BCHW, normalizer)
    return _layer(part, weights, x_BCHW, normalizer)


def classify(plan: NetworkPlan, weights: Mapping[str, Tensor], x_BCHW: Tensor) -> Tensor:
    """Return the logits, shape (B, K), of a network's last feature map."""
    name = plan.head[-1].name
    return functional.linear(x_BCHW.mean(dim=(2, 3)), weights[f"{name}.weight"], weights[f"{name}.bias"])


def _block(block: BlockPlan, weights: Mapping[str, Tensor], x_BCHW: Tensor, normalizer: Normalizer) -> Tensor:
    main, shortcut = x_BCHW, x_BCHW
    for layer in block.main:
        main = _layer(layer, weights, main, normalizer)
    for layer in block.shortcut:
        shortcut = _layer(layer, weights, shortcut, normalizer)
    result = main + shortcut
    return functional.relu(result) if block.add.has_activation else result


def _layer(layer: Layer, weights: Mapping[str, Tensor], x_BCHW: Tensor, normalizer: Normalizer) -> Tensor:
    x_BCHW = computation_of(layer).forward(layer, weights, x_BCHW)
    # A convolution that has a bias has its normalisation folded into it.
    if layer.has_norm and f"{layer.name}.bias" not in weights:
        x_BCHW = normalizer(layer.name, x_BCHW, weights)
    return functional.relu(x_BCHW) if layer.has_activation else x_BCHW


def at_resolution(x_BCHW: Tensor, resolution: int) -> Tensor:
    """Return square images resized to a side of `resolution` pixels: bilinear, half-pixel centres, no antialiasing.

    Raises:
        DataError: They are not square.
    """
    height, width = x_BCHW.shape[-2:]
    if height != width:
        raise DataError(f"got images of {height}x{width} pixels, expected square ones")
    if x_BCHW.shape[-1] == resolution:
        return x_BCHW
    return functional.interpolate(x_BCHW, size=(resolution, resolution), mode="bilinear", align_corners=False)
