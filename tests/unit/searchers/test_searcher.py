"""The loop that runs searchers, the choice of a method, and what exact and random search propose."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fedsup_deploy.config.load import load_yaml, validate
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.events import EventLog
from fedsup_deploy.resources import find
from fedsup_deploy.searchers.methods.choice import auto_method, open_search
from fedsup_deploy.searchers.methods.exact import ExactSearcher
from fedsup_deploy.searchers.methods.random import RandomSearcher
from fedsup_deploy.searchers.pool import make_pool
from fedsup_deploy.searchers.pricing import Target
from fedsup_deploy.searchers.problem import Problem, pose
from fedsup_deploy.searchers.scoring.known import KnownAccuracy
from fedsup_deploy.searchers.scoring.predictor import FittedAccuracy, fit
from fedsup_deploy.searchers.scoring.score import Scores
from fedsup_deploy.searchers.searcher import DEFAULT_EVALUATIONS, Search, run_searches
from fedsup_deploy.space import sampling
from fedsup_deploy.space.cost import costs_of
from fedsup_deploy.space.search_space import SearchSpace

MakeTarget = Callable[..., Target]


def accuracy_of(genes: Any) -> float:
    """An accuracy that follows from the genes alone."""
    return float((np.asarray(genes) * np.arange(1, len(genes) + 1)).sum() % 97 / 100)


class Accuracies:
    """Gives every architecture its accuracy, and remembers what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[Any], int]] = []

    def __call__(self, genes_KG: Any, num_known: int) -> Scores:
        self.calls.append((genes_KG.tolist(), num_known))
        return Scores(np.array([accuracy_of(genes) for genes in genes_KG]))


class Scripted:
    """A searcher that proposes given rows turn by turn, and remembers what it is told."""

    proves_optimum = False

    def __init__(self, budget: int, *turns: Any) -> None:
        self.budget, self._turns = budget, list(turns)
        self.asked: list[int] = []
        self.told: list[tuple[list[Any], list[float]]] = []

    def ask(self, count: int) -> Any:
        self.asked.append(count)
        return self._turns.pop(0)[:count] if self._turns else np.empty((0, 1), np.int64)

    def tell(self, genes_KG: Any, scores: Scores) -> None:
        self.told.append((genes_KG.tolist(), scores.accuracy_K.tolist()))


def problem_of(space: SearchSpace, target: Target, predictor: Any = None) -> Problem:
    nothing_KG = np.empty((0, len(space.num_choices)), np.int64)
    known = None if predictor is None else KnownAccuracy(predictor, nothing_KG, Scores(np.empty(0)))
    return pose(make_pool(space, seed=0), [target], EventLog(), known)[0]


def told_of(rows: Any) -> tuple[list[Any], list[float]]:
    return rows.tolist(), [accuracy_of(row) for row in rows]


def test_what_several_searches_propose_is_evaluated_once_and_known_to_all(
    digits_space: SearchSpace, make_target: MakeTarget
) -> None:
    problem, rows = problem_of(digits_space, make_target()), digits_space.enumerate_genes()
    first, second = Scripted(9, rows[:2], rows[4:5]), Scripted(9, rows[1:4], rows[:1])
    evaluate = Accuracies()
    outcomes = run_searches([Search(problem, "scripted", searcher) for searcher in (first, second)], evaluate)
    assert evaluate.calls == [(rows[:4].tolist(), 0), (rows[4:5].tolist(), 4)]
    # Its own first, then those of others; what it knew already is told again only if it asks.
    assert first.told == [told_of(rows[:4]), told_of(rows[4:5])]
    assert second.told == [told_of(rows[[1, 2, 3, 0]]), told_of(rows[[0, 4]])]
    assert [outcome.genes_KG.tolist() for outcome in outcomes] == [
        rows[:5].tolist(),
        rows[[1, 2, 3, 0, 4]].tolist(),
    ]
    for outcome in outcomes:
        assert outcome.scores.accuracy_K.tolist() == [accuracy_of(genes) for genes in outcome.genes_KG]


def test_what_others_evaluate_is_told_only_within_the_limits(
    digits_space: SearchSpace, make_target: MakeTarget
) -> None:
    smallest, largest = (digits_space.encode(each)[None] for each in (digits_space.smallest, digits_space.largest))
    loose = problem_of(digits_space, make_target())
    fewest = float(costs_of(digits_space, [digits_space.smallest]).num_macs[0])
    tight = problem_of(digits_space, make_target(macs=fewest))
    searchers = Scripted(9, np.concatenate([largest, smallest])), Scripted(9)
    problems = (loose, tight)
    run_searches(
        [Search(problem, "scripted", searcher) for problem, searcher in zip(problems, searchers, strict=True)],
        Accuracies(),
    )
    assert searchers[1].told == [told_of(smallest)]


def test_a_searcher_is_told_the_accuracies_of_its_proposals_in_their_order(
    digits_space: SearchSpace, make_target: MakeTarget
) -> None:
    rows = digits_space.enumerate_genes()
    searcher = Scripted(9, rows[2:4], rows[[5, 2]])
    run_searches([Search(problem_of(digits_space, make_target()), "scripted", searcher)], Accuracies())
    assert searcher.told == [told_of(rows[2:4]), told_of(rows[[5, 2]])]
    assert searcher.asked == [9, 7, 5]


def test_a_searcher_that_repeats_itself_comes_to_an_end(digits_space: SearchSpace, make_target: MakeTarget) -> None:
    row = digits_space.enumerate_genes()[:1]
    searcher, evaluate = Scripted(5, *[row] * 1000), Accuracies()
    (outcome,) = run_searches([Search(problem_of(digits_space, make_target()), "scripted", searcher)], evaluate)
    assert searcher.asked == [5, 4, 3, 2, 1]
    assert len(evaluate.calls) == 1
    assert len(outcome.genes_KG) == 1


def test_a_searcher_that_is_finished_is_not_asked_again(digits_space: SearchSpace, make_target: MakeTarget) -> None:
    rows, problem = digits_space.enumerate_genes(), problem_of(digits_space, make_target())
    short, long = Scripted(9, rows[:1]), Scripted(9, rows[:1], rows[1:2], rows[2:3])
    run_searches([Search(problem, "scripted", short), Search(problem, "scripted", long)], Accuracies())
    assert short.asked == [9, 8]
    assert long.asked == [9, 8, 7, 6]


def test_an_accuracy_that_is_none_is_a_bug(digits_space: SearchSpace, make_target: MakeTarget) -> None:
    search = open_search(problem_of(digits_space, make_target()), "exact", None, 0)
    with pytest.raises(AssertionError, match=r"not in \[0, 1\]"):
        run_searches([search], lambda genes_KG, _: Scores(np.full(len(genes_KG), np.nan)))


@pytest.mark.parametrize(
    ("evaluations", "expected"),
    [(None, "exact"), (128, "exact"), (127, "evolution"), (1, "evolution"), (10_000, "exact")],
)
def test_auto_is_exact_where_everything_feasible_can_be_evaluated(
    digits_space: SearchSpace, make_target: MakeTarget, evaluations: int | None, expected: str
) -> None:
    search = open_search(problem_of(digits_space, make_target()), "auto", evaluations, 0)
    assert search.method == expected
    assert search.searcher.budget == (128 if expected == "exact" else evaluations)


def test_auto_is_exact_where_accuracy_is_predicted(make_target: MakeTarget) -> None:
    """All 10,368 predictions are made, though nobody would measure as many."""
    space = validate(load_yaml(find("configs/spaces", "fedsup-mobilenet")), SearchSpace)
    predictor = fitted(space, "ridge")
    assert open_search(problem_of(space, make_target(), predictor), "auto", None, 0).method == "exact"
    assert open_search(problem_of(space, make_target()), "auto", None, 0).method == "evolution"


def test_auto_in_a_space_that_was_only_sampled(huge_space: SearchSpace, make_target: MakeTarget) -> None:
    """However few of the samples fit: there are others. Only where both models are sums can the best be proven."""
    target = make_target(params=huge_params_limit(huge_space))
    assert problem_of(huge_space, target).num_feasible < DEFAULT_EVALUATIONS
    predictors = {None: "evolution", "ridge": "exact", "mlp": "evolution"}
    for kind, expected in predictors.items():
        predictor = None if kind is None else fitted(huge_space, kind)
        assert auto_method(problem_of(huge_space, target, predictor), None) == expected


def fitted(space: SearchSpace, kind: str) -> FittedAccuracy:
    """A predictor from 40 random architectures."""
    genes_TG = sampling.random_genes(space, np.random.default_rng(0), 40)
    return fit(space, genes_TG, np.array([accuracy_of(genes) for genes in genes_TG]), kind, 0)


def huge_params_limit(space: SearchSpace) -> int:
    """Parameters of the smallest subnet: nearly no sample has as few."""
    return int(costs_of(space, [space.smallest]).num_params[0])


def test_an_unknown_method_is_refused(digits_space: SearchSpace, make_target: MakeTarget) -> None:
    with pytest.raises(ConfigError, match="unknown searcher 'exakt'; did you mean 'exact'"):
        open_search(problem_of(digits_space, make_target()), "exakt", None, 0)


def test_exact_refuses_fewer_evaluations_than_it_needs(digits_space: SearchSpace, make_target: MakeTarget) -> None:
    with pytest.raises(ConfigError, match="got 127 evaluations, expected at least 128, one for each architecture"):
        ExactSearcher(problem_of(digits_space, make_target()), 0, 127)


def test_exact_evaluates_more_than_the_default_when_nobody_gave_a_number(make_target: MakeTarget) -> None:
    space = validate(load_yaml(find("configs/spaces", "fedsup-mobilenet")), SearchSpace)
    searcher = ExactSearcher(problem_of(space, make_target()), 0, None)
    assert searcher.budget == 10_368 > DEFAULT_EVALUATIONS
    assert searcher.ask(20_000).tolist() == space.enumerate_genes().tolist()


def test_exact_refuses_a_space_that_was_only_sampled(huge_space: SearchSpace, make_target: MakeTarget) -> None:
    with pytest.raises(
        ConfigError, match=r"space huge has .* architectures, too many to list, and the accuracy is not predicted"
    ):
        ExactSearcher(problem_of(huge_space, make_target()), 0, None)


def test_random_begins_with_the_most_macs_and_the_fastest(digits_space: SearchSpace, make_target: MakeTarget) -> None:
    """MACs and time are one here, so the limit decides the first and the smallest subnet is the second."""
    problem = problem_of(digits_space, make_target(macs=500_000))
    first, second = RandomSearcher(problem, 0, 2).ask(2)
    rows = problem.genes.tolist()
    assert problem.prices.num_macs[rows.index(first.tolist())] == problem.prices.num_macs.max() <= 500_000
    assert digits_space.decode(second) == digits_space.smallest


def test_random_proposes_one_architecture_once_even_if_it_is_both_extremes(
    toy_space: SearchSpace, make_target: MakeTarget
) -> None:
    searcher = RandomSearcher(problem_of(toy_space, make_target(macs=700)), 0, 10)
    assert [toy_space.decode(genes) for genes in searcher.ask(10)] == [toy_space.smallest]
    assert len(searcher.ask(9)) == 0


def test_random_orders_what_two_devices_share_alike(digits_space: SearchSpace, make_target: MakeTarget) -> None:
    pool = make_pool(digits_space, seed=0)
    tight, loose = pose(pool, [make_target(macs=500_000), make_target("jetson-nano")], EventLog())
    shared = {tuple(row) for row in tight.genes.tolist()}
    first, second = ([tuple(row) for row in RandomSearcher(p, 3, None).ask(128)[2:].tolist()] for p in (tight, loose))
    in_both = set(first) & set(second)
    assert 50 < len(in_both) <= len(shared) < 128
    assert [row for row in first if row in in_both] == [row for row in second if row in in_both]


def test_random_is_uniform(digits_space: SearchSpace, make_target: MakeTarget) -> None:
    """The third proposal of 2,560 seeds falls on each of the other 126 architectures about 20 times."""
    problem = problem_of(digits_space, make_target())
    index = {tuple(row): at for at, row in enumerate(problem.genes.tolist())}
    thirds = [index[tuple(RandomSearcher(problem, seed, 3).ask(3)[2].tolist())] for seed in range(2_560)]
    counts_N = np.bincount(thirds, minlength=128)
    extremes = sorted(np.flatnonzero(counts_N == 0).tolist())
    assert [digits_space.decode(problem.genes[at]) for at in extremes] == [digits_space.smallest, digits_space.largest]
    chi_square = ((counts_N[counts_N > 0] - 2_560 / 126) ** 2 / (2_560 / 126)).sum()
    assert chi_square < 190, "beyond the 99.98th percentile of a uniform draw with 125 degrees of freedom"
