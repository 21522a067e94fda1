"""Random search: the yardstick for every other searcher, and what works in any space."""

import numpy as np

from fedsup_deploy import rng
from fedsup_deploy.searchers.problem import Problem
from fedsup_deploy.searchers.searcher import DEFAULT_EVALUATIONS, FixedOrder


class RandomSearcher(FixedOrder):
    """Proposes the feasible architecture with the most MACs, then the fastest, then others at random, none twice.

    The rows of a pool are shuffled alike for every device, so that the searches of one call propose much the same and
    it is evaluated once. Seen from one device, its feasible rows come in a uniformly random order.

    Args:
        problem: What is feasible. Of a space that was sampled these are the samples that fit: rejection sampling.
        seed: Decides the order.
        evaluations: The most proposals; None is `DEFAULT_EVALUATIONS`.
    """

    def __init__(self, problem: Problem, seed: int, evaluations: int | None) -> None:
        rank_N = rng.generator(seed, "search", "random").permutation(len(problem.pool.genes_NG))
        extremes = [np.argmax(problem.prices.num_macs), np.argmin(problem.prices.latency_ms)]
        by_rank_F = np.argsort(rank_N[problem.feasible_F])
        order_F = np.array(list(dict.fromkeys([*extremes, *by_rank_F])), np.int64)
        super().__init__(problem.genes[order_F], DEFAULT_EVALUATIONS if evaluations is None else evaluations)
