"""A folded subnet as an ordinary `torch.nn` module: convolutions with biases, ReLU, pooling, sums, one linear layer.

It needs nothing of this package to be traced, exported, pruned or read.

Shapes: B batch, C channels, H W spatial, K classes.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fedsup_deploy.space.plan import BlockPlan, Layer, NetworkPlan


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate computed from all channels' means.

    Source: J. Hu et al., arXiv 1709.01507, with the hard sigmoid of MobileNetV3 (arXiv 1905.02244).
    """

    def __init__(self, num_channels: int, num_hidden: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(num_channels, num_hidden, 1)
        self.expand = nn.Conv2d(num_hidden, num_channels, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the scaled activations."""
        gate = torch.relu(self.reduce(x_BCHW.mean(dim=(2, 3), keepdim=True)))
        return x_BCHW * nn.functional.hardsigmoid(self.expand(gate))


class Residual(nn.Module):
    """Main path plus shortcut."""

    def __init__(self, plan: BlockPlan) -> None:
        super().__init__()
        self.main = nn.Sequential(*(_module(layer) for layer in plan.main))
        self.shortcut = nn.Sequential(*(_module(layer) for layer in plan.shortcut))
        self.activation = nn.ReLU() if plan.add.has_activation else nn.Identity()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the block's output."""
        result: Tensor = self.activation(self.main(x_BCHW) + self.shortcut(x_BCHW))
        return result


class DeployableNet(nn.Module):
    """First convolution, residual blocks, mean over the image, classifier.

    Args:
        plan: Its layers, in plain integers.
        weights: A weight and a bias for each weight layer, named as in the supernet (`mb1.0.project.bias`).
    """

    def __init__(self, plan: NetworkPlan, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.stem = _module(plan.stem)
        self.blocks = nn.Sequential(*(Residual(block) for block in plan.blocks))
        self.head = _module(plan.head[-1])
        self._load(plan, weights)
        self.eval()
        self.requires_grad_(requires_grad=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the logits, shape (B, K)."""
        logits: Tensor = self.head(self.blocks(self.stem(x_BCHW)).mean(dim=(2, 3)))
        return logits

    def _load(self, plan: NetworkPlan, weights: Mapping[str, Tensor]) -> None:
        targets = [(plan.stem, self.stem), (plan.head[-1], self.head)]
        for block, residual in zip(plan.blocks, self.blocks, strict=True):
            targets += list(zip(block.main, residual.get_submodule("main").children(), strict=True))
            targets += list(zip(block.shortcut, residual.get_submodule("shortcut").children(), strict=True))
        for layer, module in targets:
            inner = module[0] if isinstance(module, nn.Sequential) else module
            inner.load_state_dict({name: weights[f"{layer.name}.{name}"] for name in inner.state_dict()})


def _module(layer: Layer) -> nn.Module:
    if layer.op == "pool":
        # Without need, ceil_mode stays off: fewer runtimes know it.
        return nn.AvgPool2d(2, ceil_mode=layer.in_size % 2 == 1)
    if layer.op == "squeeze_excite":
        return SqueezeExcite(layer.in_channels, layer.out_channels)
    if layer.op == "linear":
        return nn.Linear(layer.in_channels, layer.out_channels)
    conv = nn.Conv2d(
        layer.in_channels,
        layer.out_channels,
        layer.kernel_size,
        layer.stride,
        layer.kernel_size // 2,
        groups=layer.in_channels if layer.op == "depthwise" else 1,
    )
    return nn.Sequential(conv, nn.ReLU()) if layer.has_activation else conv
