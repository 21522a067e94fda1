"""Who trains what in a round, and what the server makes of it.

A strategy owns plan, aggregation and whatever it keeps between rounds, which is part of a checkpoint.
"""

import abc
import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor

from fedsup_deploy import rng
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.federation.client import ClientId, ClientInfo
from fedsup_deploy.federation.jobs.train import Assignment
from fedsup_deploy.federation.server.aggregation import CoverageMean
from fedsup_deploy.federation.server.assignment import Tier, TierSampler
from fedsup_deploy.federation.server.fedsup_config import rounds_of_the_smallest
from fedsup_deploy.federation.server.norms import Norms
from fedsup_deploy.space.architecture import Architecture
from fedsup_deploy.space.search_space import SearchSpace
from fedsup_deploy.supernet import slices as rule
from fedsup_deploy.supernet.growth import grow
from fedsup_deploy.supernet.layout import Layout
from fedsup_deploy.supernet.model import Supernet


@dataclasses.dataclass(frozen=True)
class ServerState:
    """All that the next round depends on.

    Args:
        supernet: With the weights of the rounds before.
        kept: What the strategy keeps between rounds, by name.
        norms: What the updates of the next round are compared with.
    """

    supernet: Supernet
    kept: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    norms: Norms = ()


class Strategy(Protocol):
    """Plans rounds and aggregates. Made from the space, the number of rounds and the options of its config section."""

    @property
    def warm_up_again_at(self) -> int:
        """The round from which clients train something else, so that the learning rate warms up again; 0 is none."""
        ...

    def initial(self, layout: Layout) -> dict[str, Tensor]:
        """Return what it keeps before the first round."""
        ...

    def eligible(self, infos: Sequence[ClientInfo]) -> list[ClientInfo]:
        """Return the clients that rounds are sampled from, ascending."""
        ...

    def plan(self, round_index: int, cohort: Sequence[ClientInfo], seed: int) -> dict[ClientId, Assignment]:
        """Return what each client of the cohort trains.

        Args:
            round_index: Counted from 0.
            cohort: Clients of this round.
            seed: Seed of the run.

        Raises:
            ConfigError: A client has announced a tier that there is not.
        """
        ...

    def aggregate(self, round_index: int, state: ServerState, mean: CoverageMean, seed: int) -> ServerState:
        """Return what a round ends with.

        Args:
            round_index: Counted from 0.
            state: What it began with.
            mean: The updates of its clients.
            seed: Seed of the run.
        """
        ...


class FedAvg:
    """Every client trains the same fixed subnet: the baseline without a supernet.

    Args:
        space: The search space.
        rounds: Rounds in all.
        architecture: `largest`, `smallest` or an arch_id.
        clients: Runs of client indices, the first and the last of each included; None is all. In a fleet of uneven
            devices a large network can be trained by the strong ones only.
        extrapolate: Go beyond the average of the clients. Federated averaging as published does not.

    Source: H. B. McMahan et al., arXiv 1602.05629.
    """

    warm_up_again_at = 0

    def __init__(
        self,
        space: SearchSpace,
        rounds: int,  # noqa: ARG002
        architecture: str,
        clients: Sequence[tuple[int, int]] | None = None,
        *,
        extrapolate: bool = False,
    ) -> None:
        self._extrapolates = extrapolate
        runs = [] if clients is None else [range(first, last + 1) for first, last in clients]
        self._clients = None if clients is None else frozenset(itertools.chain.from_iterable(runs))
        self._assignment = Assignment(space.resolve(architecture))

    def initial(self, layout: Layout) -> dict[str, Tensor]:  # noqa: ARG002
        """Keep nothing."""
        return {}

    def eligible(self, infos: Sequence[ClientInfo]) -> list[ClientInfo]:
        """Return the clients that it may use."""
        return [info for info in infos if self._clients is None or info.client in self._clients]

    def plan(self, round_index: int, cohort: Sequence[ClientInfo], seed: int) -> dict[ClientId, Assignment]:  # noqa: ARG002
        """Return the fixed subnet for everyone."""
        return {info.client: self._assignment for info in cohort}

    def aggregate(self, round_index: int, state: ServerState, mean: CoverageMean, seed: int) -> ServerState:  # noqa: ARG002
        """Return the average of the clients, or what lies beyond."""
        return ServerState(Supernet(state.supernet.layout, mean.result(extrapolates=self._extrapolates)))


class _SmallestFirst(abc.ABC):
    """What our strategies have in common: in the first rounds all clients train the smallest subnet.

    It learns from everybody's images, at a fraction of the compute and the bytes, and all others are grown from it:
    `supernet.growth`. Then they go on from what it knows, in small steps at first: copied channels have gradients that
    add up, and at the full rate the first round of all sizes would undo what was learned.
    """

    def __init__(
        self, space: SearchSpace, rounds: int, smallest_first: float | None, *, extrapolate: bool | None, paper: bool
    ) -> None:
        self._extrapolates = not paper if extrapolate is None else extrapolate
        self._first_rounds = self.warm_up_again_at = rounds_of_the_smallest(rounds, smallest_first, paper=paper)
        self._smallest = space.smallest

    def initial(self, layout: Layout) -> dict[str, Tensor]:  # noqa: ARG002
        """Keep nothing."""
        return {}

    def eligible(self, infos: Sequence[ClientInfo]) -> list[ClientInfo]:
        """Return all."""
        return list(infos)

    def plan(self, round_index: int, cohort: Sequence[ClientInfo], seed: int) -> dict[ClientId, Assignment]:
        """Return what each client of the cohort trains: in the first rounds the smallest subnet."""
        if round_index < self._first_rounds:
            return {info.client: Assignment(self._smallest) for info in cohort}
        return {info.client: self._assignment(round_index, info, seed) for info in cohort}

    def aggregate(self, round_index: int, state: ServerState, mean: CoverageMean, seed: int) -> ServerState:
        """Return the average of the clients, or what lies beyond; in the first rounds the rest is grown from it."""
        weights = mean.result(extrapolates=self._extrapolates)
        if round_index < self._first_rounds:
            weights = grow(weights, state.supernet.layout, self._smallest, seed)
        return ServerState(Supernet(state.supernet.layout, weights))

    @abc.abstractmethod
    def _assignment(self, round_index: int, info: ClientInfo, seed: int) -> Assignment:
        """Return what a client trains after the first rounds."""


class FedSup(_SmallestFirst):
    """Every client trains the whole supernet: in each step the largest subnet, the smallest and random ones.

    All of them learn from the labels. In the paper only the largest does, and the others from its answers (in-place
    distillation).

    Args:
        space: The search space.
        rounds: Rounds in all.
        num_subnets: Subnets of each step, at least 2.
        smallest_first: Share of the rounds, the first ones, in which all clients train the smallest subnet only; None
            is 0.3, and none with `paper`.
        extrapolate: Go beyond the average of the clients; None is yes, and no with `paper`.
        paper: Distil, as the paper does.

    Source: FedSup, arXiv 2206.01366; docs/supernet.md compares the two.
    """

    def __init__(
        self,
        space: SearchSpace,
        rounds: int,
        num_subnets: int,
        smallest_first: float | None,
        *,
        extrapolate: bool | None = None,
        paper: bool,
    ) -> None:
        super().__init__(space, rounds, smallest_first, extrapolate=extrapolate, paper=paper)
        self._whole = Assignment(None, num_subnets, is_distilled=paper)

    def _assignment(self, round_index: int, info: ClientInfo, seed: int) -> Assignment:  # noqa: ARG002
        return self._whole


class EFedSup(_SmallestFirst):
    """Each client is sent a static subnet that fits its tier, and trains it and the smallest subnet within it.

    So the smallest learns from all clients in every round, and nothing more travels. In the paper each client trains
    its own subnet only.

    Args:
        space: The search space.
        rounds: Rounds in all.
        tiers: What the clients of each tier train, in the order of the numbers that clients announce.
        smallest_first: Share of the rounds, the first ones, in which all clients train the smallest subnet only; None
            is 0.3, and none with `paper`.
        extrapolate: Go beyond the average of the clients; None is yes, and no with `paper`.
        paper: Each client trains its subnet only, as in the paper.

    Source: E-FedSup, arXiv 2206.01366; docs/supernet.md compares the two.
    """

    def __init__(
        self,
        space: SearchSpace,
        rounds: int,
        tiers: Sequence[Tier],
        smallest_first: float | None,
        *,
        extrapolate: bool | None = None,
        paper: bool,
    ) -> None:
        super().__init__(space, rounds, smallest_first, extrapolate=extrapolate, paper=paper)
        self._space, self._paper = space, paper
        self._samplers = [TierSampler(space, tier) for tier in tiers]
        self._of_smallest = _tensors(space, space.smallest)

    def _assignment(self, round_index: int, info: ClientInfo, seed: int) -> Assignment:
        if not 0 <= info.tier < len(self._samplers):
            got = f"{info} has announced tier {info.tier}"
            raise ConfigError(f"strategy.tiers: {got}, expected 0 to {len(self._samplers) - 1}; name more tiers")
        sampler = self._samplers[info.tier]
        architecture = sampler.draw(rng.generator(seed, "assignment", round_index, info.client))
        # Where a shortcut needs no convolution, the smallest may have one that the larger subnet lacks.
        is_within = self._of_smallest <= _tensors(self._space, architecture)
        if self._paper or architecture == self._space.smallest or not is_within:
            return Assignment(architecture)
        return Assignment(architecture, inner=(self._space.smallest,))


def _tensors(space: SearchSpace, architecture: Architecture) -> set[str]:
    """Return the names of a subnet's weights and biases."""
    return set(rule.shapes(space.plan(architecture), "batch"))
