"""What a classifier's answers are worth: accuracy, balanced accuracy, macro-F1, recalls, calibration error, AUC.

Owns the definition of each, and its 95 % interval: whoever shows, stores or maximises one takes it from here. All
follow from `Answers`, which are counts, so a measure of all clients' images is as if they lay in one place. An interval
takes the images for independent draws, class by class; it does not know that a client's images resemble each
other, nor that the best of many networks owes some of its lead to chance.

A class without images has no recall: it is left out of every mean over classes, and `Measures` says how many took part.

Shapes: K classes, M of them with images, C cells, B bins of confidence.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedsup_deploy.accuracy import DEVIATIONS, DIGITS, wilson
from fedsup_deploy.answers import TWO, UNITS, Answers, IntArray

FloatArray = NDArray[np.float64]
Interval = tuple[float, float]

#: The measures that are one number, by name.
ACCURACY: Final = "accuracy"
BALANCED_ACCURACY: Final = "balanced_accuracy"
MACRO_F1: Final = "macro_f1"
AUC: Final = "auc"
CALIBRATION_ERROR: Final = "calibration_error"
# Halvings of [0, 1] until a bound of the AUC stands still in as many digits as are shown.
_HALVINGS: Final = 40


@dataclasses.dataclass(frozen=True)
class Measure:
    """A number and how sure it is.

    Args:
        value: In [0, 1].
        interval: Its 95 % interval: lower and upper bound, in [0, 1].
    """

    value: float
    interval: Interval


@dataclasses.dataclass(frozen=True)
class ClassRecall:
    """Of one class the share of its images that were answered rightly.

    Args:
        images: Of that class.
        answered: How often it was answered, to images of any class.
        recall: The share; None without images.
        interval: Its 95 % interval, of Wilson; None without images.
    """

    images: int
    answered: int
    recall: float | None
    interval: Interval | None


@dataclasses.dataclass(frozen=True)
class Measures:
    """All measures of some answers.

    Args:
        accuracy: Share of right answers.
        balanced_accuracy: Mean of the recalls.
        macro_f1: Mean over classes of F1 = 2 right / (images + times answered).
        calibration_error: Expected calibration error: how far the share of right answers is from the mean confidence,
            on average over 15 bins of confidence weighted by their images; None where no confidence is known.
        auc: Of two classes the probability that an image of the second has a higher score than one of the first; None
            of more classes, or where one has no images.
        recalls: Of each class.
    """

    accuracy: Measure
    balanced_accuracy: Measure
    macro_f1: Measure
    calibration_error: Measure | None
    auc: Measure | None
    recalls: tuple[ClassRecall, ...]

    @property
    def num_judged(self) -> int:
        """Classes that have images."""
        return sum(each.images > 0 for each in self.recalls)

    @property
    def by_name(self) -> dict[str, Measure]:
        """Those that are one number, by name; none of what is not known."""
        found: dict[str, Measure | None] = {
            ACCURACY: self.accuracy,
            BALANCED_ACCURACY: self.balanced_accuracy,
            MACRO_F1: self.macro_f1,
            AUC: self.auc,
            CALIBRATION_ERROR: self.calibration_error,
        }
        return {name: measure for name, measure in found.items() if measure is not None}


def measures_of(answers: Answers) -> Measures:
    """Return all measures of answers to at least one image."""
    counts = (answers.right_by_class.tolist(), answers.images_by_class.tolist(), answers.answered_by_class.tolist())
    return Measures(
        Measure(answers.accuracy.share, answers.accuracy.interval),
        _balanced_accuracy(answers),
        _macro_f1(answers),
        _calibration_error(answers.confidence_B3),
        _auc(answers) if answers.num_classes == TWO else None,
        tuple(map(_recall, *counts)),
    )


def _recall(right: int, images: int, answered: int) -> ClassRecall:
    if not images:
        return ClassRecall(0, answered, None, None)
    return ClassRecall(images, answered, right / images, _rounded(*wilson(right / images, images)))


def _balanced_accuracy(answers: Answers) -> Measure:
    """Return the mean recall. The recalls of classes are independent."""
    judged = answers.images_by_class > 0
    right_M, images_M = answers.right_by_class[judged], answers.images_by_class[judged]
    share_M, variance_M = _adjusted(right_M, images_M)
    return _mean(right_M / images_M, share_M, math.fsum(variance_M.tolist()))


def _macro_f1(answers: Answers) -> Measure:
    """Return the mean F1.

    F1 = 2J / (1 + J), where J is the share of the right ones among all images that are of the class or were answered
    with it: the variance of J is that of a share, and that of F1 follows by linearising. An image of one class answered
    with another counts for both, so that their F1 go together: n F1 F1' / (d d') for n such images, where d is the
    images of a class and how often it was answered. It is the variance of the mean F1 of multinomial counts.

    Source: K. Takahashi et al., Applied Intelligence 52, 2022, for the variance of multinomial counts.
    """
    judged = answers.images_by_class > 0
    right_M, both_M = answers.right_by_class[judged], (answers.images_by_class + answers.answered_by_class)[judged]
    f1_M = 2 * right_M / both_M
    share_M, variance_M = _adjusted(right_M, both_M - right_M)
    part_K = np.zeros(answers.num_classes)
    part_K[judged] = f1_M / both_M
    classes_C, answers_C, images_C = answers.cells_C3[answers.cells_C3[:, 0] != answers.cells_C3[:, 1]].T
    together_C = 2 * images_C * part_K[classes_C] * part_K[answers_C]
    variance = math.fsum([*(4 * variance_M / (1 + share_M) ** 4).tolist(), *together_C.tolist()])
    return _mean(f1_M, 2 * share_M / (1 + share_M), variance)


def _adjusted(right_M: IntArray, images_M: IntArray) -> tuple[FloatArray, FloatArray]:
    """Return shares for the interval of their mean, and their variances, shape (M,) each.

    Of x right answers to n images of one of M classes the share is taken for (x + 2/M) / (n + 4/M), so that there is an
    interval where all answers are right, and where a class has few images; of one class it is Agresti and Coull's.

    Source: R. M. Price and D. G. Bonett, Computational Statistics and Data Analysis 45, 2004.
    """
    seen_M = images_M + 4 / len(images_M)
    share_M = (right_M + 2 / len(images_M)) / seen_M
    return share_M, share_M * (1 - share_M) / seen_M


def _mean(values_M: FloatArray, adjusted_M: FloatArray, variance: float) -> Measure:
    """Return the mean of values.

    Args:
        values_M: Of each class.
        adjusted_M: The same for the interval, which stands around their mean, and holds that of the values.
        variance: Of the sum of these.
    """
    count = len(values_M)
    mean, centre = (math.fsum(each.tolist()) / count for each in (values_M, adjusted_M))
    half = DEVIATIONS * math.sqrt(variance) / count
    return Measure(round(mean, DIGITS), _rounded(min(centre - half, mean), max(centre + half, mean)))


def _calibration_error(confidence_B3: IntArray) -> Measure | None:
    """Return the expected calibration error.

    The interval holds whatever the error is, so it is wide: the error found is off by no more than the sum over bins,
    weighted by their images, of how far each bin's share of right answers is off. Of that sum, whose parts are normal
    in size, it takes the mean and 1.96 standard deviations; a share's own deviation is that of (right + 2) among
    (images + 4).

    Source: C. Guo et al., arXiv 1706.04599, for the error; Agresti and Coull, The American Statistician 52, 1998.
    """
    images_B, right_B, units_B = confidence_B3[confidence_B3[:, 0] > 0].T
    if not len(images_B):
        return None
    weight_B = images_B / images_B.sum()
    error = math.fsum((np.abs(right_B * UNITS - units_B) / UNITS).tolist()) / int(images_B.sum())
    share_B = (right_B + 2) / (images_B + 4)
    deviation_B = weight_B * np.sqrt(share_B * (1 - share_B) / images_B)
    mean = math.sqrt(2 / math.pi) * math.fsum(deviation_B.tolist())
    half = mean + DEVIATIONS * math.sqrt((1 - 2 / math.pi) * math.fsum((deviation_B**2).tolist()))
    return Measure(round(error, DIGITS), _rounded(error - half, error + half))


def _auc(answers: Answers) -> Measure | None:
    """Return the area under the ROC curve; images in one bin of the score count half.

    So it is off by at most half the share of pairs of images, one of each class, whose scores are in one bin: see
    `shared_pairs`. A bound of its interval is an AUC that is as far from the one found as 1.96 of its own standard
    deviations, so that there is one at 0 and 1 as well.

    Source: J. A. Hanley and B. J. McNeil, Radiology 143, 1982; R. G. Newcombe, Statistics in Medicine 25, 2006, part 2,
    method 5, for the interval.
    """
    first_S, second_S = _by_bin(answers)
    first, second = int(first_S.sum()), int(second_S.sum())
    if not first or not second:
        return None
    # Twice the pairs that are in order, as whole numbers.
    below_S = 2 * np.cumsum(first_S) - first_S
    area = int((second_S * below_S).sum()) / (2 * first * second)

    def is_within(bound: float) -> bool:
        half = ((first + second) / 2 - 1) * ((1 - bound) / (2 - bound) + bound / (1 + bound))
        return (bound - area) ** 2 <= DEVIATIONS**2 * bound * (1 - bound) * (1 + half) / (first * second)

    return Measure(round(area, DIGITS), _rounded(_last(is_within, area, 0.0), _last(is_within, area, 1.0)))


def shared_pairs(answers: Answers) -> float:
    """Return the share of pairs of images, one of each of two classes, whose scores are in one bin."""
    first_S, second_S = _by_bin(answers)
    return float((first_S * second_S).sum() / (first_S.sum() * second_S.sum()))


def _by_bin(answers: Answers) -> tuple[IntArray, IntArray]:
    """Return of the images of either class how many are in each bin of the score that has any, ascending."""
    bins, index_S = np.unique(answers.scores_S3[:, 1], return_inverse=True)
    found = np.zeros((TWO, len(bins)), np.int64)
    found[answers.scores_S3[:, 0], index_S.ravel()] = answers.scores_S3[:, 2]
    return found[0], found[1]


def _last(is_within: Callable[[float], bool], inside: float, outside: float) -> float:
    """Return where, between a number within and the end of the range, what is within ends."""
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if is_within(middle) else (inside, middle)
    return outside


def _rounded(low: float, high: float) -> Interval:
    return round(max(low, 0.0), DIGITS), round(min(high, 1.0), DIGITS)


def as_typed(name: str) -> str:
    """Return the name of a measure, or of another objective, as options have it and messages say it."""
    return name.replace("_", "-")
