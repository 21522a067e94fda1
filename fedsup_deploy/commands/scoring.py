"""The accuracy of a run's architectures, each found once: what was found before is read from the run's folder.

Owns which scores may be mixed. Never computes one: `commands.evaluate` does, and with it torch is imported only when
something new is asked for.
"""

import contextlib
import functools
from collections.abc import Callable, Generator, Iterator, Sequence
from importlib import metadata
from typing import Final

from pydantic import JsonValue

from fedsup_deploy.errors import ConfigError, DataError
from fedsup_deploy.events import EventLog
from fedsup_deploy.measures import ACCURACY, as_typed
from fedsup_deploy.runs.clients import nothing_held_out
from fedsup_deploy.runs.images import IMAGES
from fedsup_deploy.runs.run import EVALUATIONS, Run
from fedsup_deploy.searchers import objective
from fedsup_deploy.searchers.scoring.cache import MEASURED, ScoreCache
from fedsup_deploy.searchers.scoring.score import Score
from fedsup_deploy.space.architecture import Architecture
from fedsup_deploy.version import __version__

#: How accuracy is found: by the server on its validation images, or by the clients on what they hold out.
CLIENTS: Final = "clients"

#: Called with each architecture and its score as it becomes known: what was found before first.
OnScore = Callable[[Architecture, Score], None]


def measured_scores(run: Run, architectures: Sequence[Architecture], on_score: OnScore) -> list[Score]:
    """Return the accuracy of each subnet on the server's validation images, after one-shot recalibration.

    Args:
        run: A finished run.
        architectures: The subnets.
        on_score: Called with each subnet and its score as it becomes known.

    Raises:
        ArtifactError: What the run's folder holds is damaged or has changed.
        DataError: The images of the run are missing, malformed or have changed.
        OutputError: A score cannot be written into the run's folder.

    Side effects: Keeps every new score in `evaluations/` of the run, as soon as it is known, unless that is read-only.
    """
    with open_scorer(run, MEASURED) as score:
        return score(architectures, on_score)


def client_scores(run: Run, architectures: Sequence[Architecture], on_score: OnScore) -> list[Score]:
    """Return the accuracy of each subnet on the images that clients hold out, after one-shot recalibration.

    No image of the server takes part.

    Args:
        run: A finished run.
        architectures: The subnets.
        on_score: Called with each subnet and its score as it becomes known.

    Raises:
        ConfigError: No client of the run holds an image out.
        ArtifactError: What the run's folder holds is damaged or has changed.
        DataError: The images of the run are missing, malformed or have changed.
        OutputError: A score cannot be written into the run's folder.

    Side effects: Keeps every new score in `evaluations/` of the run, as soon as it is known, unless that is read-only.
    """
    with open_scorer(run, CLIENTS) as score:
        return score(architectures, on_score)


@contextlib.contextmanager
def open_scorer(
    run: Run, kind: str, log: EventLog | None = None, goal: str = ACCURACY
) -> Iterator[Callable[[Sequence[Architecture], OnScore], list[Score]]]:
    """Yield `measured_scores` or `client_scores` of one run, for calls that share their worker processes.

    Args:
        run: A finished run.
        kind: `measured` or `clients`.
        log: Gets an `absence` event of each client that has not answered.
        goal: What is to be known of each subnet beside its accuracy: the name of an objective. Scores kept by an older
            version that do not tell it are found anew.

    Raises:
        ConfigError: `clients`, and the run's config lets no client hold an image out; or `measured`, and the server has
            no images.
        ArtifactError: The scores in the run's folder are damaged.

    Side effects: Starts processes with the first score that is new; they end with the context.
    """
    check_has_images(run, kind)
    cache = open_cache(run, kind)
    with contextlib.ExitStack() as stack:
        yield functools.partial(_score, cache, _Evaluation(run, kind, log or EventLog(), stack), goal)


def check_has_images(run: Run, kind: str) -> None:
    """Refuse to find scores where nobody has images to find them on.

    Raises:
        ConfigError: `clients`, and the run's config lets no client hold an image out; or `measured`, and the server has
            no images.
    """
    if kind == CLIENTS and not run.config.clients_may_hold_out:
        raise nothing_held_out(run.config)
    if kind == MEASURED and not run.config.server_has_images:
        raise ConfigError(f"{run.path}: the server has no images to measure on; ask clients with --accuracy clients")


def open_cache(run: Run, kind: str) -> ScoreCache:
    """Return the scores of a run that were found in one way.

    Args:
        run: A finished run.
        kind: `measured` or `clients`.

    Raises:
        ArtifactError: They are damaged.
        DataError: The images of the run are missing or malformed.
    """
    return ScoreCache(run.path / EVALUATIONS, kind, subject_of(run), run.space)


def subject_of(run: Run) -> dict[str, JsonValue]:
    """Return all that decides a run's scores, but for how they are found and the architecture.

    Raises:
        DataError: The images of the run are missing or malformed.
    """
    return {
        "supernet": run.fingerprint,
        "data": run.data_fingerprint,
        "preprocessing": run.image_facts.preprocessing,
        "schedule": "one-shot",
        **run.calibration,
        "versions": {"fedsup-deploy": __version__, "torch": metadata.version("torch")},
    }


class _Evaluation:
    """What finds new scores; nothing is loaded or started before the first."""

    def __init__(self, run: Run, kind: str, log: EventLog, stack: contextlib.ExitStack) -> None:
        self._run, self._kind, self._log, self._stack = run, kind, log, stack

    @functools.cached_property
    def _evaluate(self) -> Callable[[Sequence[Architecture]], Iterator[Score]]:
        from fedsup_deploy.commands import evaluate as evaluation
        from fedsup_deploy.runs.federation import load_supernet, open_run_federation

        run = self._run
        if run.data.fingerprint != run.data_fingerprint:
            memory = run.path / EVALUATIONS / IMAGES
            raise DataError(f"{run.config.data.dataset}: the images changed meanwhile; start again without {memory}")
        find = {MEASURED: evaluation.measure, CLIENTS: evaluation.ask_clients}[self._kind]
        federation = self._stack.enter_context(open_run_federation(run, self._log))
        if self._kind == CLIENTS and not federation.judges:
            raise nothing_held_out(run.config)
        return functools.partial(find, federation, load_supernet(run))

    @property
    def is_kept(self) -> bool:
        """Whether the run's folder keeps what is found."""
        return self._run.read_only is None

    def __call__(self, architectures: Sequence[Architecture]) -> Generator[tuple[Architecture, Score], None, None]:
        # In the order of their genes those that begin alike stand beside each other, which is faster.
        ordered = sorted(architectures, key=lambda architecture: self._run.space.encode(architecture).tolist())
        if ordered:
            yield from zip(ordered, self._evaluate(ordered), strict=True)


def _score(
    cache: ScoreCache, evaluate: _Evaluation, goal: str, architectures: Sequence[Architecture], on_score: OnScore
) -> list[Score]:
    found_before = {each: cache.get(each) for each in architectures}
    scores = {each: score for each, score in found_before.items() if score is not None and _tells(score, goal)}
    for architecture, score in scores.items():
        on_score(architecture, score)
    new = [architecture for architecture in dict.fromkeys(architectures) if architecture not in scores]
    with contextlib.closing(evaluate(new)) as found:
        for architecture, score in found:
            if not _tells(score, goal):
                raise DataError(f"objective {as_typed(goal)}: all images that subnets are judged by are of one class")
            # Of those that some clients have not answered for, the next command may get more.
            if score.is_complete:
                cache.add(architecture, score, is_kept=evaluate.is_kept)
            scores[architecture] = score
            on_score(architecture, score)
    return [scores[architecture] for architecture in architectures]


def _tells(score: Score, goal: str) -> bool:
    """Return whether a score says what an objective is about."""
    return goal in score.measures or not objective.TABLE[goal].is_for_goal
