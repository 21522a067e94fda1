"""Time a model by a clock: single visits, whole sessions, and the protocols that say how long they are.

A visit is a number of runs without a pause. What times come to is `latency_statistics.py`'s.
"""

import gc
import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Callable, List, Mapping, NamedTuple

from fedsup_deploy.ondevice.latency_statistics import (
    NS_PER_MS,
    SPREAD_WITHIN,
    noise,
    p90_bound_ms,
    pooled_p10,
    stability,
    summarize,
)
from fedsup_deploy.ondevice.machine import peak_rss_mib

if TYPE_CHECKING:
    from fedsup_deploy.ondevice.records import ProtocolRecord, Session, Statistics

#: Runs a model once.
Run = Callable[[], object]
#: Tells the time in ns.
Clock = Callable[[], int]

#: Longest visit of a session, in s.
VISIT_SECONDS = 0.1
#: Visits between two looks at whether a session may end: of many looks, one would find agreement by chance.
VISITS_PER_LOOK = 10

_NS_PER_S = 1e9


def _float_clock_ns() -> int:
    return int(time.perf_counter() * _NS_PER_S)


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
            elapsed_s = (now - start) / _NS_PER_S
            if elapsed_s >= max_seconds or (len(samples) >= min_runs and elapsed_s >= min_seconds):
                return samples
    finally:
        if was_enabled:
            gc.enable()


def time_session(run_once: Run, protocol: Protocol, clock: Clock = now_ns) -> List[List[int]]:
    """Return the times of a session in ns, visit by visit: at least two, so that its parts can be compared."""
    visits_ns: List[List[int]] = []
    visit_seconds = min(VISIT_SECONDS, protocol.min_seconds / VISITS_PER_LOOK)
    num_runs = 0
    timed_ns = 0
    while len(visits_ns) < 2 or timed_ns < protocol.max_seconds * _NS_PER_S:
        visit_ns = time_visit(run_once, 1, visit_seconds, visit_seconds, clock)
        visits_ns.append(visit_ns)
        num_runs += len(visit_ns)
        timed_ns += sum(visit_ns)
        are_minima_met = num_runs >= protocol.min_runs and timed_ns >= protocol.min_seconds * _NS_PER_S
        if not are_minima_met or len(visits_ns) % VISITS_PER_LOOK:
            continue
        if timed_ns >= protocol.settle_seconds * _NS_PER_S:
            break
        if stability(visits_ns, pooled_p10, "p10")["verdict"] == "stable":
            break
    return visits_ns


def first_run_ms(run_once: Run) -> float:
    """Return the time of a model's first run in ms: it is cold, so it is no latency."""
    return time_visit(run_once, 1, 0.0, 0.0)[0] / NS_PER_MS


def measure_latency(run_once: Run, protocol: Protocol = QUICK, clock: Clock = now_ns) -> "Session":
    """Warm a model up, time it at batch 1, and return protocol, statistics, stability and memory as JSON values."""
    time_visit(run_once, protocol.warm_up_runs, protocol.warm_up_seconds, protocol.max_seconds / 10, clock)
    peak_mib = peak_rss_mib()  # before there are times to keep
    visits_ns = time_session(run_once, protocol, clock)
    samples_ns = [ns for visit_ns in visits_ns for ns in visit_ns]
    statistics: Statistics = {**summarize(samples_ns), "p90_bound_ms": p90_bound_ms(samples_ns)}
    return {
        "protocol": _record_of(protocol),
        "statistics": statistics,
        "stability": stability(visits_ns, pooled_p10, "p10", SPREAD_WITHIN),
        "noise": noise(visits_ns),
        "is_min_runs_met": len(samples_ns) >= protocol.min_runs,
        "is_min_duration_met": sum(samples_ns) >= protocol.min_seconds * _NS_PER_S,
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
