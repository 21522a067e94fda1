"""`fedsup-deploy search`: a run and device profiles in, search.json out. Imports torch only when evaluations begin."""

import dataclasses
import functools
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedsup_deploy import files
from fedsup_deploy.device.predictor import predict_interval, predictor_for
from fedsup_deploy.device.profile import DeviceProfile, load_profile
from fedsup_deploy.errors import ConfigError, OutputError
from fedsup_deploy.events import EventLog, Listener
from fedsup_deploy.pipeline.runs import Run, newest_run, open_run
from fedsup_deploy.searchers.objective import effective_limits
from fedsup_deploy.searchers.pool import make_pool
from fedsup_deploy.searchers.pricing import Target
from fedsup_deploy.searchers.problem import pose
from fedsup_deploy.searchers.recording import record
from fedsup_deploy.searchers.result import SCHEMA, NamedHash, SearchResult
from fedsup_deploy.searchers.searcher import AUTO, open_search, run_searches
from fedsup_deploy.space.architecture import Architecture

RESULT = "search.json"


@dataclasses.dataclass(frozen=True)
class SearchRequest:
    """What a user wants to have searched.

    Args:
        profiles: Shipped names or files of device profiles, or profiles.
        run: The training run; None is the newest below `runs/`.
        limits: Limits by name; each replaces that of the profiles.
        method: A registered searcher or `auto`.
        evaluations: Accuracies to measure at most, per profile; None leaves it to the method.
        seed: Decides every random choice.
        out: Where the result goes; None is `search.json` in the run's folder.
    """

    profiles: Sequence[str | DeviceProfile]
    run: Path | None = None
    limits: dict[str, float] = dataclasses.field(default_factory=dict)
    method: str = AUTO
    evaluations: int | None = None
    seed: int = 0
    out: Path | None = None


def search(request: SearchRequest, listeners: Sequence[Listener] = ()) -> dict[str, Any]:
    """Find for each device profile the most accurate subnet within its limits, and write search.json.

    All that can be wrong with the request is found before the supernet is loaded.

    Args:
        request: What to search.
        listeners: Called with `pricing` and `evaluation` events.

    Returns:
        The document of search.json, and `out`: where it was written.

    Raises:
        ConfigError: A profile, limit or method is unknown or impossible.
        ArtifactError: There is no finished run, or it is damaged.
        DataError: The images of the run are missing or malformed.
        InfeasibleError: No subnet is within the limits of one of the profiles.
        OutputError: The result cannot be written.
    """
    started, log = time.perf_counter(), EventLog(None, tuple(listeners))
    if request.evaluations is not None and request.evaluations < 1:
        raise ConfigError(f"evaluations: got {request.evaluations}, expected at least 1")
    targets = _targets(request)
    run = open_run(newest_run() if request.run is None else request.run)
    out = run.path / RESULT if request.out is None else request.out
    problems = pose(make_pool(run.space, request.seed), targets, log)
    searches = [open_search(problem, request.method, request.evaluations, request.seed) for problem in problems]
    _check_out(out)
    # Taken now: what is evaluated is what the file holds at the start.
    lineage = NamedHash(name=run.path.resolve().name, hash=run.fingerprint)
    outcomes = run_searches(searches, functools.partial(_evaluate, run), log)
    result = SearchResult(
        schema=SCHEMA,
        run=lineage,
        space=NamedHash(name=run.space.name, hash=files.sha256_of(run.space.to_dict())),
        seed=request.seed,
        results=tuple(record(outcome) for outcome in outcomes),
        seconds=time.perf_counter() - started,
    )
    document = result.to_dict()
    files.write_json(out, document)
    return {**document, "out": str(out)}


def target_for(profile: DeviceProfile, limits: Mapping[str, float]) -> Target:
    """Return a device as a search sees it.

    Args:
        profile: What is known of it.
        limits: Limits by name; each replaces that of the profile.

    Raises:
        ConfigError: A limit is unknown, impossible or cannot be checked.
    """
    return Target(
        profile=profile,
        limits=effective_limits(profile, limits),
        predict=predictor_for(profile).predict,
        interval=functools.partial(predict_interval, profile),
    )


def _targets(request: SearchRequest) -> list[Target]:
    if not request.profiles:
        raise ConfigError("got no device profile, expected at least one; name it with --profile")
    profiles = [load_profile(item) if isinstance(item, str) else item for item in request.profiles]
    name, times = Counter(profile.name for profile in profiles).most_common(1)[0]
    if times > 1:
        raise ConfigError(f"got profile {name} {times} times, expected each once; a copy needs a name of its own")
    return [target_for(profile, request.limits) for profile in profiles]


def _check_out(out: Path) -> None:
    if out.is_dir():
        raise OutputError(f"cannot write {out}: it is a folder; give --out the name of a file")
    files.check_writable(out.parent)


def _evaluate(
    run: Run, architectures: Sequence[Architecture], on_score: Callable[[int, float], None]
) -> Sequence[float]:
    from fedsup_deploy.pipeline.evaluation import score_candidates

    return score_candidates(run, architectures, on_score)
