"""`accuracy.safetensors` in a run's folder: its accuracy predictor.

A predictor is written as the table it was fitted to, and for a space that can be listed also as its predictions: a file
holds data, never a program. Torch-free.

Shapes: N architectures of the space, T measured ones, G genes.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from fedsup_deploy import files, registry
from fedsup_deploy.artifact.weights import read_arrays, write_arrays
from fedsup_deploy.errors import ArtifactError
from fedsup_deploy.searchers.scoring.cache import ScoreCache
from fedsup_deploy.searchers.scoring.known import KnownAccuracy
from fedsup_deploy.searchers.scoring.predictor import (
    MIN_MEASURED,
    FittedAccuracy,
    Judged,
    ListedAccuracy,
    RunPredictor,
    fit,
)
from fedsup_deploy.searchers.scoring.score import FloatArray, Scores
from fedsup_deploy.space.plan import IntArray
from fedsup_deploy.space.sampling import row_keys
from fedsup_deploy.space.search_space import SearchSpace

_KIND: Final = "accuracy"


class Findings(BaseModel):
    """What `accuracy.safetensors` says of its predictor."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    supernet: str
    """SHA-256 of the supernet's file."""
    space: str
    """SHA-256 of the search space."""
    measured_by: Literal["measured", "clients"]
    """`measured`: on the validation images. `clients`: by the clients, on images they hold out."""
    subject: dict[str, JsonValue] = Field(default_factory=dict)
    """All else that decides the scores it is fitted to: what a run keeps under the same subject is measured alike.
    Older files name none."""
    seed: int
    """Decides which architectures, which folds, and the random numbers of a fit."""
    num_measured: Annotated[int, Field(ge=MIN_MEASURED)]
    """Architectures it is fitted to."""
    predictor: str
    """The kind with the smallest error in cross-validation: a name registered under `accuracy`."""
    cross_validation: dict[str, Judged]
    """Each kind, judged on folds it was not fitted to."""
    held_out: Judged
    """The chosen kind, fitted without the last fifth of the architectures and judged on these."""


@dataclasses.dataclass(frozen=True)
class StoredPredictor:
    """A predictor as a run keeps it: the measured architectures, and what was found with them.

    Args:
        space: The search space.
        findings: Which kind, and how good.
        genes_TG: The measured architectures, in the order they were drawn.
        accuracy_T: Of each.
        num_images_T: On how many images each was measured; None in older files.
        listed_N: Predictions for all architectures of a space that can be listed, in the order of its enumeration;
            None in a larger space.
    """

    space: SearchSpace
    findings: Findings
    genes_TG: IntArray
    accuracy_T: FloatArray
    num_images_T: IntArray | None
    listed_N: FloatArray | None

    def predictor(self) -> RunPredictor:
        """Return the predictor, ready to use."""
        if self.listed_N is not None:
            return ListedAccuracy(self.space, self.listed_N)
        return self.fitted()

    def known(self, evaluations: Path) -> KnownAccuracy:
        """Return what is known of every architecture: what it was fitted to, what was measured since, its predictions.

        Args:
            evaluations: The folder of the run's scores.

        Raises:
            ArtifactError: The scores there are damaged.
        """
        cache = ScoreCache(evaluations, self.findings.measured_by, self.findings.subject, self.space)
        genes_KG, scores = cache.table()
        lost = np.flatnonzero(~np.isin(row_keys(self.genes_TG), row_keys(genes_KG)))
        if len(lost):
            # The folder of scores was removed, and with it the worst deciles.
            images_K = None if self.num_images_T is None else self.num_images_T[lost]
            scores = dataclasses.replace(scores, worst_decile_K=None)
            scores = scores.with_more(Scores(self.accuracy_T[lost], num_images_K=images_K))
        return KnownAccuracy(self.predictor(), np.concatenate([genes_KG, self.genes_TG[lost]]), scores)

    def fitted(self) -> FittedAccuracy:
        """Return the predictor, fitted once more to what was measured."""
        return fit(self.space, self.genes_TG, self.accuracy_T, self.findings.predictor, self.findings.seed)


def save_predictor(path: Path, stored: StoredPredictor) -> None:
    """Write a predictor, atomically.

    Side effects: Writes the file.
    """
    arrays = {"genes": stored.genes_TG, "accuracy": stored.accuracy_T}
    more = {"num_images": stored.num_images_T, "listed": stored.listed_N}
    arrays |= {name: values for name, values in more.items() if values is not None}
    write_arrays(path, _KIND, arrays, {"findings": stored.findings.model_dump(mode="json")})


def load_predictor(
    path: Path, space: SearchSpace, supernet: str, calibration: Mapping[str, JsonValue]
) -> StoredPredictor:
    """Return a predictor as it was written.

    Args:
        path: Where from.
        space: The search space of the run.
        supernet: SHA-256 of the supernet's file.
        calibration: `Run.calibration`.

    Raises:
        ArtifactError: It cannot be read, is damaged, or is about another supernet or another choice of images.
    """
    arrays, document = read_arrays(path, _KIND)
    try:
        findings = Findings.model_validate(document.get("findings"))
        optional = (arrays.get(name) for name in ("num_images", "listed"))
        stored = StoredPredictor(space, findings, arrays["genes"], arrays["accuracy"], *optional)
        space_hash = files.sha256_of(space.to_dict())
        if (findings.supernet, findings.space) != (supernet, space_hash):
            raise ArtifactError(f"{path}: fitted to another supernet; fit it again: fedsup-deploy fit-accuracy")
        if not calibration.items() <= findings.subject.items():
            raise ArtifactError(
                f"{path}: fitted to accuracies after recalibration on other images; fit it again: "
                "fedsup-deploy fit-accuracy"
            )
        _check_arrays(stored)
    except (ValidationError, KeyError, ValueError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
        raise ArtifactError(f"{path}: damaged: {reason}; fit it again: fedsup-deploy fit-accuracy") from error
    return stored


def _check_arrays(stored: StoredPredictor) -> None:
    space, findings = stored.space, stored.findings
    if findings.predictor not in registry.names("accuracy"):
        raise ValueError(f"unknown predictor {findings.predictor!r}")
    genes_TG = stored.genes_TG
    if genes_TG.shape != (findings.num_measured, len(space.num_choices)) or genes_TG.dtype != np.int64:
        raise ValueError(f"genes of shape {genes_TG.shape} and type {genes_TG.dtype}")
    if ((genes_TG < 0) | (genes_TG >= space.num_choices)).any():
        raise ValueError("genes outside the space")
    images_T = stored.num_images_T
    if images_T is not None and (
        images_T.shape != (findings.num_measured,) or images_T.dtype != np.int64 or (images_T < 1).any()
    ):
        raise ValueError(f"num_images: expected {findings.num_measured} numbers of images")
    expected = {"accuracy": findings.num_measured, "listed": space.num_architectures}
    for name, values in (("accuracy", stored.accuracy_T), ("listed", stored.listed_N)):
        if values is not None and (values.shape != (expected[name],) or not ((values >= 0) & (values <= 1)).all()):
            raise ValueError(f"{name}: expected {expected[name]} shares")
