"""How messages get to nodes and back, for the engine: a few methods, of which Flower's grid is one maker."""

import dataclasses
from collections.abc import Collection, Sequence
from typing import Protocol

NodeId = int
#: What the answer to a message is known by.
Ticket = str


@dataclasses.dataclass(frozen=True)
class FlowerNode:
    """A node as Flower knows it.

    Args:
        node: Its number in this run.
        name: Which it was registered under; empty where it was not.
    """

    node: NodeId
    name: str


@dataclasses.dataclass(frozen=True)
class Letter:
    """A message to a node.

    Args:
        node: Where to.
        population: Which of its populations is asked.
        message: What for.
        ttl_s: How long an answer is of use, in seconds; None: as long as Flower keeps it.
    """

    node: NodeId
    population: str
    message: bytes
    ttl_s: float | None = None


@dataclasses.dataclass(frozen=True)
class Delivery:
    """What came of a message.

    Args:
        ticket: Of which.
        message: The answer; None where there is none.
        lost: Why there is none, in our words.
        is_worth_another: Whether the same message, sent again, may be answered: it was lost, or the answer was.
    """

    ticket: Ticket
    message: bytes | None
    lost: str = ""
    is_worth_another: bool = False


class Courier(Protocol):
    """Carries messages to nodes, and what they answer back."""

    def nodes(self) -> Sequence[FlowerNode]:
        """Return the nodes that can be asked at present."""
        ...

    def send(self, letter: Letter) -> Ticket:
        """Send a message on its way."""
        ...

    def receive(self, wait_s: float) -> Sequence[Delivery]:
        """Return what has come since.

        Args:
            wait_s: How long to wait for something to come, at most, in seconds.

        Raises:
            FederationError: Nothing can come any more.
        """
        ...

    def forget(self, tickets: Collection[Ticket]) -> None:
        """Wait no longer for some answers."""
        ...
