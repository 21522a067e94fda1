"""Which searcher works on a problem."""

from typing import Final

from fedsup_deploy import registry
from fedsup_deploy.searchers.methods.exact import is_provable
from fedsup_deploy.searchers.problem import Problem
from fedsup_deploy.searchers.searcher import DEFAULT_EVALUATIONS, Search, Searcher

AUTO: Final = "auto"


def open_search(problem: Problem, method: str, evaluations: int | None, seed: int) -> Search:
    """Return a search that has not begun.

    Args:
        problem: What may be picked.
        method: A registered searcher, or `auto`: see `auto_method`.
        evaluations: Accuracies to find at most; None leaves it to the method.
        seed: Decides every random choice.

    Raises:
        ConfigError: There is no such method, or it cannot work on this problem with so few evaluations.
    """
    if method == AUTO:
        method = auto_method(problem, evaluations)
    searcher: Searcher = registry.resolve("searcher", method)(problem, seed, evaluations)
    return Search(problem, method, searcher)


def auto_method(problem: Problem, evaluations: int | None) -> str:
    """Return `exact` where the best can be proven with the evaluations there are, else `evolution`.

    An accuracy that is known or predicted costs nothing, so that everything in a listed space can have one.
    """
    if not problem.pool.is_complete:
        return "exact" if is_provable(problem) else "evolution"
    affordable = DEFAULT_EVALUATIONS if problem.known is None else problem.num_feasible
    return "exact" if problem.num_feasible <= (affordable if evaluations is None else evaluations) else "evolution"
