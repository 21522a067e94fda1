"""Run a model in onnxruntime, and time it: the arithmetic of a measurement is here and only here.

It needs Python 3.8+, NumPy and onnxruntime, and nothing of fedsup_deploy, because it works on devices: as a part of
every bundle's `run.py`, and below `fedsup_deploy.device.session`. It writes no file, and reports no host name, user
name or path.
"""

import gc
import importlib
import math
import os
import platform
import sys
import time
from pathlib import Path
from types import MappingProxyType
from typing import Any, Callable, Dict, Iterable, List, Mapping, NamedTuple, Optional, Tuple, Type

JSON = Dict[str, Any]
Run = Callable[[], Any]
Clock = Callable[[], int]
_NOW = time.perf_counter_ns
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # nothing phones home: onnxruntime looks here when it is imported
STABLE_WITHIN = 0.05  # parts of a session whose statistics differ by more make it unstable
SPREAD_WITHIN = 0.10  # so do visits that differ by more: a machine with two speeds shows others in the next session
VISIT_SECONDS, VISITS_PER_LOOK = 0.1, 10  # a session has visits of this length at most, and looks after so many


class Protocol(NamedTuple):
    """How long a model is timed."""

    name: str
    min_runs: int
    min_seconds: float
    settle_seconds: float  # while the parts of a session disagree, it goes on until it is this long
    max_seconds: float  # a slow model stops about here, even with fewer runs
    warm_up_runs: int = 50
    warm_up_seconds: float = 0.5


#: `quick` is for comparing at a desk; `full` has the length of a benchmark submission (1,024 runs and 60 s).
QUICK, FULL = Protocol("quick", 200, 5.0, 10.0, 60.0), Protocol("full", 1024, 60.0, 0.0, 600.0)
GLANCE = Protocol("glance", 50, 0.5, 0.0, 10.0)  # too short to see a machine change its speed
PROTOCOLS: Mapping[str, Protocol] = MappingProxyType({protocol.name: protocol for protocol in (QUICK, FULL)})


def quantile(samples: Iterable[float], share: float) -> float:
    """Return the value below which `share` of the samples lie, linear between neighbours (NumPy's default)."""
    ordered = sorted(samples)
    position = share * (len(ordered) - 1)
    lower, upper = int(position), min(int(position) + 1, len(ordered) - 1)
    return ordered[lower] + (position - lower) * (ordered[upper] - ordered[lower])


def summarize(samples_ns: List[int]) -> JSON:
    """Return the run count, minimum, 10th, 50th and 90th percentile and mean of times in ns, in ms."""
    shares = (("min_ms", 0.0), ("p10_ms", 0.1), ("p50_ms", 0.5), ("p90_ms", 0.9))
    quantiles = {name: quantile(samples_ns, share) / 1e6 for name, share in shares}
    return {"num_runs": len(samples_ns), **quantiles, "mean_ms": sum(samples_ns) / len(samples_ns) / 1e6}


def p90_bound_ms(samples_ns: List[int]) -> Optional[float]:
    """Return a time that 90 % of all runs stay within, 99 % sure if runs are independent; None with fewer than 64 runs.

    The t-th largest of n times, with the largest t for which P(X <= t) <= 0.01; X, binomial with n trials of 0.1, is
    how many times lie beyond the true percentile. Source: MLPerf inference rules, early stopping: I_0.9(n - t, t + 1).
    """
    n, k, at_most_k = len(samples_ns), -1, 0.0
    while at_most_k <= 0.01:
        k += 1
        log_ways = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
        at_most_k += math.exp(log_ways + k * math.log(0.1) + (n - k) * math.log(0.9))
    return sorted(samples_ns)[1 - k] / 1e6 if k > 1 else None  # t is k - 1


def pooled_p10(visits_ns: List[List[int]]) -> float:
    """Return the 10th percentile of all times of some visits: the slow tail says more about neighbours on a machine."""
    return quantile([ns for visit in visits_ns for ns in visit], 0.1)


def stability(visits: List[Any], statistic: Callable[[List[Any]], float], name: str, spread: float = math.inf) -> JSON:
    """Return whether even and odd visits, the halves of a session (drift), and 80 % of the visits (spread) agree."""
    half = len(visits) // 2
    pairs = (map(statistic, pair) for pair in ((visits[::2], visits[1::2]), (visits[:half], visits[half:])))
    disagreement, drift = (abs(one - other) / max(min(one, other), 1e-9) for one, other in pairs)
    low, middle, high = (quantile([statistic([visit]) for visit in visits], share) for share in (0.1, 0.5, 0.9))
    found = {"disagreement": disagreement, "drift": drift, "spread": (high - low) / max(middle, 1e-9)}
    allowed = {"stable_within": STABLE_WITHIN, "spread_within": spread if math.isfinite(spread) else None}
    is_stable = max(disagreement, drift) <= STABLE_WITHIN and found["spread"] <= spread
    return {"statistic": name, **found, **allowed, "verdict": "stable" if is_stable else "unstable"}


def time_visit(run_once: Run, min_runs: int, min_seconds: float, max_seconds: float, clock: Clock = _NOW) -> List[int]:
    """Return each run's time in ns, until both minima are reached or `max_seconds` over. Side effects: gc is off."""
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
            elapsed_s = (now - start) / 1e9
            if elapsed_s >= max_seconds or (len(samples) >= min_runs and elapsed_s >= min_seconds):
                return samples
    finally:
        if was_enabled:
            gc.enable()


def time_session(run_once: Run, protocol: Protocol, clock: Clock = _NOW) -> List[List[int]]:
    """Return the times of a session in ns, visit by visit: at least two, so that its parts can be compared."""
    visits_ns: List[List[int]] = []
    min_ns, settle_ns, max_ns = (1e9 * seconds for seconds in protocol[2:5])
    visit_seconds = min(VISIT_SECONDS, protocol.min_seconds / VISITS_PER_LOOK)
    num_runs = timed_ns = 0
    while len(visits_ns) < 2 or timed_ns < max_ns:
        visits_ns.append(time_visit(run_once, 1, visit_seconds, visit_seconds, clock))
        num_runs, timed_ns = num_runs + len(visits_ns[-1]), timed_ns + sum(visits_ns[-1])
        if num_runs < protocol.min_runs or timed_ns < min_ns or len(visits_ns) % VISITS_PER_LOOK:
            continue  # looks are rare: of many, one would find agreement by chance
        if timed_ns >= settle_ns or stability(visits_ns, pooled_p10, "p10")["verdict"] == "stable":
            break
    return visits_ns


def measure_latency(run_once: Run, protocol: Protocol = QUICK, clock: Clock = _NOW) -> JSON:
    """Warm a model up, time it at batch 1, and return protocol, statistics, stability and memory in JSON values."""
    time_visit(run_once, protocol.warm_up_runs, protocol.warm_up_seconds, protocol.max_seconds / 10, clock)
    peak = peak_rss_mib()  # before there are times to keep
    visits_ns = time_session(run_once, protocol, clock)
    samples_ns = [ns for visit in visits_ns for ns in visit]
    return {
        "protocol": {"batch": 1, **protocol._asdict()},
        "statistics": {**summarize(samples_ns), "p90_bound_ms": p90_bound_ms(samples_ns)},
        "stability": stability(visits_ns, pooled_p10, "p10", SPREAD_WITHIN),
        "is_min_runs_met": len(samples_ns) >= protocol.min_runs,
        "is_min_duration_met": sum(samples_ns) >= protocol.min_seconds * 1e9,
        "peak_rss_mib": peak,
    }


def peak_rss_mib() -> Optional[float]:
    """Return the most memory this process ever held, in MiB; None where the system does not tell."""
    try:
        import resource
    except ImportError:
        return None
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2 ** (20 if sys.platform == "darwin" else 10), 1)


def environment(threads: int, root: Path = Path("/")) -> JSON:
    """Return what a latency depends on besides the model, None for what the system below `root` does not tell."""
    fields = [line.partition(":") for line in _read(root / "proc/cpuinfo").splitlines()]
    cpuinfo = {name.strip(): value.strip() for name, _, value in fields}  # of the last processor; ARM has no names
    arm = " ".join(f"{name} {cpuinfo[name]}" for name in ("CPU implementer", "CPU part") if name in cpuinfo)
    cpus = "sys/devices/system/cpu/cpu[0-9]*/cpufreq/"
    return {
        "device": _read(root / "proc/device-tree/model") or None,
        "cpu": cpuinfo.get("model name") or arm or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "cores_allowed": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "governor": _read(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or None,
        "frequency_mhz": _highest(root, cpus + "scaling_cur_freq") or float(cpuinfo.get("cpu MHz") or 0) or None,
        "frequency_max_mhz": _highest(root, cpus + "scaling_max_freq"),
        "power_mode": _read(root / "var/lib/nvpmodel/status") or None,
        "throttled": _read(root / "sys/devices/platform/soc/soc:firmware/get_throttled") or None,
        "temperature_c": _highest(root, "sys/class/thermal/thermal_zone*/temp"),
        "load_average_1m": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        **{name: getattr(platform, name)() for name in ("system", "machine")},
        "python": platform.python_version(),
        **{name: importlib.import_module(name).__version__ for name in ("numpy", "onnxruntime")},
        "provider": "CPUExecutionProvider",
        "threads": threads,
    }


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        return ""


def _highest(root: Path, pattern: str) -> Optional[float]:
    readings = (_read(path) for path in root.glob(pattern))  # in thousandths of the unit
    return max((int(text) / 1000 for text in readings if text.lstrip("-").isdigit()), default=None)


def runtime_errors() -> Tuple[Type[Exception], ...]:
    """Return what onnxruntime raises for a model or input it cannot take; its exceptions share no base."""
    state = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    raised = tuple(kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception))
    return (*raised, RuntimeError, ValueError)


def first_line(error: Exception) -> str:
    """Return what an error says, on one line."""
    return (str(error) or type(error).__name__).splitlines()[0]


def open_session(path: str, threads: int) -> Any:
    """Return an onnxruntime session on the CPU: sequential, every graph optimisation on."""
    onnxruntime = importlib.import_module("onnxruntime")
    if hasattr(onnxruntime, "disable_telemetry_events"):  # nothing phones home; old runtimes lack the switch
        onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 4  # its errors arrive as exceptions
    return onnxruntime.InferenceSession(path, sess_options=options, providers=["CPUExecutionProvider"])


def bind(session: Any, x_BCHW: Any) -> Run:
    """Return a function of no arguments that runs the session on `x_BCHW` and returns its first output."""
    feed, names = {session.get_inputs()[0].name: x_BCHW}, [session.get_outputs()[0].name]
    return lambda: session.run(names, feed)[0]
