"""The engine over a courier: one message per client and exchange, whose jobs and replies are as on any other road.

A message may be lost: Flower takes it for delivered as soon as a node has asked for it, though what it is in may never
arrive there. It is sent again: a job may be done twice, for what comes of it hangs on nothing but the job.
"""

import dataclasses
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Final, Generic, TypeVar

from fedsup_deploy.engines.flower.courier import Courier, Delivery, Letter, NodeId, Ticket
from fedsup_deploy.engines.flower.directory import Whereabouts
from fedsup_deploy.engines.flower.node import HELLO
from fedsup_deploy.engines.flower.overdue import Awaited, Overdue
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
#: Seconds after which an answer under way has arrived, and how often a message is sent before it counts as lost.
_GRACE_S: Final = 2.0
_TRIES: Final = 3


class FlowerEngine:
    """Carries jobs to the nodes of a Flower run. Who answered is who the message was for, whatever is in it.

    Args:
        courier: Carries the messages.
        population: What the clients are asked as.
        infos: What they announce.
        directory: Where each of them is.
        patience_s: After so many seconds of silence a node is asked for a sign of life, behind its job. It does one
            thing after another: where that is answered and the job is not, the job is lost. None: nothing is lost, or
            nodes do many things at once.
        clock: Tells the time in seconds, for deadlines.
        overdue: What those wait for that ask by the same courier; None: nobody else does.
    """

    def __init__(
        self,
        courier: Courier,
        population: str,
        infos: Sequence[ClientInfo],
        directory: Whereabouts,
        patience_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        overdue: Overdue | None = None,
    ) -> None:
        self._courier, self._population, self._infos, self.clock = courier, population, infos, clock
        self._directory, self.patience_s = directory, patience_s
        self._held: dict[NodeId, set[str]] = {}
        self._overdue = Overdue() if overdue is None else overdue

    def clients(self) -> Sequence[ClientInfo]:
        """Return who can be asked, ascending."""
        return self._infos

    def admit(self, infos: Sequence[ClientInfo]) -> None:
        """Let some be asked from now on, whose numbers follow those that there are."""
        self._infos = (*self._infos, *infos)

    def beside(self, directory: Whereabouts) -> "FlowerEngine":
        """Return an engine for others, by the same courier; meanwhile this one misses nothing that it waits for."""
        return FlowerEngine(self._courier, self._population, (), directory, self.patience_s, self.clock, self._overdue)

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
        signs: dict[Ticket, _Sent] = {}
        try:
            self._courier.forget(self._overdue.give_up())
            self._directory.refresh()
            for client in jobs:
                node = self._directory.node_of(client)
                if node is None:
                    yield Reply(client, None, self._directory.why_absent())
                elif self.clock() <= terms.end:
                    self._send(pending, _Sent(client, node), terms, held=self._held.setdefault(node, set()))
            while pending and self.clock() <= terms.end and not terms.patience.is_enough():
                for sent, delivery in self._come(pending, signs):
                    if self.clock() > terms.end:
                        self._awaited(sent, terms).take(delivery)
                    elif (reply := self._read(delivery, sent, jobs[sent.client])) is None:
                        self._send(pending, sent, terms)
                    else:
                        yield reply
        finally:
            overdue = {
                ticket: self._awaited(sent, terms)
                for ticket, sent in pending.items()
                if terms.patience.awaits(sent.client)
            }
            self._overdue.add(overdue)
            self._courier.forget([*(pending.keys() - overdue.keys()), *signs])

    def _come(self, pending: "dict[Ticket, _Sent]", signs: "dict[Ticket, _Sent]") -> "Iterator[tuple[_Sent, Delivery]]":
        """Yield what has come of messages since, and what is lost of them."""
        for delivery in self._courier.receive(_TICK_S):
            if delivery.ticket in signs:
                signs.pop(delivery.ticket).take_sign(delivery, self.clock())
            elif delivery.ticket in pending:
                yield pending.pop(delivery.ticket), delivery
            elif not self._overdue.take(delivery):
                self._directory.take(delivery)
        now = self.clock()
        for ticket, sent in list(pending.items()):
            if now - sent.seen > _GRACE_S:
                self._courier.forget([ticket])
                yield pending.pop(ticket), Delivery(ticket, None, f"lost on the way, {sent.tries} times", True)
            elif self.patience_s is not None and not sent.is_asked and now - sent.since > self.patience_s:
                signs[self._courier.send(Letter(sent.node, self._population, HELLO))] = sent
                sent.is_asked = True

    def _awaited(self, sent: "_Sent", terms: "_Terms[R]") -> Awaited:
        """Return an answer that is heard after its exchange, or given up."""

        def take(delivery: Delivery) -> None:
            reply = self._read(delivery, sent, terms.jobs[sent.client])
            # Nothing is sent again for an exchange that is over.
            terms.patience.take_late(reply or Reply(sent.client, None, delivery.lost or "lacks blobs that it was sent"))

        return Awaited(lambda: terms.patience.awaits(sent.client), take)

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
        pending[ticket] = _Sent(sent.client, sent.node, not held, sent.tries + 1, self.clock())

    def _read(self, delivery: Delivery, sent: "_Sent", job: Job[R]) -> Reply[R] | None:
        """Return the reply in what came of a message; None where the node lacks blobs, and is to be sent all."""
        client, held = sent.client, self._held[sent.node]
        if delivery.message is None:
            # What it came to hold is not known.
            held.clear()
            return None if delivery.is_worth_another and sent.tries < _TRIES else Reply(client, None, delivery.lost)
        try:
            replies = encoding.decode_replies(delivery.message, {client: job})
        except DataError as error:
            return encoding.absence(client, error)
        if not isinstance(replies, encoding.Missing):
            return replies[0] if replies else Reply(client, None, "no answer")
        held.clear()
        return Reply(client, None, "lacks blobs that it was sent") if sent.is_whole else None


@dataclasses.dataclass
class _Sent:
    """A message under way.

    Args:
        client: Whose answer is waited for.
        node: Where it went.
        is_whole: Whether it brought all blobs.
        tries: How often it has been sent.
        since: When it was sent.
        is_asked: Whether its node was asked for a sign of life since.
        seen: When that came; infinity where it has not.
    """

    client: ClientId
    node: NodeId
    is_whole: bool = True
    tries: int = 0
    since: float = 0.0
    is_asked: bool = False
    seen: float = float("inf")

    def take_sign(self, delivery: Delivery, now: float) -> None:
        """Take what came of the question for a sign of life; where that was lost, it is asked again."""
        if delivery.message is None:
            self.is_asked, self.since = False, now
        else:
            self.seen = now


@dataclasses.dataclass(frozen=True)
class _Terms(Generic[R]):
    """What an exchange is about, and until when it lasts by the engine's clock."""

    jobs: Mapping[ClientId, Job[R]]
    end: float
    patience: Patience[R]


def far_of(make_populations: MakePopulations) -> dict[str, Population]:
    """Return the populations of clients, which are asked over Flower."""
    return {name: each for name, each in make_populations().items() if name in _FAR}


def own_of(make_populations: MakePopulations) -> dict[str, Population]:
    """Return all others: they are the server's own, and never leave this process and its workers."""
    return {name: each for name, each in make_populations().items() if name not in _FAR}
