"""Which few architectures serve a whole fleet with the least accuracy lost: the best choice there is, not a good one.

It prices and evaluates nothing. Of all architectures few are worth choosing: those that none beats on every profile
they fit. Over these runs a dynamic program: with one architecture more, which sets of profiles can be served, and at
what loss. Its time grows with the number of such sets: a handful where a larger device takes what a smaller one takes.

Accuracies and latencies are compared in whole steps, so that no sum depends on its order.

Shapes: P device profiles, A architectures, M of them worth choosing, S sets of profiles, bit p of a set for profile p.
"""

import dataclasses
from collections.abc import Sequence
from typing import Final

import numpy as np

from fedsup_deploy.errors import ConfigError
from fedsup_deploy.searchers.scoring.score import FloatArray
from fedsup_deploy.space.plan import BoolArray, IntArray

#: Profiles whose sets are numbers of 63 bits.
_MAX_PROFILES: Final = 62
# Finer than any set of images can tell accuracies apart, and than any clock.
_STEPS_OF_ACCURACY: Final = 1e12
_STEPS_PER_MS: Final = 1e9


@dataclasses.dataclass(frozen=True)
class FleetChoice:
    """Architectures for a fleet.

    Args:
        num_artifacts: Different ones.
        rows_P: Which architecture each profile gets: a row of the input.
        loss_P: Accuracy each profile loses against the best that fits it.
    """

    num_artifacts: int
    rows_P: tuple[int, ...]
    loss_P: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class _Offers:
    """Architectures to choose from, the most accurate first.

    Args:
        row_M: Rows of the input.
        fits_PM: Which may be given to which profile.
        loss_PM: Steps of accuracy lost by giving them to it.
        latency_PM: Steps of latency there.
    """

    row_M: IntArray
    fits_PM: BoolArray
    loss_PM: IntArray
    latency_PM: IntArray

    @property
    def everyone(self) -> int:
        """The set of all profiles."""
        return (1 << len(self.fits_PM)) - 1

    def with_losses_below(self, loss: int) -> "_Offers":
        """Return the same offers to the profiles that lose less by them."""
        return dataclasses.replace(self, fits_PM=self.fits_PM & (self.loss_PM < loss))


@dataclasses.dataclass(frozen=True)
class _Served:
    """The sets of profiles that so many architectures can serve, each in the best way.

    Args:
        set_S: The sets, ascending.
        loss_S: Least steps of accuracy lost.
        latency_S: With that loss, least steps of latency.
        before_S: Which set was served without the last architecture.
        offer_S: The last architecture.
    """

    set_S: IntArray
    loss_S: IntArray
    latency_S: IntArray
    before_S: IntArray
    offer_S: IntArray

    def index_of(self, wanted: int) -> int | None:
        """Return where a set is; None where it cannot be served."""
        found = np.flatnonzero(self.set_S == wanted)
        return int(found[0]) if len(found) else None


def choose_artifacts(
    accuracy_A: FloatArray, fits_PA: BoolArray, latency_PA: FloatArray, max_artifacts: int | None
) -> list[FleetChoice]:
    """Return the best choice of one architecture for all profiles, of two, and so on, until no accuracy is lost.

    A choice is the best by the sum of what the profiles lose, then by the loss of the worst off, then by the sum of the
    latencies. Of architectures alike in all this the first is taken. Numbers that no choice serves all profiles with
    are left out.

    Args:
        accuracy_A: Accuracies in [0, 1].
        fits_PA: Which architecture is within the limits of which profile.
        latency_PA: Latency in ms.
        max_artifacts: The largest number to look at; None is as many as lose nothing, at most one per profile.

    Raises:
        ConfigError: There are more profiles than this can tell apart.
    """
    num_profiles = len(fits_PA)
    if num_profiles > _MAX_PROFILES:
        raise ConfigError(f"a fleet: got {num_profiles} device profiles, expected at most {_MAX_PROFILES}")
    offers = _worth_choosing(accuracy_A, fits_PA, latency_PA)
    steps = _one_by_one(offers, num_profiles if max_artifacts is None else min(max_artifacts, num_profiles))
    choices = []
    for count in range(1, len(steps)):
        chosen = _chosen(offers, steps, count)
        if chosen is not None:
            choices.append(_as_choice(offers, _spared(offers, chosen, count)))
    return choices


def _worth_choosing(accuracy_A: FloatArray, fits_PA: BoolArray, latency_PA: FloatArray) -> _Offers:
    """Return the architectures that no other beats, or equals and precedes, on every profile they fit."""
    step_A = np.rint(accuracy_A * _STEPS_OF_ACCURACY).astype(np.int64)
    time_PA = np.where(fits_PA, np.rint(latency_PA * _STEPS_PER_MS), 0).astype(np.int64)
    set_A = _sets(fits_PA)
    left = np.lexsort((time_PA.sum(axis=0), -step_A))
    left = left[set_A[left] != 0]
    kept: list[int] = []
    while len(left):
        best, left = int(left[0]), left[1:]
        kept.append(best)
        is_beaten = (set_A[left] & ~set_A[best]) == 0
        # None left is more accurate; where one is as accurate, the latency on each of its profiles decides.
        num_equal = int(np.count_nonzero(step_A[left] == step_A[best]))
        equal = left[:num_equal]
        is_slower_PE = (time_PA[:, equal] >= time_PA[:, [best]]) | ~fits_PA[:, equal]
        is_beaten[:num_equal] &= is_slower_PE.all(axis=0)
        left = left[~is_beaten]
    row_M = np.array(kept, np.int64)
    fits_PM = fits_PA[:, row_M]
    reached_PM = np.where(fits_PM, step_A[row_M], -1)
    best_P = reached_PM.max(axis=1, initial=-1)
    loss_PM: IntArray = np.where(fits_PM, best_P[:, None] - reached_PM, 0)
    return _Offers(row_M, fits_PM, loss_PM, time_PA[:, row_M])


def _one_by_one(offers: _Offers, most: int) -> list[_Served]:
    """Return what none, one, two ... architectures can serve, up to `most` or until all are served without loss."""
    nothing = np.zeros(1, np.int64)
    steps = [_Served(nothing, nothing, nothing, nothing, nothing)]
    ceiling = np.iinfo(np.int64).max
    while len(steps) <= most and ceiling > 0:
        served = _with_one_more(offers, steps[-1], int(ceiling))
        steps.append(served)
        everyone = served.index_of(offers.everyone)
        if everyone is not None:
            # One more is only chosen to lose less.
            ceiling = served.loss_S[everyone]
    return steps


def _with_one_more(offers: _Offers, served: _Served, ceiling: int) -> _Served:
    """Return the sets that can be served with another architecture, at a loss below the ceiling."""
    new_SM = _sets(offers.fits_PM) & ~served.set_S[:, None]
    before_N, offer_N = np.nonzero(new_SM)
    new_N = new_SM[before_N, offer_N]
    set_N = served.set_S[before_N] | new_N
    loss_N, latency_N = served.loss_S[before_N], served.latency_S[before_N]
    for profile in range(len(offers.fits_PM)):
        is_new_N = (new_N >> profile) & 1
        loss_N += is_new_N * offers.loss_PM[profile, offer_N]
        latency_N += is_new_N * offers.latency_PM[profile, offer_N]
    order = np.lexsort((offer_N, latency_N, loss_N, set_N))
    order = order[np.unique(set_N[order], return_index=True)[1]]
    order = order[loss_N[order] < ceiling]
    return _Served(set_N[order], loss_N[order], latency_N[order], before_N[order], offer_N[order])


def _chosen(offers: _Offers, steps: Sequence[_Served], count: int) -> list[int] | None:
    """Return the offers by which so many architectures serve all profiles best; None where they cannot."""
    at = steps[count].index_of(offers.everyone) if count < len(steps) else None
    if at is None:
        return None
    chosen = []
    for served in steps[count:0:-1]:
        chosen.append(int(served.offer_S[at]))
        at = int(served.before_S[at])
    return chosen


def _spared(offers: _Offers, chosen: list[int], count: int) -> list[int]:
    """Return the choice with the same sum of losses in which the worst loss is least."""
    losses = _losses(offers, chosen)
    while max(losses) > 0:
        milder = offers.with_losses_below(max(losses))
        other = _chosen(milder, _one_by_one(milder, count), count)
        if other is None or sum(_losses(offers, other)) > sum(losses):
            break
        chosen, losses = other, _losses(offers, other)
    return chosen


def _given(offers: _Offers, chosen: Sequence[int]) -> list[int]:
    """Return the offer that each profile takes: the one by which it loses least, then the fastest, then the first."""
    given = []
    for profile, fits_M in enumerate(offers.fits_PM):
        loss_M, latency_M = offers.loss_PM[profile], offers.latency_PM[profile]
        fitting = [(loss_M[index], latency_M[index], offers.row_M[index], index) for index in chosen if fits_M[index]]
        given.append(min(fitting)[-1])
    return given


def _losses(offers: _Offers, chosen: Sequence[int]) -> list[int]:
    """Return the steps of accuracy that each profile loses."""
    return [int(offers.loss_PM[profile, index]) for profile, index in enumerate(_given(offers, chosen))]


def _as_choice(offers: _Offers, chosen: Sequence[int]) -> FleetChoice:
    rows_P = tuple(int(offers.row_M[index]) for index in _given(offers, chosen))
    loss_P = tuple(loss / _STEPS_OF_ACCURACY for loss in _losses(offers, chosen))
    return FleetChoice(len(set(rows_P)), rows_P, loss_P)


def _sets(fits_PM: BoolArray) -> IntArray:
    """Return the set of profiles that each architecture may be given to, shape (M,)."""
    sets_M: IntArray = fits_PM.T.astype(np.int64) @ (np.int64(1) << np.arange(len(fits_PM)))
    return sets_M
