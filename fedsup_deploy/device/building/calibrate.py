"""From measured times to the figures of a latency model: least squares, and nothing about how times were measured.

Every fit weighs a network by the inverse of its latency, so that what is small is relative error. Figures come rounded
to the digits a profile is written with, so that a profile predicts exactly what was checked.

Shapes: N networks, L layers, F features.
"""

import itertools
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedsup_deploy.device.heldout import FloatArray
from fedsup_deploy.device.latency import (
    BYTES_PER_ELEMENT,
    CacheMisses,
    FittedLatency,
    LinearCost,
    TableCalibration,
)
from fedsup_deploy.device.predictor import miss_share, size_mib
from fedsup_deploy.space.cost import LayerCosts, in_blocks
from fedsup_deploy.variant import Dtype

_DIGITS: Final = 5
#: Sizes between which a cache may end: as many, evenly on a logarithmic scale.
_NUM_SIZES: Final = 17
# Channels that runtimes compute together: one, and the widths of vector registers.
_CHANNEL_BLOCKS: Final = (1, 4, 8, 16, 32)
# How strongly the scale of a table is drawn towards 1, and its network overhead towards 0, measured in that of the
# largest network: enough to decide where a dozen networks cannot. Chosen on 112 networks of fedsup-mobilenet.
_PULL_OF_SCALE: Final = 0.3
_PULL_OF_OVERHEAD: Final = 10.0


class Line(NamedTuple):
    """A straight line: latency = scale x value + offset."""

    scale: float
    offset: float

    def at(self, value_N: FloatArray) -> FloatArray:
        """Return the line's value, shape (N,)."""
        found_N: FloatArray = value_N * self.scale + self.offset
        return found_N


class _CacheFit(NamedTuple):
    """A fit for one guess where the cache begins and ceases to miss."""

    fits_mib: float
    misses_mib: float
    left: float
    solution_F: FloatArray


def rounded(value: float, digits: int = _DIGITS) -> float:
    """Return a number with so many significant digits."""
    return float(f"{value:.{digits}g}")


def fit_table(
    cached_us_N: FloatArray,
    uncached_us_N: FloatArray,
    num_parts_N: NDArray[np.int64],
    size_mib_N: FloatArray,
    latency_us_N: FloatArray,
) -> TableCalibration:
    """Return what turns the times of parts into that of a network.

    Args:
        cached_us_N: Sum of the times of a network's parts, each run again and again.
        uncached_us_N: The same, each run after a network that fills the cache.
        num_parts_N: Parts of the network.
        size_mib_N: Its weights and live activations.
        latency_us_N: Its measured latency.
    """
    largest_us = latency_us_N.max()
    pulls = np.diag([_PULL_OF_SCALE, 0.0, 0.0, _PULL_OF_OVERHEAD / largest_us])
    towards = np.array([_PULL_OF_SCALE, 0.0, 0.0, 0.0])

    def solve(fits_mib: float, misses_mib: float) -> tuple[float, FloatArray]:
        share_N = miss_share(size_mib_N, fits_mib, misses_mib)
        parts_us_N = cached_us_N * (1 - share_N) + uncached_us_N * share_N
        columns = [parts_us_N, -num_parts_N * (1 - share_N), -num_parts_N * share_N, np.ones_like(parts_us_N)]
        features_NF = np.concatenate([np.stack(columns, axis=1) / latency_us_N[:, None], pulls])
        targets_N = np.concatenate([np.ones_like(latency_us_N), towards])
        # With one cost per part and all networks of one cache, columns are zero or alike: the smallest solution.
        solution_F: FloatArray = np.linalg.lstsq(features_NF, targets_N, rcond=None)[0]
        # Parts that make a network faster are no explanation, however well it fits.
        left = float(np.sum((features_NF @ solution_F - targets_N) ** 2)) if solution_F[0] > 0 else np.inf
        return left, solution_F

    found = _best(solve, size_mib_N)
    scale, cached_us, uncached_us, network_us = (rounded(value) for value in found.solution_F)
    return TableCalibration(
        scale=scale,
        cached_overhead_us=cached_us,
        uncached_overhead_us=uncached_us,
        network_overhead_us=network_us,
        fits_mib=found.fits_mib,
        misses_mib=found.misses_mib,
        num_networks=len(latency_us_N),
    )


def fit_operations(layers: LayerCosts, latency_us_N: FloatArray, dtype: Dtype) -> FittedLatency:
    """Return the linear costs of operations that explain whole networks best, none of them negative.

    Args:
        layers: Costs of N architectures of a search space.
        latency_us_N: Their measured latency.
        dtype: Element type they were timed in.
    """
    return min((_fit_in_blocks(layers, latency_us_N, dtype, block) for block in _CHANNEL_BLOCKS), key=_residual)[1]


def _residual(fitted: tuple[float, FittedLatency]) -> float:
    return fitted[0]


def _fit_in_blocks(
    layers: LayerCosts, latency_us_N: FloatArray, dtype: Dtype, block: int
) -> tuple[float, FittedLatency]:
    """Return what is left and the costs, if the runtime computes so many channels together."""
    from scipy.optimize import nnls

    assert layers.working_set_elements_N is not None, "the architectures are those of a search space"
    features = _features(in_blocks(layers, block))
    moved_N: FloatArray = layers.moved_elements_NL.sum(axis=1) / 1e3

    def solve(fits_mib: float, misses_mib: float) -> tuple[float, FloatArray]:
        missed_N = moved_N * miss_share(size_mib_N, fits_mib, misses_mib)
        features_NF = np.stack([*features.values(), missed_N, np.ones_like(moved_N)], axis=1) / latency_us_N[:, None]
        # Columns of one size: MACs are millions of times larger than counts. A column of zeros stays one.
        size_F = np.maximum(features_NF.max(axis=0), np.finfo(np.float64).tiny)
        solution_F, residual = nnls(features_NF / size_F, np.ones_like(moved_N))
        return float(residual), solution_F / size_F

    size_mib_N = size_mib(layers.working_set_elements_N, BYTES_PER_ELEMENT[dtype])
    found = _best(solve, size_mib_N)
    *costs, missed_us, network_us = (rounded(value) for value in found.solution_F)
    cache = CacheMisses(us_per_kelement=missed_us, fits_mib=found.fits_mib, misses_mib=found.misses_mib)
    latency = FittedLatency(
        kind="fitted",
        dtype=dtype,
        bytes_per_element=BYTES_PER_ELEMENT[dtype],
        network_overhead_us=network_us,
        ops=_costs_by_op(dict(zip(features, costs, strict=True))),
        channel_block=block,
        cache=cache if missed_us > 0 else None,
        num_networks=len(latency_us_N),
    )
    return found.left, latency


def fit_line(value_N: FloatArray, latency_N: FloatArray) -> Line:
    """Return the line with the least relative error and an offset of 0 or more.

    Where all values are alike, it goes through the origin.

    Args:
        value_N: Above 0: MACs, or another model's predictions.
        latency_N: Measured.
    """
    from scipy.optimize import nnls

    if np.ptp(value_N) == 0:
        return Line(fit_scale(value_N, latency_N), 0.0)
    size = value_N.max()
    columns_N2 = np.stack([value_N / size, np.ones_like(latency_N)], axis=1) / latency_N[:, None]
    (scale, offset), _ = nnls(columns_N2, np.ones_like(latency_N))
    return Line(float(scale / size), float(offset))


def fit_scale(value_N: FloatArray, latency_N: FloatArray) -> float:
    """Return the factor that brings values to latencies with the least relative error."""
    share_N = value_N / latency_N
    return float(share_N.sum() / (share_N**2).sum())


def _best(solve: Callable[[float, float], tuple[float, FloatArray]], size_mib_N: FloatArray) -> _CacheFit:
    """Return the sizes where the cache begins and ceases to miss that leave the least, and the solution there.

    The range reaches beyond the networks on both sides: all may fit, and none.
    """
    sizes = [rounded(size, 4) for size in np.geomspace(size_mib_N.min() / 1.1, size_mib_N.max() * 1.1, _NUM_SIZES)]
    tried = [_CacheFit(fits, misses, *solve(fits, misses)) for fits, misses in itertools.combinations(sizes, 2)]
    return min(tried, key=lambda found: found.left)


def _features(layers: LayerCosts) -> Mapping[tuple[str, str], FloatArray]:
    """Return per kind of operation and figure of its cost how much of it N networks have; what none has is left out."""
    ops_L = np.array(layers.ops)
    amounts = {
        "us_per_mmac": layers.num_macs_NL / 1e6,
        "us_per_kelement": layers.moved_elements_NL / 1e3,
        "us_per_layer": layers.is_active_NL.astype(np.float64),
    }
    found = {
        (op, name): amount_NL[:, ops_L == op].sum(axis=1)
        for op in dict.fromkeys(layers.ops)
        for name, amount_NL in amounts.items()
    }
    return {key: amount_N for key, amount_N in found.items() if amount_N.any()}


def _costs_by_op(costs: Mapping[tuple[str, str], float]) -> dict[Any, LinearCost]:
    nothing = dict.fromkeys(LinearCost.model_fields, 0.0)
    ops = dict.fromkeys(op for op, _ in costs)
    return {op: LinearCost(**nothing | {name: us for (of, name), us in costs.items() if of == op}) for op in ops}
