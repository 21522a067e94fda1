"""What a limit on latency is held against: the one place where a prediction becomes a percentile of latency.

A limit means one percentile of the latency of a network. A prediction is of one, too: the 10th where networks were
timed, one that is assumed to be the median where figures were published. From one to the other leads a ratio that the
profile measured; without one nothing is converted. With a risk, a bound takes the ratio's place.

Shapes: N networks.
"""

import dataclasses

from fedsup_deploy.device.heldout import FloatArray, HeldOutError, conformal_upper_ratio
from fedsup_deploy.device.profile import DeviceProfile
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.ondevice.records import Percentile


@dataclasses.dataclass(frozen=True)
class HeldLatency:
    """How predictions of a device become what a limit on latency is held against.

    Args:
        percentile: Which percentile of latency the limit means.
        ratio: This percentile / prediction, of the median network that was timed; 1 where it is what is predicted.
        is_assumed: Whether predictions are only taken for that percentile, as nobody measured any.
        risk: Probability that the measured latency of a new network is within the limit, in (0, 1); None holds the
            percentile as predicted to it.
        upper_ratio: This percentile / prediction that a new network stays within with that probability; None without.
    """

    percentile: Percentile
    ratio: float
    is_assumed: bool
    risk: float | None = None
    upper_ratio: float | None = None

    def predicted(self, latency_ms_N: FloatArray) -> FloatArray:
        """Return the percentile of latency that follows from predictions, in ms, shape (N,)."""
        return latency_ms_N * self.ratio

    def held(self, latency_ms_N: FloatArray) -> FloatArray:
        """Return what is held to the limit, in ms, shape (N,): that percentile, with a risk its upper bound."""
        return self.predicted(latency_ms_N) if self.upper_ratio is None else latency_ms_N * self.upper_ratio

    def __str__(self) -> str:
        """Return the percentile in words."""
        return f"{self.percentile}, assumed" if self.is_assumed else self.percentile


def held_latency(profile: DeviceProfile, percentile: Percentile, risk: float | None = None) -> HeldLatency:
    """Return how a profile's predictions are held to a limit on a percentile of latency.

    Args:
        profile: Whose predictions they are.
        percentile: What the limit means.
        risk: As of `HeldLatency`.

    Raises:
        ConfigError: The profile has no measured ratio from what it predicts to that percentile, or no ground for a
            bound.
    """
    is_assumed = not profile.is_made_here
    if percentile == profile.predicted_percentile:
        upper_ratio = None if risk is None else _upper_ratio(profile, _error_ratios(profile), risk)
        return HeldLatency(percentile, 1.0, is_assumed, risk, upper_ratio)
    known = profile.higher_percentiles.get(percentile)
    if known is None:
        raise ConfigError(f"percentile: got {percentile}, but {_what_it_predicts(profile)}")
    upper_ratio = None if risk is None else _upper_ratio(profile, known.ratios, risk)
    return HeldLatency(percentile, known.ratio, is_assumed, risk, upper_ratio)


def _what_it_predicts(profile: DeviceProfile) -> str:
    """Return what a profile without ratios predicts, and what to do."""
    if profile.is_made_here:
        return (
            f"profile {profile.name} predicts p10 and holds no measured ratio to another percentile; build or fit it "
            "again (fedsup-deploy profile build), or limit what it predicts: --percentile p10, or in its limits "
            "latency_percentile: p10"
        )
    return (
        f"profile {profile.name} is made of published figures, which count as p50, and nobody measured other "
        "percentiles; search with --percentile p50, or time networks on the device: fedsup-deploy profile build or fit"
    )


def _error_ratios(profile: DeviceProfile) -> tuple[float, ...]:
    """Return measured / predicted of networks that the model was not made from; none where nobody measured them."""
    error = profile.error
    return error.ratios if isinstance(error, HeldOutError) and error.method != "published" else ()


def _upper_ratio(profile: DeviceProfile, ratios: tuple[float, ...], risk: float) -> float:
    if not 0 < risk < 1:
        raise ConfigError(f"risk: got {risk:g}, expected a probability between 0 and 1, such as 0.95")
    ratio = conformal_upper_ratio(ratios, risk)
    if ratio is None:
        count = len(ratios)
        ground = (
            f"checked with {count} networks, which bound predictions with at most {count / (count + 1):.4g}"
            if count
            else "not checked with measured networks, so its predictions have no bound"
        )
        raise ConfigError(
            f"risk: got {risk:g}, but profile {profile.name} was {ground}; "
            "build one from measurements: fedsup-deploy profile build"
        )
    return ratio
