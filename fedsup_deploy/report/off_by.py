"""By how much a predicted latency may be off: its own interval, or how far predictions of its profile were off."""

from fedsup_deploy.artifact.manifest import ProfileRecord
from fedsup_deploy.report import words
from fedsup_deploy.report.words import Interval

#: Where nobody knows.
NEVER = "nobody has measured how far predictions are off"


def bounds(value: float, interval: Interval | None, profile: ProfileRecord) -> Interval | None:
    """Return between which bounds a predicted latency is, in its unit; None where nobody knows."""
    error = profile.error
    if interval is not None or error == "none":
        return interval
    return value * max(0.0, 1 - error.mape), value * (1 + error.mape)


def in_words(value_ms: float, interval_ms: Interval | None, profile: ProfileRecord) -> str:
    """Return the same in words, with what is known of the bounds."""
    found, error = bounds(value_ms, interval_ms, profile), profile.error
    if found is None:
        return NEVER
    between = f"between {words.number(found[0])} and {words.number(found[1], 'ms')}"
    if interval_ms is not None or error == "none":
        return between
    known = ", an error that is known of one network alone" if error.num_heldout == 1 else ""
    return f"by the profile's error of {words.percent(error.mape)} {between}{known}"
