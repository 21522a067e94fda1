"""Latency measured on this machine: what a user asks for, and what the visits of a session come to.

The arithmetic is that of `fedsup_deploy.ondevice`, the order that of `fedsup_deploy.device.session`. It never
predicts, and it calls a session whose parts disagree unstable rather than quote it as if nothing had happened.
"""

import os
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedsup_deploy.device import session
from fedsup_deploy.device.energy import EnergyMeter, energy_per_inference
from fedsup_deploy.errors import ArtifactError, ConfigError
from fedsup_deploy.ondevice import latency_statistics, timing

#: A visit counts only if the ruler took the same time before and after it, within this share.
RULER_WITHIN = 0.05
#: Rounds of a model and a ruler in turns, when one model is compared with a ruler.
_RULER_ROUNDS = 50
_MEDIANS_OF = ("p10_ms", "p50_ms", "p90_ms", "mean_ms")


def measure_onnx(
    path: Path,
    input_shape: tuple[int, ...] | None = None,
    *,
    threads: int = 1,
    protocol: timing.Protocol = timing.QUICK,
    ruler: Path | None = None,
    meter: EnergyMeter | None = None,
) -> dict[str, Any]:
    """Time one ONNX model on the CPU.

    Args:
        path: The model.
        input_shape: Shape of the input with the batch; None takes the model's own, with batch 1.
        threads: Threads of the runtime.
        protocol: How long.
        ruler: A fixed model to compare with, in turns.
        meter: Tells the energy as well.

    Returns:
        JSON values: `protocol`, `statistics` (min, p10, p50, p90, mean, and a bound of p90, in ms), `stability` (with a
        verdict), `is_min_runs_met`, `is_min_duration_met`, `load_ms`, `first_run_ms`, `peak_rss_mib`, the `environment`
        before the first run; `ruler`: None, or see `summarize`; `energy`: None, or see `energy_per_inference`.

    Raises:
        ArtifactError: The model is missing or cannot be run.
        ConfigError: An impossible number of threads.
    """
    check_threads(threads)
    try:
        latency = session.time_model(path, threads=threads, protocol=protocol, shape=input_shape)
        energy = None
        if meter is not None:
            energy = energy_per_inference(session.load_model(path, threads, input_shape).run_once, meter)
    except session.ModelError as error:
        raise ArtifactError(str(error)) from error
    compared = None
    if ruler is not None:
        compared = measure_many({"model": path}, ruler=ruler, threads=threads, rounds=_RULER_ROUNDS)["model"]
    return {**latency, "ruler": compared, "energy": energy}


def measure_many(
    models: Mapping[str, Path],
    *,
    ruler: Path | None = None,
    threads: int = 1,
    rounds: int = 20,
    visit_seconds: float = 0.02,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
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
    models: Mapping[str, Path], schedule: session.Schedule, *, threads: int = 1, **options: Any
) -> Iterator[dict[str, Any]]:
    """Yield the events of `session.visits` on this machine; its other arguments pass through.

    Raises:
        ArtifactError: A model is missing or cannot be run.
        ConfigError: An impossible number of threads or rounds.
    """
    check_threads(threads)
    if schedule.rounds < 2:
        raise ConfigError(f"rounds: got {schedule.rounds}, expected at least 2, so that they can be compared")
    try:
        yield from session.visits(models, schedule, threads=threads, **options)
    except session.ModelError as error:
        raise ArtifactError(str(error)) from error


def summarize(events: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return per model what the events of a session, or of all parts of one that was interrupted, come to.

    Of a visit that was repeated the last one counts. With a ruler, the visits during which it changed are left out of
    `ratio`, and a model of which less than half the visits remain is unstable.

    Returns:
        JSON values per model, in the order of the first visits: `latency_ms`, the figure to compare and to quote;
        `ratio`, median over the kept visits of p10 / mean of the ruler's p10 before and after, by which `latency_ms` is
        `ratio` x `ruler_ms`, the ruler's best p10 in the session (without ruler both are None, and `latency_ms` is the
        median of p10); `num_visits` and `num_visits_kept`; `stability` of `latency_ms`, whose figures are None with
        less than two visits kept; `statistics`: `num_runs` in all, `min_ms` over all visits, and `median_p10_ms`,
        `median_p50_ms`, `median_p90_ms`, `median_mean_ms` over the visits; `load_ms` and `first_run_ms`.
    """
    loads: dict[str, Mapping[str, Any]] = {}
    by_model: dict[str, dict[int, Mapping[str, Any]]] = {}
    for event in events:
        if event["event"] == "load":
            loads[event["model"]] = event
        elif event["event"] == "visit":
            by_model.setdefault(event["model"], {})[event["round"]] = event
    visits = {model: [of_round[index] for index in sorted(of_round)] for model, of_round in by_model.items()}
    looks = [ms for of_model in visits.values() for visit in of_model for ms in visit["ruler_ms"] or ()]
    ruler_ms = min(looks) if looks else None
    return {
        model: {
            **_comparable(of_model, ruler_ms),
            "statistics": _statistics(of_model),
            **{name: loads[model][name] if model in loads else None for name in ("load_ms", "first_run_ms")},
        }
        for model, of_model in visits.items()
    }


def _comparable(visits: Sequence[Mapping[str, Any]], ruler_ms: float | None) -> dict[str, Any]:
    """Return the latency of a model by the visits that can be trusted, and whether it repeats."""
    kept = [visit for visit in visits if ruler_ms is None or _is_steady(*visit["ruler_ms"])]
    values = [visit["p10_ms"] / (statistics.mean(visit["ruler_ms"]) if ruler_ms else 1.0) for visit in kept]
    median = statistics.median(values) if values else None
    return {
        "latency_ms": None if median is None else median * (ruler_ms or 1.0),
        "ratio": None if ruler_ms is None else median,
        "ruler_ms": ruler_ms,
        "num_visits": len(visits),
        "num_visits_kept": len(kept),
        "stability": _stability(values, len(visits), "median of p10" if ruler_ms is None else "median of p10 / ruler"),
    }


def _stability(values: list[float], num_visits: int, name: str) -> dict[str, Any]:
    if len(values) < 2:
        unknown = {"disagreement": None, "drift": None, "stable_within": latency_statistics.STABLE_WITHIN}
        return {"statistic": name, **unknown, "verdict": "unstable"}
    found = latency_statistics.stability(values, statistics.median, name)
    return found if 2 * len(values) >= num_visits else {**found, "verdict": "unstable"}


def _is_steady(before: float, after: float) -> bool:
    return abs(after - before) <= RULER_WITHIN * min(after, before)


def _statistics(visits: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    medians = {f"median_{name}": statistics.median(visit[name] for visit in visits) for name in _MEDIANS_OF}
    return {
        "num_runs": sum(visit["num_runs"] for visit in visits),
        "min_ms": min(visit["min_ms"] for visit in visits),
        **medians,
    }


def check_threads(threads: int) -> None:
    """Fail if this machine cannot use so many threads.

    Raises:
        ConfigError: There are none, or many times as many as there are cores.
    """
    most = max(16, 4 * (os.cpu_count() or 1))
    if not 1 <= threads <= most:
        raise ConfigError(f"threads: got {threads}, expected 1 to {most}; more than there are cores only wait")
