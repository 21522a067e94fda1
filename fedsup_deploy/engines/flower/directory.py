"""Which client is at which node. A client is known by a name, for Flower's numbers of nodes say nothing."""

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from fedsup_deploy.engines.flower.courier import Courier, Delivery, Letter, NodeId, Ticket
from fedsup_deploy.engines.flower.node import HELLO, name_in
from fedsup_deploy.errors import DataError, FederationError
from fedsup_deploy.federation.client import ClientId

_TICK_S: Final = 0.2


class Whereabouts(Protocol):
    """Which client is at which node."""

    def refresh(self) -> None:
        """See who has come and gone."""
        ...

    def take(self, delivery: Delivery) -> None:
        """Take an answer that no job has."""
        ...

    def node_of(self, client: ClientId) -> NodeId | None:
        """Return where a client is, or None."""
        ...

    def why_absent(self) -> str:
        """Return why a client may not be there, in one line."""
        ...


class SimulatedNodes:
    """Nodes of which each has the images of all clients and computes for whichever it is asked to.

    So none of them is asked who it is, and nothing depends on which is which.

    Args:
        courier: Carries messages.
        num_clients: As many nodes are waited for.
        is_late: Says that they have had time enough.

    Raises:
        FederationError: There are fewer.
    """

    def __init__(self, courier: Courier, num_clients: int, is_late: Callable[[], bool]) -> None:
        self._nodes: list[NodeId] = []
        while len(self._nodes) < num_clients:
            if is_late():
                got = f"got {len(self._nodes)} nodes, expected {num_clients}, one for each client"
                raise FederationError(f"{got}; --federation-config num-supernodes={num_clients}")
            courier.receive(_TICK_S)
            self._nodes = sorted(found.node for found in courier.nodes())

    def refresh(self) -> None:
        """Do nothing: they stay."""

    def take(self, delivery: Delivery) -> None:
        """Do nothing: it is too late."""

    def node_of(self, client: ClientId) -> NodeId:
        """Return a node, for each client another one."""
        return self._nodes[client]

    def why_absent(self) -> str:
        """Return that it is not there; all are."""
        return "not connected"


class Directory:
    """Keeps up with the nodes as they come and go.

    A name that a node was registered under, with its key, counts before what a node says of itself; of two nodes of one
    name the one that came first counts, while it is there, and then the other: a device that starts again may be there
    before its server has missed what it was.

    Args:
        courier: Carries the question who a node is.
        names: Of the clients, in the order of their numbers; None: whoever comes is one.
    """

    def __init__(self, courier: Courier, names: Sequence[str] | None = None) -> None:
        self._courier, self._names = courier, names
        self._named: dict[str, list[NodeId]] = {}
        self._asked: dict[Ticket, NodeId] = {}
        self._known: set[NodeId] = set()
        self._refused: dict[NodeId, str] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Who is there, in order."""
        return tuple(sorted(self._named))

    @property
    def refused(self) -> dict[str, str]:
        """For nodes that cannot take part, such as those of another version, the reason."""
        return {f"node {node}": reason for node, reason in self._refused.items()}

    @property
    def strangers(self) -> tuple[str, ...]:
        """Who is there and no client, in order."""
        return tuple(sorted(self._named.keys() - set(self.names if self._names is None else self._names)))

    def admit(self, names: Sequence[str]) -> None:
        """Let some be clients from now on, whose numbers follow those that there are."""
        self._names = (*(self.names if self._names is None else self._names), *names)

    def place_of(self, name: str) -> NodeId | None:
        """Return where somebody of a name is, client or not, or None."""
        return next(iter(self._named.get(name, ())), None)

    def number(self) -> tuple[str, ...]:
        """Let those that are there be the clients from now on, in the order of their names, and return these."""
        self._names = self.names
        return self._names

    def node_of(self, client: ClientId) -> NodeId | None:
        """Return where a client is, or None."""
        return self.place_of((self.names if self._names is None else self._names)[client])

    def why_absent(self) -> str:
        """Return why a client may not be there, in one line."""
        refused = next(iter(self._refused.values()), None)
        return "not connected" if refused is None else f"not connected; a node was refused: {refused}"

    def refresh(self) -> None:
        """See who has come and gone. Who has no registered name is asked for one, and is there once it answers."""
        found = {each.node: each.name for each in self._courier.nodes()}
        there = ((name, [node for node in nodes if node in found]) for name, nodes in self._named.items())
        self._named = {name: nodes for name, nodes in there if nodes}
        self._refused = {node: reason for node, reason in self._refused.items() if node in found}
        for node in sorted(found.keys() - self._known):
            if found[node]:
                self._named.setdefault(found[node], []).append(node)
            else:
                self._asked[self._courier.send(Letter(node, "", HELLO))] = node
        self._known = set(found)

    def take(self, delivery: Delivery) -> None:
        """Take an answer to the question who a node is; any other is not looked at."""
        node = self._asked.pop(delivery.ticket, None)
        if node is None:
            return
        if delivery.message is None:
            self._known.discard(node)  # to be asked again
            return
        try:
            self._named.setdefault(name_in(delivery.message), []).append(node)
        except DataError as error:
            self._refused[node] = str(error)

    def gather(self, is_enough: Callable[[int], bool]) -> None:
        """Wait until enough of the clients are there; whoever was refused counts as none.

        Args:
            is_enough: Takes how many are.

        Raises:
            FederationError: Nothing can come any more.
        """
        while True:
            self.refresh()
            for delivery in self._courier.receive(_TICK_S):
                self.take(delivery)
            there = self._named.keys() if self._names is None else self._named.keys() & set(self._names)
            if is_enough(len(there)):
                return
