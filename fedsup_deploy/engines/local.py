"""Clients simulated on this machine, in worker processes of one thread each.

One thread each keeps the sums of a convolution in one order, so that the result does not depend on how many workers
share the work; and two such processes are faster than two threads in one.
"""

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Any

import numpy as np
import torch

from fedsup_deploy.engines.pool import WorkerPool
from fedsup_deploy.federated.site import InProcess, Site
from fedsup_deploy.federated.tasks import Engine, Task


def local_engine(make_site: Callable[[], Site], workers: int) -> Engine:
    """Return the engine for a number of workers: one works in this process, which spares the start of another.

    Args:
        make_site: Makes the place where the images are; called once in every worker, so it must pickle.
        workers: Number of processes.

    Raises:
        OutputError: No room for temporary files.
    """
    return InProcess(make_site()) if workers == 1 else LocalEngine(make_site, workers)


class LocalEngine:
    """Spreads tasks over worker processes; replies come in the order of the tasks.

    Args:
        make_site: Makes the place where the images are; called once in every worker, so it must pickle. Its arrays are
            read-only there.
        workers: Number of processes.

    Raises:
        OutputError: No room for temporary files.

    Side effects: Starts processes, which end with `close` or with this process, however it ends.
    """

    def __init__(self, make_site: Callable[[], Site], workers: int) -> None:
        self.num_parallel = workers
        self._pool: WorkerPool[Task, Any] = WorkerPool(functools.partial(_open_site, make_site), workers)

    def run(self, tasks: Iterable[Task]) -> Iterator[Any]:
        """Yield the reply to each task, in order. At most two tasks per worker are under way or waiting.

        Raises:
            FederationError: A worker process died.
        """
        pending: collections.deque[Future[Any]] = collections.deque()
        try:
            for task in tasks:
                pending.append(self._pool.submit(_to_numpy(task)))
                if len(pending) >= 2 * self.num_parallel:
                    yield _to_torch(pending.popleft().result())
            while pending:
                yield _to_torch(pending.popleft().result())
        finally:
            for future in pending:
                future.cancel()

    def close(self) -> None:
        """End the worker processes, whatever they are doing."""
        self._pool.close()


def _open_site(make_site: Callable[[], Site]) -> Callable[[Task], Any]:
    """Return what performs tasks in a worker process."""
    torch.set_num_threads(1)
    site = make_site()
    return lambda task: _to_numpy(site.perform(_to_torch(task)))


# Tensors travel as arrays: pickled tensors would each take a file descriptor of shared memory.


def _to_numpy(message: Any) -> Any:
    return _with_weights(message, lambda tensor: np.ascontiguousarray(tensor.detach().numpy()))


def _to_torch(message: Any) -> Any:
    return _with_weights(message, torch.from_numpy)


def _with_weights(message: Any, convert: Callable[[Any], Any]) -> Any:
    if not hasattr(message, "weights"):
        return message
    return dataclasses.replace(message, weights={name: convert(value) for name, value in message.weights.items()})
