"""What training a run came to, read from its events."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from fedsup_deploy.artifact import weights
from fedsup_deploy.errors import ArtifactError
from fedsup_deploy.results import LEFT_OUT_IF_NONE, Result
from fedsup_deploy.run_events import AskedClients, Evaluation
from fedsup_deploy.runs import run as runs
from fedsup_deploy.runs.history import read_history


@dataclasses.dataclass(frozen=True)
class CornerAccuracy:
    """Share of the validation images classified correctly by the corners of the space, after recalibration.

    Args:
        largest: Of the largest subnet.
        smallest: Of the smallest.
        num_images: How many; None where an older version trained the run, and then no intervals either.
        largest_interval: The 95 % interval of `largest`.
        smallest_interval: That of `smallest`.
        balanced_largest: Balanced accuracy of the largest subnet: the mean recall of its classes; None where an older
            version trained the run, and the next as well.
        balanced_smallest: That of the smallest.
        balanced_largest_interval: The 95 % interval of `balanced_largest`.
        balanced_smallest_interval: That of `balanced_smallest`.
    """

    largest: float
    smallest: float
    num_images: int | None
    largest_interval: tuple[float, float] | None
    smallest_interval: tuple[float, float] | None
    balanced_largest: float | None
    balanced_smallest: float | None
    balanced_largest_interval: tuple[float, float] | None
    balanced_smallest_interval: tuple[float, float] | None


@dataclasses.dataclass(frozen=True)
class UpdateCounts:
    """What became of the updates that clients were asked for, over all rounds.

    Args:
        asked: How many were asked for.
        used: How many were averaged.
        rejected: How many came and were not used.
        absent: How many did not come.
    """

    asked: int
    used: int
    rejected: int
    absent: int


@dataclasses.dataclass(frozen=True)
class Trained(Result):
    """What training came to.

    Args:
        run: The run's folder.
        rounds: That were trained.
        accuracy: Of the supernet that is kept: at the last evaluation, or at the best.
        seconds: Of training in all.
        bytes_up: What clients have sent.
        bytes_down: What clients were sent.
        client_macs: Multiply-accumulates of clients' forward passes.
        updates: What became of clients' updates.
        unseen: The clients that took no part, by name or number; None where all did.
        kept_after: Rounds after which the supernet that is kept was best; None where it is the last.
        skipped_rounds: Rounds that missed the quorum and changed no weight; None where none did.
        late: Updates that were still expected when their round ended; None where none was.
        late_joined: Those of them that joined a later average; None where none has.
    """

    run: Path
    rounds: int
    accuracy: CornerAccuracy
    seconds: float
    bytes_up: int
    bytes_down: int
    client_macs: int
    updates: UpdateCounts
    unseen: tuple[str, ...] | None = dataclasses.field(default=None, metadata=LEFT_OUT_IF_NONE)
    kept_after: int | None = dataclasses.field(default=None, metadata=LEFT_OUT_IF_NONE)
    skipped_rounds: int | None = dataclasses.field(default=None, metadata=LEFT_OUT_IF_NONE)
    late: int | None = dataclasses.field(default=None, metadata=LEFT_OUT_IF_NONE)
    late_joined: int | None = dataclasses.field(default=None, metadata=LEFT_OUT_IF_NONE)


def summary(folder: Path) -> Trained:
    """Return what `train` returns, from the events of a run.

    Raises:
        ArtifactError: The events are missing or damaged.
    """
    supernet = folder / runs.SUPERNET
    kept_after = weights.checked(supernet, weights.read_document(supernet), weights.SupernetRecord).rounds
    history = read_history(folder)
    kept = history.evaluation_after(kept_after)
    if kept is None or not history.rounds:
        raise ArtifactError(f"{folder / runs.EVENTS}: a round or the last evaluation is missing; the supernet is not")
    trained, skipped, rounds = history.rounds, history.skipped, history.asked
    facts = runs.read_image_facts(folder)
    return Trained(
        run=folder,
        rounds=len(trained),
        accuracy=_corners(kept),
        seconds=round(sum(event.seconds for event in rounds), 2),
        bytes_up=sum(event.bytes_up for event in rounds),
        bytes_down=sum(event.bytes_down for event in rounds),
        client_macs=sum(event.client_macs for event in trained),
        updates=_updates(rounds),
        unseen=(facts.clients.unseen or None) if facts is not None and facts.clients is not None else None,
        kept_after=kept_after,
        skipped_rounds=len(skipped) or None,
        late=sum(len(event.late) for event in rounds) or None,
        late_joined=sum(len(event.late_joined) for event in trained) or None,
    )


def _updates(rounds: Sequence[AskedClients]) -> UpdateCounts:
    asked = sum(len(event.clients) for event in rounds)
    unused = sum(len(event.absent) for event in rounds)
    rejected = sum(len(event.rejected) for event in rounds)
    return UpdateCounts(asked, asked - unused, rejected, unused - rejected)


def _corners(event: Evaluation) -> CornerAccuracy:
    return CornerAccuracy(
        event.accuracy_largest,
        event.accuracy_smallest,
        event.num_images,
        event.interval("largest"),
        event.interval("smallest"),
        event.balanced_accuracy_largest,
        event.balanced_accuracy_smallest,
        _bounds(event.balanced_accuracy_largest_interval),
        _bounds(event.balanced_accuracy_smallest_interval),
    )


def _bounds(interval: list[float] | None) -> tuple[float, float] | None:
    return None if interval is None else (interval[0], interval[1])
