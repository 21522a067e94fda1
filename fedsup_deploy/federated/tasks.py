"""What the server asks of clients and what comes back. Values only; how they travel is an engine's business."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

from torch import Tensor

from fedsup_deploy.recalibrate.pooled import PooledStatistics
from fedsup_deploy.space.architecture import Architecture
from fedsup_deploy.space.plan import NetworkPlan

Weights = Mapping[str, Tensor]


@dataclasses.dataclass(frozen=True)
class Assignment:
    """What one client trains in one round.

    Args:
        architecture: The subnet it is sent; None sends the whole supernet.
        num_subnets: Subnets of the whole supernet trained per batch, by the sandwich rule: at least 2. Of one subnet 1.
        inner: Subnets within the one it is sent that it trains as well, in the same steps.
        is_distilled: Whether all subnets but the first learn from its answers; otherwise they learn from the labels.
    """

    architecture: Architecture | None
    num_subnets: int = 1
    inner: tuple[Architecture, ...] = ()
    is_distilled: bool = False


@dataclasses.dataclass(frozen=True)
class TrainTask:
    """Train on one client's images.

    Args:
        client: Who.
        round_index: When, counted from 0.
        assignment: What.
        weights: The tensors of the assignment: those of the subnet, or of the whole supernet.
        learning_rate: Step size of this round.
    """

    client: int
    round_index: int
    assignment: Assignment
    weights: Weights
    learning_rate: float


@dataclasses.dataclass(frozen=True)
class ClientUpdate:
    """What a client returns from training.

    Args:
        client: Who.
        num_samples: Images it trained on, n_k.
        loss: Mean loss over its batches.
        weights: Its tensors after training.
        num_macs: Multiply-accumulates of its forward passes; backward takes about twice as many more. 0: not counted.
    """

    client: int
    num_samples: int
    loss: float
    weights: Weights
    num_macs: int = 0


@dataclasses.dataclass(frozen=True)
class ClientFailure:
    """A client that could not do its task.

    Args:
        client: Who.
        reason: Why, in one line.
    """

    client: int
    reason: str


@dataclasses.dataclass(frozen=True)
class StatisticsTask:
    """Observe activations on clients' images.

    Args:
        clients: Whose images; several where one place simulates several clients.
        plan: The layers of the network that computes, in plain integers; it need not be in the search space.
        weights: Its tensors.
        known: Statistics of layers that are normalised with them.
        observe: Layers whose sums are wanted; those neither known nor wanted normalise by their batch.
    """

    clients: tuple[int, ...]
    plan: NetworkPlan
    weights: Weights
    known: PooledStatistics
    observe: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class EvaluationTask:
    """Count correct answers on images the server holds out, or on clients' own.

    Args:
        plan: The layers of the network that computes, in plain integers; it need not be in the search space.
        weights: Its tensors.
        statistics: What its activations are normalised with.
        split: `validation` or `test`; `client` for the images a client trains on, or `held-out` for those it does not.
        begin: First image of the split, or the client's index.
        end: One after the last image of the split; unused for clients.
    """

    plan: NetworkPlan
    weights: Weights
    statistics: PooledStatistics
    split: str
    begin: int
    end: int = 0


# Candidates of a search travel as encodings: whoever is asked holds the supernet, and slices it.


@dataclasses.dataclass(frozen=True)
class CandidateTask:
    """Recalibrate subnets with one-shot statistics of clients and count correct answers on the validation images.

    Args:
        architectures: The subnets, of one resolution; what neighbours have in common is computed once.
        clients: Whose statistics.
    """

    architectures: tuple[Architecture, ...]
    clients: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class CandidateStatisticsTask:
    """Observe all layers of subnets in one pass over clients' images, each layer normalised by its batch.

    Args:
        architectures: The subnets, of one resolution; what neighbours have in common is computed once.
        clients: Whose images; several where one place simulates several clients.
    """

    architectures: tuple[Architecture, ...]
    clients: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class CandidateCountsTask:
    """Count a subnet's correct answers on the images that clients hold out.

    Args:
        architecture: The subnet.
        statistics: What its activations are normalised with.
        clients: Whose images, none without any; several where one place simulates several clients.
    """

    architecture: Architecture
    statistics: PooledStatistics
    clients: tuple[int, ...]


Task = TrainTask | StatisticsTask | EvaluationTask | CandidateTask | CandidateStatisticsTask | CandidateCountsTask


class Engine(Protocol):
    """Carries tasks to where the data is. The only thing the federation knows of the world."""

    @property
    def num_parallel(self) -> int:
        """How many tasks are carried out at the same time."""
        ...

    def run(self, tasks: Iterable[Task]) -> Iterator[Any]:
        """Yield the reply to each task, in the order of the tasks.

        Replies: `ClientUpdate` or `ClientFailure` for a TrainTask; a list of one PooledStatistics per client for a
        StatisticsTask, and of a list of one per subnet for a CandidateStatisticsTask; (correct, counted) for an
        EvaluationTask, and a list of it, one per subnet for a CandidateTask, one per client for a CandidateCountsTask.
        """
        ...

    def close(self) -> None:
        """Release processes and connections."""
        ...
