"""What training a run came to, read from its events."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from typing_extensions import NotRequired, TypedDict

from fedsup_deploy.accuracy import CountedAccuracy
from fedsup_deploy.artifact import weights
from fedsup_deploy.errors import ArtifactError
from fedsup_deploy.events import read_events
from fedsup_deploy.results import LEFT_OUT_IF_NONE, Result
from fedsup_deploy.runs import run as runs


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


class _RoundEvent(TypedDict):
    """What a summary needs of a `round` event; runs of older versions know no `client_macs` and no `rejected`."""

    seconds: float
    bytes_up: int
    bytes_down: int
    client_macs: NotRequired[int]
    clients: list[int]
    absent: dict[str, str]
    rejected: NotRequired[list[int]]


class _EvaluationEvent(TypedDict):
    """The same of an evaluation; runs of older versions know no `num_images`, and no balanced accuracy."""

    accuracy_largest: float
    accuracy_smallest: float
    num_images: NotRequired[int]
    balanced_accuracy_largest: NotRequired[float]
    balanced_accuracy_smallest: NotRequired[float]
    balanced_accuracy_largest_interval: NotRequired[list[float]]
    balanced_accuracy_smallest_interval: NotRequired[list[float]]


def summary(folder: Path) -> Trained:
    """Return what `train` returns, from the events of a run.

    Raises:
        ArtifactError: The events are missing or damaged.
    """
    path, supernet = folder / runs.EVENTS, folder / runs.SUPERNET
    kept_after = weights.checked(supernet, weights.read_document(supernet), weights.SupernetRecord).rounds
    events = read_events(path)
    of_kind = {kind: [event for event in events if event["event"] == kind] for kind in ("round", "evaluation")}
    try:
        rounds = TypeAdapter(list[_RoundEvent]).validate_python(of_kind["round"], strict=True)
        evaluations = [e for e in of_kind["evaluation"] if kept_after is None or e.get("round") == kept_after - 1]
        kept = TypeAdapter(_EvaluationEvent).validate_python(evaluations[-1], strict=True)
    except (LookupError, ValidationError) as error:
        raise ArtifactError(
            f"{path}: a round or the last evaluation is missing or damaged; the supernet is not"
        ) from error
    facts = runs.read_image_facts(folder)
    return Trained(
        run=folder,
        rounds=len(rounds),
        accuracy=_corners(kept),
        seconds=round(sum(event["seconds"] for event in rounds), 2),
        bytes_up=sum(event["bytes_up"] for event in rounds),
        bytes_down=sum(event["bytes_down"] for event in rounds),
        client_macs=sum(event.get("client_macs", 0) for event in rounds),
        updates=_updates(rounds),
        unseen=(facts.clients.unseen or None) if facts is not None and facts.clients is not None else None,
        kept_after=kept_after,
    )


def _updates(rounds: Sequence[_RoundEvent]) -> UpdateCounts:
    asked = sum(len(event["clients"]) for event in rounds)
    unused = sum(len(event["absent"]) for event in rounds)
    rejected = sum(len(event.get("rejected", ())) for event in rounds)
    return UpdateCounts(asked, asked - unused, rejected, unused - rejected)


def _corners(event: _EvaluationEvent) -> CornerAccuracy:
    shares, num_images = (event["accuracy_largest"], event["accuracy_smallest"]), event.get("num_images")
    largest, smallest = (None if num_images is None else _interval(share, num_images) for share in shares)
    return CornerAccuracy(
        *shares,
        num_images,
        largest,
        smallest,
        event.get("balanced_accuracy_largest"),
        event.get("balanced_accuracy_smallest"),
        _bounds(event.get("balanced_accuracy_largest_interval")),
        _bounds(event.get("balanced_accuracy_smallest_interval")),
    )


def _bounds(interval: list[float] | None) -> tuple[float, float] | None:
    return None if interval is None else (interval[0], interval[1])


def _interval(share: float, num_images: int) -> tuple[float, float]:
    return CountedAccuracy.of_share(share, num_images).interval
