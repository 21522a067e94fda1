"""`History`: what happened in a training run, read from its events. Torch-free.

Owns what the events of training look like to those who show them. Events of later versions may say more.
"""

import dataclasses
from pathlib import Path
from typing import Annotated, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedsup_deploy.accuracy import CountedAccuracy
from fedsup_deploy.artifact.document import first_problem
from fedsup_deploy.errors import ArtifactError
from fedsup_deploy.events import read_events
from fedsup_deploy.runs.run import EVENTS

Count = Annotated[int, Field(ge=0, le=10**15)]
Share = Annotated[float, Field(ge=0, le=1)]
Bounds = Annotated[list[float], Field(min_length=2, max_length=2)]
#: The corners of a space, as the names of their accuracies end.
CORNERS: Final = ("largest", "smallest")


class _Event(BaseModel):
    """Part of a line; converts no value."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)


class Round(_Event):
    """A `round` event."""

    round: Count
    """Its number, from 0."""
    loss: float
    """Mean over the clients' losses."""
    loss_before: float | None = None
    """Mean of the losses that the clients began with; None where an older version trained the run."""
    clients: list[Count]
    """Those that were asked."""
    absent: dict[str, str] = {}
    """Those of them that have not answered, by number, with the reason."""
    absent_names: dict[str, str] = {}
    """Names of those that have one, by number."""
    rejected: list[Count] = []
    """Those of them whose update came and was not used; none where an older version trained the run."""
    bytes_down: Count
    """What clients were sent."""
    bytes_up: Count
    """What they have sent."""
    seconds: Annotated[float, Field(ge=0, le=10**15)]
    """How long it took."""

    @property
    def answered(self) -> list[int]:
        """The clients that have answered."""
        return [client for client in self.clients if str(client) not in self.absent]


class Evaluation(_Event):
    """An `evaluation` event: accuracies of the corners of the space, after recalibration."""

    round: Count
    """After which round."""
    accuracy_largest: Share
    """Of the largest subnet."""
    accuracy_smallest: Share
    """Of the smallest."""
    num_images: Annotated[int, Field(ge=1)] | None = None
    """How many; None where an older version trained the run."""

    def accuracy(self, corner: str) -> float:
        """Return the accuracy of one of `CORNERS`."""
        share: float = getattr(self, f"accuracy_{corner}")
        return share

    def interval(self, corner: str) -> tuple[float, float] | None:
        """Return the 95 % interval of it; None where nobody knows the number of images."""
        if self.num_images is None:
            return None
        return CountedAccuracy.of_share(self.accuracy(corner), self.num_images).interval


class HealthWarning(_Event):
    """A `health` event: a fault that training has warned of."""

    round: Count
    """In which round."""
    words: str
    """What is wrong, and what to do."""


class _Started(_Event):
    """A `train_started` event."""

    num_clients: Count
    num_images: Count | None = None
    notes: list[str] = []


@dataclasses.dataclass(frozen=True)
class History:
    """What happened in a run.

    Args:
        rounds: In their order.
        evaluations: In their order.
        health: What training has warned of, in its order.
        num_clients: Clients that may take part; None where the run does not say.
        num_images: All of theirs; None where the run does not say.
        notes: What was said of the images when the run began.
    """

    rounds: tuple[Round, ...]
    evaluations: tuple[Evaluation, ...]
    health: tuple[HealthWarning, ...]
    num_clients: int | None
    num_images: int | None
    notes: tuple[str, ...]


def read_history(folder: Path) -> History:
    """Return what happened in the run of a folder, which may still be trained.

    Raises:
        ArtifactError: The events are missing or damaged.
    """
    path = folder / EVENTS
    lines: dict[str, list[tuple[int, dict[str, object]]]] = {}
    for number, event in enumerate(read_events(path), start=1):
        lines.setdefault(str(event["event"]), []).append((number, {**event}))
    started = _parsed(_Started, lines.get("train_started", [])[-1:], path)
    return History(
        rounds=_parsed(Round, lines.get("round", []), path),
        evaluations=_parsed(Evaluation, lines.get("evaluation", []), path),
        health=_parsed(HealthWarning, lines.get("health", []), path),
        num_clients=started[0].num_clients if started else None,
        num_images=started[0].num_images if started else None,
        notes=tuple(started[0].notes) if started else (),
    )


_Kind = TypeVar("_Kind", bound=_Event)


def _parsed(kind: type[_Kind], lines: list[tuple[int, dict[str, object]]], path: Path) -> tuple[_Kind, ...]:
    found = []
    for number, event in lines:
        try:
            found.append(kind.model_validate(event))
        except ValidationError as error:
            raise ArtifactError(f"{path}:{number}: damaged: {first_problem(error)}; remove the line") from error
    return tuple(found)
