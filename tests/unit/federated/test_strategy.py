"""Who trains what."""

import pytest
import torch

from fedsup_deploy import registry
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.federated.assignment import Tier
from fedsup_deploy.federated.strategy import EFedSup, FedAvg, FedSup
from fedsup_deploy.federated.tasks import Assignment
from fedsup_deploy.space.search_space import SearchSpace
from fedsup_deploy.supernet.growth import grow
from fedsup_deploy.supernet.layout import Layout
from fedsup_deploy.supernet.model import Supernet, initial_weights


def test_fedavg_gives_everyone_the_same_subnet(tiny_space: SearchSpace) -> None:
    plan = FedAvg(tiny_space, 10, 9, "smallest").plan(0, [1, 5], seed=0)
    assert plan == {1: Assignment(tiny_space.smallest), 5: Assignment(tiny_space.smallest)}
    with pytest.raises(ConfigError, match="no architecture"):
        FedAvg(tiny_space, 10, 9, "tiny")


def test_fedavg_may_have_few_clients(tiny_space: SearchSpace) -> None:
    """Runs include both ends and may overlap."""
    assert list(FedAvg(tiny_space, 10, 9, "smallest").clients) == list(range(10))
    assert list(FedAvg(tiny_space, 10, 9, "smallest", [(7, 8), (1, 3), (3, 4)]).clients) == [1, 2, 3, 4, 7, 8]


@pytest.mark.parametrize("paper", [False, True])
def test_fedsup_gives_everyone_the_whole_supernet(tiny_space: SearchSpace, paper: bool) -> None:
    assert FedSup(tiny_space, 10, 9, 4, 0.0, paper=paper).plan(0, [2, 0], seed=0) == {
        client: Assignment(None, 4, is_distilled=paper) for client in (0, 2)
    }


def test_e_fedsup_gives_each_quarter_its_tier(tiny_space: SearchSpace) -> None:
    strategy = EFedSup(tiny_space, 8, 9, (Tier("smallest"), Tier("largest"), Tier(), Tier()), None, paper=True)
    plans = [strategy.plan(round_index, range(8), seed=0) for round_index in range(20)]
    for plan in plans:
        assert list(plan) == list(range(8))
        assert [plan[client].architecture for client in (0, 1)] == [tiny_space.smallest] * 2
        assert [plan[client].architecture for client in (2, 3)] == [tiny_space.largest] * 2
        assert all(assignment.num_subnets == 1 for assignment in plan.values())
    free = {plan[client].architecture for plan in plans for client in (4, 5, 6, 7)}
    assert len(free) > 20


def test_e_fedsup_trains_the_smallest_within_what_each_client_is_sent(space_of) -> None:
    """Of 8 -> 16 and 16 -> 8 channels the shortcut has a convolution, of 8 -> 8 and 16 -> 16 it has none."""
    space = space_of({"widths": [8, 16], "depths": [1, 2]}, stem={"widths": [8, 16]})
    plans = (EFedSup(space, 4, 9, (Tier(),), 0.0, paper=False).plan(index, range(4), seed=0) for index in range(20))
    assignments = {assignment.architecture: assignment for plan in plans for assignment in plan.values()}
    assert len(assignments) == space.num_architectures
    for architecture, assignment in assignments.items():
        expected = () if architecture == space.smallest else (space.smallest,)
        assert assignment.inner == expected
    paper = EFedSup(space, 4, 9, (Tier(),), 0.0, paper=True).plan(0, range(4), seed=0)
    assert all(assignment.inner == () for assignment in paper.values())


def test_e_fedsup_leaves_the_smallest_out_where_it_has_a_tensor_that_is_not_sent(space_of) -> None:
    """The smallest goes from 8 to 12 channels by a convolution, which a subnet of 12 or 16 on both sides has not."""
    space = space_of({"widths": [12, 16], "depths": [1]}, stem={"widths": [8, 12, 16]})
    strategy = EFedSup(space, 4, 9, (Tier(),), 0.0, paper=False)
    for index in range(20):
        for assignment in strategy.plan(index, range(4), seed=0).values():
            assert assignment.architecture is not None
            width, stem_width = assignment.architecture.stages[0][0].width, assignment.architecture.stem_width
            has_all = width != stem_width and assignment.architecture != space.smallest
            assert assignment.inner == ((space.smallest,) if has_all else ())


def test_assignment_depends_on_seed_round_and_client_but_not_on_the_cohort(tiny_space: SearchSpace) -> None:
    strategy = EFedSup(tiny_space, 4, 9, (Tier(),), None, paper=True)
    whole = strategy.plan(2, [0, 1, 2, 3], seed=7)
    assert strategy.plan(2, [3, 1], seed=7) == {3: whole[3], 1: whole[1]}
    assert strategy.plan(3, [0, 1, 2, 3], seed=7) != whole
    assert strategy.plan(2, [0, 1, 2, 3], seed=8) != whole
    assert len(set(whole.values())) > 1


@pytest.mark.parametrize("name", registry.names("strategy"))
def test_registered_strategies_plan_for_every_client_of_the_cohort(tiny_space: SearchSpace, name: str) -> None:
    options = {
        "fedavg": {"architecture": "largest"},
        "fedsup": {"num_subnets": 3, "smallest_first": None, "paper": False},
        "e-fedsup": {"tiers": (Tier("smallest"), Tier(params_range=(1, 10**9))), "smallest_first": 0, "paper": False},
    }[name]
    plan = registry.resolve("strategy", name)(tiny_space, 6, 2, **options).plan(1, [4, 0, 5], 0)
    assert plan.keys() == {0, 4, 5}
    for assignment in plan.values():
        assert assignment.architecture is None or tiny_space.contains(assignment.architecture)
        assert (assignment.num_subnets == 1) == (assignment.architecture is not None)


def test_only_what_is_ours_goes_beyond_the_average_unless_told(tiny_space: SearchSpace) -> None:
    tiers = (Tier("largest"),)
    for paper in (False, True):
        assert FedSup(tiny_space, 4, 10, 3, None, paper=paper).extrapolates != paper
        assert EFedSup(tiny_space, 4, 10, tiers, None, paper=paper).extrapolates != paper
        assert EFedSup(tiny_space, 4, 10, tiers, None, extrapolate=paper, paper=paper).extrapolates == paper
    assert not FedAvg(tiny_space, 4, 10, "largest").extrapolates


@pytest.mark.parametrize(
    ("share", "paper", "first"), [(None, False, 3), (None, True, 0), (0.35, True, 4), (0.0, False, 0)]
)
def test_in_the_first_rounds_all_train_the_smallest_and_the_rest_is_grown(
    tiny_space: SearchSpace, share: float | None, paper: bool, first: int
) -> None:
    """Of ten rounds; what a round ends with is grown only if it was one of these."""
    layout = Layout(tiny_space, "batch")
    supernet = Supernet(layout, initial_weights(layout, 0))
    grown = grow(supernet.weights, layout, tiny_space.smallest, 5)
    tiers = (Tier("largest"),)
    for strategy in (
        FedSup(tiny_space, 4, 10, 3, share, paper=paper),
        EFedSup(tiny_space, 4, 10, tiers, share, paper=paper),
    ):
        for index in range(10):
            plan, completed = strategy.plan(index, [1, 2], 5), strategy.complete(index, supernet, 5)
            expected = Assignment(tiny_space.smallest)
            assert (plan == {1: expected, 2: expected}) == (index < first)
            weights = grown if index < first else supernet.weights
            assert all(torch.equal(completed.weights[name], weights[name]) for name in weights)
