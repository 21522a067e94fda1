"""What a searcher is, and the one loop that runs searchers. It knows neither costs nor how accuracy is measured.

Shapes: K proposed architectures, G genes.
"""

import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

import numpy as np

from fedsup_deploy.searchers.problem import Problem
from fedsup_deploy.searchers.scoring.score import Scores
from fedsup_deploy.space.plan import IntArray

#: Accuracies to measure when nobody says how many.
DEFAULT_EVALUATIONS: Final = 200

#: Finds the scores of K architectures. Gets (genes, shape (K, G), how many are known from before).
Evaluate = Callable[[IntArray, int], Scores]


class Searcher(Protocol):
    """Proposes feasible architectures and learns what they are worth.

    A registered searcher is a class made from (problem, seed, evaluations), the last None when the user left the number
    open. Its proposals depend on these and on what it is told, on nothing else.
    """

    @property
    def budget(self) -> int:
        """The most proposals it may make."""
        ...

    @property
    def proves_optimum(self) -> bool:
        """Whether nothing feasible in the space beats the best of its proposals, once it has no more."""
        ...

    def ask(self, count: int) -> IntArray:
        """Return genes of at most `count` architectures within the limits, shape (K, G); no rows when finished."""
        ...

    def tell(self, genes_KG: IntArray, scores: Scores) -> None:
        """Take the scores of what the last `ask` returned and of whatever other searches had evaluated meanwhile."""
        ...


class FixedOrder:
    """A searcher whose proposals do not depend on any score.

    Args:
        genes_FG: All it proposes, in order.
        budget: The most proposals it may make.
        proves_optimum: As of `Searcher`.
    """

    def __init__(self, genes_FG: IntArray, budget: int, *, proves_optimum: bool = False) -> None:
        self.budget = budget
        self.proves_optimum = proves_optimum
        self._genes_FG = genes_FG
        self._num_asked = 0

    def ask(self, count: int) -> IntArray:
        """Return the next architectures, at most `count`."""
        start, self._num_asked = self._num_asked, self._num_asked + count
        return self._genes_FG[start : self._num_asked]

    def tell(self, genes_KG: IntArray, scores: Scores) -> None:
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
    """What one search knows at its end.

    Args:
        search: The search.
        genes_KG: Architectures within its limits whose scores are known, none twice: its own proposals and those of the
            other searches of the call, in the order of evaluation.
        scores: Of these.
        seconds: From the start of all searches of the call until this one had its last score.
    """

    search: Search
    genes_KG: IntArray
    scores: Scores
    seconds: float


def run_searches(searches: Sequence[Search], evaluate: Evaluate) -> list[Outcome]:
    """Run searches side by side: what one of them has evaluated, all of them know.

    A search ends when its searcher has nothing left to propose or has used its budget. A repeated proposal uses the
    budget as well, so there is always an end.

    Args:
        searches: One per device.
        evaluate: Finds scores; each turn it gets what is new in all proposals together, nothing twice.

    Returns:
        One outcome per search, in their order.
    """
    started = time.perf_counter()
    known = _Known()
    courses = [_Course(search) for search in searches]
    # Every course is asked, whatever the others answer.
    while [course for course in courses if course.ask()]:
        new_KG = known.unknown_of(course.proposals_KG for course in courses)
        if len(new_KG):
            known.add(new_KG, evaluate(new_KG, len(known)))
        for course in courses:
            course.tell(known, new_KG, time.perf_counter() - started)
    return [course.outcome(known) for course in courses]


class _Known:
    """The scores found so far, by the bytes of the genes."""

    def __init__(self) -> None:
        self._rows: dict[bytes, int] = {}
        self._scores: Scores | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def unknown_of(self, proposals: Iterable[IntArray]) -> IntArray:
        """Return the rows that are not known, each once, in their order."""
        new = {row.tobytes(): row for rows_KG in proposals for row in rows_KG}
        unknown = [row for key, row in new.items() if key not in self._rows]
        return np.array(unknown) if unknown else np.empty((0, 0), np.int64)

    def add(self, genes_KG: IntArray, scores: Scores) -> None:
        assert len(genes_KG) == len(scores.accuracy_K), "as many scores as architectures"
        assert ((scores.accuracy_K >= 0) & (scores.accuracy_K <= 1)).all(), "an accuracy is not in [0, 1]"
        for row in genes_KG:
            self._rows[row.tobytes()] = len(self._rows)
        self._scores = scores if self._scores is None else self._scores.with_more(scores)

    def scores_of(self, genes_KG: IntArray) -> Scores:
        assert self._scores is not None
        return self._scores.take(np.array([self._rows[row.tobytes()] for row in genes_KG], np.int64))


class _Course:
    """How far one search has come."""

    def __init__(self, search: Search) -> None:
        self._search, self._left = search, search.searcher.budget
        self._seen: dict[bytes, IntArray] = {}
        self._seconds = 0.0
        self.proposals_KG: IntArray = np.empty((0, 0), np.int64)

    def ask(self) -> bool:
        """Take the proposals of the next turn; return whether there are any."""
        if self._left > 0:
            self.proposals_KG = self._search.searcher.ask(self._left)
            assert len(self.proposals_KG) <= self._left, "a searcher proposed more than it was asked for"
            self._left = self._left - len(self.proposals_KG) if len(self.proposals_KG) else 0
        else:
            self.proposals_KG = self.proposals_KG[:0]
        return len(self.proposals_KG) > 0

    def tell(self, known: _Known, new_KG: IntArray, seconds: float) -> None:
        """Give the searcher the scores of its proposals, and of what is new from others and within its limits."""
        own = {row.tobytes(): row for row in self.proposals_KG}
        others_KG = np.array([row for row in new_KG if row.tobytes() not in own and row.tobytes() not in self._seen])
        if len(others_KG):
            others_KG = others_KG[self._search.problem.admits(others_KG)[0]]
        told = [*own.values(), *others_KG]
        if told:
            told_KG = np.array(told)
            self._search.searcher.tell(told_KG, known.scores_of(told_KG))
            self._seen |= {row.tobytes(): row for row in told_KG}
        if own:
            self._seconds = seconds

    def outcome(self, known: _Known) -> Outcome:
        genes_KG = np.array(list(self._seen.values()))
        return Outcome(self._search, genes_KG, known.scores_of(genes_KG), self._seconds)
