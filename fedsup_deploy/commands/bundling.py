"""One bundle of a device: its variants written and gated, its manifest drafted, its model measured. Imports torch."""

import dataclasses
import functools
import importlib.metadata
import json
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import numpy as np

from fedsup_deploy import files
from fedsup_deploy.artifact.manifest import SCHEMA, LimitRecord, ManifestDraft, RefinementRecord
from fedsup_deploy.artifact.store import ModelWriter, Vectors, WrittenFiles, write_bundle
from fedsup_deploy.artifact.variants import Int8Gate, ParityGate, PredictedLatency, RanBy
from fedsup_deploy.commands import limits
from fedsup_deploy.commands.exported_bundle import ExportedBundle, exported_bundle
from fedsup_deploy.commands.preparing import Prepared
from fedsup_deploy.commands.quantizing import QuantizedNetwork, Quantizer, with_int8
from fedsup_deploy.commands.timing_here import BothTimed, HeldLimit, measured_here, time_both
from fedsup_deploy.config.device import Int8Scheme
from fedsup_deploy.device.building.measurements import is_of_this_machine
from fedsup_deploy.device.predictor import predict_interval, predictor_for
from fedsup_deploy.device.profile import DeviceProfile
from fedsup_deploy.errors import GateError, InfeasibleError
from fedsup_deploy.export.exporter import Exporter, batches_for, counted_in, is_static, layout_of
from fedsup_deploy.export.int8_gate import held_to, with_speed
from fedsup_deploy.export.parity import check_parity
from fedsup_deploy.export.referee import check_macs
from fedsup_deploy.processor import processor
from fedsup_deploy.runs import run as runs
from fedsup_deploy.runs.run import Run
from fedsup_deploy.searchers.prices import Prices
from fedsup_deploy.searchers.pricing import Target, price, price_network
from fedsup_deploy.searchers.recording import profile_record
from fedsup_deploy.searchers.result import DeviceResult
from fedsup_deploy.space import cost
from fedsup_deploy.space.architecture import Architecture
from fedsup_deploy.variant import MAIN, MAIN_INT8, Variant

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

    @property
    def held(self) -> HeldLimit | None:
        """The limit on latency that the search kept; None where there is none."""
        limit_ms = None if self.found is None else self.found.limits.get("latency_ms")
        return None if limit_ms is None else HeldLimit(limit_ms, self.target.held.percentile)


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


def bundle_folder(out: Path, profile: DeviceProfile, arch_id: str) -> Path:
    """Return the place of a bundle below the folder of all."""
    return out / profile.name / arch_id


@dataclasses.dataclass(frozen=True)
class _Passed:
    """What has passed its gates for a bundle.

    Args:
        wanted: The variants.
        int8: The int8 form, where there is one.
        left_out: Why others have not passed, by name.
        both: What both files take, where this machine is the device.
    """

    wanted: Wanted
    int8: QuantizedNetwork | None = None
    left_out: Mapping[str, str] = dataclasses.field(default_factory=dict)
    both: BothTimed | None = None


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
        passed = self._passed(order, wanted)
        wanted, int8 = passed.wanted, passed.int8
        writers = [
            ModelWriter(
                variant,
                functools.partial(self._write, variant, exporter, order, its),
                ready.accuracy.recalibrated if its is None else its.accuracy,
                predicted if variant.precision == profile.precision else None,
                RanBy(name=exporter.runtime, version=importlib.metadata.version(exporter.runtime)),
                functools.partial(counted_in, exporter),
                layout_of(exporter),
            )
            for variant, exporter in wanted.items()
            for its in [int8 if variant.precision == "int8" else None]
        ]

        def gate(at: Path, written: WrittenFiles, vectors: Vectors) -> dict[str, ParityGate | Int8Gate]:
            images = np.concatenate([vectors.inputs_VCSS, ready.held_out.inputs_VCSS])
            expected_NK = np.concatenate([vectors.outputs_VK, ready.held_out.outputs_VK])
            found: dict[str, ParityGate | Int8Gate] = {}
            for variant, exporter in wanted.items():
                if variant == MAIN_INT8 and int8 is not None:
                    found[variant.name] = int8.gate
                    continue
                name, model = variant.name, exporter.load(at / written[variant.name][0])
                batches = batches_for(exporter, is_asked=profile.accepts.is_static)
                if int8 is not None and variant.precision == "int8":
                    outputs = vectors.outputs_VK, int8.outputs_VK
                    found[name] = held_to(int8.gate, name, model, vectors.inputs_VCSS, outputs, batches)
                else:
                    allowed = (exporter.tolerance, exporter.tolerance)
                    found |= check_parity(expected_NK, {name: model}, images, batches, *allowed)
            return found

        manifest = write_bundle(
            folder,
            self._draft(order, ready, passed),
            writers,
            with_int8(ready.vectors, int8),
            gate,
            lambda at: measured_here(at, profile, order.pick.held, passed.both),
        )
        return exported_bundle(manifest, folder, order.pick.target)

    def _passed(self, order: BundleOrder, wanted: Wanted) -> _Passed:
        """Return the variants that have passed their gates, the int8 form among them, and why others have not.

        Raises:
            GateError: The one that the profile is about has not.
        """
        asked = [variant for variant in wanted if variant.precision == "int8"]
        if not asked:
            return _Passed(wanted)
        both, found = None, self._quantizers[order.arch_id].quantize(order.profile.accepts.int8_scheme)
        if not isinstance(found, str) and is_of_this_machine(order.profile):
            both = self._timed(order, wanted, found)
            try:
                found = dataclasses.replace(found, gate=with_speed(found.gate, both.speed))
            except GateError as error:
                found = str(error)
        if not isinstance(found, str):
            return _Passed(wanted, found, both=both)
        if order.profile.precision == "int8":
            raise GateError(f"{order.arch_id} for {order.profile.name}: {found}")
        kept = {variant: exporter for variant, exporter in wanted.items() if variant not in asked}
        return _Passed(kept, None, dict.fromkeys((variant.name for variant in asked), found), both)

    def _timed(self, order: BundleOrder, wanted: Wanted, int8: QuantizedNetwork) -> BothTimed:
        """Return what both files of a bundle take on its device, which is this machine."""
        with tempfile.TemporaryDirectory() as folder:
            fp32_at, int8_at = (
                Path(folder) / self._write(variant, wanted[variant], order, network, Path(folder))[0]
                for variant, network in ((MAIN, None), (MAIN_INT8, int8))
            )
            return time_both(fp32_at, int8_at, order.profile)

    def _write(
        self, variant: Variant, exporter: Exporter, order: BundleOrder, int8: QuantizedNetwork | None, folder: Path
    ) -> tuple[str, ...]:
        is_for_one = is_static(exporter, is_asked=order.profile.accepts.is_static)
        key = (variant, order.arch_id, None if int8 is None else int8.gate.scheme, is_for_one)
        if key not in self._content:
            ready = self._prepared[order.arch_id]
            network = dataclasses.replace(ready.network if int8 is None else int8.network, is_static=is_for_one)
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

    def _draft(self, order: BundleOrder, ready: Prepared, passed: _Passed) -> ManifestDraft:
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
                "limits": self._limits(order, ready, passed),
                "left_out": passed.left_out,
                "objective": None if order.pick.found is None else order.pick.found.objective,
                "refinement": order.refinement,
                "lineage": {
                    "run": files.sha256(run.path / runs.CONFIG),
                    "space": files.sha256_of(run.space.to_dict()),
                    "statistics": ready.statistics_hash,
                    "profile": profile.profile_hash,
                    "search": order.pick.search_hash,
                },
                "versions": _versions(passed.wanted.values()),
                "processor": processor(),
            }
        )

    def _limits(self, order: BundleOrder, ready: Prepared, passed: _Passed) -> dict[str, LimitRecord]:
        """Return the limits of a bundle: of what is priced beforehand, and of the size of the file as it is.

        The file is that in the precision that the profile's latencies are of.

        Raises:
            InfeasibleError: The file exceeds a limit that it was priced to be within.
        """
        target, prices = order.pick.target, self._prices(order, ready)
        priced = limits.records(prices, target)
        variant = Variant(MAIN.format, order.profile.precision)
        int8 = passed.int8 if variant == MAIN_INT8 else None
        with tempfile.TemporaryDirectory() as folder:
            names = self._write(variant, passed.wanted[variant], order, int8, Path(folder))
            num_bytes = sum((Path(folder) / name).stat().st_size for name in names)
        found = limits.records(prices.with_file(num_bytes), target)
        exceeded = [name for name, record in found.items() if record.is_exceeded and not priced[name].is_exceeded]
        if exceeded and not self._over_limit:
            costs = ", ".join(f"{name} is {found[name].cost:.6g} (limit {found[name].limit:g})" for name in exceeded)
            raise InfeasibleError(
                f"{order.arch_id}: its file exceeds limits of {order.profile.name}: {costs}: it holds names of "
                "classes and more, which no search counts; search with a lower limit, or export it --over-limit"
            )
        return found

    def _prices(self, order: BundleOrder, ready: Prepared) -> Prices:
        """Return what the network of a bundle costs on its device."""
        space, pick = self._run.space, order.pick
        if order.refinement is None:
            return price(space, space.encode(pick.architecture)[None], [pick.target])[0]
        assert ready.costs.layers.plan is not None, "a trimmed network is a plan"
        return price_network(ready.costs.layers.plan, pick.target)


def _versions(exporters: Iterable[Exporter]) -> dict[str, str]:
    """Return the versions of the packages that make a bundle, those among them that only its formats need."""
    needed = sorted({library for exporter in exporters for library in exporter.needs})
    return {name: importlib.metadata.version(name) for name in (*_PACKAGES, *needed)}


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
