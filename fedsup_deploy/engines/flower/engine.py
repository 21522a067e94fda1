"""The engine over a courier: one message per client and exchange, whose jobs and replies are as on any other road."""

import dataclasses
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Final, TypeVar

from fedsup_deploy.engines.flower.courier import Courier, Delivery, Letter, NodeId, Ticket
from fedsup_deploy.engines.flower.node import HELLO, name_in
from fedsup_deploy.errors import DataError, FederationError
from fedsup_deploy.federation import encoding
from fedsup_deploy.federation.client import ClientId, ClientInfo
from fedsup_deploy.federation.messages import Job, Reply

R = TypeVar("R")

#: Seconds between looks at the clock.
_TICK_S: Final = 0.2


class FlowerEngine:
    """Carries jobs to the nodes of a Flower run. Who answered is who the message was for, whatever is in it.

    Args:
        courier: Carries the messages.
        population: What the clients are asked as.
        infos: What they announce.
        nodes: Where each of them is.
        clock: Tells the time in seconds, for deadlines.
    """

    def __init__(
        self,
        courier: Courier,
        population: str,
        infos: Sequence[ClientInfo],
        nodes: Mapping[ClientId, NodeId],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._courier, self._population, self._infos, self.clock = courier, population, infos, clock
        self._nodes = nodes
        self._held: dict[NodeId, set[str]] = {node: set() for node in nodes.values()}

    def clients(self) -> Sequence[ClientInfo]:
        """Return who can be asked, ascending."""
        return self._infos

    def ask(self, jobs: Mapping[ClientId, Job[R]], deadline_s: float | None = None) -> Iterator[Reply[R]]:
        """Yield the replies as they come. A node that is busy at the deadline goes on, unheard.

        Raises:
            FederationError: The Flower run has ended.
        """
        end = float("inf") if deadline_s is None else self.clock() + deadline_s
        pending: dict[Ticket, _Sent] = {}
        try:
            for client in jobs:
                self._send(pending, client, jobs, end, held=self._held[self._nodes[client]])
            while pending and self.clock() <= end:
                for delivery in self._courier.receive(_TICK_S):
                    sent = pending.pop(delivery.ticket, None)
                    if sent is None:
                        continue
                    reply = self._read(delivery, sent, jobs[sent.client])
                    if self.clock() > end:
                        return
                    if reply is None:
                        self._send(pending, sent.client, jobs, end)
                    else:
                        yield reply
        finally:
            self._courier.forget(pending)

    def _send(
        self,
        pending: "dict[Ticket, _Sent]",
        client: ClientId,
        jobs: Mapping[ClientId, Job[R]],
        end: float,
        held: Collection[str] = (),
    ) -> None:
        """Send a client its job, without the blobs that its node should hold."""
        node = self._nodes[client]
        message, brought = encoding.encode_request({client: jobs[client]}, held)
        self._held[node] |= brought
        ttl_s = None if end == float("inf") else max(end - self.clock(), _TICK_S)
        ticket = self._courier.send(Letter(node, self._population, message, ttl_s))
        pending[ticket] = _Sent(client, is_whole=not held)

    def _read(self, delivery: Delivery, sent: "_Sent", job: Job[R]) -> Reply[R] | None:
        """Return the reply in what came of a message; None where the node lacks blobs, and is to be sent all."""
        client, held = sent.client, self._held[self._nodes[sent.client]]
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
        is_whole: Whether it brought all blobs.
    """

    client: ClientId
    is_whole: bool


def introduce(courier: Courier, wanted: Callable[[Mapping[str, NodeId]], bool]) -> dict[str, NodeId]:
    """Return the nodes by their names, once there are those that are wanted.

    A name that Flower vouches for counts before what a node says of itself, and two nodes of one name are refused.

    Args:
        courier: Carries the messages.
        wanted: Says whether these are enough.

    Raises:
        FederationError: A node is of another version, or two have one name.
    """
    named: dict[str, NodeId] = {}
    asked: dict[Ticket, NodeId] = {}
    known: set[NodeId] = set()
    while not wanted(named):
        for found in courier.nodes():
            if found.node not in known:
                known.add(found.node)
                if found.name:
                    _enter(named, found.name, found.node)
                else:
                    asked[courier.send(Letter(found.node, "", HELLO))] = found.node
        for delivery in courier.receive(_TICK_S):
            node = asked.pop(delivery.ticket, None)
            if node is None or delivery.message is None:
                known.discard(-1 if node is None else node)
                continue
            try:
                _enter(named, name_in(delivery.message), node)
            except DataError as error:
                raise FederationError(f"node {node}: {error}") from error
    return named


def _enter(named: dict[str, NodeId], name: str, node: NodeId) -> None:
    if named.setdefault(name, node) != node:
        raise FederationError(f"two nodes are called {name!r}; give each its own name")
