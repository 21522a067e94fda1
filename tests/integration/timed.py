"""An engine in which time is simulated: clients take as long as a test says, and no clock runs."""

import contextlib
import heapq
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from fedsup_deploy.engines.inprocess import InProcess, perform
from fedsup_deploy.federation.client import ClientId, ClientInfo
from fedsup_deploy.federation.messages import Engine, Job, Patience, Reply
from fedsup_deploy.federation.simulation import CLIENTS, Population

#: From a client and its job to the reply.
Answer = Callable[[ClientId, Any], Reply[Any]]
#: From the number of an exchange, from 0, its job and a client to the seconds until its reply is there.
Seconds = Callable[[int, Any, ClientId], float]


class Timed:
    """Replies are there when their time has come; those of one moment come together.

    Args:
        infos: Who can be asked.
        answer: What each answers.
        seconds: How long each takes.
        backwards: Whether those of one moment come in the order opposite to that of the jobs.
    """

    def __init__(
        self, infos: Sequence[ClientInfo], answer: Answer, seconds: Seconds, *, backwards: bool = False
    ) -> None:
        self.now, self.asked, self.ended = 0.0, list[dict[ClientId, Any]](), list[float]()
        self._infos, self._answer, self._seconds, self._sign = infos, answer, seconds, -1 if backwards else 1
        self._coming: list[tuple[float, int, int, Reply[Any], Patience[Any] | None]] = []
        self._numbers = itertools.count()

    def clients(self) -> Sequence[ClientInfo]:
        return self._infos

    def ask(
        self,
        jobs: Mapping[ClientId, Job[Any]],
        deadline_s: float | None = None,
        patience: Patience[Any] | None = None,
    ) -> Iterator[Reply[Any]]:
        exchange, end = len(self.asked), float("inf") if deadline_s is None else self.now + deadline_s
        self.asked.append(dict(jobs))
        for client, job in jobs.items():
            at = self.now + self._seconds(exchange, job, client)
            number = self._sign * next(self._numbers)
            heapq.heappush(self._coming, (at, number, exchange, self._answer(client, job), patience))
        left = len(jobs)
        while left and self._coming and not (patience is not None and patience.is_enough()):
            if self._coming[0][0] > end:
                break
            self.now = self._coming[0][0]
            for reply in self._due(exchange):
                left -= 1
                yield reply
        if left and not (patience is not None and patience.is_enough()):
            self.now = end
        self.ended.append(self.now)

    def _due(self, exchange: int) -> Iterator[Reply[Any]]:
        """Yield all that is there now, and pass on what is of exchanges that are over."""
        while self._coming and self._coming[0][0] <= self.now:
            _, _, of, reply, patience = heapq.heappop(self._coming)
            if of == exchange:
                yield reply
            elif patience is not None and patience.awaits(reply.client):
                patience.take_late(reply)


def opening(seconds: Seconds) -> Callable[..., contextlib.AbstractContextManager[dict[str, Engine]]]:
    """Return an engine for the registry: the server's own images are there at once."""

    @contextlib.contextmanager
    def open_timed(make: Callable[[], Mapping[str, Population]], _workers: int) -> Iterator[dict[str, Engine]]:
        populations = make()
        clients = populations[CLIENTS]
        timed = Timed(clients.infos(), lambda client, job: perform(clients, client, job), seconds)
        yield {name: timed if name == CLIENTS else InProcess(each) for name, each in populations.items()}

    return open_timed
