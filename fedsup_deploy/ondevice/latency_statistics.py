"""What times come to: quantiles, a bound of the 90th percentile, and whether a session repeats itself.

The arithmetic of a measurement is here and only here. It reads no clock.
"""

import math
from types import MappingProxyType
from typing import TYPE_CHECKING, Callable, Dict, Iterable, List, Optional, Tuple, TypeVar

if TYPE_CHECKING:
    from fedsup_deploy.ondevice.records import RunTimes, SpeedRecord, StabilityRecord

#: What a visit found.
Visit = TypeVar("Visit")

#: Parts of a session whose statistics differ by more than this share make it unstable.
STABLE_WITHIN = 0.05
#: So do visits that differ by more than this share: a machine with two speeds shows others in the next session.
SPREAD_WITHIN = 0.10
#: Models whose times differ by no more than this share are equally fast. A file timed in turns with a copy of itself
#: differed by up to 1.3 % in 24 sessions, each with a noise below 0.5 %: where their memory lies stays the same in one.
SAME_WITHIN = 0.02
NS_PER_MS = 1e6
#: What a limit on latency can be about: names of percentiles, and the share of the runs that stays within each.
PERCENTILES = MappingProxyType({"p10": 0.1, "p50": 0.5, "p90": 0.9})

_NO_LESS_THAN = 1e-9


def quantile(samples: Iterable[float], share: float) -> float:
    """Return the value below which `share` of the samples lie, linear between neighbours (NumPy's default)."""
    ordered = sorted(samples)
    position = share * (len(ordered) - 1)
    lower = int(position)
    upper = min(lower + 1, len(ordered) - 1)
    return ordered[lower] + (position - lower) * (ordered[upper] - ordered[lower])


def summarize(samples_ns: List[int]) -> "RunTimes":
    """Return the number of runs, and minimum, 10th, 50th and 90th percentile and mean of their times, in ms."""
    return {
        "num_runs": len(samples_ns),
        "min_ms": quantile(samples_ns, 0.0) / NS_PER_MS,
        "p10_ms": quantile(samples_ns, 0.1) / NS_PER_MS,
        "p50_ms": quantile(samples_ns, 0.5) / NS_PER_MS,
        "p90_ms": quantile(samples_ns, 0.9) / NS_PER_MS,
        "mean_ms": sum(samples_ns) / len(samples_ns) / NS_PER_MS,
    }


def p90_bound_ms(samples_ns: List[int]) -> Optional[float]:
    """Return a time that 90 % of all runs stay within, 99 % sure if runs are independent; None with fewer than 64 runs.

    The t-th largest of n times, with the largest t for which P(X <= t) <= 0.01; X, binomial with n trials of 0.1, is
    how many times lie beyond the true percentile. Source: MLPerf inference rules, early stopping: I_0.9(n - t, t + 1).
    """
    num_runs = len(samples_ns)
    num_beyond = -1
    probability = 0.0  # of at most `num_beyond` times beyond
    while probability <= 0.01:
        num_beyond += 1
        num_within = num_runs - num_beyond
        log_ways = math.lgamma(num_runs + 1) - math.lgamma(num_beyond + 1) - math.lgamma(num_within + 1)
        probability += math.exp(log_ways + num_beyond * math.log(0.1) + num_within * math.log(0.9))
    t = num_beyond - 1
    if t < 1:
        return None
    return sorted(samples_ns)[-t] / NS_PER_MS


def pooled_p10(visits_ns: List[List[int]]) -> float:
    """Return the 10th percentile of all times of some visits: the slow tail says more about neighbours on a machine."""
    return quantile([ns for visit in visits_ns for ns in visit], 0.1)


def noise(visits_ns: List[List[int]]) -> Dict[str, float]:
    """Return for each percentile by what share parts of a session differ in it: even and odd visits, or its halves."""
    # Sorted once: a quantile of what is sorted takes no time.
    parts = [sorted(ns for visit in part for ns in visit) for part in _parts(visits_ns)]
    return {name: max(_differences([quantile(part, share) for part in parts])) for name, share in PERCENTILES.items()}


def stability(
    visits: List[Visit], statistic: Callable[[List[Visit]], float], name: str, spread_within: float = math.inf
) -> "StabilityRecord":
    """Return whether the parts of a session agree.

    Args:
        visits: What each visit found, in order.
        statistic: Maps some of the visits to the figure that is compared.
        name: Of the statistic.
        spread_within: Largest spread that is called stable, as a share.

    Returns:
        JSON values: `disagreement`, the relative difference of even and odd visits; `drift`, that of the first and the
        second half; `spread`, how far the middle 80 % of the visits lie apart, relative to their median; the bounds;
        `verdict`, `stable` or `unstable`.
    """
    disagreement, drift = _differences([statistic(part) for part in _parts(visits)])
    each = [statistic([visit]) for visit in visits]
    spread = (quantile(each, 0.9) - quantile(each, 0.1)) / max(quantile(each, 0.5), _NO_LESS_THAN)
    is_stable = max(disagreement, drift) <= STABLE_WITHIN and spread <= spread_within
    return {
        "statistic": name,
        "disagreement": disagreement,
        "drift": drift,
        "spread": spread,
        "stable_within": STABLE_WITHIN,
        "spread_within": spread_within if math.isfinite(spread_within) else None,
        "verdict": "stable" if is_stable else "unstable",
    }


def speed_of(fp32_ns: List[List[int]], int8_ns: List[List[int]]) -> "SpeedRecord":
    """Return how many times as fast as its fp32 form a network is in int8, and how far that can be told.

    Args:
        fp32_ns: Times of a session in ns, visit by visit.
        int8_ns: Those of the visits in turns with them.

    Returns:
        JSON values: `times_as_fast`, p10 of fp32 / p10 of int8; `noise`, by what share parts of the session differ in
        that; `verdict`; `faster_above`, 1 and the noise, at least `SAME_WITHIN`: int8 counts as faster where
        `times_as_fast` is above it.
    """
    pairs = list(zip(fp32_ns, int8_ns))
    found = stability(pairs, _times_as_fast, "p10 of fp32 / p10 of int8")
    apart = max(found["disagreement"], found["drift"])
    return {
        "times_as_fast": _times_as_fast(pairs),
        "noise": apart,
        "faster_above": 1 + max(apart, SAME_WITHIN),
        "verdict": found["verdict"],
    }


def speed_words(speed: "SpeedRecord", *, may_be_device: bool) -> str:
    """Return how fast int8 is, and what to do where it is not faster; another machine tells nothing of a device."""
    words = f"{speed['times_as_fast']:.3g} times as fast as fp32 ({speed['verdict']})"
    if not may_be_device:
        return f"{words}, not on the device"
    if speed["times_as_fast"] > speed["faster_above"]:
        return words
    return f"{words}: not faster here (that is above {speed['faster_above']:.3g}); use the fp32 file"


def _times_as_fast(visits: "List[Tuple[List[int], List[int]]]") -> float:
    fp32_ns, int8_ns = zip(*visits)
    return pooled_p10(list(fp32_ns)) / max(pooled_p10(list(int8_ns)), _NO_LESS_THAN)


def _parts(visits: List[Visit]) -> List[List[Visit]]:
    """Return the even and the odd visits of a session, and its halves."""
    half = len(visits) // 2
    return [visits[::2], visits[1::2], visits[:half], visits[half:]]


def _differences(statistics: List[float]) -> Tuple[float, float]:
    """Return by how much a statistic of these parts differs between even and odd visits, and between the halves."""
    even, odd, first, second = statistics
    return _relative_difference(even, odd), _relative_difference(first, second)


def _relative_difference(one: float, other: float) -> float:
    return abs(one - other) / max(min(one, other), _NO_LESS_THAN)
