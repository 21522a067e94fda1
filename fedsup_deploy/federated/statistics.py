"""Recalibration rounds: which layers are observed when, and the evaluation that follows."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from fedsup_deploy.federated.tasks import (
    CandidateCountsTask,
    CandidateStatisticsTask,
    CandidateTask,
    Engine,
    EvaluationTask,
    StatisticsTask,
    Weights,
)
from fedsup_deploy.recalibrate.pooled import PooledStatistics, pool
from fedsup_deploy.space.architecture import Architecture
from fedsup_deploy.space.plan import NetworkPlan

#: Clients simulated by one task, so that a subnet's weights travel once for all of them.
_CLIENTS_PER_TASK = 10
_IMAGES_PER_TASK = 1000
#: Candidates whose sums are asked for before the first counts are: at the end of either exchange workers run idle.
_CANDIDATES_PER_EXCHANGE = 16
#: Most candidates of one task, which computes once what they have in common: with more it takes longer until the first
#: score is there, and more is lost with a stop.
_CANDIDATES_PER_TASK = 8


def collect(
    engine: Engine,
    plan: NetworkPlan,
    weights: Weights,
    clients: Sequence[int],
    schedule: str,
    on_pass: Callable[[int, int], None] | None = None,
) -> PooledStatistics:
    """Return the pooled statistics of every normalisation of a network. Eq. 4.

    Args:
        engine: Carries the tasks.
        plan: The layers of a network, of the search space or not.
        weights: Its tensors.
        clients: Whose statistics, in the order they are added up.
        schedule: `one-shot` observes all layers in one pass in which each normalises by its batch. `layer-wise`
            observes one layer after the other, those before normalised with what was pooled: the result is that of
            calibrating on all clients' images in one place, however they are split into clients and batches.
        on_pass: Called with (passes done, passes in all).

    Raises:
        DataError: A client sends no or not finite sums.
    """
    names = [layer.name for layer in plan.norm_layers()]
    passes = {"one-shot": [names], "layer-wise": [[name] for name in names]}[schedule]
    known = PooledStatistics({})
    for done, observe in enumerate(passes, start=1):
        tasks = (StatisticsTask(some, plan, weights, known, tuple(observe)) for some in _chunks(clients))
        known = known.with_layers(pool(part for reply in engine.run(tasks) for part in reply))
        if on_pass is not None:
            on_pass(done, len(passes))
    return known


def evaluate(
    engine: Engine,
    plan: NetworkPlan,
    weights: Weights,
    statistics: PooledStatistics,
    split: str,
    num_images: int,
) -> float:
    """Return the share of correct answers on held-out images, in [0, 1].

    Args:
        engine: Carries the tasks.
        plan: The layers of a network, of the search space or not.
        weights: Its tensors.
        statistics: What its activations are normalised with.
        split: `validation` or `test`.
        num_images: Images in the split.
    """
    tasks = [
        EvaluationTask(plan, weights, statistics, split, begin, min(begin + _IMAGES_PER_TASK, num_images))
        for begin in range(0, num_images, _IMAGES_PER_TASK)
    ]
    num_correct: int = sum(correct for correct, _ in engine.run(tasks))
    return num_correct / num_images


def evaluate_clients(
    engine: Engine,
    plan: NetworkPlan,
    weights: Weights,
    statistics: PooledStatistics,
    clients: Sequence[int],
    split: str = "client",
) -> list[float]:
    """Return the share of correct answers on each client's own images, in [0, 1], in the order of `clients`.

    Args:
        engine: Carries the tasks.
        plan: The layers of a network, of the search space or not.
        weights: Its tensors.
        statistics: What its activations are normalised with.
        clients: Who; with `held-out` only clients that hold images out.
        split: `client` for the images they train on, `held-out` for those they do not.
    """
    tasks = [EvaluationTask(plan, weights, statistics, split, client) for client in clients]
    return [correct / counted for correct, counted in engine.run(tasks)]


def evaluate_candidates(
    engine: Engine, architectures: Sequence[Architecture], clients: Sequence[int]
) -> Iterator[tuple[int, int]]:
    """Yield for each subnet (correct, counted) on the validation images, after one-shot recalibration.

    Args:
        engine: Carries the tasks to where the supernet is.
        architectures: The subnets. Those that begin alike are evaluated faster beside each other.
        clients: Whose statistics, in the order they are added up.
    """
    # As many tasks as can be carried out at the same time, or a multiple, so that none is waited for alone.
    num_waves = max(math.ceil(len(architectures) / (_CANDIDATES_PER_TASK * engine.num_parallel)), 1)
    size = math.ceil(len(architectures) / (num_waves * engine.num_parallel))
    replies = engine.run(CandidateTask(some, tuple(clients)) for some in _groups(architectures, size))
    return itertools.chain.from_iterable(replies)


def evaluate_candidates_on_clients(
    engine: Engine, architectures: Sequence[Architecture], clients: Sequence[int], judges: Sequence[int]
) -> Iterator[list[tuple[int, int]]]:
    """Yield for each subnet (correct, counted) on what each judge holds out, after one-shot recalibration.

    Two exchanges with the clients per subnet: their sums, which are pooled here, and their counts. No image of the
    server takes part.

    Args:
        engine: Carries the tasks to where the supernet is.
        architectures: The subnets. Those that begin alike are evaluated faster beside each other.
        clients: Whose statistics, in the order they are added up.
        judges: Clients that hold images out, in the order of the counts.
    """
    asked, counting = _chunks(clients), _chunks(judges)
    for some in _groups(architectures, _CANDIDATES_PER_EXCHANGE):
        sums = engine.run(CandidateStatisticsTask(some, part) for part in asked)
        pooled = [pool(parts) for parts in zip(*itertools.chain.from_iterable(sums), strict=True)]
        counts = engine.run(
            CandidateCountsTask(each, known, part)
            for each, known in zip(some, pooled, strict=True)
            for part in counting
        )
        for _ in some:
            yield list(_joined(counts, len(counting)))


def _joined(replies: Iterator[list[Any]], number: int) -> Iterator[Any]:
    """Yield what is in the next replies, one list after the other."""
    return itertools.chain.from_iterable(itertools.islice(replies, number))


def _groups(architectures: Sequence[Architecture], size: int) -> Iterator[tuple[Architecture, ...]]:
    """Yield the architectures in groups of one resolution, at most `size` each."""
    for _, alike in itertools.groupby(architectures, key=lambda architecture: architecture.resolution):
        while group := tuple(itertools.islice(alike, size)):
            yield group


def _chunks(clients: Sequence[int]) -> list[tuple[int, ...]]:
    return [tuple(clients[begin : begin + _CLIENTS_PER_TASK]) for begin in range(0, len(clients), _CLIENTS_PER_TASK)]
