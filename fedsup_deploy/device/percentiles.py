"""Percentiles of a device's latency, as a profile holds them: by how much they exceed what it predicts.

A profile that was measured predicts the 10th percentile, which repeats itself best. What other percentiles of the same
networks took is measured beside it, as ratios. Data, and how ratios come from times; what a limit makes of them is in
`fedsup_deploy.device.held_latency`.

Shapes: N timed networks, H of them held out: those that the profile's error is about.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, get_args

import numpy as np
from pydantic import Field, model_validator

from fedsup_deploy.config.section import Section
from fedsup_deploy.device.heldout import FloatArray, rounded_ratios
from fedsup_deploy.ondevice.records import Percentile

#: All that a limit can mean.
PERCENTILES: Final[tuple[Percentile, ...]] = get_args(Percentile)
#: The one that measured profiles predict.
PREDICTED: Final = "p10"
#: What a limit means where nobody says.
DEFAULT: Final = "p50"
#: Those that need a ratio.
HigherPercentile = Literal["p50", "p90"]
HIGHER: Final[tuple[HigherPercentile, ...]] = get_args(HigherPercentile)

_DIGITS: Final = 4
#: A device whose slow inferences take longer than this many of its fast ones was not measured but disturbed.
_LARGEST: Final = 1000
_Ratio = Annotated[float, Field(gt=0, le=_LARGEST)]


class PercentileRatios(Section):
    """One percentile of the latency of the timed networks."""

    ratio: float = Field(ge=1, le=_LARGEST)
    """This percentile / the 10th, of the median network: what a prediction is multiplied with."""
    ratios: tuple[_Ratio, ...] = Field(min_length=1)
    """This percentile / predicted latency of each network that `error` is about, ascending: what bounds new ones."""

    @model_validator(mode="after")
    def _is_ascending(self) -> "PercentileRatios":
        if list(self.ratios) != sorted(self.ratios):
            raise ValueError("ratios: expected them ascending")
        return self


class Percentiles(Section):
    """The percentiles of latency above the 10th, which is the one that predictions are about."""

    num_networks: int = Field(ge=1)
    """Networks that each `ratio` is the median of."""
    p50: PercentileRatios
    """The median of all inferences of a network."""
    p90: PercentileRatios
    """What nine of ten inferences stay within."""

    @model_validator(mode="after")
    def _is_ordered(self) -> "Percentiles":
        if self.p50.ratio > self.p90.ratio:
            raise ValueError(f"got the ratio {self.p50.ratio} of p50, expected at most that of p90, {self.p90.ratio}")
        pairs = zip(self.p50.ratios, self.p90.ratios, strict=False)
        if len(self.p50.ratios) != len(self.p90.ratios) or any(low > high for low, high in pairs):
            raise ValueError("ratios: expected those of p90 to be of the same networks as those of p50, and none lower")
        if self.num_networks < len(self.p50.ratios):
            expected = f"at least {len(self.p50.ratios)}, as many as there are ratios"
            raise ValueError(f"num_networks: got {self.num_networks}, expected {expected}")
        return self

    def of(self, percentile: HigherPercentile) -> PercentileRatios:
        """Return what is known of one percentile."""
        found: PercentileRatios = getattr(self, percentile)
        return found

    def by_name(self) -> dict[str, float]:
        """Return the ratio of each percentile to the 10th, by its name."""
        return {name: self.of(name).ratio for name in HIGHER}


def percentiles_of(
    p10_ms_N: FloatArray,
    higher_ms_N: Mapping[HigherPercentile, FloatArray],
    predicted_ms_H: FloatArray,
    higher_ms_H: Mapping[HigherPercentile, FloatArray],
) -> Percentiles:
    """Return the percentiles of timed networks as a profile states them.

    Args:
        p10_ms_N: The 10th percentile of every timed network, in ms.
        higher_ms_N: The higher percentiles of these, in ms.
        predicted_ms_H: What is predicted for the held-out networks, by a model that was not made from them, in ms.
        higher_ms_H: The higher percentiles of those, in ms.
    """
    sections: dict[str, Any] = {
        name: PercentileRatios(
            ratio=round(float(np.median(higher_ms_N[name] / p10_ms_N)), _DIGITS),
            ratios=rounded_ratios(higher_ms_H[name], predicted_ms_H),
        )
        for name in HIGHER
    }
    return Percentiles(num_networks=len(p10_ms_N), **sections)
