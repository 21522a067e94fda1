"""`fedsup-deploy export`: one verified bundle of model files per device profile. Imports torch."""

import dataclasses
import importlib.metadata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedsup_deploy import files, rng
from fedsup_deploy.artifact import runner
from fedsup_deploy.artifact.manifest import ManifestDraft
from fedsup_deploy.artifact.measured import MeasuredLatency
from fedsup_deploy.artifact.store import Vectors, write_bundle
from fedsup_deploy.device.measure import measure_onnx
from fedsup_deploy.device.predictor import predict_interval, predictor_for
from fedsup_deploy.device.profile import DeviceProfile, load_profile
from fedsup_deploy.errors import ArtifactError, ConfigError
from fedsup_deploy.events import EventLog, Listener
from fedsup_deploy.export.exporter import Exporter, exporter_for
from fedsup_deploy.export.parity import check_parity
from fedsup_deploy.federated import statistics
from fedsup_deploy.federated.tasks import Engine
from fedsup_deploy.pipeline import runs
from fedsup_deploy.pipeline.federation import load_supernet, open_run_engine
from fedsup_deploy.pipeline.recalibration import calibrate, statistics_file
from fedsup_deploy.pipeline.runs import Run, open_run
from fedsup_deploy.recalibrate.fold import affines, fold
from fedsup_deploy.recalibrate.pooled import ChannelSums, PooledStatistics
from fedsup_deploy.searchers.recording import profile_record
from fedsup_deploy.searchers.result import load_result
from fedsup_deploy.space import cost
from fedsup_deploy.space.architecture import Architecture
from fedsup_deploy.supernet.model import Supernet
from fedsup_deploy.supernet.normalization import FixedAffine

_NUM_VECTORS = 32
_NUM_PARITY_IMAGES = 224
_PACKAGES = ("fedsup-deploy", "torch", "onnx", "onnxruntime", "onnxscript", "numpy")

Images = NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class ExportRequest:
    """What a user wants exported: the picks of a search, or one architecture of a run.

    Args:
        run: A finished run; None with `search`.
        architecture: `largest`, `smallest`, an arch_id or a file; None with `search`.
        search: A search.json; None with `run` and `architecture`.
        profiles: Shipped names or files of device profiles, or profiles; none with `search` means all it holds.
        formats: Registered exporters; none means those of each profile.
        precisions: Number formats; fp32.
        out: Folder of the bundles.
    """

    run: Path | None
    architecture: str | None
    search: Path | None
    profiles: Sequence[str | DeviceProfile]
    formats: Sequence[str]
    precisions: Sequence[str]
    out: Path


@dataclasses.dataclass(frozen=True)
class _Job:
    """One bundle to make."""

    profile: DeviceProfile
    architecture: Architecture
    search_hash: str | None


@dataclasses.dataclass(frozen=True)
class _Prepared:
    """One architecture, ready for any number of bundles."""

    module: torch.nn.Module
    reference: Callable[[Images], Images]
    vectors: Vectors
    parity_images: Images
    accuracy: dict[str, Any]
    statistics_hash: str


def export(request: ExportRequest, listeners: tuple[Listener, ...] = ()) -> dict[str, Any]:
    """Make the bundles.

    Args:
        request: What to export.
        listeners: Called with `calibration` and `export` events.

    Returns:
        `bundles`: for each its `folder`, `profile`, `arch_id`, `accuracy` and `accuracy_not_recalibrated`,
        `latency_ms_predicted` for the device and `latency_ms_measured_here`, and the `bytes` of each model file.

    Raises:
        ConfigError: A profile, format or architecture is unknown.
        ArtifactError: The run or search is missing, damaged, or they do not belong together.
        GateError: An exported file does not compute what the supernet computes; its bundle is not written.
        OutputError: The folder cannot be written.
    """
    run, jobs = _jobs(request)
    for job in jobs:
        _check_precisions(job.profile)
    exporters = {name: exporter_for(name) for job in jobs for name in _formats(request, job.profile)}
    files.check_writable(request.out)
    log = EventLog(None, listeners)
    supernet = load_supernet(run)
    distinct = {job.architecture.arch_id: job.architecture for job in jobs}
    with open_run_engine(run) as engine:
        prepared = {
            arch_id: _prepare(run, architecture, supernet, engine, log) for arch_id, architecture in distinct.items()
        }
    model_files = _ModelFiles(exporters, prepared)
    bundles = []
    for done, job in enumerate(jobs, start=1):
        bundles.append(_write(request, run, job, prepared[job.architecture.arch_id], model_files))
        log.emit("export", done=done, total=len(jobs), profile=job.profile.name)
    return {"bundles": bundles}


def _check_precisions(profile: DeviceProfile) -> None:
    """Fail if the profile wants number formats that nothing here can write: its predictions are about those."""
    unknown = [name for name in profile.precisions if name != "fp32"]
    if unknown:
        wanted = f"precisions: got {', '.join(unknown)}, but models are exported in fp32 only"
        raise ConfigError(f"profile {profile.name}: {wanted}; use a profile for fp32")


class _ModelFiles:
    """Exports each architecture to each format once, however many bundles hold the file."""

    def __init__(self, exporters: dict[str, Exporter], prepared: dict[str, _Prepared]) -> None:
        self._exporters = exporters
        self._prepared = prepared
        self._content: dict[tuple[str, str], bytes] = {}

    def writer(self, format_name: str, arch_id: str) -> Callable[[Path], None]:
        """Return what writes the model file of an architecture in one format."""

        def write(path: Path) -> None:
            key = (format_name, arch_id)
            if key not in self._content:
                ready = self._prepared[arch_id]
                example = torch.from_numpy(ready.vectors.inputs_VCSS[:2])
                self._exporters[format_name].export(ready.module, example, path)
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


def _jobs(request: ExportRequest) -> tuple[Run, list[_Job]]:
    profiles = [load_profile(item) if isinstance(item, str) else item for item in request.profiles]
    if request.search is None:
        if request.run is None or request.architecture is None or not profiles:
            raise ConfigError("export: got neither a search nor a run with an architecture and a profile")
        run = open_run(request.run)
        architecture = run.architecture(request.architecture)
        return run, [_Job(profile, architecture, None) for profile in profiles]
    found = load_result(request.search)
    run = _run_of(request.search, found.run.name, found.run.hash)
    by_name = {profile.name: profile for profile in profiles}
    jobs = []
    for result in found.results:
        if profiles and result.profile.name not in by_name:
            continue
        profile = by_name.get(result.profile.name) or load_profile(result.profile.name)
        if profile.profile_hash != result.profile.hash:
            raise ArtifactError(f"profile {profile.name} has changed since the search; search again")
        jobs.append(_Job(profile, result.picked.to_architecture(), files.sha256(request.search)))
    missing = by_name.keys() - {job.profile.name for job in jobs}
    if missing:
        raise ConfigError(f"{request.search} holds no result for profile {', '.join(sorted(missing))}")
    return run, jobs


def _run_of(search: Path, name: str, fingerprint: str) -> Run:
    """Return the run a search was made in: beside its file, or below `runs/`."""
    for folder in (search.parent, runs.RUNS / name):
        if (folder / runs.SUPERNET).is_file():
            run = open_run(folder)
            if run.fingerprint == fingerprint:
                return run
    raise ArtifactError(
        f"{search}: its run {name!r} is neither beside it nor below {runs.RUNS}/, or was trained again; search again"
    )


def _formats(request: ExportRequest, profile: DeviceProfile) -> list[str]:
    # The ONNX file is what the bundle's own runner checks, so every bundle has it.
    return list(dict.fromkeys(["onnx", *(request.formats or profile.formats)]))


def _prepare(run: Run, architecture: Architecture, supernet: Supernet, engine: Engine, log: EventLog) -> _Prepared:
    subnet = supernet.extract(architecture)
    schedule = run.config.calibration.schedule
    pooled = calibrate(run, architecture, subnet, schedule, engine, log)
    num_images = len(run.data.test)
    inherited = _inherited(run, architecture, supernet, engine, log)
    accuracy = {
        "dataset": run.config.data.dataset,
        "split": "test",
        "num_samples": num_images,
        "precision": "fp32",
        "recalibrated": statistics.evaluate(engine, architecture, subnet.weights, pooled, "test", num_images),
        "not_recalibrated": None
        if inherited is None
        else statistics.evaluate(engine, architecture, subnet.weights, inherited, "test", num_images),
    }
    normalizer = FixedAffine(affines(subnet.weights, subnet.normalization, pooled))

    def reference(images_BCHW: Images) -> Images:
        with torch.inference_mode():
            return supernet(torch.from_numpy(images_BCHW), architecture, normalizer).numpy()

    preprocessing = run.data.preprocessing.for_size(architecture.resolution)
    inputs = preprocessing.apply(_synthetic_images(run))
    held_out = preprocessing.apply(run.data.validation.images_NHWC[:_NUM_PARITY_IMAGES])
    vectors = Vectors(inputs, reference(inputs))
    statistics_hash = files.sha256(statistics_file(run, architecture, schedule))
    return _Prepared(fold(subnet, pooled), reference, vectors, held_out, accuracy, statistics_hash)


def _inherited(
    run: Run, architecture: Architecture, supernet: Supernet, engine: Engine, log: EventLog
) -> PooledStatistics | None:
    """Return the statistics a subnet would have without recalibration: those of the largest subnet, sliced.

    None where the largest has no such layer.
    """
    largest = run.space.largest
    whole = calibrate(run, largest, supernet.extract(largest), run.config.calibration.schedule, engine, log)
    norm_layers = supernet.layout.plan(architecture).norm_layers()
    if any(layer.name not in whole.layers for layer in norm_layers):
        return None
    return PooledStatistics(
        {layer.name: _leading(whole.layers[layer.name], layer.out_channels) for layer in norm_layers}
    )


def _leading(sums: ChannelSums, channels: int) -> ChannelSums:
    return ChannelSums(sums.count, sums.total_C[:channels], sums.squares_C[:channels])


def _synthetic_images(run: Run) -> NDArray[np.uint8]:
    """Return random images for a bundle's vectors: a bundle travels to every device, so it holds nobody's image.

    Half are noise of single pixels, half of large squares, so that slow and fast changes both occur.
    """
    shape = run.data.train.images_NHWC.shape[1:]
    generator = rng.generator(run.config.seed, "vectors")
    fine = generator.integers(0, 256, (_NUM_VECTORS // 2, *shape), dtype=np.uint8)
    coarse = generator.integers(0, 256, (_NUM_VECTORS // 2, 4, 4, shape[2]), dtype=np.uint8)
    rows, columns = (np.arange(side) * 4 // side for side in shape[:2])
    return np.concatenate([fine, coarse[:, rows][:, :, columns]])


def _write(request: ExportRequest, run: Run, job: _Job, ready: _Prepared, model_files: _ModelFiles) -> dict[str, Any]:
    arch_id = job.architecture.arch_id
    formats = _formats(request, job.profile)

    def gate(folder: Path, vectors: Vectors) -> dict[str, Any]:
        images = np.concatenate([vectors.inputs_VCSS, ready.parity_images])
        candidates = {name: model_files.load(name, folder) for name in formats}
        return check_parity(ready.reference, candidates, images).to_dict()

    folder = request.out / job.profile.name / arch_id
    manifest = write_bundle(
        folder,
        _draft(run, job, ready),
        {model_files.filename(name): model_files.writer(name, arch_id) for name in formats},
        ready.vectors,
        gate,
        lambda path: MeasuredLatency.model_validate(measure_onnx(path, protocol=runner.GLANCE)),
    )
    assert manifest.latency_measured is not None
    return {
        "profile": job.profile.name,
        "arch_id": arch_id,
        "folder": str(folder),
        "accuracy": manifest.accuracy.recalibrated,
        "accuracy_not_recalibrated": manifest.accuracy.not_recalibrated,
        "latency_ms_predicted": manifest.latency_predicted.value_ms,
        "latency_ms_measured_here": manifest.latency_measured.statistics.p50_ms,
        "measurement": manifest.latency_measured.stability.verdict,
        "parity_max_abs_diff": max(found.max_abs_diff for found in manifest.parity.formats.values()),
        "parity_max_scaled_diff": max(found.max_scaled_diff for found in manifest.parity.formats.values()),
        "bytes": {name: manifest.files[model_files.filename(name)].bytes for name in formats},
    }


def _draft(run: Run, job: _Job, ready: _Prepared) -> ManifestDraft:
    priced = cost.costs_of(run.space, [job.architecture])
    size, channels = job.architecture.resolution, run.space.in_channels
    tensor = {"dtype": "float32"}
    return ManifestDraft.model_validate(
        {
            "schema": 1,
            "arch_id": job.architecture.arch_id,
            "arch": job.architecture.to_dict(),
            "profile": profile_record(job.profile),
            "classes": run.data.train.classes,
            "preprocessing": run.data.preprocessing.for_size(size).to_dict(),
            "inputs": ({"name": "input", "shape": ("batch", channels, size, size), **tensor},),
            "outputs": ({"name": "logits", "shape": ("batch", run.space.num_classes), **tensor},),
            "accuracy": ready.accuracy,
            "costs": priced.row(0),
            "latency_predicted": _predicted(job.profile, priced),
            "lineage": {
                "run": files.sha256(run.path / runs.CONFIG),
                "space": files.sha256_of(run.space.to_dict()),
                "statistics": ready.statistics_hash,
                "profile": job.profile.profile_hash,
                "search": job.search_hash,
            },
            "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
        }
    )


def _predicted(profile: DeviceProfile, priced: cost.Costs) -> dict[str, Any]:
    latency_ms_N = predictor_for(profile).predict(priced.layers)
    interval = predict_interval(profile, latency_ms_N)
    return {
        "value_ms": float(latency_ms_N[0]),
        "interval_ms": None if interval is None else (float(interval[0][0]), float(interval[1][0])),
        "kind": profile.latency.kind,
        "provenance": profile.provenance_kinds,
    }
