"""Jobs done in this process, one after the other, in one thread."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import torch

from fedsup_deploy.data.dataset import DamagedFileError
from fedsup_deploy.federation.client import ClientId, ClientInfo
from fedsup_deploy.federation.encoding import absence, as_received, discreet_absence
from fedsup_deploy.federation.messages import Job, Patience, Reply
from fedsup_deploy.federation.simulation import Population

R = TypeVar("R")


class InProcess:
    """The engine of one thread in this process: a job is done when its reply is asked for.

    Args:
        population: Who can be asked.
        clock: Tells the time in seconds, for deadlines.
    """

    def __init__(self, population: Population, clock: Callable[[], float] = time.monotonic) -> None:
        self._population, self.clock = population, clock

    def clients(self) -> Sequence[ClientInfo]:
        """Return who can be asked, ascending."""
        return self._population.infos()

    def ask(
        self, jobs: Mapping[ClientId, Job[R]], deadline_s: float | None = None, patience: Patience[R] | None = None
    ) -> Iterator[Reply[R]]:
        """Yield the replies, in the order of the jobs.

        What is under way at the deadline is finished, and too late; clients after it are not asked.

        Side effects: While a job is done, torch uses one thread.
        """
        end = float("inf") if deadline_s is None else self.clock() + deadline_s
        for client, job in jobs.items():
            threads = torch.get_num_threads()
            torch.set_num_threads(1)
            try:
                reply = perform(self._population, client, job)
            finally:
                torch.set_num_threads(threads)
            if self.clock() > end:
                if patience is not None:
                    patience.take_late(reply)
                return
            yield reply


def perform(population: Population, client: ClientId, job: Job[R]) -> Reply[R]:
    """Return what comes of one job, whatever the client does but ending the process.

    Raises:
        DamagedFileError: A file of the images is damaged, which is no matter of a client's.
    """
    try:
        value = population.client(client).perform(job)
    except DamagedFileError:
        raise
    except Exception as error:  # noqa: BLE001  a client may fail in any way; the server is told of it
        return absence(client, error)
    return as_received(Reply(client, value), job)


def perform_discreetly(population: Population, client: ClientId, job: Job[R]) -> Reply[R]:
    """Return the same as a server learns of it that may not see the client's images."""
    try:
        value = population.client(client).perform(job)
    except Exception as error:  # noqa: BLE001  a client may fail in any way; the server is told that it has
        return discreet_absence(client, error)
    return as_received(Reply(client, value), job)
