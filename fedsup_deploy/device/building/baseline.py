"""The baseline of every latency model: a straight line through the MACs of the networks that it was made from.

What predicts worse than the line on networks that it was not made from is no use, and the profile has the line instead.
The choice is made on these networks, whose error the profile states; so it is an error of the better of two.

Shapes: N networks, H of them held out.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np

from fedsup_deploy.device.building.calibrate import fit_line, rounded
from fedsup_deploy.device.heldout import FloatArray, SummarizedError
from fedsup_deploy.device.latency import BYTES_PER_ELEMENT, FittedLatency, LinearCost
from fedsup_deploy.device.profile import DeviceProfile
from fedsup_deploy.space.cost import Costs
from fedsup_deploy.variant import Dtype

#: Networks that a latency model is fitted to, where somebody decides how many.
USUAL_NETWORKS: Final = 12
# Of programs at work at once, over a minute; more than a desktop that nobody uses has.
_QUIET_LOAD: Final = 0.5
# By which even and odd rounds of the median network differ on a quiet machine, at most.
_SURE_WITHIN: Final = 0.02
# The slowest network / the fastest: with less between them, the times have little to tell.
_LEAST_SPREAD: Final = 1.5


class ChosenModel(NamedTuple):
    """A profile, and what it was to have."""

    profile: DeviceProfile
    """It has the model that predicts better."""
    left_out: SummarizedError | None
    """The error of the model that predicts worse than the line, which the profile has in its place; None where the
    model is kept."""


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """A latency model that predicts worse than a straight line through the MACs.

    Args:
        error: How far it was off.
        reasons: What may be why, in words.
    """

    error: SummarizedError
    reasons: tuple[str, ...]


def line_latency(costs: Costs, latency_us_N: FloatArray, dtype: Dtype) -> FittedLatency:
    """Return the straight line through the MACs of networks as a latency model: every operation costs the same per MAC.

    Args:
        costs: Of N networks.
        latency_us_N: Their measured latency.
        dtype: Element type they were timed in.
    """
    line = fit_line(costs.num_macs.astype(np.float64), latency_us_N)
    cost = LinearCost(us_per_mmac=rounded(line.scale * 1e6), us_per_kelement=0.0, us_per_layer=0.0)
    # Names of kinds of operations, which the section has as literals.
    ops: dict[Any, LinearCost] = dict.fromkeys(costs.layers.ops, cost)
    return FittedLatency(
        kind="fitted",
        dtype=dtype,
        bytes_per_element=BYTES_PER_ELEMENT[dtype],
        network_overhead_us=rounded(line.offset),
        ops=ops,
        channel_block=1,
        num_networks=len(latency_us_N),
    )


def reasons(
    measured_ms_N: FloatArray, num_fitted: int, load_average: float | None, disagreement: float | None
) -> tuple[str, ...]:
    """Return what may be why a latency model predicts worse than the line, in words; nothing where nothing is known.

    Args:
        measured_ms_N: Latency of the networks.
        num_fitted: Networks that the model was fitted to.
        load_average: Programs at work when the measurement began; None where nobody knows.
        disagreement: Between even and odd rounds of the median network, as a share; None where nobody knows.
    """
    return tuple(_reasons(measured_ms_N, num_fitted, load_average or 0.0, disagreement or 0.0))


def _reasons(measured_ms_N: FloatArray, num_fitted: int, load_average: float, disagreement: float) -> Iterator[str]:
    if load_average > _QUIET_LOAD:
        yield f"other programs were at work when it began: a load of {load_average:.1f}"
    if disagreement > _SURE_WITHIN:
        yield f"restless times: even and odd rounds of the median network differ by {disagreement:.1%}"
    if num_fitted < USUAL_NETWORKS:
        yield f"few networks: it was fitted to {num_fitted}, usual are {USUAL_NETWORKS}"
    spread = float(measured_ms_N.max() / measured_ms_N.min())
    if spread < _LEAST_SPREAD:
        yield f"the networks hardly differ: the slowest takes {spread:.2f} times as long as the fastest"
