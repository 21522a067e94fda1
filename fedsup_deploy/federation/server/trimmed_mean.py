"""`TrimmedMean`: each supernet entry goes to the average of those clients that lie in the middle of all that hold it.

So some clients may send what they like. No update is kept for it, but of each entry as much as may have to be left
out: the K largest and the K smallest weights.
"""

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor

from fedsup_deploy.federation.jobs.train import ClientUpdate
from fedsup_deploy.federation.messages import Weights
from fedsup_deploy.federation.server.aggregation import CoverageMean, CoverageSums, blocks
from fedsup_deploy.supernet import slices as rule

#: Bits of a client's images, behind its weight.
_BITS: Final = 31
_NOBODY: Final = torch.iinfo(torch.int64).min


class _Extremes(NamedTuple):
    """Of a tensor how many clients hold each entry, and the largest K of what they have, twice: (2, K, *shape).

    What a client has is one int64, its weight before its images: they are ordered by the weight, and equal weights by
    the images, so that no order of arrival decides who is left out. Beside the largest are the largest of their
    complements (~), which are those of the smallest.
    """

    holders: Tensor
    kept: Tensor


class TrimmedMean(CoverageMean):
    """Averages each entry over those of its holders that remain without the largest and the smallest.

    Of h clients that hold an entry the k largest weights are left out and the k smallest: `num_trimmed`. The others are
    averaged by their images, in the units of `CoverageMean`, so in any order to the same bits. The squares of moves
    that decide how far the server extrapolates are those of the same clients.

    Of one holder, or two, nobody can tell who is wrong: k is 0, and the entry is their average. In a supernet this
    concerns what few clients were sent, where the limits of norms alone protect.

    An entry takes 4 + 16 K bytes more than with `CoverageMean`, where K is the k of all clients of the round: with a
    `trim` of 0.2 that is 36 bytes for 10 clients and 324 for 100, of whom all updates would be 40 and 400.

    Args:
        previous: As of `CoverageMean`.
        max_samples: As of `CoverageMean`.
        max_clients: Clients whose updates may be added.
        trim: Share of the holders of an entry that is left out on either side, in (0, 0.5).

    Source: the coordinate-wise trimmed mean of D. Yin et al., arXiv 1803.01498. There all hold every entry, all count
    the same, and a whole number is left out. Here each entry has holders of its own; what is left out is rounded up, so
    that any `trim` of them is outvoted where there are three or more; and the others count by their images.
    """

    def __init__(self, previous: Weights, max_samples: int, max_clients: int, trim: float) -> None:
        super().__init__(previous, max_samples)
        self._num_trimmed = torch.tensor([num_trimmed(holders, trim) for holders in range(max_clients + 1)])
        self._extremes: dict[str, _Extremes] = {}

    @property
    def extra_bytes(self) -> int:
        """Memory that is taken beyond that of a `CoverageMean`."""
        return sum(tensor.nbytes for extremes in self._extremes.values() for tensor in extremes)

    def reason_to_reject(self, update: ClientUpdate, where: rule.Slices) -> str | None:
        """As of `CoverageMean`; and nobody has 2^31 images."""
        if update.num_samples >= 2**_BITS:
            return "no images, or more than a round has"
        return super().reason_to_reject(update, where)

    def add_sound(self, update: ClientUpdate, where: rule.Slices) -> None:
        """Add one client's update, for which `reason_to_reject` has found none."""
        super().add_sound(update, where)
        for name, index in where.items():
            holders, kept = self._extremes_of(name)
            holders[index].add_(1)
            of_part = [place[index] for side in kept for place in side]
            for weight, *places in blocks(update.weights[name], *of_part):
                keys = _keys(weight, update.num_samples)
                for complement, side in zip((keys, ~keys), _halves(places), strict=True):
                    _keep_largest(complement, side)

    def merge(self, other: CoverageMean) -> None:
        """Add the updates that were added to another one with the same arguments.

        Raises:
            ValueError: It is no trimmed mean, has other arguments, or both together have more images than they may.
        """
        if not isinstance(other, TrimmedMean) or not torch.equal(self._num_trimmed, other._num_trimmed):
            raise ValueError("got another average, expected one that leaves out as many")
        super().merge(other)
        for name, theirs in other._extremes.items():
            holders, kept = self._extremes_of(name)
            holders.add_(theirs.holders)
            for mine, of_side in zip(kept, theirs.kept, strict=True):
                for keys in of_side:
                    _keep_largest(keys, list(mine))

    def _averaged(self, name: str) -> CoverageSums:
        """Return the sums without the clients that are left out."""
        sums = CoverageSums(*(tensor.clone() for tensor in self._sums[name]))
        holders, kept = self._extremes_of(name)
        num_out = self._num_trimmed[holders.long()]
        of_entries = [place for side in kept for place in side]
        for old, total, square, count, out, *places in blocks(self._previous[name], *sums, num_out, *of_entries):
            for side, complements in enumerate(_halves(places)):
                for rank, complement in enumerate(complements):
                    weight, images = _weights_and_images(~complement if side else complement, rank < out)
                    total.sub_(self._whole(weight).mul_(images))
                    square.sub_(self._square(weight, old).mul_(images))
                    count.sub_(images)
        return sums

    def _extremes_of(self, name: str) -> _Extremes:
        if name not in self._extremes:
            shape = self._previous[name].shape
            kept = torch.full((2, int(self._num_trimmed.max()), *shape), _NOBODY)
            self._extremes[name] = _Extremes(torch.zeros(shape, dtype=torch.int32), kept)
        return self._extremes[name]


def num_trimmed(holders: int, trim: float) -> int:
    """Return how many of the clients that hold an entry are left out on either side; one at least always remains.

    Args:
        holders: How many hold it.
        trim: Share of them, in (0, 0.5).
    """
    # Rounded first: 0.07 * 100 is a little more than 7.
    return max(0, min(math.ceil(round(trim * holders, 9)), (holders - 1) // 2))


def _halves(places: Sequence[Tensor]) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    return places[: len(places) // 2], places[len(places) // 2 :]


def _keys(weight: Tensor, num_samples: int) -> Tensor:
    """Return weights, each with its client's images, as integers that are ordered as the weights are."""
    return _in_order(weight.contiguous().view(torch.int32)).long().bitwise_left_shift_(_BITS).add_(num_samples)


def _weights_and_images(keys: Tensor, is_meant: Tensor) -> tuple[Tensor, Tensor]:
    """Return what `_keys` was made of where it is meant, and zeros elsewhere."""
    keys = torch.where(is_meant, keys, 0)
    return _in_order(keys.bitwise_right_shift(_BITS).int()).view(torch.float32), keys & (2**_BITS - 1)


def _in_order(bits: Tensor) -> Tensor:
    """Return the bits of float32 as integers in the order of the numbers; and those again as the bits."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def _keep_largest(keys: Tensor, places: Sequence[Tensor]) -> None:
    """Put keys where they belong among the largest, which descend; the smallest of all goes. Changes `places`."""
    for place in places:
        larger = torch.maximum(place, keys)
        keys = torch.minimum(place, keys)
        place.copy_(larger)
