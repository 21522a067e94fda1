"""What architectures are worth, whoever found out and however.

Shapes: K architectures.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Score:
    """Accuracy of one architecture, measured or predicted.

    Args:
        accuracy: Share of held-out images classified correctly, in [0, 1]; with federated evaluation the mean of the
            clients' shares.
        worst_decile: Mean share of the tenth of the clients that have the lowest, in [0, 1]; None where clients were
            not asked.
    """

    accuracy: float
    worst_decile: float | None = None


@dataclasses.dataclass(frozen=True)
class Scores:
    """The scores of K architectures.

    Args:
        accuracy_K: As of `Score`.
        worst_decile_K: As of `Score`; None where clients were not asked.
    """

    accuracy_K: FloatArray
    worst_decile_K: FloatArray | None = None

    @classmethod
    def of(cls, scores: Sequence[Score]) -> "Scores":
        """Return single scores, all of the same kind, as one value."""
        worst = [score.worst_decile for score in scores if score.worst_decile is not None]
        assert len(worst) in (0, len(scores)), "either all clients are asked or none"
        return cls(np.array([score.accuracy for score in scores]), np.array(worst) if worst else None)

    def take(self, index_F: NDArray[np.int64]) -> "Scores":
        """Return the scores of some of the architectures."""
        worst_K = self.worst_decile_K
        return Scores(self.accuracy_K[index_F], None if worst_K is None else worst_K[index_F])

    def with_more(self, others: "Scores") -> "Scores":
        """Return these scores and then the others."""
        worst = [scores.worst_decile_K for scores in (self, others) if scores.worst_decile_K is not None]
        accuracy_K = np.concatenate([self.accuracy_K, others.accuracy_K])
        return Scores(accuracy_K, np.concatenate(worst) if worst else None)

    def objectives(self, latency_ms_K: FloatArray) -> FloatArray:
        """Return what a search minimises, latency first, shape (K, M)."""
        worst = [] if self.worst_decile_K is None else [-self.worst_decile_K]
        return np.stack([latency_ms_K, -self.accuracy_K, *worst], axis=1)
