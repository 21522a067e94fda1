"""How right a subnet is on each client, as `evaluate --per-client --json` has told it."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fedsup_deploy.accuracy import CountedAccuracy
from fedsup_deploy.artifact.document import JsonObject, first_problem
from fedsup_deploy.errors import ArtifactError
from fedsup_deploy.ondevice.reading import MOST_BYTES_OF_JSON, parse_json, read_bytes
from fedsup_deploy.report import words
from fedsup_deploy.report.figure import Figure, Row, Table, category, quantity, rows

#: Clients that are drawn and told one by one, those with the lowest accuracy.
MOST_DRAWN: Final = 20
#: Clients that are named in a line.
_MOST_NAMED: Final = 3
_AGAIN: Final = "make it with fedsup-deploy evaluate RUN --arch ARCH --per-client --json"

_Count = Annotated[int, Field(ge=0, le=10**15)]
_Share = Annotated[float, Field(ge=0, le=1)]


class _Part(BaseModel):
    """Part of the document; later versions may say more. Converts no value."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)


class ClientAnswers(_Part):
    """How right it is on one client."""

    client: _Count
    """Its number."""
    name: str | None
    """What people call it; null where it has a number only."""
    num_images: Annotated[int, Field(ge=1, le=10**15)]
    """Images of it that were looked at."""
    num_right: _Count
    """Of these, answered rightly."""

    @model_validator(mode="after")
    def _has_no_more_right_than_there_are(self) -> "ClientAnswers":
        if self.num_right > self.num_images:
            raise ValueError(f"got {self.num_right} right of {self.num_images}")
        return self

    @property
    def accuracy(self) -> CountedAccuracy:
        """The share of right answers."""
        return CountedAccuracy(self.num_right, self.num_images)

    @property
    def called(self) -> str:
        """What it is called."""
        return f"client {self.client}" if self.name is None else words.short(self.name)


class OverClients(_Part):
    """The same over clients."""

    images: str
    """Which of their images."""
    accuracy_mean: _Share
    """Mean over clients."""
    worst_decile: _Share
    """Mean of the tenth of them with the lowest."""
    each: Annotated[tuple[ClientAnswers, ...], Field(min_length=1)]
    """Of each client."""


class SubnetOnClients(_Part):
    """What `evaluate --per-client --json` prints."""

    run: str
    """The run's folder."""
    arch_id: str
    """The subnet."""
    clients: OverClients
    """Over the clients that took part."""
    unseen: OverClients | None = None
    """Over those that took no part; null where all did."""

    @property
    def worst(self) -> list[ClientAnswers]:
        """The clients that took part, the least right first, then those with more images."""
        return sorted(self.clients.each, key=lambda each: (each.accuracy.share, -each.num_images, each.client))


@dataclasses.dataclass(frozen=True)
class EvaluationMaterial:
    """An evaluation to show.

    Args:
        name: What it is called on the page.
        evaluation: It.
    """

    name: str
    evaluation: SubnetOnClients


def is_evaluation(path: Path) -> bool:
    """Return whether a JSON file is what `evaluate` prints; False also for what cannot be read."""
    try:
        document = parse_json(read_bytes(path, MOST_BYTES_OF_JSON))
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and {"arch_id", "split", "schedule"} <= document.keys()


def load_evaluation(path: Path) -> SubnetOnClients:
    """Return what a file of `evaluate --per-client --json` holds.

    Raises:
        ArtifactError: It cannot be read, is damaged, or tells of no single client.
    """
    try:
        content = read_bytes(path, MOST_BYTES_OF_JSON)
        parse_json(content)
        return SubnetOnClients.model_validate_json(content)
    except ValidationError as error:
        raise ArtifactError(f"{path}: tells of no client: {first_problem(error)}; {_AGAIN}") from error
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: cannot be read: {type(error).__name__}; {_AGAIN}") from error


def facts(evaluation: SubnetOnClients) -> Table:
    """Return what is known of all clients together."""
    told = [("subnet", evaluation.arch_id), *_over(evaluation.clients, "")]
    if evaluation.unseen is not None:
        told += _over(evaluation.unseen, ", unseen")
    return Table.of(("", ""), told)


def _over(found: OverClients, which: str) -> Iterator[tuple[str, str]]:
    images = sum(each.num_images for each in found.each)
    number = words.counted(len(found.each), "client")
    yield f"clients{which}", f"{number} with {words.counted(images, 'image')} {found.images}"
    yield f"mean over clients{which}", words.share(found.accuracy_mean)
    yield f"worst tenth{which}", words.share(found.worst_decile)


def figure(evaluation: SubnetOnClients, name: str) -> Figure:
    """Return the figure of the clients that it is worst for."""
    ordered = evaluation.worst
    shown = ordered[:MOST_DRAWN]
    found: list[Row] = [
        {
            "client": each.called,
            "accuracy": round(each.accuracy.share, 6),
            "low": each.accuracy.interval[0],
            "high": each.accuracy.interval[1],
        }
        for each in shown
    ]
    x = quantity("accuracy", "accuracy", format=".0%")
    layers: list[JsonObject] = [
        {"mark": {"type": "rule", "style": "range"}, "encoding": {"x": {**x, "field": "low"}, "x2": {"field": "high"}}},
        {"mark": {"type": "point", "size": 70}, "encoding": {"x": x}},
    ]
    of = "all" if len(shown) == len(ordered) else f"{len(shown)} of {len(ordered):,}"
    return Figure(
        name,
        "The clients it is worst for",
        f"The share of right answers on each client, worst first, {of}; strokes are 95 % intervals, wide where a "
        "client has few images. The axis does not begin at 0.",
        {**rows(found), "height": 20 * len(found), "encoding": {"y": category("client")}, "layer": [*layers]},
        Table.of(("client", "accuracy", "images"), [_row(each) for each in ordered]),
    )


def _row(each: ClientAnswers) -> tuple[str, str, str]:
    return each.called, words.share(each.accuracy.share, each.accuracy.interval), f"{each.num_images:,}"


def worst_in_words(material: EvaluationMaterial) -> str:
    """Return for which clients a subnet is worst, in a line."""
    found = material.evaluation
    worst = ((one.called, one.accuracy) for one in found.worst[:_MOST_NAMED])
    some = ", ".join(f"{called} {words.share(right.share, right.interval)}" for called, right in worst)
    mean, tenth = (words.share(share) for share in (found.clients.accuracy_mean, found.clients.worst_decile))
    of = f"of images {found.clients.images}"
    return f"{some}; in the mean of all clients {mean}, of the worst tenth {tenth}, {of}"
