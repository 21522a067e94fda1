"""Predicting the accuracy of architectures from that of others. Measures nothing, and knows no clients and no weights.

Three kinds of regression on the one-hot encoding of the genes are compared by cross-validation; the one with the
smallest error is taken, and judged on architectures that none of them has seen.

Shapes: N architectures, T measured ones, G genes, F features.
"""

import math
import warnings
from collections.abc import Callable
from typing import Annotated, Final, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from fedsup_deploy import registry, rng
from fedsup_deploy.accuracy import DEVIATIONS
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.searchers.scoring.additive import AdditiveAccuracy
from fedsup_deploy.searchers.scoring.score import FloatArray
from fedsup_deploy.space.plan import IntArray
from fedsup_deploy.space.sampling import row_keys
from fedsup_deploy.space.search_space import SearchSpace

#: Fewer measured architectures than this can be neither fitted nor judged.
MIN_MEASURED: Final = 20
_FOLDS: Final = 5
# One in so many is kept from all fits, to judge the kind that was chosen.
_HELD_OUT_SHARE: Final = 5
# Rows encoded at once.
_ROWS: Final = 20_000
_DIGITS: Final = 9
# One in 24 guesses puts four in the right order, and one in 120 five.
_FEWEST_RANKED: Final = 5


class Regression(Protocol):
    """What scikit-learn's regressions offer."""

    def fit(self, features_TF: FloatArray, accuracy_T: FloatArray) -> object:
        """Fit to measured accuracies."""
        ...

    def predict(self, features_NF: FloatArray) -> FloatArray:
        """Return the accuracies of others, shape (N,)."""
        ...


def ridge(seed: int) -> Regression:
    """Return linear regression with a penalty on large weights: each choice adds so much, whatever the others are."""
    from sklearn.linear_model import Ridge

    del seed
    regression: Regression = Ridge(alpha=1.0)
    return regression


def boosting(seed: int) -> Regression:
    """Return gradient boosting of shallow trees, which sees choices that only matter together."""
    from sklearn.ensemble import GradientBoostingRegressor

    regression: Regression = GradientBoostingRegressor(
        n_estimators=300, learning_rate=0.05, max_depth=3, subsample=0.7, random_state=seed
    )
    return regression


def mlp(seed: int) -> Regression:
    """Return a small neural network, on standardised accuracies, stopped early."""
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.neural_network import MLPRegressor
    from sklearn.preprocessing import StandardScaler

    network = MLPRegressor(hidden_layer_sizes=(64,), solver="lbfgs", alpha=1.0, max_iter=100, random_state=seed)
    regression: Regression = TransformedTargetRegressor(network, transformer=StandardScaler())
    return regression


class AccuracyPredictor(Protocol):
    """Predicts the accuracy of any architecture of one space."""

    def predict(self, genes_NG: IntArray) -> FloatArray:
        """Return the accuracy of N architectures, in [0, 1], shape (N,)."""
        ...


class RunPredictor(AccuracyPredictor, Protocol):
    """What a run keeps: it also says whether it is a sum."""

    def additive(self) -> AdditiveAccuracy | None:
        """Return the same as a sum over genes, before it is clipped to [0, 1]; None where it is no such sum."""
        ...


class FittedAccuracy:
    """A regression on the one-hot encoding of the genes.

    Args:
        space: Whose genes.
        regression: Fitted to that encoding.
    """

    def __init__(self, space: SearchSpace, regression: Regression) -> None:
        self._space, self._regression = space, regression

    def predict(self, genes_NG: IntArray) -> FloatArray:
        """Return the accuracy of N architectures, in [0, 1], shape (N,)."""
        parts = [
            self._regression.predict(one_hot(self._space, genes_NG[start : start + _ROWS]))
            for start in range(0, len(genes_NG), _ROWS)
        ]
        # The last digits of a matrix product depend on how many rows it has.
        accuracy_N: FloatArray = np.clip(np.round(np.concatenate([np.empty(0), *parts]), _DIGITS), 0.0, 1.0)
        return accuracy_N

    def additive(self) -> AdditiveAccuracy | None:
        """Return the same as a sum over genes, before it is clipped to [0, 1]; None where it is no such sum."""
        # In scikit-learn only a linear regression has these.
        weights_F = getattr(self._regression, "coef_", None)
        if weights_F is None:
            return None
        counts = [count if count > 1 else 0 for count in self._space.num_choices]
        parts = np.split(weights_F, np.cumsum(counts)[:-1])
        values = tuple(part if len(part) else np.zeros(1) for part in parts)
        return AdditiveAccuracy(float(getattr(self._regression, "intercept_", 0.0)), values)


class ListedAccuracy:
    """The predictions for all architectures of a space that can be listed: a fit that need not be repeated.

    Args:
        space: The space.
        accuracy_N: In the order of its enumeration.
    """

    def __init__(self, space: SearchSpace, accuracy_N: FloatArray) -> None:
        self._keys_N, self._accuracy_N = row_keys(space.enumerate_genes()), accuracy_N

    def predict(self, genes_NG: IntArray) -> FloatArray:
        """Return the accuracy of N architectures, in [0, 1], shape (N,)."""
        accuracy_N: FloatArray = self._accuracy_N[np.searchsorted(self._keys_N, row_keys(genes_NG))]
        return accuracy_N

    def additive(self) -> None:
        """Return None: of a list nobody knows whether it is a sum."""


class Judged(BaseModel):
    """How well predictions agree with measurements they were not fitted to."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kendall_tau: float
    """Rank correlation; 0 where all predictions are equal."""
    mae: Annotated[float, Field(ge=0)]
    """Mean absolute error, a share of the images."""
    num_architectures: Annotated[int, Field(ge=1)] | None = None
    """How many they were judged on; None in older files."""


def guessed_tau(num_architectures: int) -> float:
    """Return the rank correlation that guesses seldom exceed: 1.96 of its standard deviations.

    The variance is 2 (2n + 5) / 9n (n - 1). Fewer than five are put in the right order by chance more often than that.

    Source: Kendall, Biometrika 30, 1938.
    """
    count = num_architectures
    if count < _FEWEST_RANKED:
        return 1.0
    return DEVIATIONS * math.sqrt(2 * (2 * count + 5) / (9 * count * (count - 1)))


def fit(space: SearchSpace, genes_TG: IntArray, accuracy_T: FloatArray, kind: str, seed: int) -> FittedAccuracy:
    """Return a predictor fitted to measured accuracies.

    Args:
        space: Whose genes.
        genes_TG: The measured architectures.
        accuracy_T: Of each.
        kind: A name registered under `accuracy`.
        seed: Decides every random choice of the fit.
    """
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    regression: Regression = registry.resolve("accuracy", kind)(rng.derive(seed, "accuracy", kind) % 2**32)
    # Several threads add up in another order, and wait for each other where others work too.
    with threadpool_limits(1), warnings.catch_warnings():
        # The network is stopped early on purpose: it generalises as well, and sooner.
        warnings.simplefilter("ignore", ConvergenceWarning)
        regression.fit(one_hot(space, genes_TG), accuracy_T)
    return FittedAccuracy(space, regression)


def one_hot(space: SearchSpace, genes_NG: IntArray) -> FloatArray:
    """Return one feature per choice of each gene, 1 where it was chosen, shape (N, F)."""
    columns = [np.eye(count)[genes_NG[:, gene]] for gene, count in enumerate(space.num_choices) if count > 1]
    return np.concatenate(columns, axis=1)


def compare_kinds(
    space: SearchSpace,
    genes_TG: IntArray,
    accuracy_T: FloatArray,
    seed: int,
    kind: str | None = None,
    on_fit: Callable[[int, int], None] | None = None,
) -> tuple[str, dict[str, Judged], Judged]:
    """Return the kind that predicts best, every kind judged by cross-validation, and that one on what it never saw.

    The last fifth of the architectures takes no part in the choice.

    Args:
        space: Whose genes.
        genes_TG: The measured architectures, in random order.
        accuracy_T: Of each.
        seed: Decides every random choice.
        kind: Takes this one, whether or not it is the best.
        on_fit: Called with (kinds judged, kinds in all).

    Raises:
        ConfigError: There are too few, or all are equally accurate.
    """
    if len(genes_TG) < MIN_MEASURED or np.ptp(accuracy_T) == 0:
        raise ConfigError(
            f"an accuracy predictor: got {len(genes_TG)} architectures with {len(np.unique(accuracy_T))} different "
            f"accuracies, expected at least {MIN_MEASURED} that differ; measure more with --evaluations"
        )
    num_held_out = len(genes_TG) // _HELD_OUT_SHARE
    seen, unseen = slice(None, -num_held_out), slice(-num_held_out, None)
    judged: dict[str, Judged] = {}
    kinds = registry.names("accuracy")
    for each in kinds:
        judged[each] = _cross_validated(space, genes_TG[seen], accuracy_T[seen], each, seed)
        if on_fit is not None:
            on_fit(len(judged), len(kinds))
    taken = min(judged, key=lambda each: judged[each].mae) if kind is None else kind
    predicted = fit(space, genes_TG[seen], accuracy_T[seen], taken, seed).predict(genes_TG[unseen])
    return taken, judged, judge(predicted, accuracy_T[unseen])


def judge(predicted_N: FloatArray, measured_N: FloatArray) -> Judged:
    """Return how well predictions agree with measurements."""
    from scipy.stats import kendalltau

    tau = kendalltau(predicted_N, measured_N).statistic if np.ptp(predicted_N) and np.ptp(measured_N) else 0.0
    mae = float(np.mean(np.abs(predicted_N - measured_N)))
    return Judged(kendall_tau=round(float(tau), 4), mae=round(mae, 6), num_architectures=len(measured_N))


def _cross_validated(space: SearchSpace, genes_TG: IntArray, accuracy_T: FloatArray, kind: str, seed: int) -> Judged:
    fold_T = np.arange(len(genes_TG)) % _FOLDS
    predicted_T = np.empty(len(genes_TG))
    for fold in range(_FOLDS):
        rest, this = fold_T != fold, fold_T == fold
        predicted_T[this] = fit(space, genes_TG[rest], accuracy_T[rest], kind, seed).predict(genes_TG[this])
    return judge(predicted_T, accuracy_T)
