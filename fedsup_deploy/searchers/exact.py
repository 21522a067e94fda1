"""Exhaustive search: evaluates every feasible architecture, so its pick and front are the true ones."""

from fedsup_deploy.errors import ConfigError
from fedsup_deploy.searchers.problem import Problem
from fedsup_deploy.searchers.searcher import FixedOrder


class ExactSearcher(FixedOrder):
    """Proposes everything feasible, in the order of the space.

    Args:
        problem: What is feasible, of a space that was listed.
        seed: Of no effect: nothing is random here.
        evaluations: Accuracies the user allows; None allows as many as are needed.

    Raises:
        ConfigError: The space is too large to list, or more architectures are feasible than evaluations are allowed.
    """

    def __init__(self, problem: Problem, seed: int, evaluations: int | None) -> None:
        del seed
        space, name = problem.pool.space, problem.target.profile.name
        if not problem.pool.is_complete:
            raise ConfigError(
                f"method exact: space {space.name} has {space.num_architectures:,} architectures, too many to list; "
                "use --method random"
            )
        if evaluations is not None and evaluations < problem.num_feasible:
            raise ConfigError(
                f"method exact: got {evaluations:,} evaluations, expected at least {problem.num_feasible:,}, one for "
                f"each architecture that fits {name}; allow more, lower a limit or use --method random"
            )
        super().__init__(problem.genes, problem.num_feasible)
