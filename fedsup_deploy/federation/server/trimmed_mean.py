"""`TrimmedMean`: each supernet entry goes to the average of those clients that lie in the middle of all that hold it.

So some clients may send what they like. No update is kept for it, but of each entry as much as may have to be left
out: the K largest and the K smallest weights.
"""

import math
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedsup_deploy.federation.jobs.train import ClientUpdate
from fedsup_deploy.federation.messages import Weights
from fedsup_deploy.federation.server.aggregation import Block, CoverageMean, CoverageSums, Floats, Integers, blocks
from fedsup_deploy.supernet import slices as rule

#: Bits of a client's images, behind its weight.
_BITS: Final = 31
_NOBODY: Final = np.iinfo(np.int64).min


class _Extremes(NamedTuple):
    """Of a tensor how many clients hold each entry, and the largest K of what they have, twice: (2, K, *shape).

    What a client has is one int64, its weight before its images: they are ordered by the weight, and equal weights by
    the images, so that no order of arrival decides who is left out. Beside the largest are the largest of their
    complements (~), which are those of the smallest.
    """

    holders: NDArray[np.int32]
    kept: Integers


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
        self._num_trimmed = np.array([num_trimmed(holders, trim) for holders in range(max_clients + 1)])
        self._extremes: dict[str, _Extremes] = {}

    @property
    def extra_bytes(self) -> int:
        """Memory that is taken beyond that of a `CoverageMean`."""
        return sum(array.nbytes for extremes in self._extremes.values() for array in extremes)

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
            holders[index] += 1
            weight, of_part = update.weights[name].numpy(), kept[(slice(None), slice(None), *index)]
            for rows in blocks(weight):
                keys = _keys(weight[rows], update.num_samples)
                for complement, places in zip((keys, ~keys), of_part[:, :, rows], strict=True):
                    _keep_largest(complement, places)

    def merge(self, other: CoverageMean) -> None:
        """Add the updates that were added to another one with the same arguments.

        Raises:
            ValueError: It is no trimmed mean, has other arguments, or both together have more images than they may.
        """
        if not isinstance(other, TrimmedMean) or not np.array_equal(self._num_trimmed, other._num_trimmed):
            raise ValueError("got another average, expected one that leaves out as many")
        super().merge(other)
        for name, theirs in other._extremes.items():
            holders, kept = self._extremes_of(name)
            np.add(holders, theirs.holders, out=holders)
            for mine, of_side in zip(kept, theirs.kept, strict=True):
                for keys in of_side:
                    _keep_largest(keys, mine)

    def _averaged(self, name: str, block: Block, num_images: Integers) -> CoverageSums:
        """Return the sums without the clients that are left out."""
        before = self._previous[name][block]
        sums = CoverageSums(*(array.copy() for array in super()._averaged(name, block, num_images)))
        holders, kept = self._extremes_of(name)
        kept = kept[(slice(None), slice(None), *block)]
        num_out = self._num_trimmed[holders[block]]
        for rows in blocks(before):
            for side, complements in enumerate(kept[:, :, rows]):
                for rank, complement in enumerate(complements):
                    keys = ~complement if side else complement
                    weight, images = _weights_and_images(keys, rank < num_out[rows])
                    sums.total[rows] -= self._whole(weight) * images
                    sums.square[rows] -= self._square(weight, before[rows]) * images
                    sums.num_images[rows] -= images
        return sums

    def _extremes_of(self, name: str) -> _Extremes:
        if name not in self._extremes:
            shape = self._previous[name].shape
            kept = np.full((2, int(self._num_trimmed.max()), *shape), _NOBODY)
            self._extremes[name] = _Extremes(np.zeros(shape, np.int32), kept)
        return self._extremes[name]


def num_trimmed(holders: int, trim: float) -> int:
    """Return how many of the clients that hold an entry are left out on either side; one at least always remains.

    Args:
        holders: How many hold it.
        trim: Share of them, in (0, 0.5).
    """
    # Rounded first: 0.07 * 100 is a little more than 7.
    return max(0, min(math.ceil(round(trim * holders, 9)), (holders - 1) // 2))


def _keys(weight: Floats, num_samples: int) -> Integers:
    """Return weights, each with its client's images, as integers that are ordered as the weights are."""
    return (_in_order(np.ascontiguousarray(weight).view(np.int32)).astype(np.int64) << _BITS) + num_samples


def _weights_and_images(keys: Integers, is_meant: NDArray[np.bool_]) -> tuple[Floats, Integers]:
    """Return what `_keys` was made of where it is meant, and zeros elsewhere."""
    keys = np.where(is_meant, keys, 0)
    return _in_order((keys >> _BITS).astype(np.int32)).view(np.float32), keys & (2**_BITS - 1)


def _in_order(bits: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the bits of float32 as integers in the order of the numbers; and those again as the bits."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def _keep_largest(keys: Integers, places: Integers) -> None:
    """Put keys where they belong among the largest, which descend; the smallest of all goes. Changes `places`."""
    for place in places:
        larger = np.maximum(place, keys)
        keys = np.minimum(place, keys)
        place[...] = larger
