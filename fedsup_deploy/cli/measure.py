"""`fedsup-deploy measure`."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fedsup_deploy.cli import engine_page, options
from fedsup_deploy.cli.commands import Command
from fedsup_deploy.cli.output import Output
from fedsup_deploy.cli.remote import remote_options, take_access
from fedsup_deploy.errors import SlowError
from fedsup_deploy.ondevice.latency_statistics import PERCENTILES

if TYPE_CHECKING:
    from fedsup_deploy.artifact.measured import LimitCheck
    from fedsup_deploy.cli.tables import Page, Row
    from fedsup_deploy.commands.measure import MeasuredModel
    from fedsup_deploy.device.measure import ComparedLatency
    from fedsup_deploy.ondevice.records import StabilityRecord, Statistics


@click.command("measure", cls=Command)
@click.argument("path", metavar="BUNDLE|MODEL", type=options.OLD_PATH)
@click.option(
    "--threads", type=click.IntRange(min=1), default=1, show_default=True, metavar="N", help="Threads of the runtime."
)
@click.option(
    "--protocol",
    type=click.Choice(["quick", "full"]),
    default="quick",
    show_default=True,
    help="quick takes some seconds; full a minute or more, and bounds p90.",
)
@click.option("--ruler", type=options.OLD_FILE, metavar="MODEL", help="An .onnx file to compare with, in turns.")
@click.option(
    "--images",
    type=options.OLD_PATH,
    metavar="FILE|FOLDER",
    help="Pictures: time decoding and preparing them for a bundle, apart from its network.",
)
@click.option("--save-to-profile", "can_save", is_flag=True, help="The profile of a bundle keeps the result.")
@click.option(
    "--profile",
    type=options.OLD_FILE,
    metavar="FILE",
    help="With --save-to-profile: that profile's file.  [default: profiles/NAME.yaml]",
)
@click.option(
    "--out",
    type=options.NEW_PATH,
    metavar="FILE",
    help="Keeps what was measured of a bundle that cannot be written.  [default: its measured.json]",
)
@click.option(
    "--fail-above",
    type=float,
    callback=options.positive,
    metavar="MS",
    help="Exit code 11 if it takes longer. The result is kept all the same.",
)
@click.option(
    "--percentile",
    type=click.Choice(list(PERCENTILES)),
    help="With --fail-above: which percentile of the latency.  [default: p50]",
)
@remote_options
@click.option(
    "--trtexec",
    type=options.OLD_FILE_OR_STDIN,
    metavar="LOG",
    help="What trtexec printed about an engine of the bundle; - is standard input.",
)
@click.option(
    "--outputs",
    type=options.OLD_FILE,
    metavar="FILE",
    help="With --trtexec: what --exportOutput wrote for recorded inputs.",
)
@click.pass_obj
def command(output: Output, /, path: Path, threads: int, protocol: str, out: Path | None, **more: Any) -> None:
    """Time a bundle or an ONNX model, on this machine or another.

    A bundle is checked first, and keeps the result in measured.json. Its int8 file is timed in turns with its fp32
    file. With --trtexec nothing is timed: kept is what TensorRT's trtexec said on the device, of an engine for its GPU.

    Exit code 11: it takes longer than --fail-above; of a bundle its file in the number format of its profile.
    """
    from fedsup_deploy.commands.measure import Keeping, Saving, measure, measure_on

    if _is_of_an_engine(log := more.pop("trtexec"), outputs := more.pop("outputs")):
        from fedsup_deploy.commands.measure_engine import measure_engine

        with output.progress():
            recorded = measure_engine(path, log, outputs, out=out)
        output.emit(recorded, engine_page.page)
        return
    can_save, profile, images = (more.pop(name) for name in ("can_save", "profile", "images"))
    limit_ms, percentile = more.pop("fail_above"), more.pop("percentile")
    if percentile is not None and limit_ms is None:
        raise click.UsageError("--percentile says what --fail-above is about; add it, or leave --percentile out")
    if profile is not None and not can_save:
        raise click.UsageError("--profile names what --save-to-profile writes to; add it, or leave --profile out")
    keeping = Keeping(out, Saving(profile) if can_save else None)
    access, ruler = take_access(more), more.pop("ruler")
    if access is not None and ruler is not None:
        raise click.UsageError("--ruler compares on this machine only; leave it out, or --on")
    with output.progress() as listeners:
        if access is None:
            result = measure(path, threads, protocol, listeners, ruler=ruler, images=images, keeping=keeping)
        else:
            result = measure_on(path, access, threads, protocol, listeners, images=images, keeping=keeping)
    if limit_ms is not None:
        result = result.held_to(limit_ms, percentile or "p50")
    output.emit(result, _table)
    if limit_ms is not None:
        _end_if_slow(result.fail_above)


def _end_if_slow(found: "LimitCheck | None") -> None:
    """End with the exit code of what is too slow, if it is."""
    if found is None or found.verdict == "met":
        return
    words = "by less than the measurement is sure of" if found.verdict == "undecided" else "beyond its noise"
    click.echo(
        f"error: {found.percentile} is {found.measured_ms:.4g} ms, above {found.limit_ms:g} ms, {words}", err=True
    )
    click.get_current_context().exit(SlowError.exit_code)


def _is_of_an_engine(log: Path | None, outputs: Path | None) -> bool:
    """Return whether an engine was timed elsewhere.

    Raises:
        UsageError: An option is given that is about timing here, or has no log to go with.
    """
    if log is None:
        if outputs is not None:
            raise click.UsageError("--outputs goes with what trtexec printed; add --trtexec LOG")
        return False
    context = click.get_current_context()
    given = (
        each
        for each in context.command.params
        if isinstance(each, click.Option)
        and each.expose_value
        and each.name not in {"trtexec", "outputs", "out"}
        and context.get_parameter_source(each.name or "") is click.core.ParameterSource.COMMANDLINE
    )
    for each in given:
        raise click.UsageError(f"{each.opts[0]} is about timing, and --trtexec about what was timed; leave one out")
    return True


def _table(result: "MeasuredModel") -> "Page":
    from fedsup_deploy.cli import tables
    from fedsup_deploy.ondevice.instruction_set import why_not_device

    reason = None if result.device is None else why_not_device(result.device)
    page = _latencies(result)
    return page if reason is None else tables.stacked(tables.text(reason), tables.text(""), page)


def _latencies(result: "MeasuredModel") -> "Page":
    from fedsup_deploy.cli import tables

    is_full = result.protocol["name"] == "full"
    row = _row(result.statistics, is_full=is_full)
    if result.int8 is None:
        return tables.titled(tables.rows([row]), *_lines(result))
    of_int8 = _row(result.int8["statistics"], is_full=is_full)
    return tables.titled(tables.rows([{"file": "fp32", **row}, {"file": "int8", **of_int8}]), *_lines(result))


def _row(found: "Statistics", *, is_full: bool) -> "Row":
    return {
        "min ms": found["min_ms"],
        "p10 ms": found["p10_ms"],
        "p50 ms": found["p50_ms"],
        "p90 ms": found["p90_ms"],
        **({"p90 bound ms": found["p90_bound_ms"]} if is_full else {}),
        "runs": found["num_runs"],
    }


def _lines(result: "MeasuredModel") -> Iterator[str]:
    """Yield what stands below the latencies."""
    from fedsup_deploy.cli.tables import cell
    from fedsup_deploy.ondevice.latency_statistics import speed_words
    from fedsup_deploy.ondevice.picture_timing import size_words, step_words

    yield f"once: load {cell(result.load_ms)} ms, first run {cell(result.first_run_ms)} ms, cold: no latency"
    yield f"memory: {cell(result.peak_rss_mib)} MiB, the most this process held"
    yield from _energy(result)
    if result.int8 is not None:
        may_be_device = result.device is None or result.device["may_be_here"]
        yield f"int8: {speed_words(result.int8['speed'], may_be_device=may_be_device)}"
    if result.pictures is not None:
        yield f"pictures: {size_words(result.pictures)}; before the network, by Pillow {result.pictures['pillow']}"
        yield f"decode: {step_words(result.pictures['decode'])}"
        yield f"prepare: {step_words(result.pictures['prepare'])}"
    if result.ruler is not None:
        yield _ruler(result.ruler)
    if result.is_recorded or result.out is not None:
        yield engine_page.kept_line(result.out)
    if result.saved_to is not None:
        is_stable = result.stability["verdict"] == "stable"
        use = "profile fit --saved can learn from it" if is_stable else "as it is unstable, profile fit leaves it out"
        yield f"saved to {result.saved_to}; {use}"
    if (limit := result.fail_above) is not None:
        yield f"{limit.percentile} at most {limit.limit_ms:g} ms: {limit.verdict}"
    if not (result.is_min_runs_met and result.is_min_duration_met):
        yield "too short: fewer runs or less time than the protocol wants"
    yield _verdict(result.stability)


def _energy(result: "MeasuredModel") -> Iterator[str]:
    """Yield what a sensor said, or why none did, and what is estimated."""
    from fedsup_deploy.cli.tables import cell
    from fedsup_deploy.ondevice.energy import energy_words

    if result.energy is not None or result.why_no_energy is not None:
        yield f"energy: {energy_words(result.energy, result.why_no_energy)}"
    if (estimate := result.energy_estimated) is not None:
        power = f"{cell(estimate.active_power_w)} W, which the profile states, x the median latency"
        yield f"energy: {cell(estimate.energy_mj)} mJ ESTIMATED as {power}; not measured"


def _verdict(stability: "StabilityRecord") -> str:
    apart = max(stability["disagreement"], stability["drift"])
    parts = f"differs by {apart:.1%} between parts of the session (stable: {stability['stable_within']:.0%})"
    visits = f"by {stability['spread']:.1%} between visits (stable: {stability['spread_within']:.0%})"
    return f"{stability['verdict']}: {stability['statistic']} {parts}, {visits}"


def _ruler(ruler: "ComparedLatency") -> str:
    from fedsup_deploy.cli.tables import cell

    kept = f"{ruler['num_visits_kept']} of {ruler['num_visits']} visits"
    verdict = ruler["stability"]["verdict"]
    return f"ratio to the ruler: {cell(ruler['ratio'])}, by {kept} during which it was steady; {verdict}"
