"""Worker processes: order of replies, death of a worker, death of the parent."""

import contextlib
import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedsup_deploy.data.augment import Augmentation
from fedsup_deploy.data.dataset import load_dataset
from fedsup_deploy.data.federated import FederatedData
from fedsup_deploy.data.partition import partition
from fedsup_deploy.data.preprocess import Preprocessing
from fedsup_deploy.engines.local import LocalEngine, local_engine
from fedsup_deploy.errors import FederationError
from fedsup_deploy.federated.client import LocalTraining
from fedsup_deploy.federated.site import InProcess, Site
from fedsup_deploy.federated.tasks import Assignment, ClientFailure, ClientUpdate, StatisticsTask, TrainTask
from fedsup_deploy.recalibrate.pooled import PooledStatistics
from fedsup_deploy.supernet.layout import Layout
from fedsup_deploy.supernet.model import initial_weights

MakeSite = functools.partial[Site]

# Starts two workers, leaves one idle and one busy, says who they are, and waits to be killed.
_PARENT = """
    import functools, multiprocessing, threading, time
    from fedsup_deploy.engines.local import LocalEngine, local_engine

    class Sleeper:
        def perform(self, seconds):
            time.sleep(seconds)

    if __name__ == "__main__":
        engine = LocalEngine(Sleeper, 2)
        list(engine.run([0.2] * 4))
        threading.Thread(target=lambda: list(engine.run([600])), daemon=True).start()
        time.sleep(0.5)
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)
        time.sleep(600)
"""


@pytest.fixture(scope="module")
def layout(space_of) -> Layout:
    return Layout(space_of({"widths": [4], "depths": [1]}, num_classes=10), "batch")


@pytest.fixture(scope="module")
def make_site(layout: Layout) -> MakeSite:
    train = load_dataset("digits", None).train.take(np.arange(48))
    clients = tuple(partition(train.labels_N, "iid", 6, 0))
    data = FederatedData(train, clients, train, train, Preprocessing.fit(train, 8), Augmentation())
    training = LocalTraining(
        epochs=1, batch_size=4, momentum=0.9, weight_decay=1e-4, clip_value=1.0, has_logit_adjustment=True
    )
    return functools.partial(Site, layout, data, training, 64, 64, 0)


@pytest.fixture(scope="module")
def engine(make_site: MakeSite) -> Iterator[LocalEngine]:
    """One for all tests that leave it whole: every worker imports torch."""
    engine = LocalEngine(make_site, 2)
    yield engine
    engine.close()


def tasks_of(layout: Layout, clients: list[int], rate: float = 0.1) -> list[TrainTask]:
    weights = initial_weights(layout, 0)
    return [TrainTask(client, 0, Assignment(layout.space.largest), weights, rate) for client in clients]


def test_replies_are_those_of_this_process_in_the_order_of_the_tasks(
    layout: Layout, make_site: MakeSite, engine: LocalEngine
) -> None:
    """More tasks than the engine takes at once; training, statistics and a failure."""
    tasks = tasks_of(layout, [5, 3, 1, 0, 2, 4])
    plan = layout.plan(layout.space.largest)
    names = tuple(layer.name for layer in plan.norm_layers())
    observe = StatisticsTask((0, 1), plan, tasks[0].weights, PooledStatistics({}), names)
    (failing,) = tasks_of(layout, [2], rate=1e30)
    replies = list(engine.run([*tasks, observe, failing]))
    expected = list(InProcess(make_site()).run([*tasks, observe, failing]))
    assert [reply.client for reply in replies[:6]] == [5, 3, 1, 0, 2, 4]
    for reply, here in zip(replies[:6], expected, strict=False):
        assert isinstance(reply, ClientUpdate)
        assert reply.loss == here.loss
        assert all(torch.equal(reply.weights[name], tensor) for name, tensor in here.weights.items())
    for reply, here in zip(replies[6], expected[6], strict=True):
        assert all(np.array_equal(reply.layers[n].squares_C, here.layers[n].squares_C) for n in names)
    assert isinstance(replies[7], ClientFailure)
    assert replies[7] == expected[7]


def test_at_most_two_tasks_per_worker_are_taken_ahead(layout: Layout, engine: LocalEngine) -> None:
    taken: list[int] = []

    def tasks() -> Iterator[TrainTask]:
        for task in tasks_of(layout, [0, 1, 2, 3, 4, 5]):
            taken.append(task.client)
            yield task

    replies = engine.run(tasks())
    assert taken == []
    next(replies)
    assert taken == [0, 1, 2, 3]
    next(replies)
    assert taken == [0, 1, 2, 3, 4]
    assert [reply.client for reply in replies] == [2, 3, 4, 5]


def test_rounds_that_are_stopped_early_leave_the_engine_usable(layout: Layout, engine: LocalEngine) -> None:
    replies = engine.run(tasks_of(layout, [0, 1, 2, 3]))
    next(replies)
    replies.close()
    assert [reply.client for reply in engine.run(tasks_of(layout, [4]))] == [4]


def test_killed_worker_is_an_error_that_says_what_to_do(layout: Layout, make_site: MakeSite) -> None:
    before = set(multiprocessing.active_children())
    engine = LocalEngine(make_site, 1)
    replies = engine.run(tasks_of(layout, [0, 1, 2, 3, 4, 5] * 20))
    next(replies)
    (worker,) = set(multiprocessing.active_children()) - before
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(FederationError, match=r"^a worker process died, .*; lower engine\.workers and .* --resume$"):
        list(replies)
    engine.close()


def test_ctrl_c_does_not_strike_a_worker_and_close_ends_it(layout: Layout, make_site: MakeSite) -> None:
    """It is for the parent to decide: neither while the worker still loads its libraries, nor later."""
    before = set(multiprocessing.active_children())
    engine = LocalEngine(make_site, 1)
    replies: list[ClientUpdate] = []
    first = threading.Thread(target=lambda: replies.extend(engine.run(tasks_of(layout, [0]))))
    first.start()
    while not (started := set(multiprocessing.active_children()) - before):
        time.sleep(0.001)
    (worker,) = started
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGINT)
    first.join()
    os.kill(worker.pid, signal.SIGINT)
    replies.extend(engine.run(tasks_of(layout, [1])))
    assert [reply.client for reply in replies] == [0, 1]
    engine.close()
    engine.close()
    assert worker.exitcode == 0


def test_one_worker_works_in_this_process(make_site: MakeSite) -> None:
    before = set(multiprocessing.active_children())
    with contextlib.closing(local_engine(make_site, 1)) as one, contextlib.closing(local_engine(make_site, 2)) as two:
        assert isinstance(one, InProcess)
        assert isinstance(two, LocalEngine)
    assert set(multiprocessing.active_children()) == before


def test_workers_idle_or_busy_end_with_a_parent_that_is_killed(
    children: Any, processes: Callable[[], list[Any]], tmp_path: Path
) -> None:
    script = tmp_path / "parent.py"
    script.write_text(textwrap.dedent(_PARENT))
    parent = children.start([sys.executable, script], stdout=subprocess.PIPE, text=True)
    pids = {int(word) for word in parent.stdout.readline().split()}
    assert len(pids) == 2
    assert pids <= {one.pid for one in processes()}
    parent.kill()
    parent.wait()
    assert children.survivors(parent) == []
