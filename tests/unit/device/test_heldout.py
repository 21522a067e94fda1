"""How far predictions are off, on numbers that can be checked by hand."""

import numpy as np
import pytest

from fedsup_deploy import rng
from fedsup_deploy.device.heldout import conformal_half_width, held_out_error, prediction_error, spearman


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


@pytest.mark.parametrize(("level", "expected"), [(0.5, 0.05), (0.7, 0.07), (0.9, 0.09), (0.95, None)])
def test_the_half_width_is_an_order_statistic(level: float, expected: float | None) -> None:
    """Nine networks, off by 1 to 9 %: the ceil(10 level)-th smallest."""
    ratios_N = 1 + np.array([1, -2, 3, -4, 5, -6, 7, -8, 9]) / 100
    found = conformal_half_width(held_out_error(np.ones(9), ratios_N, "leave-one-out"), level)
    assert found == (None if expected is None else pytest.approx(expected))


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
