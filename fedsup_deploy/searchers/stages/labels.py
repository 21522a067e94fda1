"""The best ways through a chain of decisions that cost in several respects, found without trying all of them.

A label is the cost of having decided up to some step. From input to output every label is continued with every option;
of the labels that leave the same future open, those that another beats in all that still matters are dropped, and so
are those that cannot end within the limits, or not on the front, whatever follows. It knows no networks.

Costs are floats of which sums are exact, such as whole numbers: they do not depend on the order.

Shapes: T steps, S states before a step, O options, N labels, C kinds of cost (the columns below), K results, R points
of the front of all that can follow a state.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np

from fedsup_deploy.errors import ConfigError
from fedsup_deploy.searchers.prices import FloatArray
from fedsup_deploy.searchers.stages.dominance import undominated
from fedsup_deploy.space.plan import BoolArray, IntArray

#: Columns of costs: all are sums over the steps but the last, which is the maximum.
LATENCY, LOSS, MACS, PARAMS, STORAGE, ACTIVATIONS = range(6)
NUM_COSTS: Final = 6

#: More labels than this after one step, and the search is given up.
MAX_LABELS: Final = 250_000
# Candidates in memory at once.
_CHUNK: Final = 1 << 19
# Points that stand for all that can follow a state: in its bound, and when labels are compared with it.
_MAX_POINTS: Final = 256
_MAX_CORNERS: Final = 16


@dataclasses.dataclass(frozen=True)
class Step:
    """One decision.

    Args:
        costs_SOC: What each option costs in each state.
        next_SO: Which state it leads to; -1 where it cannot be chosen.
    """

    costs_SOC: FloatArray
    next_SO: IntArray


@dataclasses.dataclass(frozen=True)
class Most:
    """The most that all decisions together may cost; infinite where there is no limit.

    Args:
        costs_C: Of each kind alone.
        memory: Of parameters and activations together.
    """

    costs_C: FloatArray
    memory: float


def best_paths(
    steps: Sequence[Step], most: Most, on_progress: Callable[[int, int], None] | None = None
) -> tuple[IntArray, FloatArray]:
    """Return all ways within the limits that no other beats in latency and loss, in the order of their options.

    Of those that are equal in both, the first is returned.

    Args:
        steps: From the only state before the first to the only one after the last.
        most: The limits.
        on_progress: Called with (steps done, steps in all).

    Returns:
        The options chosen in each step, shape (K, T), and what they cost, shape (K, C).

    Raises:
        ConfigError: More than `MAX_LABELS` labels would have to be kept.
    """
    futures, found = _futures(steps, most), _KnownWays.of(np.empty((0, NUM_COSTS)))
    # Labels compared by latency and loss alone lead to ways within the limits, if not to the best.
    simple = [[dataclasses.replace(future, held=()) for future in futures_S] for futures_S in futures]
    if futures[-1][0].held:
        found = _KnownWays.of(_run(steps, simple, found)[1])
    # At the end nothing else counts.
    return _run(steps, [*futures[:-1], simple[-1]], found, on_progress)


def combined(costs_NC: FloatArray, more_C: FloatArray) -> FloatArray:
    """Return the costs of both together, shape (N, C)."""
    both_NC: FloatArray = costs_NC + more_C
    both_NC[..., ACTIVATIONS] = np.maximum(costs_NC[..., ACTIVATIONS], more_C[..., ACTIVATIONS])
    return both_NC


@dataclasses.dataclass(frozen=True)
class _KnownWays:
    """Ways known from before.

    Args:
        latency_K: Of those that no other beats in latency and loss, ascending.
        best_K1: The least loss of the first 0, 1, ... of them.
    """

    latency_K: FloatArray
    best_K1: FloatArray

    @classmethod
    def of(cls, costs_NC: FloatArray) -> "_KnownWays":
        """Return the ways of these costs."""
        order_N = np.argsort(costs_NC[:, LATENCY])
        return cls(costs_NC[order_N, LATENCY], np.minimum.accumulate(np.append(math.inf, costs_NC[order_N, LOSS])))

    def beats(self, latency: FloatArray, loss: FloatArray) -> BoolArray:
        """Return where one of them is better in one of both and not worse in the other."""
        num_faster, num_as_fast = (np.searchsorted(self.latency_K, latency, side) for side in ("left", "right"))
        return np.asarray((self.best_K1[num_faster] <= loss) | (self.best_K1[num_as_fast] < loss))


@dataclasses.dataclass(frozen=True)
class _Future:
    """What is known in one state of all that can follow.

    Args:
        most: The limits.
        least_C: The least that the rest costs.
        enough_C: How small a cost needs to be; what is smaller is of no more use.
        held: Columns besides latency and loss in which a smaller cost can be of use.
        rest_R2: The rest is at least as slow and as lossy as one of these points.
    """

    most: Most
    least_C: FloatArray
    enough_C: FloatArray
    held: tuple[int, ...]
    rest_R2: FloatArray

    @property
    def is_dead(self) -> bool:
        """Whether no option is left."""
        return not np.isfinite(self.least_C).all()

    def admits(self, costs_NC: FloatArray) -> BoolArray:
        """Return which labels may end within the limits, shape (N,)."""
        ends_NC = combined(costs_NC, self.least_C)
        is_within_N = (ends_NC <= self.most.costs_C).all(axis=1)
        return np.asarray(is_within_N & (ends_NC[:, PARAMS] + ends_NC[:, ACTIVATIONS] <= self.most.memory))

    def is_hopeful(self, costs_NC: FloatArray, found: _KnownWays) -> BoolArray:
        """Return which labels may end where none of the ways found beats them, shape (N,)."""
        if not len(found.latency_K):
            return np.ones(len(costs_NC), np.bool_)
        latency_NR = costs_NC[:, LATENCY, None] + self.rest_R2[:, 0]
        loss_NR = costs_NC[:, LOSS, None] + self.rest_R2[:, 1]
        is_possible_NR = (latency_NR <= self.most.costs_C[LATENCY]) & ~found.beats(latency_NR, loss_NR)
        return np.asarray(is_possible_NR.any(axis=1))

    def best(self, costs_NC: FloatArray, key_N: IntArray) -> IntArray:
        """Return the labels that no other beats in what is of use, or that come before such a one by key alone."""
        held = list(self.held)
        of_use = np.maximum(costs_NC[:, held], self.enough_C[held])
        rows_ND = np.concatenate([costs_NC[:, [LATENCY, LOSS]], of_use], axis=1)
        kept_K = undominated(rows_ND, key_N)
        return np.append(kept_K, _earlier(rows_ND, key_N, kept_K)) if held else kept_K


def _earlier(rows_ND: FloatArray, key_N: IntArray, kept_K: IntArray) -> IntArray:
    """Return labels before those kept of the same latency and loss: they may cost more, but come first if they fit."""
    sorted_N = np.lexsort((key_N, rows_ND[:, 1], rows_ND[:, 0]))
    is_new_N = np.append(False, (rows_ND[sorted_N[1:], :2] != rows_ND[sorted_N[:-1], :2]).any(axis=1))[: len(key_N)]
    group_N = np.empty(len(key_N), np.int64)
    group_N[sorted_N] = np.cumsum(is_new_N)
    last_N = np.full(len(key_N), -1)
    np.maximum.at(last_N, group_N[kept_K], key_N[kept_K])
    is_earlier_N = key_N < last_N[group_N]
    is_earlier_N[kept_K] = False
    earlier = np.flatnonzero(is_earlier_N)
    earlier = earlier[np.argsort(key_N[earlier])]
    return np.asarray(earlier[np.unique(rows_ND[earlier], axis=0, return_index=True)[1]])


def _futures(steps: Sequence[Step], most: Most) -> list[list[_Future]]:
    """Return for every state after each step what can follow."""
    bounds, rests = _bounds(steps), _rests(steps)
    total_C = bounds[0][1][0]
    safe_C = most.costs_C.copy()
    safe_C[PARAMS] = min(safe_C[PARAMS], most.memory - total_C[ACTIVATIONS])
    safe_C[ACTIVATIONS] = min(safe_C[ACTIVATIONS], most.memory - total_C[PARAMS])
    held = tuple(column for column in (MACS, PARAMS, STORAGE, ACTIVATIONS) if safe_C[column] < total_C[column])

    def future(least_C: FloatArray, largest_C: FloatArray, rest_R2: FloatArray) -> _Future:
        # A cost that stays safe whatever follows is small enough, as are activations below the largest to come.
        enough_C = safe_C - np.append(largest_C[:ACTIVATIONS], 0.0)
        enough_C[ACTIVATIONS] = max(enough_C[ACTIVATIONS], least_C[ACTIVATIONS])
        return _Future(most, least_C, enough_C, held, _corners(rest_R2, _MAX_CORNERS))

    return [
        [future(*known) for known in zip(*bound, rest, strict=True)]
        for bound, rest in zip(bounds[1:], rests[1:], strict=True)
    ]


def _bounds(steps: Sequence[Step]) -> list[tuple[FloatArray, FloatArray]]:
    """Return before each step and after the last the least and the most that the rest costs in each state."""
    least_SC = largest_SC = np.zeros((1, NUM_COSTS))
    bounds = [(least_SC, largest_SC)]
    for step in reversed(steps):
        is_open_SO1 = (step.next_SO >= 0)[:, :, None]
        least_SC = np.where(is_open_SO1, combined(step.costs_SOC, least_SC[step.next_SO]), math.inf).min(axis=1)
        largest_SC = np.where(is_open_SO1, combined(step.costs_SOC, largest_SC[step.next_SO]), -math.inf).max(axis=1)
        bounds.append((least_SC, largest_SC))
    return bounds[::-1]


def _rests(steps: Sequence[Step]) -> list[list[FloatArray]]:
    """Return before each step and after the last for each state points (latency, loss) that no rest of it beats."""
    rests = [[np.zeros((1, 2))]]
    for step in reversed(steps):
        before = []
        for costs_OC, next_O in zip(step.costs_SOC, step.next_SO, strict=True):
            parts = [rests[-1][next_O[option]] + costs_OC[option, :MACS] for option in np.flatnonzero(next_O >= 0)]
            points_N2 = np.concatenate([np.empty((0, 2)), *parts])
            kept_R = undominated(points_N2, np.arange(len(points_N2)))
            before.append(_corners(points_N2[kept_R], _MAX_POINTS))
        rests.append(before)
    return rests[::-1]


def _corners(front_R2: FloatArray, count: int) -> FloatArray:
    """Return at most so many points of which each point of a front, fastest first, is beaten by one or is one."""
    if len(front_R2) <= count:
        return front_R2
    starts = np.arange(count) * len(front_R2) // count
    ends = np.append(starts[1:], len(front_R2)) - 1
    return np.stack([front_R2[starts, 0], front_R2[ends, 1]], axis=1)


def _run(
    steps: Sequence[Step],
    futures: Sequence[Sequence[_Future]],
    found: _KnownWays,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[IntArray, FloatArray]:
    """Return what `best_paths` does, where the futures do not leave out what matters."""
    costs_NC, state_N = np.zeros((1, NUM_COSTS)), np.zeros(1, np.int64)
    history: list[tuple[IntArray, IntArray]] = []
    for step, futures_S in zip(steps, futures, strict=True):
        kept = [(costs_NC[:0], state_N[:0], state_N[:0])]
        for state, future in enumerate(futures_S):
            if not future.is_dead:
                costs, key = _continued(_candidates(step, state, future, costs_NC, state_N), future, found)
                kept.append((costs, key, np.full(len(key), state)))
        costs_NC, key_N, state_N = (np.concatenate(columns) for columns in zip(*kept, strict=True))
        _check_number(len(key_N))
        # Parents are in the order of their options, so this order is that of all options up to here.
        order_N = np.argsort(key_N)
        costs_NC, state_N = costs_NC[order_N], state_N[order_N]
        num_options = step.next_SO.shape[1]
        history.append((key_N[order_N] // num_options, key_N[order_N] % num_options))
        if on_progress is not None:
            on_progress(len(history), len(steps))
    return _traced(history), costs_NC


def _candidates(
    step: Step, state: int, future: _Future, costs_NC: FloatArray, state_N: IntArray
) -> Iterator[tuple[FloatArray, IntArray]]:
    """Yield the labels that arrive in a state and may end within the limits, a part at a time.

    With each goes its place in the order of options: parent x number of options + option.
    """
    num_options = step.next_SO.shape[1]
    for before in np.flatnonzero((step.next_SO == state).any(axis=1)):
        options = np.flatnonzero(step.next_SO[before] == state)
        parents = np.flatnonzero(state_N == before)
        per_part = max(_CHUNK // len(options), 1)
        for start in range(0, len(parents), per_part):
            part = parents[start : start + per_part]
            arrived_NOC = combined(costs_NC[part][:, None], step.costs_SOC[before, options])
            costs = arrived_NOC.reshape(-1, NUM_COSTS)
            key = (part[:, None] * num_options + options).ravel()
            is_admitted_N = future.admits(costs)
            yield costs[is_admitted_N], key[is_admitted_N]


def _continued(
    candidates: Iterator[tuple[FloatArray, IntArray]], future: _Future, found: _KnownWays
) -> tuple[FloatArray, IntArray]:
    """Return the candidates worth keeping."""
    kept, waiting = (np.empty((0, NUM_COSTS)), np.empty(0, np.int64)), []
    for costs, key in candidates:
        is_hopeful_N = future.is_hopeful(costs, found)
        waiting.append((costs[is_hopeful_N], key[is_hopeful_N]))
        if sum(len(key) for _, key in waiting) > _CHUNK:
            kept, waiting = _best_of([kept, *waiting], future), []
            _check_number(len(kept[1]))
    return _best_of([kept, *waiting], future)


def _best_of(parts: Sequence[tuple[FloatArray, IntArray]], future: _Future) -> tuple[FloatArray, IntArray]:
    costs_NC, key_N = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    kept_K = future.best(costs_NC, key_N)
    return costs_NC[kept_K], key_N[kept_K]


def _check_number(count: int) -> None:
    if count > MAX_LABELS:
        raise ConfigError(
            f"exact search over stages: got {count:,} partial architectures of which none beats another, expected at "
            f"most {MAX_LABELS:,}; give fewer limits or use --method evolution"
        )


def _traced(history: Sequence[tuple[IntArray, IntArray]]) -> IntArray:
    """Return the options of each last label, from the parents and options of all labels of each step."""
    rows_K = np.arange(len(history[-1][0]))
    chosen = []
    for parent_N, option_N in reversed(history):
        chosen.append(option_N[rows_K])
        rows_K = parent_N[rows_K]
    return np.stack(chosen[::-1], axis=1)
