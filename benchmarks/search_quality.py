"""How near to the best does a search come? `python benchmarks/search_quality.py [--profile NAME] [--table FILE]`.

A table holds the measured accuracy of every architecture of a space; latencies are those a profile predicts. So the
true best and the true front are known, without any limit and under one that 30 % of the space meets. Of each searcher
it prints, over several seeds and with the same number of evaluations: the ratio of its front's hypervolume to the true
front's (reference point: the lowest accuracy and the longest latency within the limit), the regret (the true best
accuracy less the best it found), and the share of the true front it found. An evaluation is that of an architecture
within the limit that was not evaluated before: to break a limit costs nothing, for anyone.

Then it asks whether a score that needs no image helps: how it ranks the architectures beside their MACs, and what
evolution reaches if its first population is the best by that score, one from each slice of the latencies. The score is
made of the four properties that DeepFedNAS (arXiv 2601.15127) names, after the paper's description and that of the
entropy it takes from DeepMAD (arXiv 2303.02165); weights and scales are ours.
"""

import argparse
import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.problem import Problem as PymooProblem
from pymoo.indicators.hv import HV
from pymoo.operators.crossover.sbx import SBX
from pymoo.operators.mutation.pm import PM
from pymoo.operators.repair.rounding import RoundingRepair
from pymoo.operators.sampling.rnd import IntegerRandomSampling
from scipy.stats import kendalltau
from threadpoolctl import threadpool_limits

from fedsup_deploy import rng
from fedsup_deploy.commands.search import target_for
from fedsup_deploy.config.load import load_yaml, validate
from fedsup_deploy.device.profile import load_profile
from fedsup_deploy.events import EventLog
from fedsup_deploy.resources import find
from fedsup_deploy.searchers.methods import nsga
from fedsup_deploy.searchers.methods.choice import open_search
from fedsup_deploy.searchers.objective import front
from fedsup_deploy.searchers.pool import make_pool
from fedsup_deploy.searchers.pricing import price
from fedsup_deploy.searchers.problem import Problem, pose
from fedsup_deploy.searchers.scoring.score import FloatArray, Scores
from fedsup_deploy.searchers.searcher import Searcher
from fedsup_deploy.space import cost
from fedsup_deploy.space.layers.layer import Layer
from fedsup_deploy.space.plan import BoolArray, IntArray, NetworkPlan
from fedsup_deploy.space.sampling import random_genes, row_keys
from fedsup_deploy.space.search_space import SearchSpace

TABLE = Path(__file__).parent / "tables" / "fashion-mnist.csv.gz"
SPACE = TABLE.with_name("fashion-mnist-space.yaml")
LIMIT_QUANTILE = 0.3
# Architectures of a pool that is a sample of the space.
NUM_IN_POOL = 2_000
NOT_GENES = ("accuracy", "num_macs")
CONVOLUTIONS = ("conv", "depthwise", "pointwise")
# A peer that finds nothing new any more is given up after so many generations.
MAX_GENERATIONS = 400


@dataclasses.dataclass(frozen=True)
class Case:
    """A device with or without a limit, and what everything in the space is worth there.

    Args:
        problem: As a searcher sees it.
        limit_ms: Its limit; infinite without one.
        accuracy_N: Of all architectures, in the order of the pool.
        latency_ms_N: Predicted, of all.
    """

    problem: Problem
    limit_ms: float
    accuracy_N: FloatArray
    latency_ms_N: FloatArray

    @functools.cached_property
    def fits(self) -> BoolArray:
        """Which architectures are within the limit."""
        return np.isin(np.arange(len(self.accuracy_N)), self.problem.feasible_F)

    @functools.cached_property
    def true_front(self) -> set[int]:
        """The front of all that fits."""
        return set(self.front_of(self.problem.feasible_F))

    def index_of(self, genes_KG: IntArray) -> IntArray:
        """Return where architectures are in the pool, shape (K,)."""
        index_K: IntArray = np.searchsorted(self.keys, row_keys(genes_KG))
        return index_K

    @functools.cached_property
    def keys(self) -> Any:
        """A sortable name of each architecture; the pool is in that order."""
        return row_keys(self.problem.pool.genes_NG)

    def front_of(self, index_K: IntArray) -> list[int]:
        """Return which of the given architectures no other of them dominates."""
        return [int(index_K[place]) for place in front(self.objectives(index_K))]

    def objectives(self, index_K: IntArray) -> FloatArray:
        """Return latency and negative accuracy, shape (K, 2)."""
        return np.stack([self.latency_ms_N[index_K], -self.accuracy_N[index_K]], axis=1)

    def hypervolume(self, index_K: IntArray) -> float:
        """Return what the given architectures dominate, up to the worst that fits."""
        reference_2 = self.objectives(self.problem.feasible_F).max(axis=0)
        return float(HV(ref_point=reference_2)(self.objectives(np.array(self.front_of(index_K)))))

    def rate(self, index_K: IntArray) -> dict[str, float]:
        """Return how good what a search evaluated is."""
        found, best = set(self.front_of(index_K)), self.accuracy_N[self.problem.feasible_F].max()
        return {
            "hypervolume": self.hypervolume(index_K) / self.hypervolume(self.problem.feasible_F),
            "regret": float(best - self.accuracy_N[index_K].max()),
            "recall": len(found & self.true_front) / len(self.true_front),
        }


class Ledger:
    """What a search has evaluated: different architectures within the limit, in their order, as many as it may.

    Args:
        case: Where it searches.
        budget: How many.
    """

    def __init__(self, case: Case, budget: int) -> None:
        self._case, self._budget = case, budget
        self._seen: dict[int, None] = {}

    @property
    def is_full(self) -> bool:
        """Whether the budget is used."""
        return len(self._seen) >= self._budget

    @property
    def index(self) -> IntArray:
        """What was evaluated."""
        return np.array(list(self._seen), np.int64)

    def evaluate(self, genes_KG: IntArray) -> IntArray:
        """Note architectures, and return where they are in the pool."""
        index_K = self._case.index_of(genes_KG)
        for index in index_K[self._case.fits[index_K]]:
            if not self.is_full:
                self._seen.setdefault(int(index))
        return index_K


Method = Callable[[Case, int, int], IntArray]


def main() -> None:
    """Search, and print how near the best it came."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, default=TABLE, help="columns: one per gene, accuracy, num_macs")
    parser.add_argument("--space", default=str(SPACE), help="the space of the table")
    parser.add_argument("--profile", default="raspberry-pi-4")
    parser.add_argument("--evaluations", type=int, default=250)
    parser.add_argument("--population", type=int, default=50, help="of NSGA-II without a predictor")
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    if not options.table.is_file():
        parser.error(f"no table at {options.table}; give another with --table")
    space = validate(load_yaml(find("configs/spaces", options.space)), SearchSpace)
    accuracy_N = read_accuracies(options.table, space)
    print(
        f"{len(accuracy_N):,} architectures of {space.name}, {accuracy_N.min():.4f} to {accuracy_N.max():.4f} accurate"
    )
    scores = zero_cost_scores(space, space.enumerate_genes())
    # Matrices as small as those of a fit gain nothing from threads, and lose much where others work.
    threadpool_limits(1)
    for quantile in (None, LIMIT_QUANTILE):
        case = make_case(space, options.profile, accuracy_N, quantile)
        limit = "no limit" if quantile is None else f"at most {case.limit_ms:.4g} ms"
        print(f"\n{options.profile}, {limit}: {case.problem.num_feasible:,} fit, {len(case.true_front)} on the front")
        report_exact(case)
        print(f"{options.evaluations} evaluations, {options.seeds} seeds:")
        report(case, methods(options.population), options.evaluations, options.seeds)
        print("evolution from a first population that is the best by a score, per slice of latency:")
        seeded = {name: functools.partial(evolution_from, score_N) for name, score_N in scores.items()}
        report(case, seeded, options.evaluations, options.seeds)
    print("\nrank correlation with the accuracy (Kendall):")
    for name, score_N in scores.items():
        print(f"{name:34} {kendalltau(score_N, accuracy_N).statistic:.3f}")


def read_accuracies(path: Path, space: SearchSpace) -> FloatArray:
    """Return the accuracy of every architecture of the space, in the order of `enumerate_genes`.

    Raises:
        SystemExit: The table is not about exactly these architectures.
    """
    table = np.genfromtxt(path, delimiter=",", names=True)
    genes = [name for name in table.dtype.names or () if name not in NOT_GENES]
    genes_NG = np.stack([table[name] for name in genes], axis=1).astype(np.int64)
    order_N = np.lexsort(genes_NG.T[::-1])
    if not np.array_equal(genes_NG[order_N], space.enumerate_genes()):
        raise SystemExit(f"{path} does not hold each architecture of {space.name} once; name its space with --space")
    accuracy_N: FloatArray = table["accuracy"][order_N]
    return accuracy_N


def make_case(space: SearchSpace, profile_name: str, accuracy_N: FloatArray, quantile: float | None) -> Case:
    """Return a device, limited to the fastest share of the architectures or not at all."""
    pool = make_pool(space, 0)
    profile = load_profile(profile_name)
    free = target_for(profile.model_copy(update={"limits": type(profile.limits)()}), {})
    (prices,) = price(space, pool.genes_NG, [free])
    limit_ms = float(np.inf if quantile is None else np.quantile(prices.latency_ms, quantile))
    limits = {} if quantile is None else {"latency_ms": limit_ms}
    (problem,) = pose(pool, [target_for(free.profile, limits)], EventLog())
    return Case(problem, limit_ms, accuracy_N, prices.latency_ms)


def methods(population: int) -> dict[str, Method]:
    """Return what is compared, by name."""
    return {
        "evolution": functools.partial(registered, "evolution"),
        "evolution, space not listed": evolution_in_sample,
        "random": functools.partial(registered, "random"),
        "NSGA-II, pymoo's operators": functools.partial(plain_nsga2, stock_operators, population),
        "NSGA-II, our operators": functools.partial(plain_nsga2, our_operators, population),
    }


def registered(name: str, case: Case, seed: int, budget: int) -> IntArray:
    """Return what a searcher of ours evaluates."""
    return run(open_search(case.problem, name, budget, seed).searcher, case, budget)


def evolution_in_sample(case: Case, seed: int, budget: int) -> IntArray:
    """Return what evolution evaluates in a space that it takes for too large to list and to predict as a whole."""
    pool = case.problem.pool
    drawn = rng.generator(seed, "benchmark", "pool").choice(len(pool.genes_NG), NUM_IN_POOL, replace=False)
    sampled = dataclasses.replace(pool, genes_NG=pool.genes_NG[np.sort(drawn)], is_complete=False)
    (problem,) = pose(sampled, [case.problem.target], EventLog())
    return run(open_search(problem, "evolution", budget, seed).searcher, case, budget)


def run(searcher: Searcher, case: Case, budget: int, first_KG: IntArray | None = None) -> IntArray:
    """Return what a searcher evaluates.

    Args:
        searcher: Who proposes.
        case: Where it searches.
        budget: Evaluations.
        first_KG: What it is told before it proposes anything, within the budget; None leaves that to it.
    """
    ledger, left = Ledger(case, budget), budget
    proposals_KG = searcher.ask(left) if first_KG is None else first_KG
    while len(proposals_KG):
        searcher.tell(proposals_KG, Scores(case.accuracy_N[ledger.evaluate(proposals_KG)]))
        left -= len(proposals_KG)
        proposals_KG = searcher.ask(left) if left > 0 else proposals_KG[:0]
    return ledger.index


def evolution_from(score_N: FloatArray, case: Case, seed: int, budget: int) -> IntArray:
    """Return what evolution evaluates whose first population is the best by a score, one per slice of latency."""
    problem = case.problem
    searcher, other = (open_search(problem, "evolution", budget, seed).searcher for _ in range(2))
    by_latency_F = problem.feasible_F[np.argsort(problem.prices.latency_ms, kind="stable")]
    slices = np.array_split(by_latency_F, len(other.ask(budget)))
    # Equal scores are common, and only chance tells them apart.
    chance_N = rng.generator(seed, "benchmark", "first").random(len(score_N))
    first = [int(part[np.lexsort((chance_N[part], score_N[part]))[-1]]) for part in slices]
    return run(searcher, case, budget, problem.pool.genes_NG[first])


def plain_nsga2(
    operators: Callable[[SearchSpace, int, int], dict[str, Any]], population: int, case: Case, seed: int, budget: int
) -> IntArray:
    """Return what pymoo's NSGA-II evaluates when each of its architectures within the limit is."""
    space, ledger = case.problem.pool.space, Ledger(case, budget)
    algorithm = NSGA2(pop_size=population, eliminate_duplicates=True, **operators(space, population, seed))
    algorithm.setup(InTable(case, ledger), termination=("n_gen", MAX_GENERATIONS), seed=seed)
    while algorithm.has_next() and not ledger.is_full:
        algorithm.next()
    return ledger.index


class InTable(PymooProblem):  # type: ignore[misc]  # pymoo has no types
    """Latency and accuracy looked up, the limit as a constraint.

    Args:
        case: The table.
        ledger: Notes what is looked up.
    """

    def __init__(self, case: Case, ledger: Ledger) -> None:
        num_choices = np.array(case.problem.pool.space.num_choices)
        super().__init__(
            n_var=len(num_choices), n_obj=2, n_ieq_constr=1, xl=0 * num_choices, xu=num_choices - 1, vtype=int
        )
        self._case, self._ledger = case, ledger

    def _evaluate(self, genes_KG: IntArray, out: dict[str, FloatArray], *_: Any, **__: Any) -> None:
        index_K = self._ledger.evaluate(genes_KG)
        out["F"] = self._case.objectives(index_K)
        out["G"] = (self._case.latency_ms_N[index_K] / self._case.limit_ms - 1)[:, None]


def stock_operators(space: SearchSpace, population: int, seed: int) -> dict[str, Any]:
    """Return what pymoo has for integers."""
    del space, population, seed
    repair = RoundingRepair()
    return {
        "sampling": IntegerRandomSampling(),
        "crossover": SBX(vtype=float, repair=repair),
        "mutation": PM(vtype=float, repair=repair),
    }


def our_operators(space: SearchSpace, population: int, seed: int) -> dict[str, Any]:
    """Return what our evolution uses inside its predictions."""
    generator = rng.generator(seed, "benchmark", "population")
    return {
        "sampling": random_genes(space, generator, population),
        "crossover": nsga.GeneCrossover(space),
        "mutation": nsga.GeneMutation(space),
    }


def zero_cost_scores(space: SearchSpace, genes_NG: IntArray) -> dict[str, FloatArray]:
    """Return scores that need no image, by name, shape (N,) each; more is meant to be better."""
    plan = space.plan_many(genes_NG)
    entropy_N, depth_to_width_N = entropy(plan)
    depth_NS, width_NS = depths_and_widths(plan)
    imbalance_N = np.exp(depth_NS.var(axis=1))
    falls_N = (np.diff(width_NS, axis=1) < 0).sum(axis=1).astype(np.float64)
    balance_N = -sum(standardised(part_N) for part_N in (depth_to_width_N, imbalance_N, falls_N))
    return {
        "MACs": cost.costs(space, genes_NG).num_macs.astype(np.float64),
        "entropy": entropy_N,
        "entropy and width-depth balance": standardised(entropy_N) + balance_N,
    }


def entropy(plan: NetworkPlan) -> tuple[FloatArray, FloatArray]:
    """Return log(r^2 c) of the last feature map times the sum of log(fan-in) of the layers, and depth over width.

    Width is the geometric mean of the fan-ins k^2 c / groups, depth the number of layers.
    """
    layers = [
        layer
        for layer in (plan.stem, *(layer for block in plan.blocks for layer in block.main))
        if layer.op in CONVOLUTIONS
    ]
    active_NL = np.stack([np.broadcast_to(layer.is_active, np.shape(plan.head[0].in_channels)) for layer in layers], 1)
    logs_NL = active_NL * np.stack([np.broadcast_to(np.log(fan_in(layer)), active_NL.shape[:1]) for layer in layers], 1)
    depth_N = active_NL.sum(axis=1)
    last = plan.head[0]
    volume_N = np.log(last.in_size**2 * last.in_channels)
    return volume_N * logs_NL.sum(axis=1), depth_N / np.exp(logs_NL.sum(axis=1) / depth_N)


def fan_in(layer: Layer) -> Any:
    """Return how many numbers go into one that a layer computes."""
    return layer.kernel_size**2 * (1 if layer.op == "depthwise" else layer.in_channels)


def depths_and_widths(plan: NetworkPlan) -> tuple[FloatArray, FloatArray]:
    """Return the number of blocks and the width of each stage, shape (N, stages) each."""
    depths, widths = dict[str, Any](), dict[str, Any]()
    for block in plan.blocks:
        stage = block.name.split(".")[0]
        is_active = np.asarray(block.add.is_active)
        depths[stage] = depths.get(stage, 0) + is_active
        widths[stage] = np.where(is_active, block.add.out_channels, widths.get(stage, 0))
    return np.stack(list(depths.values()), 1).astype(np.float64), np.stack(list(widths.values()), 1).astype(np.float64)


def standardised(values_N: FloatArray) -> FloatArray:
    """Return values of mean 0 and deviation 1, or 0 where all are equal."""
    return (values_N - values_N.mean()) / (values_N.std() or 1.0)


def report_exact(case: Case) -> None:
    """Print what exhaustive search finds."""
    rated = case.rate(registered("exact", case, 0, case.problem.num_feasible))
    print(f"exact, all of them: regret {rated['regret']:.4f}, {rated['recall']:.0%} of the front")


def report(case: Case, compared: Mapping[str, Method], budget: int, seeds: int) -> None:
    """Print how good each method is in its worst and its median seed."""
    print(f"{'':34} {'hypervolume ratio':>19} {'regret':>15} {'front found':>13}   (worst, median)")
    for name, method in compared.items():
        rated = [case.rate(method(case, seed, budget)) for seed in range(seeds)]
        of = {what: np.array([one[what] for one in rated]) for what in ("hypervolume", "regret", "recall")}
        shown = f"{of['hypervolume'].min():>10.4f} {np.median(of['hypervolume']):>8.4f}"
        shown += f" {of['regret'].max():>8.4f} {np.median(of['regret']):>6.4f}"
        print(f"{name:34} {shown} {of['recall'].min():>7.0%} {np.median(of['recall']):>5.0%}", flush=True)


if __name__ == "__main__":
    main()
