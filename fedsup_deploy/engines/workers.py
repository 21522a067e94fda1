"""Clients simulated on this machine, in worker processes of one thread each.

One thread each keeps the sums of a convolution in one order, so that the result does not depend on how many workers
share the work; and two such processes are faster than two threads in one.
"""

import contextlib
import functools
import queue
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Final, TypeVar

import torch

from fedsup_deploy import memory
from fedsup_deploy.engines.inprocess import InProcess, perform
from fedsup_deploy.engines.pool import Worker, WorkerPool
from fedsup_deploy.errors import DataError
from fedsup_deploy.federation import encoding
from fedsup_deploy.federation.client import ClientId, ClientInfo
from fedsup_deploy.federation.messages import BlobStore, Engine, Job, Patience, Reply
from fedsup_deploy.federation.simulation import Population

R = TypeVar("R")

MakePopulations = Callable[[], Mapping[str, Population]]

#: Jobs that travel in one message, at most, and messages for each worker, at least, where there are as many jobs.
_JOBS_PER_MESSAGE: Final = 10
_MESSAGES_PER_WORKER: Final = 4
#: Seconds between looks at the clock.
_TICK_S: Final = 0.05


@contextlib.contextmanager
def open_local(make_populations: MakePopulations, workers: int) -> Iterator[dict[str, Engine]]:
    """Yield an engine for each population, and end the worker processes they share afterwards.

    One worker works in this process, which spares the start of another.

    Args:
        make_populations: Makes those that can be asked; called here and in every worker, so it must pickle. Its arrays
            are read-only there.
        workers: Number of processes.

    Raises:
        OutputError: No room for temporary files.

    Side effects: Starts processes, which end with the context or with this process, however it ends. A process that
        works, this one too where it is the only one, keeps the memory it frees.
    """
    populations = make_populations()
    if workers == 1:
        memory.keep_freed()
        yield {name: InProcess(population) for name, population in populations.items()}
        return
    with contextlib.closing(WorkerPool(functools.partial(_open_clients, make_populations), workers)) as pool:
        yield {name: WorkerEngine(pool, name, population.infos()) for name, population in populations.items()}


class WorkerEngine:
    """Spreads the jobs for one population over worker processes.

    Args:
        pool: The workers, which know the population by its name.
        population: Its name.
        infos: What its members announce.
        clock: Tells the time in seconds, for deadlines.
    """

    def __init__(
        self,
        pool: WorkerPool,
        population: str,
        infos: Sequence[ClientInfo],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool, self._population, self._infos, self.clock = pool, population, infos, clock
        # At most one for each worker: what a worker has not begun at the end of an exchange is not done.
        self._late: list[tuple[Future[list[Reply[Any]]], Patience[Any]]] = []

    def clients(self) -> Sequence[ClientInfo]:
        """Return who can be asked, ascending."""
        return self._infos

    def ask(
        self, jobs: Mapping[ClientId, Job[R]], deadline_s: float | None = None, patience: Patience[R] | None = None
    ) -> Iterator[Reply[R]]:
        """Yield the replies as they come. A worker that is busy at the deadline goes on, unheard but by `patience`.

        Raises:
            FederationError: A worker process died.
        """
        end = float("inf") if deadline_s is None else self.clock() + deadline_s
        self._hear_late()
        done: queue.SimpleQueue[Future[list[Reply[R]]]] = queue.SimpleQueue()
        futures = [
            self._pool.submit(functools.partial(_exchange, population=self._population, jobs=some))
            for some in _messages(jobs, self._pool.num_workers)
        ]
        waiting = list(futures)
        try:
            for future in futures:
                future.add_done_callback(done.put)
            while waiting:
                finished = self._next(done, end)
                if finished is None:
                    return
                waiting.remove(finished)
                yield from finished.result()
        finally:
            begun = [future for future in waiting if not future.cancel()]
            if patience is not None:
                self._late += [(future, patience) for future in begun]
            self._hear_late()

    def _hear_late(self) -> None:
        """Pass on what has come since of exchanges that are over."""
        known, self._late = self._late, []
        for future, patience in known:
            if not future.done():
                self._late.append((future, patience))
            elif future.exception() is None:
                for reply in future.result():
                    patience.take_late(reply)

    def _next(self, done: "queue.SimpleQueue[Future[list[Reply[R]]]]", end: float) -> Future[list[Reply[R]]] | None:
        """Return the next message that is answered; None where the deadline comes first."""
        while self.clock() <= end:
            with contextlib.suppress(queue.Empty):
                return done.get(timeout=None if end == float("inf") else _TICK_S)
        return None


def _messages(jobs: Mapping[ClientId, Job[R]], num_workers: int) -> list[dict[ClientId, Job[R]]]:
    """Return the jobs in groups that travel together: few messages, but enough for all workers to end together."""
    size = min(max(len(jobs) // (_MESSAGES_PER_WORKER * num_workers), 1), _JOBS_PER_MESSAGE)
    items = list(jobs.items())
    return [dict(items[begin : begin + size]) for begin in range(0, len(items), size)]


def _exchange(worker: Worker, population: str, jobs: Mapping[ClientId, Job[R]]) -> list[Reply[R]]:
    """Carry jobs to a worker and replies back. Where it no longer holds some blob, all of them are sent again."""
    for held in (worker.held, set[str]()):
        message, sent = encoding.encode_request(jobs, held)
        answer = worker.ask((population, message))
        assert isinstance(answer, bytes)
        try:
            replies = encoding.decode_replies(answer, jobs)
        except DataError as error:
            return [encoding.absence(client, error) for client in jobs]
        if not isinstance(replies, encoding.Missing):
            worker.held |= sent
            return replies
        worker.held.difference_update(replies.blobs)
    raise AssertionError("a message that brought all blobs lacks one")


def _open_clients(make_populations: MakePopulations) -> Callable[[tuple[str, bytes]], bytes]:
    """Return what answers messages in a worker process."""
    torch.set_num_threads(1)
    memory.keep_freed()
    populations, store = make_populations(), BlobStore()

    def answer(request: tuple[str, bytes]) -> bytes:
        population, message = request
        jobs = encoding.decode_request(message, store)
        if isinstance(jobs, encoding.Missing):
            return encoding.encode_missing(jobs)
        replies = [perform(populations[population], client, job) for client, job in jobs.items()]
        return encoding.encode_replies(replies, jobs)

    return answer
