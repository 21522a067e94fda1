"""`fedsup-deploy search`: a run and device profiles in, search.json out. Imports torch only when evaluations begin."""

import dataclasses
import functools
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

from pydantic import Field, JsonValue, SerializerFunctionWrapHandler, model_serializer

from fedsup_deploy import files, places, registry
from fedsup_deploy.commands.accuracy_source import (
    ACCURACIES,
    accuracy_model,
    accuracy_source,
    no_noise,
    noise_of,
    open_evaluation,
    open_known,
)
from fedsup_deploy.device.held_latency import held_latency
from fedsup_deploy.device.limits import TABLE
from fedsup_deploy.device.percentiles import PERCENTILES
from fedsup_deploy.device.predictor import predict_interval, predictor_for
from fedsup_deploy.device.profile import DeviceProfile
from fedsup_deploy.device.several_profiles import load_profiles
from fedsup_deploy.errors import ArtifactError, ConfigError, OutputError
from fedsup_deploy.events import EventLog, Listener
from fedsup_deploy.export.wanted import why_none
from fedsup_deploy.measures import ACCURACY as ACCURACY_GOAL
from fedsup_deploy.ondevice.records import Percentile
from fedsup_deploy.processor import processor
from fedsup_deploy.registry import nearest
from fedsup_deploy.runs.run import ACCURACY, EVALUATIONS, Run, newest_run, open_run
from fedsup_deploy.searchers.limits import effective_limits
from fedsup_deploy.searchers.methods.choice import AUTO, open_search
from fedsup_deploy.searchers.objective import goals
from fedsup_deploy.searchers.pool import make_pool
from fedsup_deploy.searchers.pricing import Target
from fedsup_deploy.searchers.problem import Problem, pose
from fedsup_deploy.searchers.recording import ACCURATE, CHEAPER, check_fleet, percentile_record, record
from fedsup_deploy.searchers.result import (
    SCHEMA,
    DeviceResult,
    NamedHash,
    Preference,
    SearchedRun,
    SearchResult,
    load_result,
)
from fedsup_deploy.searchers.scoring.known import KnownAccuracy
from fedsup_deploy.searchers.searcher import run_searches

RESULT = "search.json"


@dataclasses.dataclass(frozen=True)
class SearchRequest:
    """What a user wants to have searched.

    Args:
        profiles: Shipped names or files of device profiles, or profiles.
        run: The training run; None is the newest below `runs/`.
        limits: Limits by name; each replaces that of the profiles.
        method: A registered searcher or `auto`.
        evaluations: Accuracies to find at most, per profile; None leaves it to the method.
        seed: Decides every random choice.
        out: Where the result goes; None is `search.json` in the run's folder.
        accuracy: One of `ACCURACIES`.
        risk: Probability with which the measured latency of a new network is to be within the limit, in (0, 1); None
            holds the percentile as predicted to it.
        percentile: Which percentile of latency a limit means, one of `device.percentiles.PERCENTILES`; None is that of
            the profile, p50 where it says none.
        max_artifacts: The most different architectures for all profiles together; None lets each have its own.
        prefer: `accurate` picks the most accurate subnet, `cheaper` the one with the fewest MACs that is as accurate
            within noise and no slower.
        objective: What is maximised: one of `searchers.objective.goals()`; of `calibration_error` the lowest is best.
        resume: Go on with the same search where it was stopped; if it was finished, its result stands.
        engine: What runs the clients; None as the run's config says. The result does not depend on it.
    """

    profiles: Sequence[str | DeviceProfile]
    run: Path | None = None
    limits: Mapping[str, float] = dataclasses.field(default_factory=dict)
    method: str = AUTO
    evaluations: int | None = None
    seed: int = 0
    out: Path | None = None
    accuracy: str = AUTO
    risk: float | None = None
    max_artifacts: int | None = None
    resume: bool = False
    percentile: Percentile | None = None
    prefer: Preference = ACCURATE
    objective: str = ACCURACY_GOAL
    engine: str | None = None


class WrittenSearch(SearchResult):
    """What a search found, as search.json has it, and where it was written."""

    out: Path
    """The file."""
    not_exportable: dict[str, str] = Field(default_factory=dict)
    """Why there can be no bundle, by the names of those profiles for which that is so; not there without such."""

    @model_serializer(mode="wrap")
    def _without_empty(self, handler: SerializerFunctionWrapHandler) -> dict[str, JsonValue]:
        return {name: value for name, value in handler(self).items() if name != "not_exportable" or value}


def search(request: SearchRequest, listeners: Sequence[Listener] = ()) -> WrittenSearch:
    """Find for each device profile the subnet within its limits that is best in the objective, and write search.json.

    All that can be wrong with the request is found before the supernet is loaded.

    Args:
        request: What to search.
        listeners: Called with `pricing` and `evaluation` events.

    Raises:
        ConfigError: A profile, limit or method is unknown or impossible.
        ArtifactError: There is no finished run, or it is damaged.
        DataError: The images of the run are missing or malformed.
        InfeasibleError: No subnet is within the limits of one of the profiles.
        OutputError: The result cannot be written, or another process is searching for it.
    """
    log = EventLog(None, tuple(listeners))
    _check(request)
    targets = targets_of(request)
    run = open_run(newest_run() if request.run is None else request.run, request.engine)
    out = run.path / RESULT if request.out is None else request.out
    with places.hold(out, advice=places.CHOOSE_OUT):
        found = _search(request, targets, run, out, log)
    fields = {field.alias or name: getattr(found, name) for name, field in SearchResult.model_fields.items()}
    reasons = {target.profile.name: why_none(target.profile) for target in targets}
    return WrittenSearch(**fields, out=out, not_exportable={name: why for name, why in reasons.items() if why})


def _search(request: SearchRequest, targets: Sequence[Target], run: Run, out: Path, log: EventLog) -> SearchResult:
    """Search, and write the result to a place that is held."""
    started = time.perf_counter()
    goal = request.objective
    kind, stored = accuracy_source(run, request.accuracy, goal)
    known = None if stored is None else stored.known(run.path / EVALUATIONS)
    asked = _digest(request, targets, run, kind, known)
    if request.resume and (finished := _finished(out, asked)) is not None:
        return finished
    # Which of them were measured changes how large the noise is, and not whether it is known.
    if request.prefer == CHEAPER and noise_of(kind, stored, known, goal) is None:
        raise no_noise(run, kind, stored, goal)
    problems = pose(make_pool(run.space, request.seed), targets, log, known)
    if stored is not None and _all_measured(problems):
        # Nothing is predicted, so it is a search like any other for which the run holds all scores.
        kind, stored = stored.findings.measured_by, None
    noise = noise_of(kind, stored, known, goal)
    check_fleet(problems, request.max_artifacts)
    searches = [open_search(problem, request.method, request.evaluations, request.seed) for problem in problems]
    _check_out(out)
    # Taken now: what is evaluated is what the file holds at the start.
    searched = _searched(run, out)
    evaluation = (
        open_evaluation(run, kind, log, goal) if known is None else open_known(known, is_measured=stored is None)
    )
    with files.marked(_unfinished(out), asked):
        with evaluation as evaluate:
            outcomes = run_searches(searches, evaluate)
        results, fleet = record(outcomes, request.max_artifacts, noise, request.prefer)
        result = SearchResult(
            schema=SCHEMA,
            run=searched,
            space=NamedHash(name=run.space.name, hash=files.sha256_of(run.space.to_dict())),
            request=asked,
            seed=request.seed,
            accuracy_model=accuracy_model(run, kind, stored),
            results=results,
            fleet=fleet,
            processor=processor(),
            seconds=time.perf_counter() - started,
        )
        files.write_json(out, result.to_dict())
    return result


def _all_measured(problems: Sequence[Problem]) -> bool:
    """Return whether every architecture that fits one of the devices was measured."""
    return all(
        problem.pool.is_complete and problem.known is not None and bool(problem.known.is_measured(problem.genes).all())
        for problem in problems
    )


def target_for(
    profile: DeviceProfile,
    limits: Mapping[str, float],
    risk: float | None = None,
    percentile: Percentile | None = None,
) -> Target:
    """Return a device as a search sees it.

    Args:
        profile: What is known of it.
        limits: Limits by name; each replaces that of the profile.
        risk: As of `SearchRequest`.
        percentile: As of `SearchRequest`.

    Raises:
        ConfigError: A limit is unknown, impossible or cannot be checked, or the profile has no ground for a bound, or
            for the percentile that a limit means.
    """
    in_force = effective_limits(profile, limits)
    if percentile is None:
        # Where nothing is held to a limit on latency, nothing need be known beyond what is predicted.
        is_limited = any(TABLE[name].is_predicted for name in in_force.given())
        percentile = profile.limit_percentile if is_limited else profile.predicted_percentile
    return Target(
        profile=profile,
        limits=in_force,
        predictor=predictor_for(profile),
        interval=functools.partial(predict_interval, profile),
        held=held_latency(profile, percentile, risk),
    )


def target_of(profile: DeviceProfile, found: DeviceResult) -> Target:
    """Return a device as the search saw it that found something for it.

    Args:
        profile: The device; it has not changed since.
        found: The record. An older one that names no percentile held the predictions themselves to the limit.

    Raises:
        ArtifactError: The record says something else of the percentile than the profile: somebody changed it.
        ConfigError: As of `target_for`.
    """
    percentile = profile.predicted_percentile if found.percentile is None else found.percentile.name
    target = target_for(profile, found.limits, found.risk, percentile)
    expected = percentile_record(target.held)
    if found.percentile is not None and found.percentile != expected:
        raise ArtifactError(
            f"the search for {profile.name}: percentile: got {found.percentile}, expected {expected}; search again"
        )
    return target


def targets_of(request: SearchRequest) -> list[Target]:
    """Return the devices of a request, in its order.

    Raises:
        ConfigError: There is none, two have one name, a profile is unknown or wrong; or as of `target_for`.
    """
    if not request.profiles:
        raise ConfigError("got no device profile, expected at least one; name it with --profile")
    return [
        target_for(profile, request.limits, request.risk, request.percentile)
        for profile in load_profiles(request.profiles)
    ]


def _check_out(out: Path) -> None:
    if out.is_dir():
        raise OutputError(f"cannot write {out}: it is a folder; give --out the name of a file")
    if out.is_file() and _first_byte(out) not in (b"", b"{"):
        raise OutputError(f"cannot write {out}: it is there and holds no search; give --out another name")


def _first_byte(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(64).lstrip()[:1]


def _check(request: SearchRequest) -> None:
    """Fail if a value is of a kind that the command line would not let through: it may come from Python."""
    for name in ("evaluations", "max_artifacts", "seed"):
        number, least = getattr(request, name), 0 if name == "seed" else 1
        if not (type(number) is int and number >= least) and not (number is None and least):
            raise ConfigError(f"{name}: got {number!r}, expected a whole number of at least {least}")
    if request.risk is not None and not isinstance(request.risk, float):
        raise ConfigError(f"risk: got {request.risk!r}, expected a probability between 0 and 1, such as 0.95")
    limits = request.limits.items() if isinstance(request.limits, Mapping) else [("limits", request.limits)]
    for name, limit in limits:
        if not isinstance(limit, (int, float)) or isinstance(limit, bool):
            raise ConfigError(f"limit {name}: got {limit!r}, expected a finite number above 0")
    if isinstance(request.profiles, str) or not all(
        isinstance(item, (str, DeviceProfile)) for item in request.profiles
    ):
        raise ConfigError(f"profiles: got {request.profiles!r}, expected a list of names, files or profiles")
    _check_names(request)


def _check_names(request: SearchRequest) -> None:
    if request.prefer not in get_args(Preference):
        raise ConfigError(f"prefer: got {request.prefer!r}, expected {ACCURATE} or {CHEAPER}")
    if request.objective not in goals():
        raise ConfigError(f"unknown objective {request.objective!r}{nearest(str(request.objective), goals())}")
    if request.percentile not in (None, *PERCENTILES):
        known = ", ".join(PERCENTILES)
        raise ConfigError(f"percentile: got {request.percentile!r}, expected one of {known}")
    if request.method not in (AUTO, *registry.names("searcher")):
        raise ConfigError(
            f"unknown searcher {request.method!r}{nearest(str(request.method), registry.names('searcher'))}"
        )
    if request.accuracy not in ACCURACIES:
        raise ConfigError(f"unknown accuracy {request.accuracy!r}{nearest(str(request.accuracy), ACCURACIES)}")


def _digest(request: SearchRequest, targets: Sequence[Target], run: Run, kind: str, known: KnownAccuracy | None) -> str:
    """Return the SHA-256 of all that decides what a search finds."""
    return files.sha256_of(
        {
            "run": run.fingerprint,
            "profiles": [target.profile.profile_hash for target in targets],
            "limits": [target.limits.given() for target in targets],
            "method": request.method,
            "accuracy": kind,
            "predictor": None if known is None else files.sha256(run.path / ACCURACY),
            "measured": None if known is None else files.sha256_of(known.to_list()),
            "evaluations": request.evaluations,
            "risk": request.risk,
            "percentiles": [target.held.percentile for target in targets],
            "max_artifacts": request.max_artifacts,
            "prefer": request.prefer,
            "seed": request.seed,
            # Only where it is another: what searches for accuracy are called has not changed.
            **({} if request.objective == ACCURACY_GOAL else {"objective": request.objective}),
        }
    )


def _searched(run: Run, out: Path) -> SearchedRun:
    """Return what a result says of its run. The way to it is relative: it lasts where both are moved together."""
    # Not `resolve`, which fails where links lead in a circle: whoever writes there says so.
    folder = Path(os.path.realpath(run.path))
    path = os.path.relpath(folder, Path(os.path.realpath(out)).parent)
    return SearchedRun(name=folder.name, hash=run.fingerprint, rounds=run.rounds, path=path)


def _unfinished(out: Path) -> Path:
    """Return the file that stands beside a result while it is searched for."""
    return out.with_name(f"{out.name}.unfinished")


def _finished(out: Path, asked: str) -> SearchResult | None:
    """Return the result of the same search if it is there; None where it was stopped or never begun.

    What was evaluated until then is kept in the run's folder, and the seed decides the rest.

    Raises:
        ConfigError: What was stopped or finished there was another search.
        ArtifactError: The file of it is damaged.
    """
    unfinished = _unfinished(out)
    before: str | None
    if unfinished.is_file():
        before = unfinished.read_text(encoding="utf-8", errors="replace")
    elif out.is_file():
        before = load_result(out).request
    else:
        return None
    if before != asked:
        raise ConfigError(
            f"cannot resume {out}: it is of another search: other profiles, limits, settings or seed, or the run has "
            "changed since; search anew without --resume"
        )
    return None if unfinished.is_file() else load_result(out)
