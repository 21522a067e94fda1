"""pymoo's NSGA-II and NSGA-III on the genes of a search space, with limits as constraints. It measures nothing.

Shapes: N architectures of a generation, G genes, M objectives, L constraints.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.algorithms.moo.nsga3 import NSGA3
from pymoo.core.crossover import Crossover
from pymoo.core.mutation import Mutation
from pymoo.core.population import Population
from pymoo.core.problem import Problem as PymooProblem
from pymoo.operators.survival.rank_and_crowding import RankAndCrowding
from pymoo.optimize import minimize
from pymoo.util.ref_dirs import get_reference_directions

from fedsup_deploy.searchers.objective import front
from fedsup_deploy.searchers.prices import FloatArray, Prices
from fedsup_deploy.searchers.problem import Problem
from fedsup_deploy.space import sampling
from fedsup_deploy.space.plan import IntArray
from fedsup_deploy.space.search_space import SearchSpace

#: Genes, shape (N, G), and their prices -> what to minimise, shape (N, M).
Objectives = Callable[[IntArray, Prices], FloatArray]

_POPULATION: Final = 100
_GENERATIONS: Final = 40
# Each gene is redrawn with this probability over the number of genes.
_REDRAWN_GENES: Final = 1.5


def evolve(problem: Problem, first_NG: IntArray, objectives: Objectives, num_objectives: int, seed: int) -> IntArray:
    """Return the last generation, what is within the limits of it, none twice, the best first, shape (N, G).

    Args:
        problem: The device, its limits and the space.
        first_NG: The first generation.
        objectives: What is minimised.
        num_objectives: M: 2 takes NSGA-II, more take NSGA-III.
        seed: Decides every random choice.
    """
    space = problem.pool.space
    operators: dict[str, Any] = {
        "sampling": first_NG,
        "crossover": GeneCrossover(space),
        "mutation": GeneMutation(space),
        "eliminate_duplicates": True,
    }
    if num_objectives == 2:
        algorithm = NSGA2(pop_size=_POPULATION, **operators)
    else:
        directions = get_reference_directions("das-dennis", num_objectives, n_partitions=12)
        algorithm = NSGA3(directions, pop_size=max(_POPULATION, len(directions)), **operators)
    found = minimize(_Genes(problem, objectives, num_objectives), algorithm, ("n_gen", _GENERATIONS), seed=seed % 2**32)
    population = found.pop[found.pop.get("feas")]
    return np.asarray(population.get("X").astype(np.int64).reshape(-1, len(space.num_choices)))


def most_promising(objectives_NM: FloatArray, count: int, generator: np.random.Generator) -> IntArray:
    """Return the indices of `count` candidates: front after front, of the last one those with the most room around.

    Args:
        objectives_NM: What is minimised, the latency first.
        count: How many; all are returned where there are no more.
        generator: Decides between those with as much room.
    """
    left_N, chosen = np.arange(len(objectives_NM)), [np.empty(0, np.int64)]
    while len(left_N) and count:
        front_F = left_N[front(objectives_NM[left_N])]
        if len(front_F) > count:
            front_F = front_F[_roomiest(objectives_NM[front_F], count, generator)]
        chosen.append(front_F)
        left_N, count = np.setdiff1d(left_N, front_F), count - len(front_F)
    return np.concatenate(chosen)


def _roomiest(objectives_FM: FloatArray, count: int, generator: np.random.Generator) -> IntArray:
    """Return the indices of the candidates of a front that are kept by their crowding distance."""
    population = Population.new("F", objectives_FM, "index", np.arange(len(objectives_FM)))
    # Without a generator pymoo makes one of its own, from no seed.
    kept = RankAndCrowding().do(PymooProblem(), population, n_survive=count, random_state=generator)
    return np.asarray(kept.get("index").astype(np.int64))


class _Genes(PymooProblem):  # type: ignore[misc]  # pymoo has no types
    """Constraints are shares by which limits are exceeded; a layer the device cannot run exceeds by one."""

    def __init__(self, problem: Problem, objectives: Objectives, num_objectives: int) -> None:
        num_choices = np.array(problem.pool.space.num_choices)
        self._problem, self._objectives = problem, objectives
        self._limits = problem.target.limits.checked(problem.prices.by_limit())
        super().__init__(
            n_var=len(num_choices),
            n_obj=num_objectives,
            n_ieq_constr=len(self._limits) + 1,
            xl=np.zeros(len(num_choices)),
            xu=num_choices - 1,
            vtype=int,
        )

    def _evaluate(self, genes_NG: IntArray, out: dict[str, FloatArray], *_args: object, **_kwargs: object) -> None:
        prices = self._problem.admits(genes_NG)[1]
        by_limit = prices.by_limit()
        exceeded = [by_limit[name] / limit - 1 for name, limit in self._limits.items()]
        out["F"] = self._objectives(genes_NG, prices)
        out["G"] = np.stack([*exceeded, (~prices.is_supported).astype(np.float64)], axis=1)


class GeneCrossover(Crossover):  # type: ignore[misc]
    """`space.sampling.crossover` as pymoo wants it."""

    def __init__(self, space: SearchSpace) -> None:
        super().__init__(n_parents=2, n_offsprings=2, prob=0.9)
        self._space = space

    def _do(
        self, _: PymooProblem, parents_2NG: IntArray, *, random_state: np.random.Generator, **__: object
    ) -> IntArray:
        first_NG, second_NG = parents_2NG.astype(np.int64)
        both = ((first_NG, second_NG), (second_NG, first_NG))
        return np.stack([sampling.crossover(self._space, *pair, random_state) for pair in both])


class GeneMutation(Mutation):  # type: ignore[misc]
    """`space.sampling.mutate` as pymoo wants it: one or two genes of an architecture are redrawn."""

    def __init__(self, space: SearchSpace) -> None:
        super().__init__(prob=0.9)
        self._space = space
        num_elastic = sum(count > 1 for count in space.num_choices)
        self._probability = min(0.5, _REDRAWN_GENES / max(1, num_elastic))

    def _do(self, _: PymooProblem, genes_NG: IntArray, *, random_state: np.random.Generator, **__: object) -> IntArray:
        return sampling.mutate(self._space, genes_NG.astype(np.int64), random_state, self._probability)
