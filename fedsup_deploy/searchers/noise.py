"""Which candidates are as accurate as the best, as far as the images tell, and the cheapest of those.

It evaluates and prices nothing. The rule: the difference of two accuracies is noise if it is at most 1.96 of its
standard errors, as of two independent estimates. Candidates are measured on the same images and mostly err on the same
ones, so that the rule calls more differences noise than a comparison image by image would. Nor does it know that the
best of many is among the lucky ones.

Shapes: K candidates.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Final

import numpy as np

from fedsup_deploy.accuracy import DEVIATIONS
from fedsup_deploy.searchers.scoring.score import FloatArray, IntArray, Scores
from fedsup_deploy.space.plan import BoolArray

#: The rule, in the words of results.
RULE: Final = "a difference of at most 1.96 standard errors of two independent shares of images (Agresti and Caffo)"
RULE_OF_PREDICTIONS: Final = f"{RULE}; of what is predicted, the predictor's error on subnets it was not fitted to"
# Of errors that are distributed normally, the standard deviation in mean absolute errors.
_DEVIATION_PER_MAE: Final = math.sqrt(math.pi / 2)


@dataclasses.dataclass(frozen=True)
class AccuracyNoise:
    """How far the accuracies of a search are off by chance.

    Args:
        mae: Mean absolute error of predictions, a share of the images; None where nothing is predicted.
    """

    mae: float | None = None

    @property
    def rule(self) -> str:
        """What counts as noise, in words."""
        return RULE if self.mae is None else RULE_OF_PREDICTIONS

    def as_accurate(self, scores: Scores, best: int) -> BoolArray:
        """Return which candidates are as accurate as one of them within noise, shape (K,). That one is.

        Of x right answers among n images the share is taken for (x + 1) / (n + 2), and the square of its standard error
        is p (1 - p) / (n + 2) of that. The error of a prediction is taken for normally distributed.

        Args:
            scores: Of the candidates, with the images they were measured on.
            best: Index of the one.

        Source: Agresti and Caffo, The American Statistician 54, 2000.
        """
        accuracy_K, error_K = self._estimates(scores)
        return np.asarray(np.abs(accuracy_K - accuracy_K[best]) <= DEVIATIONS * np.hypot(error_K, error_K[best]))

    def _estimates(self, scores: Scores) -> tuple[FloatArray, FloatArray]:
        """Return accuracies and their standard errors, shape (K,) each."""
        assert scores.num_images_K is not None, "noise is told from numbers of images"
        is_measured_K, seen_K = scores.is_measured(), scores.num_images_K + 2
        assert self.mae is not None or is_measured_K.all(), "predictions have an error"
        drawn_K = (scores.accuracy_K * scores.num_images_K + 1) / seen_K
        accuracy_K = np.where(is_measured_K, drawn_K, scores.accuracy_K)
        error_K = np.sqrt(drawn_K * (1 - drawn_K) / seen_K)
        return accuracy_K, np.where(is_measured_K, error_K, (self.mae or 0.0) * _DEVIATION_PER_MAE)


def cheapest(
    arch_id: Callable[[int], str], as_accurate_K: BoolArray, latency_ms_K: FloatArray, macs_K: IntArray, best: int
) -> int | None:
    """Return the index of the cheapest candidate that is as accurate as the best: with the fewest MACs.

    Only those count that have fewer MACs than the best and are not slower; of equals the fastest is taken, then the
    first by arch_id.

    Args:
        arch_id: Index of a candidate -> its arch_id.
        as_accurate_K: Which are as accurate.
        latency_ms_K: Predicted latency, in ms.
        macs_K: Multiply-accumulates.
        best: Index of the most accurate candidate.

    Returns:
        The index, or None where no such candidate is cheaper.
    """
    is_cheaper_K = as_accurate_K & (macs_K < macs_K[best]) & (latency_ms_K <= latency_ms_K[best])
    found = np.flatnonzero(is_cheaper_K)
    if not len(found):
        return None
    return min((int(index) for index in found), key=lambda index: (macs_K[index], latency_ms_K[index], arch_id(index)))
