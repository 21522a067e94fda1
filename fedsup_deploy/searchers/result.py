"""`search.json`, schema 1: what a search found, as values that cannot be changed and that agree with each other.

Owns the fields and what makes them valid. Predicted latency only: nothing here was measured on a device. No field
holds a path of a machine.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

import numpy as np
from pydantic import Field, JsonValue, ValidationError, field_validator, model_validator

from fedsup_deploy.artifact.document import first_problem
from fedsup_deploy.artifact.manifest import ProfileRecord
from fedsup_deploy.artifact.measured import PercentileRecord
from fedsup_deploy.config.section import Count, NotNegative, Positive, Section, Text
from fedsup_deploy.device.limits import TABLE
from fedsup_deploy.errors import ArtifactError, ConfigError
from fedsup_deploy.measures import ACCURACY
from fedsup_deploy.ondevice.reading import MOST_BYTES_OF_JSON, parse_json, read_bytes
from fedsup_deploy.registry import nearest
from fedsup_deploy.searchers import objective
from fedsup_deploy.searchers.candidate import ArchId, Candidate
from fedsup_deploy.searchers.limits import Limits
from fedsup_deploy.searchers.noise import AccuracyNoise, cheapest
from fedsup_deploy.searchers.scoring.score import Scores

SCHEMA: Final = 1

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
#: What a pick is: the most accurate candidate, or the cheapest within noise of it.
Preference = Literal["accurate", "cheaper"]


class NamedHash(Section):
    """Something a search was made from."""

    name: Text
    """Its name."""
    hash: Sha256
    """SHA-256 of its content."""


class SearchedRun(NamedHash):
    """The training run that was searched: its folder's name, and the SHA-256 of its supernet."""

    rounds: Count | None = None
    """Rounds it was trained for; null in older files."""
    path: Text | None = None
    """Its folder, relative to that of this file; null in older files."""


class WithinNoise(Section):
    """Which candidates are as accurate as the most accurate one, as far as images or predictions tell."""

    rule: Text
    """What counts as noise."""
    mae: NotNegative | None
    """The error of predictions that this goes by: their mean absolute one; null where nothing was predicted."""
    num_candidates: Annotated[int, Field(ge=0)]
    """Candidates as accurate within noise, without the most accurate one itself; of all that were evaluated."""
    cheapest: ArchId | None
    """The one with the fewest MACs of those that have fewer than the most accurate and are not slower; null where there
    is none."""


class DeviceResult(Section):
    """What was found for one device profile."""

    profile: ProfileRecord
    """The device profile."""
    method: Text
    """The searcher: a name registered under `searcher`."""
    objective: Text = ACCURACY
    """What the pick is the best in, one of `accuracy`, `balanced_accuracy`, `macro_f1`, `auc`, `calibration_error` (the
    lowest) and `worst_decile`; `accuracy` in older files."""
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
    """Those whose accuracy is known: measured or predicted, as the candidates say."""
    num_measured: Annotated[int, Field(ge=0)] | None = None
    """Those of them whose accuracy was measured; null in older files."""
    limits: dict[str, Positive]
    """The limits in force, by name."""
    risk: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Probability with which the measured latency of a new network is within the limit on latency; null where the
    percentile as predicted was held to it."""
    percentile: PercentileRecord | None = None
    """Which percentile of latency the limit means; null in older files, which held the prediction itself to it."""
    not_checked: tuple[str, ...]
    """Names of limits that could not be checked, as the profile has no model of them."""
    candidates: Annotated[tuple[Candidate, ...], Field(min_length=1)]
    """All that was measured, in the order of evaluation. Of what was predicted only the front is kept, and what a
    fleet was assigned."""
    front: tuple[ArchId, ...]
    """The candidates that none beats in what counts: the objective, worst decile if known, predicted latency; fastest
    first."""
    most_accurate: ArchId | None = None
    """The most accurate candidate, or the best in another `objective`; of equals the fastest, then the first by name.
    In older files null: it is the pick."""
    within_noise: WithinNoise | None = None
    """What is as accurate as that; null where nobody knows the noise: of means over clients, and in older files."""
    prefer: Preference = "accurate"
    """What the pick is: `accurate`: the most accurate candidate. `cheaper`: the cheapest within noise of it."""
    pick: ArchId
    """The candidate picked."""
    seconds: NotNegative
    """From the start of the evaluations until this device had its last one."""

    @property
    def picked(self) -> Candidate:
        """The candidate picked."""
        return self.candidate(self.pick)

    @field_validator("objective")
    @classmethod
    def _is_a_goal(cls, name: str) -> str:
        if name not in objective.goals():
            raise ValueError(f"got {name!r}, expected one of {', '.join(objective.goals())}")
        return name

    @model_validator(mode="after")
    def _has_the_percentile_of_each_candidate(self) -> "DeviceResult":
        for candidate in self.candidates:
            expected = None if self.percentile is None else candidate.latency_ms_predicted * self.percentile.ratio
            if candidate.latency_percentile_ms != expected:
                raise ValueError(f"{candidate.arch_id}: latency_percentile_ms: expected {expected}, predicted x ratio")
        return self

    @model_validator(mode="after")
    def _limits_hold(self) -> "DeviceResult":
        try:
            limits = Limits(**self.limits)
        except ConfigError as error:
            raise ValueError(f"limits: got {sorted(self.limits)}, expected {sorted(TABLE)}") from error
        priced = [name for name in TABLE if self.candidates[0].price(name) is not None]
        if self.not_checked != limits.not_checked(priced):
            raise ValueError(f"not_checked: got {list(self.not_checked)}, expected {list(limits.not_checked(priced))}")
        for name, limit in limits.checked(priced).items():
            for candidate in self.candidates:
                value = candidate.price(name)
                if value is None or value > limit:
                    raise ValueError(f"{candidate.arch_id}: {name} is {value}, expected at most {limit}")
        return self

    @model_validator(mode="after")
    def _follows_from_the_candidates(self) -> "DeviceResult":
        arch_ids = [candidate.arch_id for candidate in self.candidates]
        if len(set(arch_ids)) != len(arch_ids):
            raise ValueError("candidates: got one twice, expected each once")
        num_measured = sum(candidate.accuracy is not None for candidate in self.candidates)
        if self.num_measured not in (None, num_measured):
            raise ValueError(f"num_measured: got {self.num_measured}, expected {num_measured}, as of the candidates")
        is_measured = self.num_measured is None and num_measured > 0
        if len(arch_ids) > self.num_evaluated or (is_measured and len(arch_ids) < self.num_evaluated):
            raise ValueError(f"num_evaluated: got {self.num_evaluated}, expected {len(arch_ids)} candidates")
        if self.certified != (self.certified_relative_to is not None):
            raise ValueError("certified_relative_to: expected a text if certified, and null if not")
        is_listed = self.num_priced == self.num_architectures
        if self.certified and is_listed and self.num_evaluated != self.num_feasible:
            raise ValueError("certified: expected everything feasible evaluated")
        front, best = front_and_best(self.candidates, self.objective)
        pick = best
        if self.within_noise is not None:
            is_known = [
                (self.within_noise.mae if each.accuracy is None else each.num_images) is not None
                for each in self.candidates
            ]
            if not all(is_known):
                raise ValueError("within_noise: expected null, as the noise of some candidates is not known")
            cheaper = cheapest_as_accurate(self.candidates, AccuracyNoise(self.within_noise.mae), best)
            if self.within_noise.cheapest != cheaper:
                raise ValueError(f"within_noise.cheapest: got {self.within_noise.cheapest}, expected {cheaper}")
            pick = best if self.prefer == "accurate" or cheaper is None else cheaper
        if (self.front, self.pick) != (front, pick) or self.most_accurate not in (None, best):
            got = f"pick {self.pick} and {len(self.front)} on the front"
            raise ValueError(f"front and pick: got {got}, expected those of the candidates: {pick} and {len(front)}")
        return self

    def candidate(self, arch_id: str) -> Candidate:
        """Return the candidate of a name; there is one."""
        return next(candidate for candidate in self.candidates if candidate.arch_id == arch_id)


class AccuracyModel(Section):
    """Where the accuracies of a search come from."""

    kind: Literal["measured", "clients", "predicted"]
    """`measured`: on the validation images. `clients`: by the clients, on images they hold out. `predicted`: of those
    that were not measured before, from those that were."""
    fitted_on: Literal["measured", "clients"] | None = None
    """What a predictor was fitted on; null without one."""
    predictor: Text | None = None
    """Kind of predictor; null without one."""
    hash: Sha256 | None = None
    """SHA-256 of the predictor's file; null without one."""
    num_measured: Count | None = None
    """Architectures it was fitted on; null without one."""
    kendall_tau: float | None = None
    """Rank correlation with measured accuracy on architectures it was not fitted on; null without one."""
    mae: NotNegative | None = None
    """Mean absolute error on these; null without one."""
    num_held_out: Count | None = None
    """How many these are; null without a predictor, and in older files."""


class FleetOption(Section):
    """What a fleet can do with at most so many different architectures."""

    num_artifacts: Count
    """Different architectures."""
    assigned: dict[str, ArchId]
    """For each device profile its architecture."""
    lost: dict[str, NotNegative]
    """For each device profile what it loses of the objective, such as accuracy, against its own best candidate."""


class Fleet(Section):
    """Few architectures for many devices, with the least accuracy lost in all."""

    max_artifacts: Count
    """Different architectures that were allowed."""
    options: Annotated[tuple[FleetOption, ...], Field(min_length=1)]
    """The best for each number of architectures with which every device has one that fits, ascending."""
    chosen: Count
    """`num_artifacts` of the option in force: the largest number that is allowed."""

    @property
    def option(self) -> FleetOption:
        """The option in force."""
        return next(option for option in self.options if option.num_artifacts == self.chosen)


class SearchResult(Section):
    """What one call found, for each of its device profiles."""

    schema_version: Literal[1] = Field(SCHEMA, alias="schema")
    """Version of this file format."""
    run: SearchedRun
    """The training run."""
    space: NamedHash
    """The search space, with the channels and classes of the run's data."""
    request: Sha256 | None = None
    """SHA-256 of all that decides what is found; null in older files."""
    seed: int
    """Decides every random choice."""
    accuracy_model: AccuracyModel = AccuracyModel(kind="measured")
    """Where the accuracies come from."""
    results: Annotated[tuple[DeviceResult, ...], Field(min_length=1)]
    """One per device profile."""
    fleet: Fleet | None = None
    """How few architectures serve all device profiles; null where that was not asked."""
    processor: Text | None = None
    """Kind of the processor that found it, such as `x86_64 AVX2`, on which the last digits of what is measured depend;
    null in older files."""
    seconds: NotNegative
    """Of the whole call."""

    @model_validator(mode="after")
    def _has_one_result_per_profile(self) -> "SearchResult":
        names = [result.profile.name for result in self.results]
        if len(set(names)) != len(names):
            raise ValueError(f"results: got the profiles {names}, expected each once")
        return self

    @model_validator(mode="after")
    def _assigns_candidates(self) -> "SearchResult":
        if self.fleet is None:
            return self
        if self.fleet.chosen not in [option.num_artifacts for option in self.fleet.options]:
            raise ValueError(f"fleet: got chosen {self.fleet.chosen}, expected the number of one of the options")
        for result in self.results:
            arch_ids = {candidate.arch_id for candidate in result.candidates}
            for option in self.fleet.options:
                if option.assigned.get(result.profile.name) not in arch_ids:
                    raise ValueError(f"fleet: expected a candidate of {result.profile.name} assigned to it")
        return self

    def chosen_for(self, name: str) -> Candidate:
        """Return what one device profile gets: what the fleet assigns to it, without a fleet its own pick.

        Raises:
            ConfigError: Nothing was searched for a profile of that name.
        """
        result = self.for_profile(name)
        arch_id = result.pick if self.fleet is None else self.fleet.option.assigned[name]
        return result.candidate(arch_id)

    def for_profile(self, name: str) -> DeviceResult:
        """Return what was found for one device profile.

        Raises:
            ConfigError: Nothing was searched for a profile of that name.
        """
        by_name = {result.profile.name: result for result in self.results}
        if name not in by_name:
            raise ConfigError(f"the search has no result for profile {name!r}{nearest(name, by_name)}")
        return by_name[name]

    def to_dict(self) -> dict[str, JsonValue]:
        """Return the file's JSON document."""
        return self.model_dump(mode="json", by_alias=True)


def load_result(path: Path) -> SearchResult:
    """Return what a search.json holds.

    Raises:
        ArtifactError: It cannot be read, is damaged or altered, or of another schema version.
    """
    content = b""
    try:
        content = read_bytes(path, MOST_BYTES_OF_JSON)
        result = SearchResult.model_validate_json(content)
        parse_json(content)
        for found in result.results:
            for candidate in found.candidates:
                candidate.to_architecture()
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error
    except (ValueError, ConfigError) as error:
        if _is_another_document(content):
            raise ArtifactError(f"{path}: holds no search; expected a search.json, as search writes it") from error
        problem = first_problem(error) if isinstance(error, ValidationError) else error
        raise ArtifactError(f"{path}: {problem}; search again") from error
    return result


def _is_another_document(content: bytes) -> bool:
    """Return whether a text is JSON that has nothing of a search."""
    try:
        found = parse_json(content)
    except ValueError:
        return False
    return not (isinstance(found, dict) and {"run", "space", "results"} & found.keys())


def front_and_best(candidates: Sequence[Candidate], goal: str) -> tuple[tuple[str, ...], str]:
    """Return the arch_ids of the front, fastest first, and that of the candidate that is best in the goal.

    Raises:
        ValueError: Not all candidates say how good they are in it.
    """
    counting = [row.name for row in objective.counting(goal)]
    known = {name: [candidate.worth(name) for candidate in candidates] for name in counting}
    values = {name: np.array(worth) for name, worth in known.items() if None not in worth}
    if goal not in values:
        raise ValueError(f"candidates: expected the {goal} of each, which is the objective")
    goodness_K = objective.goodness(goal, values[goal])
    best = objective.best_of(lambda index: candidates[index].arch_id, goodness_K, values["latency_ms"])
    front_F = objective.front(objective.minimised(values))
    return tuple(candidates[index].arch_id for index in front_F), candidates[best].arch_id


def cheapest_as_accurate(candidates: Sequence[Candidate], noise: AccuracyNoise, best: str) -> str | None:
    """Return the arch_id of the cheapest candidate that is as accurate as the best one within noise, or None.

    Args:
        candidates: All that counts; of more that were evaluated it would be the same.
        noise: Of their accuracies.
        best: The arch_id of the most accurate.
    """
    is_predicted_K = np.array([candidate.accuracy is None for candidate in candidates])
    scores = Scores(
        np.array([candidate.best_known_accuracy for candidate in candidates]),
        is_predicted_K=is_predicted_K,
        num_images_K=np.array([candidate.num_images or 0 for candidate in candidates]),
    )
    arch_ids = [candidate.arch_id for candidate in candidates]
    at = arch_ids.index(best)
    found = cheapest(
        arch_ids.__getitem__,
        noise.as_accurate(scores, at),
        np.array([candidate.latency_ms_predicted for candidate in candidates]),
        np.array([candidate.num_macs for candidate in candidates]),
        at,
    )
    return None if found is None else arch_ids[found]
