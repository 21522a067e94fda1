"""A folded subnet as an ordinary `torch.nn` module: convolutions with biases, ReLU, pooling, sums, one linear layer.

It needs nothing of this package to be traced, exported, pruned or read.

Shapes: B batch, C channels, H W spatial, K classes.
"""

import dataclasses
from collections.abc import Mapping
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedsup_deploy.config.device import Int8Scheme
from fedsup_deploy.space.layers.layer import Layer
from fedsup_deploy.space.plan import BlockPlan, NetworkPlan
from fedsup_deploy.supernet.layers.computation import computation_of
from fedsup_deploy.supernet.ranges import ActivationCounts

#: Of an activation's numbers at either end, the share that may be cut off: 1 of 20,000.
CLIPPED_SHARE: Final = 5e-5


@dataclasses.dataclass(frozen=True)
class Quantization:
    """How a network is computed in int8.

    Args:
        counts: How large the values of its ONNX graph are, in the order of `onnx_graph.value_sizes`.
        scheme: How numbers of 8 bits stand for them.
    """

    counts: ActivationCounts
    scheme: Int8Scheme

    def ranges(self) -> NDArray[np.float32]:
        """Return between which numbers nearly all of each of the V values are, shape (V, 2)."""
        return self.counts.ranges(CLIPPED_SHARE)


@dataclasses.dataclass(frozen=True)
class FoldedNetwork:
    """A network of layers without normalisations.

    Args:
        plan: Its layers, in plain integers.
        weights: A weight and a bias for each layer that has them, named as in the supernet (`mb1.0.project.bias`).
        quantization: How an int8 file of it is written; None: in float32.
        is_static: Whether a file of it is to take one image at a time, in formats that know such files.
    """

    plan: NetworkPlan
    weights: Mapping[str, Tensor]
    quantization: Quantization | None = None
    is_static: bool = False

    def module(self) -> "DeployableNet":
        """Return the network as a module, with copies of the weights."""
        return DeployableNet(self)


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
        network: Its layers and tensors, which are copied.
    """

    def __init__(self, network: FoldedNetwork) -> None:
        super().__init__()
        plan = network.plan
        # Without values, or modules would draw some from the process's generator.
        with torch.device("meta"):
            self.stem = _module(plan.stem)
            self.blocks = nn.Sequential(*(Residual(block) for block in plan.blocks))
            self.head = nn.Linear(plan.head[-1].in_channels, plan.head[-1].out_channels)
        self._load(plan, network.weights)
        self.eval()
        self.requires_grad_(requires_grad=False)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  files take it over
        """Return the logits, shape (B, K), of images, shape (B, C, H, W)."""
        # The mean of each channel as an image of one pixel: XNNPACK computes it as such, and no other.
        logits: Tensor = self.head(self.blocks(self.stem(input)).mean(dim=(2, 3), keepdim=True).flatten(1))
        return logits

    def _load(self, plan: NetworkPlan, weights: Mapping[str, Tensor]) -> None:
        targets = [(plan.stem, self.stem), (plan.head[-1], self.head)]
        for block, residual in zip(plan.blocks, self.blocks, strict=True):
            targets += list(zip(block.main, residual.get_submodule("main").children(), strict=True))
            targets += list(zip(block.shortcut, residual.get_submodule("shortcut").children(), strict=True))
        for layer, module in targets:
            inner = module[0] if isinstance(module, nn.Sequential) else module
            tensors = {name: weights[f"{layer.name}.{name}"].clone() for name in inner.state_dict()}
            inner.load_state_dict(tensors, assign=True)


def _module(layer: Layer) -> nn.Module:
    module = computation_of(layer).module(layer)
    return nn.Sequential(module, nn.ReLU()) if layer.has_activation else module
