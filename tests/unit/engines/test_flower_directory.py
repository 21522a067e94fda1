"""Which client is at which node: names count, and numbers say nothing."""

from collections.abc import Collection, Sequence

import pytest
from safetensors.numpy import save

from fedsup_deploy.engines.flower.courier import Delivery, FlowerNode, Letter, Ticket
from fedsup_deploy.engines.flower.directory import Directory, SimulatedNodes
from fedsup_deploy.engines.flower.node import HELLO, ClientNode
from fedsup_deploy.errors import FederationError
from fedsup_deploy.federation.frame import PROTOCOL


class Nodes:
    """A courier to nodes that come and go.

    Args:
        called: By number, what a node calls itself.
        registered: By number, the name that it was registered under.
    """

    def __init__(self, called: dict[int, str], registered: dict[int, str] | None = None) -> None:
        self.called, self.registered = called, registered or {}
        self.sent: list[Letter] = []
        self._answers: list[Delivery] = []

    def nodes(self) -> Sequence[FlowerNode]:
        return [FlowerNode(node, self.registered.get(node, "")) for node in self.called]

    def send(self, letter: Letter) -> Ticket:
        self.sent.append(letter)
        ticket = str(len(self.sent))
        self._answers.append(Delivery(ticket, self.answer(letter)))
        return ticket

    def answer(self, letter: Letter) -> bytes:
        # No blob is ever asked for here.
        return ClientNode(self.called[letter.node], {}, None).answer(letter.population, letter.message)  # type: ignore[arg-type]

    def receive(self, wait_s: float) -> Sequence[Delivery]:
        assert wait_s > 0
        found, self._answers = self._answers, []
        return found

    def forget(self, tickets: Collection[Ticket]) -> None:
        raise AssertionError(tickets)


class OfAnotherVersion(Nodes):
    def answer(self, letter: Letter) -> bytes:
        assert letter.message == HELLO
        return save({}, metadata={"document": "{}", "protocol": "99", "version": "9.0"})


def test_of_simulated_nodes_none_is_asked_who_it_is() -> None:
    nodes = Nodes({9: "a", 2: "b", 5: "c"})
    found = SimulatedNodes(nodes, 2, lambda: False)
    assert [found.node_of(client) for client in range(2)] == [2, 5]
    assert nodes.sent == []


def test_too_few_simulated_nodes_are_told_how_to_be_more() -> None:
    with pytest.raises(FederationError, match=r"^got 0 nodes, expected 3, .* --federation-config num-supernodes=3$"):
        SimulatedNodes(Nodes({9: "a"}), 3, lambda: True)


def test_clients_are_found_by_name_whatever_their_numbers() -> None:
    directory = Directory(Nodes({9: "a", 2: "c", 5: "b"}), ["a", "b", "c"])
    directory.gather(lambda there: there == 3)
    assert [directory.node_of(client) for client in range(3)] == [9, 5, 2]


def test_a_registered_name_counts_and_is_not_asked_for() -> None:
    nodes = Nodes({1: "b", 2: "a"}, registered={1: "a"})
    directory = Directory(nodes, ["a", "b"])
    directory.gather(lambda there: there == 1)
    assert directory.node_of(0) == 1
    assert [letter.node for letter in nodes.sent] == [2]


def test_of_two_nodes_of_one_name_the_first_counts_while_it_is_there() -> None:
    nodes = Nodes({1: "a"})
    directory = Directory(nodes, ["a"])
    directory.gather(lambda there: there == 1)
    nodes.called[2] = "a"
    directory.gather(lambda there: there == 1)
    assert directory.node_of(0) == 1


@pytest.mark.parametrize("registered", [{}, {1: "a", 2: "a"}])
@pytest.mark.parametrize("is_there_at_once", [True, False])
def test_who_starts_again_before_it_was_missed_is_there_once_it_was(
    registered: dict[int, str], *, is_there_at_once: bool
) -> None:
    """A device that is killed is missed within a minute, and may be back after seconds."""
    nodes = Nodes({1: "a", **({2: "a"} if is_there_at_once else {})}, registered)
    directory = Directory(nodes, ["a"])
    directory.gather(lambda there: there == 1)
    nodes.called[2] = "a"
    directory.gather(lambda there: there == 1)
    del nodes.called[1]
    directory.gather(lambda _: True)
    assert (directory.node_of(0), directory.names) == (2, ("a",))
    del nodes.called[2]
    directory.gather(lambda _: True)
    assert (directory.node_of(0), directory.names) == (None, ())


def test_who_goes_is_absent_until_it_comes_back_under_another_number() -> None:
    nodes = Nodes({1: "a", 2: "b"})
    directory = Directory(nodes, ["a", "b"])
    directory.gather(lambda there: there == 2)
    del nodes.called[2]
    directory.refresh()
    assert (directory.node_of(0), directory.node_of(1), directory.why_absent()) == (1, None, "not connected")
    nodes.called[7] = "b"
    directory.gather(lambda there: there == 2)
    assert directory.node_of(1) == 7


def test_a_node_of_another_version_is_refused_in_a_line_that_names_both() -> None:
    directory = Directory(OfAnotherVersion({1: "a"}), ["a"])
    directory.gather(lambda there: there == 0)
    assert directory.node_of(0) is None
    refused = "a node was refused: message: protocol 99 (fedsup-deploy 9.0), "
    assert directory.why_absent().startswith(f"not connected; {refused}")
    assert f"here it is {PROTOCOL} " in directory.refused["node 1"]


def test_those_that_are_there_can_be_made_the_clients() -> None:
    nodes = Nodes({4: "b", 3: "a"})
    directory = Directory(nodes)
    directory.gather(lambda there: there == 2)
    assert directory.number() == ("a", "b")
    nodes.called[1] = "0"
    directory.gather(lambda _: True)
    assert [directory.node_of(client) for client in range(2)] == [3, 4]
