"""One bundle of a device: its variants written and gated, its manifest drafted, its model measured. Imports torch."""

import dataclasses
import functools
import importlib.metadata
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from fedsup_deploy import files
from fedsup_deploy.artifact.manifest import SCHEMA, LimitRecord, Manifest, ManifestDraft, RefinementRecord
from fedsup_deploy.artifact.measured import MeasuredLatency, PercentileRecord
from fedsup_deploy.artifact.store import ModelWriter, Vectors, WrittenFiles, write_bundle
from fedsup_deploy.artifact.variants import Int8Gate, ParityGate, PredictedLatency
from fedsup_deploy.commands import limits
from fedsup_deploy.commands.preparing import Prepared
from fedsup_deploy.commands.quantizing import QuantizedNetwork, Quantizer, with_int8
from fedsup_deploy.config.device import Int8Scheme, KnownBad, System
from fedsup_deploy.device.building.measurements import is_of_this_machine, limit_check
from fedsup_deploy.device.measure import measure_onnx
from fedsup_deploy.device.predictor import predict_interval, predictor_for
from fedsup_deploy.device.profile import DeviceProfile
from fedsup_deploy.errors import GateError, InfeasibleError
from fedsup_deploy.export.exporter import Exporter
from fedsup_deploy.export.parity import check_parity
from fedsup_deploy.export.referee import check_macs
from fedsup_deploy.ondevice import timing
from fedsup_deploy.ondevice.bundle_outputs import BATCHES
from fedsup_deploy.processor import processor
from fedsup_deploy.runs import run as runs
from fedsup_deploy.runs.run import Run
from fedsup_deploy.searchers.prices import Prices
from fedsup_deploy.searchers.pricing import Target, price, price_network
from fedsup_deploy.searchers.recording import percentile_record, profile_record
from fedsup_deploy.searchers.result import DeviceResult
from fedsup_deploy.space import cost
from fedsup_deploy.space.architecture import Architecture
from fedsup_deploy.variant import MAIN, Variant

_PACKAGES: Final = ("fedsup-deploy", "torch", "onnx", "onnxruntime", "numpy", "fvcore")

#: The variants of a bundle, and what writes each.
Wanted = Mapping[Variant, Exporter]


@dataclasses.dataclass(frozen=True)
class DevicePick:
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
class BundleOrder:
    """One bundle to make; `refinement` is None where the network is a subnet of the search space."""

    pick: DevicePick
    arch_id: str
    refinement: RefinementRecord | None = None

    @property
    def profile(self) -> DeviceProfile:
        """The device."""
        return self.pick.profile


@dataclasses.dataclass(frozen=True)
class ExportedBundle:
    """One bundle that was made.

    Args:
        profile: The device.
        arch_id: The network.
        folder: Where it is.
        split: Images that accuracies are shares of: `test`, or `held-out` by clients.
        num_images: How many.
        accuracy: Share of them classified correctly.
        accuracy_interval: Its 95 % interval.
        accuracy_not_recalibrated: The same with the supernet's own statistics; None where there are none.
        accuracy_not_recalibrated_interval: Its 95 % interval.
        latency_ms_predicted: For the device, in ms.
        percentile: Which percentile of latency a limit on it means.
        latency_ms_measured_here: Median on this machine, in ms.
        measurement: Whether parts of that measurement agree: `stable` or `unstable`.
        exceeded_limits: Names of the limits that it exceeds.
        latency_limit: `met`, `not met` or `undecided` where the profile is about this machine, else None.
        parity_max_abs_diff: Largest difference of a logit from the reference, over all variants of fp32.
        parity_max_scaled_diff: The same relative to the image's largest logit.
        bytes: Size of each variant.
        int8_accuracy: Share of the images that the int8 file classifies correctly; None where there is none.
        left_out: Why a variant that was asked for is not there, by its name.
        system: What the device has, as far as the profile knows.
        known_bad: Releases of its runtime that fail there, and that `run.py` runs nothing with.
    """

    profile: str
    arch_id: str
    folder: Path
    split: str
    num_images: int
    accuracy: float
    accuracy_interval: tuple[float, float]
    accuracy_not_recalibrated: float | None
    accuracy_not_recalibrated_interval: tuple[float, float] | None
    latency_ms_predicted: float
    percentile: PercentileRecord
    latency_ms_measured_here: float
    measurement: str
    exceeded_limits: tuple[str, ...]
    latency_limit: str | None
    parity_max_abs_diff: float
    parity_max_scaled_diff: float
    bytes: dict[str, int]
    int8_accuracy: float | None
    left_out: dict[str, str]
    system: System
    known_bad: tuple[KnownBad, ...]


def bundle_folder(out: Path, profile: DeviceProfile, arch_id: str) -> Path:
    """Return the place of a bundle below the folder of all."""
    return out / profile.name / arch_id


class BundleMaker:
    """Makes bundles of one run. Each network is exported to each variant once, however many bundles hold it.

    Args:
        run: The run.
        out: Folder of the bundles.
        prepared: The networks, by arch_id.
        quantizers: What makes their int8 forms, by arch_id.
        over_limit: Whether a bundle is made whatever limit its file exceeds.

    Raises:
        GateError: What a network is said to cost is not what it costs.
    """

    def __init__(
        self,
        run: Run,
        out: Path,
        prepared: Mapping[str, Prepared],
        quantizers: Mapping[str, Quantizer],
        *,
        over_limit: bool = False,
    ) -> None:
        self._run, self._out, self._over_limit = run, out, over_limit
        self._prepared, self._quantizers = prepared, quantizers
        self._content: dict[tuple[Variant, str, Int8Scheme | None, bool], dict[str, bytes]] = {}
        for arch_id, ready in prepared.items():
            check_macs(ready.network, int(ready.costs.num_macs[0]), arch_id)

    def make(self, order: BundleOrder, wanted: Wanted) -> ExportedBundle:
        """Write a bundle and return what is told of it.

        Args:
            order: Which.
            wanted: Its variants.

        Raises:
            InfeasibleError: Its file exceeds a limit on storage, by what the search could not count.
            GateError: A variant does not compute what the supernet computes, or int8 has not passed its gate where the
                profile is about it; the bundle is not written.
            FederationError: Too few clients have answered about int8.
            OutputError: The folder cannot be written.
        """
        ready, profile = self._prepared[order.arch_id], order.profile
        folder = bundle_folder(self._out, profile, order.arch_id)
        predicted = _predicted(profile, ready.costs)
        wanted, int8, left_out = self._passed(order, wanted)
        writers = [
            ModelWriter(
                variant,
                functools.partial(self._write, variant, exporter, order, its),
                ready.accuracy.recalibrated if its is None else its.accuracy,
                predicted if variant.precision == profile.precision else None,
            )
            for variant, exporter in wanted.items()
            for its in [int8 if variant.precision == "int8" else None]
        ]

        def gate(at: Path, written: WrittenFiles, vectors: Vectors) -> dict[str, ParityGate | Int8Gate]:
            images = np.concatenate([vectors.inputs_VCSS, ready.parity_images])
            found: dict[str, ParityGate | Int8Gate] = {}
            for variant, exporter in wanted.items():
                if variant.precision == "int8" and int8 is not None:
                    found[variant.name] = int8.gate
                else:
                    models = {variant.name: exporter.load(at / written[variant.name][0])}
                    batches = (1,) if profile.accepts.is_static and exporter.can_be_static else BATCHES
                    found |= check_parity(ready.reference, models, images, batches)
            return found

        manifest = write_bundle(
            folder,
            self._draft(order, ready, wanted, left_out),
            writers,
            with_int8(ready.vectors, int8),
            gate,
            lambda path: _measured(path, order.pick),
        )
        return _told(manifest, folder, order.pick.target)

    def _passed(self, order: BundleOrder, wanted: Wanted) -> tuple[Wanted, QuantizedNetwork | None, dict[str, str]]:
        """Return the variants that have passed their gates, the int8 form among them, and why others have not.

        Raises:
            GateError: The one that the profile is about has not.
        """
        asked = [variant for variant in wanted if variant.precision == "int8"]
        if not asked:
            return wanted, None, {}
        found = self._quantizers[order.arch_id].quantize(order.profile.accepts.int8_scheme)
        if not isinstance(found, str):
            return wanted, found, {}
        if order.profile.precision == "int8":
            raise GateError(f"{order.arch_id} for {order.profile.name}: {found}")
        kept = {variant: exporter for variant, exporter in wanted.items() if variant not in asked}
        return kept, None, dict.fromkeys((variant.name for variant in asked), found)

    def _write(
        self, variant: Variant, exporter: Exporter, order: BundleOrder, int8: QuantizedNetwork | None, folder: Path
    ) -> tuple[str, ...]:
        is_static = order.profile.accepts.is_static and exporter.can_be_static
        key = (variant, order.arch_id, None if int8 is None else int8.gate.scheme, is_static)
        if key not in self._content:
            ready = self._prepared[order.arch_id]
            network = dataclasses.replace(ready.network if int8 is None else int8.network, is_static=is_static)
            names = exporter.export(network, self._facts(order.arch_id, ready), folder)
            self._content[key] = {name: (folder / name).read_bytes() for name in names}
        else:
            for name, content in self._content[key].items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                files.write_bytes(folder / name, content)
        return tuple(self._content[key])

    def _facts(self, arch_id: str, ready: Prepared) -> dict[str, str]:
        """Return what each model file of a network says of itself: the manifest's words."""
        preprocessing = self._run.preprocessing.for_size(ready.resolution).to_dict()
        classes = json.dumps(self._run.image_facts.classes)
        return {"arch_id": arch_id, "classes": classes, "preprocessing": json.dumps(preprocessing)}

    def _draft(self, order: BundleOrder, ready: Prepared, wanted: Wanted, left_out: Mapping[str, str]) -> ManifestDraft:
        run, profile, size = self._run, order.profile, ready.resolution
        tensor, batch = {"dtype": "float32"}, 1 if profile.accepts.is_static else "batch"
        return ManifestDraft.model_validate(
            {
                "schema": SCHEMA,
                "arch_id": order.arch_id,
                "arch": ready.arch,
                "profile": profile_record(profile),
                "device": {
                    "runtime": profile.runtime.name,
                    "system": profile.system,
                    "known_bad": profile.known_bad,
                    "build_on_device": profile.build_on_device,
                },
                "classes": run.image_facts.classes,
                "preprocessing": run.preprocessing.for_size(size).to_dict(),
                "inputs": ({"name": "input", "shape": (batch, run.space.in_channels, size, size), **tensor},),
                "outputs": ({"name": "logits", "shape": (batch, run.space.num_classes), **tensor},),
                "accuracy": ready.accuracy.model_dump(),
                "costs": ready.costs.row(0),
                "limits": self._limits(order, ready, wanted),
                "left_out": left_out,
                "objective": None if order.pick.found is None else order.pick.found.objective,
                "refinement": order.refinement,
                "lineage": {
                    "run": files.sha256(run.path / runs.CONFIG),
                    "space": files.sha256_of(run.space.to_dict()),
                    "statistics": ready.statistics_hash,
                    "profile": profile.profile_hash,
                    "search": order.pick.search_hash,
                },
                "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
                "processor": processor(),
            }
        )

    def _limits(self, order: BundleOrder, ready: Prepared, wanted: Wanted) -> dict[str, LimitRecord]:
        """Return the limits of a bundle: of what is priced beforehand, and of the size of the file as it is.

        Raises:
            InfeasibleError: The file exceeds a limit that it was priced to be within.
        """
        target, prices = order.pick.target, self._prices(order, ready)
        priced = limits.records(prices, target)
        if order.profile.precision != MAIN.precision:
            return priced
        with tempfile.TemporaryDirectory() as folder:
            names = self._write(MAIN, wanted[MAIN], order, None, Path(folder))
            num_bytes = sum((Path(folder) / name).stat().st_size for name in names)
        found = limits.records(prices.with_file(num_bytes), target)
        exceeded = [name for name, record in found.items() if record.is_exceeded and not priced[name].is_exceeded]
        if exceeded and not self._over_limit:
            costs = ", ".join(f"{name} is {found[name].cost:.6g} (limit {found[name].limit:g})" for name in exceeded)
            raise InfeasibleError(
                f"{order.arch_id}: its file exceeds limits of {order.profile.name}: {costs}: it holds names of classes "
                "and more, which no search counts; search with a lower limit, or export it --over-limit"
            )
        return found

    def _prices(self, order: BundleOrder, ready: Prepared) -> Prices:
        """Return what the network of a bundle costs on its device."""
        space, pick = self._run.space, order.pick
        if order.refinement is None:
            return price(space, space.encode(pick.architecture)[None], [pick.target])[0]
        assert ready.costs.layers.plan is not None, "a trimmed network is a plan"
        return price_network(ready.costs.layers.plan, pick.target)


def _predicted(profile: DeviceProfile, priced: cost.Costs) -> PredictedLatency:
    latency_ms_N = predictor_for(profile).predict(priced.layers)
    interval = predict_interval(profile, latency_ms_N)
    document = {
        "value_ms": float(latency_ms_N[0]),
        "interval_ms": None if interval is None else (float(interval[0][0]), float(interval[1][0])),
        "kind": profile.latency.kind,
        "provenance": profile.provenance_kinds,
    }
    return PredictedLatency.model_validate(document)


def _measured(path: Path, pick: DevicePick) -> MeasuredLatency:
    """Return the latency on this machine: at a glance, or in earnest where it is the device the limit is about."""
    limit_ms = None if pick.found is None else pick.found.limits.get("latency_ms")
    if limit_ms is None or not is_of_this_machine(pick.profile):
        return MeasuredLatency.model_validate(measure_onnx(path, protocol=timing.GLANCE))
    found = measure_onnx(path, threads=pick.profile.runtime.threads, protocol=timing.QUICK)
    return MeasuredLatency.model_validate({**found, "limit": limit_check(limit_ms, pick.target.held.percentile, found)})


def _told(manifest: Manifest, folder: Path, target: Target) -> ExportedBundle:
    measured = manifest.main.latency.measured
    predicted = next(each.latency.predicted for each in manifest.models.values() if each.latency.predicted is not None)
    assert measured is not None, "every export measures"
    accuracy = manifest.accuracy
    assert accuracy.recalibrated_interval is not None, "every export counts"
    gates = [record.gate for record in manifest.models.values() if isinstance(record.gate, ParityGate)]
    return ExportedBundle(
        profile=manifest.profile.name,
        arch_id=manifest.arch_id,
        folder=folder,
        split=accuracy.split,
        num_images=accuracy.num_samples,
        accuracy=accuracy.recalibrated,
        accuracy_interval=accuracy.recalibrated_interval,
        accuracy_not_recalibrated=accuracy.not_recalibrated,
        accuracy_not_recalibrated_interval=accuracy.not_recalibrated_interval,
        latency_ms_predicted=predicted.value_ms,
        percentile=percentile_record(target.held),
        latency_ms_measured_here=measured.statistics.p50_ms,
        measurement=measured.stability.verdict,
        exceeded_limits=manifest.exceeded_limits,
        latency_limit=None if measured.limit is None else measured.limit.verdict,
        parity_max_abs_diff=max(gate.max_abs_diff for gate in gates),
        parity_max_scaled_diff=max(gate.max_scaled_diff for gate in gates),
        bytes={name: record.num_bytes for name, record in manifest.models.items()},
        int8_accuracy=next((each.accuracy for each in manifest.models.values() if each.precision == "int8"), None),
        left_out=manifest.left_out,
        system=target.profile.system,
        known_bad=target.profile.known_bad,
    )
