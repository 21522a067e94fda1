"""How far a latency model is off, on networks it was not made from; and the bounds that follow for new predictions.

Owns the definitions of acc5, acc10, MAPE and rank correlation, and the split-conformal interval.

Shapes: N networks.
"""

import math
from collections.abc import Sequence
from decimal import ROUND_CEILING, Decimal
from typing import Annotated, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Discriminator, Field, Tag, model_validator

from fedsup_deploy.config.section import NotNegative, Positive, Section

FloatArray = NDArray[np.float64]
Share = Annotated[float, Field(ge=0, le=1)]

# Written figures have this many digits; one that disagrees with the ratios by more was not computed from them.
_DIGITS: Final = 4


class PredictionError(Section):
    """How far predictions were off."""

    acc5: Share
    """Share of networks predicted within 5 %: |predicted - measured| / measured <= 0.05."""
    acc10: Share
    """Share of networks predicted within 10 %."""
    spearman: float | None = Field(ge=-1, le=1)
    """Rank correlation of predicted and measured; null where there are fewer than three networks."""
    mape: NotNegative
    """Mean of |predicted - measured| / measured; 0.05 is 5 %."""

    @model_validator(mode="after")
    def _within_10_includes_within_5(self) -> "PredictionError":
        if self.acc5 > self.acc10:
            raise ValueError(f"acc5 {self.acc5} is larger than acc10 {self.acc10}, which includes it")
        return self


class SummarizedError(PredictionError):
    """How far the latency model was off on networks it was not made from, without the single networks."""

    method: Literal["held-out", "leave-one-out", "published"]
    """`held-out`: networks timed on the device for this purpose. `leave-one-out`: each timed network predicted from
    the others. `published`: rows of published tables that no cost was deduced from."""
    num_heldout: int = Field(ge=1)
    """Number of those networks."""
    macs_only: PredictionError | None = None
    """The same for a straight line through the MACs of the same networks, as a baseline; null where there is none."""


class HeldOutError(SummarizedError):
    """How far the latency model was off on networks it was not made from."""

    ratios: tuple[Positive, ...] = Field(min_length=1)
    """Measured / predicted of each of those networks, ascending."""

    def summary(self) -> SummarizedError:
        """Return the figures over all networks."""
        return SummarizedError(**{name: getattr(self, name) for name in SummarizedError.model_fields})

    @model_validator(mode="after")
    def _agrees_with_ratios(self) -> "HeldOutError":
        if len(self.ratios) != self.num_heldout or list(self.ratios) != sorted(self.ratios):
            raise ValueError(f"got {len(self.ratios)} ratios, expected {self.num_heldout}, ascending")
        for name, expected in _shares(np.array(self.ratios)).items():
            if abs(getattr(self, name) - expected) > 10.0**-_DIGITS:
                raise ValueError(f"got {name} {getattr(self, name)}, expected {expected:.4g} from the ratios")
        return self


def _kind_of_error(value: object) -> str:
    return "none" if isinstance(value, str) else HeldOutError.__name__


# The kind is told from the value, so that a mistake inside the figures is not answered with: expected 'none'.
KnownError = Annotated[
    Annotated[Literal["none"], Tag("none")] | Annotated[HeldOutError, Tag(HeldOutError.__name__)],
    Discriminator(_kind_of_error),
]


def prediction_error(predicted_N: FloatArray, measured_N: FloatArray) -> PredictionError:
    """Return how far predictions are off, in the digits a profile is written with.

    From ratios in those digits, so that figures of one and the same model are equal wherever a profile states them.
    """
    return PredictionError(**_figures(predicted_N, measured_N))


def held_out_error(
    predicted_N: FloatArray,
    measured_N: FloatArray,
    method: Literal["held-out", "leave-one-out", "published"],
    baseline_N: FloatArray | None = None,
) -> HeldOutError:
    """Return the error of a latency model as a profile states it.

    Args:
        predicted_N: Predictions for networks the model was not made from, in ms.
        measured_N: Their measured latency, in ms.
        method: How they were held out.
        baseline_N: Predictions from the MACs alone, in ms.
    """
    return HeldOutError(
        **_figures(predicted_N, measured_N),
        method=method,
        num_heldout=len(measured_N),
        macs_only=None if baseline_N is None else prediction_error(baseline_N, measured_N),
        ratios=rounded_ratios(measured_N, predicted_N),
    )


def rounded_ratios(measured_N: FloatArray, predicted_N: FloatArray) -> tuple[float, ...]:
    """Return measured / predicted of each network, ascending, in the digits a profile is written with.

    They are rounded up, because they become bounds: those of ratios rounded to the nearest would be exceeded more often
    than promised.
    """
    return tuple(_rounded_up(ratio) for ratio in np.sort(measured_N / predicted_N).tolist())


def conformal_half_width(error: HeldOutError, level: float) -> float | None:
    """Return w such that measured / predicted of a new network is within 1 - w and 1 + w with probability `level`.

    That holds if the network is drawn like the held-out ones, whatever the latency model. With n of them, w is the
    ceil((n + 1) level)-th smallest |ratio - 1|, never below what it is without rounding: a written ratio may have been
    lower by almost one unit of its last digit.

    Args:
        error: Of the profile.
        level: In (0, 1).

    Returns:
        The half width, or None: too few networks for this level, or figures of other people's measurements.

    Source: split conformal prediction, Papadopoulos et al., ECML 2002; Lei et al., arXiv 1604.04173, section 2.2.
    """
    if error.method == "published":
        return None
    unit = 10.0**-_DIGITS
    scores = sorted(max(ratio - 1, 1 - (ratio - unit)) for ratio in error.ratios)
    rank = math.ceil((len(scores) + 1) * level)
    return scores[rank - 1] if 1 <= rank <= len(scores) else None


def conformal_upper_ratio(ratios: Sequence[float], level: float) -> float | None:
    """Return r such that measured / predicted of a new network is at most r with probability `level`.

    One side of `conformal_half_width`, from the ceil((n + 1) level)-th smallest ratio; so where a model predicts too
    much, the bound is below the prediction. It holds for whichever percentile was measured of all n networks.

    Args:
        ratios: Measured / predicted of networks that the model was not made from, ascending.
        level: In (0, 1).

    Returns:
        The ratio, or None: too few networks for this level.
    """
    rank = math.ceil((len(ratios) + 1) * level)
    return ratios[rank - 1] if 1 <= rank <= len(ratios) else None


def _rounded_up(ratio: float) -> float:
    # By decimals, those of `repr`: scaled and divided again, a ratio can come out below itself.
    return float(Decimal(repr(ratio)).quantize(Decimal(1).scaleb(-_DIGITS), ROUND_CEILING))


def _figures(predicted_N: FloatArray, measured_N: FloatArray) -> dict[str, Any]:
    ratios = np.array(rounded_ratios(measured_N, predicted_N))
    return {**_shares(ratios), "spearman": _spearman(predicted_N, measured_N)}


def _shares(ratios_N: FloatArray) -> dict[str, float]:
    """Return acc5, acc10 and MAPE, which follow from measured / predicted alone."""
    off_N = np.abs(1 / ratios_N - 1)
    shares = {"acc5": np.mean(off_N <= 0.05), "acc10": np.mean(off_N <= 0.10), "mape": np.mean(off_N)}
    return {name: round(float(share), _DIGITS) for name, share in shares.items()}


def _spearman(first_N: FloatArray, second_N: FloatArray) -> float | None:
    if len(first_N) < 3 or np.ptp(first_N) == 0 or np.ptp(second_N) == 0:
        return None
    from scipy.stats import spearmanr

    return round(float(spearmanr(first_N, second_N).statistic), _DIGITS)


def spearman(first_N: Sequence[float], second_N: Sequence[float]) -> float | None:
    """Return the rank correlation, or None where there is none: fewer than three values, or all equal."""
    return _spearman(np.asarray(first_N, np.float64), np.asarray(second_N, np.float64))
