"""`Answers`: what a classifier answered to images, as counts. Those of clients add up to those of all, in any order.

Owns what is counted: which class was answered to images of which; how sure the answers were; of two classes, how far
the logits were apart. Whoever judges a network by its answers reads `measures`. It says nothing of single images.

Shapes: N images, K classes, C cells that are not empty, B bins of confidence, S bins of the score that are not empty.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedsup_deploy.accuracy import CountedAccuracy

IntArray = NDArray[np.int64]

#: Bins of confidence, all equally wide.
CONFIDENCE_BINS: Final = 15
#: A confidence is counted in whole units of which 1 has so many, so that no sum depends on its order.
UNITS: Final = 2**20
#: Bins of the score: the logit of the second class less that of the first, in steps of a 64th from -32 to 32.
SCORE_BINS: Final = 4096
_STEPS_PER_LOGIT: Final = 64
#: A score tells two classes apart.
TWO: Final = 2


@dataclasses.dataclass(frozen=True, eq=False)
class Answers:
    """Counts of answers. Two are equal if all their counts are.

    Args:
        num_classes: K.
        cells_C3: Rows (class of the image, class answered, images), ascending, none empty.
        confidence_B3: Of each bin of confidence the images, how many of them were answered rightly, and the sum of the
            confidences in `UNITS`. A confidence is the softmax of the class answered.
        scores_S3: Of two classes rows (class of the image, bin of the score, images), ascending, none empty; of more
            classes no rows.
    """

    num_classes: int
    cells_C3: IntArray
    confidence_B3: IntArray
    scores_S3: IntArray

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Answers):
            return NotImplemented
        return self.num_classes == other.num_classes and all(
            np.array_equal(mine, theirs) for mine, theirs in zip(self._arrays, other._arrays, strict=True)
        )

    def __hash__(self) -> int:
        return hash((self.num_classes, *(array.tobytes() for array in self._arrays)))

    @property
    def _arrays(self) -> tuple[IntArray, IntArray, IntArray]:
        return self.cells_C3, self.confidence_B3, self.scores_S3

    @classmethod
    def sum(cls, parts: Iterable["Answers"]) -> "Answers":
        """Return the answers of several, of one number of classes each; at least one."""
        found = list(parts)
        return cls(
            found[0].num_classes,
            _merged([each.cells_C3 for each in found]),
            np.sum([each.confidence_B3 for each in found], axis=0, dtype=np.int64),
            _merged([each.scores_S3 for each in found]),
        )

    @property
    def num_images(self) -> int:
        """Images answered."""
        return int(self.cells_C3[:, 2].sum())

    @property
    def num_correct(self) -> int:
        """Right answers."""
        return int(self.right_by_class.sum())

    @property
    def accuracy(self) -> CountedAccuracy:
        """The share of right answers."""
        return CountedAccuracy(self.num_correct, self.num_images)

    @property
    def images_by_class(self) -> IntArray:
        """Images of each class."""
        return self._added(self.cells_C3[:, 0], self.cells_C3[:, 2])

    @property
    def answered_by_class(self) -> IntArray:
        """How often each class was answered."""
        return self._added(self.cells_C3[:, 1], self.cells_C3[:, 2])

    @property
    def right_by_class(self) -> IntArray:
        """Right answers to images of each class."""
        diagonal_C3 = self.cells_C3[self.cells_C3[:, 0] == self.cells_C3[:, 1]]
        return self._added(diagonal_C3[:, 0], diagonal_C3[:, 2])

    def confusion(self) -> IntArray:
        """Return how many images of each class (rows) were answered with each class (columns)."""
        confusion_KK = np.zeros((self.num_classes, self.num_classes), np.int64)
        confusion_KK[self.cells_C3[:, 0], self.cells_C3[:, 1]] = self.cells_C3[:, 2]
        return confusion_KK

    def _added(self, index_C: IntArray, counts_C: IntArray) -> IntArray:
        # In float64, in which whole numbers below 2^53 are exact.
        return np.bincount(index_C, counts_C, self.num_classes).astype(np.int64)


def count_answers(logits_NK: NDArray[np.float32], labels_N: IntArray) -> Answers:
    """Return the counts of a network's answers: the class of the largest logit, of equals the first.

    Args:
        logits_NK: Of each image. Where they are no numbers, the answer counts as a sure one, and its score as 0.
        labels_N: The images' classes.
    """
    num_classes = logits_NK.shape[1]
    answers_N = logits_NK.argmax(axis=1)
    return Answers(
        num_classes,
        _counted(np.stack([labels_N, answers_N], axis=1)),
        _confidences(logits_NK, answers_N == labels_N),
        _scores(logits_NK, labels_N) if num_classes == TWO else np.empty((0, 3), np.int64),
    )


def from_confusion(confusion_KK: Sequence[Sequence[int]]) -> Answers:
    """Return the answers of a confusion matrix, of whose confidences and scores nothing is known."""
    matrix_KK = np.array(confusion_KK, np.int64)
    where = np.argwhere(matrix_KK)
    cells_C3 = np.column_stack([where, matrix_KK[where[:, 0], where[:, 1]]])
    nothing_S3 = np.empty((0, 3), np.int64)
    return Answers(len(matrix_KK), cells_C3, np.zeros((CONFIDENCE_BINS, 3), np.int64), nothing_S3)


def _confidences(logits_NK: NDArray[np.float32], is_right_N: NDArray[np.bool_]) -> IntArray:
    with np.errstate(invalid="ignore", over="ignore"):
        below_NK = logits_NK.astype(np.float64) - logits_NK.max(axis=1, keepdims=True)
        confidence_N = np.nan_to_num(1 / np.exp(below_NK).sum(axis=1), nan=1.0)
    units_N = np.rint(confidence_N * UNITS).astype(np.int64)
    bin_N = np.minimum(units_N * CONFIDENCE_BINS // UNITS, CONFIDENCE_BINS - 1)
    columns = (None, is_right_N, units_N)
    return np.stack([np.bincount(bin_N, each, CONFIDENCE_BINS).astype(np.int64) for each in columns], axis=1)


def _scores(logits_NK: NDArray[np.float32], labels_N: IntArray) -> IntArray:
    with np.errstate(invalid="ignore"):
        score_N = np.nan_to_num(logits_NK[:, 1].astype(np.float64) - logits_NK[:, 0], nan=0.0)
    bin_N = (np.floor(score_N.clip(-SCORE_BINS, SCORE_BINS) * _STEPS_PER_LOGIT) + SCORE_BINS // 2).astype(np.int64)
    return _counted(np.stack([labels_N, bin_N.clip(0, SCORE_BINS - 1)], axis=1))


def _counted(rows_N2: IntArray) -> IntArray:
    """Return each different row once, ascending, with the number of times it was there."""
    return _merged([np.column_stack([rows_N2, np.ones(len(rows_N2), np.int64)])])


def _merged(parts: Sequence[IntArray]) -> IntArray:
    """Return rows (a, b, count) with their counts added up, ascending."""
    rows_C3 = np.concatenate(parts)
    width = int(rows_C3[:, 1].max(initial=0)) + 1
    codes, index_C = np.unique(rows_C3[:, 0] * width + rows_C3[:, 1], return_inverse=True)
    counts = np.bincount(index_C.ravel(), rows_C3[:, 2], len(codes)).astype(np.int64)
    return np.column_stack([codes // width, codes % width, counts]).astype(np.int64)
