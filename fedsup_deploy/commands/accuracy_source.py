"""Where the accuracies of a search come from, and what is known of them: images, noise, errors. Torch-free."""

import contextlib
import itertools
from collections.abc import Iterator
from typing import Final

from pydantic import JsonValue

from fedsup_deploy import files, measures
from fedsup_deploy.accuracy import CountedAccuracy
from fedsup_deploy.answers import TWO
from fedsup_deploy.commands.accuracy_file import StoredPredictor, load_predictor
from fedsup_deploy.commands.scoring import CLIENTS, check_has_images, open_scorer
from fedsup_deploy.errors import ArtifactError, ConfigError
from fedsup_deploy.events import EventLog
from fedsup_deploy.runs.run import ACCURACY, Run
from fedsup_deploy.searchers.methods.choice import AUTO
from fedsup_deploy.searchers.noise import AccuracyNoise
from fedsup_deploy.searchers.objective import WORST_DECILE
from fedsup_deploy.searchers.result import AccuracyModel
from fedsup_deploy.searchers.scoring.cache import MEASURED
from fedsup_deploy.searchers.scoring.known import KnownAccuracy
from fedsup_deploy.searchers.scoring.score import Score, Scores
from fedsup_deploy.searchers.searcher import Evaluate
from fedsup_deploy.space.architecture import Architecture
from fedsup_deploy.space.plan import IntArray

PREDICTED = "predicted"
#: Where the accuracies of a search can come from. `predicted` is measured where the run holds a score; `auto` is that
#: where the run has a predictor, else measured, or by the clients where the server has no images.
ACCURACIES: Final = (AUTO, MEASURED, CLIENTS, PREDICTED)


def accuracy_source(run: Run, accuracy: str, goal: str = measures.ACCURACY) -> tuple[str, StoredPredictor | None]:
    """Return where the accuracies of a search come from, and the run's predictor where that is it.

    Args:
        run: The run.
        accuracy: One of `ACCURACIES`.
        goal: What the search maximises. A predictor tells the accuracy alone.

    Raises:
        ArtifactError: The run has no accuracy predictor, or it is damaged or about another supernet.
        ConfigError: Nobody can tell what the goal is about.
    """
    path = run.path / ACCURACY
    if accuracy == AUTO:
        own = MEASURED if run.config.server_has_images and goal != WORST_DECILE else CLIENTS
        accuracy = PREDICTED if path.exists() and goal == measures.ACCURACY else own
    _check_goal(run, accuracy, goal)
    if accuracy != PREDICTED:
        check_has_images(run, accuracy)
        return accuracy, None
    if not path.exists():
        raise ArtifactError(f"no accuracy predictor in {run.path}; make it: fedsup-deploy fit-accuracy {run.path}")
    return accuracy, load_predictor(path, run.space, run.fingerprint, run.calibration)


def _check_goal(run: Run, accuracy: str, goal: str) -> None:
    typed = measures.as_typed(goal)
    if accuracy == PREDICTED and goal != measures.ACCURACY:
        raise ConfigError(f"objective {typed}: a predictor tells the accuracy alone; search with --accuracy measured")
    if accuracy == MEASURED and goal == WORST_DECILE:
        raise ConfigError(f"objective {typed}: only clients can tell; search with --accuracy clients")
    if goal == measures.AUC and run.space.num_classes != TWO:
        raise ConfigError(
            f"objective {typed}: expected two classes, {run.config.data.dataset} has {run.space.num_classes}; "
            f"search with --objective {measures.as_typed(measures.BALANCED_ACCURACY)}"
        )


@contextlib.contextmanager
def open_evaluation(run: Run, kind: str, log: EventLog, goal: str = measures.ACCURACY) -> Iterator[Evaluate]:
    """Yield what finds scores by evaluating subnets.

    Args:
        run: Whose supernet and data.
        kind: `measured` or `clients`.
        log: Gets an `evaluation` event with each accuracy.
        goal: What the search maximises.

    Side effects: Starts processes for what was not evaluated before; they end with the context.
    """
    with open_scorer(run, kind, log, goal) as score_all:

        def evaluate(genes_KG: IntArray, num_known: int) -> Scores:
            architectures = [run.space.decode(genes) for genes in genes_KG]
            done = itertools.count(num_known + 1)

            def on_score(architecture: Architecture, score: Score) -> None:
                log.emit(
                    "evaluation",
                    done=next(done),
                    total=num_known + len(architectures),
                    arch_id=architecture.arch_id,
                    **_sampled(score),
                    **_measured(score, goal),
                )

            return Scores.of(score_all(architectures, on_score), goal)

        yield evaluate


def _sampled(score: Score) -> dict[str, JsonValue]:
    """Return what an event says of a score: of a mean over clients there is no interval."""
    fields: dict[str, JsonValue] = {"accuracy": score.accuracy, "num_images": score.num_images}
    if score.worst_decile is None:
        fields["accuracy_interval"] = list(CountedAccuracy.of_share(score.accuracy, score.num_images).interval)
    return fields


def _measured(score: Score, goal: str) -> dict[str, JsonValue]:
    """Return what an event says of the goal of a search, where that is no field of a score."""
    found = score.measures.get(goal)
    return {} if found is None else {goal: found.value, f"{goal}_interval": list(found.interval)}


@contextlib.contextmanager
def open_known(known: KnownAccuracy, *, is_measured: bool) -> Iterator[Evaluate]:
    """Yield what finds scores without evaluating anything; `is_measured` where nothing needs a prediction."""
    yield lambda genes_KG, _: known.measured(genes_KG) if is_measured else known.scores(genes_KG)


def noise_of(
    kind: str, stored: StoredPredictor | None, known: KnownAccuracy | None, goal: str = measures.ACCURACY
) -> AccuracyNoise | None:
    """Return how far the accuracies of a search are off by chance; None where nobody knows, or another goal counts."""
    if goal != measures.ACCURACY:
        return None
    measured_by = kind if stored is None else stored.findings.measured_by
    if measured_by == CLIENTS or (known is not None and not known.is_counted):
        return None
    return AccuracyNoise(None if stored is None else stored.findings.held_out.mae)


def no_noise(run: Run, kind: str, stored: StoredPredictor | None, goal: str = measures.ACCURACY) -> ConfigError:
    """Return the error where nobody knows what is within noise."""
    if goal != measures.ACCURACY:
        return ConfigError(
            f"prefer cheaper: what is within noise is known of the accuracy, not of {measures.as_typed(goal)}"
        )
    if CLIENTS in (kind, None if stored is None else stored.findings.measured_by):
        return ConfigError(
            "prefer cheaper: accuracy is a mean over clients with few images each, of which nobody knows the noise; "
            "search without it, or with --accuracy measured"
        )
    return ConfigError(
        f"prefer cheaper: {run.path / ACCURACY} says not on how many images it was measured; fit it again: "
        f"fedsup-deploy fit-accuracy {run.path}"
    )


def accuracy_model(run: Run, kind: str, stored: StoredPredictor | None) -> AccuracyModel:
    """Return what a search says of where its accuracies come from."""
    if stored is None:
        return AccuracyModel.model_validate({"kind": kind})
    findings = stored.findings
    return AccuracyModel.model_validate(
        {
            "kind": kind,
            "fitted_on": findings.measured_by,
            "predictor": findings.predictor,
            "hash": files.sha256(run.path / ACCURACY),
            "num_measured": findings.num_measured,
            "kendall_tau": findings.held_out.kendall_tau,
            "mae": findings.held_out.mae,
            "num_held_out": findings.held_out.num_architectures,
        }
    )
