"""Time a model by a clock: single visits, whole sessions, and the protocols that say how long they are.

A visit is a number of runs without a pause. What times come to is `latency_statistics.py`'s.
"""

import gc
import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Callable, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from fedsup_deploy.ondevice.latency_statistics import (
    NS_PER_MS,
    SPREAD_WITHIN,
    noise,
    p90_bound_ms,
    pooled_p10,
    speed_of,
    stability,
    summarize,
)
from fedsup_deploy.ondevice.machine import peak_rss_mib

if TYPE_CHECKING:
    from fedsup_deploy.ondevice.records import ProtocolRecord, Session, SpeedRecord, Statistics

#: Runs a model once.
Run = Callable[[], object]
#: Tells the time in ns.
Clock = Callable[[], int]

#: Longest visit of a session, in s.
VISIT_SECONDS = 0.1
#: Visits between two looks at whether a session may end: of many looks, one would find agreement by chance.
VISITS_PER_LOOK = 10
#: Runs at the start of a visit that are not counted: they bring a model back into the caches, after another one ran.
RUNS_TO_REWARM = 3

NS_PER_S = 1e9


def _float_clock_ns() -> int:
    return int(time.perf_counter() * NS_PER_S)


#: The clock of all measurements. Python 3.6 has none that counts ns; its float is exact to some ns.
now_ns: Clock = getattr(time, "perf_counter_ns", _float_clock_ns)


class Protocol(NamedTuple):
    """How long a model is timed.

    Args:
        name: What it is called on command lines and in manifests.
        min_runs: Fewest timed runs.
        min_seconds: Shortest timed session.
        settle_seconds: While the parts of a session disagree, it goes on until it is this long.
        max_seconds: A slow model stops about here, even with fewer runs.
        warm_up_runs: Fewest runs before those that count.
        warm_up_seconds: Shortest time these take.
    """

    name: str
    min_runs: int
    min_seconds: float
    settle_seconds: float
    max_seconds: float
    warm_up_runs: int = 50
    warm_up_seconds: float = 0.5


#: For comparing at a desk.
QUICK = Protocol("quick", min_runs=200, min_seconds=5.0, settle_seconds=10.0, max_seconds=60.0)
#: The length of a benchmark submission: 1,024 runs and 60 s.
FULL = Protocol("full", min_runs=1024, min_seconds=60.0, settle_seconds=0.0, max_seconds=600.0)
#: Too short to see a machine change its speed.
GLANCE = Protocol("glance", min_runs=50, min_seconds=0.5, settle_seconds=0.0, max_seconds=10.0)
#: What can be asked for, by name.
PROTOCOLS: Mapping[str, Protocol] = MappingProxyType({QUICK.name: QUICK, FULL.name: FULL})


def time_visit(
    run_once: Run, min_runs: int, min_seconds: float, max_seconds: float, clock: Clock = now_ns
) -> List[int]:
    """Return the time of each run of a visit in ns.

    Args:
        run_once: What is timed.
        min_runs: Fewest runs.
        min_seconds: The visit goes on until it is this long, too.
        max_seconds: It ends when it is this long, whatever was reached; the run that is going on counts.
        clock: What the runs are timed with.

    Side effects: No garbage is collected meanwhile.
    """
    samples: List[int] = []
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        start = now = clock()
        while True:
            before = now
            run_once()
            now = clock()
            samples.append(now - before)
            elapsed_s = (now - start) / NS_PER_S
            if elapsed_s >= max_seconds or (len(samples) >= min_runs and elapsed_s >= min_seconds):
                return samples
    finally:
        if was_enabled:
            gc.enable()


def time_session(runs: Sequence[Run], protocol: Protocol, clock: Clock = now_ns) -> List[List[List[int]]]:
    """Return the times of a session in ns, of each model visit by visit: at least two, so that parts can be compared.

    Several models are visited in turns, every second round the other way round, so that all get their share of the
    machine's fast and slow seconds; each model by itself fulfils the protocol.
    """
    visits_ns: List[List[List[int]]] = [[] for _ in runs]
    visit_seconds = visit_seconds_of(protocol)
    num_rounds = 0
    while num_rounds < 2 or max(map(_total_ns, visits_ns)) < protocol.max_seconds * NS_PER_S:
        turn = list(zip(runs, visits_ns))
        for run_once, of_model_ns in turn[:: -1 if num_rounds % 2 else 1]:
            if len(runs) > 1:
                time_visit(run_once, RUNS_TO_REWARM, 0.0, visit_seconds, clock)
            of_model_ns.append(time_visit(run_once, 1, visit_seconds, visit_seconds, clock))
        num_rounds += 1
        if not num_rounds % VISITS_PER_LOOK and _is_enough(visits_ns, protocol):
            break
    return visits_ns


def visit_seconds_of(protocol: Protocol) -> float:
    """Return how long a visit is, in s."""
    return min(VISIT_SECONDS, protocol.min_seconds / VISITS_PER_LOOK)


def _total_ns(visits_ns: List[List[int]]) -> int:
    return sum(map(sum, visits_ns))


def _is_enough(visits_ns: List[List[List[int]]], protocol: Protocol) -> bool:
    """Return whether each model reached the minima, and its parts agree or nobody waits for that any longer."""
    for each_ns in visits_ns:
        if sum(map(len, each_ns)) < protocol.min_runs or _total_ns(each_ns) < protocol.min_seconds * NS_PER_S:
            return False
    if min(map(_total_ns, visits_ns)) >= protocol.settle_seconds * NS_PER_S:
        return True
    verdicts = [stability(each_ns, pooled_p10, "p10")["verdict"] for each_ns in visits_ns]
    verdicts += [speed_of(visits_ns[0], each_ns)["verdict"] for each_ns in visits_ns[1:]]
    return all(verdict == "stable" for verdict in verdicts)


def first_run_ms(run_once: Run) -> float:
    """Return the time of a model's first run in ms: it is cold, so it is no latency."""
    return time_visit(run_once, 1, 0.0, 0.0)[0] / NS_PER_MS


def measure_latency(run_once: Run, protocol: Protocol = QUICK, clock: Clock = now_ns) -> "Session":
    """Warm a model up, time it at batch 1, and return protocol, statistics, stability and memory as JSON values."""
    return _measure([run_once], protocol, clock)[1][0]


def measure_both(
    fp32: Run, int8: Run, protocol: Protocol = QUICK, clock: Clock = now_ns
) -> "Tuple[Session, Session, SpeedRecord]":
    """Do what `measure_latency` does with two forms of a network, in turns; return how they compare as well."""
    visits_ns, (of_fp32, of_int8) = _measure([fp32, int8], protocol, clock)
    return of_fp32, of_int8, speed_of(*visits_ns)


def _measure(runs: Sequence[Run], protocol: Protocol, clock: Clock) -> "Tuple[List[List[List[int]]], List[Session]]":
    """Return the times of each model in ns, visit by visit, and what they come to."""
    for run_once in runs:
        time_visit(run_once, protocol.warm_up_runs, protocol.warm_up_seconds, protocol.max_seconds / 10, clock)
    peak_mib = peak_rss_mib()  # before there are times to keep
    visits_ns = time_session(runs, protocol, clock)
    return visits_ns, [session_of(each_ns, protocol, peak_mib) for each_ns in visits_ns]


def session_of(visits_ns: List[List[int]], protocol: Protocol, peak_mib: Optional[float]) -> "Session":
    """Return what the visits of one model come to, whose times these are in ns.

    Args:
        visits_ns: The times, visit by visit.
        protocol: That was followed.
        peak_mib: Most memory of the process by then.
    """
    samples_ns = [ns for visit_ns in visits_ns for ns in visit_ns]
    statistics: Statistics = {**summarize(samples_ns), "p90_bound_ms": p90_bound_ms(samples_ns)}
    return {
        "protocol": _record_of(protocol),
        "statistics": statistics,
        "stability": stability(visits_ns, pooled_p10, "p10", SPREAD_WITHIN),
        "noise": noise(visits_ns),
        "is_min_runs_met": len(samples_ns) >= protocol.min_runs,
        "is_min_duration_met": sum(samples_ns) >= protocol.min_seconds * NS_PER_S,
        "peak_rss_mib": peak_mib,
    }


def _record_of(protocol: Protocol) -> "ProtocolRecord":
    return {
        "batch": 1,
        "name": protocol.name,
        "min_runs": protocol.min_runs,
        "min_seconds": protocol.min_seconds,
        "settle_seconds": protocol.settle_seconds,
        "max_seconds": protocol.max_seconds,
        "warm_up_runs": protocol.warm_up_runs,
        "warm_up_seconds": protocol.warm_up_seconds,
    }
