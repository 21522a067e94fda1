"""Messages that are lost on the way: Flower takes them for delivered, so nobody but the engine misses them."""

import itertools
from collections.abc import Collection, Sequence
from pathlib import Path

from local_grid import LocalGrid, app_of
from test_attacks import NODE_IDS, in_every_exchange, suite

from fedsup_deploy.engines.flower.blobs import DiskBlobs
from fedsup_deploy.engines.flower.courier import Courier, Delivery, FlowerNode, Letter, Ticket
from fedsup_deploy.engines.flower.directory import Directory
from fedsup_deploy.engines.flower.engine import FlowerEngine
from fedsup_deploy.engines.flower.grid import GridCourier
from fedsup_deploy.engines.flower.node import HELLO, ClientNode
from fedsup_deploy.federation.jobs.announce import Announce
from fedsup_deploy.federation.simulation import CLIENTS


class LosingCourier:
    """A courier that loses jobs.

    Args:
        courier: Carries what is not lost.
        losses: How many of the jobs for each node are lost at first.
        is_known: Whether that is told, as Flower does of some; otherwise they are never heard of again.
    """

    def __init__(self, courier: Courier, losses: int, *, is_known: bool) -> None:
        self._courier, self._losses, self._is_known = courier, losses, is_known
        self._left: dict[int, int] = {}
        self._told: list[Delivery] = []
        self._numbers = itertools.count()

    def nodes(self) -> Sequence[FlowerNode]:
        return self._courier.nodes()

    def send(self, letter: Letter) -> Ticket:
        left = self._left.setdefault(letter.node, self._losses)
        if letter.message == HELLO or left == 0:
            return self._courier.send(letter)
        self._left[letter.node] = left - 1
        ticket = f"lost {next(self._numbers)}"
        if self._is_known:
            self._told.append(Delivery(ticket, None, "the message was lost", is_worth_another=True))
        return ticket

    def receive(self, wait_s: float) -> Sequence[Delivery]:
        told, self._told = self._told, []
        return [*told, *self._courier.receive(wait_s)]

    def forget(self, tickets: Collection[Ticket]) -> None:
        self._courier.forget(tickets)


def engine_that_loses(losses: int, folder: Path, *, is_known: bool) -> FlowerEngine:
    """Return an engine whose clock goes on by a second whenever it is looked at."""
    populations = {CLIENTS: suite.federated_data().populations()[CLIENTS]}
    nodes = {
        number: app_of(ClientNode(str(client), populations, DiskBlobs(folder / str(client))))
        for client, number in enumerate(NODE_IDS)
    }
    courier = LosingCourier(GridCourier(LocalGrid(nodes), sleep=lambda _: None), losses, is_known=is_known)
    directory = Directory(courier, [str(client) for client in range(suite.NUM_CLIENTS)])
    directory.gather(lambda there: there == suite.NUM_CLIENTS)
    clock = itertools.count()
    infos = populations[CLIENTS].infos()
    return FlowerEngine(courier, CLIENTS, infos, directory, patience_s=30.0, clock=lambda: float(next(clock)))


@in_every_exchange
def test_same_bits_where_the_first_jobs_are_never_heard_of_again(exchange: str, tmp_path: Path) -> None:
    engine = engine_that_loses(2, tmp_path, is_known=False)
    assert suite.carried_out(exchange, engine) == suite.without(None, frozenset(), exchange)


@in_every_exchange
def test_same_bits_where_flower_tells_of_the_loss(exchange: str, tmp_path: Path) -> None:
    engine = engine_that_loses(2, tmp_path, is_known=True)
    assert suite.carried_out(exchange, engine) == suite.without(None, frozenset(), exchange)


def test_who_never_gets_a_job_is_absent_in_the_end(tmp_path: Path) -> None:
    for is_known, reason in ((False, "lost on the way, 3 times"), (True, "the message was lost")):
        engine = engine_that_loses(100, tmp_path, is_known=is_known)
        replies = list(engine.ask({0: Announce()}))
        assert [(reply.client, reply.value, reply.absent) for reply in replies] == [(0, None, reason)]
