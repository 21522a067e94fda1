"""Clients simulated on this machine, in worker processes of one thread each.

One thread each keeps the sums of a convolution in one order, so that the result does not depend on how many workers
share the work; and two such processes are faster than two threads in one.
"""

import collections
import contextlib
import dataclasses
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np
import torch

from fedsup_deploy.errors import FederationError
from fedsup_deploy.federated.site import InProcess, Site
from fedsup_deploy.federated.tasks import Engine, Task


def local_engine(make_site: Callable[[], Site], workers: int) -> Engine:
    """Return the engine for a number of workers: one works in this process, which spares the start of another.

    Args:
        make_site: Makes the place where the images are; called once in every worker, so it must pickle.
        workers: Number of processes.
    """
    return InProcess(make_site()) if workers == 1 else LocalEngine(make_site, workers)


class LocalEngine:
    """Spreads tasks over worker processes; replies come in the order of the tasks.

    Args:
        make_site: Makes the place where the images are; called once in every worker, so it must pickle.
        workers: Number of processes.

    Side effects: Starts processes, which end with `close` or with this process, however it ends.
    """

    def __init__(self, make_site: Callable[[], Site], workers: int) -> None:
        self._workers = workers
        self._pool = ProcessPoolExecutor(
            workers, multiprocessing.get_context("spawn"), initializer=_start_worker, initargs=(make_site,)
        )

    def run(self, tasks: Iterable[Task]) -> Iterator[Any]:
        """Yield the reply to each task, in order. At most two tasks per worker are under way or waiting.

        Raises:
            FederationError: A worker process died.
        """
        pending: collections.deque[Future[Any]] = collections.deque()
        try:
            for task in tasks:
                # The pool starts a worker when a task finds none idle.
                with _ctrl_c_held_back():
                    pending.append(self._pool.submit(_perform, _to_numpy(task)))
                if len(pending) >= 2 * self._workers:
                    yield _to_torch(pending.popleft().result())
            while pending:
                yield _to_torch(pending.popleft().result())
        except BrokenProcessPool as error:
            raise FederationError(
                "a worker process died, killed or out of memory; lower engine.workers and continue with --resume"
            ) from error
        finally:
            for future in pending:
                future.cancel()

    def close(self) -> None:
        """End the worker processes."""
        self._pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _ctrl_c_held_back() -> Iterator[None]:
    """Let Ctrl-C wait. A process started meanwhile inherits that for good.

    Ctrl-C reaches the whole process group; this process decides what it means, and it must not strike a worker even
    while that loads its libraries.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_site: Site | None = None


def _start_worker(make_site: Callable[[], Site]) -> None:
    global _site  # noqa: PLW0603  one site per worker process, set once before its first task
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    _site = make_site()


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _perform(task: Task) -> Any:
    assert _site is not None
    return _to_numpy(_site.perform(_to_torch(task)))


# Tensors travel as arrays: pickled tensors would each take a file descriptor of shared memory.


def _to_numpy(message: Any) -> Any:
    return _with_weights(message, lambda tensor: np.ascontiguousarray(tensor.detach().numpy()))


def _to_torch(message: Any) -> Any:
    return _with_weights(message, torch.from_numpy)


def _with_weights(message: Any, convert: Callable[[Any], Any]) -> Any:
    if not hasattr(message, "weights"):
        return message
    return dataclasses.replace(message, weights={name: convert(value) for name, value in message.weights.items()})
