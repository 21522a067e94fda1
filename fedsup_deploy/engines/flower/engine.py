"""The engine over a courier: one message per client and exchange, whose jobs and replies are as on any other road."""

import dataclasses
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

from fedsup_deploy.engines.flower.courier import Courier, Delivery, Letter, NodeId, Ticket
from fedsup_deploy.engines.flower.directory import Whereabouts
from fedsup_deploy.engines.workers import MakePopulations
from fedsup_deploy.errors import DataError
from fedsup_deploy.federation import encoding
from fedsup_deploy.federation.client import ClientId, ClientInfo
from fedsup_deploy.federation.messages import Job, Patience, Reply
from fedsup_deploy.federation.simulation import CLIENTS, UNSEEN, Population

R = TypeVar("R")

#: What clients are asked as.
_FAR: Final = (CLIENTS, UNSEEN)
#: Seconds between looks at the clock.
_TICK_S: Final = 0.2


class FlowerEngine:
    """Carries jobs to the nodes of a Flower run. Who answered is who the message was for, whatever is in it.

    Args:
        courier: Carries the messages.
        population: What the clients are asked as.
        infos: What they announce.
        directory: Where each of them is.
        clock: Tells the time in seconds, for deadlines.
    """

    def __init__(
        self,
        courier: Courier,
        population: str,
        infos: Sequence[ClientInfo],
        directory: Whereabouts,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._courier, self._population, self._infos, self.clock = courier, population, infos, clock
        self._directory = directory
        self._held: dict[NodeId, set[str]] = {}
        self._overdue: dict[Ticket, _Overdue] = {}

    def clients(self) -> Sequence[ClientInfo]:
        """Return who can be asked, ascending."""
        return self._infos

    def admit(self, infos: Sequence[ClientInfo]) -> None:
        """Let some be asked from now on, whose numbers follow those that there are."""
        self._infos = (*self._infos, *infos)

    def ask(
        self, jobs: Mapping[ClientId, Job[R]], deadline_s: float | None = None, patience: Patience[R] | None = None
    ) -> Iterator[Reply[R]]:
        """Yield the replies as they come. A node that is busy at the end goes on, unheard but by `patience`.

        Raises:
            FederationError: The Flower run has ended.
        """
        terms: _Terms[R] = _Terms(
            jobs, float("inf") if deadline_s is None else self.clock() + deadline_s, patience or Patience()
        )
        pending: dict[Ticket, _Sent] = {}
        try:
            self._give_up_overdue()
            self._directory.refresh()
            for client in jobs:
                node = self._directory.node_of(client)
                if node is None:
                    yield Reply(client, None, self._directory.why_absent())
                elif self.clock() <= terms.end:
                    self._send(pending, _Sent(client, node), terms, held=self._held.setdefault(node, set()))
            while pending and self.clock() <= terms.end and not terms.patience.is_enough():
                for delivery in self._courier.receive(_TICK_S):
                    sent = pending.pop(delivery.ticket, None)
                    if sent is None:
                        self._take_other(delivery)
                        continue
                    reply = self._read(delivery, sent, jobs[sent.client])
                    if self.clock() > terms.end:
                        if reply is not None:
                            terms.patience.take_late(reply)
                    elif reply is None:
                        self._send(pending, sent, terms)
                    else:
                        yield reply
        finally:
            overdue = {
                ticket: _Overdue(sent, jobs[sent.client], terms.patience)
                for ticket, sent in pending.items()
                if terms.patience.awaits(sent.client)
            }
            self._overdue |= overdue
            self._courier.forget(pending.keys() - overdue.keys())

    def _give_up_overdue(self) -> None:
        """Wait no longer for answers to exchanges that are over which nobody would hear."""
        unheard = [ticket for ticket, each in self._overdue.items() if not each.patience.awaits(each.sent.client)]
        for ticket in unheard:
            del self._overdue[ticket]
        self._courier.forget(unheard)

    def _take_other(self, delivery: Delivery) -> None:
        """Take an answer to what this exchange has not asked: it is to one that is over, or tells who a node is."""
        overdue = self._overdue.pop(delivery.ticket, None)
        if overdue is None:
            self._directory.take(delivery)
        elif (reply := self._read(delivery, overdue.sent, overdue.job)) is not None:
            overdue.patience.take_late(reply)

    def _send(
        self,
        pending: "dict[Ticket, _Sent]",
        sent: "_Sent",
        terms: "_Terms[R]",
        held: Collection[str] = (),
    ) -> None:
        """Send a client its job, without the blobs that its node should hold."""
        message, brought = encoding.encode_request({sent.client: terms.jobs[sent.client]}, held)
        self._held[sent.node] |= brought
        is_endless = terms.end == float("inf")
        ttl_s = None if is_endless else max(terms.end - self.clock(), _TICK_S) + terms.patience.late_s
        ticket = self._courier.send(Letter(sent.node, self._population, message, ttl_s))
        pending[ticket] = dataclasses.replace(sent, is_whole=not held)

    def _read(self, delivery: Delivery, sent: "_Sent", job: Job[R]) -> Reply[R] | None:
        """Return the reply in what came of a message; None where the node lacks blobs, and is to be sent all."""
        client, held = sent.client, self._held[sent.node]
        if delivery.message is None:
            # What it came to hold is not known.
            held.clear()
            return Reply(client, None, delivery.lost)
        try:
            replies = encoding.decode_replies(delivery.message, {client: job})
        except DataError as error:
            return encoding.absence(client, error)
        if not isinstance(replies, encoding.Missing):
            return replies[0] if replies else Reply(client, None, "no answer")
        held.clear()
        return Reply(client, None, "lacks blobs that it was sent") if sent.is_whole else None


@dataclasses.dataclass(frozen=True)
class _Sent:
    """A message under way.

    Args:
        client: Whose answer is waited for.
        node: Where it went.
        is_whole: Whether it brought all blobs.
    """

    client: ClientId
    node: NodeId
    is_whole: bool = True


@dataclasses.dataclass(frozen=True)
class _Terms(Generic[R]):
    """What an exchange is about, and until when it lasts by the engine's clock."""

    jobs: Mapping[ClientId, Job[R]]
    end: float
    patience: Patience[R]


@dataclasses.dataclass(frozen=True)
class _Overdue:
    """A message under way though its exchange is over. Any: exchanges ask for different things."""

    sent: _Sent
    job: Job[Any]
    patience: Patience[Any]


def far_of(make_populations: MakePopulations) -> dict[str, Population]:
    """Return the populations of clients, which are asked over Flower."""
    return {name: each for name, each in make_populations().items() if name in _FAR}


def own_of(make_populations: MakePopulations) -> dict[str, Population]:
    """Return all others: they are the server's own, and never leave this process and its workers."""
    return {name: each for name, each in make_populations().items() if name not in _FAR}
