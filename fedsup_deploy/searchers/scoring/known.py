"""Accuracy as far as it is known: what was measured where something was, a prediction everywhere else.

A measured accuracy has the noise of its images; a prediction has less, and is drawn towards the mean. Of architectures
that are equally good, the best of many measured ones therefore looks better than the best predicted one.

Shapes: N architectures, T measured ones, G genes.
"""

import numpy as np

from fedsup_deploy.searchers.scoring.predictor import RunPredictor
from fedsup_deploy.searchers.scoring.score import FloatArray, Scores
from fedsup_deploy.space.plan import BoolArray, IntArray
from fedsup_deploy.space.sampling import row_keys


class KnownAccuracy:
    """What is known of the accuracy of every architecture of a space.

    Args:
        predictor: Predicts those that were not measured.
        genes_TG: Those that were; one that stands there twice counts as it stands first.
        scores: Of these.
    """

    def __init__(self, predictor: RunPredictor, genes_TG: IntArray, scores: Scores) -> None:
        self.predictor = predictor
        self._keys_T, first_T = np.unique(row_keys(genes_TG), return_index=True)
        self.genes_TG, self._scores = genes_TG[first_T], scores.take(first_T)

    def is_measured(self, genes_NG: IntArray) -> BoolArray:
        """Return which architectures were measured, shape (N,)."""
        return np.isin(row_keys(genes_NG), self._keys_T)

    def to_list(self) -> list[list[float]]:
        """Return the genes and the accuracy of those that were measured, as JSON values in the order of their genes."""
        rows = zip(self.genes_TG.tolist(), self._scores.accuracy_K.tolist(), strict=True)
        return [[*genes, accuracy] for genes, accuracy in rows]

    @property
    def is_counted(self) -> bool:
        """Whether it is known on how many images the measured ones were measured."""
        return self._scores.num_images_K is not None

    def predict(self, genes_NG: IntArray) -> FloatArray:
        """Return the accuracy of N architectures, measured or predicted, in [0, 1], shape (N,)."""
        return self.scores(genes_NG).accuracy_K

    def measured(self, genes_NG: IntArray) -> Scores:
        """Return the scores of N architectures that were all measured."""
        return self._scores.take(np.searchsorted(self._keys_T, row_keys(genes_NG)))

    def scores(self, genes_NG: IntArray) -> Scores:
        """Return the scores of N architectures, with a mark on what is predicted; no worst deciles."""
        is_predicted_N = ~self.is_measured(genes_NG)
        accuracy_N = np.empty(len(genes_NG))
        accuracy_N[is_predicted_N] = self.predictor.predict(genes_NG[is_predicted_N])
        measured = self.measured(genes_NG[~is_predicted_N])
        accuracy_N[~is_predicted_N] = measured.accuracy_K
        num_images_N = None
        if measured.num_images_K is not None:
            num_images_N = np.zeros(len(genes_NG), np.int64)
            num_images_N[~is_predicted_N] = measured.num_images_K
        return Scores(accuracy_N, is_predicted_K=is_predicted_N, num_images_K=num_images_N)
