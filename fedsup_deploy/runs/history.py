"""`History`: what happened in a training run, read from its events. Torch-free.

The one reader of a run's events, whether the run is over or goes on. Events of later versions may say more.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from fedsup_deploy.artifact.document import first_problem
from fedsup_deploy.errors import ArtifactError
from fedsup_deploy.events import read_events
from fedsup_deploy.run_events import (
    KINDS,
    AskedClients,
    Evaluation,
    HealthWarning,
    Round,
    RoundSkipped,
    RunEvent,
    TrainStarted,
)
from fedsup_deploy.runs.run import EVENTS
from fedsup_deploy.runs.time_left import TimeLeft

_Kind = TypeVar("_Kind", bound=RunEvent)


@dataclasses.dataclass(frozen=True)
class History:
    """What happened in a run.

    Args:
        rounds: Those in which clients have trained, in their order.
        evaluations: In their order.
        health: What training has warned of, in its order.
        num_clients: Clients that may take part; None where the run does not say.
        num_images: All of theirs; None where the run does not say.
        notes: What was said of the images when the run began.
        seconds_left: How long it still takes from the last event on; None where nobody knows.
        last_unix_time_s: When the last event was recorded; None where there is none.
        skipped: Rounds in which too few have answered, in their order.
        other: Events of other kinds, in their order.
    """

    rounds: tuple[Round, ...]
    evaluations: tuple[Evaluation, ...]
    health: tuple[HealthWarning, ...]
    num_clients: int | None
    num_images: int | None
    notes: tuple[str, ...]
    seconds_left: float | None = None
    last_unix_time_s: float | None = None
    skipped: tuple[RoundSkipped, ...] = ()
    other: tuple[RunEvent, ...] = ()

    @property
    def asked(self) -> tuple[AskedClients, ...]:
        """All rounds in their order, whether anything came of them."""
        return tuple(sorted((*self.rounds, *self.skipped), key=lambda each: each.round))

    def evaluation_after(self, rounds: int | None) -> Evaluation | None:
        """Return the evaluation after so many rounds, or the last one of all; None where there is none."""
        found = [each for each in self.evaluations if rounds in {None, each.round + 1}]
        return found[-1] if found else None

    @classmethod
    def of(cls, events: Sequence[RunEvent]) -> "History":
        """Return what the events of a run say, in their order."""
        told_apart = (Round, RoundSkipped, Evaluation, HealthWarning)
        started, time_left = _of(TrainStarted, events)[-1:], TimeLeft()
        for event in events:
            time_left.read(event)
        return cls(
            rounds=_of(Round, events),
            skipped=_of(RoundSkipped, events),
            evaluations=_of(Evaluation, events),
            health=_of(HealthWarning, events),
            num_clients=started[0].num_clients if started else None,
            num_images=started[0].num_images if started else None,
            notes=tuple(started[0].notes) if started else (),
            seconds_left=time_left.seconds,
            last_unix_time_s=events[-1].unix_time_s if events else None,
            other=tuple(event for event in events if not isinstance(event, told_apart)),
        )


def read_history(folder: Path) -> History:
    """Return what happened in the run of a folder, which may still be trained.

    Raises:
        ArtifactError: The events are missing or damaged.
    """
    return History.of(read_run_events(folder))


def read_run_events(folder: Path) -> list[RunEvent]:
    """Return the events of the run of a folder, in their order, without those of kinds that nobody knows.

    Raises:
        ArtifactError: The file is missing, or a line is damaged.
    """
    return list(_parsed(folder / EVENTS))


def _parsed(path: Path) -> Iterator[RunEvent]:
    for number, line in enumerate(read_events(path), start=1):
        kind = KINDS.get(str(line["event"]))
        if kind is None:
            continue
        try:
            yield kind.model_validate(line)
        except ValidationError as error:
            raise ArtifactError(f"{path}:{number}: damaged: {first_problem(error)}; remove the line") from error


def _of(kind: type[_Kind], events: Sequence[RunEvent]) -> tuple[_Kind, ...]:
    return tuple(event for event in events if isinstance(event, kind))
