"""Check and time a bundle on the device that will run it: `python run.py` inside the bundle folder.

One file, copied into every bundle as `run.py`. It needs Python 3.8+, NumPy and onnxruntime, and nothing of
fedsup_deploy. It checks the hash of every file, then that the model computes the recorded outputs alone and inside a
batch, then times it. It reads only the bundle, writes no file, and reports no host name, user name or path. The
arithmetic of a measurement is here and only here; `fedsup_deploy.device` imports it.

Exit codes: 0 all checks passed; 1 a file was altered; 2 wrong usage, or NumPy or onnxruntime is missing; 3 the outputs
are wrong; 4 the output of an image depends on its batch; 5 a file is missing.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import importlib
import json
import math
import os
import platform
import sys
import time
import zipfile
from pathlib import Path
from types import MappingProxyType
from typing import Any, Callable, Dict, Iterable, Iterator, Mapping, NamedTuple

OK, ALTERED, USAGE, PARITY, BATCH_INVARIANCE, MISSING = range(6)
JSON = Dict[str, Any]
Run = Callable[[], Any]
Clock = Callable[[], int]
_NOW = time.perf_counter_ns
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # nothing phones home: onnxruntime looks here when it is imported
BATCHES = (1, 3, 8)
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


class CheckError(Exception):
    """A check that did not pass, with the exit code that says which."""

    def __init__(self, exit_code: int, reason: str) -> None:
        super().__init__(reason)
        self.exit_code = exit_code


def quantile(samples: Iterable[float], share: float) -> float:
    """Return the value below which `share` of the samples lie, linear between neighbours (NumPy's default)."""
    ordered = sorted(samples)
    position = share * (len(ordered) - 1)
    lower, upper = int(position), min(int(position) + 1, len(ordered) - 1)
    return ordered[lower] + (position - lower) * (ordered[upper] - ordered[lower])


def summarize(samples_ns: list[int]) -> JSON:
    """Return the run count, minimum, 10th, 50th and 90th percentile and mean of times in ns, in ms."""
    shares = (("min_ms", 0.0), ("p10_ms", 0.1), ("p50_ms", 0.5), ("p90_ms", 0.9))
    quantiles = {name: quantile(samples_ns, share) / 1e6 for name, share in shares}
    return {"num_runs": len(samples_ns), **quantiles, "mean_ms": sum(samples_ns) / len(samples_ns) / 1e6}


def p90_bound_ms(samples_ns: list[int]) -> float | None:
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


def pooled_p10(visits_ns: list[list[int]]) -> float:
    """Return the 10th percentile of all times of some visits: the slow tail says more about neighbours on a machine."""
    return quantile([ns for visit in visits_ns for ns in visit], 0.1)


def stability(visits: list[Any], statistic: Callable[[list[Any]], float], name: str, spread: float = math.inf) -> JSON:
    """Return whether even and odd visits, the halves of a session (drift), and 80 % of the visits (spread) agree."""
    half = len(visits) // 2
    pairs = (map(statistic, pair) for pair in ((visits[::2], visits[1::2]), (visits[:half], visits[half:])))
    disagreement, drift = (abs(one - other) / max(min(one, other), 1e-9) for one, other in pairs)
    low, middle, high = (quantile([statistic([visit]) for visit in visits], share) for share in (0.1, 0.5, 0.9))
    found = {"disagreement": disagreement, "drift": drift, "spread": (high - low) / max(middle, 1e-9)}
    allowed = {"stable_within": STABLE_WITHIN, "spread_within": spread if math.isfinite(spread) else None}
    is_stable = max(disagreement, drift) <= STABLE_WITHIN and found["spread"] <= spread
    return {"statistic": name, **found, **allowed, "verdict": "stable" if is_stable else "unstable"}


def time_visit(run_once: Run, min_runs: int, min_seconds: float, max_seconds: float, clock: Clock = _NOW) -> list[int]:
    """Return each run's time in ns, until both minima are reached or `max_seconds` over. Side effects: gc is off."""
    samples: list[int] = []
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


def time_session(run_once: Run, protocol: Protocol, clock: Clock = _NOW) -> list[list[int]]:
    """Return the times of a session in ns, visit by visit: at least two, so that its parts can be compared."""
    visits_ns: list[list[int]] = []
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


def peak_rss_mib() -> float | None:
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


def _highest(root: Path, pattern: str) -> float | None:
    readings = (_read(path) for path in root.glob(pattern))  # in thousandths of the unit
    return max((int(text) / 1000 for text in readings if text.lstrip("-").isdigit()), default=None)


def runtime_errors() -> tuple[type[Exception], ...]:
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


def read_manifest(folder: Path) -> JSON:
    """Return the manifest's document, or raise `CheckError`: missing, no JSON, or without what the checks need."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        for name, entry in manifest["files"].items():
            _ = (entry["sha256"], entry["bytes"])
            if name != Path(name).name:
                raise CheckError(ALTERED, f"manifest.json names a file outside the bundle: {name!r}")
        _ = (manifest["files"]["model.onnx"], manifest["files"]["vectors.npz"], float(manifest["parity"]["tolerance"]))
    except FileNotFoundError:
        raise CheckError(MISSING, "manifest.json is missing; run this inside a bundle folder") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckError(ALTERED, f"manifest.json is damaged: {type(error).__name__}: {error}") from None
    return dict(manifest)


def check_files(folder: Path, files: JSON) -> JSON:
    """Compare size and SHA-256 of every file with the manifest, or raise `CheckError`."""
    if missing := [name for name in files if not (folder / name).is_file()]:
        raise CheckError(MISSING, f"{missing[0]} is missing; copy the bundle again")
    for name, expected in files.items():
        content = (folder / name).read_bytes()
        if len(content) != expected["bytes"]:
            raise CheckError(ALTERED, f"{name} was altered: {len(content)} bytes, expected {expected['bytes']}")
        if hashlib.sha256(content).hexdigest() != expected["sha256"]:
            raise CheckError(ALTERED, f"{name} was altered: its sha256 is not that of the manifest")
    return {"num_files": len(files), "num_bytes": sum(entry["bytes"] for entry in files.values())}


def load_vectors(folder: Path) -> tuple[Any, Any]:
    """Return the recorded inputs (V, C, S, S) and outputs (V, K), float32, or raise `CheckError`."""
    numpy = importlib.import_module("numpy")
    try:
        with (folder / "vectors.npz").open("rb") as file, numpy.load(file, allow_pickle=False) as archive:
            inputs, outputs = archive["inputs"], archive["outputs"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise CheckError(PARITY, f"vectors.npz cannot be used: {error}") from None
    if not numpy.isfinite(outputs).all():
        raise CheckError(PARITY, "vectors.npz holds NaN or infinite outputs, expected finite ones")
    if len(inputs) != len(outputs) or len(inputs) < max(BATCHES):
        counts = f"{len(inputs)} inputs and {len(outputs)} outputs"
        raise CheckError(PARITY, f"vectors.npz holds {counts}, expected equally many, at least {max(BATCHES)}")
    return inputs, outputs


def check_scaled(exit_code: int, what: str, diff_VK: Any, recorded_VK: Any, tolerance: float) -> list[float]:
    """Return the largest difference of a logit, plain and scaled, or raise `CheckError` where the scaled one fails."""
    diff_V = abs(diff_VK).max(axis=1)
    # Relative to an image's largest |logit| above 1, as rounding grows with it: near 40, one step is 4e-6 already.
    scale_V = abs(recorded_VK).max(axis=1).clip(1.0)
    scaled_V = diff_V / scale_V
    worst = scaled_V.argmax()
    if not scaled_V[worst] <= tolerance:  # written so that NaN fails
        found = f"scaled difference {scaled_V[worst]:.2g}, allowed {tolerance:.2g}"
        raise CheckError(exit_code, f"{what}: {found}, on an image of scale {scale_V[worst]:.3g}")
    return [float(diff_V.max()), float(scaled_V[worst])]


def check_outputs(run: Callable[[Any], Any], inputs: Any, outputs: Any, parity: JSON) -> JSON:
    """Compare what the model computes with the recorded outputs, and images alone with images in a batch.

    `run` maps (B, C, S, S) to (B, K). Allowed scaled differences are those of the manifest's `parity`: `tolerance` from
    the recorded outputs; `batch_tolerance` inside a batch, the same where it is not said. Raises `CheckError`, 3 or 4.
    """
    numpy = importlib.import_module("numpy")
    tolerance = float(parity["tolerance"])
    batch_tolerance = float(parity.get("batch_tolerance", tolerance))
    computed, found, between = {}, [], []
    for batch in BATCHES:
        result = numpy.concatenate([run(inputs[i : i + batch]) for i in range(0, len(inputs), batch)])
        if result.shape != outputs.shape:
            raise CheckError(PARITY, f"outputs at batch {batch} have shape {result.shape}, expected {outputs.shape}")
        computed[batch] = result.astype(numpy.float64)
        found.append(check_scaled(PARITY, f"outputs at batch {batch}", computed[batch] - outputs, outputs, tolerance))
        if num_wrong := int(numpy.sum(result.argmax(axis=1) != outputs.argmax(axis=1))):
            raise CheckError(PARITY, f"{num_wrong} of {len(inputs)} images get another class at batch {batch}")
    for batch in BATCHES:
        what = f"an image alone and inside a batch of {batch}"
        between.append(check_scaled(BATCH_INVARIANCE, what, computed[batch] - computed[1], outputs, batch_tolerance))
    worst, apart = (numpy.max(diffs, axis=0).tolist() for diffs in (found, between))
    asked = {"batches": list(BATCHES), "tolerance": tolerance, "batch_tolerance": batch_tolerance}
    recorded = {"max_abs_diff": worst[0], "max_scaled_diff": worst[1], "argmax_agreement": 1.0}
    alone = {"batch_invariance_max_abs_diff": apart[0], "batch_invariance_max_scaled_diff": apart[1]}
    return {"num_inputs": len(inputs), **asked, **recorded, **alone}


def check_bundle(folder: Path, report: JSON, threads: int, seconds: float | None, protocol: Protocol = QUICK) -> None:
    """Add what each check finds to `report` until one raises `CheckError`; time the model unless `seconds` is None."""
    manifest = read_manifest(folder)
    report["arch_id"] = manifest.get("arch_id")
    report["files"] = check_files(folder, manifest["files"])
    try:
        report["environment"] = environment(threads)
        inputs, outputs = load_vectors(folder)
        start = time.perf_counter_ns()
        session = open_session(str(folder / "model.onnx"), threads)
        load_ms = (time.perf_counter_ns() - start) / 1e6
        run_once = bind(session, inputs[:1])
        first_run_ms = time_visit(run_once, 1, 0.0, 0.0)[0] / 1e6
        report["parity"] = check_outputs(lambda x: bind(session, x)(), inputs, outputs, manifest["parity"])
    except ImportError as error:
        name = error.name or "onnxruntime"
        raise CheckError(USAGE, f"{name} cannot be imported; run: pip install numpy onnxruntime") from None
    except runtime_errors() as error:
        what = first_line(error).replace(str(folder) + os.sep, "")
        raise CheckError(PARITY, f"onnxruntime cannot run model.onnx: {what}") from None
    if seconds is not None:
        report["latency"] = measure_latency(run_once, protocol._replace(min_seconds=seconds))
        report["latency"].update(load_ms=load_ms, first_run_ms=first_run_ms)


def lines(report: JSON) -> Iterator[str]:
    """Yield the report as short lines of text."""
    if "files" in report:
        yield f"files     {report['files']['num_files']} unchanged"
    if "parity" in report:
        parity = report["parity"]
        off_by = f"scaled difference {parity['max_scaled_diff']:.2g}, allowed {parity['tolerance']:.2g}"
        yield f"parity    {parity['num_inputs']} images, batch 1, 3, 8: {off_by}"
    if (latency := report.get("latency")) is not None:
        found, stable = latency["statistics"], latency["stability"]
        names = [name for name in ("min", "p10", "p50", "p90", "p90_bound") if found[name + "_ms"] is not None]
        values = "  ".join(f"{name} {found[name + '_ms']:.4g}" for name in names)
        yield f"latency   {values} ms, {found['num_runs']} runs at batch 1"
        apart = f"p10 differs by {max(stable['disagreement'], stable['drift']):.1%} between parts of the session"
        yield f"noise     {stable['verdict']}: {apart}, by {stable['spread']:.1%} between visits"
        yield f"start     load {latency['load_ms']:.1f} ms, first run {latency['first_run_ms']:.2f} ms"
    if (where := report.get("environment")) is not None:
        yield f"device    {where['device'] or where['cpu']}, {where['cores']} cores, threads used: {where['threads']}"
    yield "PASS" if report["exit_code"] == OK else f"FAIL: {report['reason']}"


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code. Side effects: Prints the report on standard output."""
    parser = argparse.ArgumentParser(prog="run.py", description="Check and time this bundle on this device.")
    here = Path(__file__).resolve().parent
    parser.add_argument("folder", nargs="?", type=Path, default=here, help="the bundle (default: where this file is)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--threads", type=int, default=1, help="threads of the runtime (default 1)")
    parser.add_argument("--protocol", choices=PROTOCOLS, default="quick", help="full takes a minute (default quick)")
    parser.add_argument("--seconds", type=float, help="time for at least this long (default: quick 5, full 60)")
    parser.add_argument("--skip-latency", action="store_true", help="check only")
    options = parser.parse_args(arguments)
    protocol = PROTOCOLS[options.protocol]
    seconds = protocol.min_seconds if options.seconds is None else options.seconds
    if options.threads < 1 or not 0 < seconds <= protocol.max_seconds:
        parser.error(f"--threads must be at least 1; --seconds above 0 and at most {protocol.max_seconds:g}")
    report: JSON = {"schema": 1, "exit_code": OK, "reason": None}
    try:
        check_bundle(options.folder, report, options.threads, None if options.skip_latency else seconds, protocol)
    except CheckError as error:
        report.update(exit_code=error.exit_code, reason=str(error))
    print(json.dumps(report, indent=2, allow_nan=False) if options.json else "\n".join(lines(report)))
    return int(report["exit_code"])


if __name__ == "__main__":
    sys.exit(main())
