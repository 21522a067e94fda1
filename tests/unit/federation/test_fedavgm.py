"""Momentum at the server, by hand."""

import pytest
import torch

from fedsup_deploy.federation.client import ClientInfo
from fedsup_deploy.federation.jobs.train import Assignment, ClientUpdate
from fedsup_deploy.federation.server.aggregation import CoverageMean
from fedsup_deploy.federation.server.fedavgm import FedAvgM
from fedsup_deploy.federation.server.strategy import FedAvg, ServerState
from fedsup_deploy.supernet import slices as rule
from fedsup_deploy.supernet.layout import Layout
from fedsup_deploy.supernet.model import Supernet


@pytest.fixture(scope="module")
def layout(tiny_space) -> Layout:
    return Layout(tiny_space, "batch")


def start_of(layout: Layout, strategy: FedAvgM) -> ServerState:
    """Everything is 1."""
    weights = {name: torch.ones(shape) for name, shape in layout.shapes.items()}
    return ServerState(Supernet(layout, weights), strategy.initial(layout))


def mean_of(state: ServerState, where: rule.Slices, *moves: float) -> CoverageMean:
    """Return the updates of clients that move every number of their part by so much, and have one image each."""
    mean = CoverageMean(state.supernet.weights, len(moves))
    for move in moves:
        part = rule.gather(state.supernet.weights, where)
        assert mean.add(ClientUpdate(1, 0.0, {name: tensor + move for name, tensor in part.items()}), where) is None
    return mean


def play(strategy: FedAvgM, state: ServerState, *rounds: tuple[float, ...]) -> list[ServerState]:
    """Return the state after each round, in which the largest subnet is moved by so much by each client."""
    where, states = state.supernet.layout.slices(state.supernet.layout.space.largest), []
    for index, moves in enumerate(rounds):
        state = strategy.aggregate(index, state, mean_of(state, where, *moves), seed=0)
        states.append(state)
    return states


def test_the_server_goes_on_with_a_part_of_its_last_move(layout: Layout) -> None:
    """Half of it: averages of 1, 0 and -3/4 beyond the weights make velocities of 1, 1/2 and -1/2.

    From 1, the weights are then 2, 5/2 and 2.
    """
    strategy = FedAvgM(layout.space, 3, "largest", momentum=0.5)
    states = play(strategy, start_of(layout, strategy), (1.5, 0.5), (0.25, -0.25), (-0.75,))
    for state, weight, velocity in zip(states, (2.0, 2.5, 2.0), (1.0, 0.5, -0.5), strict=True):
        assert state.kept.keys() == layout.shapes.keys()
        for name, index in layout.slices(layout.space.largest).items():
            assert (state.supernet.weights[name][index] == weight).all(), name
            assert (state.kept[name][index] == velocity).all(), name


def test_velocity_starts_at_rest_and_is_that_of_every_shared_tensor(layout: Layout) -> None:
    velocity = FedAvgM(layout.space, 3, "largest", momentum=0.5).initial(layout)
    assert {name: tuple(tensor.shape) for name, tensor in velocity.items()} == layout.shapes
    assert not any(tensor.any() for tensor in velocity.values())


def test_what_nobody_trains_stays_where_it_is(layout: Layout) -> None:
    """All but the smallest subnet."""
    strategy = FedAvgM(layout.space, 2, "smallest", momentum=0.5)
    state, where = start_of(layout, strategy), layout.slices(layout.space.smallest)
    for index in range(2):
        state = strategy.aggregate(index, state, mean_of(state, where, 0.5), seed=0)
    for name, mask in rule.coverage(layout.shapes, [where]).items():
        assert (state.supernet.weights[name][mask] == 1 + 0.5 + 0.75).all(), name
        assert (state.supernet.weights[name][~mask] == 1).all(), name
        assert not state.kept[name][~mask].any(), name


def test_without_momentum_it_is_fedavg(layout: Layout) -> None:
    strategy, plain = FedAvgM(layout.space, 2, "largest", momentum=0.0), FedAvg(layout.space, 2, "largest")
    state = plain_state = start_of(layout, strategy)
    for index, moves in enumerate([(0.5, 0.25), (-0.5, 0.75)]):
        state = strategy.aggregate(index, state, mean_of(state, layout.whole, *moves), seed=0)
        plain_state = plain.aggregate(index, plain_state, mean_of(plain_state, layout.whole, *moves), seed=0)
    for name, tensor in plain_state.supernet.weights.items():
        assert torch.equal(state.supernet.weights[name], tensor), name


def test_state_before_is_left_alone(layout: Layout) -> None:
    """So that a round can be repeated from it."""
    strategy = FedAvgM(layout.space, 3, "largest", momentum=0.5)
    (before,) = play(strategy, start_of(layout, strategy), (1.0,))
    first, again = (play(strategy, before, (0.25,))[0] for _ in range(2))
    for name in layout.shapes:
        assert torch.equal(first.supernet.weights[name], again.supernet.weights[name])
        assert torch.equal(first.kept[name], again.kept[name])


def test_it_plans_as_fedavg_does(layout: Layout) -> None:
    strategy = FedAvgM(layout.space, 3, "smallest", [(1, 2)], momentum=0.9)
    infos = [ClientInfo(client, 10) for client in range(4)]
    assert [info.client for info in strategy.eligible(infos)] == [1, 2]
    assert strategy.plan(0, infos[1:3], seed=0) == dict.fromkeys((1, 2), Assignment(layout.space.smallest))
