"""What architectures cost on devices, before anyone evaluates them.

Latency comes in as a predictor, so that nothing here depends on a latency model. It decides nothing.

Shapes: N architectures, G genes, K terms of a latency model, P targets.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from fedsup_deploy.device.held_latency import HeldLatency
from fedsup_deploy.device.profile import DeviceProfile
from fedsup_deploy.searchers.limits import Limits
from fedsup_deploy.searchers.prices import FloatArray, Prices, each
from fedsup_deploy.space import cost
from fedsup_deploy.space.cost import Costs, LayerCosts
from fedsup_deploy.space.graph_size import graph_bytes
from fedsup_deploy.space.plan import BoolArray, IntArray, NetworkPlan
from fedsup_deploy.space.search_space import SearchSpace

# Rows priced at once: what is known of them stays in the cache of a processor.
_CHUNK = 65_536

Interval = tuple[FloatArray, FloatArray]


class LatencyModel(Protocol):
    """Predicts the latency of a network from sums over its layers."""

    def terms(self, costs: LayerCosts) -> FloatArray:
        """Return what is summed over the layers of N networks or parts of networks, shape (N, K).

        The terms of a network are those of its parts added up, exactly.
        """
        ...

    def latency(self, terms_NK: FloatArray, working_set_elements_N: IntArray | None) -> FloatArray:
        """Return the latency of N networks at batch 1, in ms, shape (N,).

        Args:
            terms_NK: Their sums.
            working_set_elements_N: Their weights and live activations; None where nobody knows.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Target:
    """A device to find a subnet for.

    Args:
        profile: What is known of it.
        limits: What holds in this search.
        predictor: The latency model.
        interval: Predicted latency, shape (N,) -> lower and upper bound, shape (N,) each; None where none is claimed.
        held: How its predictions become what a limit on latency is held against.
    """

    profile: DeviceProfile
    limits: Limits
    predictor: LatencyModel
    interval: Callable[[FloatArray], Interval | None]
    held: HeldLatency


def price(
    space: SearchSpace,
    genes_NG: IntArray,
    targets: Sequence[Target],
    on_priced: Callable[[int, int], None] | None = None,
) -> list[Prices]:
    """Return what N architectures cost on each target.

    Layers are counted once for all targets, and once for all architectures that have them in common.

    Args:
        space: The search space.
        genes_NG: One row of genes per architecture.
        targets: P devices.
        on_priced: Called with (rows done, rows in all) from time to time.

    Returns:
        P prices, in the order of the targets.
    """
    parts: list[list[Prices]] = [[] for _ in targets]
    # An empty request still gives arrays, of no rows.
    for start in range(0, max(len(genes_NG), 1), _CHUNK):
        rows = genes_NG[start : start + _CHUNK]
        pieces = [
            (cost.costs_of_plan(plan, count, bytes_per_element=1), index_N)
            for plan, count, index_N in space.distinct_parts(rows)
        ]
        sizes = _Sizes(
            num_macs=_total([elements.num_macs[index_N] for elements, index_N in pieces]),
            num_params=_total([elements.num_params[index_N] for elements, index_N in pieces]),
            peak_elements=_largest([elements.peak_activation_bytes[index_N] for elements, index_N in pieces]),
            resolution=np.asarray(space.resolutions)[rows[:, 0]],
        )
        for target, prices in zip(targets, parts, strict=True):
            graph_bytes_N = _total([_graph_bytes(elements, target)[index_N] for elements, index_N in pieces])
            terms_NK = _total([target.predictor.terms(elements.layers)[index_N] for elements, index_N in pieces])
            is_supported_N = _all([_supported(elements.layers, target)[index_N] for elements, index_N in pieces])
            prices.append(_on_target(sizes, graph_bytes_N, terms_NK, is_supported_N, target))
        if on_priced is not None:
            on_priced(start + len(rows), len(genes_NG))
    return [each(lambda *values: np.concatenate(values), *prices) for prices in parts]


def price_network(plan: NetworkPlan, target: Target) -> Prices:
    """Return what one network costs on a target; it need not be of a search space.

    Args:
        plan: Its layers, in plain integers.
        target: The device.
    """
    elements = cost.costs_of_plan(plan, bytes_per_element=1)
    resolution = np.array([plan.stem.in_size])
    sizes = _Sizes(elements.num_macs, elements.num_params, elements.peak_activation_bytes, resolution)
    terms_NK, is_supported_N = target.predictor.terms(elements.layers), _supported(elements.layers, target)
    return _on_target(sizes, _graph_bytes(elements, target), terms_NK, is_supported_N, target)


@dataclasses.dataclass(frozen=True)
class _Sizes:
    """What N architectures consist of, whatever the device: as of `Prices`."""

    num_macs: IntArray
    num_params: IntArray
    peak_elements: IntArray
    resolution: IntArray


def _on_target(
    sizes: _Sizes, graph_bytes_N: IntArray, terms_NK: FloatArray, is_supported_N: BoolArray, target: Target
) -> Prices:
    latency_ms = target.predictor.latency(terms_NK, sizes.num_params + sizes.peak_elements)
    return Prices(
        profile=target.profile,
        latency_ms=latency_ms,
        latency_held_ms=target.held.held(latency_ms),
        graph_bytes=graph_bytes_N,
        is_supported=is_supported_N,
        **dataclasses.asdict(sizes),
    )


def _graph_bytes(elements: Costs, target: Target) -> IntArray:
    """Return what networks add to a file besides their parameters, in the precision of the device."""
    assert elements.layers.plan is not None, "the costs are those of layers"
    return graph_bytes(elements.layers.plan, len(elements.num_params), target.profile.int8_scheme)


def _supported(layers: LayerCosts, target: Target) -> BoolArray:
    """Return which networks have no layer that the device's runtime cannot run."""
    is_unsupported_L = np.isin(layers.ops, target.profile.unsupported_ops)
    return np.asarray(~layers.is_active_NL[:, is_unsupported_L].any(axis=1))


def _total(parts: Sequence[Any]) -> Any:
    return functools.reduce(np.add, parts)


def _largest(parts: Sequence[IntArray]) -> IntArray:
    largest_N: IntArray = functools.reduce(np.maximum, parts)
    return largest_N


def _all(parts: Sequence[BoolArray]) -> BoolArray:
    all_N: BoolArray = functools.reduce(np.logical_and, parts)
    return all_N
