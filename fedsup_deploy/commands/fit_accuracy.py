"""`fedsup-deploy fit-accuracy`: measures random architectures of a run and keeps a predictor of all others."""

import dataclasses
from pathlib import Path
from typing import Final

import numpy as np

from fedsup_deploy import files, places, registry, rng
from fedsup_deploy.commands.accuracy_file import Findings, StoredPredictor, save_predictor
from fedsup_deploy.commands.accuracy_source import open_evaluation
from fedsup_deploy.commands.scoring import CLIENTS, subject_of
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.events import EventLog, Listener
from fedsup_deploy.results import Result
from fedsup_deploy.runs.run import ACCURACY, Run, newest_run, open_run
from fedsup_deploy.searchers.methods.choice import AUTO
from fedsup_deploy.searchers.scoring.cache import MEASURED
from fedsup_deploy.searchers.scoring.predictor import MIN_MEASURED, Judged, compare_kinds, fit
from fedsup_deploy.searchers.scoring.score import Scores
from fedsup_deploy.space.plan import IntArray
from fedsup_deploy.space.sampling import random_genes
from fedsup_deploy.space.search_space import SearchSpace

#: Architectures to measure when nobody says how many.
DEFAULT_EVALUATIONS: Final = 300


@dataclasses.dataclass(frozen=True)
class AccuracyFit(Result):
    """The accuracy predictor of a run, and how good it is.

    Args:
        run: The run's folder.
        rounds: It was trained for; None in older runs.
        out: Where the predictor was written.
        num_measured: Architectures it is fitted to.
        num_images: Images that each was measured on, of clients all together; fewer where some did not answer.
        num_architectures: Of the space.
        predictor: The kind chosen.
        cross_validation: Each kind, judged on folds it was not fitted to.
        held_out: The chosen kind, judged on architectures that took no part in the choice.
    """

    run: Path
    rounds: int | None
    out: Path
    num_measured: int
    num_images: int
    num_architectures: int
    predictor: str
    cross_validation: dict[str, Judged]
    held_out: Judged


def fit_accuracy(
    run_path: Path | None = None,
    *,
    evaluations: int = DEFAULT_EVALUATIONS,
    measured_by: str | None = None,
    predictor: str = AUTO,
    seed: int = 0,
    listeners: tuple[Listener, ...] = (),
) -> AccuracyFit:
    """Measure random architectures of a run and write the predictor fitted to them into its folder.

    What was measured before is not measured again, so an interrupted call goes on where it was.

    Args:
        run_path: A finished run; None is the newest below `runs/`.
        evaluations: Architectures to measure; all of a smaller space.
        measured_by: `measured` on the validation images, or `clients`; None is `measured` where the server has images.
        predictor: A kind registered under `accuracy`; `auto` is the one with the smallest error in cross-validation.
        seed: Decides every random choice.
        listeners: Called with `evaluation` and `predictor` events.

    Raises:
        ConfigError: Too few architectures, or all equally accurate.
        ArtifactError: There is no finished run, or it is damaged.
        OutputError: The run's folder cannot be written, or another process is fitting a predictor of it.
    """
    if evaluations < MIN_MEASURED:
        raise ConfigError(f"evaluations: got {evaluations}, expected at least {MIN_MEASURED}")
    if measured_by not in (None, MEASURED, CLIENTS):
        raise ConfigError(f"accuracy: got {measured_by!r}, expected {MEASURED} or {CLIENTS}")
    if predictor not in (AUTO, *registry.names("accuracy")):
        raise ConfigError(f"unknown predictor {predictor!r}{registry.nearest(predictor, registry.names('accuracy'))}")
    run = open_run(newest_run() if run_path is None else run_path)
    by = measured_by or (MEASURED if run.config.server_has_images else CLIENTS)
    with places.hold(run.path / ACCURACY):
        return _fit(run, evaluations, by, predictor, seed, EventLog(None, listeners))


def _fit(run: Run, evaluations: int, measured_by: str, predictor: str, seed: int, log: EventLog) -> AccuracyFit:
    space, supernet = run.space, run.fingerprint
    genes_TG = _drawn(space, evaluations, seed)
    with open_evaluation(run, measured_by, log) as evaluate:
        scores = evaluate(genes_TG, 0)
    accuracy_T = scores.accuracy_K
    kind, cross_validation, held_out = compare_kinds(
        space,
        genes_TG,
        accuracy_T,
        seed,
        None if predictor == AUTO else predictor,
        lambda done, total: log.emit("predictor", done=done, total=total),
    )
    findings = Findings.model_validate(
        {
            "supernet": supernet,
            "space": files.sha256_of(space.to_dict()),
            "measured_by": measured_by,
            "subject": subject_of(run),
            "seed": seed,
            "num_measured": len(genes_TG),
            "predictor": kind,
            "cross_validation": cross_validation,
            "held_out": held_out,
        }
    )
    listed_N = (
        fit(space, genes_TG, accuracy_T, kind, seed).predict(space.enumerate_genes()) if space.is_listable else None
    )
    stored = StoredPredictor(space, findings, genes_TG, accuracy_T, scores.num_images_K, listed_N)
    save_predictor(run.path / ACCURACY, stored)
    return AccuracyFit(
        run=run.path,
        rounds=run.rounds,
        out=run.path / ACCURACY,
        num_measured=findings.num_measured,
        num_images=_most(scores),
        num_architectures=space.num_architectures,
        predictor=findings.predictor,
        cross_validation=findings.cross_validation,
        held_out=findings.held_out,
    )


def _most(scores: Scores) -> int:
    assert scores.num_images_K is not None, "whoever measures counts"
    return int(scores.num_images_K.max())


def _drawn(space: SearchSpace, count: int, seed: int) -> IntArray:
    """Return genes of at most `count` different architectures in random order, shape (T, G)."""
    generator = rng.generator(seed, "accuracy", "sample")
    if space.is_listable:
        genes_NG = space.enumerate_genes()
        return genes_NG[generator.permutation(len(genes_NG))[:count]]
    drawn_NG = random_genes(space, generator, 2 * count)
    _, first = np.unique(drawn_NG, axis=0, return_index=True)
    return drawn_NG[np.sort(first)[:count]]
