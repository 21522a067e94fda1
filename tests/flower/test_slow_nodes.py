"""Slow nodes over Flower's messages, in simulated time: one deadline, who is waited for, and late answers."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message
from flwr.clientapp import ClientApp
from local_grid import LocalGrid, app_of
from test_attacks import NODE_IDS, suite

from fedsup_deploy.engines.flower.blobs import DiskBlobs
from fedsup_deploy.engines.flower.deployment import deployed
from fedsup_deploy.engines.flower.directory import Directory
from fedsup_deploy.engines.flower.entrance import FlowerEntrance
from fedsup_deploy.engines.flower.grid import GridCourier
from fedsup_deploy.engines.flower.node import ClientNode
from fedsup_deploy.federation.client import ClientId
from fedsup_deploy.federation.jobs.announce import Announce
from fedsup_deploy.federation.messages import Reply
from fedsup_deploy.federation.server.cohort import Terms
from fedsup_deploy.federation.server.federation import Federation
from fedsup_deploy.federation.server.late import MOST_ROUNDS_LATE
from fedsup_deploy.federation.server.rounds import RoundParams, run_rounds
from fedsup_deploy.federation.server.strategy import FedAvg, ServerState
from fedsup_deploy.federation.simulation import CLIENTS, NEWCOMERS

DEADLINE_S = 10.0
#: The node of somebody who is no client.
NEWCOMER = 1
TERMS = Terms(0.0, DEADLINE_S)


class SlowGrid(LocalGrid):
    """Gives an answer once its time has come. Time passes where somebody waits, and nowhere else.

    Attributes:
        seconds: For a node how long its answers take; others take no time.
    """

    def __init__(self, apps: Mapping[int, ClientApp]) -> None:
        super().__init__(apps)
        self.now, self.waited_for = 0.0, 0
        self.ttls: list[float] = []
        self.seconds: dict[int, float] = {}
        self._due: dict[str, float] = {}

    def push_messages(self, messages: Iterable[Message]) -> list[str | None]:
        found = list(messages)
        numbers = super().push_messages(found)
        for number, message in zip(numbers, found, strict=True):
            self.ttls.append(message.metadata.ttl)
            self._due[str(number)] = self.now + self.seconds.get(message.metadata.dst_node_id, 0.0)
        return numbers

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        numbers = list(message_ids)
        self.waited_for = len(numbers)
        due = [number for number in numbers if self._due[number] <= self.now]
        return super().pull_messages(due) if due else []

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def play(tmp_path: Path) -> Callable[..., tuple[list[Any], SlowGrid]]:
    def play(
        seconds: Mapping[ClientId, float],
        between: Callable[[FlowerEntrance, SlowGrid], None] = lambda *_: None,
        **changes: Any,
    ) -> tuple[list[Any], SlowGrid]:
        """Return the rounds; `between` is done after each."""
        populations = {CLIENTS: suite.federated_data().populations()[CLIENTS]}
        apps = {
            number: app_of(ClientNode(str(client), populations, DiskBlobs(tmp_path / str(client))))
            for client, number in enumerate(NODE_IDS)
        }
        grid = SlowGrid(apps)
        courier = GridCourier(grid, sleep=grid.sleep)
        directory = Directory(courier, [str(client) for client in range(suite.NUM_CLIENTS)])
        directory.gather(lambda there: there == suite.NUM_CLIENTS)
        grid.now, grid.ttls = 0.0, []
        grid.seconds |= {NODE_IDS[client]: each for client, each in seconds.items()}
        engines = deployed(courier, directory, populations, clock=lambda: grid.now)
        entrance = engines[NEWCOMERS]
        assert isinstance(entrance, FlowerEntrance)
        federation: Federation = dataclasses.replace(suite.federation_of(engines[CLIENTS]), terms=TERMS)
        params = RoundParams(
            rounds=3,
            clients_per_round=suite.NUM_CLIENTS,
            learning_rate=0.1,
            warmup_rounds=0,
            final_learning_rate=0.0,
            training=suite.LocalTraining(1, 8, 0.9, 1e-4, 1.0, has_logit_adjustment=True),
            augmentation=suite.Augmentation(),
        )
        params = dataclasses.replace(params, **changes)
        state = ServerState(suite.supernet())
        strategy = FedAvg(suite.SPACE, params.rounds, "largest")
        results = []
        for result in run_rounds(federation, state, strategy, params):
            results.append(result)
            between(entrance, grid)
        return results, grid

    return play


def test_messages_are_void_at_the_deadline_of_the_round(play: Any) -> None:
    results, grid = play({2: 11.0})
    assert [result.late for result in results] == [(2,), (2,), (2,)]
    assert all(0 < ttl <= DEADLINE_S + 1e-6 for ttl in grid.ttls)
    assert grid.now == pytest.approx(3 * DEADLINE_S, abs=0.6)
    assert [result.joined for result in results] == [{}, {}, {}]


def test_a_late_answer_is_heard_in_the_next_round(play: Any) -> None:
    """The node needs 15 s for each: what it was asked in a round comes in the middle of the next."""
    results, grid = play({2: 15.0}, accepts_late=True)
    assert [result.late for result in results] == [(2,), (2,), (2,)]
    assert [result.joined for result in results] == [{}, {2: 1}, {2: 1}]
    most = (1 + MOST_ROUNDS_LATE) * DEADLINE_S
    assert all(most - DEADLINE_S < ttl <= most + 1e-6 for ttl in grid.ttls)


def test_a_late_answer_is_heard_while_newcomers_are_asked(play: Any, tmp_path: Path) -> None:
    """All messages go one way: what comes while somebody else is asked is not lost on whom it is for."""
    newcomer = app_of(ClientNode("newcomer", {}, DiskBlobs(tmp_path / "newcomer")))
    told: list[Reply[Any]] = []

    def ask_newcomers(entrance: FlowerEntrance, grid: SlowGrid) -> None:
        grid.apps[NEWCOMER], grid.names[NEWCOMER], grid.seconds[NEWCOMER] = newcomer, "newcomer", 7.0
        before = grid.now
        told.extend(entrance.ask({info.client: Announce() for info in entrance.clients()}, DEADLINE_S))
        assert grid.now >= before + 7.0

    results, _ = play({2: 15.0}, ask_newcomers, accepts_late=True)
    assert [reply.client for reply in told] == [0, 0, 0]
    assert [result.joined for result in results] == [{}, {2: 1}, {2: 1}]


def test_what_is_never_answered_is_given_up(play: Any) -> None:
    """After some rounds nothing is waited for but what was asked since."""
    results, grid = play({2: 1e9}, accepts_late=True, rounds=MOST_ROUNDS_LATE + 4)
    assert not any(result.joined for result in results)
    assert grid.waited_for == MOST_ROUNDS_LATE + 1


def test_a_round_ends_when_enough_have_answered(play: Any) -> None:
    """All but one are wanted."""
    share = 1 / (suite.NUM_CLIENTS - 1)
    results, grid = play({2: 9.0}, clients_per_round=suite.NUM_CLIENTS - 1, oversample=share)
    assert {len(result.sampled) for result in results} == {suite.NUM_CLIENTS}
    assert [result.late for result in results] == [(2,), (2,), (2,)]
    assert grid.now < 1.0
