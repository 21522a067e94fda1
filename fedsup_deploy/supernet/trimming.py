"""Taking channels from a network until it costs no more than it may: what no choice of a search space gives exactly.

torch-pruning says which channels must go together and what each is worth; this module says how many go, and where. It
prices nothing: what is too much comes in as a function. It leaves the network and the subnet it is given as they are.

Source: dependency graph and group magnitude are those of torch-pruning (G. Fang et al., arXiv 2301.12900); small steps,
each chosen by what it saves and what it harms, are NetAdapt's (T.-J. Yang et al., arXiv 1804.03230), which fine-tunes
to see the harm where we take the share of a group's magnitude that goes.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from fedsup_deploy.space.layers.kind import kind_of, owned_weights
from fedsup_deploy.space.layers.layer import Layer
from fedsup_deploy.space.plan import BlockPlan, IntArray, NetworkPlan
from fedsup_deploy.supernet.deployable import DeployableNet, FoldedNetwork
from fedsup_deploy.supernet.model import Subnet

#: Share of a group's channels that stay at least. Less would be another network rather than one between two subnets.
MIN_KEPT: Final = 0.5
# A step takes up to this share of a group's channels, so that wide networks are done in few steps.
_STEP: Final = 1 / 16
# Keeps a group of zeros, from which anything may go, from dividing by zero.
_TINY: Final = 1e-30

Excess = Callable[[NetworkPlan], float]


@dataclasses.dataclass(frozen=True)
class Kept:
    """What is kept of a weight: indices among the channels there were, ascending.

    Args:
        outputs: Of the first axis, that of the channels written.
        inputs: Of the second axis, that of the channels read; in a depthwise convolution it is of length 1.
        num_channels: Channels written before.
    """

    outputs: IntArray
    inputs: IntArray
    num_channels: int

    @property
    def removed(self) -> IntArray:
        """The channels that are written no more, as indices among those there were, ascending."""
        return np.setdiff1d(np.arange(self.num_channels), self.outputs)


@dataclasses.dataclass(frozen=True)
class Trimmed:
    """A network with fewer channels.

    Args:
        plan: Its layers.
        kept: What is kept of each weight, by the name of its layer; `<name>.reduce` and `<name>.expand` of a
            squeeze-excitation.
        module: What torch-pruning leaves of the folded network, with the statistics from before.
    """

    plan: NetworkPlan
    kept: Mapping[str, Kept]
    module: DeployableNet


def trim(network: FoldedNetwork, quantum: int, excess: Excess) -> Trimmed | None:
    """Return the network without the channels that matter least, as few as bring its excess down to 0.

    Each step takes channels of one group of layers that depend on each other, and leaves a multiple of the quantum
    there: of all groups the one that loses the smallest share of its magnitude for what the step takes off the excess.

    Args:
        network: Folded; it is left as it is.
        quantum: Channels that the device computes together, at least 1. Groups that lose none keep their number.
        excess: The share by which a network costs more than it may; 0 or less is within all limits.

    Returns:
        None if no step helps any more: a group keeps `MIN_KEPT` of its channels, and not less than the quantum.
    """
    trimming = _Trimming(network, quantum)
    over = excess(network.plan)
    while over > 0:
        step = _best(trimming.steps(), over, excess)
        if step is None:
            return None
        trimming.take(step)
        over = excess(step.plan)
    return trimming.result()


def smallest(plan: NetworkPlan, quantum: int) -> NetworkPlan:
    """Return a plan with as few channels as `trim` leaves at most: nothing that it returns costs less.

    Args:
        plan: The layers of the network.
        quantum: As of `trim`.
    """
    kept: dict[str, Kept] = {}
    for layer in plan.layers():
        # As many classes as before.
        count = layer.out_channels if layer == plan.head[-1] else _least(layer.out_channels, quantum)
        kept |= dict.fromkeys(owned_weights(layer), Kept(np.arange(count), np.arange(0), layer.out_channels))
    return _with_channels(plan, kept)


def cut(subnet: Subnet, trimmed: Trimmed) -> Subnet:
    """Return the subnet that was folded, with the same channels less; its tensors are copies.

    Args:
        subnet: Of the plan and the weights that were trimmed, not folded.
        trimmed: What is kept of it.
    """
    weights = {}
    for name, tensor in subnet.weights.items():
        kept = trimmed.kept[name.rpartition(".")[0].removesuffix(".norm")]
        part = tensor[torch.from_numpy(kept.outputs)]
        weights[name] = part[:, torch.from_numpy(kept.inputs)] if tensor.ndim > 1 else part
    return Subnet(trimmed.plan, subnet.normalization, weights)


@dataclasses.dataclass(frozen=True)
class _Step:
    """Channels that may go: torch-pruning's group of them, what would be left, and the share of the magnitude lost."""

    group: Any
    kept: Mapping[str, Kept]
    plan: NetworkPlan
    loss: float


class _Trimming:
    """A network on its way to fewer channels."""

    def __init__(self, network: FoldedNetwork, quantum: int) -> None:
        import torch_pruning

        self._quantum = quantum
        # The dependency graph is read off gradients.
        self._module = network.module().requires_grad_(requires_grad=True)
        weights = [part for part in self._module.modules() if isinstance(part, (nn.Conv2d, nn.Linear))]
        self._names = dict(zip(weights, _weight_names(network.plan), strict=True))
        self._kept: Mapping[str, Kept] = {
            name: Kept(np.arange(len(part.weight)), np.arange(part.weight.shape[1]), len(part.weight))
            for part, name in self._names.items()
        }
        self._plan = plan = network.plan
        images = torch.zeros(2, plan.stem.in_channels, plan.stem.in_size, plan.stem.in_size)
        self._graph = torch_pruning.DependencyGraph().build_dependency(self._module, images)
        self._importance = torch_pruning.importance.GroupMagnitudeImportance(p=2, normalizer=None)

    def steps(self) -> Iterator[_Step]:
        """Yield the next step of each group that has one."""
        for whole in self._graph.get_all_groups(ignored_layers=[self._module.head]):
            root = whole[0].dep
            importance_C = self._importance(whole).numpy().astype(np.float64)
            count = self._num_to_go(len(importance_C), self._kept[self._names[root.target.module]].num_channels)
            if count:
                least = np.sort(np.argsort(importance_C, kind="stable")[:count])
                group = self._graph.get_pruning_group(root.target.module, root.handler, least.tolist())
                kept = self._without(group)
                loss = float(importance_C[least].sum() / max(importance_C.sum(), _TINY))
                yield _Step(group, kept, _with_channels(self._plan, kept), loss)

    def take(self, step: _Step) -> None:
        """Remove the channels of a step."""
        step.group.prune()
        self._kept, self._plan = step.kept, step.plan

    def result(self) -> Trimmed:
        """Return what is left."""
        return Trimmed(self._plan, self._kept, self._module.requires_grad_(requires_grad=False))

    def _num_to_go(self, now: int, first: int) -> int:
        """Return how many channels a step takes from a group that has `now` of its `first` ones; 0 if none may go."""
        quantum = self._quantum
        step = max(int(first * _STEP) // quantum, 1) * quantum
        # What is no multiple of the quantum comes down to one first.
        left = max(-(-now // quantum) * quantum - step, _least(first, quantum))
        return max(now - left, 0)

    def _without(self, group: Any) -> dict[str, Kept]:
        """Return what is kept when the channels of a group go."""
        kept = dict(self._kept)
        for dependency, indices in group:
            name = self._names.get(dependency.target.module)
            if name is None:
                continue
            before = kept[name]
            if self._graph.is_out_channel_pruning_fn(dependency.handler):
                kept[name] = dataclasses.replace(before, outputs=np.delete(before.outputs, indices))
            else:
                kept[name] = dataclasses.replace(before, inputs=np.delete(before.inputs, indices))
        return kept


def _least(num_channels: int, quantum: int) -> int:
    """Return how many of its channels a group keeps at least."""
    return min(max(-int(-num_channels * MIN_KEPT // quantum), 1) * quantum, num_channels)


def _best(steps: Iterator[_Step], over: float, excess: Excess) -> _Step | None:
    """Return the step that loses least for what it saves; what would be saved beyond the limit counts for nothing."""
    rated = [(step, over - max(excess(step.plan), 0.0)) for step in steps]
    useful = [(step.loss / saved, step) for step, saved in rated if saved > 0]
    return min(useful, key=lambda each: each[0])[1] if useful else None


def _weight_names(plan: NetworkPlan) -> Iterator[str]:
    """Yield the names of all weights, in the order in which the module has them."""
    for layer in plan.layers():
        yield from owned_weights(layer)


def _with_channels(plan: NetworkPlan, kept: Mapping[str, Kept]) -> NetworkPlan:
    """Return the plan with the channels that are kept."""
    (stem,) = _path((plan.stem,), plan.stem.in_channels, kept)
    channels, blocks = stem.out_channels, []
    for block in plan.blocks:
        main, shortcut = (_path(path, channels, kept) for path in (block.main, block.shortcut))
        (add,) = _path((block.add,), main[-1].out_channels, kept)
        blocks.append(BlockPlan(block.name, main, shortcut, add))
        channels = add.out_channels
    return NetworkPlan(stem, tuple(blocks), _path(plan.head, channels, kept))


def _path(layers: tuple[Layer, ...], channels: int, kept: Mapping[str, Kept]) -> tuple[Layer, ...]:
    """Return layers that follow each other, the first of which reads so many channels."""
    result = []
    for layer in layers:
        owner = next(iter(owned_weights(layer)), None)
        numbers = len(kept[owner].outputs) if owner else channels
        result.append(dataclasses.replace(layer, in_channels=channels, out_channels=numbers))
        channels = kind_of(layer).written_channels(result[-1])
    return tuple(result)
