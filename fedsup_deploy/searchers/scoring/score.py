"""What architectures are worth, whoever found out and however.

Shapes: K architectures; 3: a value and its interval.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fedsup_deploy.measures import ACCURACY, Measure

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


@dataclasses.dataclass(frozen=True)
class Score:
    """What one architecture is worth, measured or predicted.

    Args:
        accuracy: Share of held-out images classified correctly, in [0, 1]; with federated evaluation the mean of the
            clients' shares.
        num_images: How many, of all clients together.
        worst_decile: Mean share of the tenth of the clients that have the lowest, in [0, 1]; None where clients were
            not asked.
        is_complete: Whether all that were asked have answered; only then it is kept for later.
        measures: What else the answers to these images are worth, by name; with federated evaluation of all images
            together. None of what nobody knows, as in older files.
    """

    accuracy: float
    num_images: int
    worst_decile: float | None = None
    is_complete: bool = True
    measures: Mapping[str, Measure] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Scores:
    """The scores of K architectures, which were all measured on the same images.

    Args:
        accuracy_K: As of `Score`.
        worst_decile_K: As of `Score`; None where clients were not asked.
        is_predicted_K: Which were predicted from other architectures; None where all were measured.
        num_images_K: On how many images each was measured, 0 where it was predicted; None where nobody knows.
        goal: The objective that the search maximises, by its name.
        measures_K3: As of `Score`, those that all have; where any was predicted, none.
    """

    accuracy_K: FloatArray
    worst_decile_K: FloatArray | None = None
    is_predicted_K: BoolArray | None = None
    num_images_K: IntArray | None = None
    goal: str = ACCURACY
    measures_K3: Mapping[str, FloatArray] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, scores: Sequence[Score], goal: str = ACCURACY) -> "Scores":
        """Return single scores, all of the same kind, as one value."""
        worst = [score.worst_decile for score in scores if score.worst_decile is not None]
        assert len(worst) in (0, len(scores)), "either all clients are asked or none"
        return cls(
            np.array([score.accuracy for score in scores]),
            np.array(worst) if worst else None,
            num_images_K=np.array([score.num_images for score in scores], np.int64),
            goal=goal,
            measures_K3=_common([score.measures for score in scores]),
        )

    def measure(self, name: str) -> FloatArray | None:
        """Return the values of a measure, shape (K,); None where nobody knows them."""
        found_K3 = self.measures_K3.get(name)
        return None if found_K3 is None else found_K3[:, 0]

    def take(self, index_F: NDArray[np.int64]) -> "Scores":
        """Return the scores of some of the architectures."""
        worst_K, predicted_K, images_K = self.worst_decile_K, self.is_predicted_K, self.num_images_K
        return Scores(
            self.accuracy_K[index_F],
            None if worst_K is None else worst_K[index_F],
            None if predicted_K is None else predicted_K[index_F],
            None if images_K is None else images_K[index_F],
            self.goal,
            {name: values_K3[index_F] for name, values_K3 in self.measures_K3.items()},
        )

    def with_more(self, others: "Scores") -> "Scores":
        """Return these scores and then the others, which are of the same kind and of one search."""
        worst = [scores.worst_decile_K for scores in (self, others) if scores.worst_decile_K is not None]
        predicted = [scores.is_predicted_K for scores in (self, others) if scores.is_predicted_K is not None]
        images = [scores.num_images_K for scores in (self, others) if scores.num_images_K is not None]
        return Scores(
            np.concatenate([self.accuracy_K, others.accuracy_K]),
            np.concatenate(worst) if worst else None,
            np.concatenate(predicted) if predicted else None,
            np.concatenate(images) if len(images) == 2 else None,
            self.goal,
            {
                name: np.concatenate([values_K3, others.measures_K3[name]])
                for name, values_K3 in self.measures_K3.items()
                if name in others.measures_K3
            },
        )

    def is_measured(self) -> BoolArray:
        """Return which accuracies were measured, shape (K,)."""
        predicted_K = self.is_predicted_K
        return np.ones(len(self.accuracy_K), np.bool_) if predicted_K is None else ~predicted_K


def _common(measures: Sequence[Mapping[str, Measure]]) -> dict[str, FloatArray]:
    """Return the measures that all scores have, shape (K, 3) each."""
    names = [name for name in measures[0] if all(name in each for each in measures)] if measures else []
    return {name: np.array([(each[name].value, *each[name].interval) for each in measures]) for name in names}
