"""Clients in worker processes: the same replies as in this process, blobs that travel once, and deadlines."""

import functools
import itertools
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fedsup_deploy.answers import Answers
from fedsup_deploy.data.augment import Augmentation
from fedsup_deploy.data.dataset import DamagedFileError, load_dataset
from fedsup_deploy.data.image_folder import load_image_folder
from fedsup_deploy.data.partition import partition
from fedsup_deploy.data.preprocess import Preprocessing
from fedsup_deploy.engines import workers
from fedsup_deploy.engines.inprocess import InProcess
from fedsup_deploy.engines.workers import WorkerEngine, open_local
from fedsup_deploy.federation.client import HELD_OUT, TRAINED
from fedsup_deploy.federation.jobs.counts import CountAnswers
from fedsup_deploy.federation.jobs.moments import CountPixels
from fedsup_deploy.federation.jobs.statistics import CalibrationDraw, TakeStatistics
from fedsup_deploy.federation.jobs.train import Assignment, LocalTraining, Train
from fedsup_deploy.federation.messages import Blob, BlobStore, Engine, Job, Patience, Reply
from fedsup_deploy.federation.networks import standalone
from fedsup_deploy.federation.simulation import CLIENTS, TEST, FederatedData
from fedsup_deploy.supernet.layout import Layout
from fedsup_deploy.supernet.model import Supernet, initial_weights
from fedsup_deploy.supernet.statistics import PooledStatistics

NUM_CLIENTS = 6
TRAINING = LocalTraining(
    epochs=1, batch_size=4, momentum=0.9, weight_decay=1e-4, clip_value=1.0, has_logit_adjustment=True
)


@pytest.fixture(scope="module")
def layout(space_of: Callable[..., Any]) -> Layout:
    return Layout(space_of({"widths": [4], "depths": [1]}, num_classes=10), "batch")


@pytest.fixture(scope="module")
def data() -> FederatedData:
    images = load_dataset("digits", None).train
    train, test = images.take(np.arange(48)), images.take(np.arange(48, 68))
    return FederatedData(train, tuple(partition(train.labels_N, "iid", NUM_CLIENTS, 0)), None, test)


@pytest.fixture(scope="module")
def engines(data: FederatedData) -> Iterator[dict[str, Engine]]:
    """Two workers for all tests: each imports torch."""
    with open_local(data.populations, 2) as engines:
        yield engines


def here(data: FederatedData, population: str = CLIENTS) -> InProcess:
    return InProcess(data.populations()[population])


def train_jobs(layout: Layout, data: FederatedData, clients: list[int], rate: float = 0.1) -> dict[int, Train]:
    """Return jobs that share one blob."""
    blob = Blob(initial_weights(layout, 0))
    preprocessing = Preprocessing.fit(data.train, 8)
    assignment = Assignment(layout.space.largest)
    return {
        client: Train(layout, assignment, blob, rate, TRAINING, preprocessing, Augmentation(crop_padding=1), client)
        for client in clients
    }


def statistics_job(layout: Layout, data: FederatedData) -> TakeStatistics:
    network = standalone(Supernet(layout, initial_weights(layout, 0)).extract(layout.space.largest))
    names = tuple(layer.name for layer in network.plan.norm_layers())
    preprocessing = Preprocessing.fit(data.train, 8)
    return TakeStatistics((network,), names, PooledStatistics({}), preprocessing, CalibrationDraw(6, 4), 0)


def counts_job(layout: Layout, data: FederatedData, images: str) -> CountAnswers:
    observed = statistics_job(layout, data)
    (reply,) = here(data).ask({0: observed})
    assert reply.value is not None
    return CountAnswers(observed.networks, reply.value.statistics, images, observed.preprocessing)


def sorted_replies(engine: Engine, jobs: dict[int, Any]) -> list[Reply[Any]]:
    return sorted(engine.ask(jobs), key=lambda reply: reply.client)


def test_updates_are_those_of_this_process_to_the_bit(
    layout: Layout, data: FederatedData, engines: dict[str, Engine]
) -> None:
    """One of them an absence."""
    jobs = train_jobs(layout, data, [0, 1, 2, 3, 4]) | train_jobs(layout, data, [5], rate=1e30)
    found, expected = sorted_replies(engines[CLIENTS], jobs), sorted_replies(here(data), jobs)
    assert [reply.client for reply in found] == list(range(NUM_CLIENTS))
    for there, reply in zip(found[:-1], expected[:-1], strict=True):
        assert there.value.weights.keys() == reply.value.weights.keys()
        for name, tensor in reply.value.weights.items():
            assert torch.equal(there.value.weights[name], tensor), name
        assert (there.value.loss, there.value.num_macs) == (reply.value.loss, reply.value.num_macs)
    assert found[-1] == expected[-1]
    assert "lower training.learning_rate" in str(found[-1].absent)


def answers_of(reply: Reply[Any]) -> list[Answers]:
    return reply.value.by_network(len(reply.value.confidence_MB3), 10)


@pytest.fixture
def photographs(data: FederatedData, tmp_path: Path) -> FederatedData:
    """The same images in files, which are decoded in the workers."""
    for split, images in (("train", data.train), ("test", data.test)):
        assert images is not None
        for index in range(len(images)):
            folder = tmp_path / split / images.classes[images.labels_N[index]]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images.pixels([index])[0, ..., 0]).save(folder / f"{index:03}.png")
    splits = load_image_folder(tmp_path)
    # Files lie class by class.
    order = np.argsort(np.argsort(data.train.labels_N, kind="stable"), kind="stable")
    return FederatedData(splits.train, tuple(order[indices] for indices in data.clients), None, splits.test)


def test_images_in_files_train_as_arrays_do_and_are_decoded_once(
    layout: Layout, data: FederatedData, photographs: FederatedData, tmp_path: Path
) -> None:
    jobs = train_jobs(layout, data, list(range(NUM_CLIENTS)))
    expected = sorted_replies(here(data), jobs)
    with open_local(photographs.populations, 2) as engines:
        for _ in range(2):
            found = sorted_replies(engines[CLIENTS], jobs)
            assert [reply.value.loss for reply in found] == [reply.value.loss for reply in expected]
            # What is still needed of them is in the cache, whichever worker has decoded it.
            shutil.rmtree(tmp_path / "train", ignore_errors=True)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_file_that_cannot_be_used_is_nobodys_absence(
    layout: Layout, data: FederatedData, photographs: FederatedData, tmp_path: Path, workers: int
) -> None:
    (path, *_) = sorted((tmp_path / "train").glob("*/*.png"))
    path.write_bytes(path.read_bytes()[:40])
    jobs = train_jobs(layout, data, list(range(NUM_CLIENTS)))
    with (
        open_local(photographs.populations, workers) as engines,
        pytest.raises(DamagedFileError, match=rf"^{path}: has changed since the command began; start again$"),
    ):
        list(engines[CLIENTS].ask(jobs))


def test_statistics_counts_and_moments_are_those_of_this_process_to_the_bit(
    layout: Layout, data: FederatedData, engines: dict[str, Engine]
) -> None:
    everybody = range(NUM_CLIENTS)
    jobs = dict.fromkeys(everybody, statistics_job(layout, data))
    for there, reply in zip(sorted_replies(engines[CLIENTS], jobs), sorted_replies(here(data), jobs), strict=True):
        (found,), (expected,) = there.value.statistics, reply.value.statistics
        for name, array in expected.to_arrays().items():
            assert np.array_equal(found.to_arrays()[name], array), name
    counting = dict.fromkeys(everybody, counts_job(layout, data, TRAINED))
    for there, reply in zip(
        sorted_replies(engines[CLIENTS], counting), sorted_replies(here(data), counting), strict=True
    ):
        assert answers_of(there) == answers_of(reply)
    counting = {0: counts_job(layout, data, HELD_OUT)}
    (counted,) = sorted_replies(engines[TEST], counting)
    assert answers_of(counted) == answers_of(sorted_replies(here(data, TEST), counting)[0])
    assert counted.value.counted == 20
    pixels = dict.fromkeys(everybody, CountPixels())
    for there, reply in zip(sorted_replies(engines[CLIENTS], pixels), sorted_replies(here(data), pixels), strict=True):
        assert np.array_equal(there.value.histogram_CV, reply.value.histogram_CV)


def test_what_is_stopped_early_leaves_the_engine_usable(
    layout: Layout, data: FederatedData, engines: dict[str, Engine]
) -> None:
    replies = engines[CLIENTS].ask(train_jobs(layout, data, [0, 1, 2, 3, 4, 5]))
    next(replies)
    replies.close()  # type: ignore[attr-defined]
    assert [reply.client for reply in engines[CLIENTS].ask({4: CountPixels()})] == [4]


def test_one_worker_works_in_this_process(data: FederatedData, engines: dict[str, Engine]) -> None:
    with open_local(data.populations, 1) as one:
        assert {name: type(engine) for name, engine in one.items()} == {CLIENTS: InProcess, TEST: InProcess}
        assert one[CLIENTS].clients() == engines[CLIENTS].clients()
    assert {name: type(engine) for name, engine in engines.items()} == {CLIENTS: WorkerEngine, TEST: WorkerEngine}


# --- messages, with a worker that works in this process


class OneWorker:
    """A pool of one worker, here, that notes the messages to it.

    Args:
        answer: What the worker does.
        num_workers: How many it pretends to be.
    """

    def __init__(self, answer: Callable[[Any], object], num_workers: int = 1) -> None:
        self.num_workers, self.held = num_workers, set[str]()
        self.lengths: list[int] = []
        self._answer = answer

    def submit(self, exchange: Callable[[Any], Any]) -> "Future[Any]":
        future: Future[Any] = Future()
        future.set_result(exchange(self))
        return future

    def ask(self, request: tuple[str, bytes]) -> object:
        assert len(self.lengths) < 100, "it never ends"
        self.lengths.append(len(request[1]))
        return self._answer(request)


@pytest.fixture
def one_worker(data: FederatedData, monkeypatch: pytest.MonkeyPatch) -> Callable[..., OneWorker]:
    """Make a worker that keeps so many bytes of blobs."""

    def make(kept_bytes: int = 10**9, num_workers: int = 1) -> OneWorker:
        monkeypatch.setattr(workers, "BlobStore", functools.partial(BlobStore, kept_bytes))
        return OneWorker(workers._open_clients(data.populations), num_workers)

    return make


def engine_of(worker: Any, data: FederatedData, **options: Any) -> WorkerEngine:
    return WorkerEngine(worker, CLIENTS, data.populations()[CLIENTS].infos(), **options)


def blob_bytes(jobs: dict[int, Train]) -> int:
    return next(iter(jobs.values())).weights.num_bytes


def test_a_blob_travels_to_a_worker_once(
    layout: Layout, data: FederatedData, one_worker: Callable[..., OneWorker]
) -> None:
    worker, jobs = one_worker(), train_jobs(layout, data, [0, 1, 2, 3, 4, 5])
    engine = engine_of(worker, data)
    for _ in range(2):
        assert [reply.absent for reply in engine.ask(jobs)] == [None] * NUM_CLIENTS
    first, *others = worker.lengths
    assert worker.held == {jobs[0].weights.name}
    assert len(worker.lengths) == 2 * NUM_CLIENTS
    assert all(length < first - blob_bytes(jobs) for length in others)


def test_a_blob_that_is_no_longer_held_is_sent_again(
    layout: Layout, data: FederatedData, one_worker: Callable[..., OneWorker]
) -> None:
    """The worker keeps one of two, and is asked about one and the other in turn."""
    jobs = train_jobs(layout, data, [0])
    other = {
        0: CountAnswers(
            (standalone(Supernet(layout, initial_weights(layout, 1)).extract(layout.space.largest)),),
            counts_job(layout, data, TRAINED).statistics,
            TRAINED,
            jobs[0].preprocessing,
        )
    }
    worker = one_worker(kept_bytes=1)
    engine = engine_of(worker, data)
    asked: list[dict[int, Job[Any]]] = [dict(jobs), dict(other), dict(jobs)]
    absent = [reply.absent for some in asked for reply in engine.ask(some)]
    assert absent == [None] * 3
    first, _, without_blob, again = worker.lengths
    assert without_blob < again - blob_bytes(jobs)
    assert again == first


@pytest.mark.parametrize(
    ("num_jobs", "num_workers", "sizes"),
    [
        (6, 1, [1, 1, 1, 1, 1, 1]),
        (30, 2, [3] * 10),
        (100, 1, [10] * 10),
        (33, 4, [2] * 16 + [1]),
    ],
)
def test_messages_group_jobs(num_jobs: int, num_workers: int, sizes: list[int], data: FederatedData) -> None:
    """At most ten in one, and at least four messages for each worker."""
    seen: list[int] = []

    class Noting:
        def __init__(self) -> None:
            self.num_workers = num_workers

        def submit(self, exchange: "functools.partial[Any]") -> "Future[Any]":
            seen.append(len(exchange.keywords["jobs"]))
            future: Future[Any] = Future()
            future.set_result([])
            return future

    assert list(engine_of(Noting(), data).ask(dict.fromkeys(range(num_jobs), CountPixels()))) == []
    assert seen == sizes


def test_replies_after_the_deadline_are_not_waited_for(data: FederatedData) -> None:
    """Each answer takes a second: in time are those that come at second 3 or before."""
    now = 0.0

    def ticking() -> float:
        nonlocal now
        now += 1.0
        return now

    jobs = dict.fromkeys(range(NUM_CLIENTS), CountPixels())
    engine = InProcess(data.populations()[CLIENTS], ticking)
    assert [reply.client for reply in engine.ask(jobs, 3.0)] == [0, 1, 2]
    assert [reply.client for reply in engine.ask(jobs)] == list(range(NUM_CLIENTS))


def test_a_worker_that_is_busy_at_the_deadline_is_not_waited_for(data: FederatedData) -> None:
    """What is under way stays so; what has not begun never will."""
    futures: list[Future[Any]] = []
    now = 0.0

    class Slow:
        num_workers = 1

        def submit(self, exchange: Callable[[Any], Any]) -> "Future[Any]":  # noqa: ARG002
            futures.append(Future())
            if len(futures) == 1:
                futures[0].set_result([Reply(0, "done")])
            if len(futures) == 2:
                futures[1].set_running_or_notify_cancel()
            return futures[-1]

    replies = engine_of(Slow(), data, clock=lambda: now).ask(dict.fromkeys(range(4), CountPixels()), 3.0)
    assert next(replies).value == "done"
    now = 3.5
    assert list(replies) == []
    assert [future.cancelled() for future in futures] == [False, False, True, True]


def test_what_a_busy_worker_answers_later_is_heard_in_the_next_exchange(data: FederatedData) -> None:
    """By whoever hears late answers; a worker that has failed since says nothing."""

    class Hearing(Patience[Any]):
        def take_late(self, reply: Reply[Any]) -> None:
            heard.append(reply)

    heard: list[Reply[Any]] = []
    futures: list[Future[Any]] = []
    seconds = itertools.count()

    class Slow:
        num_workers = 2

        def submit(self, exchange: Callable[[Any], Any]) -> "Future[Any]":  # noqa: ARG002
            futures.append(Future())
            futures[-1].set_running_or_notify_cancel()
            return futures[-1]

    engine = engine_of(Slow(), data, clock=lambda: float(next(seconds)))
    assert list(engine.ask(dict.fromkeys(range(3), CountPixels()), 3.0, Hearing())) == []
    assert list(engine.ask({}, 3.0)) == []
    assert heard == []
    futures[0].set_result([Reply(0, "done")])
    futures[1].set_exception(ValueError("died"))
    assert list(engine.ask({}, 3.0)) == []
    assert heard == [Reply(0, "done")]
    assert list(engine.ask({}, 3.0)) == []
    assert heard == [Reply(0, "done")]


def test_a_worker_asked_with_a_deadline_answers_in_time(data: FederatedData, engines: dict[str, Engine]) -> None:
    """By a clock that stands still."""
    engine = engines[CLIENTS]
    assert isinstance(engine, WorkerEngine)
    still = WorkerEngine(engine._pool, CLIENTS, engine.clients(), clock=lambda: 0.0)
    jobs = dict.fromkeys(range(NUM_CLIENTS), CountPixels())
    assert {reply.client for reply in still.ask(jobs, 1.0)} == set(jobs)
