"""What counts as noise, on numbers that can be checked by hand, and which cheaper candidate is named."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsup_deploy import rng
from fedsup_deploy.searchers.noise import RULE, RULE_OF_PREDICTIONS, AccuracyNoise, cheapest
from fedsup_deploy.searchers.scoring.score import Scores


def measured(correct: list[int], num_images: int) -> Scores:
    return Scores(np.array(correct) / num_images, num_images_K=np.full(len(correct), num_images))


@pytest.mark.parametrize(
    ("correct", "num_images", "expected"),
    [
        # Shares of 0.9 and 0.86 of 202 images: (183 - 174) / 204 = 0.044 <= 1.96 sqrt(0.000453 + 0.000615) = 0.064.
        ((182, 173), 202, True),
        # Of 2,020 images the same shares differ by more: 0.044 > 0.020.
        ((1820, 1730), 2020, False),
        # 6/7 and 4/7, 6/7 and 1/7: few images tell little, but not nothing.
        ((5, 3), 5, True),
        ((5, 0), 5, False),
        ((1, 0), 1, True),
    ],
)
def test_a_difference_is_noise_up_to_1_96_of_its_standard_errors(
    correct: tuple[int, int], num_images: int, expected: bool
) -> None:
    found = AccuracyNoise().as_accurate(measured(list(correct), num_images), 0)
    assert found.tolist() == [True, expected]


def test_equal_networks_are_seldom_told_apart() -> None:
    """Two networks that are right on nine of ten images each: at most about 5 % of 2,000 pairs are called different."""
    random = rng.generator(0, "noise")
    called = [
        AccuracyNoise().as_accurate(measured(random.binomial(200, 0.9, 2).tolist(), 200), 0).all() for _ in range(2000)
    ]
    # 2,000 draws of a share of 0.95 have a standard deviation of 0.005.
    assert np.mean(called) > 0.935


def test_of_predictions_the_noise_is_the_error_of_the_predictor() -> None:
    """Mean absolute errors of 0.01 are deviations of 0.0125: differences of up to 1.96 * 0.0125 * sqrt(2) = 0.0347."""
    bound = 1.96 * 0.01 * math.sqrt(math.pi / 2) * math.sqrt(2)
    accuracy_K = np.array([0.9, 0.9 - bound + 1e-4, 0.9 - bound - 1e-4])
    scores = Scores(accuracy_K, is_predicted_K=np.ones(3, np.bool_), num_images_K=np.zeros(3, np.int64))
    noise = AccuracyNoise(0.01)
    assert noise.as_accurate(scores, 0).tolist() == [True, True, False]
    assert (noise.rule, AccuracyNoise().rule) == (RULE_OF_PREDICTIONS, RULE)


def test_measured_and_predicted_are_compared_by_the_errors_of_both() -> None:
    """900 of 1,000 measured: 901/1002 with an error of 0.0095; predicted with one of 0.0125: 1.96 * 0.0157 = 0.0308."""
    is_predicted_K = np.array([False, True, True])
    scores = Scores(np.array([0.9, 0.869, 0.868]), is_predicted_K=is_predicted_K, num_images_K=np.array([1000, 0, 0]))
    assert AccuracyNoise(0.01).as_accurate(scores, 0).tolist() == [True, True, False]


@given(st.lists(st.integers(0, 50), min_size=1, max_size=20), st.data())
def test_the_one_itself_and_its_equals_are_as_accurate(correct: list[int], data: st.DataObject) -> None:
    best = data.draw(st.integers(0, len(correct) - 1))
    found = AccuracyNoise().as_accurate(measured(correct, 50), best)
    assert all(found[index] for index, count in enumerate(correct) if count == correct[best])


@pytest.mark.parametrize(
    ("as_accurate", "latency_ms", "macs", "expected"),
    [
        ([True, True, True], [3.0, 2.0, 1.0], [30, 20, 10], 2),
        ([True, True, False], [3.0, 2.0, 1.0], [30, 20, 10], 1),
        # Fewer MACs, but slower on this device.
        ([True, True, True], [3.0, 2.0, 3.1], [30, 20, 10], 1),
        # As many MACs are not cheaper.
        ([True, True, True], [3.0, 2.0, 1.0], [30, 30, 30], None),
        # Of equally many the fastest, then the first by name.
        ([True, True, True], [3.0, 2.0, 1.0], [30, 20, 20], 2),
        ([True, True, True], [3.0, 2.0, 2.0], [30, 20, 20], 2),
        ([True, False, False], [3.0, 2.0, 1.0], [30, 20, 10], None),
    ],
)
def test_the_cheapest_has_the_fewest_macs_and_is_no_slower(
    as_accurate: list[bool], latency_ms: list[float], macs: list[int], expected: int | None
) -> None:
    names = ["c", "b", "a"]
    found = cheapest(names.__getitem__, np.array(as_accurate), np.array(latency_ms), np.array(macs), 0)
    assert found == expected
