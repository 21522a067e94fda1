"""Shares with their sample: the interval is Wilson's, as SciPy computes it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from fedsup_deploy.accuracy import DEVIATIONS, LEVEL, CountedAccuracy


@st.composite
def counted(draw: st.DrawFn) -> CountedAccuracy:
    num_images = draw(st.integers(1, 100_000))
    return CountedAccuracy(draw(st.integers(0, num_images)), num_images)


@given(counted())
def test_the_interval_is_that_of_wilson(accuracy: CountedAccuracy) -> None:
    expected = binomtest(accuracy.correct, accuracy.num_images).proportion_ci(LEVEL, "wilson")
    assert accuracy.interval == pytest.approx((expected.low, expected.high), abs=1e-6)


@given(counted())
def test_the_interval_holds_the_share_and_stays_a_share(accuracy: CountedAccuracy) -> None:
    low, high = accuracy.interval
    assert 0 <= low <= accuracy.share + 1e-6
    assert accuracy.share - 1e-6 <= high <= 1


@given(counted())
def test_a_share_and_its_images_tell_the_count(accuracy: CountedAccuracy) -> None:
    assert CountedAccuracy.of_share(accuracy.share, accuracy.num_images) == accuracy


@pytest.mark.parametrize(("share", "num_images"), [(0.3, 5), (0.5, 0), (0.2000001, 5)])
def test_a_share_that_no_count_gives_is_refused(share: float, num_images: int) -> None:
    with pytest.raises(ValueError, match=f"got {share}, which is no share of {num_images} images"):
        CountedAccuracy.of_share(share, num_images)


def test_few_images_say_little() -> None:
    """All right: of five images, and of five thousand."""
    assert CountedAccuracy(5, 5).interval == (0.565518, 1.0)
    assert CountedAccuracy(5000, 5000).interval == (0.999232, 1.0)


def test_so_many_deviations_hold_the_stated_probability() -> None:
    from scipy.stats import norm

    assert norm.cdf(DEVIATIONS) - norm.cdf(-DEVIATIONS) == pytest.approx(LEVEL, abs=1e-12)
