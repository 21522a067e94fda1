"""All checks of a bundle, in their order, and the measurement of its model: what a report of run.py holds."""

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Iterator, NamedTuple, Optional

from fedsup_deploy.ondevice.bundle_files import (
    INT8_MODEL,
    KNOWN_BAD,
    MODEL,
    UNRUNNABLE,
    USAGE,
    CheckError,
    check_files,
)
from fedsup_deploy.ondevice.bundle_outputs import (
    batches_of,
    check_int8_outputs,
    check_outputs,
    device_of,
    gate_of,
    int8_tolerance_of,
    known_bad_of,
    load_int8_outputs,
    load_vectors,
    read_manifest,
)
from fedsup_deploy.ondevice.inference import (
    RUNTIME,
    bind,
    first_output,
    open_session,
    runtime_errors,
    runtime_version,
    why_not_imported,
    why_not_run,
)
from fedsup_deploy.ondevice.known_bad import why_known_bad
from fedsup_deploy.ondevice.latency_statistics import NS_PER_MS
from fedsup_deploy.ondevice.machine import environment
from fedsup_deploy.ondevice.model_versions import least_release
from fedsup_deploy.ondevice.timing import QUICK, Protocol, Run, first_run_ms, measure_both, measure_latency, now_ns

if TYPE_CHECKING:
    from fedsup_deploy.ondevice.manifest_records import ManifestRecord
    from fedsup_deploy.ondevice.records import (
        DeviceHere,
        Floats,
        InferenceSession,
        Latency,
        Report,
        RuntimeRecord,
        Session,
    )


def check_bundle(
    folder: Path, report: "Report", threads: int, seconds: Optional[float], protocol: Protocol = QUICK
) -> None:
    """Add what each check finds to `report` until one fails.

    Args:
        folder: The bundle.
        report: Gets `files`, and what `check_model` adds.
        threads: Threads of the runtime.
        seconds: Each model is timed for at least this long; None times none.
        protocol: How it is timed otherwise.

    Raises:
        CheckError: A check did not pass.
    """
    sizes = check_files(folder)
    report["files"] = {"num_files": len(sizes), "num_bytes": sum(sizes.values())}
    check_model(folder, report, threads, seconds, protocol)


def check_model(
    folder: Path, report: "Report", threads: int, seconds: Optional[float], protocol: Protocol = QUICK
) -> None:
    """Do the part of `check_bundle` that runs the models; their files are known to be unaltered.

    The report gets `arch_id`, `device`, `runtime`, `environment`, `parity` and, where models are timed, `latency`; of a
    bundle with an int8 file also `int8` and `int8_latency`: both files are timed in turns.

    Args:
        folder: As of `check_bundle`.
        report: As of `check_bundle`.
        threads: As of `check_bundle`.
        seconds: As of `check_bundle`.
        protocol: As of `check_bundle`.

    Raises:
        CheckError: A check did not pass.
    """
    manifest = read_manifest(folder)
    batches = batches_of(manifest["inputs"][0]["shape"])
    report["arch_id"] = manifest.get("arch_id")
    report["device"] = device_of(manifest)
    report["runtime"] = runtime_for(folder)
    refuse_known_bad(report["runtime"], report["device"], manifest)
    with refusing_what_cannot_run(folder, MODEL):
        report["environment"] = environment(threads)
        inputs, outputs = load_vectors(folder, manifest)
        fp32 = _load(folder / MODEL, threads, inputs)
        report["parity"] = check_outputs(
            lambda x_BCHW: first_output(fp32.session, x_BCHW), inputs, outputs, gate_of(manifest), batches
        )
    tolerance = int8_tolerance_of(manifest)
    if tolerance is None:
        if seconds is not None:
            report["latency"] = fp32.timed(measure_latency(fp32.run_once, protocol._replace(min_seconds=seconds)))
        return
    with refusing_what_cannot_run(folder, INT8_MODEL):
        int8 = _load(folder / INT8_MODEL, threads, inputs)
        recorded = load_int8_outputs(folder, manifest, len(inputs))
        report["int8"] = check_int8_outputs(
            lambda x_BCHW: first_output(int8.session, x_BCHW), inputs, recorded, tolerance, batches
        )
    if seconds is not None:
        of_fp32, of_int8, speed = measure_both(fp32.run_once, int8.run_once, protocol._replace(min_seconds=seconds))
        report["latency"] = fp32.timed(of_fp32)
        report["int8_latency"] = {**int8.timed(of_int8), "speed": speed}


class _Loaded(NamedTuple):
    """A model that was loaded and run once, bound to one of its recorded inputs."""

    session: "InferenceSession"
    run_once: Run
    load_ms: float
    first_run_ms: float

    def timed(self, found: "Session") -> "Latency":
        """Return what a session found, with what came before it."""
        return {**found, "load_ms": self.load_ms, "first_run_ms": self.first_run_ms}


def _load(path: Path, threads: int, inputs: "Floats") -> _Loaded:
    start_ns = now_ns()
    session = open_session(str(path), threads)
    load_ms = (now_ns() - start_ns) / NS_PER_MS
    cold_ms = first_run_ms(lambda: first_output(session, inputs[:1]))
    return _Loaded(session, bind(session, inputs[:1]), load_ms, cold_ms)


@contextlib.contextmanager
def refusing_what_cannot_run(folder: Path, name: str) -> Iterator[None]:
    """Turn what comes of running a bundle's model, or of libraries that it needs, into the check that did not pass.

    Args:
        folder: The bundle.
        name: The model's file.
    """
    try:
        yield
    except ImportError as error:
        raise CheckError(USAGE, why_not_imported(error)) from None
    except runtime_errors() as error:
        is_too_old, reason = why_not_run(error, str(folder / name), name)
        raise CheckError(USAGE if is_too_old else UNRUNNABLE, reason.replace(str(folder) + os.sep, "")) from None


def runtime_for(folder: Path, model: str = MODEL) -> "RuntimeRecord":
    """Return what would run a bundle's model, which is not imported yet: some releases end this process when they are.

    Raises:
        CheckError: It is not installed.
    """
    try:
        version = runtime_version()
    except ImportError as error:
        raise CheckError(USAGE, why_not_imported(error)) from None
    return {"name": RUNTIME, "version": version, "least_version": least_release(str(folder / model))}


def refuse_known_bad(runtime: "RuntimeRecord", device: "DeviceHere", manifest: "ManifestRecord") -> None:
    """Refuse a release that is known to fail on the bundle's device, where this machine may be that.

    Raises:
        CheckError: It is one.
    """
    if not device["may_be_here"]:
        return
    reason = why_known_bad(runtime["name"], runtime["version"], known_bad_of(manifest))
    if reason is not None:
        raise CheckError(KNOWN_BAD, reason)
