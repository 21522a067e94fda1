"""The server's step: every supernet entry goes to the average of the clients that hold it, eq. 5, or beyond.

The sums are of integers, so neither the order in which updates arrive nor adding up some of them elsewhere changes a
bit: each weight is rounded towards zero, to a multiple of 2^-q, with q as large as the bounds on weights and images
allow. In a round of 10,000 images q is 43, which is exact for weights of 2e-6 and more.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

import torch
from torch import Tensor

from fedsup_deploy.federation.jobs.train import ClientUpdate
from fedsup_deploy.federation.messages import Weights
from fedsup_deploy.supernet import slices as rule

#: An update with a larger weight is refused. A power of two, as the next.
MAX_WEIGHT: Final = 64.0
#: An update with a larger loss is refused.
_MAX_LOSS: Final = 1e6
#: An update that says it took more multiply-accumulates is refused.
_MAX_MACS: Final = 2**60
#: Bits of a sum, without its sign.
_BITS: Final = 63
#: Entries of a block: all that is computed of one stays in a processor's cache, so that little memory is asked for.
_BLOCK: Final = 2**15
#: A move is counted as no larger than this where moves are squared.
_MAX_MOVE: Final = 8.0


class CoverageSums(NamedTuple):
    """CoverageSums over clients of what each has of a tensor, times its images: int64, of the shape of the tensor."""

    total: Tensor
    square: Tensor
    num_images: Tensor


class CoverageMean:
    """Adds up updates one at a time and averages each entry over the clients that trained it.

    W_i <- sum over clients k that hold i of n_k w_ki / sum of their n_k; entries nobody holds stay as they are. With
    every client on the whole network this is FedAvg (arXiv 1602.05629).

    Args:
        previous: The weights before, of the whole supernet; not changed.
        max_samples: Images of all clients whose updates may be added. It decides what weights are rounded to, so the
            updates of one round have the same wherever they are added up.

    Source: FedSup (arXiv 2206.01366), our eq. 5.
    """

    def __init__(self, previous: Weights, max_samples: int) -> None:
        self._previous, self._max_samples = previous, max_samples
        bits = _BITS - max_samples.bit_length()
        self._scale, self._square_scale = 2.0**bits / MAX_WEIGHT, 2.0**bits / _MAX_MOVE**2
        # Of the tensors that some client holds: in the first rounds of a supernet they are few.
        self._sums: dict[str, CoverageSums] = {}
        self._num_samples = 0

    def add(self, update: ClientUpdate, where: rule.Slices) -> str | None:
        """Add one client's update.

        Args:
            update: What the client sent.
            where: The part of each shared tensor it was given.

        Returns:
            None, or why the update is rejected; a rejected update changes nothing.
        """
        reason = self.reason_to_reject(update, where)
        if reason is None:
            self.add_sound(update, where)
        return reason

    def add_sound(self, update: ClientUpdate, where: rule.Slices) -> None:
        """Add one client's update, for which `reason_to_reject` has found none."""
        num_samples = update.num_samples
        self._num_samples += num_samples
        for name, index in where.items():
            sums, before = self._sums_of(name), self._previous[name][index]
            of_part = (tensor[index] for tensor in sums)
            for weight, old, total, square, count in blocks(update.weights[name], before, *of_part):
                total.add_(self._whole(weight), alpha=num_samples)
                square.add_(self._square(weight, old), alpha=num_samples)
                count.add_(num_samples)

    def merge(self, other: "CoverageMean") -> None:
        """Add the updates that were added to another one with the same `previous` and `max_samples`.

        Raises:
            ValueError: It has other `max_samples`, or both together have more images than that.
        """
        together = self._num_samples + other._num_samples
        if self._max_samples != other._max_samples or together > self._max_samples:
            raise ValueError(f"got {together} images, expected at most {self._max_samples}, on either side")
        self._num_samples += other._num_samples
        for name, theirs in other._sums.items():
            for mine, tensor in zip(self._sums_of(name), theirs, strict=True):
                mine.add_(tensor)

    def result(self, *, extrapolates: bool = False) -> dict[str, Tensor]:
        """Return the new weights; entries that no update covers keep their previous value.

        Args:
            extrapolates: Go beyond the average, the further the more clients disagree: `_step_sizes`.
        """
        averaged = {name: self._averaged(name) for name in self._sums}
        means = {name: self._mean(sums) for name, sums in averaged.items()}
        of_all, of_some = self._step_sizes(averaged, means) if extrapolates else (1.0, 1.0)
        return {
            name: self._moved(name, means[name], of_all, of_some) if name in means else tensor.clone()
            for name, tensor in self._previous.items()
        }

    def _averaged(self, name: str) -> CoverageSums:
        """Return the sums over the clients whose weights of a tensor are averaged: all that hold an entry."""
        return self._sums[name]

    def _moved(self, name: str, mean: Tensor, of_all: float, of_some: float) -> Tensor:
        """Return a tensor after its step towards the average and beyond."""
        before, moved = self._previous[name], torch.empty_like(self._previous[name])
        for old, count, average, into in blocks(before, self._sums[name].num_images, mean, moved):
            step_size = torch.where(count == self._num_samples, of_all, of_some)
            beyond = (average - old).mul_(step_size.sub_(1))
            into.copy_(torch.where(count > 0, beyond.add_(average).float(), old))
        return moved

    def _mean(self, sums: CoverageSums) -> Tensor:
        mean = torch.empty(sums.total.shape, dtype=torch.float64)
        for total, count, into in blocks(sums.total, sums.num_images, mean):
            torch.div(total.double(), count.clamp(min=1), out=into).div_(self._scale)
        return mean

    def _sums_of(self, name: str) -> CoverageSums:
        if name not in self._sums:
            shape = self._previous[name].shape
            self._sums[name] = CoverageSums(*(torch.zeros(shape, dtype=torch.int64) for _ in range(3)))
        return self._sums[name]

    def _whole(self, weight: Tensor) -> Tensor:
        """Return weights as whole multiples of the unit, rounded towards zero."""
        return _whole(weight.double(), self._scale)

    def _square(self, weight: Tensor, old: Tensor) -> Tensor:
        """Return the squares of moves as whole multiples of their unit."""
        return _whole((weight - old).clamp_(-_MAX_MOVE, _MAX_MOVE).double().square_(), self._square_scale)

    def _step_sizes(self, averaged: Mapping[str, CoverageSums], means: Weights) -> tuple[float, float]:
        """Return how far to go towards the average, of entries that every client holds and of all others; at least 1.

        It is half of the mean square of the clients' moves over the square of their average move. Where clients move
        in different directions, the average is short, and to end there is to learn slowly.

        Source: the step size of FedExP, D. Jhunjhunwala et al., arXiv 2301.09604, with epsilon 0. There every client
        moves every entry; here either square is a sum over entries, each averaged over the clients that hold it, and
        the few that hold the rest of a supernet agree more often, if only by chance, than all of them. The last two
        rounds are not averaged.
        """
        of_clients, of_average = [0.0, 0.0], [0.0, 0.0]
        # In the order of the tensors, not of arrival.
        for name in (name for name in self._previous if name in means):
            mean, (_, squares, counts), all_counts = means[name], averaged[name], self._sums[name].num_images
            parts = torch.empty((2, 2, *mean.shape), dtype=torch.float64)
            for old, average, square, count, trained, *places in blocks(
                self._previous[name], mean, squares, counts, all_counts, *parts[0], *parts[1]
            ):
                of_client = square.double().div_(count.clamp(min=1)).div_(self._square_scale)
                of_mean, by_all = (average - old).square_(), trained == self._num_samples
                for held, two in zip((by_all, (count > 0) & ~by_all), (places[:2], places[2:]), strict=True):
                    torch.mul(of_client, held, out=two[0])
                    torch.mul(of_mean, held, out=two[1])
            for group, (of_client, of_mean) in enumerate(parts):
                # By NumPy: the order in which torch adds depends on its threads.
                of_clients[group] += float(of_client.numpy().sum())
                of_average[group] += float(of_mean.numpy().sum())
        first, second = (max(1.0, c / (2 * a)) if a > 0 else 1.0 for c, a in zip(of_clients, of_average, strict=True))
        return first, second

    def reason_to_reject(self, update: ClientUpdate, where: rule.Slices) -> str | None:
        """Return why an update is none, whatever others send; None where it is one.

        No reason has a number of the client's in it: what is wrong is for all to read.

        Args:
            update: What the client sent.
            where: The part of each shared tensor it was given.
        """
        if not 1 <= update.num_samples <= self._max_samples - self._num_samples:
            return "no images, or more than a round has"
        for what, loss in (("loss", update.loss), ("loss before training", update.loss_before)):
            if loss is not None and not abs(loss) <= _MAX_LOSS:
                return f"{what} is {f'beyond {_MAX_LOSS:g}' if math.isfinite(loss) else 'not finite'}"
        if not 0 <= update.num_macs <= _MAX_MACS:
            return "an impossible number of multiply-accumulates"
        if update.weights.keys() != where.keys():
            return "other tensors than it was sent"
        reasons = (self._problem_with(name, update.weights[name], index) for name, index in where.items())
        return next((reason for reason in reasons if reason is not None), None)

    def _problem_with(self, name: str, tensor: Tensor, index: tuple[slice, ...]) -> str | None:
        if tensor.shape != self._previous[name][index].shape or tensor.dtype != torch.float32:
            return f"tensor {name} is {tuple(tensor.shape)} {tensor.dtype}"
        least, most = tensor.aminmax()
        if not math.isfinite(largest := max(-float(least), float(most))):
            return f"tensor {name} is not finite"
        return f"tensor {name} has a weight beyond {MAX_WEIGHT:g}" if largest > MAX_WEIGHT else None


def as_if_in_time(
    update: ClientUpdate, where: rule.Slices, began_with: Weights, previous: Weights, weight: float
) -> ClientUpdate:
    """Return what the update of a client that began with the weights of an earlier round counts as.

    The average is one of moves: W_i + sum over k of n_k (w_ki - W_i) / sum of n_k. The move of a client that began with
    V_i is w_ki - V_i, so it counts as one that was sent W and came back with W_i + weight (w_ki - V_i). The weight
    scales the move and not n_k: where only late clients hold an entry, n_k would cancel, and the entry would move as
    far as if they had been in time.

    Args:
        update: What the client sent; `CoverageMean.reason_to_reject` has found nothing wrong with it.
        where: The part of each shared tensor it was given.
        began_with: The tensors that it was sent.
        previous: The whole supernet before the average that it joins.
        weight: What its move counts, in (0, 1].

    Source: FedBuff, J. Nguyen et al., arXiv 2106.06639: an average of updates, each scaled by its staleness; here of
    every entry over the clients that hold it.
    """
    moved = {
        name: previous[name][index] + weight * (update.weights[name] - began_with[name])
        for name, index in where.items()
    }
    return dataclasses.replace(update, weights=moved)


def blocks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield tensors of one shape, of one dimension or more, in blocks of rows."""
    rows = max(_BLOCK // max(tensors[0][0].numel(), 1), 1)
    return zip(*(tensor.split(rows) for tensor in tensors), strict=True)


def _whole(values: Tensor, scale: float) -> Tensor:
    """Return the values as whole multiples of 1 / scale, rounded towards zero. Changes `values`."""
    return values.mul_(scale).long()
