"""Exact search in spaces too large to list, where accuracy is a sum over choices and latency a sum over layers.

It decides from input to output and remembers, of all that reach a block with the same resolution and channels, only
what no other beats: see `fedsup_deploy.searchers.stages.labels`. Layers cost what pricing says that they cost; nothing
here knows a formula. It evaluates nothing.

Shapes: G genes, N architectures, S states before a step, O options of a step, K results.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np

from fedsup_deploy.device.limits import TABLE
from fedsup_deploy.searchers import objective
from fedsup_deploy.searchers.limits import within
from fedsup_deploy.searchers.prices import FloatArray, Prices, price_of
from fedsup_deploy.searchers.pricing import Target, price
from fedsup_deploy.searchers.scoring.additive import AdditiveAccuracy
from fedsup_deploy.searchers.stages import labels
from fedsup_deploy.searchers.stages.labels import ACTIVATIONS, LATENCY, LOSS, MACS, PARAMS, STORAGE, Most, Step
from fedsup_deploy.space import cost
from fedsup_deploy.space.encoding import BLOCK_GENES
from fedsup_deploy.space.graph_size import graph_bytes
from fedsup_deploy.space.layers.layer import Layer
from fedsup_deploy.space.plan import BoolArray, IntArray, NetworkPlan
from fedsup_deploy.space.search_space import SearchSpace

# The largest accuracy has about 2**44 quanta: sums of them are exact, and one is far below what a model means.
_QUANTA_BITS: Final = 44
# The cost that a limit grows with: its column, and what prices call it.
_COLUMNS: Final = {
    "latency": LATENCY,
    "macs": MACS,
    "params": PARAMS,
    "storage": STORAGE,
    "activations": ACTIVATIONS,
}
_FIELDS: Final = {
    "macs": "num_macs",
    "params": "num_params",
    "activations": "peak_elements",
    "storage": "graph_bytes",
    "memory": "num_params",
    "resolution": "resolution",
}


def is_additive(target: Target) -> bool:
    """Return whether the latency that the profile predicts, and all that is limited, grow with sums over layers."""
    is_summed = all(TABLE[name].grows_with is not None for name in target.limits.given())
    return is_summed and target.profile.latency.is_additive


def front_over_stages(
    space: SearchSpace,
    target: Target,
    accuracy: AdditiveAccuracy,
    on_progress: Callable[[int, int], None] | None = None,
) -> IntArray:
    """Return the exact front of accuracy and latency within all limits, of a space of any size.

    Only accuracies are rounded: those that differ by less than 1e-11 may count as one.

    Args:
        space: The search space.
        target: The device; its latency model is additive, with the latency growing with its first term.
        accuracy: The accuracy model.
        on_progress: Called with (steps done, steps in all) from time to time.

    Returns:
        Genes, fastest first, shape (K, G); of equal accuracy and latency the first by genes. No rows where nothing
        fits.

    Raises:
        ConfigError: So many partial architectures are incomparable that the search was given up.
    """
    assert is_additive(target), "the latency model is no sum over layers"
    decisions = list(_decisions(space))
    steps = _steps(space, target, accuracy, decisions)
    if steps is None:
        return np.empty((0, len(space.num_choices)), np.int64)
    chosen_KT, costs_KC = labels.best_paths(steps, _most(target, steps), on_progress)
    pairs = zip(decisions, chosen_KT.T, strict=True)
    genes_KG = np.concatenate([decision.options_OG[option_K] for decision, option_K in pairs], axis=1)
    (prices,) = price(space, genes_KG, [target])
    assert (prices.latency_ms == _latency_ms(target, costs_KC[:, LATENCY])).all(), "the latency is no sum over layers"
    assert within(prices.by_limit(), target.limits).all(), "prices are not the sums of those of layers"
    return genes_KG[_front(np.stack([prices.latency_ms, -accuracy.of(genes_KG)], axis=1))]


@dataclasses.dataclass(frozen=True)
class _Decision:
    """Some consecutive genes, and the layers that are known once they are.

    Args:
        columns: The genes.
        options_OG: Their choices in lexicographic order.
        has_stem: Whether the first convolution is one of the layers.
        blocks: Which blocks are.
        has_head: Whether all after the last block is.
        depth_column: The gene of the depth of a stage that is not complete; None between stages.
    """

    columns: slice
    options_OG: IntArray
    blocks: slice
    has_stem: bool = False
    has_head: bool = False
    depth_column: int | None = None

    def layers(self, plan: NetworkPlan) -> NetworkPlan:
        """Return the part of a plan that has these layers only."""
        stem = dataclasses.replace(plan.stem, is_active=self.has_stem)
        return NetworkPlan(stem, plan.blocks[self.blocks], plan.head if self.has_head else ())

    def states(self, plan: NetworkPlan, genes_NG: IntArray) -> IntArray:
        """Return what the costs of all later layers depend on: resolution, channels, depth. Shape (N, 3)."""
        if self.has_head:
            return np.zeros((len(genes_NG), 3), np.int64)
        # A family's first layer reads the block's input, whether or not the block is active.
        following = [block.main[0] for block in plan.blocks[self.blocks.stop :]] + list(plan.head)
        depth = 0 if self.depth_column is None else genes_NG[:, self.depth_column]
        columns = (genes_NG[:, 0], following[0].in_channels, depth)
        return np.stack([np.broadcast_to(column, len(genes_NG)) for column in columns], axis=1)


def _decisions(space: SearchSpace) -> Iterator[_Decision]:
    def decision(start: int, stop: int, blocks: slice, depth_column: int | None = None) -> _Decision:
        counts = space.num_choices[start:stop]
        options_OG = np.indices(counts).reshape(len(counts), math.prod(counts)).T
        is_stem, is_head = start == 1, start == len(space.num_choices)
        return _Decision(slice(start, stop), options_OG, blocks, is_stem, is_head, depth_column)

    yield decision(0, 1, slice(0, 0))
    yield decision(1, 2, slice(0, 0))
    column, block = 2, 0
    for stage in space.stages:
        depth_column, column, num_blocks = column, column + 1, max(stage.depths)
        if space.choices == "per-stage":
            yield decision(depth_column, column + BLOCK_GENES, slice(block, block + num_blocks))
            column, block = column + BLOCK_GENES, block + num_blocks
            continue
        yield decision(depth_column, column, slice(block, block), depth_column)
        for left in reversed(range(num_blocks)):
            known = depth_column if left else None
            yield decision(column, column + BLOCK_GENES, slice(block, block + 1), known)
            column, block = column + BLOCK_GENES, block + 1
    yield decision(column, column, slice(block, block))


def _steps(
    space: SearchSpace, target: Target, accuracy: AdditiveAccuracy, decisions: Sequence[_Decision]
) -> list[Step] | None:
    """Return what the options of each decision cost; None if no way leads to the end.

    Latency is the first term of the latency model, loss is in quanta, memory in elements.
    """
    quantum = _quantum(accuracy)
    # One architecture stands for all of a state: its later layers cost what theirs do.
    known_SG = np.zeros((1, len(space.num_choices)), np.int64)
    steps: list[Step] = []
    for decision in decisions:
        num_states, num_options = len(known_SG), len(decision.options_OG)
        genes_NG = np.repeat(known_SG, num_options, axis=0)
        genes_NG[:, decision.columns] = np.tile(decision.options_OG, (num_states, 1))
        plan = space.plan_many(genes_NG)
        costs_NC, can_run_N = _costs(decision, plan, target, len(genes_NG))
        for gene in range(decision.columns.start, decision.columns.stop):
            costs_NC[:, LOSS] -= np.rint(accuracy.values[gene] / quantum)[genes_NG[:, gene]]
        is_open_N = can_run_N & _is_allowed(space, target, genes_NG)
        if not is_open_N.any():
            return None
        _, first, state = np.unique(
            decision.states(plan, genes_NG)[is_open_N], axis=0, return_index=True, return_inverse=True
        )
        next_N = np.full(len(genes_NG), -1)
        next_N[is_open_N] = state.ravel()
        steps.append(Step(costs_NC.reshape(num_states, num_options, -1), next_N.reshape(num_states, num_options)))
        known_SG = genes_NG[is_open_N][first]
    return steps


def _costs(decision: _Decision, plan: NetworkPlan, target: Target, count: int) -> tuple[FloatArray, BoolArray]:
    """Return what the layers of a decision cost, shape (N, C), and whether the device can run them, shape (N,)."""
    layers = decision.layers(plan)
    elements = cost.costs_of_plan(layers, count, bytes_per_element=1)
    costs_NC = np.zeros((count, labels.NUM_COSTS))
    costs_NC[:, LATENCY] = target.predictor.terms(elements.layers)[:, 0]
    costs_NC[:, MACS], costs_NC[:, PARAMS] = elements.num_macs, elements.num_params
    numbers_N = elements.num_params * target.profile.latency.bytes_per_element
    costs_NC[:, STORAGE] = numbers_N + graph_bytes(layers, count, target.profile.int8_scheme)
    costs_NC[:, ACTIVATIONS] = elements.peak_activation_bytes
    is_unsupported_L = np.isin(elements.layers.ops, target.profile.unsupported_ops)
    return costs_NC, np.asarray(~elements.layers.is_active_NL[:, is_unsupported_L].any(axis=1))


def _is_allowed(space: SearchSpace, target: Target, genes_NG: IntArray) -> BoolArray:
    """Return which rows have one form only and a resolution within its limit, shape (N,)."""
    is_allowed_N = (space.canonical(genes_NG) == genes_NG).all(axis=1)
    is_allowed_N &= _within(target, "resolution", np.asarray(space.resolutions, np.float64))[genes_NG[:, 0]]
    return np.asarray(is_allowed_N)


def _most(target: Target, steps: Sequence[Step]) -> Most:
    """Return the limits in the units of the steps: of each cost the most that is within all that grow with it."""
    largest_TC = np.array([step.costs_SOC.max(axis=(0, 1)) for step in steps])
    largest_C = largest_TC.sum(axis=0)
    largest_C[ACTIVATIONS] = largest_TC[:, ACTIVATIONS].max()
    costs_C = np.full(labels.NUM_COSTS, math.inf)
    for grows_with, column in _COLUMNS.items():
        costs_C[column] = _most_of(target, grows_with, float(largest_C[column]))
    return Most(costs_C, _most_of(target, "memory", float(largest_C[PARAMS] + largest_C[ACTIVATIONS])))


def _most_of(target: Target, grows_with: str, largest: float) -> float:
    """Return the most of one cost within the limits that grow with it; infinite where the largest there is is."""

    def is_within(cost: float) -> bool:
        return bool(_within(target, grows_with, np.array([cost]))[0])

    if is_within(largest):
        return math.inf
    if not is_within(0.0):
        return -math.inf
    low, high = 0.0, largest
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if is_within(middle) else (low, middle)
    return low


def _within(target: Target, grows_with: str, cost_N: FloatArray) -> BoolArray:
    """Return which amounts of one cost are within all limits that grow with it, shape (N,).

    Args:
        target: The device and its limits.
        grows_with: As of `device.limits.Limit`; latency is the first term of its model.
        cost_N: The amounts, in the units of the steps.
    """
    counts: dict[str, Any] = {
        name: np.zeros_like(cost_N) for name in ("num_macs", "num_params", "peak_elements", "graph_bytes", "resolution")
    }
    if grows_with in _FIELDS:
        counts[_FIELDS[grows_with]] = cost_N
    latency_ms = _latency_ms(target, cost_N if grows_with == "latency" else np.zeros_like(cost_N))
    can_run = np.ones(len(cost_N), np.bool_)
    prices = Prices(target.profile, latency_ms, target.held.held(latency_ms), is_supported=can_run, **counts)
    is_within_N = can_run
    for name, limit in target.limits.given().items():
        row = TABLE[name]
        if row.grows_with == grows_with and (price_N := price_of(row, prices)) is not None:
            is_within_N &= price_N <= limit
    return is_within_N


def _latency_ms(target: Target, term_N: FloatArray) -> FloatArray:
    """Return the latency of networks of which only the first term counts, shape (N,)."""
    nothing = Layer("stem", "conv", 1, 1, 1, is_active=False)
    layers = cost.costs_of_plan(NetworkPlan(nothing, (), ())).layers
    terms_NK = np.repeat(target.predictor.terms(layers), len(term_N), axis=0)
    terms_NK[:, 0] = term_N
    return target.predictor.latency(terms_NK, None)


def _quantum(accuracy: AdditiveAccuracy) -> float:
    """Return a power of two of which the largest sum of values has about 2**_QUANTA_BITS."""
    total = sum(float(np.abs(values).max()) for values in accuracy.values)
    return 1.0 if total == 0 else math.ldexp(1.0, math.frexp(total)[1] - _QUANTA_BITS)


def _front(objectives_KM: FloatArray) -> IntArray:
    """Return the candidates on the front, fastest first; of equal ones only the first."""
    if not len(objectives_KM):
        return np.empty(0, np.int64)
    front_F = objective.front(objectives_KM)
    is_new_F = np.append(True, (objectives_KM[front_F[1:]] != objectives_KM[front_F[:-1]]).any(axis=1))
    return np.asarray(front_F[is_new_F])
