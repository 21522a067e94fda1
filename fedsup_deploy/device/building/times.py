"""From the visits of a session to one time per model, whatever speeds the machine had meanwhile.

A machine with two speeds, such as a virtual one whose neighbours come and go, gives each visit one of two times. Which
quantile of the visits repeats itself depends on how often each speed occurs: near the boundary it is a matter of
chance. So the session itself decides: the quantile is taken on which even and odd rounds agree best. It knows of no
prediction.
"""

import dataclasses
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from fedsup_deploy.device.heldout import FloatArray
from fedsup_deploy.errors import GateError
from fedsup_deploy.ondevice.latency_statistics import quantile

#: Even and odd rounds may differ by this share in the median network, as far as a prediction may be off.
STABLE_WITHIN: Final = 0.10
#: Quantiles over the visits of a model, from its fastest visit to the median one.
QUANTILES: Final = (0.0, 0.1, 0.25, 0.5)

# The 10th percentiles of a model's visits in ms, in the order of the rounds.
Visits = Sequence[float]


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
    """

    cached_us: Mapping[str, float]
    uncached_us: Mapping[str, float]
    share: float
    environment: Mapping[str, Any]
    num_rounds: int
    seconds: float
    disagreement: Mapping[str, float]

    def of(self, models: Sequence[str]) -> FloatArray:
        """Return the cached latency of some models in microseconds, shape (N,)."""
        return np.array([self.cached_us[model] for model in models])

    def median_disagreement(self, models: Iterable[str]) -> float:
        """Return by how much even and odd rounds differ in the median of some models."""
        return statistics.median(self.disagreement[model] for model in models)


def times_of(events: Sequence[Mapping[str, Any]], networks: Iterable[str], advice: str) -> Times:
    """Return what the visits of a session come to.

    Args:
        events: See `session.visits`; of at least two rounds.
        networks: The models whose repeatability decides whether the session can be used.
        advice: How to measure longer, for the message.

    Raises:
        GateError: The machine was too restless.
    """
    cached, uncached = (_visits(events, state) for state in ("cached", "uncached"))
    by_share = {share: {model: _disagreement(of, share) for model, of in cached.items()} for share in QUANTILES}
    share, disagreement = min(by_share.items(), key=lambda item: statistics.median(item[1].values()))
    median = statistics.median(disagreement[model] for model in networks)
    if not median <= STABLE_WITHIN:
        raise GateError(
            f"the measurement is unstable: even and odd rounds of the median network differ by {median:.1%}, expected "
            f"at most {STABLE_WITHIN:.0%}; close other programs, fix the clock of the processor, and {advice}"
        )
    rounds = [event for event in events if event["event"] == "round"]
    return Times(
        cached_us={model: 1e3 * quantile(of, share) for model, of in cached.items()},
        uncached_us={model: 1e3 * quantile(of, share) for model, of in uncached.items()},
        share=share,
        environment=[event for event in events if event["event"] == "environment"][-1],
        num_rounds=max(int(event["done"]) for event in rounds),
        seconds=max(float(event["seconds"]) for event in rounds),
        disagreement=disagreement,
    )


def _visits(events: Iterable[Mapping[str, Any]], state: str) -> dict[str, Visits]:
    """Return the visits of each model in one state. Of a round that was made twice the second counts."""
    found: dict[str, dict[int, float]] = {}
    for event in events:
        if event["event"] == "visit" and event["state"] == state:
            found.setdefault(event["model"], {})[event["round"]] = event["p10_ms"]
    return {model: [of[index] for index in sorted(of)] for model, of in found.items()}


def _disagreement(visits: Visits, share: float) -> float:
    even, odd = (quantile(half, share) for half in (visits[::2], visits[1::2]))
    return abs(even - odd) / min(even, odd)
