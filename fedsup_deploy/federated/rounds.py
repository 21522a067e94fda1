"""The round loop: plan, train, aggregate. It knows no engine, no files and no screen."""

import dataclasses
import time
from collections.abc import Iterator

from fedsup_deploy import rng
from fedsup_deploy.errors import FederationError
from fedsup_deploy.federated.aggregation import CoverageMean
from fedsup_deploy.federated.schedule import learning_rate
from fedsup_deploy.federated.strategy import Strategy
from fedsup_deploy.federated.tasks import Assignment, ClientUpdate, Engine, TrainTask, Weights
from fedsup_deploy.supernet import slices as rule
from fedsup_deploy.supernet.layout import Layout
from fedsup_deploy.supernet.model import Supernet


@dataclasses.dataclass(frozen=True)
class RoundParams:
    """How rounds run.

    Args:
        rounds: Rounds in all.
        clients_per_round: Clients sampled per round, without repetition.
        learning_rate: Highest step size.
        warmup_rounds: Rounds of linear warm-up.
        final_learning_rate: Step size at the end of the cosine.
    """

    rounds: int
    clients_per_round: int
    learning_rate: float
    warmup_rounds: int
    final_learning_rate: float


@dataclasses.dataclass(frozen=True)
class RoundResult:
    """What a round led to.

    Args:
        round_index: Counted from 0.
        supernet: With the new weights.
        loss: Mean of the clients' losses, weighted by their images.
        learning_rate: Step size the clients used.
        sampled: Clients asked.
        failed: Clients that could not train, with the reason.
        rejected: Clients whose update was refused, with the reason.
        bytes_down: Size of the tensors sent to clients.
        bytes_up: Size of the tensors they sent back.
        client_macs: Multiply-accumulates of the forward passes of the clients whose update was used.
        seconds: Wall-clock time.
    """

    round_index: int
    supernet: Supernet
    loss: float
    learning_rate: float
    sampled: tuple[int, ...]
    failed: dict[int, str]
    rejected: dict[int, str]
    bytes_down: int
    bytes_up: int
    client_macs: int
    seconds: float


def run_rounds(
    supernet: Supernet,
    strategy: Strategy,
    engine: Engine,
    params: RoundParams,
    seed: int,
    first_round: int = 0,
) -> Iterator[RoundResult]:
    """Yield the result of each round from `first_round` on; the caller decides when to save or stop.

    A round depends on the weights before it, its index and the seed only, so a run continued from saved weights is
    the same as one that was never interrupted.

    Args:
        supernet: Weights to start from.
        strategy: Who trains what.
        engine: Carries tasks to clients.
        params: How rounds run.
        seed: Seed of the run.
        first_round: Rounds already done.

    Raises:
        FederationError: No client of a round returned a usable update.
    """
    for index in range(first_round, params.rounds):
        started = time.perf_counter()
        drawn = rng.generator(seed, "cohort", index).choice(strategy.clients, params.clients_per_round, replace=False)
        cohort = sorted(int(client) for client in drawn)
        rate = learning_rate(
            index, params.rounds, params.warmup_rounds, params.learning_rate, params.final_learning_rate
        )
        parts = _parts(supernet.layout, strategy.plan(index, cohort, seed))
        tasks = [
            TrainTask(client, index, assignment, rule.gather(supernet.weights, where), rate)
            for client, (assignment, where) in parts.items()
        ]
        mean, failed, rejected = CoverageMean(supernet.layout.shapes), {}, {}
        accepted: list[ClientUpdate] = []
        bytes_up = 0
        for reply in engine.run(tasks):
            if not isinstance(reply, ClientUpdate):
                failed[reply.client] = reply.reason
                continue
            bytes_up += num_bytes(reply.weights)
            reason = mean.add(reply, parts[reply.client][1])
            if reason is None:
                accepted.append(dataclasses.replace(reply, weights={}))
            else:
                rejected[reply.client] = reason
        if not accepted:
            raise FederationError(
                f"round {index}: none of {len(cohort)} clients returned a usable update "
                f"(client {cohort[0]}: {({**rejected, **failed})[cohort[0]]}); "
                "lower training.learning_rate or check the data"
            )
        averaged = mean.result(supernet.weights, extrapolates=strategy.extrapolates)
        supernet = strategy.complete(index, Supernet(supernet.layout, averaged), seed)
        num_samples = sum(update.num_samples for update in accepted)
        yield RoundResult(
            index,
            supernet,
            sum(update.loss * update.num_samples for update in accepted) / num_samples,
            rate,
            tuple(cohort),
            failed,
            rejected,
            sum(num_bytes(task.weights) for task in tasks),
            bytes_up,
            sum(update.num_macs for update in accepted),
            time.perf_counter() - started,
        )


def num_bytes(weights: Weights) -> int:
    """Return the size of tensors in bytes, as they travel."""
    return sum(tensor.numel() * tensor.element_size() for tensor in weights.values())


def _parts(layout: Layout, plan: dict[int, Assignment]) -> dict[int, tuple[Assignment, rule.Slices]]:
    """Return for each client its assignment and the part of the supernet it is sent, in the order of clients."""
    return {
        client: (assignment, layout.slices(assignment.architecture) if assignment.architecture else layout.whole)
        for client, assignment in sorted(plan.items())
    }
