"""What evolution proposes: new, feasible, better than chance, and decided by the seed and what it is told."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from fedsup_deploy.events import EventLog
from fedsup_deploy.searchers.methods import evolution, nsga
from fedsup_deploy.searchers.methods.evolution import EvolutionSearcher
from fedsup_deploy.searchers.pool import make_pool
from fedsup_deploy.searchers.pricing import Target
from fedsup_deploy.searchers.problem import Problem, pose
from fedsup_deploy.searchers.scoring.known import KnownAccuracy
from fedsup_deploy.searchers.scoring.predictor import fit
from fedsup_deploy.searchers.scoring.score import Scores
from fedsup_deploy.searchers.searcher import DEFAULT_EVALUATIONS
from fedsup_deploy.space.cost import costs_of
from fedsup_deploy.space.sampling import random_genes
from fedsup_deploy.space.search_space import SearchSpace

MakeTarget = Callable[..., Target]
Score = Callable[[Any], Scores]


def problem_of(space: SearchSpace, target: Target, predictor: Any = None) -> Problem:
    nothing_KG = np.empty((0, len(space.num_choices)), np.int64)
    known = None if predictor is None else KnownAccuracy(predictor, nothing_KG, Scores(np.empty(0)))
    return pose(make_pool(space, seed=0), [target], EventLog(), known)[0]


def by_sum(genes_KG: Any) -> Scores:
    """Every step of a gene helps, later ones more."""
    weights = np.arange(1, genes_KG.shape[1] + 1)
    return Scores(genes_KG @ weights / (weights.sum() * 4))


def by_sum_and_clients(genes_KG: Any) -> Scores:
    """The same, with a worst decile that wants the first genes large."""
    weights = np.arange(genes_KG.shape[1], 0, -1)
    return Scores(by_sum(genes_KG).accuracy_K, genes_KG @ weights / (weights.sum() * 4))


def turns(searcher: EvolutionSearcher, score: Score = by_sum, count: int = 10_000) -> Iterator[Any]:
    """Ask for so many at once and tell, as the loop does, to the end."""
    left = searcher.budget
    while left > 0:
        genes_KG = searcher.ask(min(count, left))
        if not len(genes_KG):
            return
        searcher.tell(genes_KG, score(genes_KG))
        left -= len(genes_KG)
        yield genes_KG


def proposed(problem: Problem, seed: int = 0, evaluations: int | None = None, **options: Any) -> Any:
    return np.concatenate(list(turns(EvolutionSearcher(problem, seed, evaluations), **options)))


def check(problem: Problem, genes_KG: Any) -> None:
    """In the space, within the limits, each once."""
    space = problem.pool.space
    for genes in genes_KG:
        assert space.encode(space.decode(genes)).tolist() == genes.tolist()
    assert problem.admits(genes_KG)[0].all()
    assert len(np.unique(genes_KG, axis=0)) == len(genes_KG)


@pytest.fixture
def short_evolution(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few generations: how well they search is not what is asked."""
    monkeypatch.setattr(nsga, "_GENERATIONS", 5)


@pytest.fixture(scope="module")
def tight(digits_space: SearchSpace, make_target: MakeTarget) -> Problem:
    """81 of 128 architectures fit."""
    return problem_of(digits_space, make_target(macs=500_000))


@pytest.mark.parametrize("score", [by_sum, by_sum_and_clients])
def test_in_a_listed_space_nothing_leaves_it_or_is_proposed_twice(tight: Problem, score: Score) -> None:
    genes_KG = proposed(tight, evaluations=60, score=score)
    assert len(genes_KG) == 60 < tight.num_feasible < 128
    check(tight, genes_KG)


@pytest.mark.parametrize("score", [by_sum, by_sum_and_clients])
def test_in_a_space_too_large_to_list_nothing_leaves_it_or_is_proposed_twice(
    huge_space: SearchSpace, make_target: MakeTarget, short_evolution: None, score: Score
) -> None:
    """Some proposals are of no sample: they evolved, by NSGA-II or with worst deciles by NSGA-III."""
    problem = problem_of(huge_space, make_target(macs=3_000_000, params=30_000))
    assert not problem.pool.is_complete
    genes_KG = proposed(problem, evaluations=75, score=score)
    assert len(genes_KG) == 75
    check(problem, genes_KG)
    is_sampled_K = (genes_KG[:, None] == problem.pool.genes_NG).all(axis=2).any(axis=1)
    assert is_sampled_K[:25].all()
    assert not is_sampled_K[25:].all()


@pytest.mark.parametrize(("score", "expected"), [(by_sum, {2}), (by_sum_and_clients, {3})])
def test_the_worst_decile_is_an_objective_of_its_own(
    huge_space: SearchSpace, make_target: MakeTarget, monkeypatch: pytest.MonkeyPatch, score: Score, expected: set[int]
) -> None:
    """Each predicted by its own fit."""
    evolve, seen = nsga.evolve, set()

    def watched(problem: Problem, first_NG: Any, objectives: Any, num_objectives: int, seed: int) -> Any:
        seen.add(num_objectives)
        assert objectives(first_NG, problem.admits(first_NG)[1]).shape == (len(first_NG), num_objectives)
        return evolve(problem, first_NG, objectives, num_objectives, seed)

    monkeypatch.setattr(nsga, "_GENERATIONS", 2)
    monkeypatch.setattr(nsga, "evolve", watched)
    proposed(problem_of(huge_space, make_target()), evaluations=50, score=score)
    assert seen == expected


def test_a_worst_decile_changes_what_is_proposed(tight: Problem) -> None:
    """From the second turn on: nobody knows any before."""
    first, second = (proposed(tight, evaluations=50, score=score).tolist() for score in (by_sum, by_sum_and_clients))
    assert first[:25] == second[:25]
    assert first[25:] != second[25:]


@pytest.mark.parametrize("count", [1, 7, 26])
def test_proposals_do_not_depend_on_how_many_are_asked_for_at_once(tight: Problem, count: int) -> None:
    assert proposed(tight, evaluations=55, count=count).tolist() == proposed(tight, evaluations=55).tolist()


def test_the_seed_decides(
    tight: Problem, huge_space: SearchSpace, make_target: MakeTarget, short_evolution: None
) -> None:
    for problem in (tight, problem_of(huge_space, make_target(macs=3_000_000))):
        first, again, other = (proposed(problem, seed, 50).tolist() for seed in (3, 3, 4))
        assert first == again
        assert first[:25] != other[:25]
        assert first[25:] != other[25:]


def test_what_it_is_told_decides(tight: Problem) -> None:
    first, other = (
        proposed(tight, evaluations=50, score=score).tolist()
        for score in (by_sum, lambda genes_KG: Scores(1 - by_sum(genes_KG).accuracy_K))
    )
    assert first[:25] == other[:25]
    assert first[25:] != other[25:]


@pytest.mark.parametrize("evaluations", [81, 82, 5_000])
def test_a_small_space_is_exhausted(tight: Problem, evaluations: int) -> None:
    """Everything feasible, once, and then nothing."""
    assert tight.num_feasible == 81
    genes_KG = proposed(tight, evaluations=evaluations)
    assert sorted(genes_KG.tolist()) == sorted(tight.genes.tolist())


@pytest.mark.parametrize("widths", [(2,), (2, 4)])
def test_a_space_of_one_or_two_architectures_is_searched_to_its_end(
    toy_space: SearchSpace, make_target: MakeTarget, widths: tuple[int, ...]
) -> None:
    stages = tuple(stage.model_copy(update={"widths": widths}) for stage in toy_space.stages)
    problem = problem_of(SearchSpace.model_validate({**toy_space.to_dict(), "stages": stages}), make_target())
    assert len(proposed(problem)) == len(widths)


def test_a_sampled_space_in_which_little_fits_ends_as_well(
    huge_space: SearchSpace, make_target: MakeTarget, short_evolution: None
) -> None:
    """Next to nothing is as small as the smallest subnet."""
    smallest = int(costs_of(huge_space, [huge_space.smallest]).num_params[0])
    problem = problem_of(huge_space, make_target(params=smallest * 1.02))
    genes_KG = proposed(problem, evaluations=60)
    check(problem, genes_KG)
    assert problem.num_feasible <= len(genes_KG) <= 60


def test_the_first_turn_is_spread_over_the_latencies(tight: Problem) -> None:
    """A quarter of the budget, but 25 at least: the fastest, the one with the most MACs, one per slice between."""
    searcher = EvolutionSearcher(tight, 0, 60)
    first_KG = searcher.ask(60)
    assert len(first_KG) == 25
    latency_ms_K = np.sort(tight.admits(first_KG)[1].latency_ms)
    latency_ms_F = np.sort(tight.prices.latency_ms)
    assert latency_ms_K[[0, -1]].tolist() == latency_ms_F[[0, -1]].tolist()
    slices = np.array_split(np.arange(81), 25)
    filled = sum(bool(np.isin(latency_ms_F[rows], latency_ms_K).any()) for rows in slices)
    assert filled >= 22, "the two extremes may take the place of the last slices"
    assert len(EvolutionSearcher(tight, 0, None).ask(999)) == DEFAULT_EVALUATIONS // 4


def test_what_others_had_evaluated_is_learnt_from_and_not_proposed(tight: Problem) -> None:
    """The other search found the ten best: a fit that knows them proposes others than one that does not."""
    alone, beside = EvolutionSearcher(tight, 0, 60), EvolutionSearcher(tight, 0, 60)
    first_KG = alone.ask(60)
    assert beside.ask(60).tolist() == first_KG.tolist()
    is_asked_F = (tight.genes[:, None] == first_KG).all(axis=2).any(axis=1)
    left_FG = tight.genes[~is_asked_F]
    others_KG = left_FG[np.argsort(by_sum(left_FG).accuracy_K)[-10:]]
    told_KG = np.concatenate([first_KG, others_KG])
    # Lower than what it would expect, so that a fit must change.
    told = Scores(np.concatenate([by_sum(first_KG).accuracy_K, np.zeros(10)]))
    alone.tell(first_KG, by_sum(first_KG))
    beside.tell(told_KG, told)
    without, with_others = (searcher.ask(60).tolist() for searcher in (alone, beside))
    known = told_KG.tolist()
    assert not [row for row in with_others if row in known]
    assert [row for row in without if row in others_KG.tolist()]
    assert with_others != [row for row in without if row not in known][: len(with_others)]


def test_being_told_the_same_again_changes_nothing(tight: Problem) -> None:
    once, again = EvolutionSearcher(tight, 0, 60), EvolutionSearcher(tight, 0, 60)
    for searcher, times in ((once, 1), (again, 3)):
        genes_KG = searcher.ask(60)
        for _ in range(times):
            searcher.tell(genes_KG, by_sum(genes_KG))
    assert once.ask(60).tolist() == again.ask(60).tolist()


def test_where_accuracy_is_predicted_it_evolves_once(
    huge_space: SearchSpace, make_target: MakeTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is nothing to learn: no fit of its own, one turn, then the end."""
    genes_TG = random_genes(huge_space, np.random.default_rng(0), 40)
    predictor = fit(huge_space, genes_TG, by_sum(genes_TG).accuracy_K, "mlp", 0)
    problem = problem_of(huge_space, make_target(macs=3_000_000), predictor)
    monkeypatch.setattr(nsga, "_GENERATIONS", 5)
    monkeypatch.setattr(evolution, "fit", None)
    for evaluations, expected in ((80, 80), (300, 100)):
        searcher = EvolutionSearcher(problem, 0, evaluations)
        parts = list(turns(searcher, lambda genes_KG: Scores(predictor.predict(genes_KG))))
        assert len(parts) == 1
        assert 0.9 * expected <= len(parts[0]) <= expected, "a generation at most"
        check(problem, parts[0])


def test_with_half_as_many_evaluations_it_finds_the_best(digits_space: SearchSpace, make_target: MakeTarget) -> None:
    """Of 128, for each of five seeds; chance alone would miss it every other time."""
    problem = problem_of(digits_space, make_target())
    bests = [by_sum(proposed(problem, seed, 50)).accuracy_K.max() for seed in range(5)]
    assert bests == [by_sum(problem.genes).accuracy_K.max()] * 5


def test_it_proves_nothing(tight: Problem) -> None:
    assert not EvolutionSearcher(tight, 0, None).proves_optimum
