"""The statistics of a latency, on made samples."""

import random

import numpy as np
import pytest
from scipy.stats import binom

from fedsup_deploy.ondevice.latency_statistics import (
    noise,
    p90_bound_ms,
    pooled_p10,
    quantile,
    speed_of,
    speed_words,
    stability,
    summarize,
)
from fedsup_deploy.ondevice.records import SpeedRecord


def test_quantiles_are_numpys() -> None:
    samples = [50, 10, 40, 20, 30]
    for share, expected in ((0.0, 10), (0.1, 14), (0.5, 30), (0.9, 46), (1.0, 50)):
        assert quantile(samples, share) == pytest.approx(expected)
        assert quantile(samples, share) == pytest.approx(float(np.quantile(samples, share)))
    assert quantile([7], 0.9) == 7


def test_a_summary_is_in_ms() -> None:
    expected = {"num_runs": 5, "min_ms": 1.0, "p10_ms": 1.4, "p50_ms": 3.0, "p90_ms": 7.6, "mean_ms": 4.0}
    summary = summarize([1_000_000, 2_000_000, 3_000_000, 4_000_000, 10_000_000])
    assert summary == pytest.approx(expected)


@pytest.mark.parametrize("num_runs", [64, 100, 200, 1024, 20_000, 1_000_000])
def test_the_bound_of_p90_has_the_rank_of_the_binomial(num_runs: int) -> None:
    """Times are their own ranks: the t-th largest of 1 .. n is n + 1 - t, by SciPy's distribution."""
    bound_ms = p90_bound_ms(list(range(1, num_runs + 1)))
    assert bound_ms is not None
    t = num_runs + 1 - round(bound_ms * 1e6)
    assert binom.cdf(t, num_runs, 0.1) <= 0.01 < binom.cdf(t + 1, num_runs, 0.1)


def test_the_bound_of_p90_needs_64_runs() -> None:
    """P(X <= 1) of 64 trials of 0.1 is 0.9^64 + 64 * 0.1 * 0.9^63 = 0.0096; of 63 it is 0.0105."""
    assert p90_bound_ms([1_000_000] * 63) is None
    assert p90_bound_ms([1_000_000] * 63 + [5_000_000]) == 5.0
    assert p90_bound_ms([]) is None


def test_a_session_whose_parts_agree_is_stable() -> None:
    result = stability([[100, 100], [104, 104], [100, 900], [104, 104]], pooled_p10, "p10")
    assert result["disagreement"] == pytest.approx(0.04)
    assert result["drift"] == pytest.approx(0.012)  # the first half has 100, the second 101.2
    assert (result["statistic"], result["verdict"]) == ("p10", "stable")


def test_a_session_whose_even_and_odd_visits_disagree_is_unstable() -> None:
    result = stability([[100], [120], [100], [120]], pooled_p10, "p10")
    assert result["disagreement"] == pytest.approx(0.2)
    assert result["verdict"] == "unstable"


def test_a_session_that_drifts_is_unstable() -> None:
    """Even and odd visits agree on what each half did."""
    result = stability([[100], [100], [120], [120]], min_of_all, "min")
    assert (result["disagreement"], result["drift"]) == (0.0, pytest.approx(0.2))
    assert result["verdict"] == "unstable"


def min_of_all(visits: list[list[int]]) -> float:
    return min(min(visit) for visit in visits)


def test_visits_that_lie_apart_make_a_session_unstable_though_its_parts_agree() -> None:
    """Two speeds in turns, in pairs: parts agree to the last digit; of 20 visits the middle 80 % lie 20 % apart."""
    visits = [[100], [100], [120], [120]] * 5
    apart = stability(visits, pooled_p10, "p10", 0.10)
    assert (apart["disagreement"], apart["drift"], apart["spread"]) == (0.0, 0.0, pytest.approx(20 / 110))
    assert (apart["spread_within"], apart["verdict"]) == (0.10, "unstable")
    assert stability(visits, pooled_p10, "p10", 0.20)["verdict"] == "stable"
    assert stability(visits, pooled_p10, "p10")["verdict"] == "stable"


def test_noise_is_that_of_each_percentile() -> None:
    """Odd visits have a longer tail; then the runs of the second half take longer."""
    even, odd = [100] * 20 + [200] * 20, [100] * 20 + [200] * 15 + [300] * 5
    found = noise([even, odd, even, odd])
    assert found["p10"] == 0.0
    assert found["p90"] == pytest.approx(0.5)
    later = [[100] * 30, [100] * 30, [100] * 10 + [125] * 20, [100] * 10 + [125] * 20]
    assert noise(later) == pytest.approx({"p10": 0.0, "p50": 0.25, "p90": 0.25})


def test_the_noise_of_the_tenth_percentile_is_what_decides_stability() -> None:
    draw = random.Random(0)
    visits = [[draw.randrange(1_000, 1_500) for _ in range(20)] for _ in range(11)]
    found = stability(visits, pooled_p10, "p10")
    assert noise(visits)["p10"] == max(found["disagreement"], found["drift"])


def of_visits(*p10_ms: float) -> list[list[int]]:
    """Visits of ten equal times."""
    return [[round(ms * 1e6)] * 10 for ms in p10_ms]


@pytest.mark.parametrize(
    ("fp32_ms", "int8_ms", "expected", "is_faster"),
    [
        ([4.0] * 8, [2.0] * 8, (2.0, 0.0, "stable"), True),
        ([4.0] * 8, [4.0] * 8, (1.0, 0.0, "stable"), False),
        # A file timed in turns with itself may look like this.
        ([4.06] * 8, [4.0] * 8, (1.015, 0.0, "stable"), False),
        ([4.12] * 8, [4.0] * 8, (1.03, 0.0, "stable"), True),
        ([4.0] * 8, [5.0] * 8, (0.8, 0.0, "stable"), False),
        # The machine is half as fast in the second half: both show it, and what they are to each other does not.
        ([4.0] * 4 + [8.0] * 4, [2.0] * 4 + [4.0] * 4, (2.0, 0.0, "stable"), True),
        # Of the halves one says 1.02 times, the other 0.98 times: 4 % apart, so nobody can tell.
        ([4.08] * 4 + [3.92] * 4, [4.0] * 8, (0.98, 0.0408, "stable"), False),
        # 10 % apart, and twice as fast all the same.
        ([8.0] * 4 + [8.8] * 4, [4.0] * 8, (2.0, 0.1, "unstable"), True),
    ],
)
def test_how_fast_int8_is_and_whether_that_counts_as_faster(
    fp32_ms: list[float], int8_ms: list[float], expected: tuple[float, float, str], is_faster: bool
) -> None:
    speed = speed_of(of_visits(*fp32_ms), of_visits(*int8_ms))
    times, noise_of_it, verdict = expected
    assert (speed["times_as_fast"], speed["noise"]) == pytest.approx((times, noise_of_it), abs=1e-4)
    assert (speed["faster_above"], speed["verdict"]) == (1 + max(speed["noise"], 0.02), verdict)
    assert (speed["times_as_fast"] > speed["faster_above"]) is is_faster
    assert speed_words(speed, may_be_device=True).endswith("; use the fp32 file") is not is_faster


def test_words_about_int8_say_what_to_do_where_it_is_not_faster() -> None:
    fast: SpeedRecord = {"times_as_fast": 1.4142, "noise": 0.01, "faster_above": 1.01, "verdict": "stable"}
    assert speed_words(fast, may_be_device=True) == "1.41 times as fast as fp32 (stable)"
    slow: SpeedRecord = {"times_as_fast": 0.5, "noise": 0.02, "faster_above": 1.02, "verdict": "stable"}
    expected = "0.5 times as fast as fp32 (stable): not faster here (that is above 1.02); use the fp32 file"
    assert speed_words(slow, may_be_device=True) == expected
    assert speed_words(slow, may_be_device=False) == "0.5 times as fast as fp32 (stable), not on the device"
