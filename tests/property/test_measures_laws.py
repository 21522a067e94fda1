"""Measures against scikit-learn, and what an interval promises against answers drawn again and again.

Shapes: N images, K classes.
"""

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from fedsup_deploy import rng
from fedsup_deploy.answers import CONFIDENCE_BINS, Answers, count_answers, from_confusion
from fedsup_deploy.measures import AUC, BALANCED_ACCURACY, CALIBRATION_ERROR, MACRO_F1, measures_of, shared_pairs

Array = np.ndarray[Any, Any]


@st.composite
def answered(draw: st.DrawFn, most_classes: int = 8) -> tuple[Array, Array]:
    """Logits and labels, of classes of which some may have no image, and some may never be answered."""
    num_classes, num_images = draw(st.integers(2, most_classes)), draw(st.integers(1, 60))
    generator = rng.generator(draw(st.integers(0, 10**6)), "answers")
    labels_N = generator.integers(0, draw(st.integers(1, num_classes)), num_images)
    logits_NK = generator.normal(scale=draw(st.sampled_from([0.1, 1.0, 20.0])), size=(num_images, num_classes))
    logits_NK[np.arange(num_images), labels_N] += draw(st.sampled_from([0.0, 1.0, 30.0]))
    return logits_NK.astype(np.float32), labels_N


@given(answered())
def test_measures_are_those_of_scikit_learn(case: tuple[Array, Array]) -> None:
    """Of the classes that have images; an F1 of nothing right is 0."""
    logits_NK, labels_N = case
    found, answers_N, present = measures_of(count_answers(*case)), logits_NK.argmax(axis=1), np.unique(labels_N)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        balanced = metrics.balanced_accuracy_score(labels_N, answers_N)
        f1 = metrics.f1_score(labels_N, answers_N, labels=present, average="macro", zero_division=0)
        recalls = metrics.recall_score(labels_N, answers_N, labels=present, average=None)
    assert found.accuracy.value == metrics.accuracy_score(labels_N, answers_N)
    assert found.balanced_accuracy.value == pytest.approx(balanced, abs=1e-6)
    assert found.macro_f1.value == pytest.approx(f1, abs=1e-6)
    assert [found.recalls[label].recall for label in present] == pytest.approx(recalls)
    assert found.num_judged == len(present)


@given(answered())
def test_the_confusion_matrix_is_that_of_scikit_learn_and_says_the_same(case: tuple[Array, Array]) -> None:
    logits_NK, labels_N = case
    answers, classes = count_answers(*case), range(logits_NK.shape[1])
    confusion_KK = metrics.confusion_matrix(labels_N, logits_NK.argmax(axis=1), labels=classes)
    assert np.array_equal(answers.confusion(), confusion_KK)
    found, alone = measures_of(answers), measures_of(from_confusion(confusion_KK.tolist()))
    assert (alone.accuracy, alone.recalls) == (found.accuracy, found.recalls)
    assert (alone.balanced_accuracy, alone.macro_f1) == (found.balanced_accuracy, found.macro_f1)
    assert (alone.calibration_error, alone.auc) == (None, None)


@given(answered(most_classes=2))
def test_the_auc_is_that_of_scikit_learn_but_for_what_shares_a_bin(case: tuple[Array, Array]) -> None:
    logits_NK, labels_N = case
    answers = count_answers(*case)
    found = measures_of(answers).auc
    if len(np.unique(labels_N)) < 2:
        assert found is None
        return
    assert found is not None
    expected = metrics.roc_auc_score(labels_N, logits_NK[:, 1].astype(np.float64) - logits_NK[:, 0])
    assert abs(found.value - expected) <= shared_pairs(answers) / 2 + 1e-6


@given(answered())
def test_the_calibration_error_is_that_of_every_image_put_into_its_bin(case: tuple[Array, Array]) -> None:
    logits_NK, labels_N = case
    below_NK = logits_NK.astype(np.float64) - logits_NK.max(axis=1, keepdims=True)
    confidence_N = 1 / np.exp(below_NK).sum(axis=1)
    is_right_N = logits_NK.argmax(axis=1) == labels_N
    bin_N = np.minimum((np.rint(confidence_N * 2**20) / 2**20 * CONFIDENCE_BINS).astype(int), CONFIDENCE_BINS - 1)
    gaps = [abs((is_right_N[bin_N == b] - confidence_N[bin_N == b]).sum()) for b in range(CONFIDENCE_BINS)]
    found = measures_of(count_answers(*case)).calibration_error
    assert found is not None
    assert found.value == pytest.approx(sum(gaps) / len(labels_N), abs=2e-6)


@given(answered(), st.integers(0, 10**6))
def test_answers_of_clients_add_up_to_those_of_all_in_any_order(case: tuple[Array, Array], seed: int) -> None:
    logits_NK, labels_N = case
    owner_N = rng.generator(seed, "owner").integers(0, 4, len(labels_N))
    parts = [count_answers(logits_NK[owner_N == one], labels_N[owner_N == one]) for one in np.unique(owner_N)]
    assert Answers.sum(parts) == Answers.sum(parts[::-1]) == count_answers(*case)
    assert hash(Answers.sum(parts)) == hash(count_answers(*case))


@given(answered())
def test_an_interval_holds_its_value_and_stays_a_share(case: tuple[Array, Array]) -> None:
    for measure in measures_of(count_answers(*case)).by_name.values():
        low, high = measure.interval
        assert 0 <= low <= measure.value <= high <= 1
        assert high - low > 0


def draws(sizes: list[int], sharpness: float, count: int) -> Iterator[tuple[Array, Array]]:
    """Yield logits of images of a number of each class: normal ones, that of the right class larger."""
    generator, labels_N = rng.generator(0, "draws", *sizes), np.repeat(np.arange(len(sizes)), sizes)
    for _ in range(count):
        logits_NK = generator.normal(size=(len(labels_N), len(sizes)))
        logits_NK[np.arange(len(labels_N)), labels_N] += sharpness
        yield logits_NK.astype(np.float32), labels_N


@pytest.mark.parametrize(
    ("sizes", "sharpness", "names"),
    [
        ([195, 5], 2.0, (BALANCED_ACCURACY, MACRO_F1, AUC, CALIBRATION_ERROR)),
        ([100, 100], 1.0, (BALANCED_ACCURACY, MACRO_F1, AUC, CALIBRATION_ERROR)),
        ([60, 30, 15, 10, 5, 5], 2.5, (BALANCED_ACCURACY, MACRO_F1, CALIBRATION_ERROR)),
        ([20] * 10, 2.0, (BALANCED_ACCURACY, MACRO_F1, CALIBRATION_ERROR)),
    ],
)
def test_nineteen_of_twenty_intervals_hold_what_many_images_tell(
    sizes: list[int], sharpness: float, names: tuple[str, ...]
) -> None:
    """Of 300 draws, of which 93 % are within the noise of 95 %. What many images tell is from 400 times as many."""
    truth = measures_of(Answers.sum(count_answers(*case) for case in draws(sizes, sharpness, 400))).by_name
    found = [measures_of(count_answers(*case)).by_name for case in draws(sizes, sharpness, 300)]
    for name in names:
        holds = [low <= truth[name].value <= high for low, high in (each[name].interval for each in found)]
        assert np.mean(holds) >= 0.92, name
