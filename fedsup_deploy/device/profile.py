"""Device profiles: limits, runtime and operation costs of a class of devices, and where every figure comes from.

Owns the schema of `profiles/*.yaml` and reads it. It never invents a figure: a cost without provenance is refused, and
a profile none of whose costs was measured on the device says so in every summary. Pure data; imports no torch.
"""

import functools
import operator
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import Field, JsonValue, ValidationInfo, create_model, field_validator, model_validator

from fedsup_deploy import files, registry, resources
from fedsup_deploy.config.device import Int8Scheme, KnownBad, System
from fedsup_deploy.config.load import load_yaml, validate
from fedsup_deploy.config.problems import misfit
from fedsup_deploy.config.section import Name, NotNegative, Positive, Section, Text
from fedsup_deploy.device import limits
from fedsup_deploy.device.acceptance import Accepts, figures_of
from fedsup_deploy.device.heldout import KnownError
from fedsup_deploy.device.latency import Latency, OpKind
from fedsup_deploy.device.percentiles import DEFAULT, HIGHER, PREDICTED, PercentileRatios, Percentiles
from fedsup_deploy.ondevice.inference import RUNTIME
from fedsup_deploy.ondevice.records import Percentile
from fedsup_deploy.variant import PRECISIONS, Dtype, Precision, Variant

Day = Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]


class DeviceFacts(Section):
    """The hardware."""

    soc: Text
    """System on a chip, or processor."""
    cpu: Text
    """Kind and clock of the cores the figures are about."""
    cores: int = Field(ge=1)
    """Cores of the device, whether or not the runtime uses them all."""
    memory_mib: int = Field(ge=1)
    """Main memory, in MiB."""


class Runtime(Section):
    """What runs the model there."""

    name: Text
    """Such as `onnxruntime`."""
    version: Text | None = None
    """Its version; null when nothing was measured with it."""
    provider: Text
    """The part of it that computes, such as `CPUExecutionProvider`."""
    threads: int = Field(ge=1)
    """Threads that share one inference."""
    dtype: Dtype
    """Element type of weights and activations."""
    power_mode: Text | None = None
    """Power or clock setting the figures are about; null when the device has none, or it is not known."""


class DefaultLimits(Section):
    """Default limits of a search for this device. Each is optional; options of a search override them."""

    latency_percentile: Percentile | None = None
    """Which percentile of latency a limit on it means; null is p50."""

    def given(self) -> dict[str, float]:
        """Return the limits there are, by name."""
        return {name: limit for name, limit in self if limit is not None and name in limits.TABLE}


if TYPE_CHECKING:
    ProfileLimits = DefaultLimits
else:
    # What a profile may limit stands in the table of limits and nowhere else.
    _LIMITS = {name: (Positive | None, None) for name, row in limits.TABLE.items() if row.in_profile}
    ProfileLimits = create_model("ProfileLimits", __base__=DefaultLimits, **_LIMITS)


class Calibration(Section):
    """From the latency model of another device to this one, fitted on networks timed here: a straight line, mostly."""

    scale: Positive
    """What predictions are multiplied with."""
    offset_us: NotNegative
    """Added to each prediction, in microseconds."""
    num_networks: int = Field(ge=1)
    """Networks it was fitted to."""
    donor: Text
    """Name of the profile that the latency model was taken from."""
    donor_hash: Text
    """SHA-256 of that profile's content."""
    op_scales: dict[OpKind, NotNegative] | None = None
    """What the donor's times of each kind of operation are multiplied with before; of a roofline donor only, null
    where the straight line alone predicts better."""


class Energy(Section):
    """What an estimate of energy is made from."""

    active_power_w: Positive
    """Power of the device while it infers, in watts. Energy is estimated as power x latency."""


class Measurement(Section):
    """The latency of one network on the device, beside what the profile predicted: what a fit can learn from."""

    arch_id: Text
    """The network."""
    predicted_ms: Positive
    """What this profile predicted, in ms."""
    measured_ms: Positive
    """What a clock said, in ms: the 10th percentile."""
    p50_ms: Positive | None = None
    """The 50th percentile of the same inferences, in ms; null in older files."""
    p90_ms: Positive | None = None
    """The 90th, in ms; null in older files."""
    verdict: Literal["stable", "unstable"]
    """Whether parts of the measurement agreed."""
    protocol: Text
    """How it was timed."""
    date: Day
    """Day of the measurement, in quotes."""
    environment: dict[str, JsonValue]
    """Processor, runtime with version, threads, and what else the device told."""


class Measured(Section):
    """Provenance of a figure measured by us, on the device unless `source` says otherwise."""

    kind: Literal["measured"]
    protocol: Text
    """What was timed, and how."""
    date: Day
    """Day of the measurement, in quotes: "2026-01-31"."""
    environment: Text
    """Processor, runtime with version, threads."""
    source: Text | None = None
    """Anything more."""


class Published(Section):
    """Provenance of a figure printed by somebody else, or deduced from such figures; then `source` says how."""

    kind: Literal["published"]
    source: Text
    """Who printed what, and the arithmetic from there to the figure."""


class Datasheet(Section):
    """Provenance of a figure the maker states."""

    kind: Literal["datasheet"]
    source: Text
    """Which figure of which document."""


Provenance = Annotated[Measured | Published | Datasheet, Field(discriminator="kind")]


#: What a profile need not say, and could not when the first were written, in this order.
_LATER_KEYS: Final = (
    *(("accepts", name) for name in ("int8", "batch", "layout")),
    *(("accepts",), ("system",), ("known_bad",), ("also_loads",), ("build_on_device",), ("percentiles",)),
    ("limits", "latency_percentile"),
)


class DeviceProfile(Section):
    """A class of devices: what they are, what a model may cost there, and what operations cost there."""

    schema_version: Literal[1] = Field(alias="schema")
    """Version of this file format."""
    name: Name
    """Short name, of at most 64 characters; that of the file."""
    description: Text
    """One or two sentences: what the device is and what the figures are worth."""
    device: DeviceFacts
    """The hardware."""
    runtime: Runtime
    """What runs the model there."""
    accepts: Accepts = Accepts()
    """What it loads: a format that is written in a newer or another form is refused at export."""
    system: System = System()
    """What the device has beside it."""
    known_bad: tuple[KnownBad, ...] = ()
    """Releases of it that fail there: what checks a bundle on the device does not run it with them."""
    build_on_device: Text | None = None
    """A command that makes an engine of the bundle's ONNX file there; null where none is made. We have run none."""
    limits: ProfileLimits = ProfileLimits()
    """Default limits of a search."""
    formats: tuple[str, ...] = Field(min_length=1)
    """File formats to export."""
    also_loads: tuple[str, ...] = ()
    """Formats that other runtimes of the device load: exported where they are asked for, as some need an extra."""
    precisions: tuple[Precision, ...] = Field(("fp32",), min_length=1)
    """Number formats to export."""
    unsupported_ops: tuple[OpKind, ...] = ()
    """Kinds of operations the runtime cannot run; a search leaves out every architecture that has one."""
    latency: Latency
    """What operations or blocks cost."""
    calibration: Calibration | None = None
    """Correction of the latency model for this device; null where it is used as it stands."""
    energy: Energy | None = None
    """What an estimate of energy is made from; null where nobody knows."""
    error: KnownError
    """How far predictions were off on the device; `none` where nobody measured."""
    percentiles: Percentiles | None = None
    """Percentiles above the one that is predicted; null where nobody measured them, as in older files."""
    provenance: dict[str, Provenance]
    """Where figures come from, by path. `latency.ops` stands for all figures below it, unless a longer path does."""

    measurements: tuple[Measurement, ...] = ()
    """Networks timed on the device since; `profile fit` can learn from them. Last, so that more can be added."""

    @field_validator("formats", "also_loads")
    @classmethod
    def _are_exporters(cls, formats: tuple[str, ...]) -> tuple[str, ...]:
        known = registry.names("exporter")
        for name in formats:
            if name not in known:
                raise ValueError(f"unknown format {name!r}{registry.nearest(name, known)}")
        return formats

    @field_validator("formats", "also_loads", "precisions", "unsupported_ops")
    @classmethod
    def _are_different(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) != len(names):
            raise ValueError(f"got {', '.join(names)}, expected each once")
        return names

    @field_validator("latency")
    @classmethod
    def _has_the_dtype_of_the_runtime(cls, latency: Latency, info: ValidationInfo) -> Latency:
        runtime = info.data.get("runtime")
        if runtime is not None and runtime.dtype != latency.dtype:
            raise ValueError(f"costs are for {latency.dtype}, but the runtime computes in {runtime.dtype}")
        return latency

    @model_validator(mode="after")
    def _knows_failures_of_what_runs_there(self) -> "DeviceProfile":
        known = (self.runtime.name, RUNTIME)
        for index, each in enumerate(self.known_bad):
            if each.runtime not in known:
                expected = f"{' or '.join(dict.fromkeys(known))}{registry.nearest(each.runtime, known)}"
                raise misfit([(("known_bad", index, "runtime"), each.runtime, expected)])
        return self

    @model_validator(mode="after")
    def _scales_operations_of_a_roofline(self) -> "DeviceProfile":
        calibration = self.calibration
        if calibration is not None and calibration.op_scales is not None and not self.latency.times_layers:
            expected = f"null: a latency model of kind {self.latency.kind} has no times of single operations"
            raise misfit([(("calibration", "op_scales"), calibration.op_scales, expected)])
        return self

    @model_validator(mode="after")
    def _has_percentiles_of_what_was_measured(self) -> "DeviceProfile":
        if self.percentiles is None:
            return self
        if not self.is_made_here:
            raise misfit([(("percentiles",), "percentiles", "null: predictions are of published figures")])
        lower = () if self.error == "none" else self.error.ratios
        for name in HIGHER:
            ratios, path = self.percentiles.of(name).ratios, ("percentiles", name, "ratios")
            if len(ratios) != len(lower):
                raise misfit([(path, len(ratios), f"{len(lower)} of them, as many as error has")])
            for ratio, least in zip(ratios, lower, strict=True):
                if ratio < least:
                    raise misfit([(path, ratio, f">= {least}, which the network took of the percentile below")])
            lower = ratios
        return self

    @model_validator(mode="after")
    def _knows_the_percentile_that_its_limits_mean(self) -> "DeviceProfile":
        meant, known = self.limits.latency_percentile, (self.predicted_percentile, *self.higher_percentiles)
        if meant is not None and meant not in known:
            expected = f"one that is known of this device: {', '.join(known)}"
            raise misfit([(("limits", "latency_percentile"), meant, expected)])
        return self

    @model_validator(mode="after")
    def _every_figure_has_provenance(self) -> "DeviceProfile":
        sources = {figure: _source_of(figure, self.provenance) for figure in self._figures()}
        expected = "its provenance: whether it was measured, published or in a datasheet"
        misfits: list[Any] = [
            (tuple(figure.split(".")), None, expected) for figure, path in sources.items() if path is None
        ]
        for path in self.provenance:
            if path not in sources.values():
                hint = registry.nearest(path, sources)
                misfits.append((("provenance", path), None, f"the path of a figure of this profile{hint}"))
        if misfits:
            raise misfit(misfits)
        return self

    def _figures(self) -> Iterator[str]:
        """Yield the path of every figure that needs provenance."""
        yield from self.latency.figures()
        if self.calibration is not None:
            yield "calibration"
        if self.percentiles is not None:
            yield "percentiles"
        if self.energy is not None:
            yield "energy.active_power_w"
        yield from figures_of("accepts", self.accepts)
        yield from figures_of("system", self.system)
        if self.also_loads:
            yield "also_loads"
        if self.build_on_device is not None:
            yield "build_on_device"

    @property
    def precision(self) -> Precision:
        """What its latencies are about."""
        return PRECISIONS[self.latency.dtype]

    @property
    def int8_scheme(self) -> Int8Scheme | None:
        """How numbers of 8 bits stand for others in what its latencies are about; None where none do."""
        return self.accepts.int8_scheme if self.precision == "int8" else None

    @property
    def variants(self) -> tuple[Variant, ...]:
        """What is exported for it: each format at each precision."""
        return tuple(Variant(name, precision) for precision in self.precisions for name in self.formats)

    @property
    def provenance_kinds(self) -> tuple[str, ...]:
        """How the costs in time are known, sorted: some of `datasheet`, `measured`, `published`."""
        not_about_time = ("energy.", "accepts", "also_loads", "system", "build_on_device")
        about_time = [entry for path, entry in self.provenance.items() if not path.startswith(not_about_time)]
        return tuple(sorted({entry.kind for entry in about_time}))

    @property
    def is_measured(self) -> bool:
        """Whether every cost was measured."""
        return self.provenance_kinds == ("measured",)

    @property
    def is_made_here(self) -> bool:
        """Whether it was built or fitted by this package, so that predictions are those of networks timed with it."""
        return self.is_measured or self.calibration is not None

    @property
    def predicted_percentile(self) -> Percentile:
        """The percentile of latency that predictions are about.

        Networks are timed by their 10th percentile. Who publishes one figure seldom says what it is: it is taken for a
        median, which is assumed and not measured.
        """
        return PREDICTED if self.is_made_here else DEFAULT

    @property
    def higher_percentiles(self) -> Mapping[Percentile, PercentileRatios]:
        """What is known of the percentiles above the predicted one; empty where nothing is."""
        return {} if self.percentiles is None else {name: self.percentiles.of(name) for name in HIGHER}

    @property
    def limit_percentile(self) -> Percentile:
        """The percentile that a limit on latency means where a search does not say."""
        return self.limits.latency_percentile or DEFAULT

    @property
    def profile_hash(self) -> str:
        """SHA-256 of what predictions depend on: all but `measurements`."""
        document = self.model_dump(mode="json", by_alias=True, exclude={"measurements"})
        # What says nothing under a key is what it was before there was such a key.
        for keys in _LATER_KEYS:
            *above, key = keys
            section = functools.reduce(operator.getitem, above, document)
            value = section[key]
            if not value or (isinstance(value, dict) and all(each is None for each in value.values())):
                del section[key]
        return files.sha256_of(document)


def load_profile(name_or_path: str | Path) -> DeviceProfile:
    """Return a shipped profile by name, or one from a YAML file.

    Raises:
        ConfigError: There is none of that name, or the file is wrong; the message names file and line.
    """
    return validate(load_yaml(resources.find("profiles", name_or_path)), DeviceProfile)


def list_profiles() -> list[DeviceProfile]:
    """Return the shipped profiles, by name, then those that were built here."""
    return [load_profile(name) for name in resources.known_names("profiles")]


def _source_of(figure: str, provenance: Iterable[str]) -> str | None:
    """Return the longest path in `provenance` that is the figure or stands for it."""
    above = [path for path in provenance if figure == path or figure.startswith(f"{path}.")]
    return max(above, key=len, default=None)
