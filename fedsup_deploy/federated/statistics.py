"""Recalibration rounds: which layers are observed when, and the evaluation that follows."""

from collections.abc import Callable, Iterator, Sequence

from fedsup_deploy.federated.tasks import Engine, EvaluationTask, StatisticsTask, Weights
from fedsup_deploy.recalibrate.pooled import PooledStatistics, pool
from fedsup_deploy.space.architecture import Architecture
from fedsup_deploy.space.plan import NetworkPlan

#: Clients simulated by one task, so that a subnet's weights travel once for all of them.
_CLIENTS_PER_TASK = 10
_IMAGES_PER_TASK = 1000


def collect(
    engine: Engine,
    architecture: Architecture,
    plan: NetworkPlan,
    weights: Weights,
    clients: Sequence[int],
    schedule: str,
    on_pass: Callable[[int, int], None] | None = None,
) -> PooledStatistics:
    """Return the pooled statistics of every normalisation of a subnet. Eq. 4.

    Args:
        engine: Carries the tasks.
        architecture: The subnet.
        plan: Its layers.
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
        tasks = (StatisticsTask(tuple(some), architecture, weights, known, tuple(observe)) for some in _chunks(clients))
        known = known.with_layers(pool(part for reply in engine.run(tasks) for part in reply))
        if on_pass is not None:
            on_pass(done, len(passes))
    return known


def evaluate(
    engine: Engine,
    architecture: Architecture,
    weights: Weights,
    statistics: PooledStatistics,
    split: str,
    num_images: int,
) -> float:
    """Return the share of correct answers on held-out images, in [0, 1].

    Args:
        engine: Carries the tasks.
        architecture: The subnet.
        weights: Its tensors.
        statistics: What its activations are normalised with.
        split: `validation` or `test`.
        num_images: Images in the split.
    """
    tasks = [
        EvaluationTask(architecture, weights, statistics, split, begin, min(begin + _IMAGES_PER_TASK, num_images))
        for begin in range(0, num_images, _IMAGES_PER_TASK)
    ]
    num_correct: int = sum(correct for correct, _ in engine.run(tasks))
    return num_correct / num_images


def evaluate_clients(
    engine: Engine,
    architecture: Architecture,
    weights: Weights,
    statistics: PooledStatistics,
    clients: Sequence[int],
) -> list[float]:
    """Return the share of correct answers on each client's own images, in [0, 1], in the order of `clients`."""
    tasks = [EvaluationTask(architecture, weights, statistics, "client", client) for client in clients]
    return [correct / counted for correct, counted in engine.run(tasks)]


def _chunks(clients: Sequence[int]) -> Iterator[Sequence[int]]:
    for begin in range(0, len(clients), _CLIENTS_PER_TASK):
        yield clients[begin : begin + _CLIENTS_PER_TASK]
