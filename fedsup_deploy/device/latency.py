"""Latency models as a profile holds them: what operations or whole blocks cost on the device. Data; no arithmetic.

Three kinds. `roofline`: rates and bandwidth, where nothing was measured. `fitted`: costs per operation, from timed
networks. `table`: the time of every block of a search space, the most exact and only about that space.
`fedsup_deploy.device.predictor` predicts with them. Which kinds there are is in the registry, under `latency`; what a
kind can do it says itself, so that nobody need know which it is.
"""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Final, Literal

from pydantic import AfterValidator, Field, SerializeAsAny, ValidationInfo, field_validator, model_validator

from fedsup_deploy.config.registered import Registered
from fedsup_deploy.config.section import NotNegative, Positive, Section, Text
from fedsup_deploy.space import parts
from fedsup_deploy.variant import Dtype

BYTES_PER_ELEMENT: Final = {"float32": 4, "float16": 2, "int8": 1}


#: Of work in a second, in 10^9 of it. A slower device takes more than a second for one of anything.
_Rate = Annotated[float, Field(gt=1e-9, le=1e9)]


class ComputeCost(Section):
    """Cost of an operation that multiplies."""

    gmacs_per_s: _Rate
    """Rate at which it multiplies when memory is not what it waits for, in 10^9 MACs per second."""
    overhead_us: NotNegative
    """Time of every such layer on top of its work, in microseconds."""


class MoveCost(Section):
    """Cost of an operation that only moves elements."""

    overhead_us: NotNegative
    """Time of every such layer on top of its work, in microseconds."""


class OperationCosts(Section):
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


class LatencySection(Section):
    """What every kind says. A kind adds its own fields, and says below what it can do."""

    #: Whether it predicts networks of any layers, not only those of the search space it was made for.
    knows_any_network: ClassVar[bool] = True
    #: Whether it has the time of every layer by itself, so that each kind of operation can be scaled.
    times_layers: ClassVar[bool] = False

    dtype: Dtype
    """Element type the costs are about; that of the runtime."""
    bytes_per_element: int
    """4 for float32, 2 for float16, 1 for int8."""
    kind: str
    """Name of the latency model."""

    def figures(self) -> Iterator[str]:
        """Yield the path of every figure that needs provenance."""
        yield "latency"

    @property
    def is_additive(self) -> bool:
        """Whether the latency depends on the first term of its predictor alone, and grows with it."""
        return False

    @property
    def channels_together(self) -> int | None:
        """Channels that the runtime computes together, as far as was measured; None where nobody did."""
        return None

    @field_validator("bytes_per_element")
    @classmethod
    def _agrees_with_dtype(cls, value: int, info: ValidationInfo) -> int:
        expected = BYTES_PER_ELEMENT.get(info.data.get("dtype", ""))
        if expected is not None and value != expected:
            raise ValueError(f"got {value}, expected {expected} for {info.data['dtype']}")
        return value


class RooflineLatency(LatencySection):
    """Time of a layer: max(MACs / rate, bytes / bandwidth) + overhead. Of a network: the sum, plus its own overhead."""

    times_layers: ClassVar[bool] = True

    kind: Literal["roofline"]
    """Name of the latency model."""
    memory_bandwidth_gb_s: _Rate
    """Rate at which elements are read and written, in 10^9 bytes per second."""
    network_overhead_us: NotNegative
    """Time of every inference on top of its layers, in microseconds."""
    ops: OperationCosts
    """Costs per kind of operation."""

    @property
    def is_additive(self) -> bool:
        """Whether the latency is a sum over layers: it is."""
        return True

    def figures(self) -> Iterator[str]:
        """Yield the path of every figure that needs provenance, such as `latency.ops.conv.gmacs_per_s`."""
        yield "latency.memory_bandwidth_gb_s"
        yield "latency.network_overhead_us"
        for op, cost in self.ops:
            for name, _ in cost:
                yield f"latency.ops.{op}.{name}"


class LinearCost(Section):
    """Time of a layer as a sum of shares, each of them 0 or more."""

    us_per_mmac: NotNegative
    """Microseconds per 10^6 multiply-accumulates."""
    us_per_kelement: NotNegative
    """Microseconds per 1,000 elements read or written."""
    us_per_layer: NotNegative
    """Microseconds of every such layer on top of its work."""


OpKind = Literal["conv", "pointwise", "depthwise", "linear", "pool", "global_pool", "add", "scale"]


class CacheMisses(Section):
    """What a network costs on top because it does not stay in the cache from one run to the next."""

    us_per_kelement: NotNegative
    """Microseconds per 1,000 elements read or written, where all of them miss the cache."""
    fits_mib: NotNegative
    """Networks up to this size of weights and live activations stay in the cache, in MiB."""
    misses_mib: Positive
    """Networks from this size on do not, in MiB."""

    @model_validator(mode="after")
    def _is_ordered(self) -> "CacheMisses":
        _check_ordered(self.fits_mib, self.misses_mib)
        return self


class FittedLatency(LatencySection):
    """Time of a network: the sum of linear costs of its layers, fitted by non-negative least squares."""

    kind: Literal["fitted"]
    """Name of the latency model."""
    network_overhead_us: NotNegative
    """Time of every inference on top of its layers, in microseconds."""
    ops: dict[OpKind, LinearCost] = Field(min_length=1)
    """Costs per kind of operation that occurred in the timed networks."""
    channel_block: int = Field(1, ge=1)
    """Channels that the runtime computes together; a part of a block costs as much as a whole one."""
    cache: CacheMisses | None = None
    """What networks larger than the cache cost on top; null where the timed networks showed no such cost."""
    num_networks: int = Field(ge=1)
    """Networks the costs were fitted to."""

    @property
    def is_additive(self) -> bool:
        """Whether the latency is a sum over layers: what misses the cache depends on the size of the network."""
        return self.cache is None

    @property
    def channels_together(self) -> int | None:
        """Channels that the runtime computes together; None where the timed networks showed no such block."""
        return self.channel_block if self.channel_block > 1 else None

    def figures(self) -> Iterator[str]:
        """Yield the paths of what needs provenance; all costs came from one fit."""
        yield "latency.network_overhead_us"
        yield "latency.ops"
        if self.channel_block > 1:
            yield "latency.channel_block"
        if self.cache is not None:
            yield "latency.cache"


def _checked_name(name: str) -> str:
    if not parts.is_name(name):
        raise ValueError(f"got the part {name!r}, expected layers such as 'depthwise 7x7/2 64@16'")
    return name


PartName = Annotated[str, AfterValidator(_checked_name)]


class PartTime(Section):
    """Time of one part of a network, timed alone."""

    cached_us: Positive
    """Run again and again, so that its weights stay in the cache, in microseconds."""
    uncached_us: Positive
    """Run after a network that fills the cache, in microseconds."""


class TableCalibration(Section):
    """From the times of parts to that of a network, fitted on whole networks.

    A part timed alone costs a call of the runtime that it does not cost inside a network, and more of one when the
    cache is cold: those are taken off. A network whose weights and activations stay in the cache between two runs is
    made of cached parts, one that does not is made of uncached ones, and between two sizes there is a slope.
    """

    scale: Positive
    """What the times of the parts are multiplied with."""
    cached_overhead_us: float = Field(allow_inf_nan=False)
    """Taken off each cached part, in microseconds."""
    uncached_overhead_us: float = Field(allow_inf_nan=False)
    """Taken off each uncached part, in microseconds."""
    network_overhead_us: float = Field(allow_inf_nan=False)
    """Added once per network, in microseconds."""
    fits_mib: NotNegative
    """Networks up to this size of weights and live activations stay in the cache, in MiB."""
    misses_mib: Positive
    """Networks from this size on do not, in MiB."""
    num_networks: int = Field(ge=1)
    """Networks it was fitted to."""

    @model_validator(mode="after")
    def _is_ordered(self) -> "TableCalibration":
        _check_ordered(self.fits_mib, self.misses_mib)
        return self


class TableLatency(LatencySection):
    """Time of a network: the sum of its parts' times, calibrated on whole networks."""

    knows_any_network: ClassVar[bool] = False

    kind: Literal["table"]
    """Name of the latency model."""
    space: Text
    """Name of the search space whose parts were timed."""
    parts: dict[PartName, PartTime] = Field(min_length=1)
    """Time of each part, by the name that `fedsup_deploy.space.parts` gives it."""
    calibration: TableCalibration
    """From parts to networks."""

    def figures(self) -> Iterator[str]:
        """Yield the paths of what needs provenance; all parts were timed together."""
        yield "latency.parts"
        yield "latency.calibration"


#: The section of a profile; its `kind` says which.
Latency = Annotated[SerializeAsAny[LatencySection], Registered("latency")]


def _check_ordered(fits_mib: float, misses_mib: float) -> None:
    if misses_mib <= fits_mib:
        raise ValueError(f"got misses_mib {misses_mib}, expected more than fits_mib {fits_mib}")
