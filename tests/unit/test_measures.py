"""Measures of a few answers, worked out by hand."""

import numpy as np
import pytest

from fedsup_deploy.accuracy import CountedAccuracy
from fedsup_deploy.answers import SCORE_BINS, UNITS, Answers, count_answers, from_confusion
from fedsup_deploy.measures import ClassRecall, Measure, measures_of


def test_of_an_unbalanced_set_the_balanced_accuracy_tells_what_the_accuracy_hides() -> None:
    """Whoever always answers the first class is right about 195 of 200."""
    found = measures_of(from_confusion([[195, 0], [5, 0]]))
    assert found.accuracy == Measure(0.975, CountedAccuracy(195, 200).interval)
    assert found.balanced_accuracy.value == 0.5
    assert found.macro_f1.value == pytest.approx(2 * 195 / (2 * 195 + 5) / 2, abs=1e-6)
    assert found.recalls == (
        ClassRecall(195, 200, 1.0, CountedAccuracy(195, 195).interval),
        ClassRecall(5, 0, 0.0, CountedAccuracy(0, 5).interval),
    )


def test_a_class_without_images_is_left_out_of_means_whatever_was_answered() -> None:
    found = measures_of(from_confusion([[3, 0, 1], [0, 2, 0], [0, 0, 0]]))
    assert found.balanced_accuracy.value == 0.875
    assert found.macro_f1.value == pytest.approx((6 / 7 + 1) / 2, abs=1e-6)
    assert found.recalls[2] == ClassRecall(0, 1, None, None)
    assert found.num_judged == 2


def test_where_all_is_right_there_is_an_interval_all_the_same() -> None:
    found = measures_of(from_confusion([[20, 0], [0, 5]]))
    assert (found.balanced_accuracy.value, found.macro_f1.value) == (1.0, 1.0)
    assert 0.75 < found.balanced_accuracy.interval[0] < 0.9
    assert found.balanced_accuracy.interval[1] == found.macro_f1.interval[1] == 1.0


def test_confidences_are_counted_in_bins_as_whole_units() -> None:
    """Two answers that are as good as sure, of which one is right, and one that knows nothing."""
    logits_NK = np.array([[40.0, 0.0], [40.0, 0.0], [0.0, 0.0]], np.float32)
    answers = count_answers(logits_NK, np.array([0, 1, 0]))
    assert answers.confidence_B3[-1].tolist() == [2, 1, 2 * UNITS]
    assert answers.confidence_B3[7].tolist() == [1, 1, UNITS // 2]
    assert answers.confidence_B3.sum() == 3 + 2 + 2 * UNITS + UNITS // 2
    found = measures_of(answers).calibration_error
    assert found is not None
    assert found.value == pytest.approx((1 + 0.5) / 3, abs=1e-6)


def test_scores_are_counted_in_steps_of_a_64th_of_a_logit_and_no_further_than_32() -> None:
    scores = [0.0, 1 / 64, -1 / 128, 31.99, 1000.0, -1000.0, float("nan"), float("inf")]
    logits_NK = np.array([[0.0, score] for score in scores], np.float32)
    answers = count_answers(logits_NK, np.zeros(len(scores), np.int64))
    middle = SCORE_BINS // 2
    expected = [middle, middle + 1, middle - 1, SCORE_BINS - 1, SCORE_BINS - 1, 0, middle, SCORE_BINS - 1]
    bins, counts = np.unique(expected, return_counts=True)
    assert answers.scores_S3.tolist() == [[0, one, count] for one, count in zip(bins, counts, strict=True)]


def test_logits_that_are_no_numbers_are_sure_and_wrong_answers() -> None:
    """A network that has come to nothing is judged like any other."""
    answers = count_answers(np.full((4, 3), np.nan, np.float32), np.array([0, 1, 1, 2]))
    assert answers.num_images == 4
    assert answers.confidence_B3[-1].tolist() == [4, 1, 4 * UNITS]
    assert 0 <= measures_of(answers).balanced_accuracy.value <= 1


def test_of_a_thousand_classes_only_what_was_answered_takes_room() -> None:
    labels_N = np.arange(500)
    logits_NK = np.zeros((500, 1000), np.float32)
    logits_NK[:, 7] = 1
    answers = count_answers(logits_NK, labels_N)
    assert answers.cells_C3.shape == (500, 3)
    assert (answers.num_correct, answers.scores_S3.shape) == (1, (0, 3))
    assert answers.confusion().sum() == 500


def test_answers_are_compared_by_their_counts() -> None:
    answers = from_confusion([[1, 2], [0, 3]])
    assert answers == from_confusion([[1, 2], [0, 3]])
    assert answers != from_confusion([[1, 2], [3, 0]])
    assert answers != 5
    assert Answers.sum([answers, answers]) == from_confusion([[2, 4], [0, 6]])
