"""Time many models so that they can be compared, on this machine or, copied there, on a device.

A machine changes its speed for seconds at a time. Models timed one after the other differ by that; models timed in
turns, many short visits each, all get their share of the fast seconds. A ruler, one fixed model timed between every few
others, tells how the speed changed.

Owns the order of the visits and what is told about each. It needs Python 3.6, NumPy, onnxruntime and
`fedsup_deploy.ondevice`, which owns the arithmetic; it reads models, writes no file, and reports no host name, user
name or path.

Started with a folder (`python3 -m fedsup_deploy.device.session FOLDER`, or packed into one file), it times every model
there, `NAME.onnx` or with other files of its own beside it `NAME/NAME.onnx`, and prints one JSON line per event. With
--machine it says instead what the machine is. Exit codes: 0 done; 2 wrong usage, or NumPy or onnxruntime is missing; 3
a model cannot be run. The last line is then {"event": "error", "reason": ...}.
"""

import argparse
import functools
import hashlib
import json
import sys
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Callable,
    Collection,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    Union,
)

from fedsup_deploy.ondevice.energy import add_energy_options, energy_of
from fedsup_deploy.ondevice.inference import most_threads, why_not_imported
from fedsup_deploy.ondevice.latency_statistics import summarize
from fedsup_deploy.ondevice.loaded_model import Model, ModelError, load_model
from fedsup_deploy.ondevice.machine import environment, memory_mib
from fedsup_deploy.ondevice.timing import (
    PROTOCOLS,
    QUICK,
    RUNS_TO_REWARM,
    Clock,
    Protocol,
    Run,
    measure_both,
    measure_latency,
    now_ns,
    time_visit,
)

if TYPE_CHECKING:
    import typing

    from fedsup_deploy.ondevice.records import Environment, RunTimes, Session, TimedInt8, TimedModel
    from fedsup_deploy.ondevice.session_records import (
        EnergyEvent,
        EnvironmentEvent,
        LatencyEvent,
        LoadEvent,
        MachineEvent,
        RoundEvent,
        SessionEvent,
        Visited,
        VisitEvent,
    )

#: Models timed between two looks at the ruler.
MODELS_PER_RULER = 4
_RUNS_TO_WARM_UP = 10
_MIN_RUNS = 5


class Schedule(NamedTuple):
    """How often and how long models are visited.

    Args:
        rounds: Visits per model. Each round visits all, in an order that depends on the seed and the round alone.
        visit_seconds: Counted time of a visit, at least.
        seed: Of the order.
        first_round: Where an interrupted session goes on.
    """

    rounds: int
    visit_seconds: float = 0.02
    seed: int = 0
    first_round: int = 0


class Stop(NamedTuple):
    """What is visited once in a round: a model, with its weights in the cache or not."""

    model: str
    state: str
    run_once: Run


def time_model(
    path: Path, *, threads: int = 1, protocol: Protocol = QUICK, shape: Optional[Sequence[int]] = None
) -> "TimedModel":
    """Time one model by a protocol; return what `run.py --json` reports under `latency`, and `environment`.

    Raises:
        ModelError: See `load_model`.
    """
    before = environment(threads)
    model = load_model(path, threads, shape)
    return _timed(model, measure_latency(model.run_once, protocol), before)


def time_both(
    fp32: Path, int8: Path, *, threads: int = 1, protocol: Protocol = QUICK
) -> "Tuple[TimedModel, TimedInt8]":
    """Time two forms of one network in turns, each by the protocol; see `time_model`.

    Raises:
        ModelError: See `load_model`.
    """
    before = environment(threads)
    model, other = load_model(fp32, threads), load_model(int8, threads)
    of_fp32, of_int8, speed = measure_both(model.run_once, other.run_once, protocol)
    second: TimedInt8 = {
        **of_int8,
        "load_ms": other.load_ms,
        "first_run_ms": other.first_run_ms,
        "speed": speed,
        "environment": before,
    }
    return _timed(model, of_fp32, before), second


def _timed(model: Model, found: "Session", where: "Environment") -> "TimedModel":
    return {**found, "load_ms": model.load_ms, "first_run_ms": model.first_run_ms, "environment": where}


def visits(
    models: Mapping[str, Path],
    schedule: Schedule,
    *,
    threads: int = 1,
    ruler: Optional[Path] = None,
    filler: Optional[Path] = None,
    uncached: Collection[str] = (),
    clock: Clock = now_ns,
) -> "Iterator[SessionEvent]":
    """Time models in turns, and yield what happens as JSON values, one by one.

    Args:
        models: Their files by name; inputs of their own shape, batch 1.
        schedule: How often and how long.
        threads: Threads of the runtime.
        ruler: A fixed model, timed before and after every four others.
        filler: A model large enough to fill the cache.
        uncached: Names of models that get a second visit in each round, in which each run follows one of the filler.
        clock: What the runs are timed with, in ns.

    Yields:
        `environment`, once; `load` per model (`load_ms`, `first_run_ms`); `visit` per visit (`round`, `model`, `state`:
        `cached` or `uncached`, `num_runs`, `min_ms`, `p10_ms`, `p50_ms`, `p90_ms`, `mean_ms`, and `ruler_ms`: the
        ruler's 10th percentile before and after, or None without ruler); `round` after each (`done`, `total`, `seconds`
        since the first).

    Raises:
        ModelError: A model cannot be run.
    """
    started: EnvironmentEvent = {"event": "environment", **environment(threads)}
    yield started
    loaded = {}
    for name, path in models.items():
        model = loaded[name] = load_model(path, threads)
        load: LoadEvent = {
            "event": "load",
            "model": name,
            "load_ms": model.load_ms,
            "first_run_ms": model.first_run_ms,
        }
        yield load
    ruler_model, filler_model = (None if path is None else load_model(path, threads) for path in (ruler, filler))
    for model in (*loaded.values(), *(one for one in (ruler_model, filler_model) if one is not None)):
        time_visit(model.run_once, _RUNS_TO_WARM_UP, schedule.visit_seconds, 1.0, clock)
    stops = {name: Stop(name, "cached", model.run_once) for name, model in loaded.items()}
    if filler_model is not None:
        stops.update({f"{name}/": Stop(name, "uncached", loaded[name].run_once) for name in uncached})
    visit = functools.partial(_visit, filler=filler_model, seconds=schedule.visit_seconds, clock=clock)
    start_ns = clock()
    for index in range(schedule.first_round, schedule.rounds):
        tour = [stops[key] for key in order_of_round(list(stops), schedule.seed, index)]
        for visited in _round(tour, ruler_model, visit):
            event: VisitEvent = {"event": "visit", "round": index, **visited}
            yield event
        seconds = round((clock() - start_ns) / 1e9, 3)
        end: RoundEvent = {"event": "round", "done": index + 1, "total": schedule.rounds, "seconds": seconds}
        yield end


def order_of_round(names: Sequence[str], seed: int, index: int) -> List[str]:
    """Return names in the random order of a round: by a hash, which is the same on every device."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}/{index}/{name}".encode()).digest())


def _round(tour: Sequence[Stop], ruler: Optional[Model], visit: Callable[[Stop], "RunTimes"]) -> "Iterator[Visited]":
    """Make every stop once, and look at the ruler around every few of them."""
    before = _look(ruler, visit)
    for start in range(0, len(tour), MODELS_PER_RULER):
        group = tour[start : start + MODELS_PER_RULER]
        found = [visit(stop) for stop in group]
        after = _look(ruler, visit)
        looks = None if before is None or after is None else [before, after]
        for index, stop in enumerate(group):
            yield {"model": stop.model, "state": stop.state, **found[index], "ruler_ms": looks}
        before = after


def _look(ruler: Optional[Model], visit: Callable[[Stop], "RunTimes"]) -> Optional[float]:
    if ruler is None:
        return None
    return float(visit(Stop("ruler", "cached", ruler.run_once))["p10_ms"])


def _visit(stop: Stop, filler: Optional[Model], seconds: float, clock: Clock) -> "RunTimes":
    if stop.state == "uncached" and filler is not None:
        return summarize(_time_uncached(stop.run_once, filler.run_once, seconds, clock))
    time_visit(stop.run_once, RUNS_TO_REWARM, 0.0, seconds, clock)
    return summarize(time_visit(stop.run_once, _MIN_RUNS, seconds, 10 * seconds, clock))


def _time_uncached(run_once: Run, fill: Run, seconds: float, clock: Clock) -> List[int]:
    """Return the times of runs in ns, each of which finds the cache full of something else."""
    samples_ns: List[int] = []

    def run_both() -> None:
        fill()
        start_ns = clock()
        run_once()
        samples_ns.append(clock() - start_ns)

    run_both()  # before it, the filler's own weights were elsewhere
    samples_ns.clear()
    # On a busy machine all of the time may go by in one run, which counts then.
    time_visit(run_both, _MIN_RUNS, seconds, 10 * seconds, clock)
    return samples_ns


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run the command line and return its exit code. Side effects: Writes events to standard output."""
    options = _parse(arguments)
    try:
        for event in _events(options):
            _write(event)
    except ModelError as error:
        _write({"event": "error", "reason": str(error).replace(f"{options.folder}/", "")})
        return 3
    except ImportError as error:
        _write({"event": "error", "reason": why_not_imported(error)})
        return 2
    return 0


def _loading(path: Path, threads: int) -> Callable[[], Run]:
    return lambda: load_model(path, threads).run_once


def _events(options: argparse.Namespace) -> "Iterator[Union[EnergyEvent, LatencyEvent, MachineEvent, SessionEvent]]":
    """Yield what the command line asks for: what the machine is, or of every model its energy or its times."""
    if options.machine:
        found: MachineEvent = {
            "event": "machine",
            "environment": environment(options.threads),
            "memory_mib": memory_mib(),
        }
        yield found
        return
    alone = options.folder.glob("*.onnx")
    with_files = (path for path in options.folder.glob("*/*.onnx") if path.stem == path.parent.name)
    models = {path.stem: path for path in sorted([*alone, *with_files], key=lambda path: path.name)}
    if not models:
        raise ModelError(f"no .onnx file in {options.folder}")
    if options.protocol is not None:
        protocol = PROTOCOLS[options.protocol]
        for name, path in models.items():
            latency = time_model(path, threads=options.threads, protocol=protocol)
            event: LatencyEvent = {"event": "latency", "model": name, **latency}
            yield event
            if options.energy:
                energy, reason = energy_of(_loading(path, options.threads), options.sensors)
                told: EnergyEvent = {"event": "energy", "model": name, "energy": energy, "reason": reason}
                yield told
        return
    ruler, filler = (
        None if name is None else models.get(name, options.folder / f"{name}.onnx")
        for name in (options.ruler, options.filler)
    )
    yield from visits(
        {name: path for name, path in models.items() if name not in {options.ruler, options.filler}},
        Schedule(options.rounds, options.visit_seconds, options.seed, options.first_round),
        threads=options.threads,
        ruler=ruler,
        filler=filler,
        uncached=options.uncached,
    )


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in an event as well, for who reads nothing else."""

    def error(self, message: str) -> "typing.NoReturn":
        """End with exit code 2. Side effects: Writes an event."""
        _write({"event": "error", "reason": message})
        super().error(message)


def _parse(arguments: Optional[Sequence[str]]) -> argparse.Namespace:
    parser = _Parser(prog="session", description="Time every .onnx file of a folder.")
    parser.add_argument("folder", type=Path, help="folder of the models; a model's name is its file's without .onnx")
    parser.add_argument("--machine", action="store_true", help="say what this machine is, and time nothing")
    parser.add_argument("--protocol", choices=list(PROTOCOLS), help="time each by this, not in turns")
    add_energy_options(parser, "with --protocol: ")
    parser.add_argument("--ruler", metavar="NAME", help="the model that is timed between every four others")
    parser.add_argument("--filler", metavar="NAME", help="the model that fills the cache")
    parser.add_argument("--uncached", metavar="NAME", nargs="*", default=[], help="models timed after the filler, too")
    parser.add_argument("--threads", type=int, default=1, help="threads of the runtime (default 1)")
    parser.add_argument("--rounds", type=int, default=20, help="visits per model (default 20)")
    parser.add_argument("--visit-seconds", type=float, default=0.02, help="counted time per visit (default 0.02)")
    parser.add_argument("--seed", type=int, default=0, help="of the order (default 0)")
    parser.add_argument("--first-round", type=int, default=0, help="where to go on (default 0)")
    options = parser.parse_args(arguments)
    if not 1 <= options.threads <= most_threads():
        parser.error(f"--threads: got {options.threads}, expected 1 to {most_threads()}")
    if options.rounds < 1 or not options.visit_seconds > 0 or options.first_round < 0:
        parser.error("--rounds must be at least 1, --visit-seconds above 0, --first-round at least 0")
    return options


def _write(event: Mapping[str, object]) -> None:
    sys.stdout.write(json.dumps(event, allow_nan=False) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
