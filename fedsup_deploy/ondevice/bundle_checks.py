"""All checks of a bundle, in their order, and the measurement of its model: what a report of run.py holds."""

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Iterator, Optional

from fedsup_deploy.ondevice.bundle_files import MODEL, UNRUNNABLE, USAGE, CheckError, check_files
from fedsup_deploy.ondevice.bundle_outputs import check_outputs, gate_of, load_vectors, read_manifest
from fedsup_deploy.ondevice.inference import (
    bind,
    first_output,
    open_session,
    runtime_errors,
    why_not_imported,
    why_not_run,
)
from fedsup_deploy.ondevice.latency_statistics import NS_PER_MS
from fedsup_deploy.ondevice.machine import environment
from fedsup_deploy.ondevice.timing import QUICK, Protocol, first_run_ms, measure_latency, now_ns

if TYPE_CHECKING:
    from fedsup_deploy.ondevice.records import Report


def check_bundle(
    folder: Path, report: "Report", threads: int, seconds: Optional[float], protocol: Protocol = QUICK
) -> None:
    """Add what each check finds to `report` until one fails.

    Args:
        folder: The bundle.
        report: Gets `files`, and what `check_model` adds.
        threads: Threads of the runtime.
        seconds: The model is timed for at least this long; None does not time it.
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
    """Do the part of `check_bundle` that runs the model; its file is known to be unaltered.

    The report gets `arch_id`, `environment`, `parity` and, where the model is timed, `latency`.

    Raises:
        CheckError: A check did not pass.
    """
    manifest = read_manifest(folder)
    report["arch_id"] = manifest.get("arch_id")
    with refusing_what_cannot_run(folder):
        report["environment"] = environment(threads)
        inputs, outputs = load_vectors(folder, manifest)
        start_ns = now_ns()
        session = open_session(str(folder / MODEL), threads)
        load_ms = (now_ns() - start_ns) / NS_PER_MS
        run_once = bind(session, inputs[:1])
        cold_ms = first_run_ms(lambda: first_output(session, inputs[:1]))
        report["parity"] = check_outputs(
            lambda x_BCHW: first_output(session, x_BCHW), inputs, outputs, gate_of(manifest)
        )
    if seconds is not None:
        latency = measure_latency(run_once, protocol._replace(min_seconds=seconds))
        report["latency"] = {**latency, "load_ms": load_ms, "first_run_ms": cold_ms}


@contextlib.contextmanager
def refusing_what_cannot_run(folder: Path) -> Iterator[None]:
    """Turn what comes of running a bundle's model, or of libraries that it needs, into the check that did not pass."""
    try:
        yield
    except ImportError as error:
        raise CheckError(USAGE, why_not_imported(error)) from None
    except runtime_errors() as error:
        is_too_old, reason = why_not_run(error, str(folder / MODEL), MODEL)
        raise CheckError(USAGE if is_too_old else UNRUNNABLE, reason.replace(str(folder) + os.sep, "")) from None
