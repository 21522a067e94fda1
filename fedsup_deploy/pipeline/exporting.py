"""`fedsup-deploy export`: one verified bundle of model files per device profile. Imports torch."""

import contextlib
import dataclasses
import importlib.metadata
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedsup_deploy import files, places
from fedsup_deploy.artifact.manifest import ManifestDraft
from fedsup_deploy.artifact.measured import MeasuredLatency
from fedsup_deploy.artifact.store import ModelWriter, Vectors, write_bundle
from fedsup_deploy.device.building.measurements import is_of_this_machine, limit_check
from fedsup_deploy.device.measure import measure_onnx
from fedsup_deploy.device.predictor import predict_interval, predictor_for
from fedsup_deploy.device.profile import DeviceProfile, load_profile
from fedsup_deploy.errors import ArtifactError, ConfigError
from fedsup_deploy.events import EventLog, Listener
from fedsup_deploy.export.exporter import Exporter, exporter_for
from fedsup_deploy.export.parity import check_parity
from fedsup_deploy.federation.server.federation import Federation
from fedsup_deploy.ondevice import timing
from fedsup_deploy.pipeline import limits
from fedsup_deploy.pipeline.preparing import Images, Prepared, prepare, prepare_trimmed
from fedsup_deploy.pipeline.refining import Refinement, check_refinable, refine
from fedsup_deploy.pipeline.searching import target_for
from fedsup_deploy.runs import run as runs
from fedsup_deploy.runs.federation import load_supernet, open_run_federation
from fedsup_deploy.runs.run import Run, open_run
from fedsup_deploy.searchers.prices import Prices
from fedsup_deploy.searchers.pricing import Target, price, price_network
from fedsup_deploy.searchers.recording import profile_record
from fedsup_deploy.searchers.result import Candidate, DeviceResult, SearchedRun, load_result
from fedsup_deploy.space import cost
from fedsup_deploy.space.architecture import Architecture
from fedsup_deploy.supernet.model import Supernet

_PACKAGES = ("fedsup-deploy", "torch", "onnx", "onnxruntime", "numpy")


@dataclasses.dataclass(frozen=True)
class ExportRequest:
    """What a user wants exported: the picks of a search, or one architecture of a run.

    Args:
        run: A finished run; with `search` where that run is now, None if it is where the search says.
        architecture: `largest`, `smallest`, an arch_id or a file; None with `search`.
        search: A search.json; None with `run` and `architecture`.
        profiles: Shipped names or files of device profiles, or profiles; none with `search` means all it holds.
        formats: Registered exporters; none means those of each profile.
        precisions: Number formats; fp32.
        out: Folder of the bundles.
        refine: Whether to trim larger subnets to the limits as well, with `search`, and make a second bundle for a
            device where one of them is more accurate than its pick.
        over_limit: Whether to export a subnet that exceeds limits of a profile, too; its manifest says so.
    """

    run: Path | None
    architecture: str | None
    search: Path | None
    profiles: Sequence[str | DeviceProfile]
    formats: Sequence[str]
    precisions: Sequence[str]
    out: Path
    refine: bool = False
    over_limit: bool = False


@dataclasses.dataclass(frozen=True)
class _Job:
    """What one device gets, within which limits, and the search that says so."""

    target: Target
    architecture: Architecture
    search_hash: str | None = None
    found: DeviceResult | None = None

    @property
    def profile(self) -> DeviceProfile:
        """The device."""
        return self.target.profile


@dataclasses.dataclass(frozen=True)
class _Bundle:
    """One bundle to make; `refinement` is None where the network is a subnet of the search space."""

    job: _Job
    arch_id: str
    refinement: dict[str, Any] | None = None


def export(request: ExportRequest, listeners: tuple[Listener, ...] = ()) -> dict[str, Any]:
    """Make the bundles.

    Args:
        request: What to export.
        listeners: Called with `calibration` and `export` events.

    Returns:
        `bundles`: for each its `folder`, `profile`, `arch_id`, `accuracy` and `accuracy_not_recalibrated`,
        `latency_ms_predicted` for the device and `latency_ms_measured_here`, `latency_limit`: `met`, `not met` or
        `undecided` where the profile is about this machine, else None, the `exceeded_limits` by name, and the `bytes`
        of each model file. With `refine` also `refinements`: for each device what was tried, and as `bundle` its second
        bundle, or None.

    Raises:
        ConfigError: A profile, format or architecture is unknown, or nothing can be refined for a profile.
        ArtifactError: The run or search is missing, damaged, or they do not belong together.
        InfeasibleError: A subnet exceeds a limit of a profile, and `over_limit` is not asked for.
        GateError: An exported file does not compute what the supernet computes; its bundle is not written.
        OutputError: The folder cannot be written, or another process is writing one of the bundles.
    """
    run, jobs = _jobs(request)
    for job in jobs:
        _check_precisions(job.profile)
        if request.refine:
            check_refinable(job.profile)
        if not request.over_limit:
            limits.check(run.space, job.architecture, job.target)
    exporters = {name: exporter_for(name) for job in jobs for name in _formats(request, job.profile)}
    with contextlib.ExitStack() as stack:
        # In one order, so that of two commands for the same devices one gets all.
        for folder in sorted({_folder(request, job.profile, job.architecture.arch_id) for job in jobs}):
            stack.enter_context(places.hold(folder, advice=places.CHOOSE_OUT))
        return _export(request, run, jobs, exporters, EventLog(None, listeners))


def _export(
    request: ExportRequest, run: Run, jobs: Sequence[_Job], exporters: dict[str, Exporter], log: EventLog
) -> dict[str, Any]:
    """Make the bundles, whose places are held."""
    supernet = load_supernet(run)
    distinct = {job.architecture.arch_id: job.architecture for job in jobs}
    wanted = [_Bundle(job, job.architecture.arch_id) for job in jobs]
    with open_run_federation(run, log) as federation:
        prepared = {
            arch_id: prepare(run, architecture, supernet, federation, log) for arch_id, architecture in distinct.items()
        }
        refinements = [_refine(run, job, supernet, federation, log) for job in jobs] if request.refine else []
        for job, refinement in zip(jobs, refinements, strict=False):
            if (network := refinement.better) is not None:
                prepared[network.arch_id] = prepare_trimmed(run, network, federation)
                wanted.append(_Bundle(job, network.arch_id, refinement.record(network)))
    model_files = _ModelFiles(run, exporters, prepared)
    made = []
    for done, bundle in enumerate(wanted, start=1):
        made.append(_write(request, run, bundle, prepared[bundle.arch_id], model_files))
        log.emit("export", done=done, total=len(wanted), profile=bundle.job.profile.name)
    result: dict[str, Any] = {"bundles": made[: len(jobs)]}
    if request.refine:
        second = {document["profile"]: document for document in made[len(jobs) :]}
        result["refinements"] = [
            {**each.to_dict(), "bundle": second.get(each.target.profile.name)} for each in refinements
        ]
    return result


def _refine(run: Run, job: _Job, supernet: Supernet, federation: Federation, log: EventLog) -> Refinement:
    assert job.found is not None, "a refinement is asked for with a search"
    return refine(run, job.profile, job.found, job.architecture, supernet, federation, log)


def _check_precisions(profile: DeviceProfile) -> None:
    """Fail if the profile wants number formats that nothing here can write: its predictions are about those."""
    unknown = [name for name in profile.precisions if name != "fp32"]
    if unknown:
        wanted = f"precisions: got {', '.join(unknown)}, but models are exported in fp32 only"
        raise ConfigError(f"profile {profile.name}: {wanted}; use a profile for fp32")


class _ModelFiles:
    """Exports each network to each format once, however many bundles hold the file."""

    def __init__(self, run: Run, exporters: dict[str, Exporter], prepared: dict[str, Prepared]) -> None:
        self._exporters = exporters
        self._prepared = prepared
        self._facts = {arch_id: _facts(run, arch_id, ready) for arch_id, ready in prepared.items()}
        self._content: dict[tuple[str, str], bytes] = {}

    def writer(self, format_name: str, arch_id: str) -> Callable[[Path], None]:
        """Return what writes the model file of a network in one format."""

        def write(path: Path) -> None:
            key = (format_name, arch_id)
            if key not in self._content:
                self._exporters[format_name].export(self._prepared[arch_id].network, self._facts[arch_id], path)
                self._content[key] = path.read_bytes()
            else:
                files.write_bytes(path, self._content[key])

        return write

    def load(self, format_name: str, folder: Path) -> Callable[[Images], Images]:
        """Return the model of a file just written, in its own runtime."""
        exporter = self._exporters[format_name]
        return exporter.load(folder / exporter.filename)

    def filename(self, format_name: str) -> str:
        """Return the name of the format's file in a bundle."""
        return self._exporters[format_name].filename


def _facts(run: Run, arch_id: str, ready: Prepared) -> dict[str, str]:
    """Return what each model file of a network says of itself: the manifest's words."""
    classes, preprocessing = run.image_facts.classes, run.preprocessing.for_size(ready.resolution).to_dict()
    return {"arch_id": arch_id, "classes": json.dumps(classes), "preprocessing": json.dumps(preprocessing)}


def _jobs(request: ExportRequest) -> tuple[Run, list[_Job]]:
    profiles = [load_profile(item) if isinstance(item, str) else item for item in request.profiles]
    if request.search is None:
        if request.run is None or request.architecture is None or not profiles:
            raise ConfigError("export: got neither a search nor a run with an architecture and a profile")
        run = open_run(request.run)
        architecture = run.architecture(request.architecture)
        if request.refine:
            raise ConfigError("--refine: got a run and an architecture, expected a search, whose limits are to be met")
        return run, [_Job(target_for(profile, {}), architecture) for profile in profiles]
    found = load_result(request.search)
    run = _run_of(request.search, found.run, request.run)
    by_name = {profile.name: profile for profile in profiles}
    jobs = []
    for result in found.results:
        if profiles and result.profile.name not in by_name:
            continue
        profile = by_name.get(result.profile.name) or load_profile(result.profile.name)
        if profile.profile_hash != result.profile.hash:
            raise ArtifactError(f"profile {profile.name} has changed since the search; search again")
        chosen = found.chosen_for(result.profile.name)
        _check_costs(request.search, run, profile, chosen)
        target = target_for(profile, result.limits, result.risk)
        jobs.append(_Job(target, chosen.to_architecture(), files.sha256(request.search), result))
    missing = by_name.keys() - {job.profile.name for job in jobs}
    if missing:
        raise ConfigError(f"{request.search} holds no result for profile {', '.join(sorted(missing))}")
    return run, jobs


def _check_costs(search: Path, run: Run, profile: DeviceProfile, chosen: Candidate) -> None:
    """Fail if a candidate does not cost what the file of the search says: somebody changed it."""
    costs = cost.costs_of(run.space, [chosen.to_architecture()])
    latency_ms = float(predictor_for(profile).predict(costs.layers)[0])
    recorded = (chosen.num_macs, chosen.num_params, chosen.latency_ms_predicted)
    if recorded != (expected := (int(costs.num_macs[0]), int(costs.num_params[0]), latency_ms)):
        raise ArtifactError(
            f"{search}: {chosen.arch_id}: got MACs, parameters and ms {recorded}, expected {expected}; search again"
        )


def _run_of(search: Path, searched: SearchedRun, moved_to: Path | None) -> Run:
    """Return the run a search was made in.

    Args:
        search: The file of the search.
        searched: The run, as the file has it.
        moved_to: Where it is now; None if it is where the file says.

    Raises:
        ArtifactError: It is not there, or what is there is another one.
    """
    if moved_to is None and searched.path is None:
        raise ArtifactError(f"{search}: says not where its run {searched.name!r} is; name it with --run RUN")
    folder = Path(os.path.normpath(search.resolve().parent / (searched.path or "."))) if moved_to is None else moved_to
    if not (folder / runs.SUPERNET).is_file():
        raise ArtifactError(f"{search}: its run {searched.name!r} is not at {folder}; name it with --run RUN")
    run = open_run(folder)
    if run.fingerprint != searched.hash:
        raise ArtifactError(
            f"{search}: got another supernet at {folder} than that of its run {searched.name!r}, which was trained "
            "again or lies elsewhere; search again, or name the run with --run RUN"
        )
    return run


def _formats(request: ExportRequest, profile: DeviceProfile) -> list[str]:
    # The ONNX file is what the bundle's own runner checks, so every bundle has it.
    return list(dict.fromkeys(["onnx", *(request.formats or profile.formats)]))


def _folder(request: ExportRequest, profile: DeviceProfile, arch_id: str) -> Path:
    return request.out / profile.name / arch_id


def _write(
    request: ExportRequest, run: Run, bundle: _Bundle, ready: Prepared, model_files: _ModelFiles
) -> dict[str, Any]:
    arch_id, profile = bundle.arch_id, bundle.job.profile
    formats = _formats(request, profile)

    def gate(folder: Path, vectors: Vectors) -> dict[str, Any]:
        images = np.concatenate([vectors.inputs_VCSS, ready.parity_images])
        candidates = {name: model_files.load(name, folder) for name in formats}
        return check_parity(ready.reference, candidates, images).to_dict()

    folder = _folder(request, profile, arch_id)
    manifest = write_bundle(
        folder,
        _draft(run, bundle, ready),
        {name: ModelWriter(model_files.filename(name), model_files.writer(name, arch_id)) for name in formats},
        ready.vectors,
        gate,
        lambda path: _measured(path, bundle.job),
    )
    assert manifest.latency_measured is not None
    return {
        "profile": profile.name,
        "arch_id": arch_id,
        "folder": str(folder),
        "accuracy": manifest.accuracy.recalibrated,
        "accuracy_not_recalibrated": manifest.accuracy.not_recalibrated,
        "latency_ms_predicted": manifest.latency_predicted.value_ms,
        "latency_ms_measured_here": manifest.latency_measured.statistics.p50_ms,
        "measurement": manifest.latency_measured.stability.verdict,
        "exceeded_limits": list(manifest.exceeded_limits),
        "latency_limit": None if (limit := manifest.latency_measured.limit) is None else limit.verdict,
        "parity_max_abs_diff": max(found.max_abs_diff for found in manifest.parity.formats.values()),
        "parity_max_scaled_diff": max(found.max_scaled_diff for found in manifest.parity.formats.values()),
        "bytes": {name: manifest.models[name].bytes for name in formats},
    }


def _measured(path: Path, job: _Job) -> MeasuredLatency:
    """Return the latency on this machine: at a glance, or in earnest where it is the device the limit is about."""
    limit_ms = None if job.found is None else job.found.limits.get("latency_ms")
    if limit_ms is None or not is_of_this_machine(job.profile):
        return MeasuredLatency.model_validate(measure_onnx(path, protocol=timing.GLANCE))
    found = measure_onnx(path, threads=job.profile.runtime.threads, protocol=timing.QUICK)
    return MeasuredLatency.model_validate({**found, "limit": limit_check(limit_ms, found)})


def _draft(run: Run, bundle: _Bundle, ready: Prepared) -> ManifestDraft:
    profile, size, channels = bundle.job.profile, ready.resolution, run.space.in_channels
    tensor = {"dtype": "float32"}
    return ManifestDraft.model_validate(
        {
            "schema": 2,
            "arch_id": bundle.arch_id,
            "arch": ready.arch,
            "profile": profile_record(profile),
            "classes": run.image_facts.classes,
            "preprocessing": run.preprocessing.for_size(size).to_dict(),
            "inputs": ({"name": "input", "shape": ("batch", channels, size, size), **tensor},),
            "outputs": ({"name": "logits", "shape": ("batch", run.space.num_classes), **tensor},),
            "accuracy": ready.accuracy,
            "costs": ready.costs.row(0),
            "latency_predicted": _predicted(profile, ready.costs),
            "limits": limits.records(_prices(run, bundle, ready), bundle.job.target),
            "refinement": bundle.refinement,
            "lineage": {
                "run": files.sha256(run.path / runs.CONFIG),
                "space": files.sha256_of(run.space.to_dict()),
                "statistics": ready.statistics_hash,
                "profile": profile.profile_hash,
                "search": bundle.job.search_hash,
            },
            "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
        }
    )


def _prices(run: Run, bundle: _Bundle, ready: Prepared) -> Prices:
    """Return what the network of a bundle costs on its device."""
    if bundle.refinement is None:
        return price(run.space, run.space.encode(bundle.job.architecture)[None], [bundle.job.target])[0]
    assert ready.costs.layers.plan is not None, "a trimmed network is a plan"
    return price_network(ready.costs.layers.plan, bundle.job.target)


def _predicted(profile: DeviceProfile, priced: cost.Costs) -> dict[str, Any]:
    latency_ms_N = predictor_for(profile).predict(priced.layers)
    interval = predict_interval(profile, latency_ms_N)
    return {
        "value_ms": float(latency_ms_N[0]),
        "interval_ms": None if interval is None else (float(interval[0][0]), float(interval[1][0])),
        "kind": profile.latency.kind,
        "provenance": profile.provenance_kinds,
    }
