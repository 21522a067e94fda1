"""Flower's grid as a courier, and a message of Flower's as bytes of ours. Imports flwr."""

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final, Protocol

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from fedsup_deploy.engines.flower.courier import Delivery, FlowerNode, Letter, Ticket
from fedsup_deploy.federation.frame import MALFORMED_ANSWER

#: The kind of message that all of ours are, to Flower.
_QUERY: Final = "query"
#: Names in a message: our bytes, in an array so that Flower sends large ones in pieces, and what they are for.
_BYTES: Final = "message"
_ABOUT: Final = "about"
_POPULATION: Final = "population"
#: What Flower's codes of errors mean. Its own words may quote what a client's library said, and are not passed on.
_ERRORS: Final = {
    1: "its app cannot be loaded",
    2: "its app ended with an error",
    3: "the message was lost",
    4: "the answer was lost",
    5: "the node is gone",
    7: "it has refused the app",
    8: "its process has died",
}
#: Those of them by which nothing is said against sending the message again.
_LOST: Final = frozenset({3, 4})
#: Seconds between looks: at first, and at most.
_FIRST_PAUSE_S: Final = 0.02
_LONGEST_PAUSE_S: Final = 0.5


def content_of(population: str, message: bytes) -> RecordDict:
    """Return the content of a message of Flower's."""
    array = Array("uint8", (len(message),), "bytes", message)
    return RecordDict({_BYTES: ArrayRecord({_BYTES: array}), _ABOUT: ConfigRecord({_POPULATION: population})})


def read_content(content: RecordDict) -> tuple[str, bytes]:
    """Return the population and the bytes in a message of Flower's; what is not of ours is empty."""
    try:
        return str(content[_ABOUT][_POPULATION]), bytes(content[_BYTES][_BYTES].data)
    except (AttributeError, KeyError, TypeError):
        return "", b""


class ConnectedNode(Protocol):
    """A node, as a grid tells of it; one that was registered also has a `name`."""

    @property
    def node_id(self) -> int:
        """Return its number in this run."""
        ...


class Grid(Protocol):
    """What we use of Flower's `Grid`."""

    def get_nodes(self) -> Iterable[ConnectedNode]:
        """Return the nodes that can be asked at present."""
        ...

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str | None]:
        """Send messages; return the number of each, None where it was not taken."""
        ...

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return those answers to messages of some numbers that have come."""
        ...


class GridCourier:
    """A grid, as the engine needs one.

    A SuperLink passes on what it has not looked into, and Flower, which reads all answers of one look together, raises
    what one of them makes it raise. From then on each is looked for alone, so that who sent it is known; that the
    answers that came with it are lost, Flower tells of itself.

    Args:
        grid: Of the running app.
        sleep: Waits for some seconds.
    """

    def __init__(self, grid: Grid, sleep: Callable[[float], None] = time.sleep) -> None:
        self._grid, self._sleep, self._pause_s = grid, sleep, _FIRST_PAUSE_S
        self._pending: dict[Ticket, None] = {}
        self._is_one_by_one = False
        self._unsent: list[Delivery] = []

    def nodes(self) -> Sequence[FlowerNode]:
        """Return the nodes that can be asked at present."""
        return [FlowerNode(info.node_id, getattr(info, "name", "")) for info in self._grid.get_nodes()]

    def send(self, letter: Letter) -> Ticket:
        """Send a message on its way. What Flower does not take comes back as lost."""
        message = Message(
            content_of(letter.population, letter.message), letter.node, _QUERY, ttl=letter.ttl_s, group_id=""
        )
        accepted = list(self._grid.push_messages([message]))
        if accepted and accepted[0] is not None:
            ticket = str(accepted[0])
            self._pending[ticket] = None
        else:
            ticket = f"unsent {len(self._unsent)} {message.metadata.created_at}"
            self._unsent.append(Delivery(ticket, None, "the node is gone, or the message is too large for Flower"))
        self._pause_s = _FIRST_PAUSE_S
        return ticket

    def receive(self, wait_s: float) -> Sequence[Delivery]:
        """Return what has come since; it is looked for again after a while that grows."""
        found, self._unsent = self._unsent, []
        if self._pending:
            found += self._pulled()
        if found:
            self.forget([delivery.ticket for delivery in found])
            self._pause_s = _FIRST_PAUSE_S
        elif wait_s > 0:
            self._sleep(min(wait_s, self._pause_s))
            self._pause_s = min(1.5 * self._pause_s, _LONGEST_PAUSE_S)
        return found

    def forget(self, tickets: Collection[Ticket]) -> None:
        """Wait no longer for some answers."""
        for ticket in tickets:
            self._pending.pop(ticket, None)

    def _pulled(self) -> list[Delivery]:
        """Return what has come of the messages under way."""
        tickets = list(self._pending)
        if not self._is_one_by_one and len(tickets) > 1:
            try:
                return self._read(tickets)
            except Exception:  # noqa: BLE001  of any type: what an answer makes Flower's readers raise
                self._is_one_by_one = True
        found = []
        for ticket in tickets:
            try:
                found += self._read([ticket])
            except Exception as error:  # noqa: BLE001
                # Where it is the SuperLink that fails, this raises as well.
                self._grid.get_nodes()
                reason = f"{MALFORMED_ANSWER}: Flower cannot read it ({type(error).__name__})"
                found.append(Delivery(ticket, None, reason))
        return found

    def _read(self, tickets: Sequence[Ticket]) -> list[Delivery]:
        return [_delivery(message) for message in self._grid.pull_messages(tickets)]


def _delivery(message: Message) -> Delivery:
    ticket = str(message.metadata.reply_to_message_id)
    if message.has_error():
        code = message.error.code
        return Delivery(ticket, None, _ERRORS.get(code, "Flower tells of an error"), code in _LOST)
    return Delivery(ticket, read_content(message.content)[1])
