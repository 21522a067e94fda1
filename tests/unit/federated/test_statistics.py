"""Recalibration and evaluation rounds: which tasks they consist of and how replies are added up."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest

from fedsup_deploy.errors import DataError
from fedsup_deploy.federated import statistics
from fedsup_deploy.federated.tasks import (
    CandidateCountsTask,
    CandidateStatisticsTask,
    CandidateTask,
    EvaluationTask,
    StatisticsTask,
)
from fedsup_deploy.recalibrate.pooled import ChannelSums, PooledStatistics
from fedsup_deploy.space.search_space import SearchSpace


def sums_of(client: int, names: Iterable[str]) -> PooledStatistics:
    return PooledStatistics({name: ChannelSums(1, np.array([float(client)]), np.array([client**2])) for name in names})


class CountingEngine:
    """Pretends that client k sees one value k in every layer asked for, and that every third image is understood.

    Of a candidate with w channels in its stem, client k understands w of 100 + k images.
    """

    def __init__(self, num_parallel: int = 1) -> None:
        self.tasks: list[Any] = []
        self.num_parallel = num_parallel

    def run(self, tasks: Iterable[Any]) -> Iterator[Any]:
        for task in tasks:
            self.tasks.append(task)
            if isinstance(task, StatisticsTask):
                yield [sums_of(client, task.observe) for client in task.clients]
            elif isinstance(task, CandidateStatisticsTask):
                yield [[sums_of(client, ("stem",)) for _ in task.architectures] for client in task.clients]
            elif isinstance(task, CandidateCountsTask):
                yield [(task.architecture.stem_width, 100 + k) for k in task.clients]
            elif isinstance(task, CandidateTask):
                yield [(architecture.stem_width, 100) for architecture in task.architectures]
            else:
                count = 10 + task.begin if task.split in ("client", "held-out") else task.end - task.begin
                yield sum(index % 3 == 0 for index in range(task.begin, task.begin + count)), count

    def close(self) -> None:
        """Nothing to release."""


def collect(space: SearchSpace, schedule: str, clients: Iterable[int], on_pass=None):
    engine, plan = CountingEngine(), space.plan(space.largest)
    pooled = statistics.collect(engine, plan, {}, list(clients), schedule, on_pass)
    return pooled, engine.tasks, [layer.name for layer in plan.norm_layers()]


def test_one_shot_observes_everything_in_one_pass(tiny_space: SearchSpace) -> None:
    pooled, tasks, names = collect(tiny_space, "one-shot", range(7))
    assert len(tasks) == 1
    assert tasks[0].clients == tuple(range(7))
    assert list(tasks[0].observe) == names == list(pooled.layers)
    assert tasks[0].known.layers == {}
    for sums in pooled.layers.values():
        assert (sums.count, sums.total_C[0], sums.squares_C[0]) == (7, 21.0, 91.0)


def test_layer_wise_observes_one_layer_after_the_other_with_those_before_known(tiny_space: SearchSpace) -> None:
    pooled, tasks, names = collect(tiny_space, "layer-wise", range(3))
    assert [task.observe for task in tasks] == [(name,) for name in names]
    assert [list(task.known.layers) for task in tasks] == [names[:index] for index in range(len(names))]
    assert list(pooled.layers) == names
    assert tasks[-1].known.layers[names[0]].total_C[0] == 3.0


def test_a_task_simulates_ten_clients_at_most_and_all_take_part_in_order(tiny_space: SearchSpace) -> None:
    _, tasks, _ = collect(tiny_space, "one-shot", range(23, 0, -1))
    assert [len(task.clients) for task in tasks] == [10, 10, 3]
    assert [client for task in tasks for client in task.clients] == list(range(23, 0, -1))


@pytest.mark.parametrize(("schedule", "passes"), [("one-shot", 1), ("layer-wise", 9)])
def test_progress_is_told_after_every_pass(tiny_space: SearchSpace, schedule: str, passes: int) -> None:
    told: list[tuple[int, int]] = []
    _, _, names = collect(tiny_space, schedule, [0], lambda done, total: told.append((done, total)))
    assert len(names) == 9
    assert told == [(done, passes) for done in range(1, passes + 1)]


def test_no_client_is_an_error(tiny_space: SearchSpace) -> None:
    with pytest.raises(DataError, match="got none, expected those of at least one client"):
        collect(tiny_space, "one-shot", [])


@pytest.mark.parametrize("num_images", [1, 999, 1000, 1001, 2500])
def test_evaluation_covers_every_image_once(tiny_space: SearchSpace, num_images: int) -> None:
    engine = CountingEngine()
    accuracy = statistics.evaluate(
        engine, tiny_space.plan(tiny_space.largest), {}, PooledStatistics({}), "test", num_images
    )
    covered = [index for task in engine.tasks for index in range(task.begin, task.end)]
    assert covered == list(range(num_images))
    assert {task.split for task in engine.tasks} == {"test"}
    assert accuracy == len(range(0, num_images, 3)) / num_images


def test_clients_are_evaluated_each_on_its_own(tiny_space: SearchSpace) -> None:
    """Client k has 10 + k images, from index k on: of 13 from 3 five are multiples of 3, of 10 from 0 four."""
    engine = CountingEngine()
    found = statistics.evaluate_clients(engine, tiny_space.plan(tiny_space.largest), {}, PooledStatistics({}), [3, 0])
    assert found == [5 / 13, 4 / 10]
    assert [task.split for task in engine.tasks] == ["client", "client"]
    assert all(isinstance(task, EvaluationTask) for task in engine.tasks)


def test_candidates_are_evaluated_with_all_that_clients_see(tiny_space: SearchSpace) -> None:
    engine, architectures = CountingEngine(num_parallel=2), [tiny_space.largest, tiny_space.smallest]
    assert list(statistics.evaluate_candidates(engine, architectures, range(23))) == [(6, 100), (4, 100)]
    assert engine.tasks == [CandidateTask((architecture,), tuple(range(23))) for architecture in architectures]


@pytest.mark.parametrize(
    ("count", "num_parallel", "sizes"),
    [
        (1, 1, [1]),
        (8, 1, [8]),
        (9, 1, [5, 4]),
        (25, 2, [7, 7, 7, 4]),
        (3, 8, [1, 1, 1]),
        (200, 2, [8] * 25),
        (0, 2, []),
    ],
)
def test_candidates_share_tasks_eight_at_most_as_many_as_keep_all_workers_busy(
    digits_space: SearchSpace, count: int, num_parallel: int, sizes: list[int]
) -> None:
    engine, space = CountingEngine(num_parallel), digits_space
    architectures = ([space.decode(genes) for genes in space.enumerate_genes()] * 10)[:count]
    found = list(statistics.evaluate_candidates(engine, architectures, range(3)))
    assert found == [(architecture.stem_width, 100) for architecture in architectures]
    assert [each for task in engine.tasks for each in task.architectures] == architectures
    assert [len(task.architectures) for task in engine.tasks] == sizes


def test_candidates_of_different_resolutions_share_no_task(space_of) -> None:
    engine, space = (
        CountingEngine(),
        space_of({"widths": [4], "depths": [1], "kernel_sizes": [3, 5]}, resolutions=[6, 8]),
    )
    architectures = [space.decode(genes) for genes in space.enumerate_genes()]
    found = list(statistics.evaluate_candidates_on_clients(engine, architectures, [0], [0]))
    assert len(found) == len(architectures) == 4
    sums = [task for task in engine.tasks if isinstance(task, CandidateStatisticsTask)]
    assert [[each.resolution for each in task.architectures] for task in sums] == [[6, 6], [8, 8]]


def test_clients_are_asked_for_sums_then_told_what_they_add_up_to_and_asked_for_counts(
    digits_space: SearchSpace,
) -> None:
    """12 clients in two tasks; the statistics of all are known to the two that judge."""
    engine, architectures = CountingEngine(), [digits_space.smallest, digits_space.largest]
    found = list(statistics.evaluate_candidates_on_clients(engine, architectures, range(12), [7, 3]))
    assert found == [[(4, 107), (4, 103)], [(6, 107), (6, 103)]]
    sums, counts = engine.tasks[:2], engine.tasks[2:]
    asked = [(task.architectures, task.clients) for task in sums]
    assert asked == [(tuple(architectures), part) for part in (tuple(range(10)), (10, 11))]
    assert [(task.architecture, task.clients) for task in counts] == [(each, (7, 3)) for each in architectures]
    for task in counts:
        total = task.statistics.layers["stem"]
        assert (total.count, total.total_C[0], total.squares_C[0]) == (12, 66.0, 506.0)


def test_many_candidates_are_asked_about_at_once_and_none_is_left_out(tiny_space: SearchSpace) -> None:
    """So that workers have enough to do, and a search stopped in between has not waited for all."""
    engine = CountingEngine()
    architectures = [tiny_space.decode(genes) for genes in tiny_space.enumerate_genes()[:40]]
    found = statistics.evaluate_candidates_on_clients(engine, architectures, [0, 1], [1])
    next(found)
    assert [type(task) for task in engine.tasks] == [CandidateStatisticsTask, CandidateCountsTask]
    assert len(engine.tasks[0].architectures) == 16
    assert len(list(found)) == 39
    counted = [task.architecture for task in engine.tasks if isinstance(task, CandidateCountsTask)]
    assert counted == architectures


def test_what_clients_hold_out_is_evaluated_on_request(tiny_space: SearchSpace) -> None:
    engine, plan = CountingEngine(), tiny_space.plan(tiny_space.largest)
    statistics.evaluate_clients(engine, plan, {}, PooledStatistics({}), [2], "held-out")
    assert [(task.split, task.begin) for task in engine.tasks] == [("held-out", 2)]
