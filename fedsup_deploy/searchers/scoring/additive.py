"""An accuracy that is a sum over choices, which exact search can add up stage by stage.

Shapes: N architectures, G genes.
"""

import dataclasses

import numpy as np

from fedsup_deploy.searchers.scoring.score import FloatArray
from fedsup_deploy.space.plan import IntArray


@dataclasses.dataclass(frozen=True)
class AdditiveAccuracy:
    """An accuracy that is a sum over choices.

    Args:
        intercept: What every architecture has.
        values: For each gene what each of its choices adds. The genes of inactive blocks count as their first choice.
    """

    intercept: float
    values: tuple[FloatArray, ...]

    def of(self, genes_NG: IntArray) -> FloatArray:
        """Return the accuracy of N architectures, shape (N,); it is not confined to [0, 1]."""
        accuracy_N = np.full(len(genes_NG), self.intercept)
        for gene, values in enumerate(self.values):
            accuracy_N += values[genes_NG[:, gene]]
        return accuracy_N
