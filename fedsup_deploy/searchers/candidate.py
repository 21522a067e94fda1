"""`Candidate`: an evaluated architecture as `search.json` has it. Owns its fields and what makes them valid."""

from typing import Annotated, Final

from pydantic import Field, JsonValue, SerializerFunctionWrapHandler, model_serializer, model_validator

from fedsup_deploy.artifact.manifest import check_interval
from fedsup_deploy.artifact.measures import Interval
from fedsup_deploy.config.section import Count, NotNegative, Positive, Section, Text
from fedsup_deploy.device.limits import TABLE
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.searchers import objective
from fedsup_deploy.space.architecture import Architecture

Share = Annotated[float, Field(ge=0, le=1)]
ArchId = Annotated[str, Field(pattern=r"^a[0-9a-f]{11}$")]

#: Of a search for accuracy there is nothing in these, unless something is registered from outside.
_LEFT_OUT_IF_EMPTY: Final = ("more", "objective_interval")


class Candidate(Section):
    """An evaluated architecture."""

    arch_id: ArchId
    """Its name, from its content alone."""
    architecture: dict[str, JsonValue]
    """Its choices."""
    accuracy: Share | None
    """Share of held-out images classified correctly, of clients the mean of their shares; null where nobody measured
    it."""
    num_images: Count | None = None
    """How many these are, of clients all together; null where nobody measured it, and in older files."""
    accuracy_interval: Interval | None = None
    """The 95 % interval of `accuracy`; null of a prediction, whose error stands in `accuracy_model`, of a mean over
    clients, each of which has few images and counts the same, and in older files."""
    objective_interval: Interval | None = None
    """The 95 % interval of the objective of the search, which stands in `more`; not there where that is another one."""
    accuracy_predicted: Share | None = None
    """The same as predicted from other architectures; null where it was measured."""
    worst_decile: Share | None = None
    """Mean share of the tenth of the clients that have the lowest; null where clients were not asked."""
    latency_ms_predicted: NotNegative
    """Latency at batch 1 by the profile's latency model, in ms. Nobody timed it."""
    latency_interval_ms: tuple[NotNegative, NotNegative] | None
    """Lower and upper bound of that latency, in ms; null where the profile claims none."""
    latency_percentile_ms: NotNegative | None = None
    """The percentile that the limit means: that prediction times `percentile.ratio`, in ms; null in older files."""
    latency_upper_ms: NotNegative | None = None
    """What that percentile stays within with the probability that was asked for, in ms; null where none was."""
    num_macs: Count
    """Multiply-accumulates of one inference."""
    num_params: Count
    """Parameters of the exported model."""
    memory_mib: Positive
    """Parameters and peak activations, in MiB."""
    storage_mib: Positive
    """The ONNX file: parameters and the graph around them, at most, in MiB; older files count parameters only."""
    activation_mib: Positive | None = None
    """Peak activations, in MiB; null in older files."""
    energy_mj_estimated: NotNegative | None = None
    """Predicted latency times the power the profile states, in mJ; null where it states none. Nobody measured it."""
    more: dict[Text, float] = Field(default_factory=dict)
    """What limits and objectives that have no field of their own are about, by their names; not there without such."""

    @model_serializer(mode="wrap")
    def _without_empty(self, handler: SerializerFunctionWrapHandler) -> dict[str, JsonValue]:
        return {name: value for name, value in handler(self).items() if name not in _LEFT_OUT_IF_EMPTY or value}

    @model_validator(mode="after")
    def _has_one_accuracy(self) -> "Candidate":
        if (self.accuracy is None) == (self.accuracy_predicted is None):
            raise ValueError(f"{self.arch_id}: expected either accuracy or accuracy_predicted")
        if self.num_images is None and self.accuracy_interval is not None:
            raise ValueError(f"{self.arch_id}: num_images: got none, expected those of accuracy_interval")
        check_interval("accuracy", self.accuracy, self.num_images or 0, self.accuracy_interval)
        return self

    @property
    def best_known_accuracy(self) -> float:
        """The accuracy that the search went by: measured or predicted."""
        known = self.accuracy if self.accuracy_predicted is None else self.accuracy_predicted
        assert known is not None
        return known

    def price(self, limit: str) -> float | None:
        """Return what a limit is about, by the limit's name; None where it has no price."""
        name = TABLE[limit].recorded_as
        value: float | None = self.more.get(limit) if name is None else getattr(self, name)
        return value

    def worth(self, name: str) -> float | None:
        """Return what an objective is about, by its name, measured or predicted; None where nobody knows."""
        row = objective.TABLE[name]
        fields = [field for field in (row.recorded_as, row.predicted_as) if field is not None]
        if not fields:
            return self.more.get(name)
        return next((value for field in fields if (value := getattr(self, field)) is not None), None)

    def is_predicted(self, name: str) -> bool:
        """Return whether what `worth` returns was predicted where it could have been measured."""
        row = objective.TABLE[name]
        measured = None if row.recorded_as is None else getattr(self, row.recorded_as)
        return row.predicted_as is not None and measured is None

    @property
    def latency_ms_held(self) -> float:
        """What the limit on latency was held against, in ms: with a risk the bound. In older files the prediction."""
        known = (self.latency_upper_ms, self.latency_percentile_ms, self.latency_ms_predicted)
        return next(latency_ms for latency_ms in known if latency_ms is not None)

    @property
    def resolution(self) -> int:
        """Side of the input image in pixels."""
        return self.to_architecture().resolution

    def to_architecture(self) -> Architecture:
        """Return the architecture as a value.

        Raises:
            ConfigError: `architecture` does not describe one, or not the one that `arch_id` names.
        """
        architecture = Architecture.from_dict(self.architecture)
        if architecture.arch_id != self.arch_id:
            raise ConfigError(f"architecture: got that of {architecture.arch_id}, expected that of {self.arch_id}")
        return architecture
