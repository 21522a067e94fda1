"""What a searcher is, and the one loop that runs searchers. It knows neither costs nor how accuracy is measured.

Shapes: K proposed architectures, G genes.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import numpy as np

from fedsup_deploy import registry
from fedsup_deploy.events import EventLog
from fedsup_deploy.searchers.objective import FloatArray
from fedsup_deploy.searchers.problem import Problem
from fedsup_deploy.space.architecture import Architecture
from fedsup_deploy.space.plan import IntArray

AUTO: Final = "auto"
#: Accuracies to measure when nobody says how many.
DEFAULT_EVALUATIONS: Final = 200

#: Measures the accuracy, in [0, 1], of each architecture; tells (index, accuracy) as each becomes known.
Evaluate = Callable[[Sequence[Architecture], Callable[[int, float], None]], Sequence[float]]


class Searcher(Protocol):
    """Proposes feasible architectures and learns what they are worth.

    A registered searcher is a class made from (problem, seed, evaluations), the last None when the user left the number
    open. Its proposals depend on these and on what it is told, on nothing else.
    """

    @property
    def budget(self) -> int:
        """The most proposals it may make."""
        ...

    def ask(self, count: int) -> IntArray:
        """Return genes of at most `count` architectures within the limits, shape (K, G); no rows when finished."""
        ...

    def tell(self, genes_KG: IntArray, accuracy_K: FloatArray) -> None:
        """Take the accuracies of what the last `ask` returned."""
        ...


class FixedOrder:
    """A searcher whose proposals do not depend on any accuracy.

    Args:
        genes_FG: All it proposes, in order.
        budget: The most proposals it may make.
    """

    def __init__(self, genes_FG: IntArray, budget: int) -> None:
        self.budget = budget
        self._genes_FG = genes_FG
        self._num_asked = 0

    def ask(self, count: int) -> IntArray:
        """Return the next architectures, at most `count`."""
        start, self._num_asked = self._num_asked, self._num_asked + count
        return self._genes_FG[start : self._num_asked]

    def tell(self, genes_KG: IntArray, accuracy_K: FloatArray) -> None:
        """Learn nothing."""


@dataclasses.dataclass(frozen=True)
class Search:
    """A searcher at work for one device.

    Args:
        problem: What it may pick from.
        method: The name it is registered under.
        searcher: Who proposes.
    """

    problem: Problem
    method: str
    searcher: Searcher


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What one search evaluated.

    Args:
        search: The search.
        accuracies: Of each architecture proposed, in the order of the proposals.
        seconds: From the start of all searches of the call until this one had its last accuracy.
    """

    search: Search
    accuracies: dict[Architecture, float]
    seconds: float


def open_search(problem: Problem, method: str, evaluations: int | None, seed: int) -> Search:
    """Return a search that has not begun.

    Args:
        problem: What may be picked.
        method: A registered searcher, or `auto`: `exact` where all that is feasible can be evaluated, else `random`.
        evaluations: Accuracies to measure at most; None leaves it to the method.
        seed: Decides every random choice.

    Raises:
        ConfigError: There is no such method, or it cannot work on this problem with so few evaluations.
    """
    if method == AUTO:
        most = DEFAULT_EVALUATIONS if evaluations is None else evaluations
        method = "exact" if problem.pool.is_complete and problem.num_feasible <= most else "random"
    searcher: Searcher = registry.resolve("searcher", method)(problem, seed, evaluations)
    return Search(problem, method, searcher)


def run_searches(searches: Sequence[Search], evaluate: Evaluate, log: EventLog) -> list[Outcome]:
    """Run searches side by side, so that what several of them propose is evaluated once, in one call.

    A search ends when its searcher has nothing left to propose or has used its budget. A repeated proposal uses the
    budget as well, so there is always an end.

    Args:
        searches: One per device.
        evaluate: Measures accuracy; each turn it gets what is new in all proposals together, nothing twice.
        log: Gets an `evaluation` event with each accuracy.

    Returns:
        One outcome per search, in their order.
    """
    started = time.perf_counter()
    known: dict[Architecture, float] = {}
    courses = [_Course(search) for search in searches]
    while proposed := _ask(courses):
        new = [architecture for architecture in proposed if architecture not in known]
        known |= zip(new, _evaluate(new, evaluate, log, num_known=len(known)), strict=True)
        for course in courses:
            course.tell(known, time.perf_counter() - started)
    return [course.outcome() for course in courses]


class _Course:
    """How far one search has come."""

    def __init__(self, search: Search) -> None:
        self._search, self._left = search, search.searcher.budget
        self._genes_KG = np.empty((0, 0), np.int64)
        self._accuracies: dict[Architecture, float] = {}
        self._seconds = 0.0
        self.proposals: list[Architecture] = []

    def ask(self) -> None:
        """Take the proposals of the next turn, if any."""
        self.proposals = []
        if self._left > 0:
            self._genes_KG = self._search.searcher.ask(self._left)
            assert len(self._genes_KG) <= self._left, "a searcher proposed more than it was asked for"
            self.proposals = [self._search.problem.pool.space.decode(genes) for genes in self._genes_KG]
        self._left = self._left - len(self.proposals) if self.proposals else 0

    def tell(self, known: dict[Architecture, float], seconds: float) -> None:
        """Give the searcher the accuracies of its proposals."""
        if self.proposals:
            accuracies = [known[architecture] for architecture in self.proposals]
            self._search.searcher.tell(self._genes_KG, np.array(accuracies))
            self._accuracies |= zip(self.proposals, accuracies, strict=True)
            self._seconds = seconds

    def outcome(self) -> Outcome:
        return Outcome(self._search, self._accuracies, self._seconds)


def _ask(courses: Sequence[_Course]) -> list[Architecture]:
    """Return what all searches propose in the next turn, each once."""
    for course in courses:
        course.ask()
    return list(dict.fromkeys(architecture for course in courses for architecture in course.proposals))


def _evaluate(
    architectures: Sequence[Architecture], evaluate: Evaluate, log: EventLog, *, num_known: int
) -> Sequence[float]:
    if not architectures:
        return []

    def on_score(index: int, accuracy: float) -> None:
        log.emit(
            "evaluation",
            done=num_known + index + 1,
            total=num_known + len(architectures),
            arch_id=architectures[index].arch_id,
            accuracy=accuracy,
        )

    accuracies = evaluate(architectures, on_score)
    assert all(0 <= accuracy <= 1 for accuracy in accuracies), "an accuracy is not in [0, 1]"
    return accuracies
