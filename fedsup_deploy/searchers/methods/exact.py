"""Search whose pick and front are proven: nothing feasible in the space is better, under the models it is given."""

from fedsup_deploy.errors import ConfigError
from fedsup_deploy.searchers.problem import Problem
from fedsup_deploy.searchers.scoring.predictor import FittedAccuracy
from fedsup_deploy.searchers.searcher import FixedOrder
from fedsup_deploy.searchers.stages.front import AdditiveAccuracy, front_over_stages, is_additive
from fedsup_deploy.space.plan import IntArray


class ExactSearcher(FixedOrder):
    """Proposes everything feasible in a space that was listed, in its order; in a larger one the front.

    The front of a larger space is found stage by stage, where accuracy is predicted by a sum over choices and latency
    by a sum over layers.

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
        genes_FG = problem.genes if problem.pool.is_complete else _front(problem)
        if evaluations is not None and evaluations < len(genes_FG):
            raise ConfigError(
                f"method exact: got {evaluations:,} evaluations, expected at least {len(genes_FG):,}, one for each "
                f"architecture that fits {problem.target.profile.name}; allow more, lower a limit or use "
                "--method evolution"
            )
        super().__init__(genes_FG, len(genes_FG), proves_optimum=True)


def is_provable(problem: Problem) -> bool:
    """Return whether the best can be proven without finding the accuracy of every feasible architecture."""
    return not problem.pool.is_complete and _additive(problem) is not None


def _front(problem: Problem) -> IntArray:
    additive, space = _additive(problem), problem.pool.space
    if additive is None:
        raise ConfigError(
            f"method exact: space {space.name} has {space.num_architectures:,} architectures, too many to list, and "
            "the accuracy is not predicted by ridge regression (fit-accuracy --predictor ridge) or the latency is no "
            "sum over layers; use --method evolution"
        )
    return front_over_stages(space, problem.target, additive, problem.on_step)


def _additive(problem: Problem) -> AdditiveAccuracy | None:
    predictor = problem.predictor
    if not isinstance(predictor, FittedAccuracy) or not is_additive(problem.target):
        return None
    return predictor.additive()
