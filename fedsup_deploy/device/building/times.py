"""From the visits of a session to one time per model, whatever speeds the machine had meanwhile.

A machine with two speeds, such as a virtual one whose neighbours come and go, gives each visit one of two times. Which
quantile of the visits repeats itself depends on how often each speed occurs: near the boundary it is a matter of
chance. So the session itself decides: the quantile is taken on which even and odd rounds agree best. It knows of no
prediction.
"""

import dataclasses
import functools
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import numpy as np

from fedsup_deploy.device.heldout import FloatArray
from fedsup_deploy.device.percentiles import HIGHER, HigherPercentile
from fedsup_deploy.errors import GateError
from fedsup_deploy.ondevice.latency_statistics import PERCENTILES, quantile
from fedsup_deploy.ondevice.records import Environment
from fedsup_deploy.ondevice.session_records import SessionEvent, VisitEvent

#: Even and odd rounds may differ by this share in the median network, as far as a prediction may be off.
STABLE_WITHIN: Final = 0.10
#: Quantiles over the visits of a model, from its fastest visit to the median one.
QUANTILES: Final = (0.0, 0.1, 0.25, 0.5)

# The visits of a model in the order of the rounds, as `session.visits` tells them.
Visits = Sequence[VisitEvent]

# A visit is told by few of its percentiles; it is taken apart into this many equal shares of its runs.
_PARTS_OF_A_VISIT: Final = 20


@dataclasses.dataclass(frozen=True)
class Times:
    """What a session came to.

    Args:
        cached_us: Latency by model, run again and again.
        uncached_us: Latency by model, each run after one of the filler; of parts only.
        share: The quantile over visits that these are.
        environment: Of the session.
        num_rounds: Visits per model.
        seconds: Length of the session.
        disagreement: Between even and odd rounds, by model.
        higher_us: Cached latency at higher percentiles, by percentile and model: of all its runs in all its visits,
            whatever speed the machine had; never below `cached_us`.
        higher_disagreement: Of these between even and odd rounds, by percentile and model.
    """

    cached_us: Mapping[str, float]
    uncached_us: Mapping[str, float]
    share: float
    environment: Environment
    num_rounds: int
    seconds: float
    disagreement: Mapping[str, float]
    higher_us: Mapping[HigherPercentile, Mapping[str, float]]
    higher_disagreement: Mapping[HigherPercentile, Mapping[str, float]]

    def of(self, models: Sequence[str]) -> FloatArray:
        """Return the cached latency of some models in microseconds, shape (N,)."""
        return np.array([self.cached_us[model] for model in models])

    def higher_of(self, models: Sequence[str]) -> dict[HigherPercentile, FloatArray]:
        """Return the higher percentiles of the latency of some models in microseconds, by percentile, shape (N,)."""
        return {name: np.array([us_of[model] for model in models]) for name, us_of in self.higher_us.items()}

    def median_disagreement(self, models: Iterable[str]) -> float:
        """Return by how much even and odd rounds differ in the median of some models."""
        return statistics.median(self.disagreement[model] for model in models)


def times_of(events: Sequence[SessionEvent], networks: Iterable[str], advice: str) -> Times:
    """Return what the visits of a session come to.

    Args:
        events: See `session.visits`; of at least two rounds.
        networks: The models whose repeatability decides whether the session can be used.
        advice: How to measure longer, for the message.

    Raises:
        GateError: The machine was too restless.
    """
    cached, uncached = (_visits(events, state) for state in ("cached", "uncached"))
    by_share = {
        share: {model: _disagreement(of, functools.partial(_best_p10, share=share)) for model, of in cached.items()}
        for share in QUANTILES
    }
    share, disagreement = min(by_share.items(), key=lambda item: statistics.median(item[1].values()))
    median = statistics.median(disagreement[model] for model in networks)
    if not median <= STABLE_WITHIN:
        raise GateError(
            f"the measurement is unstable: even and odd rounds of the median network differ by {median:.1%}, expected "
            f"at most {STABLE_WITHIN:.0%}; close other programs, fix the clock of the processor, and {advice}"
        )
    rounds = [event for event in events if event["event"] == "round"]
    cached_us = {model: 1e3 * _best_p10(of, share) for model, of in cached.items()}
    return Times(
        cached_us=cached_us,
        uncached_us={model: 1e3 * _best_p10(of, share) for model, of in uncached.items()},
        share=share,
        environment=[event for event in events if event["event"] == "environment"][-1],
        num_rounds=max(int(event["done"]) for event in rounds),
        seconds=max(float(event["seconds"]) for event in rounds),
        disagreement=disagreement,
        higher_us={
            name: {model: max(1e3 * _of_all_runs(of, name), cached_us[model]) for model, of in cached.items()}
            for name in HIGHER
        },
        higher_disagreement={
            name: {
                model: _disagreement(of, functools.partial(_of_all_runs, percentile=name))
                for model, of in cached.items()
            }
            for name in HIGHER
        },
    )


def _visits(events: Iterable[SessionEvent], state: str) -> dict[str, Visits]:
    """Return the visits of each model in one state. Of a round that was made twice the second counts."""
    found: dict[str, dict[int, VisitEvent]] = {}
    for event in events:
        if event["event"] == "visit" and event["state"] == state:
            found.setdefault(event["model"], {})[event["round"]] = event
    return {model: [of[index] for index in sorted(of)] for model, of in found.items()}


def _best_p10(visits: Visits, share: float) -> float:
    """Return a quantile over visits of their 10th percentiles, in ms."""
    return quantile([visit["p10_ms"] for visit in visits], share)


def _of_all_runs(visits: Visits, percentile: str) -> float:
    """Return a percentile of the times of all runs of some visits, in ms.

    Each visit is told by its shortest time and three percentiles. Its times are taken to lie evenly between these, and
    above the last as between the last two.
    """
    known = (0.0, *PERCENTILES.values())
    shares_S = (np.arange(_PARTS_OF_A_VISIT) + 0.5) / _PARTS_OF_A_VISIT
    times, weights = [], []
    for visit in visits:
        told = [visit["min_ms"], visit["p10_ms"], visit["p50_ms"], visit["p90_ms"]]
        slope = (told[-1] - told[-2]) / (known[-1] - known[-2])
        times.append(np.interp(shares_S, known, told) + np.maximum(shares_S - known[-1], 0) * slope)
        weights.append(np.full(_PARTS_OF_A_VISIT, visit["num_runs"] / _PARTS_OF_A_VISIT))
    time_T, weight_T = np.concatenate(times), np.concatenate(weights)
    order_T = np.argsort(time_T, kind="stable")
    # A part stands in the middle of its share of all runs.
    share_T = (np.cumsum(weight_T[order_T]) - weight_T[order_T] / 2) / weight_T.sum()
    return float(np.interp(PERCENTILES[percentile], share_T, time_T[order_T]))


def _disagreement(visits: Visits, statistic: Callable[[Visits], float]) -> float:
    even, odd = (statistic(half) for half in (visits[::2], visits[1::2]))
    return abs(even - odd) / min(even, odd)
