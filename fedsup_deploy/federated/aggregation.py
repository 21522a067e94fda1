"""The server's step: every supernet entry goes to the average of the clients that hold it, eq. 5, or beyond."""

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
        self._squares = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in shapes.items()}
        self._num_samples = 0.0
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
            self._num_samples += weight
            weights = {name: tensor.double() for name, tensor in update.weights.items()}
            rule.scatter_add(self._sums, weights, where, weight)
            rule.scatter_add(self._squares, {name: tensor**2 for name, tensor in weights.items()}, where, weight)
            rule.scatter_add(self._counts, rule.gather(self._ones, where), where, weight)
        return reason

    def result(self, previous: Weights, *, extrapolates: bool = False) -> dict[str, Tensor]:
        """Return the new weights; entries that no update covers keep their previous value.

        Args:
            previous: The weights before.
            extrapolates: Go beyond the average, the further the more clients disagree: `_step_sizes`.
        """
        of_all, of_some = self._step_sizes(previous) if extrapolates else (1.0, 1.0)
        result = {}
        for name, count in self._counts.items():
            before, mean = previous[name].double(), self._sums[name] / count.clamp(min=1)
            step_size = torch.where(count == self._num_samples, of_all, of_some)
            result[name] = torch.where(count > 0, mean + (step_size - 1) * (mean - before), before).float()
        return result

    def _step_sizes(self, previous: Weights) -> tuple[float, float]:
        """Return how far to go towards the average, of entries that every client holds and of all others; at least 1.

        It is half of the mean square of the clients' moves over the square of their average move. Where clients move
        in different directions, the average is short, and to end there is to learn slowly.

        Source: the step size of FedExP, D. Jhunjhunwala et al., arXiv 2301.09604, with epsilon 0. There every client
        moves every entry; here either square is a sum over entries, each averaged over the clients that hold it, and
        the few that hold the rest of a supernet agree more often, if only by chance, than all of them. The last two
        rounds are not averaged.
        """
        of_clients, of_average = [0.0, 0.0], [0.0, 0.0]
        for name, count in self._counts.items():
            before = previous[name].double()
            mean, square = (sums / count.clamp(min=1) for sums in (self._sums[name], self._squares[name]))
            by_all = count == self._num_samples
            for group, held in enumerate((by_all, (count > 0) & ~by_all)):
                of_clients[group] += float((square - 2 * mean * before + before**2)[held].sum())
                of_average[group] += float(((mean - before) ** 2)[held].sum())
        first, second = (max(1.0, c / (2 * a)) if a > 0 else 1.0 for c, a in zip(of_clients, of_average, strict=True))
        return first, second

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
