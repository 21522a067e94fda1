"""Why no subnet fits: which limits forbid it, and what comes closest. It only finds words; others decide.

Shapes: N architectures.
"""

import itertools
from collections.abc import Iterator

import numpy as np

from fedsup_deploy.device.limits import TABLE
from fedsup_deploy.errors import InfeasibleError
from fedsup_deploy.searchers.limits import violations
from fedsup_deploy.searchers.pool import Pool
from fedsup_deploy.searchers.prices import Prices, rounded_up
from fedsup_deploy.searchers.pricing import Target
from fedsup_deploy.space.plan import BoolArray


def explain_infeasible(pool: Pool, target: Target, prices: Prices) -> InfeasibleError:
    """Return the error for a device that nothing in the pool fits.

    The message names each limit that cannot be met alone; if all can, the smallest sets that cannot be met together;
    and always the architecture whose worst excess over a limit is the smallest share of that limit.

    Args:
        pool: What was tried.
        target: The device and its limits.
        prices: Of the pool, on the target.
    """
    supported_F = np.flatnonzero(prices.is_supported)
    if not len(supported_F):
        return _explain_unsupported(pool, target)
    prices = prices.take(supported_F)
    by_limit = prices.by_limit()
    limits = target.limits.checked(by_limit)
    fits = {name: by_limit[name] <= limit for name, limit in limits.items()}
    impossible = [name for name, fits_N in fits.items() if not fits_N.any()]
    if impossible:
        cause = " and ".join(f"{_limit(name, target)}, {_lowest(name, target, prices)}" for name in impossible)
    else:
        sets = (" and ".join(_limit(name, target) for name in conflict) for conflict in _conflicts(fits))
        cause = " or ".join(sets) + " cannot be met together"
    closest = int(np.argmin(violations(by_limit, target.limits)))
    values = ", ".join(f"{name} {_price(name, by_limit[name][closest], limit)}" for name, limit in limits.items())
    arch_id = pool.space.decode(pool.genes_NG[supported_F[closest]]).arch_id
    verdict = "no subnet fits" if pool.is_complete else "found no subnet that fits"
    return InfeasibleError(
        f"{verdict} {target.profile.name}: {cause}; closest is {arch_id} with {values}; "
        f"raise {'the limit' if len(impossible) == 1 else 'a limit'} or widen the space ({pool.coverage()})"
    )


def _explain_unsupported(pool: Pool, target: Target) -> InfeasibleError:
    ops = ", ".join(target.profile.unsupported_ops)
    return InfeasibleError(
        f"no subnet fits {target.profile.name}: every one has a layer its runtime cannot run ({ops}); "
        f"widen the space by choices without such layers ({pool.coverage()})"
    )


def _conflicts(fits: dict[str, BoolArray]) -> Iterator[tuple[str, ...]]:
    """Yield the sets of limits that nothing meets, of the smallest size there is."""
    for size in range(2, len(fits) + 1):
        found = [names for names in itertools.combinations(fits, size) if not _meets_all(fits, names).any()]
        if found:
            yield from found
            return


def _meets_all(fits: dict[str, BoolArray], names: tuple[str, ...]) -> BoolArray:
    meets_N: BoolArray = np.all([fits[name] for name in names], axis=0)
    return meets_N


def _lowest(name: str, target: Target, prices: Prices) -> str:
    lowest = float(prices.by_limit()[name].min())
    text = _price(name, lowest, target.limits.given()[name])
    row = TABLE[name]
    if not row.is_predicted:
        return f"{row.lowest} {text}"
    if target.held.upper_ratio is not None:
        return f"lowest bound {text}"
    # It is about what is predicted, so it says nothing of another percentile.
    bounds = target.interval(np.array([lowest])) if target.held.ratio == 1 else None
    interval = "" if bounds is None else f" ({float(bounds[0][0]):.4g} to {float(bounds[1][0]):.4g})"
    return f"{row.lowest} {text}{interval}"


def _limit(name: str, target: Target) -> str:
    limit = _exact(name, target.limits.given()[name])
    if not TABLE[name].is_predicted:
        return f"{name} <= {limit}"
    risk = "" if target.held.risk is None else f" with a probability of {target.held.risk:g}"
    return f"{name} <= {limit} ({target.held}){risk}"


def _price(name: str, price: float, limit: float) -> str:
    """Return a price in four digits, rounded up, or in as many more as show on which side of its limit it is."""
    if TABLE[name].is_count:
        return _exact(name, price)
    texts = (f"{rounded_up(price, digits):.{digits}g}" for digits in range(4, 17))
    return next((text for text in texts if price == limit or (float(text) > limit) == (price > limit)), repr(price))


def _exact(name: str, value: float) -> str:
    return f"{int(value):,}" if TABLE[name].is_count and float(value).is_integer() else str(float(value))
