"""The server's step: every supernet entry goes to the average of the clients that hold it, eq. 5, or beyond.

The sums are of integers, so neither the order in which updates arrive nor adding up some of them elsewhere changes a
bit: each weight is rounded towards zero, to a multiple of 2^-q, with q as large as the bounds on weights and images
allow. In a round of 10,000 images q is 43, which is exact for weights of 2e-6 and more.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
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

#: Where a part of a tensor begins and ends along each axis.
_Part = tuple[tuple[int, int], ...]
#: A part of a tensor, as an index.
Block = tuple[slice, ...]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Integers = NDArray[np.int64]


class CoverageSums(NamedTuple):
    """Sums over clients of what each has of a block of a tensor, times its images: of the shape of the block."""

    total: Integers
    square: Integers
    num_images: Integers


class _Sums(NamedTuple):
    """As `CoverageSums`, of a whole tensor; the images by the parts of it that clients hold, which are a few shapes."""

    total: Integers
    square: Integers
    num_images: Counter[_Part]


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
        # Arrays, because NumPy adds integers faster than torch, and floats in one order with any number of threads.
        self._previous: dict[str, Floats] = {name: tensor.numpy() for name, tensor in previous.items()}
        self._max_samples = max_samples
        bits = _BITS - max_samples.bit_length()
        self._scale, self._square_scale = 2.0**bits / MAX_WEIGHT, 2.0**bits / _MAX_MOVE**2
        # Of the tensors that some client holds: in the first rounds of a supernet they are few.
        self._sums: dict[str, _Sums] = {}
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
            sums = self._sums_of(name)
            sums.num_images[tuple((axis.start, axis.stop) for axis in index)] += num_samples
            weight, old = update.weights[name].numpy(), self._previous[name][index]
            total, square = sums.total[index], sums.square[index]
            for rows in blocks(weight):
                total[rows] += self._whole(weight[rows]) * num_samples
                square[rows] += self._square(weight[rows], old[rows]) * num_samples

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
            mine = self._sums_of(name)
            np.add(mine.total, theirs.total, out=mine.total)
            np.add(mine.square, theirs.square, out=mine.square)
            mine.num_images.update(theirs.num_images)

    def result(self, *, extrapolates: bool = False) -> dict[str, Tensor]:
        """Return the new weights; entries that no update covers keep their previous value.

        Args:
            extrapolates: Go beyond the average, the further the more clients disagree: `_step_sizes`.
        """
        # In the order of the tensors, not of arrival.
        held = {name: self._held(name) for name in self._previous if name in self._sums}
        before = {name: self._previous[name][block] for name, block in held.items()}
        num_images = {name: self._num_images(name, block) for name, block in held.items()}
        averaged = {name: self._averaged(name, block, num_images[name]) for name, block in held.items()}
        means = {name: self._mean(sums) for name, sums in averaged.items()}
        of_all, of_some = self._step_sizes(before, averaged, means, num_images) if extrapolates else (1.0, 1.0)
        moved = {name: array.copy() for name, array in self._previous.items()}
        for name, block in held.items():
            moved[name][block] = self._moved(before[name], means[name], num_images[name], of_all, of_some)
        return {name: torch.from_numpy(array) for name, array in moved.items()}

    def _held(self, name: str) -> Block:
        """Return the smallest block of a tensor outside of which nobody holds an entry."""
        along_axes = (zip(*along, strict=True) for along in zip(*self._sums[name].num_images, strict=True))
        return tuple(slice(min(starts), max(stops)) for starts, stops in along_axes)

    def _num_images(self, name: str, block: Block) -> Integers:
        """Return how many images the clients have that hold each entry of a block of a tensor."""
        counts = np.zeros(self._previous[name][block].shape, np.int64)
        for part, num_images in self._sums[name].num_images.items():
            within = zip(part, block, strict=True)
            counts[tuple(slice(start - axis.start, stop - axis.start) for (start, stop), axis in within)] += num_images
        return counts

    def _averaged(self, name: str, block: Block, num_images: Integers) -> CoverageSums:
        """Return the sums over the clients whose weights of a tensor are averaged: all that hold an entry."""
        total, square, _ = self._sums[name]
        return CoverageSums(total[block], square[block], num_images)

    def _moved(self, before: Floats, mean: Doubles, num_images: Integers, of_all: float, of_some: float) -> Floats:
        """Return a block of a tensor after its step towards the average and beyond."""
        moved = np.empty_like(before)
        beyond_all, beyond_some = (np.float32(step_size) - np.float32(1) for step_size in (of_all, of_some))
        for rows in blocks(before):
            old, average, count = before[rows], mean[rows], num_images[rows]
            beyond = (average - old) * np.where(count == self._num_samples, beyond_all, beyond_some)
            moved[rows] = np.where(count > 0, beyond + average, old)
        return moved

    def _mean(self, sums: CoverageSums) -> Doubles:
        mean = np.empty(sums.total.shape)
        for rows in blocks(mean):
            mean[rows] = sums.total[rows] / np.maximum(sums.num_images[rows], 1) / self._scale
        return mean

    def _sums_of(self, name: str) -> _Sums:
        if name not in self._sums:
            shape = self._previous[name].shape
            self._sums[name] = _Sums(np.zeros(shape, np.int64), np.zeros(shape, np.int64), Counter())
        return self._sums[name]

    def _whole(self, weight: Floats) -> Integers:
        """Return weights as whole multiples of the unit, rounded towards zero."""
        return _whole(weight.astype(np.float64), self._scale)

    def _square(self, weight: Floats, old: Floats) -> Integers:
        """Return the squares of moves as whole multiples of their unit."""
        moves = np.clip(weight - old, -_MAX_MOVE, _MAX_MOVE).astype(np.float64)
        return _whole(np.square(moves, out=moves), self._square_scale)

    def _step_sizes(
        self,
        before: Mapping[str, Floats],
        averaged: Mapping[str, CoverageSums],
        means: Mapping[str, Doubles],
        num_images: Mapping[str, Integers],
    ) -> tuple[float, float]:
        """Return how far to go towards the average, of entries that every client holds and of all others; at least 1.

        It is half of the mean square of the clients' moves over the square of their average move. Where clients move
        in different directions, the average is short, and to end there is to learn slowly.

        Source: the step size of FedExP, D. Jhunjhunwala et al., arXiv 2301.09604, with epsilon 0. There every client
        moves every entry; here either square is a sum over entries, each averaged over the clients that hold it, and
        the few that hold the rest of a supernet agree more often, if only by chance, than all of them. The last two
        rounds are not averaged.
        """
        of_clients, of_average = [0.0, 0.0], [0.0, 0.0]
        for name, mean in means.items():
            sums, trained = averaged[name], num_images[name]
            for rows in blocks(mean):
                count, by_all = sums.num_images[rows], trained[rows] == self._num_samples
                of_client = sums.square[rows] / np.maximum(count, 1) / self._square_scale
                of_mean = np.square(mean[rows] - before[name][rows])
                for group, held in enumerate((by_all, (count > 0) & ~by_all)):
                    of_clients[group] += float((of_client * held).sum())
                    of_average[group] += float((of_mean * held).sum())
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


def blocks(array: Floats | Doubles) -> Iterator[slice]:
    """Yield the rows of each block of an array of one dimension or more."""
    num_rows = max(_BLOCK // max(array[0].size, 1), 1)
    for first in range(0, len(array), num_rows):
        yield slice(first, first + num_rows)


def _whole(values: Doubles, scale: float) -> Integers:
    """Return the values as whole multiples of 1 / scale, rounded towards zero. Changes `values`."""
    values *= scale
    return values.astype(np.int64)
