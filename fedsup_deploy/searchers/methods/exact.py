"""Search whose pick and front are proven: nothing feasible in the space is better, under the models it is given."""

import numpy as np

from fedsup_deploy.errors import ConfigError
from fedsup_deploy.searchers.objective import are_summed
from fedsup_deploy.searchers.problem import Problem
from fedsup_deploy.searchers.scoring.additive import AdditiveAccuracy
from fedsup_deploy.searchers.searcher import FixedOrder
from fedsup_deploy.searchers.stages.front import front_over_stages, is_additive
from fedsup_deploy.space.plan import IntArray
from fedsup_deploy.space.sampling import row_keys


class ExactSearcher(FixedOrder):
    """Proposes everything feasible in a space that was listed, in its order; in a larger one the front.

    The front of a larger space is found stage by stage, where accuracy is predicted by a sum over choices and latency
    by a sum over layers. It is the front of predictions: of an architecture that was measured, the sum knows the
    prediction only. So all measured ones that fit are proposed with it, and the best is proven only where none of the
    front was measured: then nothing else is predicted to be better.

    Args:
        problem: What is feasible.
        seed: Of no effect: nothing is random here.
        evaluations: Accuracies the user allows; None allows as many as are needed.

    Raises:
        ConfigError: The space is too large to list and a model is no sum, or more architectures are feasible than
            evaluations are allowed.
    """

    def __init__(self, problem: Problem, seed: int, evaluations: int | None) -> None:
        del seed
        genes_FG, is_proven = (problem.genes, True) if problem.pool.is_complete else _front(problem)
        if evaluations is not None and evaluations < len(genes_FG):
            raise ConfigError(
                f"method exact: got {evaluations:,} evaluations, expected at least {len(genes_FG):,}, one for each "
                f"architecture that fits {problem.target.profile.name}; allow more, lower a limit or use "
                "--method evolution"
            )
        super().__init__(genes_FG, len(genes_FG), proves_optimum=is_proven)


def is_provable(problem: Problem) -> bool:
    """Return whether the best can be proven without finding the accuracy of every feasible architecture."""
    return not problem.pool.is_complete and _additive(problem) is not None


def _front(problem: Problem) -> tuple[IntArray, bool]:
    """Return the front of predictions with all measured ones that fit, and whether the best of them is proven."""
    known, additive, space = problem.known, _additive(problem), problem.pool.space
    if known is None or additive is None:
        raise ConfigError(
            f"method exact: space {space.name} has {space.num_architectures:,} architectures, too many to list, and "
            f"{_what_is_no_sum(problem)}; use --method evolution"
        )
    front_KG = front_over_stages(space, problem.target, additive, problem.on_step)
    measured_KG = known.genes_TG[problem.admits(known.genes_TG)[0]]
    is_proven = not known.is_measured(front_KG).any()
    return np.concatenate([front_KG, measured_KG[~np.isin(row_keys(measured_KG), row_keys(front_KG))]]), is_proven


def _what_is_no_sum(problem: Problem) -> str:
    """Return why stages cannot be searched one by one."""
    if not is_additive(problem.target):
        return f"the latency on {problem.target.profile.name} or a limit is no sum over layers"
    if not are_summed():
        return "an objective is no sum over layers"
    return "the accuracy is not predicted by ridge regression (fit-accuracy --predictor ridge)"


def _additive(problem: Problem) -> AdditiveAccuracy | None:
    if problem.known is None or not (is_additive(problem.target) and are_summed()):
        return None
    return problem.known.predictor.additive()
