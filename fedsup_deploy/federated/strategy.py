"""Who trains what in a round. How the results are averaged is the same for all: `aggregation.CoverageMean`."""

import itertools
from collections.abc import Sequence
from typing import Protocol

from fedsup_deploy import rng
from fedsup_deploy.federated.assignment import Tier, TierSampler, tier_of
from fedsup_deploy.federated.tasks import Assignment
from fedsup_deploy.space.search_space import SearchSpace


class Strategy(Protocol):
    """Plans rounds. Made from the space, the number of clients and the options its config section has."""

    @property
    def clients(self) -> Sequence[int]:
        """The clients that rounds are sampled from, ascending."""
        ...

    def plan(self, round_index: int, cohort: Sequence[int], seed: int) -> dict[int, Assignment]:
        """Return what each client of the cohort trains.

        Args:
            round_index: Counted from 0.
            cohort: Clients of this round.
            seed: Seed of the run.
        """
        ...


class FedAvg:
    """Every client trains the same fixed subnet: the baseline without a supernet.

    Args:
        space: The search space.
        num_clients: Clients in the federation.
        architecture: `largest`, `smallest` or an arch_id.
        clients: Runs of client indices, the first and the last of each included; None is all. In a fleet of uneven
            devices a large network can be trained by the strong ones only.

    Source: H. B. McMahan et al., arXiv 1602.05629.
    """

    def __init__(
        self,
        space: SearchSpace,
        num_clients: int,
        architecture: str,
        clients: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        runs = [range(num_clients)] if clients is None else [range(first, last + 1) for first, last in clients]
        self.clients = sorted(set(itertools.chain.from_iterable(runs)))
        self._assignment = Assignment(space.resolve(architecture))

    def plan(self, round_index: int, cohort: Sequence[int], seed: int) -> dict[int, Assignment]:  # noqa: ARG002
        """Return the fixed subnet for everyone."""
        return dict.fromkeys(cohort, self._assignment)


class FedSup:
    """Every client trains the whole supernet by the sandwich rule with in-place distillation.

    Source: FedSup, arXiv 2206.01366.
    """

    def __init__(self, space: SearchSpace, num_clients: int, num_subnets: int) -> None:  # noqa: ARG002
        self.clients = range(num_clients)
        self._assignment = Assignment(None, num_subnets, is_distilled=True)

    def plan(self, round_index: int, cohort: Sequence[int], seed: int) -> dict[int, Assignment]:  # noqa: ARG002
        """Return the whole supernet for everyone."""
        return dict.fromkeys(cohort, self._assignment)


class EFedSup:
    """Each client trains a static subnet that fits its tier.

    Args:
        space: The search space.
        num_clients: Clients in the federation; equal runs of their indices are the tiers.
        tiers: From the first run of indices to the last.

    Source: E-FedSup, arXiv 2206.01366.
    """

    def __init__(self, space: SearchSpace, num_clients: int, tiers: Sequence[Tier]) -> None:
        self.clients = range(num_clients)
        self._samplers = [TierSampler(space, tier) for tier in tiers]

    def plan(self, round_index: int, cohort: Sequence[int], seed: int) -> dict[int, Assignment]:
        """Return a subnet of each client's tier."""
        return {
            client: Assignment(
                self._samplers[tier_of(client, len(self.clients), len(self._samplers))].draw(
                    rng.generator(seed, "assignment", round_index, client)
                )
            )
            for client in cohort
        }
