"""`Problem`: what a searcher may pick from for one device, found before anything is evaluated.

Shapes: N architectures of the pool, F feasible ones, K others, G genes.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from fedsup_deploy.errors import InfeasibleError
from fedsup_deploy.events import EventLog
from fedsup_deploy.searchers.infeasible import explain_infeasible
from fedsup_deploy.searchers.limits import within
from fedsup_deploy.searchers.pool import Pool
from fedsup_deploy.searchers.prices import Prices
from fedsup_deploy.searchers.pricing import Target, price
from fedsup_deploy.searchers.scoring.known import KnownAccuracy
from fedsup_deploy.space.plan import BoolArray, IntArray


@dataclasses.dataclass(frozen=True)
class Problem:
    """The part of a pool that is within a device's limits.

    Args:
        target: The device.
        pool: What was priced.
        feasible_F: Rows of the pool within all limits and without unsupported layers, ascending; at least one.
        prices: Of these, on the device.
        known: The accuracy of any architecture, measured or predicted, where no more is to be measured; None where
            accuracy is found by measuring.
        on_step: Called with (steps done, steps in all) by a searcher that works long before its first proposal.
    """

    target: Target
    pool: Pool
    feasible_F: IntArray
    prices: Prices
    known: KnownAccuracy | None = None
    on_step: Callable[[int, int], None] | None = None

    @property
    def num_feasible(self) -> int:
        """Number of priced architectures within the limits."""
        return len(self.feasible_F)

    @property
    def genes(self) -> IntArray:
        """Genes of the feasible architectures, shape (F, G)."""
        return self.pool.genes_NG[self.feasible_F]

    def admits(self, genes_KG: IntArray) -> tuple[BoolArray, Prices]:
        """Return which of K architectures of the space are within the limits, shape (K,), and the prices of all."""
        (prices,) = price(self.pool.space, genes_KG, [self.target])
        return is_feasible(prices, self.target), prices


def is_feasible(prices: Prices, target: Target) -> BoolArray:
    """Return which architectures are within the device's limits and have no layer it cannot run, shape (N,)."""
    return within(prices.by_limit(), target.limits) & prices.is_supported


def pose(pool: Pool, targets: Sequence[Target], log: EventLog, known: KnownAccuracy | None = None) -> list[Problem]:
    """Return the problem of each target.

    Args:
        pool: What to price.
        targets: The devices.
        log: Gets `pricing` and, from searchers that take steps, `step` events.
        known: As of `Problem`.

    Raises:
        InfeasibleError: Nothing fits one of the devices; the message explains the first and names the others.
    """

    def on_priced(done: int, total: int) -> None:
        log.emit("pricing", done=done, total=total)

    def on_step(done: int, total: int) -> None:
        log.emit("step", done=done, total=total)

    problems, misfits = [], []
    for target, prices in zip(targets, price(pool.space, pool.genes_NG, targets, on_priced), strict=True):
        feasible_F = np.flatnonzero(is_feasible(prices, target))
        problems.append(Problem(target, pool, feasible_F, prices.take(feasible_F), known, on_step))
        if not len(feasible_F):
            misfits.append((target, prices))
    if misfits:
        error = explain_infeasible(pool, *misfits[0])
        others = ", ".join(target.profile.name for target, _ in misfits[1:])
        raise InfeasibleError(f"{error}; nor does any fit {others}") if others else error
    return problems
