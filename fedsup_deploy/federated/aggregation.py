"""The server's average: every supernet entry over the clients that hold it, eq. 5."""

import math

import torch
from torch import Tensor

from fedsup_deploy.federated.tasks import ClientUpdate, Weights
from fedsup_deploy.supernet import slices as rule


class CoverageMean:
    """Adds up updates one at a time and averages each entry over the clients that trained it.

    W_i <- sum over clients k that hold i of n_k w_ki / sum of their n_k; entries nobody holds stay as they are. With
    every client on the whole network this is FedAvg (arXiv 1602.05629).

    Source: FedSup (arXiv 2206.01366), our eq. 5. The sums are in float64.
    """

    def __init__(self, shapes: rule.Shapes) -> None:
        self._sums = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in shapes.items()}
        self._counts = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in shapes.items()}
        self._ones = {name: torch.ones(shape, dtype=torch.float64) for name, shape in shapes.items()}

    def add(self, update: ClientUpdate, where: rule.Slices) -> str | None:
        """Add one client's update.

        Args:
            update: What the client sent.
            where: The part of each shared tensor it was given.

        Returns:
            None, or why the update is rejected; a rejected update changes nothing.
        """
        reason = self._reason_to_reject(update, where)
        if reason is None:
            weight = float(update.num_samples)
            rule.scatter_add(self._sums, {n: t.double() for n, t in update.weights.items()}, where, weight)
            rule.scatter_add(self._counts, rule.gather(self._ones, where), where, weight)
        return reason

    def result(self, previous: Weights) -> dict[str, Tensor]:
        """Return the new weights; entries that no update covers keep their previous value."""
        return {
            name: torch.where(count > 0, self._sums[name] / count.clamp(min=1), previous[name].double()).float()
            for name, count in self._counts.items()
        }

    def _reason_to_reject(self, update: ClientUpdate, where: rule.Slices) -> str | None:
        if update.num_samples < 1:
            return f"{update.num_samples} samples"
        if not math.isfinite(update.loss):
            return f"loss is {update.loss}"
        if update.weights.keys() != where.keys():
            return "other tensors than it was sent"
        for name, index in where.items():
            tensor = update.weights[name]
            if tensor.shape != self._ones[name][index].shape or tensor.dtype != torch.float32:
                return f"tensor {name} is {tuple(tensor.shape)} {tensor.dtype}"
            if not bool(torch.isfinite(tensor).all()):
                return f"tensor {name} is not finite"
        return None
