"""Evolution on a predictor that learns from what was evaluated: few real evaluations, each where it promises most.

A first population, spread over the latencies, is evaluated. Then, turn by turn: a predictor is fitted to all that is
known, the most promising architectures on the prediction are found, and those that are new are evaluated. In a space
that can be listed the prediction is made for all of it; in a larger one NSGA-II (with a third objective NSGA-III)
evolves architectures on it.

Source: LINAS of DyNAS-T (arXiv 2112.13658) for the turns; K. Deb et al., NSGA-II (2002) and NSGA-III (2014), as pymoo
has them, for the evolution. Limits are constraints there: what breaks one ranks behind all that do not. Sampling,
crossover and mutation are ours and never leave the space.

Shapes: K proposed architectures, N of a generation, F feasible ones of the pool, G genes, M objectives.
"""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from fedsup_deploy import rng
from fedsup_deploy.searchers import objective
from fedsup_deploy.searchers.prices import Prices
from fedsup_deploy.searchers.problem import Problem
from fedsup_deploy.searchers.scoring.predictor import AccuracyPredictor, fit
from fedsup_deploy.searchers.scoring.score import FloatArray, Scores
from fedsup_deploy.searchers.searcher import DEFAULT_EVALUATIONS
from fedsup_deploy.space.plan import IntArray
from fedsup_deploy.space.sampling import row_keys

# Share of the budget that goes into the first population.
_FIRST_SHARE: Final = 0.25
_PER_TURN: Final = 25
_FIRST_GENERATION: Final = 100
# Of the three kinds the best in the paper's space: docs/benchmarks.md.
_REGRESSION: Final = "mlp"

Objectives = Callable[[IntArray, Prices], FloatArray]
#: By the objective that they predict.
Predictors = Mapping[str, AccuracyPredictor]


class EvolutionSearcher:
    """Proposes what evolution on a prediction finds most promising.

    Where nothing more is to be measured, there is nothing to learn: evolution runs once on what is known.

    Args:
        problem: What is feasible.
        seed: Decides every random choice.
        evaluations: The most proposals; None is `DEFAULT_EVALUATIONS`.
    """

    proves_optimum = False

    def __init__(self, problem: Problem, seed: int, evaluations: int | None) -> None:
        self.budget = DEFAULT_EVALUATIONS if evaluations is None else evaluations
        self._problem, self._seed = problem, seed
        self._turn = self._num_proposed = 0
        self._known_KG = np.empty((0, len(problem.pool.space.num_choices)), np.int64)
        self._waiting_KG = self._known_KG
        self._scores: Scores | None = None

    def ask(self, count: int) -> IntArray:
        """Return the most promising architectures that are not known, at most `count`."""
        if not len(self._waiting_KG):
            self._turn += 1
            self._waiting_KG = self._next_turn(self.budget - self._num_proposed)
        asked_KG, self._waiting_KG = self._waiting_KG[:count], self._waiting_KG[count:]
        self._num_proposed += len(asked_KG)
        return asked_KG

    def tell(self, genes_KG: IntArray, scores: Scores) -> None:
        """Learn scores."""
        is_new_K = ~np.isin(row_keys(genes_KG), row_keys(self._known_KG))
        scores = scores.take(np.flatnonzero(is_new_K))
        self._known_KG = np.concatenate([self._known_KG, genes_KG[is_new_K]])
        self._scores = scores if self._scores is None else self._scores.with_more(scores)

    def _next_turn(self, left: int) -> IntArray:
        """Return what to evaluate before anything more can be learnt, shape (K, G)."""
        problem = self._problem
        generator = rng.generator(self._seed, "search", "turn", self._turn)
        if problem.known is not None:
            return (
                self._best_new({"accuracy": problem.known}, left, generator) if self._turn == 1 else self._known_KG[:0]
            )
        if self._scores is None:
            count = min(left, max(_PER_TURN, round(self.budget * _FIRST_SHARE)))
            return problem.genes[_spread(problem, count, generator)]
        if problem.pool.is_complete and len(self._known_KG) == problem.num_feasible:
            return self._known_KG[:0]
        predictors: Predictors = {
            name: fit(problem.pool.space, self._known_KG, values_K, _REGRESSION, self._seed)
            for name, values_K in objective.scored(self._scores).items()
        }
        count = min(left, _PER_TURN)
        best_KG = self._best_new(predictors, count, generator)
        return np.concatenate([best_KG, self._others(best_KG, count - len(best_KG), generator)])

    def _best_new(self, predictors: Predictors, count: int, generator: np.random.Generator) -> IntArray:
        """Return the most promising `count` of what is not known, shape (K, G)."""
        from fedsup_deploy.searchers.methods.nsga import most_promising

        problem, objectives = self._problem, _objectives(predictors)
        is_listed = problem.pool.is_complete
        # What is listed needs no evolution: a prediction of all of it takes less time.
        num_objectives = len(objective.priced(problem.prices)) + len(predictors)
        found_NG = problem.genes if is_listed else self._evolved(objectives, num_objectives, generator)
        prices = problem.prices if is_listed else problem.admits(found_NG)[1]
        is_new_N = ~np.isin(row_keys(found_NG), row_keys(self._known_KG))
        new_NG = found_NG[is_new_N]
        if not len(new_NG):
            return new_NG
        return new_NG[most_promising(objectives(new_NG, prices.take(np.flatnonzero(is_new_N))), count, generator)]

    def _evolved(self, objectives: Objectives, num_objectives: int, generator: np.random.Generator) -> IntArray:
        """Return what evolution on a prediction ends with, shape (N, G)."""
        from fedsup_deploy.searchers.methods.nsga import evolve

        drawn = self._problem.genes[_spread(self._problem, _FIRST_GENERATION, generator)]
        first_NG = np.unique(np.concatenate([self._known_front(), drawn]), axis=0)
        seed = rng.derive(self._seed, "search", "evolution", self._turn)
        return evolve(self._problem, first_NG, objectives, num_objectives, seed)

    def _others(self, chosen_KG: IntArray, count: int, generator: np.random.Generator) -> IntArray:
        """Return `count` random feasible architectures of the pool that are neither known nor chosen, if there are."""
        genes_FG = self._problem.genes
        used = np.concatenate([row_keys(self._known_KG), row_keys(chosen_KG)])
        left_F = np.flatnonzero(~np.isin(row_keys(genes_FG), used))
        others_KG: IntArray = genes_FG[generator.permutation(left_F)[:count]]
        return others_KG

    def _known_front(self) -> IntArray:
        if self._scores is None:
            return self._known_KG
        _, prices = self._problem.admits(self._known_KG)
        return self._known_KG[
            objective.front(objective.minimised(objective.priced(prices) | objective.scored(self._scores)))
        ]


def _objectives(predictors: Predictors) -> Objectives:
    def objectives(genes_NG: IntArray, prices: Prices) -> FloatArray:
        predicted = {name: predictor.predict(genes_NG) for name, predictor in predictors.items()}
        return objective.minimised(objective.priced(prices) | predicted)

    return objectives


def _spread(problem: Problem, count: int, generator: np.random.Generator) -> IntArray:
    """Return rows of at most `count` feasible architectures: the fastest, the largest, one per slice of latency."""
    order_F = np.argsort(problem.prices.latency_ms, kind="stable")
    slices = np.array_split(order_F, min(count, len(order_F)))
    drawn = [int(part[generator.integers(len(part))]) for part in slices]
    extremes = [int(order_F[0]), int(np.argmax(problem.prices.num_macs))]
    return np.array(list(dict.fromkeys([*extremes, *drawn]))[:count], np.int64)
