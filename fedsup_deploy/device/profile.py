"""Device profiles: limits, runtime and operation costs of a class of devices, and where every figure comes from.

Owns the schema of `profiles/*.yaml` and reads it. It never invents a figure: a cost without provenance is refused, and
a profile none of whose costs was measured on the device says so in every summary. Pure data; imports no torch.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from fedsup_deploy import files, registry, resources
from fedsup_deploy.config.load import load_yaml, validate
from fedsup_deploy.config.problems import misfit

_BYTES_PER_ELEMENT = {"float32": 4, "float16": 2, "int8": 1}

Dtype = Literal["float32", "float16", "int8"]
Precision = Literal["fp32", "fp16", "int8"]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Text = Annotated[str, Field(min_length=1)]


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


class DeviceFacts(_Data):
    """The hardware."""

    soc: Text
    """System on a chip, or processor."""
    cpu: Text
    """Kind and clock of the cores the figures are about."""
    cores: int = Field(ge=1)
    """Cores of the device, whether or not the runtime uses them all."""
    memory_mib: int = Field(ge=1)
    """Main memory, in MiB."""


class Runtime(_Data):
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


class Limits(_Data):
    """Default limits of a search for this device. Each is optional; options of a search override them."""

    latency_ms: Positive | None = None
    """Longest time of one inference at batch 1, in ms."""
    memory_mib: Positive | None = None
    """Most memory for weights and live activations, in MiB."""
    storage_mib: Positive | None = None
    """Largest model file, in MiB."""
    energy_mj: Positive | None = None
    """Most energy of one inference, in mJ."""


class ComputeCost(_Data):
    """Cost of an operation that multiplies."""

    gmacs_per_s: Positive
    """Rate at which it multiplies when memory is not what it waits for, in 10^9 MACs per second."""
    overhead_us: NotNegative
    """Time of every such layer on top of its work, in microseconds."""


class MoveCost(_Data):
    """Cost of an operation that only moves elements."""

    overhead_us: NotNegative
    """Time of every such layer on top of its work, in microseconds."""


class OperationCosts(_Data):
    """One cost per kind of operation, as `fedsup_deploy.space.cost` counts them."""

    conv: ComputeCost
    """Dense convolution, kernel larger than 1x1."""
    pointwise: ComputeCost
    """Dense 1x1 convolution."""
    depthwise: ComputeCost
    """Convolution with one filter per channel."""
    linear: ComputeCost
    """Fully connected layer."""
    pool: MoveCost
    """Average pooling."""
    global_pool: MoveCost
    """Average over the whole feature map."""
    add: MoveCost
    """Sum of two feature maps."""
    scale: MoveCost
    """Product of a feature map and one factor per channel."""


class RooflineLatency(_Data):
    """Time of a layer: max(MACs / rate, bytes / bandwidth) + overhead. Of a network: the sum, plus its own overhead.

    Another latency model is another class with its own `kind`, a row in the registry, and a union at
    `DeviceProfile.latency`.
    """

    kind: Literal["roofline"]
    """Name of the latency model."""
    dtype: Dtype
    """Element type the costs are about; that of the runtime."""
    bytes_per_element: int
    """4 for float32, 2 for float16, 1 for int8."""
    memory_bandwidth_gb_s: Positive
    """Rate at which elements are read and written, in 10^9 bytes per second."""
    network_overhead_us: NotNegative
    """Time of every inference on top of its layers, in microseconds."""
    ops: OperationCosts
    """Costs per kind of operation."""

    @field_validator("bytes_per_element")
    @classmethod
    def _agrees_with_dtype(cls, value: int, info: ValidationInfo) -> int:
        expected = _BYTES_PER_ELEMENT.get(info.data.get("dtype", ""))
        if expected is not None and value != expected:
            raise ValueError(f"got {value}, expected {expected} for {info.data['dtype']}")
        return value

    def figures(self) -> Iterator[str]:
        """Yield the path of every figure that needs provenance, such as `latency.ops.conv.gmacs_per_s`."""
        yield "latency.memory_bandwidth_gb_s"
        yield "latency.network_overhead_us"
        for op, cost in self.ops:
            for name, _ in cost:
                yield f"latency.ops.{op}.{name}"


class HeldOutError(_Data):
    """How far the latency model was off on networks measured on the device and not used to build the model."""

    acc5: Share
    """Share of networks predicted within 5 %."""
    acc10: Share
    """Share of networks predicted within 10 %."""
    spearman: float = Field(ge=-1, le=1)
    """Rank correlation of predicted and measured."""
    mape: NotNegative
    """Mean of |predicted - measured| / measured; 0.05 is 5 %."""
    num_heldout: int = Field(ge=1)
    """Number of those networks."""

    @model_validator(mode="after")
    def _within_10_includes_within_5(self) -> "HeldOutError":
        if self.acc5 > self.acc10:
            raise ValueError(f"acc5 {self.acc5} is larger than acc10 {self.acc10}, which includes it")
        return self


def _kind_of_error(value: Any) -> str:
    return "none" if isinstance(value, str) else HeldOutError.__name__


# The kind is told from the value, so that a mistake inside the figures is not answered with: expected 'none'.
KnownError = Annotated[
    Annotated[Literal["none"], Tag("none")] | Annotated[HeldOutError, Tag(HeldOutError.__name__)],
    Discriminator(_kind_of_error),
]


class Measured(_Data):
    """Provenance of a figure measured by us, on the device unless `source` says otherwise."""

    kind: Literal["measured"]
    protocol: Text
    """What was timed, and how."""
    date: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$")
    """Day of the measurement, in quotes: "2026-01-31"."""
    environment: Text
    """Processor, runtime with version, threads."""
    source: Text | None = None
    """Anything more."""


class Published(_Data):
    """Provenance of a figure printed by somebody else, or deduced from such figures; then `source` says how."""

    kind: Literal["published"]
    source: Text
    """Who printed what, and the arithmetic from there to the figure."""


class Datasheet(_Data):
    """Provenance of a figure the maker states."""

    kind: Literal["datasheet"]
    source: Text
    """Which figure of which document."""


Provenance = Annotated[Measured | Published | Datasheet, Field(discriminator="kind")]


class DeviceProfile(_Data):
    """A class of devices: what they are, what a model may cost there, and what operations cost there."""

    schema_version: Literal[1] = Field(alias="schema")
    """Version of this file format."""
    name: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    """Short name; that of the file."""
    description: Text
    """One or two sentences: what the device is and what the figures are worth."""
    device: DeviceFacts
    """The hardware."""
    runtime: Runtime
    """What runs the model there."""
    limits: Limits = Limits()
    """Default limits of a search."""
    formats: tuple[str, ...] = Field(min_length=1)
    """File formats to export."""
    precisions: tuple[Precision, ...] = Field(("fp32",), min_length=1)
    """Number formats to export."""
    latency: RooflineLatency
    """What operations cost."""
    error: KnownError
    """How far predictions were off on the device; `none` where nobody measured."""
    provenance: dict[str, Provenance]
    """Where figures come from, by path. `latency.ops` stands for all figures below it, unless a longer path does."""

    @field_validator("formats")
    @classmethod
    def _are_exporters(cls, formats: tuple[str, ...]) -> tuple[str, ...]:
        known = registry.names("exporter")
        for name in formats:
            if name not in known:
                raise ValueError(f"unknown format {name!r}{registry.nearest(name, known)}")
        return formats

    @field_validator("latency")
    @classmethod
    def _has_the_dtype_of_the_runtime(cls, latency: RooflineLatency, info: ValidationInfo) -> RooflineLatency:
        runtime = info.data.get("runtime")
        if runtime is not None and runtime.dtype != latency.dtype:
            raise ValueError(f"costs are for {latency.dtype}, but the runtime computes in {runtime.dtype}")
        return latency

    @model_validator(mode="after")
    def _every_figure_has_provenance(self) -> "DeviceProfile":
        sources = {figure: _source_of(figure, self.provenance) for figure in self.latency.figures()}
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

    @property
    def provenance_kinds(self) -> tuple[str, ...]:
        """How the costs are known, sorted: some of `datasheet`, `measured`, `published`."""
        return tuple(sorted({entry.kind for entry in self.provenance.values()}))

    @property
    def is_measured(self) -> bool:
        """Whether every cost was measured."""
        return self.provenance_kinds == ("measured",)

    @property
    def profile_hash(self) -> str:
        """SHA-256 of the profile's content."""
        return files.sha256_of(self.model_dump(mode="json", by_alias=True))

    def summary(self) -> dict[str, Any]:
        """Return name, description, measured or not, provenance, error, limits and formats, in JSON values."""
        document = self.model_dump(mode="json", by_alias=True)
        return {
            "name": self.name,
            "description": self.description,
            "is_measured": self.is_measured,
            "provenance": list(self.provenance_kinds),
            "error": document["error"],
            "limits": {name: value for name, value in document["limits"].items() if value is not None},
            "formats": document["formats"],
            "precisions": document["precisions"],
        }


def load_profile(name_or_path: str | Path) -> DeviceProfile:
    """Return a shipped profile by name, or one from a YAML file.

    Raises:
        ConfigError: There is none of that name, or the file is wrong; the message names file and line.
    """
    return validate(load_yaml(resources.find("profiles", name_or_path)), DeviceProfile)


def list_profiles() -> list[DeviceProfile]:
    """Return the shipped profiles, by name."""
    return [load_profile(name) for name in resources.shipped_names("profiles")]


def _source_of(figure: str, provenance: dict[str, Any]) -> str | None:
    """Return the longest path in `provenance` that is the figure or stands for it."""
    above = [path for path in provenance if figure == path or figure.startswith(f"{path}.")]
    return max(above, key=len, default=None)
