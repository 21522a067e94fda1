"""Whether two shares can be told apart."""

import numpy as np
import pytest

from fedsup_deploy.accuracy import CountedAccuracy
from fedsup_deploy.report import apart
from fedsup_deploy.searchers.noise import AccuracyNoise
from fedsup_deploy.searchers.scoring.score import Scores


def of(right: int, images: int = 100) -> tuple[float, float]:
    return CountedAccuracy(right, images).interval


@pytest.mark.parametrize(("one", "other", "expected"), [(90, 79, True), (90, 80, False), (90, 90, False)])
def test_they_can_be_where_0_is_outside_of_the_interval_of_their_difference(
    one: int, other: int, expected: bool
) -> None:
    """Of 90 and 79 of 100 the intervals overlap, and yet their difference is hardly chance."""
    assert of(79)[1] > of(90)[0]
    assert apart.can_be(of(one), of(other)) is expected
    assert apart.can_be(of(other), of(one)) is expected


@pytest.mark.parametrize("images", [7, 50, 202, 3000])
def test_what_a_search_calls_noise_is_not_told_apart(images: int) -> None:
    right = np.unique(np.linspace(0, images, 60).astype(int))
    scores = Scores(
        right / images,
        is_predicted_K=np.zeros(len(right), dtype=bool),
        num_images_K=np.full(len(right), images),
    )
    for at, mine in enumerate(right):
        alike = AccuracyNoise(None).as_accurate(scores, at)
        told = [apart.can_be(of(int(mine), images), of(int(each), images)) for each in right]
        assert not any(is_alike and is_apart for is_alike, is_apart in zip(alike, told, strict=True))
        assert any(told)


def test_without_an_interval_nobody_knows() -> None:
    assert apart.can_be(None, of(20)) is None
    assert apart.in_words(None, of(20)) == "nobody knows whether they can be told apart"
