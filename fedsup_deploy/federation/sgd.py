"""Stochastic gradient descent on tensors that lie behind each other in one vector.

A step is a few operations on that vector, however many tensors there are. Nothing here knows what the tensors are.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from fedsup_deploy.supernet import slices as rule


class Sgd:
    """SGD with momentum, weight decay and clipping by value, as `torch.optim.SGD` computes it.

    Args:
        tensors: Where to start; they are copied.
        momentum: Starts at rest.
        weight_decay: L2 coefficient, added to the gradient after clipping.
        clip_value: Each gradient entry is clipped to [-clip_value, clip_value]; None does not clip.
    """

    def __init__(
        self, tensors: Mapping[str, Tensor], momentum: float, weight_decay: float, clip_value: float | None
    ) -> None:
        self._vector = torch.cat([tensor.detach().flatten() for tensor in tensors.values()])
        self._gradient = torch.zeros_like(self._vector)
        self._velocity: Tensor | None = None
        self._momentum, self._weight_decay, self._clip_value = momentum, weight_decay, clip_value
        self._shapes = {name: tensor.shape for name, tensor in tensors.items()}
        self.tensors = self._views(self._vector)
        self._gradients = self._views(self._gradient)

    def part(self, where: rule.Slices) -> dict[str, Tensor]:
        """Return views of parts of the tensors; each can have a gradient of its own."""
        return {name: self.tensors[name][index].requires_grad_() for name, index in where.items()}

    def add_gradients(self, part: Mapping[str, Tensor], where: rule.Slices) -> None:
        """Add the gradients of what `part` returned to those of the next step."""
        for name, index in where.items():
            gradient = part[name].grad
            if gradient is not None:
                self._gradients[name][index].add_(gradient)

    def step(self, rate: float, still: Tensor) -> None:
        """Take a step along the gradients that were added since the last one.

        Args:
            rate: Step size.
            still: Entries that no gradient was meant for, by `indices`: neither they nor their momentum change, where
                weight decay and momentum would move them.
        """
        gradient = self._gradient
        if self._clip_value is not None:
            gradient.clamp_(-self._clip_value, self._clip_value)
        if self._weight_decay:
            gradient.add_(self._vector, alpha=self._weight_decay)
        if self._momentum:
            if self._velocity is None:
                self._velocity = torch.zeros_like(self._vector)
            before = self._velocity[still]
            gradient = self._velocity.mul_(self._momentum).add_(gradient)
            gradient[still] = before
        before = self._vector[still]
        self._vector.add_(gradient, alpha=-rate)
        self._vector[still] = before
        self._gradient.zero_()

    def indices(self, masks: Mapping[str, Tensor]) -> Tensor:
        """Return the places in the vector of the entries that are not set in masks of some of the tensors."""
        starts, start = {}, 0
        for name, shape in self._shapes.items():
            starts[name] = start
            start += shape.numel()
        places = [starts[name] + (~mask).flatten().nonzero()[:, 0] for name, mask in masks.items()]
        return torch.cat(places) if places else torch.empty(0, dtype=torch.int64)

    def _views(self, vector: Tensor) -> dict[str, Tensor]:
        pieces = vector.split([shape.numel() for shape in self._shapes.values()])
        return {name: piece.view(shape) for (name, shape), piece in zip(self._shapes.items(), pieces, strict=True)}
