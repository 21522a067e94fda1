"""Networks that begin alike on the same images: what a network has in common with the one before is computed once.

Shapes: B batch, C channels, H W spatial.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar

import torch
from torch import Tensor

from fedsup_deploy.space.layers.layer import Layer
from fedsup_deploy.space.plan import BlockPlan, NetworkPlan
from fedsup_deploy.supernet.forward import forward_part
from fedsup_deploy.supernet.normalization import Normalizer

N = TypeVar("N", bound=Normalizer)


@dataclasses.dataclass(frozen=True)
class _KeptPart(Generic[N]):
    part: Layer | BlockPlan
    output_BCHW: Tensor
    normalizer: N


class SharedPrefix(Generic[N]):
    """Feature maps of networks on one batch, those of the last network kept.

    Args:
        x_BCHW: Images, preprocessed, at the resolution of all networks.
        new_normalizer: Makes what normalises one part of a network: the first convolution, or a block.
    """

    def __init__(self, x_BCHW: Tensor, new_normalizer: Callable[[], N]) -> None:
        self._x_BCHW = x_BCHW.contiguous(memory_format=torch.channels_last)
        self._new_normalizer = new_normalizer
        self._steps: list[_KeptPart[N]] = []

    def features(self, plan: NetworkPlan, weights: Mapping[str, Tensor]) -> Tensor:
        """Return a network's last feature map, before pooling and classifier, as `forward` computes it.

        Args:
            plan: Its layers. Where its leading parts equal those of the network before, so must their weights and what
                they are normalised with, as in subnets of one supernet.
            weights: Its tensors.
        """
        parts = plan.parts
        del self._steps[self._num_common(parts) :]
        for part in parts[len(self._steps) :]:
            x_BCHW = self._steps[-1].output_BCHW if self._steps else self._x_BCHW
            normalizer = self._new_normalizer()
            self._steps.append(_KeptPart(part, forward_part(part, weights, x_BCHW, normalizer), normalizer))
        return self._steps[-1].output_BCHW

    def normalizers(self) -> Iterator[N]:
        """Yield what normalised each part of the last network."""
        return (step.normalizer for step in self._steps)

    def _num_common(self, parts: tuple[Layer | BlockPlan, ...]) -> int:
        count = 0
        for step, part in zip(self._steps, parts, strict=False):
            if step.part != part:
                break
            count += 1
        return count
