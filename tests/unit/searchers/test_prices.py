"""Prices as people read them."""

import numpy as np
import pytest

from fedsup_deploy.searchers.limits import Limits, within
from fedsup_deploy.searchers.prices import rounded_up


@pytest.mark.parametrize(
    ("price", "expected"), [(0.63712, 0.6372), (0.6371, 0.6371), (0.644, 0.644), (12.3449, 12.35), (3e-7, 3e-7)]
)
def test_a_price_for_people_is_met_when_they_make_it_their_limit(price: float, expected: float) -> None:
    assert rounded_up(price) == expected
    assert within({"latency_ms": np.array([price])}, Limits(latency_ms=float(f"{rounded_up(price):.4g}"))).all()
