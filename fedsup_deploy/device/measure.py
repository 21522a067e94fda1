"""Latency measured on this machine: the protocol around the arithmetic of `fedsup_deploy.artifact.runner`.

Owns how long, how often and in which order models are timed. It never predicts, and it calls a session whose halves
disagree unstable rather than quote it as if nothing had happened.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from fedsup_deploy import rng
from fedsup_deploy.artifact import runner
from fedsup_deploy.errors import ArtifactError, ConfigError
from fedsup_deploy.registry import nearest

#: A visit counts only if the ruler took the same time before and after it, within this share.
_RULER_WITHIN = 0.05
#: Models timed between two looks at the ruler.
_MODELS_PER_RULER = 4
#: Runs at the start of a visit that are not counted: they bring the model back into the caches.
_RUNS_TO_REWARM = 3


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How long a model is timed.

    Args:
        warm_up_runs: Runs that are not counted, at least.
        warm_up_seconds: Time that is not counted, at least.
        min_runs: Counted runs, at least.
        min_seconds: Counted time, at least.
        max_seconds: A slow model stops about here, even with fewer runs.
    """

    warm_up_runs: int
    warm_up_seconds: float
    min_runs: int
    min_seconds: float
    max_seconds: float


#: `quick` is for comparing at a desk; `full` has the length of a benchmark submission (1,024 runs and 60 s).
PROTOCOLS = MappingProxyType(
    {"quick": Protocol(50, 0.5, 200, 1.0, 60.0), "full": Protocol(50, 0.5, 1024, 60.0, 600.0)},
)


@dataclasses.dataclass(frozen=True)
class _Model:
    """A loaded model and the input it is timed with."""

    run_once: Callable[[], Any]
    load_ms: float
    first_run_ms: float


@dataclasses.dataclass
class _Contender:
    """A model and what its visits found: times in ns, and ratios to the ruler."""

    model: _Model
    visits_ns: list[list[int]] = dataclasses.field(default_factory=list)
    ratios: list[float] = dataclasses.field(default_factory=list)


def measure_onnx(
    path: Path, input_shape: tuple[int, ...] | None = None, *, threads: int = 1, protocol: str = "quick"
) -> dict[str, Any]:
    """Time one ONNX model on the CPU.

    Args:
        path: The model.
        input_shape: Shape of the input with the batch; None takes the model's own, with batch 1.
        threads: Threads of the runtime.
        protocol: A name in `PROTOCOLS`.

    Returns:
        JSON values: `protocol`, `statistics` (min, p10, p50, p90, mean in ms), `stability` (with a verdict),
        `load_ms`, `first_run_ms`, `peak_rss_mib`, and the `environment` before the first run.

    Raises:
        ArtifactError: The model is missing or cannot be run.
        ConfigError: An unknown protocol, an impossible number of threads, or a shape is needed.
    """
    timing = _protocol(protocol)
    environment = runner.environment(_checked(threads))
    model = _load(path, input_shape, threads)
    latency = runner.measure_latency(model.run_once, **dataclasses.asdict(timing))
    latency["protocol"]["name"] = protocol
    return {
        **latency,
        "load_ms": model.load_ms,
        "first_run_ms": model.first_run_ms,
        "peak_rss_mib": runner.peak_rss_mib(),
        "environment": environment,
    }


def measure_many(
    paths: Sequence[Path],
    *,
    ruler: Path | None = None,
    threads: int = 1,
    rounds: int = 3,
    visit_seconds: float = 0.1,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Time several ONNX models so that they can be compared: in turns, each round in another random order.

    A machine changes its speed for seconds at a time. Models timed one after the other differ by that; models timed in
    turns share it. With a ruler, a fixed model timed before and after every four others, each visit also counts as a
    ratio to the ruler, which stays comparable between sessions; visits during which the ruler changed are left out.

    Args:
        paths: The models; inputs of their own shape, batch 1.
        ruler: The fixed model.
        threads: Threads of the runtime.
        rounds: Visits per model, at least 2.
        visit_seconds: Counted time per visit.
        seed: Of the order.

    Returns:
        Per model, in the order of `paths`, JSON values: `model` (file name), `statistics`, `stability`, and
        `ruler`: None, or `ratio` (median over the kept visits of p10 / ruler's p10; None if none was kept) and
        `num_visits_kept`. Also `protocol` and `environment`, the same for all.

    Raises:
        ArtifactError: A model is missing or cannot be run.
        ConfigError: An impossible number of threads or rounds.
    """
    if rounds < 2:
        raise ConfigError(f"rounds: got {rounds}, expected at least 2, so that they can be compared")
    environment = runner.environment(_checked(threads))
    contenders = [_Contender(_load(path, None, threads)) for path in paths]
    ruler_model = None if ruler is None else _load(ruler, None, threads)
    warm = PROTOCOLS["quick"]
    for model in [*(contender.model for contender in contenders), *([] if ruler_model is None else [ruler_model])]:
        runner.time_visit(model.run_once, warm.warm_up_runs, visit_seconds, warm.max_seconds)
    for round_index in range(rounds):
        order = rng.generator(seed, "measure", round_index).permutation(len(contenders)).tolist()
        _round([contenders[index] for index in order], ruler_model, visit_seconds)
    shared = {
        "protocol": {"name": "interleaved", "batch": 1, "rounds": rounds, "visit_seconds": visit_seconds, "seed": seed},
        "environment": environment,
    }
    return [
        {
            "model": path.name,
            "statistics": runner.summarize([ns for visit in contender.visits_ns for ns in visit]),
            "stability": runner.stability(contender.visits_ns),
            "ruler": None if ruler is None else _ruler_summary(contender.ratios),
            **shared,
        }
        for path, contender in zip(paths, contenders, strict=True)
    ]


def _round(contenders: list[_Contender], ruler: _Model | None, visit_seconds: float) -> None:
    """Visit every model once, in the given order, and the ruler around every few of them."""
    before = None if ruler is None else _p10_ns(_visit(ruler, visit_seconds))
    for start in range(0, len(contenders), _MODELS_PER_RULER):
        group = contenders[start : start + _MODELS_PER_RULER]
        for contender in group:
            contender.visits_ns.append(_visit(contender.model, visit_seconds))
        if ruler is None or before is None:
            continue
        after = _p10_ns(_visit(ruler, visit_seconds))
        if abs(after - before) <= _RULER_WITHIN * min(after, before):
            for contender in group:
                contender.ratios.append(_p10_ns(contender.visits_ns[-1]) / ((before + after) / 2))
        before = after


def _visit(model: _Model, seconds: float) -> list[int]:
    runner.time_visit(model.run_once, _RUNS_TO_REWARM, 0.0, seconds)
    return runner.time_visit(model.run_once, 5, seconds, 10 * seconds)


def _p10_ns(samples_ns: list[int]) -> float:
    return runner.quantile(samples_ns, 0.1)


def _ruler_summary(ratios: list[float]) -> dict[str, Any]:
    return {"ratio": statistics.median(ratios) if ratios else None, "num_visits_kept": len(ratios)}


def _load(path: Path, input_shape: tuple[int, ...] | None, threads: int) -> _Model:
    if not path.is_file():
        raise ArtifactError(f"no model at {path}; give the path of an .onnx file")
    try:
        start_ns = time.perf_counter_ns()
        session = runner.open_session(str(path), threads)
        load_ms = (time.perf_counter_ns() - start_ns) / 1e6
        shape = input_shape or _own_shape(path, session.get_inputs()[0].shape)
        x_BCHW = rng.generator(0, "measure", "input").standard_normal(shape, dtype=np.float32)
        run_once = runner.bind(session, x_BCHW)
        first_run_ms = runner.time_visit(run_once, 1, 0.0, 0.0)[0] / 1e6
    except runner.runtime_errors() as error:
        raise ArtifactError(f"onnxruntime cannot run {path}: {runner.first_line(error)}") from error
    return _Model(run_once, load_ms, first_run_ms)


def _own_shape(path: Path, shape: Sequence[Any]) -> tuple[int, ...]:
    """Return the model's input shape with 1 for an open batch dimension."""
    batch, *rest = shape
    if not all(isinstance(size, int) for size in rest):
        raise ConfigError(f"{path}: the input has the open shape {list(shape)}; say which shape to time")
    return (batch if isinstance(batch, int) else 1, *rest)


def _protocol(name: str) -> Protocol:
    if name not in PROTOCOLS:
        raise ConfigError(f"unknown protocol {name!r}{nearest(name, PROTOCOLS)}")
    return PROTOCOLS[name]


def _checked(threads: int) -> int:
    if threads < 1:
        raise ConfigError(f"threads: got {threads}, expected at least 1")
    return threads
