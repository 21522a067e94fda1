"""What every registered searcher must do, on a listed and on a sampled space."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from fedsup_deploy import registry
from fedsup_deploy.commands.search import target_for
from fedsup_deploy.config.load import load_yaml, validate
from fedsup_deploy.device.profile import load_profile
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.events import EventLog
from fedsup_deploy.resources import find
from fedsup_deploy.searchers.limits import within
from fedsup_deploy.searchers.pool import make_pool
from fedsup_deploy.searchers.pricing import price
from fedsup_deploy.searchers.problem import Problem, pose
from fedsup_deploy.searchers.scoring.score import Scores
from fedsup_deploy.searchers.searcher import Searcher
from fedsup_deploy.space.search_space import SearchSpace


def problem_in(space: SearchSpace, **limits: float) -> Problem:
    return pose(make_pool(space, seed=0), [target_for(load_profile("raspberry-pi-4"), limits)], EventLog())[0]


@pytest.fixture(scope="module")
def listed() -> Problem:
    """The shipped space of 128 architectures, about half of it within the limits."""
    space = validate(load_yaml(find("configs/spaces", "digits")), SearchSpace)
    return problem_in(space, latency_ms=1.0, macs=500_000)


@pytest.fixture(scope="module")
def sampled() -> Problem:
    """The shipped space that is too large to list."""
    return problem_in(validate(load_yaml(find("configs/spaces", "large-mobilenet")), SearchSpace), latency_ms=4.0)


Make = Callable[..., Searcher]


@pytest.fixture(params=registry.names("searcher"))
def make(request: Any) -> Make:
    searcher: Make = registry.resolve("searcher", request.param)
    return searcher


def made_or_refused(make: Make, problem: Problem, evaluations: int) -> Searcher | str:
    """A searcher, or why it cannot work on this problem."""
    try:
        return make(problem, 0, evaluations)
    except ConfigError as error:
        return str(error)


def turns(searcher: Searcher, count: int) -> Iterator[np.ndarray]:
    """Ask and tell, as the loop does, to the end."""
    left = searcher.budget
    while left > 0:
        genes_KG = searcher.ask(min(count, left))
        if not len(genes_KG):
            return
        searcher.tell(genes_KG, Scores(genes_KG.sum(axis=1) / 100))
        left -= len(genes_KG)
        yield genes_KG


def check_proposals(problem: Problem, genes_KG: np.ndarray) -> None:
    """In the space, in its canonical form, within the limits, each once."""
    space = problem.pool.space
    assert genes_KG.dtype == np.int64
    for genes in genes_KG:
        assert space.encode(space.decode(genes)).tolist() == genes.tolist()
    (prices,) = price(space, genes_KG, [problem.target])
    assert within(prices.by_limit(), problem.target.limits).all()
    assert len({tuple(row) for row in genes_KG.tolist()}) == len(genes_KG)


@pytest.mark.parametrize("count", [1, 7, 10_000])
def test_proposals_are_feasible_and_end(make: Make, listed: Problem, count: int) -> None:
    parts = list(turns(make(listed, 0, None), count))
    assert all(1 <= len(part) <= count for part in parts)
    proposed = np.concatenate(parts)
    check_proposals(listed, proposed)
    assert 1 <= len(proposed) <= listed.num_feasible


def test_a_sampled_space_is_searched_or_refused_before_any_work(make: Make, sampled: Problem) -> None:
    assert not sampled.pool.is_complete
    searcher = made_or_refused(make, sampled, 50)
    if isinstance(searcher, str):
        assert "--method" in searcher
        return
    proposed = np.concatenate(list(turns(searcher, 20)))
    check_proposals(sampled, proposed)
    assert len(proposed) == 50


def test_no_more_is_proposed_than_the_user_allows(make: Make, listed: Problem) -> None:
    allowed = listed.num_feasible
    assert make(listed, 0, allowed).budget <= allowed
    searcher = made_or_refused(make, listed, 5)
    if isinstance(searcher, str):
        assert f"at least {allowed}" in searcher
    else:
        assert 1 <= searcher.budget <= 5


def test_given_all_evaluations_it_needs_it_finds_the_best(make: Make, listed: Problem) -> None:
    """With one evaluation for each feasible architecture there is no excuse."""
    proposed = np.concatenate(list(turns(make(listed, 0, listed.num_feasible), 10)))
    assert listed.genes.sum(axis=1).max() in proposed.sum(axis=1)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_seed_and_what_it_is_told_decide(make: Make, listed: Problem, seed: int) -> None:
    first, again = (np.concatenate(list(turns(make(listed, seed, None), 9))) for _ in range(2))
    assert first.tolist() == again.tolist()
