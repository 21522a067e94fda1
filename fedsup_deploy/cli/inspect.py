"""`fedsup-deploy inspect`."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fedsup_deploy.cli import engine_page, index_page, options, resolution_page
from fedsup_deploy.cli.commands import Command
from fedsup_deploy.cli.output import Output

if TYPE_CHECKING:
    from fedsup_deploy.artifact.manifest import AccuracyRecord, LimitRecord, Manifest
    from fedsup_deploy.artifact.measured import MeasuredLatency, MeasuredPictures
    from fedsup_deploy.artifact.variants import Int8Gate, VariantRecord
    from fedsup_deploy.cli.tables import Page
    from fedsup_deploy.commands.inspect import DeviceFinding, Inspected
    from fedsup_deploy.commands.inspected_bundle import BundleFacts, BundleSignature


@click.command("inspect", cls=Command)
@click.argument("path", metavar="PATH|NAME", type=options.NEW_PATH)
@click.option(
    "--resolution",
    "sides",
    is_flag=False,
    flag_value="",
    callback=resolution_page.sides,
    metavar="[PX,PX,...]",
    help="Of a search space or a run: what its subnets cost at each of its resolutions, or at those named.",
)
@click.option(
    "--profile",
    "profiles",
    multiple=True,
    metavar="NAME|FILE",
    help="With --resolution: a device whose latency is predicted; may be repeated.",
)
@click.option(
    "--key",
    type=options.OLD_FILE,
    metavar="PUB",
    help="Of a bundle: the public key, in PEM, that has to have signed it.",
)
@click.pass_obj
def command(
    output: Output, path: Path, sides: tuple[int, ...] | None, profiles: tuple[str, ...], key: Path | None
) -> None:
    """Say what a file or folder of ours is and what made it.

    Or what a shipped search space, config or profile of that name is. What it says of itself: whether a bundle is
    unaltered is for `verify` to find out; with --key, whether its signature is valid. With --resolution: which
    resolutions to train for.
    """
    from fedsup_deploy.commands.inspect import inspect

    if sides is not None and key is not None:
        raise click.UsageError("--key is for a bundle, and --resolution for a search space or a run; leave one out")
    if sides is not None:
        from fedsup_deploy.commands.resolution import resolution_costs

        output.emit(resolution_costs(str(path), sides, profiles), resolution_page.page)
        return
    if profiles:
        raise click.UsageError("--profile is for what resolutions cost; add --resolution, or leave --profile out")

    with output.progress():
        result = inspect(path, key)
    output.emit(result, _page)


def _page(result: "Inspected") -> "Page":
    """Return all there is, but of a bundle what a person asks first."""
    from fedsup_deploy.cli import tables
    from fedsup_deploy.commands.inspect import ExportsFacts, ModelFacts, SearchFacts
    from fedsup_deploy.commands.inspected_bundle import BundleFacts

    about = result.about
    head: list[tuple[str, object]] = [("path", str(result.path)), ("kind", result.kind)]
    if isinstance(about, BundleFacts):
        return tables.titled(
            tables.fields([*head, *_bundle(about)]), *_making(about), "--json gives all, hashes included"
        )
    if isinstance(about, ExportsFacts):
        return index_page.page(tables.fields(head), about)
    if isinstance(about, SearchFacts):
        rows = tables.rows([_found(found) for found in about.results])
        return tables.stacked(
            tables.fields([*head, ("run", about.run), ("run_hash", about.run_hash)]), tables.text(""), rows
        )
    shown = result.to_dict()
    if isinstance(about, ModelFacts) and about.int8 is not None:
        shown["int8"] = str(about.int8)
    return tables.overview(shown)


def _bundle(about: "BundleFacts") -> "Iterator[tuple[str, object]]":
    """Yield names and values of fields."""
    manifest = about.manifest
    accuracy, costs, profile = manifest.accuracy, manifest.costs, manifest.profile
    yield "arch_id", manifest.arch_id
    yield "profile", profile.name
    yield "costs are", ", ".join(profile.provenance)
    where = f"on {accuracy.num_samples:,} {accuracy.split} images of {accuracy.dataset}"
    yield "accuracy", f"{options.share(accuracy.recalibrated, accuracy.recalibrated_interval)} {where}"
    if accuracy.not_recalibrated is not None:
        yield "not recalibrated", options.share(accuracy.not_recalibrated, accuracy.not_recalibrated_interval)
    yield "MACs, parameters", f"{costs.num_macs:,}, {costs.num_params:,}"
    yield "activations", f"{costs.peak_activation_bytes / 1024:.1f} KiB at most"
    for name, limit in manifest.limits.items():
        yield f"limit {name}", _limit(limit)
    if (dtype := manifest.preprocessing.get("pixel_dtype")) is not None:
        yield "images are", f"arrays of {dtype}"
    if manifest.is_static:
        yield "images at once", "1, in files of ONNX"
    yield "signed", _signature(about.signature)
    yield from _variants(manifest)
    if (refined := manifest.refinement) is not None:
        yield "trimmed from", f"{refined.source_arch_id}; the search picked {refined.pick_arch_id}"
    if (latency := about.measured.latency) is not None:
        may_be_device = latency.may_be_of(manifest.instruction_set)
        where = "" if may_be_device else ", not on the device"
        yield "measured since", f"{_latency(latency)}{where}"
        if (int8 := latency.int8) is not None:
            yield "int8 since", f"{_latency(int8)}; {int8.speed.words(may_be_device=may_be_device)}"
        if latency.pictures is not None:
            yield "pictures since", f"{_pictures(latency.pictures)}{where}"
    if about.measured.engine is not None:
        yield "TensorRT engine", engine_page.engine_line(about.measured.engine)
    yield "made by", ", ".join(f"{name} {version}" for name, version in manifest.versions.items())


def _variants(manifest: "Manifest") -> "Iterator[tuple[str, object]]":
    for name, variant in manifest.models.items():
        yield name, _variant(variant)
        if variant.gate.kind == "int8":
            yield from _int8(variant, variant.gate, manifest.accuracy)
    for name, reason in manifest.left_out.items():
        yield f"no {name}", reason


def _signature(found: "BundleSignature | None") -> str:
    if found is None:
        return "no"
    version = "without a version" if found.version is None else f"version {found.version}"
    key = "a key that it does not name" if found.key_sha256 is None else f"the key with sha256 {found.key_sha256}"
    checked = "valid" if found.verdict == "valid" else "NOT CHECKED, which --key PUB does"
    return f"{version}, by {key}: {checked}"


def _making(about: "BundleFacts") -> "Iterator[str | Page]":
    """Yield the command that makes an engine on the device, where there is one."""
    device = about.manifest.device
    if device is not None and device.build_on_device is not None:
        yield from engine_page.about_making(about.manifest.profile.name, device.build_on_device)


def _limit(limit: "LimitRecord") -> str:
    from fedsup_deploy.cli.tables import cell
    from fedsup_deploy.searchers.prices import rounded_up

    percentile = "" if limit.percentile is None else f" ({limit.percentile})"
    exceeded = ", EXCEEDED" if limit.is_exceeded else ""
    return f"{cell(rounded_up(limit.cost))} of {cell(limit.limit)}{percentile}{exceeded}"


def _variant(variant: "VariantRecord") -> str:
    latency = variant.latency
    said = [f"{', '.join(variant.files)}, {variant.num_bytes / 1024:.0f} KiB"]
    if latency.predicted is not None:
        said.append(f"{latency.predicted.value_ms:.4g} ms predicted")
    if latency.measured is not None:
        said.append(f"when it was made {_latency(latency.measured)}")
    if variant.gate.kind == "int8" and variant.gate.speed is not None:
        said.append(f"{variant.gate.speed.times_as_fast:.3g} times as fast as fp32")
    return "; ".join(said)


def _int8(variant: "VariantRecord", gate: "Int8Gate", accuracy: "AccuracyRecord") -> "Iterator[tuple[str, object]]":
    yield "int8 scheme", str(gate.scheme)
    if variant.accuracy is not None:
        yield "int8 accuracy", f"{options.share(variant.accuracy, None)} on the same {accuracy.num_samples:,} images"
    drop = options.points(gate.accuracy_drop, gate.accuracy_drop_interval)
    yield "int8 drop", f"{drop} against fp32 on {gate.num_images:,} {gate.split} images"


def _latency(measured: "MeasuredLatency") -> str:
    p50_ms, cpu = measured.statistics.p50_ms, measured.environment.get("cpu", "a machine")
    return f"{p50_ms:.4g} ms in the median on {cpu}, {measured.stability.verdict}"


def _pictures(found: "MeasuredPictures") -> str:
    decode, prepare = found.decode.statistics.p50_ms, found.prepare.statistics.p50_ms
    sizes = " to ".join(dict.fromkeys(map(str, (found.smallest, found.largest))))
    times = f"decode {decode:.4g} ms, prepare {prepare:.4g} ms in the median"
    return f"{times}, before the network; pictures: {found.num_pictures}, {sizes} pixels"


def _found(found: "DeviceFinding") -> dict[str, object]:
    """Return what was found for one device."""
    return {
        "profile": found.profile,
        "pick": found.pick,
        "method": found.method,
        "accuracy known of": found.num_evaluated,
        "certified best": found.certified,
        "percentile": None if found.percentile is None else str(found.percentile),
    }
