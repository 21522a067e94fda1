"""A courier used from another process: what goes in at one end comes out at the other."""

import contextlib
import multiprocessing
import threading
from collections.abc import Collection, Iterator, Sequence

import pytest

from fedsup_deploy.engines.flower import relay
from fedsup_deploy.engines.flower.courier import Delivery, FlowerNode, Letter, Ticket
from fedsup_deploy.errors import FederationError


class Echo:
    """A courier whose nodes answer with what they were sent; node 13 is gone, and node 0 never answers."""

    def __init__(self) -> None:
        self.pending: dict[Ticket, Letter] = {}
        self.forgotten: list[Ticket] = []
        self._number = 0

    def nodes(self) -> Sequence[FlowerNode]:
        return [FlowerNode(2**64 - 1, "far \u00fc"), FlowerNode(13, "")]

    def send(self, letter: Letter) -> Ticket:
        self._number += 1
        self.pending[f"t{self._number}"] = letter
        return f"t{self._number}"

    def receive(self, wait_s: float) -> Sequence[Delivery]:
        assert wait_s == 0
        found = [
            Delivery(ticket, None, "gone") if letter.node == 13 else Delivery(ticket, letter.message)
            for ticket, letter in self.pending.items()
            if letter.node
        ]
        for delivery in found:
            del self.pending[delivery.ticket]
        return found

    def forget(self, tickets: Collection[Ticket]) -> None:
        self.forgotten.extend(tickets)
        for ticket in tickets:
            del self.pending[ticket]


class App:
    """The other end, in a thread of its own."""

    def __init__(self) -> None:
        self.echo, self.ended = Echo(), ""
        self.ours, self._theirs = multiprocessing.Pipe()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        try:
            relay.serve(self._theirs, self.echo)
            self.ended = "as it should"
        except EOFError:
            self.ended = "left alone"
        self._theirs.close()

    def join(self) -> str:
        self._thread.join()
        return self.ended


@contextlib.contextmanager
def connected() -> Iterator[tuple[App, relay.RelayCourier]]:
    app = App()
    with contextlib.closing(relay.RelayCourier(app.ours, lambda: "it says why")) as courier:
        yield app, courier


def received(courier: relay.RelayCourier, count: int) -> dict[Ticket, Delivery]:
    found: dict[Ticket, Delivery] = {}
    while len(found) < count:
        found |= {delivery.ticket: delivery for delivery in courier.receive(0.5)}
    return found


def test_messages_and_nodes_come_through() -> None:
    with connected() as (app, courier):
        nothing = courier.send(Letter(1, "", b""))
        large = courier.send(Letter(2, "clients", bytes(range(256)) * 2**14, 0.5))
        lost = courier.send(Letter(13, "clients", b"x"))
        assert courier.nodes() == [FlowerNode(2**64 - 1, "far \u00fc"), FlowerNode(13, "")]
        found = received(courier, 3)
        assert found[nothing].message == b""
        assert found[large].message == bytes(range(256)) * 2**14
        assert (found[lost].message, found[lost].lost) == (None, "gone")
        courier.end()
        assert app.join() == "as it should"


def test_what_is_forgotten_is_no_longer_waited_for() -> None:
    with connected() as (app, courier):
        tickets = [courier.send(Letter(0, "", b"")) for _ in range(2)]
        courier.forget(tickets[:1])
        courier.forget(["an unknown one"])
        courier.nodes()
        courier.end()
        app.join()
        assert app.echo.forgotten == ["t1"]
        assert list(app.echo.pending) == ["t2"]


def test_many_large_messages_in_both_directions_do_not_wait_for_each_other() -> None:
    """More than fits into any buffer between the two, before anything is taken out."""
    with connected() as (app, courier):
        tickets = [courier.send(Letter(1, "", bytes(2**20))) for _ in range(20)]
        assert received(courier, 20).keys() == set(tickets)
        courier.end()
        app.join()


def test_an_app_that_ends_is_noticed_in_every_call() -> None:
    with connected() as (app, courier):
        courier.end()
        app.join()
        for call in (lambda: courier.receive(0.5), courier.nodes, lambda: courier.receive(0)):
            with pytest.raises(FederationError, match=r"^it says why$"):
                call()


def test_an_app_whose_command_is_gone_has_failed() -> None:
    """As after a kill: nobody has said that the work is done."""
    app = App()
    app.ours.close()
    assert app.join() == "left alone"


def test_nobody_reads_of_a_connection_that_is_closed() -> None:
    """Its number is given to what is opened next: a reader that goes on would take bytes of that."""
    before = set(threading.enumerate())
    for _ in range(50):
        with connected() as (app, courier):
            courier.nodes()
            courier.end()
        app.join()
        assert set(threading.enumerate()) <= before
