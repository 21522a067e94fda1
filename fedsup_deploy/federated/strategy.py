"""Who trains what in a round, and what follows from it for the rest of the supernet.

How the results are averaged is the same for all, but that some go beyond the average: `aggregation.CoverageMean`.
"""

import abc
import itertools
from collections.abc import Sequence
from typing import Final, Protocol

from fedsup_deploy import rng
from fedsup_deploy.federated.assignment import Tier, TierSampler, tier_of
from fedsup_deploy.federated.tasks import Assignment
from fedsup_deploy.space.architecture import Architecture
from fedsup_deploy.space.search_space import SearchSpace
from fedsup_deploy.supernet import slices as rule
from fedsup_deploy.supernet.growth import grow
from fedsup_deploy.supernet.model import Supernet

#: Share of the rounds in which all clients train the smallest subnet, where a config does not say.
SMALLEST_FIRST: Final = 0.3


class Strategy(Protocol):
    """Plans rounds. Made from the space, the numbers of clients and rounds, and the options of its config section."""

    @property
    def clients(self) -> Sequence[int]:
        """The clients that rounds are sampled from, ascending."""
        ...

    @property
    def extrapolates(self) -> bool:
        """Whether the server goes beyond the average of the clients: `CoverageMean.result`."""
        ...

    def plan(self, round_index: int, cohort: Sequence[int], seed: int) -> dict[int, Assignment]:
        """Return what each client of the cohort trains.

        Args:
            round_index: Counted from 0.
            cohort: Clients of this round.
            seed: Seed of the run.
        """
        ...

    def complete(self, round_index: int, supernet: Supernet, seed: int) -> Supernet:
        """Return the supernet that a round ends with.

        Args:
            round_index: Counted from 0.
            supernet: With what the clients of the round trained, averaged.
            seed: Seed of the run.
        """
        ...


class FedAvg:
    """Every client trains the same fixed subnet: the baseline without a supernet.

    Args:
        space: The search space.
        num_clients: Clients in the federation.
        rounds: Rounds in all.
        architecture: `largest`, `smallest` or an arch_id.
        clients: Runs of client indices, the first and the last of each included; None is all. In a fleet of uneven
            devices a large network can be trained by the strong ones only.
        extrapolate: Go beyond the average of the clients. Federated averaging as published does not.

    Source: H. B. McMahan et al., arXiv 1602.05629.
    """

    def __init__(
        self,
        space: SearchSpace,
        num_clients: int,
        rounds: int,  # noqa: ARG002
        architecture: str,
        clients: Sequence[tuple[int, int]] | None = None,
        *,
        extrapolate: bool = False,
    ) -> None:
        self.extrapolates = extrapolate
        runs = [range(num_clients)] if clients is None else [range(first, last + 1) for first, last in clients]
        self.clients = sorted(set(itertools.chain.from_iterable(runs)))
        self._assignment = Assignment(space.resolve(architecture))

    def plan(self, round_index: int, cohort: Sequence[int], seed: int) -> dict[int, Assignment]:  # noqa: ARG002
        """Return the fixed subnet for everyone."""
        return dict.fromkeys(cohort, self._assignment)

    def complete(self, round_index: int, supernet: Supernet, seed: int) -> Supernet:  # noqa: ARG002
        """Return the supernet as it is."""
        return supernet


class _SmallestFirst(abc.ABC):
    """What our strategies have in common: in the first rounds all clients train the smallest subnet.

    It learns from everybody's images, at a fraction of the compute and the bytes, and all others are grown from it:
    `supernet.growth`. Then they go on from what it knows.
    """

    def __init__(
        self,
        space: SearchSpace,
        num_clients: int,
        rounds: int,
        smallest_first: float | None,
        *,
        extrapolate: bool | None,
        paper: bool,
    ) -> None:
        if smallest_first is None:
            smallest_first = 0.0 if paper else SMALLEST_FIRST
        self.extrapolates = not paper if extrapolate is None else extrapolate
        self.clients = range(num_clients)
        self._first_rounds = round(rounds * smallest_first)
        self._smallest = space.smallest

    def plan(self, round_index: int, cohort: Sequence[int], seed: int) -> dict[int, Assignment]:
        """Return what each client of the cohort trains: in the first rounds the smallest subnet."""
        if round_index < self._first_rounds:
            return dict.fromkeys(cohort, Assignment(self._smallest))
        return {client: self._assignment(round_index, client, seed) for client in cohort}

    def complete(self, round_index: int, supernet: Supernet, seed: int) -> Supernet:
        """Return the supernet, in the first rounds grown from the smallest subnet."""
        if round_index >= self._first_rounds:
            return supernet
        return Supernet(supernet.layout, grow(supernet.weights, supernet.layout, self._smallest, seed))

    @abc.abstractmethod
    def _assignment(self, round_index: int, client: int, seed: int) -> Assignment:
        """Return what a client trains after the first rounds."""


class FedSup(_SmallestFirst):
    """Every client trains the whole supernet: in each step the largest subnet, the smallest and random ones.

    All of them learn from the labels. In the paper only the largest does, and the others from its answers (in-place
    distillation).

    Args:
        space: The search space.
        num_clients: Clients in the federation.
        rounds: Rounds in all.
        num_subnets: Subnets of each step, at least 2.
        smallest_first: Share of the rounds, the first ones, in which all clients train the smallest subnet only; None
            is `SMALLEST_FIRST`, and none with `paper`.
        extrapolate: Go beyond the average of the clients; None is yes, and no with `paper`.
        paper: Distil, as the paper does.

    Source: FedSup, arXiv 2206.01366; docs/supernet.md compares the two.
    """

    def __init__(
        self,
        space: SearchSpace,
        num_clients: int,
        rounds: int,
        num_subnets: int,
        smallest_first: float | None,
        *,
        extrapolate: bool | None = None,
        paper: bool,
    ) -> None:
        super().__init__(space, num_clients, rounds, smallest_first, extrapolate=extrapolate, paper=paper)
        self._whole = Assignment(None, num_subnets, is_distilled=paper)

    def _assignment(self, round_index: int, client: int, seed: int) -> Assignment:  # noqa: ARG002
        return self._whole


class EFedSup(_SmallestFirst):
    """Each client is sent a static subnet that fits its tier, and trains it and the smallest subnet within it.

    So the smallest learns from all clients in every round, and nothing more travels. In the paper each client trains
    its own subnet only.

    Args:
        space: The search space.
        num_clients: Clients in the federation; equal runs of their indices are the tiers.
        rounds: Rounds in all.
        tiers: From the first run of indices to the last.
        smallest_first: Share of the rounds, the first ones, in which all clients train the smallest subnet only; None
            is `SMALLEST_FIRST`, and none with `paper`.
        extrapolate: Go beyond the average of the clients; None is yes, and no with `paper`.
        paper: Each client trains its subnet only, as in the paper.

    Source: E-FedSup, arXiv 2206.01366; docs/supernet.md compares the two.
    """

    def __init__(
        self,
        space: SearchSpace,
        num_clients: int,
        rounds: int,
        tiers: Sequence[Tier],
        smallest_first: float | None,
        *,
        extrapolate: bool | None = None,
        paper: bool,
    ) -> None:
        super().__init__(space, num_clients, rounds, smallest_first, extrapolate=extrapolate, paper=paper)
        self._space, self._paper = space, paper
        self._samplers = [TierSampler(space, tier) for tier in tiers]
        self._of_smallest = _tensors(space, space.smallest)

    def _assignment(self, round_index: int, client: int, seed: int) -> Assignment:
        sampler = self._samplers[tier_of(client, len(self.clients), len(self._samplers))]
        architecture = sampler.draw(rng.generator(seed, "assignment", round_index, client))
        # Where a shortcut needs no convolution, the smallest may have one that the larger subnet lacks.
        is_within = self._of_smallest <= _tensors(self._space, architecture)
        if self._paper or architecture == self._space.smallest or not is_within:
            return Assignment(architecture)
        return Assignment(architecture, inner=(self._space.smallest,))


def _tensors(space: SearchSpace, architecture: Architecture) -> set[str]:
    """Return the names of a subnet's weights and biases."""
    return set(rule.shapes(space.plan(architecture), "batch"))
