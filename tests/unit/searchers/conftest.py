"""A space of two architectures whose costs can be counted by hand, and devices to go with it.

Input 1 x 4 x 4, stem of 2 channels, one block of 2 (`narrow`) or 4 (`wide`) channels with a 3x3 kernel, 2 classes:

| layer | MACs narrow, wide | parameters narrow, wide |
| --- | --- | --- |
| stem 3x3, 1 -> 2 | 18 * 16 = 288 | 18 + 2 |
| depthwise 3x3, 2 | 18 * 16 = 288 | 18 + 2 |
| project 1x1, 2 -> 2 or 4 | 4 * 16 = 64, 8 * 16 = 128 | 4 + 2, 8 + 4 |
| shortcut 1x1, 2 -> 4 | none, 8 * 16 = 128 | none, 8 + 4 |
| head, 2 or 4 -> 2 | 4, 8 | 4 + 2, 8 + 2 |
| in all | 644, 840 | 52, 74 |

Most activations are alive in `narrow` when it projects (32 read, 32 written, 32 of the block's input: 96), in `wide` at
the shortcut (32 read, 64 written, 64 of the main path: 160).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fedsup_deploy.config.load import load_yaml, validate
from fedsup_deploy.device.held_latency import held_latency
from fedsup_deploy.device.profile import load_profile
from fedsup_deploy.resources import find
from fedsup_deploy.searchers.limits import effective_limits
from fedsup_deploy.searchers.pricing import Target
from fedsup_deploy.space.cost import LayerCosts
from fedsup_deploy.space.search_space import SearchSpace


@pytest.fixture(scope="session")
def toy_space() -> SearchSpace:
    """See above. Its genes in order: `narrow`, `wide`."""
    return SearchSpace.model_validate(
        {
            "schema": 1,
            "name": "toy",
            "family": "mobilenet",
            "in_channels": 1,
            "num_classes": 2,
            "resolutions": (4,),
            "stem": {"widths": (2,)},
            "stages": ({"name": "mb1", "widths": (2, 4), "depths": (1,)},),
        }
    )


@pytest.fixture(scope="session")
def digits_space() -> SearchSpace:
    """The shipped space of 128 architectures."""
    return validate(load_yaml(find("configs/spaces", "digits")), SearchSpace)


@pytest.fixture(scope="session")
def huge_space() -> SearchSpace:
    """A space that nobody can list: 8 to 10 blocks with 27 choices each."""
    stage = {"widths": (16, 24, 32), "depths": (4, 5), "kernel_sizes": (3, 5, 7), "expand_ratios": (1, 2, 3)}
    return SearchSpace.model_validate(
        {
            "schema": 1,
            "name": "huge",
            "family": "mobilenet",
            "resolutions": (16,),
            "choices": "per-block",
            "stem": {"widths": (8,)},
            "stages": ({"name": "mb1", **stage}, {"name": "mb2", "stride": 2, **stage}),
        }
    )


class FromWork:
    """A latency model of the MACs and the number of layers of a network.

    Args:
        latency_ms: MACs and layers, shape (N,) each -> latency in ms.
    """

    def __init__(self, latency_ms: Callable[[Any, Any], Any]) -> None:
        self._latency_ms = latency_ms

    def terms(self, costs: LayerCosts) -> Any:
        return np.stack([costs.num_macs_NL.sum(axis=1), costs.is_active_NL.sum(axis=1)], axis=1).astype(np.float64)

    def latency(self, terms_NK: Any, _working_set_elements_N: Any) -> Any:
        return self._latency_ms(*terms_NK.T)

    def predict(self, costs: LayerCosts) -> Any:
        return self.latency(self.terms(costs), None)


def macs_as_us(macs_N: Any, _layers_N: Any) -> Any:
    """A latency model: one MAC takes 1 us."""
    return macs_N / 1e3


def no_interval(_latency_ms_N: Any) -> None:
    """A latency model that claims no interval."""


@pytest.fixture(scope="session")
def make_target() -> Callable[..., Target]:
    """Make a device with the given limits, on which one MAC takes 1 us; its own limit of 2.5 ms is replaced."""

    def make(name: str = "raspberry-pi-4", predict: Any = macs_as_us, interval: Any = None, **limits: float) -> Target:
        profile = load_profile(name).model_copy(update={"energy": None, "error": "none"})
        return Target(
            profile,
            effective_limits(profile, {"latency_ms": 1e6, **limits}),
            FromWork(predict),
            interval or no_interval,
            held_latency(profile, "p50"),
        )

    return make
