"""Who trains what, and what the server makes of it."""

from collections.abc import Iterable

import pytest
import torch

from fedsup_deploy import registry
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.federation.client import ClientInfo
from fedsup_deploy.federation.jobs.train import Assignment, ClientUpdate
from fedsup_deploy.federation.server.aggregation import CoverageMean
from fedsup_deploy.federation.server.assignment import Tier
from fedsup_deploy.federation.server.strategy import EFedSup, FedAvg, FedSup, ServerState
from fedsup_deploy.federation.simulation import tiers_by_index
from fedsup_deploy.space.search_space import SearchSpace
from fedsup_deploy.supernet.growth import grow
from fedsup_deploy.supernet.layout import Layout
from fedsup_deploy.supernet.model import Supernet, initial_weights

SMALLEST, LARGEST, ANY = Tier(architecture="smallest"), Tier(architecture="largest"), Tier(random=True)


def infos_of(clients: Iterable[int], tier: int = 0) -> list[ClientInfo]:
    return [ClientInfo(client, 10, tier=tier) for client in clients]


def test_fedavg_gives_everyone_the_same_subnet(tiny_space: SearchSpace) -> None:
    plan = FedAvg(tiny_space, 9, "smallest").plan(0, infos_of([1, 5]), seed=0)
    assert plan == {1: Assignment(tiny_space.smallest), 5: Assignment(tiny_space.smallest)}
    with pytest.raises(ConfigError, match="no architecture"):
        FedAvg(tiny_space, 9, "tiny")


def test_fedavg_may_have_few_clients(tiny_space: SearchSpace) -> None:
    """Runs include both ends and may overlap; what they name and nobody is makes no client."""
    infos = infos_of(range(10))
    assert FedAvg(tiny_space, 9, "smallest").eligible(infos) == infos
    few = FedAvg(tiny_space, 9, "smallest", [(7, 8), (1, 3), (3, 4), (9, 12)])
    assert [info.client for info in few.eligible(infos)] == [1, 2, 3, 4, 7, 8, 9]


def test_all_clients_are_eligible_for_strategies_of_the_whole_space(tiny_space: SearchSpace) -> None:
    infos = infos_of(range(5))
    assert FedSup(tiny_space, 9, 4, None, paper=False).eligible(infos) == infos
    assert EFedSup(tiny_space, 9, (ANY,), None, paper=False).eligible(infos) == infos


@pytest.mark.parametrize("paper", [False, True])
def test_fedsup_gives_everyone_the_whole_supernet(tiny_space: SearchSpace, paper: bool) -> None:
    assert FedSup(tiny_space, 9, 4, 0.0, paper=paper).plan(0, infos_of([2, 0]), seed=0) == {
        client: Assignment(None, 4, is_distilled=paper) for client in (0, 2)
    }


def test_e_fedsup_gives_each_quarter_its_tier(tiny_space: SearchSpace) -> None:
    strategy = EFedSup(
        tiny_space,
        9,
        (SMALLEST, LARGEST, ANY, ANY),
        None,
        paper=True,
    )
    infos = [ClientInfo(client, 10, tier=tier) for client, tier in enumerate(tiers_by_index(8, 4))]
    plans = [strategy.plan(round_index, infos, seed=0) for round_index in range(20)]
    for plan in plans:
        assert list(plan) == list(range(8))
        assert [plan[client].architecture for client in (0, 1)] == [tiny_space.smallest] * 2
        assert [plan[client].architecture for client in (2, 3)] == [tiny_space.largest] * 2
        assert all(assignment.num_subnets == 1 for assignment in plan.values())
    free = {plan[client].architecture for plan in plans for client in (4, 5, 6, 7)}
    assert len(free) > 20


@pytest.mark.parametrize("tier", [-1, 2])
def test_a_tier_that_there_is_not_is_refused_with_those_there_are(tiny_space: SearchSpace, tier: int) -> None:
    """But not in the first rounds, in which it does not matter: here the first of two."""
    strategy = EFedSup(tiny_space, 2, (SMALLEST, LARGEST), 0.5, paper=False)
    infos = [ClientInfo(3, 10, tier=1), ClientInfo(4, 10, tier=tier)]
    assert strategy.plan(0, infos, seed=0).keys() == {3, 4}
    message = f"^strategy.tiers: client 4 has announced tier {tier}, expected 0 to 1; name more tiers$"
    with pytest.raises(ConfigError, match=message):
        strategy.plan(1, infos, seed=0)


def test_e_fedsup_trains_the_smallest_within_what_each_client_is_sent(space_of) -> None:
    """Of 8 -> 16 and 16 -> 8 channels the shortcut has a convolution, of 8 -> 8 and 16 -> 16 it has none."""
    space = space_of({"widths": [8, 16], "depths": [1, 2]}, stem={"widths": [8, 16]})
    infos = infos_of(range(4))
    plans = (EFedSup(space, 9, (ANY,), 0.0, paper=False).plan(index, infos, seed=0) for index in range(20))
    assignments = {assignment.architecture: assignment for plan in plans for assignment in plan.values()}
    assert len(assignments) == space.num_architectures
    for architecture, assignment in assignments.items():
        expected = () if architecture == space.smallest else (space.smallest,)
        assert assignment.inner == expected
    paper = EFedSup(space, 9, (ANY,), 0.0, paper=True).plan(0, infos, seed=0)
    assert all(assignment.inner == () for assignment in paper.values())


def test_e_fedsup_leaves_the_smallest_out_where_it_has_a_tensor_that_is_not_sent(space_of) -> None:
    """The smallest goes from 8 to 12 channels by a convolution, which a subnet of 12 or 16 on both sides has not."""
    space = space_of({"widths": [12, 16], "depths": [1]}, stem={"widths": [8, 12, 16]})
    strategy = EFedSup(space, 9, (ANY,), 0.0, paper=False)
    for index in range(20):
        for assignment in strategy.plan(index, infos_of(range(4)), seed=0).values():
            assert assignment.architecture is not None
            width, stem_width = assignment.architecture.stages[0][0].width, assignment.architecture.stem_width
            has_all = width != stem_width and assignment.architecture != space.smallest
            assert assignment.inner == ((space.smallest,) if has_all else ())


def test_assignment_depends_on_seed_round_and_client_but_not_on_the_cohort(tiny_space: SearchSpace) -> None:
    strategy = EFedSup(tiny_space, 9, (ANY,), None, paper=True)
    whole = strategy.plan(2, infos_of([0, 1, 2, 3]), seed=7)
    assert strategy.plan(2, infos_of([3, 1]), seed=7) == {3: whole[3], 1: whole[1]}
    assert strategy.plan(3, infos_of([0, 1, 2, 3]), seed=7) != whole
    assert strategy.plan(2, infos_of([0, 1, 2, 3]), seed=8) != whole
    assert len(set(whole.values())) > 1


@pytest.mark.parametrize("name", registry.names("strategy"))
def test_registered_strategies_plan_for_every_client_of_the_cohort(tiny_space: SearchSpace, name: str) -> None:
    """With the options that it has by itself, where they suit every space."""
    tiers = (SMALLEST, Tier(params=(1, 10**9)))
    options = {"e-fedsup": {"tiers": tiers, "smallest_first": 0}}.get(name, {})
    config = registry.resolve("strategy", name).model_validate({"name": name, **options})
    make = registry.load(config.strategy)
    plan = make(tiny_space, 2, **{key: value for key, value in config if key != "name"}).plan(1, infos_of([4, 0, 5]), 0)
    assert plan.keys() == {0, 4, 5}
    for assignment in plan.values():
        assert assignment.architecture is None or tiny_space.contains(assignment.architecture)
        assert (assignment.num_subnets == 1) == (assignment.architecture is not None)


@pytest.fixture(scope="module")
def state(tiny_space: SearchSpace) -> ServerState:
    layout = Layout(tiny_space, "batch")
    return ServerState(Supernet(layout, initial_weights(layout, 0)))


def disagreement(state: ServerState) -> CoverageMean:
    """Return the updates of two clients with the whole supernet: of one each number is 1 more, of the other 0.9 less.

    They average 0.05: half the mean square of the moves, 0.4525, is 181 times the square of that.
    """
    weights = state.supernet.weights
    mean = CoverageMean(weights, 2)
    for move in (1.0, -0.9):
        update = ClientUpdate(1, 0.0, {name: tensor + move for name, tensor in weights.items()})
        assert mean.add(update, state.supernet.layout.whole) is None
    return mean


@pytest.mark.parametrize("paper", [False, True])
def test_only_what_is_ours_goes_beyond_the_average_unless_told(state: ServerState, paper: bool) -> None:
    space, tiers, before = state.supernet.layout.space, (LARGEST,), state.supernet.weights
    ours = not paper
    for strategy, goes_beyond in (
        (FedSup(space, 10, 3, 0.0, paper=paper), ours),
        (EFedSup(space, 10, tiers, 0.0, paper=paper), ours),
        (FedSup(space, 10, 3, 0.0, extrapolate=paper, paper=paper), paper),
        (EFedSup(space, 10, tiers, 0.0, extrapolate=paper, paper=paper), paper),
        (FedAvg(space, 10, "largest"), False),
        (FedAvg(space, 10, "largest", extrapolate=paper), paper),
    ):
        after = strategy.aggregate(5, state, disagreement(state), seed=0)
        assert after.kept == {}
        for name, tensor in after.supernet.weights.items():
            move = 0.05 * 181 if goes_beyond else 0.05
            torch.testing.assert_close(tensor, before[name] + move, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("share", "paper", "first"), [(None, False, 3), (None, True, 0), (0.35, True, 4), (0.0, False, 0)]
)
def test_in_the_first_rounds_all_train_the_smallest_and_the_rest_is_grown(
    state: ServerState, share: float | None, paper: bool, first: int
) -> None:
    """Of ten rounds; what a round ends with is grown only if it was one of these."""
    layout = state.supernet.layout
    space, average = layout.space, disagreement(state).result()
    grown = grow(average, layout, space.smallest, 5)
    assert any(not torch.equal(grown[name], average[name]) for name in average)
    for strategy in (
        FedSup(space, 10, 3, share, extrapolate=False, paper=paper),
        EFedSup(space, 10, (LARGEST,), share, extrapolate=False, paper=paper),
    ):
        assert strategy.initial(layout) == {}
        for index in range(10):
            plan = strategy.plan(index, infos_of([1, 2]), 5)
            after = strategy.aggregate(index, state, disagreement(state), 5).supernet.weights
            expected = Assignment(space.smallest)
            assert (plan == {1: expected, 2: expected}) == (index < first)
            weights = grown if index < first else average
            assert all(torch.equal(after[name], weights[name]) for name in weights)
