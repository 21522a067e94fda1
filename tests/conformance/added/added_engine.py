"""An engine that nobody ships: jobs done in threads of this process."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any

import torch

from fedsup_deploy.engines.inprocess import perform
from fedsup_deploy.federation.client import ClientId, ClientInfo
from fedsup_deploy.federation.messages import Engine, Job, Reply
from fedsup_deploy.federation.simulation import Population


@contextlib.contextmanager
def open_threads(make_populations: Callable[[], Mapping[str, Population]], workers: int) -> Iterator[dict[str, Engine]]:
    with futures.ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield {name: Threads(population, pool) for name, population in make_populations().items()}


class Threads:
    def __init__(self, population: Population, pool: futures.ThreadPoolExecutor) -> None:
        self._population, self._pool = population, pool

    def clients(self) -> Sequence[ClientInfo]:
        return self._population.infos()

    def ask(
        self, jobs: Mapping[ClientId, Job[Any]], deadline_s: float | None = None, _patience: Any = None
    ) -> Iterator[Reply[Any]]:
        end = None if deadline_s is None else time.monotonic() + deadline_s
        asked = [self._pool.submit(perform, self._population, client, job) for client, job in jobs.items()]
        try:
            for future in futures.as_completed(asked, deadline_s):
                if end is None or time.monotonic() <= end:
                    yield future.result()
        except futures.TimeoutError:
            return
        finally:
            for future in asked:
                future.cancel()
