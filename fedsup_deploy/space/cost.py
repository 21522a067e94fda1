"""Closed-form costs of architectures: MACs, parameters, bytes moved, peak activation memory. Vectorised, exact.

One multiply-accumulate counts as 1 MAC; convolutions and linear layers count, nothing else does. Parameters are those
of the deployed network, in which every normalisation is folded into its convolution: a weight and one bias per channel.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from fedsup_deploy.space.architecture import Architecture
from fedsup_deploy.space.layers.kind import kind_of, read_elements, written_elements
from fedsup_deploy.space.layers.layer import Layer
from fedsup_deploy.space.plan import BoolArray, IntArray, NetworkPlan
from fedsup_deploy.space.search_space import SearchSpace

#: What a latency model has a cost for.
OP_KINDS = ("conv", "pointwise", "depthwise", "linear", "pool", "global_pool", "add", "scale")


@dataclasses.dataclass(frozen=True)
class LayerCosts:
    """Work of each layer of N architectures, for a latency model. L layers, zero where a layer is not active.

    Args:
        ops: Kind of each layer, L of `OP_KINDS`.
        is_active_NL: Which architecture has which layer.
        num_macs_NL: Multiply-accumulates.
        moved_elements_NL: Elements read and written: inputs, outputs, weights and biases.
        plan: The layers they are the costs of; None where somebody listed the costs of other networks.
        working_set_elements_N: Weights, biases and the most activations alive at once; None as above.
    """

    ops: tuple[str, ...]
    is_active_NL: BoolArray
    num_macs_NL: IntArray
    moved_elements_NL: IntArray
    plan: NetworkPlan | None = None
    working_set_elements_N: IntArray | None = None


@dataclasses.dataclass(frozen=True)
class Costs:
    """Costs of N architectures, each of shape (N,); bytes for the element size they were asked for."""

    num_macs: IntArray
    num_params: IntArray
    moved_bytes: IntArray
    peak_activation_bytes: IntArray
    layers: LayerCosts

    def row(self, index: int) -> dict[str, int]:
        """Return the costs of one architecture by name."""
        return {
            name: int(getattr(self, name)[index])
            for name in ("num_macs", "num_params", "moved_bytes", "peak_activation_bytes")
        }


def costs(space: SearchSpace, genes_NG: IntArray, bytes_per_element: int = 4) -> Costs:
    """Return the costs of N architectures at batch 1.

    Args:
        space: The search space.
        genes_NG: One row of genes per architecture.
        bytes_per_element: Size of a weight or activation: 4 for fp32, 1 for int8.
    """
    return costs_of_plan(space.plan_many(genes_NG), len(genes_NG), bytes_per_element)


def costs_of_plan(plan: NetworkPlan, count: int = 1, bytes_per_element: int = 4) -> Costs:
    """Return the costs of the networks that a plan describes, at batch 1.

    Args:
        plan: Layers of N networks at once, or of one in plain integers; it need not be of a search space.
        count: N.
        bytes_per_element: Size of a weight or activation: 4 for fp32, 1 for int8.
    """
    kinds, is_active_NL, (macs_NL, params_NL, moved_NL) = _table(plan.layers(), count)
    num_params_N, peak_elements_N = params_NL.sum(axis=1), _peak_elements(plan, count)
    return Costs(
        num_macs=macs_NL.sum(axis=1),
        num_params=num_params_N,
        moved_bytes=moved_NL.sum(axis=1) * bytes_per_element,
        peak_activation_bytes=peak_elements_N * bytes_per_element,
        layers=LayerCosts(kinds, is_active_NL, macs_NL, moved_NL, plan, num_params_N + peak_elements_N),
    )


def costs_of(space: SearchSpace, architectures: Sequence[Architecture], bytes_per_element: int = 4) -> Costs:
    """Return the costs of the given architectures at batch 1, in their order."""
    return costs(space, np.stack([space.encode(architecture) for architecture in architectures]), bytes_per_element)


def in_blocks(costs: LayerCosts, block: int) -> LayerCosts:
    """Return the costs for a runtime that computes channels in blocks, and a part of a block like a whole one.

    Images have fewer channels than a block and are read as they are.

    Args:
        costs: Of the architectures of a search space.
        block: Channels of a block.
    """
    assert costs.plan is not None, "the costs are those of a search space"
    layers = [
        dataclasses.replace(
            layer,
            in_channels=np.where(np.less(layer.in_channels, block), layer.in_channels, _up(layer.in_channels, block)),
            out_channels=_up(layer.out_channels, block),
        )
        for layer in costs.plan.layers()
    ]
    _, is_active_NL, (macs_NL, _, moved_NL) = _table(layers, len(costs.is_active_NL))
    return dataclasses.replace(costs, is_active_NL=is_active_NL, num_macs_NL=macs_NL, moved_elements_NL=moved_NL)


def _up(channels: Any, block: int) -> Any:
    return -(-channels // block) * block


def _table(layers: Iterable[Layer], count: int) -> tuple[tuple[str, ...], BoolArray, list[IntArray]]:
    """Return of the operations of N architectures: kinds, which are active; MACs, parameters and moved elements."""
    rows = [(layer.is_active, operation) for layer in layers for operation in kind_of(layer).operations(layer)]
    is_active_NL = _stacked([is_active for is_active, _ in rows], count).astype(np.bool_)
    operations = [operation for _, operation in rows]
    amounts = (
        [operation.num_macs for operation in operations],
        [operation.num_params for operation in operations],
        [operation.moved_elements for operation in operations],
    )
    ops = tuple(operation.op for operation in operations)
    return ops, is_active_NL, [_stacked(values, count).astype(np.int64) * is_active_NL for values in amounts]


def _stacked(values: Sequence[Any], count: int) -> IntArray:
    return np.stack([np.broadcast_to(value, (count,)) for value in values], axis=1)


def _peak_elements(plan: NetworkPlan, count: int) -> IntArray:
    """Return the most activation elements alive at once, shape (N,).

    An operation holds what it reads and writes. The input of a block stays alive while the main path runs, then the
    main path's result while the shortcut runs. The sum is written in place.
    """
    needs = [(plan.stem, read_elements(plan.stem) + written_elements(plan.stem))]
    for block in plan.blocks:
        # A family's first layer reads the block's input, whether or not it is active.
        block_input, result = read_elements(block.main[0]), written_elements(block.add)
        is_later = np.zeros(count, np.bool_)
        for layer in block.main:
            needs.append((layer, read_elements(layer) + written_elements(layer) + block_input * is_later))
            is_later = is_later | layer.is_active
        needs += [(layer, read_elements(layer) + written_elements(layer) + result) for layer in block.shortcut]
        needs.append((block.add, 2 * result))
    held = [np.where(layer.is_active, need, np.zeros(count, np.int64)) for layer, need in needs]
    return np.asarray(np.stack(held).max(axis=0))
