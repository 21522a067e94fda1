"""Check and time a bundle on the device that will run it: `python run.py` inside the bundle folder.

One file, copied into every bundle as `run.py`. It needs Python 3.8+, NumPy and onnxruntime, and nothing of
fedsup_deploy. It checks the hash of every file, then that the model computes the recorded outputs alone and inside a
batch, then times it. It reads only the bundle, writes no file, and reports no host name, user name or path.

The arithmetic of a measurement is here and only here; `fedsup_deploy.device.measure` imports it.

Exit codes: 0 all checks passed; 1 a file was altered; 2 wrong usage, or NumPy or onnxruntime is missing; 3 the outputs
are wrong; 4 the output of an image depends on its batch; 5 a file is missing.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import importlib
import json
import os
import platform
import sys
import time
import zipfile
from pathlib import Path
from typing import Any, Callable, Iterator

OK, ALTERED, USAGE, PARITY, BATCH_INVARIANCE, MISSING = range(6)

BATCHES = (1, 3, 8)
#: Halves of a session whose 10th percentiles differ by more than this make it unstable.
STABLE_WITHIN = 0.05


class CheckError(Exception):
    """A check that did not pass, with the exit code that says which."""

    def __init__(self, exit_code: int, reason: str) -> None:
        super().__init__(reason)
        self.exit_code = exit_code


def quantile(samples: list[int], share: float) -> float:
    """Return the value below which `share` of the samples lie, linear between neighbours (NumPy's default)."""
    ordered = sorted(samples)
    position = share * (len(ordered) - 1)
    lower = int(position)
    upper = min(lower + 1, len(ordered) - 1)
    return ordered[lower] + (position - lower) * (ordered[upper] - ordered[lower])


def summarize(samples_ns: list[int]) -> dict[str, Any]:
    """Return the run count, minimum, 10th, 50th and 90th percentile and mean of times in ns, in ms."""
    summary: dict[str, Any] = {"num_runs": len(samples_ns)}
    for name, share in (("min_ms", 0.0), ("p10_ms", 0.1), ("p50_ms", 0.5), ("p90_ms", 0.9)):
        summary[name] = quantile(samples_ns, share) / 1e6
    summary["mean_ms"] = sum(samples_ns) / len(samples_ns) / 1e6
    return summary


def stability(visits_ns: list[list[int]]) -> dict[str, Any]:
    """Return whether two halves of a session agree: the 10th percentile of the even visits and of the odd ones.

    A low percentile, because the slow tail on a shared machine says more about its neighbours than about the model.
    """
    even, odd = (quantile([ns for visit in visits_ns[i::2] for ns in visit], 0.1) for i in (0, 1))
    disagreement = abs(even - odd) / max(min(even, odd), 1.0)
    verdict = "stable" if disagreement <= STABLE_WITHIN else "unstable"
    return {"statistic": "p10", "disagreement": disagreement, "stable_within": STABLE_WITHIN, "verdict": verdict}


def time_visit(
    run_once: Callable[[], Any],
    min_runs: int,
    min_seconds: float,
    max_seconds: float,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> list[int]:
    """Return the time of each run in ns: until both minima are reached, or `max_seconds` are over.

    Side effects: Garbage collection is off meanwhile.
    """
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


def time_session(
    run_once: Callable[[], Any],
    min_runs: int = 200,
    min_seconds: float = 1.0,
    max_seconds: float = 60.0,
    num_visits: int = 10,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> list[list[int]]:
    """Return the times of a session in ns, visit by visit.

    Args:
        run_once: Runs the model once.
        min_runs: At least this many runs in all.
        min_seconds: At least this long in all.
        max_seconds: A slow model stops about here, even with fewer runs.
        num_visits: Parts of equal length, at least two, so that the halves of a session can be compared.
        clock: Returns ns.
    """
    runs, least_s, most_s = -(-min_runs // num_visits), min_seconds / num_visits, max_seconds / num_visits
    return [time_visit(run_once, runs, least_s, most_s, clock) for _ in range(num_visits)]


def measure_latency(
    run_once: Callable[[], Any],
    warm_up_runs: int = 50,
    warm_up_seconds: float = 0.5,
    min_runs: int = 200,
    min_seconds: float = 1.0,
    max_seconds: float = 60.0,
) -> dict[str, Any]:
    """Warm a model up, time it at batch 1, and return protocol, statistics and stability in JSON values."""
    warm_up = {"warm_up_runs": warm_up_runs, "warm_up_seconds": warm_up_seconds}
    limits = {"min_runs": min_runs, "min_seconds": min_seconds, "max_seconds": max_seconds}
    time_visit(run_once, warm_up_runs, warm_up_seconds, max_seconds / 10)
    visits_ns = time_session(run_once, min_runs, min_seconds, max_seconds)
    return {
        "protocol": {"batch": 1, **warm_up, **limits},
        "statistics": summarize([ns for visit in visits_ns for ns in visit]),
        "stability": stability(visits_ns),
    }


def peak_rss_mib() -> float | None:
    """Return the most memory this process ever held, in MiB; None where the system does not tell."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)


def environment(threads: int) -> dict[str, Any]:
    """Return what a latency depends on besides the model. Holds no host name, user name or path."""
    return {
        "device": _read("/proc/device-tree/model") or None,
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "cores_allowed": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or None,
        "temperature_c": _temperature_c(),
        "load_average_1m": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": platform.system(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "numpy": importlib.import_module("numpy").__version__,
        "onnxruntime": importlib.import_module("onnxruntime").__version__,
        "provider": "CPUExecutionProvider",
        "threads": threads,
    }


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        return ""


def _cpu_model() -> str:
    fields: dict[str, str] = {}
    for line in _read("/proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    # ARM names no model, only numbers that stand for one.
    arm = " ".join(f"{name} {fields[name]}" for name in ("CPU implementer", "CPU part") if name in fields)
    return fields.get("model name") or arm or platform.processor() or platform.machine()


def _temperature_c() -> float | None:
    readings = (_read(str(path)) for path in Path("/sys/class/thermal").glob("thermal_zone*/temp"))
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
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 4  # its errors arrive as exceptions
    return onnxruntime.InferenceSession(path, sess_options=options, providers=["CPUExecutionProvider"])


def bind(session: Any, x_BCHW: Any) -> Callable[[], Any]:
    """Return a function of no arguments that runs the session on `x_BCHW` and returns its first output."""
    feed, names = {session.get_inputs()[0].name: x_BCHW}, [session.get_outputs()[0].name]
    return lambda: session.run(names, feed)[0]


def read_manifest(folder: Path) -> dict[str, Any]:
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


def check_files(folder: Path, files: dict[str, Any]) -> dict[str, Any]:
    """Compare size and SHA-256 of every file with the manifest, or raise `CheckError`."""
    for name in files:
        if not (folder / name).is_file():
            raise CheckError(MISSING, f"{name} is missing; copy the bundle again")
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
    # An image's scale is its largest recorded |logit|, at least 1. Above 1 a tolerance is relative to it, because the
    # rounding of float32 grows with the logits: near 40, one step is 4e-6 already.
    scale_V = abs(recorded_VK).max(axis=1).clip(1.0)
    scaled_V = diff_V / scale_V
    worst = scaled_V.argmax()
    if not scaled_V[worst] <= tolerance:  # written so that NaN fails
        found = f"scaled difference {scaled_V[worst]:.2g}, allowed {tolerance:.2g}"
        raise CheckError(exit_code, f"{what}: {found}, on an image of scale {scale_V[worst]:.3g}")
    return [float(diff_V.max()), float(scaled_V[worst])]


def check_outputs(run: Callable[[Any], Any], inputs: Any, outputs: Any, parity: dict[str, Any]) -> dict[str, Any]:
    """Compare what the model computes with the recorded outputs, and images alone with images in a batch.

    Args:
        run: The model: (B, C, S, S) -> (B, K).
        inputs: (V, C, S, S), V >= 8.
        outputs: (V, K), the recorded outputs, finite.
        parity: Of the manifest: largest scaled difference allowed from them (`tolerance`) and between an image alone
            and inside a batch (`batch_tolerance`; the same where it is not said).

    Raises:
        CheckError: With code 3 or 4.
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
        num_wrong = int(numpy.sum(result.argmax(axis=1) != outputs.argmax(axis=1)))
        if num_wrong:
            raise CheckError(PARITY, f"{num_wrong} of {len(inputs)} images get another class at batch {batch}")
    for batch in BATCHES:
        what = f"an image alone and inside a batch of {batch}"
        between.append(check_scaled(BATCH_INVARIANCE, what, computed[batch] - computed[1], outputs, batch_tolerance))
    return {
        "batches": list(BATCHES),
        "num_inputs": len(inputs),
        "tolerance": tolerance,
        "batch_tolerance": batch_tolerance,
        "max_abs_diff": max(one[0] for one in found),
        "max_scaled_diff": max(one[1] for one in found),
        "argmax_agreement": 1.0,
        "batch_invariance_max_abs_diff": max(one[0] for one in between),
        "batch_invariance_max_scaled_diff": max(one[1] for one in between),
    }


def check_bundle(folder: Path, report: dict[str, Any], threads: int, seconds: float | None) -> None:
    """Run every check in order, add each result to `report` until one raises `CheckError`, and last time the model.

    It runs on `threads` threads and is timed for at least `seconds`, or not at all with None.
    """
    manifest = read_manifest(folder)
    report["arch_id"] = manifest.get("arch_id")
    report["files"] = check_files(folder, manifest["files"])
    try:
        report["environment"] = environment(threads)
    except ImportError as error:
        missing = error.name or "onnxruntime"
        raise CheckError(USAGE, f"{missing} cannot be imported; run: pip install numpy onnxruntime") from None
    inputs, outputs = load_vectors(folder)
    try:
        start = time.perf_counter_ns()
        session = open_session(str(folder / "model.onnx"), threads)
        load_ms = (time.perf_counter_ns() - start) / 1e6
        run_once = bind(session, inputs[:1])
        first_run_ms = time_visit(run_once, 1, 0.0, 0.0)[0] / 1e6
        report["parity"] = check_outputs(lambda x: bind(session, x)(), inputs, outputs, manifest["parity"])
    except runtime_errors() as error:
        what = first_line(error).replace(str(folder) + os.sep, "")
        raise CheckError(PARITY, f"onnxruntime cannot run model.onnx: {what}") from None
    if seconds is not None:
        latency = report["latency"] = measure_latency(run_once, min_seconds=seconds)
        latency.update(load_ms=load_ms, first_run_ms=first_run_ms, peak_rss_mib=peak_rss_mib())


def lines(report: dict[str, Any]) -> Iterator[str]:
    """Yield the report as short lines of text."""
    if "files" in report:
        yield f"files     {report['files']['num_files']} unchanged"
    if "parity" in report:
        parity = report["parity"]
        off_by = f"scaled difference {parity['max_scaled_diff']:.2g}, allowed {parity['tolerance']:.2g}"
        yield f"parity    {parity['num_inputs']} images, batch 1, 3, 8: {off_by}"
    if "latency" in report:
        latency, stable = report["latency"], report["latency"]["stability"]
        values = "  ".join(f"{name} {latency['statistics'][name + '_ms']:.4g}" for name in ("p10", "p50", "p90"))
        yield f"latency   {values} ms, {latency['statistics']['num_runs']} runs at batch 1"
        yield f"noise     {stable['verdict']}: p10 of two halves differs by {100 * stable['disagreement']:.1f} %"
        yield f"start     load {latency['load_ms']:.1f} ms, first run {latency['first_run_ms']:.2f} ms"
    if "environment" in report:
        where = report["environment"]
        yield f"device    {where['device'] or where['cpu']}, {where['cores']} cores, threads used: {where['threads']}"
    yield "PASS" if report["exit_code"] == OK else f"FAIL: {report['reason']}"


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code. Side effects: Prints the report on standard output."""
    parser = argparse.ArgumentParser(prog="run.py", description="Check and time this bundle on this device.")
    here = Path(__file__).resolve().parent
    parser.add_argument("folder", nargs="?", type=Path, default=here, help="the bundle (default: where this file is)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--threads", type=int, default=1, help="threads of the runtime (default 1)")
    parser.add_argument("--seconds", type=float, default=1.0, help="time for at least this long (default 1)")
    parser.add_argument("--skip-latency", action="store_true", help="check only")
    options = parser.parse_args(arguments)
    if options.threads < 1 or not 0 < options.seconds <= 50:
        parser.error("--threads must be at least 1; --seconds above 0 and at most 50")
    report: dict[str, Any] = {"schema": 1, "exit_code": OK, "reason": None}
    try:
        check_bundle(options.folder, report, options.threads, None if options.skip_latency else options.seconds)
    except CheckError as error:
        report.update(exit_code=error.exit_code, reason=str(error))
    print(json.dumps(report, indent=2, allow_nan=False) if options.json else "\n".join(lines(report)))
    return int(report["exit_code"])


if __name__ == "__main__":
    sys.exit(main())
