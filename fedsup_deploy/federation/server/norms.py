"""How far updates have moved, beside the others of the round and those of the rounds before: what is too far.

The norm of an update is the root of the mean square of its entries' moves, over how far its steps can lead: their
number follows from its images. So those of small and large subnets, of clients with few and with many images, and of
the warm-up and the end of a run can be compared.
"""

import dataclasses
import math
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Self

import numpy as np
import torch
from torch import Tensor

from fedsup_deploy.errors import as_output_error
from fedsup_deploy.federation.client import ClientId
from fedsup_deploy.federation.jobs.train import ClientUpdate, LocalTraining
from fedsup_deploy.federation.messages import Weights
from fedsup_deploy.federation.server.aggregation import CoverageMean, as_if_in_time, blocks
from fedsup_deploy.supernet import slices as rule

#: Rounds before whose norms are compared with: enough that those of one round with many attackers are outvoted.
WINDOW: Final = 3
#: Of fewer norms nobody can tell which is outrageous.
_LEAST: Final = 3
#: Of fewer norms nobody can tell how much they differ.
_LEAST_OF_A_SPREAD: Final = 5
#: Logarithms that are normally distributed are within three standard deviations of their median all but 1 in 400; in
#: median deviations, of which one is 0.6745 standard deviations.
_DEVIATIONS: Final = 3 / 0.6745
#: Bytes of waiting updates that stay in memory; the others wait in a temporary file.
_KEPT_BYTES: Final = 64 * 2**20

#: Norms of the last `WINDOW` rounds, of each those of its updates, in the order of the clients.
Norms = tuple[tuple[float, ...], ...]


@dataclasses.dataclass(frozen=True)
class Usual:
    """What norms usually are.

    Args:
        norm: Their median, positive.
        deviation: Of their natural logarithms from its own, the median. 0 where they do not say.
    """

    norm: float
    deviation: float

    @classmethod
    def of(cls, norms: Sequence[float]) -> Self | None:
        """Return what some norms usually are; None where they do not say."""
        if len(norms) < _LEAST or not (norm := statistics.median(norms)):
            return None
        if len(norms) < _LEAST_OF_A_SPREAD:
            return cls(norm, 0.0)
        return cls(norm, statistics.median(abs(math.log(each / norm)) if each else math.inf for each in norms))


@dataclasses.dataclass(frozen=True)
class NormLimits:
    """What becomes of updates that have moved far, in multiples of the usual norm: the median.

    Args:
        rejected: One with a larger norm is rejected; None rejects none. Above 1. Where clients differ much from each
            other, as those do that alone have images of a rare class, the multiple is larger: three standard deviations
            of the norms' logarithms, and at most its own square.
        clipped: Moves of one with a larger norm are all shortened by one factor, to this norm; None shortens none.

    Source: Z. Sun et al., arXiv 1911.07963, bound norms by a constant; T. D. Nguyen et al. (FLAME), arXiv 2101.02281,
    by the median of the round's. Here it is a multiple of the median, as the norms of clients with few images and of
    those with many differ, and of several rounds, for in one round attackers may be the majority.
    """

    rejected: float | None = None
    clipped: float | None = None

    def rejected_beyond(self, usual: Usual) -> float:
        """Return the multiple of the usual norm beyond which an update is rejected; infinite where none is."""
        if self.rejected is None:
            return math.inf
        widest = 2 * math.log(self.rejected)
        return max(self.rejected, math.exp(min(_DEVIATIONS * usual.deviation, widest)))

    @property
    def lower(self) -> float | None:
        """The smaller one: below it, an update is added as it is."""
        return min((each for each in (self.rejected, self.clipped) if each is not None), default=None)


NO_LIMITS: Final = NormLimits()


class NormGate:
    """Adds up the updates of a round, as far as their norms are not outrageous.

    An update is added at once where it would be whatever the others are: its norm is within the limit even if all
    others were zero. In the first round there is nothing to compare with; there, as later what has moved far, updates
    wait until the others are there: up to 64 MiB in memory, beyond that in a temporary file. So the order of replies
    decides nothing.

    Args:
        mean: Where they are added up.
        previous: The weights before, of the whole supernet.
        limits: What becomes of which.
        before: Norms of the rounds before.
        num_clients: How many were asked.
        training: How they train.
        learning_rate: Of this round.
    """

    def __init__(
        self,
        mean: CoverageMean,
        previous: Weights,
        limits: NormLimits,
        before: Norms,
        num_clients: int,
        training: LocalTraining,
        learning_rate: float,
    ) -> None:
        self._mean, self._previous, self._limits = mean, previous, limits
        self._training, self._rate = training, learning_rate
        self._before = before[-WINDOW:]
        least = self._usual([0.0] * num_clients)
        self._at_once = (self._limits.lower or 0.0) * (0.0 if least is None else least.norm)
        self._norms: dict[ClientId, float] = {}
        self._waiting = _Waiting()
        self._where: dict[ClientId, rule.Slices] = {}

    def add(self, client: ClientId, update: ClientUpdate, where: rule.Slices) -> str | None:
        """Add an update, or let it wait.

        Returns:
            None, or why it is rejected already.
        """
        reason = self._mean.reason_to_reject(update, where)
        if reason is not None:
            return reason
        if self._limits.lower is None:
            self._mean.add_sound(update, where)
            return None
        norm = self._norms[client] = self._norm_of(update, where)
        if norm <= self._at_once:
            self._mean.add_sound(update, where)
        else:
            self._waiting.put(client, update)
            self._where[client] = where
        return None

    def close(self) -> dict[ClientId, str]:
        """Decide what becomes of those that wait, now that no other comes.

        Returns:
            Clients whose update is rejected, with the reason.
        """
        rejected: dict[ClientId, str] = {}
        # Again without them: whoever is rejected leaves no trace in what is too far for others, as if it were silent.
        usual = self._usual(list(self._norms.values()))
        while too_far := self._too_far(usual):
            for client, why in too_far.items():
                rejected[client] = why
                del self._norms[client]
            usual = self._usual(list(self._norms.values()))
        for client, update in self._waiting.take():
            if client not in rejected:
                where, share = self._where[client], self._share(self._norms[client], usual)
                # Checked again: together they may have more images than a round.
                reason = self._mean.add(_shortened(update, self._previous, where, share), where)
                if reason is not None:
                    rejected[client] = reason
                    del self._norms[client]
        return rejected

    def drop(self) -> None:
        """Forget those that wait: the round broke off."""
        self._waiting.drop()

    def add_late(self, update: ClientUpdate, where: rule.Slices, began_with: Weights, weight: float) -> str | None:
        """Add an update of an earlier round, now that those of this one are decided about: `as_if_in_time`.

        Its move is held to the same limits, and no later one is compared with it.

        Returns:
            None, or why it is rejected.
        """
        reason = self._mean.reason_to_reject(update, where)
        if reason is not None:
            return reason
        moved = as_if_in_time(update, where, began_with, self._previous, weight)
        if self._limits.lower is not None:
            norm, usual = self._norm_of(moved, where), self._usual(list(self._norms.values()))
            reason = self._reason_to_reject(norm, usual)
            if reason is not None:
                return reason
            moved = _shortened(moved, self._previous, where, self._share(norm, usual))
        return self._mean.add(moved, where)

    def _norm_of(self, update: ClientUpdate, where: rule.Slices) -> float:
        return norm_of(update, self._previous, where, reach(update.num_samples, self._training, self._rate))

    def _too_far(self, usual: Usual | None) -> dict[ClientId, str]:
        """Return those that wait and have moved too far, with the reason."""
        reasons = {c: self._reason_to_reject(self._norms[c], usual) for c in self._where if c in self._norms}
        return {client: reason for client, reason in reasons.items() if reason is not None}

    def _reason_to_reject(self, norm: float, usual: Usual | None) -> str | None:
        if usual is None or norm <= (times := self._limits.rejected_beyond(usual)) * usual.norm:
            return None
        return f"its update has moved more than {times:.3g} times as far as usual"

    def _share(self, norm: float, usual: Usual | None) -> float:
        """Return the share of its moves that an update of this norm is shortened to."""
        if usual is None or self._limits.clipped is None or norm <= self._limits.clipped * usual.norm:
            return 1.0
        return self._limits.clipped * usual.norm / norm

    @property
    def norms(self) -> Norms:
        """Norms that the next round is compared with: of updates that were added."""
        if self._limits.lower is None:
            return ()
        return (*self._before, tuple(norm for _, norm in sorted(self._norms.items())))[-WINDOW:]

    def _usual(self, norms: Sequence[float]) -> Usual | None:
        """Return what those of the rounds before and these usually are; None where they do not say."""
        return Usual.of([norm for of_round in (*self._before, norms) for norm in of_round])


def reach(num_samples: int, training: LocalTraining, learning_rate: float) -> float:
    """Return how far SGD leads where all gradients are of length 1 and point one way.

    With momentum m step t moves by the learning rate times (1 - m^t) / (1 - m): the first steps are short ones.

    Args:
        num_samples: Images of a client, which say how many steps it takes.
        training: How it trains.
        learning_rate: Step size the client was given.
    """
    momentum, steps = training.momentum, training.epochs * math.ceil(num_samples / training.batch_size)
    return learning_rate * (steps - momentum * (1 - momentum**steps) / (1 - momentum)) / (1 - momentum)


def norm_of(update: ClientUpdate, previous: Weights, where: rule.Slices, furthest: float) -> float:
    """Return the root of the mean square of an update's moves, over how far its steps can lead.

    Args:
        update: What the client sent.
        previous: The whole supernet before.
        where: The part of each shared tensor that the client was given.
        furthest: `reach` of the client.
    """
    total, count = 0.0, 0
    # In one order, and by NumPy: the order in which torch adds depends on its threads.
    for name, index in sorted(where.items()):
        weight, before = update.weights[name].numpy(), previous[name][index].numpy()
        for rows in blocks(weight):
            moves = (weight[rows] - before[rows]).astype(np.float64)
            total += float(np.square(moves, out=moves).sum())
        count += weight.size
    return math.sqrt(total / count) / furthest


def _shortened(update: ClientUpdate, previous: Weights, where: rule.Slices, share: float) -> ClientUpdate:
    """Return an update all of whose moves are a share of what they were, in (0, 1]."""
    if share == 1:
        return update
    weights = {name: previous[name][where[name]].lerp(tensor, share) for name, tensor in update.weights.items()}
    return dataclasses.replace(update, weights=weights)


class _Waiting:
    """Updates that wait: in memory while they are few, then in a temporary file without a name."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=_KEPT_BYTES)  # noqa: SIM115
        self._updates: dict[ClientId, tuple[ClientUpdate, dict[str, torch.Size]]] = {}

    def put(self, client: ClientId, update: ClientUpdate) -> None:
        """Keep an update.

        Raises:
            OutputError: No room for the temporary file.
        """
        with as_output_error(Path(tempfile.gettempdir()), "make room there, or set averaging.max_norm: null"):
            for tensor in update.weights.values():
                self._file.write(tensor.numpy().tobytes())
        shapes = {name: tensor.shape for name, tensor in update.weights.items()}
        self._updates[client] = dataclasses.replace(update, weights={}), shapes

    def drop(self) -> None:
        """Keep nothing."""
        self._file.close()

    def take(self) -> Iterator[tuple[ClientId, ClientUpdate]]:
        """Yield what was kept, and keep it no longer."""
        self._file.seek(0)
        with self._file:
            for client, (update, shapes) in self._updates.items():
                weights: dict[str, Tensor] = {}
                for name, shape in shapes.items():
                    read = np.frombuffer(bytearray(self._file.read(4 * shape.numel())), np.float32)
                    weights[name] = torch.from_numpy(read).view(shape)
                yield client, dataclasses.replace(update, weights=weights)
