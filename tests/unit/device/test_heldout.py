"""How far predictions are off, on numbers that can be checked by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsup_deploy import rng
from fedsup_deploy.device.heldout import (
    conformal_half_width,
    conformal_upper_ratio,
    held_out_error,
    prediction_error,
    rounded_ratios,
    spearman,
)

TIMES_MS = st.floats(0.01, 100)


def test_shares_and_means_are_relative_to_what_was_measured() -> None:
    """Predicted 104, 92, 130 and 50 where 100 was measured: off by 4, 8, 30 and 50 %."""
    found = prediction_error(np.array([104.0, 92.0, 130.0, 50.0]), np.full(4, 100.0))
    assert (found.acc5, found.acc10, found.mape) == (0.25, 0.5, 0.23)
    assert found.spearman is None, "measured values that are all equal have no order"


def test_the_order_counts_not_the_distance() -> None:
    assert spearman([1, 2, 3], [10, 20, 1000]) == 1.0
    assert spearman([1, 2, 3], [3, 2, 1]) == -1.0
    assert spearman([1, 2], [1, 2]) is None


def test_an_error_has_all_ratios_and_a_baseline() -> None:
    predicted_N, measured_N = np.array([1.0, 2.0, 4.0]), np.array([1.1, 2.0, 3.0])
    error = held_out_error(predicted_N, measured_N, "held-out", baseline_N=np.array([2.0, 2.0, 2.0]))
    assert error.ratios == (0.75, 1.0, 1.1)
    assert error.num_heldout == 3
    assert error.macs_only is not None
    assert error.macs_only.acc10 == pytest.approx(1 / 3, abs=1e-4)


@given(st.lists(st.tuples(TIMES_MS, TIMES_MS), min_size=1, max_size=40))
def test_a_line_through_the_macs_has_the_same_figures_as_model_and_as_baseline(
    times_ms: list[tuple[float, float]],
) -> None:
    measured_N, predicted_N = np.array(times_ms).T
    error = held_out_error(predicted_N, measured_N, "held-out", baseline_N=predicted_N)
    assert error.macs_only is not None
    assert error.macs_only.model_dump() == error.model_dump(include=set(type(error.macs_only).model_fields))


@pytest.mark.parametrize(("level", "expected"), [(0.5, 0.05), (0.7, 0.07), (0.9, 0.09), (0.95, None)])
def test_the_half_width_is_an_order_statistic(level: float, expected: float | None) -> None:
    """Nine networks, off by 1 to 9 %: the ceil(10 level)-th smallest."""
    ratios_N = 1 + np.array([1, -2, 3, -4, 5, -6, 7, -8, 9]) / 100
    found = conformal_half_width(held_out_error(np.ones(9), ratios_N, "leave-one-out"), level)
    assert found == (None if expected is None else pytest.approx(expected, abs=1.01e-4))


@given(st.lists(st.tuples(TIMES_MS, TIMES_MS), min_size=1, max_size=40), st.floats(0.01, 0.99))
def test_no_written_bound_is_below_the_exact_one(times_ms: list[tuple[float, float]], level: float) -> None:
    """And none is more than one unit of the last digit above it."""
    measured_N, predicted_N = np.array(times_ms).T
    exact = sorted((measured_N / predicted_N).tolist())
    rank = math.ceil((len(exact) + 1) * level)
    written = rounded_ratios(measured_N, predicted_N)
    upper = conformal_upper_ratio(written, level)
    error = held_out_error(predicted_N, measured_N, "held-out")
    half_width = conformal_half_width(error, level)
    if rank > len(exact):
        assert (upper, half_width) == (None, None)
        return
    assert upper is not None
    assert half_width is not None
    assert exact[rank - 1] <= upper < exact[rank - 1] + 1.01e-4
    width = sorted(abs(ratio - 1) for ratio in exact)[rank - 1]
    assert width <= half_width < width + 1.01e-4


def test_a_ratio_is_rounded_up_to_the_digits_of_a_profile() -> None:
    assert rounded_ratios(np.array([1.00001, 1.2345, 0.99994]), np.ones(3)) == (1.0, 1.0001, 1.2345)


def test_new_networks_are_inside_as_often_as_promised() -> None:
    """Over many profiles whose errors come from one distribution, 90 % of new ratios are within the bounds."""
    random = rng.generator(0, "conformal")
    inside = []
    for _ in range(400):
        ratios_N = np.exp(0.05 * random.standard_normal(40))
        half_width = conformal_half_width(held_out_error(np.ones(39), ratios_N[:39], "held-out"), 0.9)
        assert half_width is not None
        inside.append(abs(ratios_N[39] - 1) <= half_width)
    # 400 draws of a share of 0.9 have a standard deviation of 0.015.
    assert 0.85 <= np.mean(inside) <= 0.95
