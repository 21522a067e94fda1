"""`search.json`, schema 1: what a search found, as values that cannot be changed and that agree with each other.

Owns the fields and what makes them valid. Predicted latency only: nothing here was measured on a device. No field
holds a path of a machine.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from fedsup_deploy.artifact.manifest import ProfileRecord
from fedsup_deploy.config.document import dotted, show
from fedsup_deploy.errors import ArtifactError, ConfigError
from fedsup_deploy.registry import nearest
from fedsup_deploy.searchers import objective
from fedsup_deploy.searchers.objective import Limits
from fedsup_deploy.space.architecture import Architecture

SCHEMA: Final = 1

# The field of a candidate that each limit is about.
_FIELD_OF_LIMIT: Final = {
    "latency_ms": "latency_ms_predicted",
    "macs": "num_macs",
    "params": "num_params",
    "memory_mib": "memory_mib",
    "activation_mib": "activation_mib",
    "storage_mib": "storage_mib",
    "energy_mj": "energy_mj_estimated",
}

Text = Annotated[str, Field(min_length=1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
ArchId = Annotated[str, Field(pattern=r"^a[0-9a-f]{11}$")]


class _Record(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class NamedHash(_Record):
    """Something a search was made from."""

    name: Text
    """Its name."""
    hash: Sha256
    """SHA-256 of its content."""


class Candidate(_Record):
    """An evaluated architecture."""

    arch_id: ArchId
    """Its name, from its content alone."""
    architecture: dict[str, JsonValue]
    """Its choices."""
    accuracy: Annotated[float, Field(ge=0, le=1)]
    """Share of the validation images classified correctly."""
    latency_ms_predicted: NotNegative
    """Latency at batch 1 by the profile's latency model, in ms. Nobody timed it."""
    latency_interval_ms: tuple[NotNegative, NotNegative] | None
    """Lower and upper bound of that latency, in ms; null where the profile claims none."""
    num_macs: Count
    """Multiply-accumulates of one inference."""
    num_params: Count
    """Parameters of the exported model."""
    memory_mib: Positive
    """Parameters and peak activations, in MiB."""
    storage_mib: Positive
    """Parameters, in MiB."""
    activation_mib: Positive | None = None
    """Peak activations, in MiB; null in older files."""
    energy_mj_estimated: NotNegative | None = None
    """Predicted latency times the power the profile states, in mJ; null where it states none. Nobody measured it."""

    def to_architecture(self) -> Architecture:
        """Return the architecture as a value.

        Raises:
            ConfigError: `architecture` does not describe one, or not the one that `arch_id` names.
        """
        architecture = Architecture.from_dict(self.architecture)
        if architecture.arch_id != self.arch_id:
            raise ConfigError(f"architecture: got that of {architecture.arch_id}, expected that of {self.arch_id}")
        return architecture


class DeviceResult(_Record):
    """What was found for one device profile."""

    profile: ProfileRecord
    """The device profile."""
    method: Text
    """The searcher: a name registered under `searcher`."""
    certified: bool
    """Whether everything feasible in the whole space was evaluated, so that nothing better can exist."""
    certified_relative_to: Text | None
    """What the certificate takes for granted; null without one."""
    num_architectures: Count
    """Architectures of the space."""
    num_priced: Count
    """Those held against the limits: all, or a sample of a space too large to list."""
    num_feasible: Count
    """Those of them within all limits."""
    num_evaluated: Count
    """Those whose accuracy was measured."""
    limits: dict[str, Positive]
    """The limits in force, by name."""
    not_checked: tuple[str, ...]
    """Names of limits that could not be checked, as the profile has no model of them."""
    candidates: Annotated[tuple[Candidate, ...], Field(min_length=1)]
    """All that was evaluated, in the order of evaluation."""
    front: tuple[ArchId, ...]
    """The candidates that none beats in accuracy and predicted latency, fastest first."""
    pick: ArchId
    """The most accurate candidate; of equals the fastest, then the first by name."""
    seconds: NotNegative
    """From the start of the evaluations until this device had its last one."""

    @property
    def picked(self) -> Candidate:
        """The candidate picked."""
        return next(candidate for candidate in self.candidates if candidate.arch_id == self.pick)

    @model_validator(mode="after")
    def _limits_hold(self) -> "DeviceResult":
        try:
            limits = Limits(**self.limits)
        except TypeError as error:
            raise ValueError(f"limits: got {sorted(self.limits)}, expected {sorted(_FIELD_OF_LIMIT)}") from error
        priced = [name for name, field in _FIELD_OF_LIMIT.items() if getattr(self.candidates[0], field) is not None]
        if self.not_checked != limits.not_checked(priced):
            raise ValueError(f"not_checked: got {list(self.not_checked)}, expected {list(limits.not_checked(priced))}")
        for name, limit in limits.checked(priced).items():
            for candidate in self.candidates:
                value = getattr(candidate, _FIELD_OF_LIMIT[name])
                if value is None or value > limit:
                    raise ValueError(f"{candidate.arch_id}: {name} is {value}, expected at most {limit}")
        return self

    @model_validator(mode="after")
    def _follows_from_the_candidates(self) -> "DeviceResult":
        arch_ids = [candidate.arch_id for candidate in self.candidates]
        if len(set(arch_ids)) != len(arch_ids):
            raise ValueError("candidates: got one twice, expected each once")
        if self.num_evaluated != len(arch_ids):
            raise ValueError(f"num_evaluated: got {self.num_evaluated}, expected {len(arch_ids)} candidates")
        if self.certified != (self.certified_relative_to is not None):
            raise ValueError("certified_relative_to: expected a text if certified, and null if not")
        if self.certified and not self.num_evaluated == self.num_feasible <= self.num_priced == self.num_architectures:
            raise ValueError("certified: expected all architectures priced and everything feasible evaluated")
        front, pick = front_and_pick(self.candidates)
        if (self.front, self.pick) != (front, pick):
            raise ValueError(f"front and pick: got pick {self.pick}, expected those of the candidates, {pick}")
        return self


class SearchResult(_Record):
    """What one call found, for each of its device profiles."""

    schema_version: Literal[1] = Field(SCHEMA, alias="schema")
    """Version of this file format."""
    run: NamedHash
    """The training run: its folder's name, and the SHA-256 of its supernet."""
    space: NamedHash
    """The search space, with the channels and classes of the run's data."""
    seed: int
    """Decides every random choice."""
    results: Annotated[tuple[DeviceResult, ...], Field(min_length=1)]
    """One per device profile."""
    seconds: NotNegative
    """Of the whole call."""

    @model_validator(mode="after")
    def _has_one_result_per_profile(self) -> "SearchResult":
        names = [result.profile.name for result in self.results]
        if len(set(names)) != len(names):
            raise ValueError(f"results: got the profiles {names}, expected each once")
        return self

    def for_profile(self, name: str) -> DeviceResult:
        """Return what was found for one device profile.

        Raises:
            ConfigError: Nothing was searched for a profile of that name.
        """
        by_name = {result.profile.name: result for result in self.results}
        if name not in by_name:
            raise ConfigError(f"the search has no result for profile {name!r}{nearest(name, by_name)}")
        return by_name[name]

    def to_dict(self) -> dict[str, Any]:
        """Return the file's JSON document."""
        return self.model_dump(mode="json", by_alias=True)


def load_result(path: Path) -> SearchResult:
    """Return what a search.json holds.

    Raises:
        ArtifactError: It cannot be read, is damaged or altered, or of another schema version.
    """
    try:
        result = SearchResult.model_validate_json(path.read_bytes())
        for found in result.results:
            for candidate in found.candidates:
                candidate.to_architecture()
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error
    except (ValidationError, ConfigError) as error:
        problem = _first_problem(error) if isinstance(error, ValidationError) else error
        raise ArtifactError(f"{path}: {problem}; search again") from error
    return result


def front_and_pick(candidates: Sequence[Candidate]) -> tuple[tuple[str, ...], str]:
    """Return the arch_ids of the front, fastest first, and that of the pick."""
    arch_ids = [candidate.arch_id for candidate in candidates]
    accuracy = [candidate.accuracy for candidate in candidates]
    latency_ms = [candidate.latency_ms_predicted for candidate in candidates]
    best = objective.pick(arch_ids, accuracy, latency_ms)
    return tuple(arch_ids[index] for index in objective.front(accuracy, latency_ms)), arch_ids[best]


def _first_problem(error: ValidationError) -> str:
    details = error.errors(include_url=False)
    first, more = details[0], f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    where = f"{dotted(first['loc'])}: " if first["loc"] else ""
    if first["type"] == "value_error":
        return f"{where}{first['ctx']['error']}{more}"
    return f"{where}got {show(first['input'])}, {first['msg'][:1].lower()}{first['msg'][1:]}{more}"
