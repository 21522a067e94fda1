"""The one forward pass: a plan, its tensors and a normaliser make a network. Supernet and subnet both run it.

Shapes: B batch, C channels, H W spatial, K classes.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from fedsup_deploy.errors import DataError
from fedsup_deploy.space.plan import BlockPlan, Layer, NetworkPlan
from fedsup_deploy.supernet.depthwise import depthwise_conv2d
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


def convolve(layer: Layer, weight: Tensor, bias: Tensor | None, x_BCHW: Tensor) -> Tensor:
    """Return a layer's convolution, with padding kernel // 2, by the fastest way on CPU with the channels innermost."""
    if layer.op == "conv":
        weight = weight.contiguous()  # Cut out of a larger kernel, it would be added up in another order.
    if layer.kernel_size == 1 and layer.op != "depthwise":
        # One matrix product, up to 4 times as fast as conv2d makes it. With a stride, too: there the weight gradient of
        # conv2d, channels innermost, writes outside of its memory (torch 2.13, AVX2, few channels).
        seen = x_BCHW[:, :, :: layer.stride, :: layer.stride]
        return functional.linear(seen.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)
    if layer.op == "depthwise" and bias is None:
        return depthwise_conv2d(x_BCHW, weight, layer.stride)
    groups = layer.in_channels if layer.op == "depthwise" else 1
    return functional.conv2d(x_BCHW, weight, bias, layer.stride, layer.kernel_size // 2, groups=groups)


def _layer(layer: Layer, weights: Mapping[str, Tensor], x_BCHW: Tensor, normalizer: Normalizer) -> Tensor:
    if layer.op == "pool":
        return functional.avg_pool2d(x_BCHW, 2, ceil_mode=True)
    if layer.op == "squeeze_excite":
        return _squeeze_excite(layer.name, weights, x_BCHW)
    bias = weights.get(f"{layer.name}.bias")
    x_BCHW = convolve(layer, weights[f"{layer.name}.weight"], bias, x_BCHW)
    if layer.has_norm and bias is None:
        x_BCHW = normalizer(layer.name, x_BCHW, weights)
    return functional.relu(x_BCHW) if layer.has_activation else x_BCHW


def _squeeze_excite(name: str, weights: Mapping[str, Tensor], x_BCHW: Tensor) -> Tensor:
    gate = x_BCHW.mean(dim=(2, 3), keepdim=True)
    gate = functional.relu(functional.conv2d(gate, weights[f"{name}.reduce.weight"], weights[f"{name}.reduce.bias"]))
    gate = functional.conv2d(gate, weights[f"{name}.expand.weight"], weights[f"{name}.expand.bias"])
    return x_BCHW * functional.hardsigmoid(gate)


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
