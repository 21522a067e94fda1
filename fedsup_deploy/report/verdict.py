"""Whether a limit is kept, as far as a prediction can tell."""

from typing import NamedTuple

from fedsup_deploy.artifact.manifest import ProfileRecord
from fedsup_deploy.device import limits
from fedsup_deploy.report import words


class LimitVerdict(NamedTuple):
    """Whether a limit is kept.

    Args:
        short: In few words; empty where there is nothing to fear.
        told: In a sentence.
    """

    short: str
    told: str


def of(name: str, cost: float, limit: float, profile: ProfileRecord, *, is_bound: bool) -> LimitVerdict:
    """Return whether a limit is kept.

    Args:
        name: Of the limit.
        cost: What was predicted or counted.
        limit: At most.
        profile: The device, with how far its predictions were off.
        is_bound: Whether the cost is the upper bound that a risk asks for.
    """
    if cost > limit:
        return LimitVerdict("EXCEEDED", "EXCEEDED")
    row = limits.TABLE.get(name)
    if is_bound or row is None or not row.is_predicted:
        return LimitVerdict("", "keeps it, also by the bound of the risk" if is_bound else "keeps it")
    error = profile.error
    if error == "none":
        return LimitVerdict(
            "nobody knows the error", "predicted to keep it; nobody has measured how far off predictions are: measure"
        )
    off = words.percent(error.mape)
    if cost * (1 + error.mape) > limit:
        return LimitVerdict(
            "may exceed it", f"predicted to keep it; predictions were off by {off}, so it may exceed it: measure"
        )
    return LimitVerdict("", f"predicted to keep it, also if it is off by the profile's error of {off}")
