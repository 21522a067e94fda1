"""The straight line through the MACs, and why something else may have predicted worse."""

import numpy as np
import pytest

from fedsup_deploy.device.building.baseline import USUAL_NETWORKS, reasons

APART = np.array([1.0, 2.0, 4.0])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ()),
        ({"load_average": None, "disagreement": None}, ()),
        ({"load_average": 1.94}, ("other programs were at work when it began: a load of 1.9",)),
        ({"disagreement": 0.034}, ("restless times: even and odd rounds of the median network differ by 3.4%",)),
        ({"num_fitted": 5}, (f"few networks: it was fitted to 5, usual are {USUAL_NETWORKS}",)),
        (
            {"measured_ms_N": APART**0.25},
            ("the networks hardly differ: the slowest takes 1.41 times as long as the fastest",),
        ),
    ],
)
def test_what_may_be_why(changes: dict[str, object], expected: tuple[str, ...]) -> None:
    quiet: dict[str, object] = {
        "measured_ms_N": APART,
        "num_fitted": USUAL_NETWORKS,
        "load_average": 0.1,
        "disagreement": 0.003,
    }
    assert reasons(**(quiet | changes)) == expected  # type: ignore[arg-type]


def test_every_reason_is_said() -> None:
    assert len(reasons(np.array([1.0, 1.1]), 3, 2.0, 0.05)) == 4
