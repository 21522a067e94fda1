"""Latency measured on this machine: what a user asks for, and what the visits of a session come to.

The arithmetic is that of `fedsup_deploy.ondevice`, the order that of `fedsup_deploy.device.session`. It never
predicts, and it calls a session whose parts disagree unstable rather than quote it as if nothing had happened.
"""

import statistics
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from typing_extensions import TypedDict

from fedsup_deploy.device import session
from fedsup_deploy.errors import ArtifactError, ConfigError
from fedsup_deploy.ondevice import inference, latency_statistics, timing
from fedsup_deploy.ondevice.energy import SENSORS, energy_of
from fedsup_deploy.ondevice.loaded_model import ModelError, load_model
from fedsup_deploy.ondevice.records import EnergyRecord, StabilityRecord, TimedInt8, TimedModel
from fedsup_deploy.ondevice.session_records import LoadEvent, SessionEvent, VisitEvent

#: A visit counts only if the ruler took the same time before and after it, within this share.
RULER_WITHIN = 0.05
#: Rounds of a model and a ruler in turns, when one model is compared with a ruler.
_RULER_ROUNDS = 50


class UnknownStability(TypedDict):
    """Of a model with less than two visits to compare."""

    statistic: str
    disagreement: None
    drift: None
    stable_within: float
    verdict: Literal["unstable"]


class ComparedStatistics(TypedDict):
    """Over the visits of a model, in ms."""

    num_runs: int
    """In all."""
    min_ms: float
    """Over all visits."""
    median_p10_ms: float
    median_p50_ms: float
    median_p90_ms: float
    median_mean_ms: float


class ComparedLatency(TypedDict):
    """The latency of one of several models that were timed in turns, in ms."""

    latency_ms: float | None
    """The figure to compare and to quote: `ratio` x `ruler_ms`, without ruler the median of p10."""
    ratio: float | None
    """Median over the kept visits of p10 / mean of the ruler's p10 before and after; None without ruler."""
    ruler_ms: float | None
    """The ruler's best p10 in the session; None without ruler."""
    num_visits: int
    num_visits_kept: int
    """Those during which the ruler was steady."""
    stability: StabilityRecord | UnknownStability
    """Of `latency_ms`."""
    statistics: ComparedStatistics
    load_ms: float | None
    first_run_ms: float | None


class ModelLatency(TimedModel):
    """What a clock and a sensor said of one model."""

    ruler: ComparedLatency | None
    """The same in turns with a ruler."""
    energy: EnergyRecord | None
    """By a sensor, where one was asked, which is another function's work."""
    int8: TimedInt8 | None
    """Of the int8 file of a bundle, timed in turns with it."""


def measure_onnx(
    path: Path,
    input_shape: tuple[int, ...] | None = None,
    *,
    threads: int = 1,
    protocol: timing.Protocol = timing.QUICK,
    ruler: Path | None = None,
    int8: Path | None = None,
) -> ModelLatency:
    """Time one ONNX model on the CPU.

    Args:
        path: The model.
        input_shape: Shape of the input with the batch; None takes the model's own, with batch 1.
        threads: Threads of the runtime.
        protocol: How long.
        ruler: A fixed model to compare with, in turns.
        int8: The same network in int8, to time in turns with it, by the same protocol.

    Raises:
        ArtifactError: A model is missing or cannot be run.
        ConfigError: An impossible number of threads.
    """
    check_threads(threads)
    latency: TimedModel
    of_int8 = None
    try:
        if int8 is None:
            latency = session.time_model(path, threads=threads, protocol=protocol, shape=input_shape)
        else:
            latency, of_int8 = measure_both(path, int8, threads=threads, protocol=protocol)
    except ModelError as error:
        raise ArtifactError(str(error)) from error
    compared = None
    if ruler is not None:
        compared = measure_many({"model": path}, ruler=ruler, threads=threads, rounds=_RULER_ROUNDS)["model"]
    return {**latency, "ruler": compared, "energy": None, "int8": of_int8}


def measure_energy(path: Path, *, threads: int = 1, sensors: Path = SENSORS) -> tuple[EnergyRecord | None, str | None]:
    """Return the energy of one run of an ONNX model on the CPU, or None and why there is no figure.

    Args:
        path: The model.
        threads: Threads of the runtime.
        sensors: Where the system shows its devices.

    Raises:
        ArtifactError: There is a sensor, and the model is missing or cannot be run.
    """
    try:
        return energy_of(lambda: load_model(path, threads).run_once, sensors)
    except ModelError as error:
        raise ArtifactError(str(error)) from error


def measure_both(
    fp32: Path, int8: Path, *, threads: int = 1, protocol: timing.Protocol = timing.QUICK
) -> tuple[TimedModel, TimedInt8]:
    """Time the two files of a bundle in turns, each by the protocol, and say how they compare.

    Raises:
        ArtifactError: A file is missing or cannot be run.
        ConfigError: An impossible number of threads.
    """
    check_threads(threads)
    try:
        return session.time_both(fp32, int8, threads=threads, protocol=protocol)
    except ModelError as error:
        raise ArtifactError(str(error)) from error


def measure_many(
    models: Mapping[str, Path],
    *,
    ruler: Path | None = None,
    threads: int = 1,
    rounds: int = 20,
    visit_seconds: float = 0.02,
    seed: int = 0,
) -> dict[str, ComparedLatency]:
    """Time several ONNX models so that they can be compared: in turns, each round in another random order.

    Args:
        models: Their files by name; inputs of their own shape, batch 1.
        ruler: A fixed model, timed before and after every four others.
        threads: Threads of the runtime.
        rounds: Visits per model, at least 2.
        visit_seconds: Counted time per visit, at least.
        seed: Of the order.

    Returns:
        What `summarize` makes of the visits.

    Raises:
        ArtifactError: A model is missing or cannot be run.
        ConfigError: An impossible number of threads or rounds.
    """
    events = visits_here(models, session.Schedule(rounds, visit_seconds, seed), threads=threads, ruler=ruler)
    return summarize(events)


def visits_here(
    models: Mapping[str, Path],
    schedule: session.Schedule,
    *,
    threads: int = 1,
    ruler: Path | None = None,
    filler: Path | None = None,
    uncached: Collection[str] = (),
) -> Iterator[SessionEvent]:
    """Yield the events of `session.visits` on this machine, whose arguments these are.

    Raises:
        ArtifactError: A model is missing or cannot be run.
        ConfigError: An impossible number of threads or rounds.
    """
    check_threads(threads)
    if schedule.rounds < 2:
        raise ConfigError(f"rounds: got {schedule.rounds}, expected at least 2, so that they can be compared")
    try:
        yield from session.visits(models, schedule, threads=threads, ruler=ruler, filler=filler, uncached=uncached)
    except ModelError as error:
        raise ArtifactError(str(error)) from error


def summarize(events: Iterable[SessionEvent]) -> dict[str, ComparedLatency]:
    """Return per model what the events of a session, or of all parts of one that was interrupted, come to.

    Models stand in the order of their first visits. Of a visit that was repeated the last one counts. With a ruler, the
    visits during which it changed are left out of `ratio`, and a model of which less than half the visits remain is
    unstable.
    """
    loads: dict[str, LoadEvent] = {}
    by_model: dict[str, dict[int, VisitEvent]] = {}
    for event in events:
        if event["event"] == "load":
            loads[event["model"]] = event
        elif event["event"] == "visit":
            by_model.setdefault(event["model"], {})[event["round"]] = event
    visits = {model: [of_round[index] for index in sorted(of_round)] for model, of_round in by_model.items()}
    looks = [ms for of_model in visits.values() for visit in of_model for ms in visit["ruler_ms"] or ()]
    ruler_ms = min(looks) if looks else None
    return {model: _compared(of_model, ruler_ms, loads.get(model)) for model, of_model in visits.items()}


def _compared(visits: Sequence[VisitEvent], ruler_ms: float | None, load: LoadEvent | None) -> ComparedLatency:
    """Return the latency of a model by the visits that can be trusted, and whether it repeats."""
    kept = [visit for visit in visits if ruler_ms is None or _is_steady(*(visit["ruler_ms"] or ()))]
    values = [visit["p10_ms"] / (statistics.mean(visit["ruler_ms"] or ()) if ruler_ms else 1.0) for visit in kept]
    median = statistics.median(values) if values else None
    return {
        "latency_ms": None if median is None else median * (ruler_ms or 1.0),
        "ratio": None if ruler_ms is None else median,
        "ruler_ms": ruler_ms,
        "num_visits": len(visits),
        "num_visits_kept": len(kept),
        "stability": _stability(values, len(visits), "median of p10" if ruler_ms is None else "median of p10 / ruler"),
        "statistics": _statistics(visits),
        "load_ms": None if load is None else load["load_ms"],
        "first_run_ms": None if load is None else load["first_run_ms"],
    }


def _stability(values: list[float], num_visits: int, name: str) -> StabilityRecord | UnknownStability:
    if len(values) < 2:
        return {
            "statistic": name,
            "disagreement": None,
            "drift": None,
            "stable_within": latency_statistics.STABLE_WITHIN,
            "verdict": "unstable",
        }
    found = latency_statistics.stability(values, statistics.median, name)
    if 2 * len(values) < num_visits:
        found["verdict"] = "unstable"
    return found


def _is_steady(before: float, after: float) -> bool:
    return abs(after - before) <= RULER_WITHIN * min(after, before)


def _statistics(visits: Sequence[VisitEvent]) -> ComparedStatistics:
    return {
        "num_runs": sum(visit["num_runs"] for visit in visits),
        "min_ms": min(visit["min_ms"] for visit in visits),
        "median_p10_ms": statistics.median(visit["p10_ms"] for visit in visits),
        "median_p50_ms": statistics.median(visit["p50_ms"] for visit in visits),
        "median_p90_ms": statistics.median(visit["p90_ms"] for visit in visits),
        "median_mean_ms": statistics.median(visit["mean_ms"] for visit in visits),
    }


def check_threads(threads: int) -> None:
    """Fail if this machine cannot use so many threads.

    Raises:
        ConfigError: There are none, or many times as many as there are cores.
    """
    most = inference.most_threads()
    if not 1 <= threads <= most:
        raise ConfigError(f"threads: got {threads}, expected 1 to {most}; more than there are cores only wait")
