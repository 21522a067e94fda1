"""What a person reads of a TensorRT engine: for `measure --trtexec` and `inspect`."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedsup_deploy.artifact.engine import EngineTimes, MeasuredEngine
    from fedsup_deploy.cli.tables import Page, Row
    from fedsup_deploy.commands.measure_engine import RecordedEngine


def engine_line(engine: "MeasuredEngine") -> str:
    """Return an engine in a line."""
    unstable = ", unstable" if engine.is_unstable else ""
    compared = "outputs not compared"
    if engine.outputs is not None:
        compared = f"outputs within {engine.outputs.max_scaled_diff:.1e} of fp32 on {engine.outputs.num_inputs} images"
    return f"{engine.latency.p50_ms:.4g} ms in the median on {engine.where}{unstable}; {compared}"


def kept_line(out: Path | None) -> str:
    """Return where a measurement of a bundle is kept: in a file, or None for the bundle."""
    return "recorded in the bundle's measured.json" if out is None else f"recorded in {out}, in the bundle's place"


def about_making(profile: str, command: str) -> "Iterator[str | Page]":
    """Yield the command with which a device makes an engine, below what it is."""
    from fedsup_deploy.cli import tables

    yield f"note: in a bundle's folder on a {profile}, this makes an engine for its GPU; never tried by us:"
    yield tables.whole(f"  {command}")


def page(result: "RecordedEngine") -> "Page":
    """Return what `measure --trtexec` prints."""
    from fedsup_deploy.cli import tables

    engine = result.engine
    parts = [("latency", engine.latency), ("of it the GPU", engine.gpu_compute)]
    rows = [_row(name, times) for name, times in parts if times is not None]
    return tables.titled(tables.rows(rows), *_lines(result))


def _row(name: str, times: "EngineTimes") -> "Row":
    return {
        "": name,
        "min ms": times.min_ms,
        "p50 ms": times.p50_ms,
        "p90 ms": times.p90_ms,
        "p99 ms": times.p99_ms,
        "max ms": times.max_ms,
    }


def _lines(result: "RecordedEngine") -> Iterator[str]:
    """Yield what stands below the latencies."""
    from fedsup_deploy.cli.tables import cell

    engine, limit = result.engine, result.limit
    yield f"engine on {engine.where}: {engine.command}"
    yield from (f"trtexec warns: {each}" for each in engine.warnings)
    if engine.input is None:
        yield "the log does not say what shape was timed: expected one image of this model"
        yield "that the engine is of this model, only the name of a file says"
    if result.build_on_device is None:
        yield f"profile {result.profile} has no build_on_device: the device is not known to have TensorRT"
    if limit is not None:
        measured = "unknown" if limit.measured_ms is None else f"{cell(limit.measured_ms)} ms"
        yield f"limit of {cell(limit.limit_ms)} ms ({limit.percentile}): {limit.verdict}, {measured}"
    if engine.outputs is not None:
        found = engine.outputs
        off = f"{found.max_scaled_diff:.1e} scaled, allowed {found.tolerance:g}"
        yield f"outputs: those of fp32 on {found.num_inputs} recorded inputs, off by at most {off}"
    yield kept_line(result.out)
    if result.to_compare:
        yield "outputs not compared: run in the bundle's folder on the device, then add --outputs outputs.json"
        yield from (f"  {command}" for command in result.to_compare)
