"""What a training run records in its `events.jsonl`: one class per kind of event. Torch-free.

The one definition: who writes makes one of these, who reads gets one, and docs/events.md is written from them. A new
kind is a class here and its place in `KINDS`; a new field has a default, for runs that an older version has begun. Then
`tools/events_page.py` writes the page again.
"""

from typing import Annotated, Any, ClassVar, Final

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from fedsup_deploy.accuracy import CountedAccuracy

#: The corners of a space, as the names of their accuracies end.
CORNERS: Final = ("largest", "smallest")
_MOST: Final = 10**15


def _in(unit: str) -> dict[str, Any]:
    return {"unit": unit}


RoundIndex = Annotated[int, Field(ge=0, le=_MOST, json_schema_extra=_in("round, from 0"))]
Rounds = Annotated[int, Field(ge=0, le=_MOST, json_schema_extra=_in("rounds"))]
Clients = Annotated[int, Field(ge=0, le=_MOST, json_schema_extra=_in("clients"))]
ClientIndex = Annotated[int, Field(ge=0, le=_MOST, json_schema_extra=_in("client, from 0"))]
Images = Annotated[int, Field(ge=0, le=_MOST, json_schema_extra=_in("images"))]
Bytes = Annotated[int, Field(ge=0, le=_MOST, json_schema_extra=_in("bytes"))]
Macs = Annotated[int, Field(ge=0, le=10**24, json_schema_extra=_in("multiply-accumulates"))]
Seconds = Annotated[float, Field(ge=0, le=_MOST, json_schema_extra=_in("seconds"))]
Loss = Annotated[float, Field(ge=-1e40, le=1e40, json_schema_extra=_in("nats"))]
Share = Annotated[float, Field(ge=0, le=1, json_schema_extra=_in("share"))]
Bounds = Annotated[list[float], Field(min_length=2, max_length=2, json_schema_extra=_in("share"))]
#: The number of a client, as a key of JSON.
ClientNumber = Annotated[str, Field(pattern=r"^\d{1,15}$")]


class _Part(BaseModel):
    """Part of a line; converts no value. What a later version says besides is not read."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class RunEvent(_Part):
    """What all kinds of events have.

    Attributes:
        event: What stands under this key in a line.
        since: The version that was the first to record it. A field that came later says its own: `{"since": ...}` in
            its `json_schema_extra`.
    """

    event: ClassVar[str]
    since: ClassVar[str] = "0.1.0"

    unix_time_s: Annotated[float, Field(ge=0, le=_MOST, json_schema_extra=_in("seconds since 1970"))] | None = None
    """When it was recorded; what listeners hear has none."""

    def document(self) -> dict[str, JsonValue]:
        """Return it as listeners hear it: what was said of it, in the order of its fields."""
        said: dict[str, JsonValue] = self.model_dump(mode="json", exclude_unset=True, exclude={"unix_time_s"})
        return {"event": self.event, **said}


class Phase(_Part):
    """Rounds in a row in which clients train alike."""

    rounds: Rounds
    """How many."""
    client_macs: Macs
    """Of the forward passes of all clients of one round, as planned, in the mean."""


class TrainStarted(RunEvent):
    """A run begins, or goes on; of a run that was resumed there are several."""

    event = "train_started"

    round: RoundIndex
    """The first round that is to be trained."""
    rounds: Rounds
    """Of the whole run."""
    num_clients: Clients
    """Those that may take part."""
    num_unseen_clients: Clients = 0
    """Those that take no part, for `partition.unseen`."""
    num_images: Images | None = None
    """All of theirs; null or missing where an older version began the run."""
    num_architectures: Annotated[int, Field(ge=0, json_schema_extra=_in("architectures"))] | None = None
    """Of the search space."""
    notes: list[str] = []
    """What was said of the images, such as which of them are not used."""
    phases: list[Phase] = []
    """The work of the run as planned, from its first round on; empty where an older version began it."""
    evaluate_every: Rounds | None = None
    """Rounds from one evaluation to the next; there is one after the last round as well."""
    evaluation_macs: Macs | None = None
    """Of the forward passes of one evaluation."""
    forecast: dict[str, JsonValue] | None = None
    """What rounds will send to clients of each tier, as `train --dry-run --json` has it."""
    seconds_left: Seconds | None = None
    """Until the end of the run; null where nothing was trained yet."""


class AskedClients(RunEvent):
    """What all rounds have, whether anything came of them."""

    round: RoundIndex
    """Its number."""
    clients: list[ClientIndex]
    """Numbers of those that were asked, ascending."""
    absent: dict[ClientNumber, str] = {}
    """Of those without an update that was used, by number, the reason."""
    absent_names: dict[ClientNumber, str] = {}
    """Names of those of them that have one, by number."""
    rejected: list[ClientIndex] = []
    """Those of them whose update came and was not used; none where an older version trained the run."""
    late: list[ClientIndex] = []
    """Those of them that were still expected to answer when the round ended."""
    bytes_down: Bytes
    """Size of the tensors that clients were sent."""
    bytes_up: Bytes
    """Size of the tensors that they have sent."""
    seconds: Seconds
    """How long it took."""
    seconds_left: Seconds | None = None
    """Until the end of the run, by all that was seen until now."""

    @property
    def answered(self) -> list[int]:
        """The clients whose update was used, ascending."""
        return [client for client in self.clients if str(client) not in self.absent]


class RoundSkipped(AskedClients):
    """Too few clients have answered in a round: the weights stay as they were."""

    event = "round_skipped"

    notes: list[str] = []
    """What was missing."""


class Round(AskedClients):
    """A round is over."""

    event = "round"

    loss: Loss
    """Mean of the clients' losses over their steps, weighted by their images."""
    loss_before: Loss | None = None
    """The same of the losses that they began with: of what they were sent; null where no client has said it."""
    learning_rate: Annotated[float, Field(ge=0, json_schema_extra=_in("step size"))] | None = None
    """That the clients used."""
    late_joined: dict[ClientNumber, Rounds] = {}
    """Whose update of an earlier round was used, by number, how many rounds ago that was."""
    late_refused: dict[ClientNumber, str] = {}
    """Whose late update was not used, by number, the reason."""
    client_macs: Macs = 0
    """Of the forward passes of the clients whose update was used."""


class Rejected(RunEvent):
    """The update of a client came in a round and was not used: docs/updates.md."""

    event = "rejected"

    round: RoundIndex
    """In which round."""
    client: ClientIndex
    """Whose it was."""
    client_name: str | None = None
    """The client's name, where it has one."""
    reason: str
    """Why; it has no number of the client's in it."""


class Evaluation(RunEvent):
    """The largest and the smallest subnet were evaluated, after one-shot recalibration.

    Measures are those of docs/measures.md, each with its 95 % interval.
    """

    event = "evaluation"

    round: RoundIndex
    """After which round."""
    accuracy_largest: Share
    """Of the largest subnet."""
    accuracy_largest_interval: Bounds | None = None
    """95 %."""
    balanced_accuracy_largest: Share | None = None
    """Of the largest subnet."""
    balanced_accuracy_largest_interval: Bounds | None = None
    """95 %."""
    macro_f1_largest: Share | None = None
    """Of the largest subnet."""
    macro_f1_largest_interval: Bounds | None = None
    """95 %."""
    auc_largest: Share | None = None
    """Of the largest subnet, where there are two classes."""
    auc_largest_interval: Bounds | None = None
    """95 %."""
    calibration_error_largest: Share | None = None
    """Of the largest subnet."""
    calibration_error_largest_interval: Bounds | None = None
    """95 %."""
    num_images: Annotated[int, Field(ge=1, le=_MOST, json_schema_extra=_in("images"))] | None = None
    """How many both were evaluated on; missing where an older version trained the run."""
    accuracy_smallest: Share
    """Of the smallest subnet."""
    accuracy_smallest_interval: Bounds | None = None
    """95 %."""
    balanced_accuracy_smallest: Share | None = None
    """Of the smallest subnet."""
    balanced_accuracy_smallest_interval: Bounds | None = None
    """95 %."""
    macro_f1_smallest: Share | None = None
    """Of the smallest subnet."""
    macro_f1_smallest_interval: Bounds | None = None
    """95 %."""
    auc_smallest: Share | None = None
    """Of the smallest subnet, where there are two classes."""
    auc_smallest_interval: Bounds | None = None
    """95 %."""
    calibration_error_smallest: Share | None = None
    """Of the smallest subnet."""
    calibration_error_smallest_interval: Bounds | None = None
    """95 %."""
    seconds: Seconds | None = None
    """How long it took; missing where an older version trained the run."""
    seconds_left: Seconds | None = None
    """Until the end of the run, by all that was seen until now."""

    @model_validator(mode="after")
    def _counts(self) -> "Evaluation":
        for corner in CORNERS:
            self.interval(corner)
        return self

    def accuracy(self, corner: str) -> float:
        """Return the accuracy of one of `CORNERS`."""
        share: float = getattr(self, f"accuracy_{corner}")
        return share

    def interval(self, corner: str) -> tuple[float, float] | None:
        """Return the 95 % interval of it; None where nobody knows the number of images."""
        if self.num_images is None:
            return None
        return CountedAccuracy.of_share(self.accuracy(corner), self.num_images).interval


class EvaluationSkipped(RunEvent):
    """Too few clients have answered in an evaluation after a round, so there is none; the run goes on."""

    event = "evaluation_skipped"

    round: RoundIndex
    """After which round."""
    notes: list[str] = []
    """What was missing."""
    seconds_left: Seconds | None = None
    """Until the end of the run, by all that was seen until now."""


class HealthWarning(RunEvent):
    """Training has warned of a fault: docs/health.md."""

    event = "health"

    round: RoundIndex
    """In which round."""
    kind: str
    """Which watch has found it."""
    subject: str
    """Of whom: a tier or a client; empty where it is of all."""
    words: str
    """What is wrong, and what to do."""
    figures: dict[str, JsonValue]
    """What it was found by: docs/health.md has their names."""


class Absences(RunEvent):
    """Of clients that were asked some did not answer. Of a round that came to its end, its own event says it."""

    event = "absences"

    what: str
    """What they were asked for."""
    num_asked: Clients
    """How many were."""
    absent: dict[ClientNumber, str]
    """Of those without a usable answer, by number, the reason."""
    absent_names: dict[ClientNumber, str] = {}
    """Names of those of them that have one, by number."""
    round: RoundIndex | None = None
    """In or after which round."""


class Joined(RunEvent):
    """Devices take part that have come since the run began: `federation.joining`."""

    event = "joined"

    round: RoundIndex
    """After which round."""
    since_round: RoundIndex
    """The first round that they can take part in."""
    names: dict[ClientNumber, str]
    """Their names, by number."""
    num_images: Images
    """All of theirs."""


class NotJoined(RunEvent):
    """Devices are there that cannot take part; told of again where the reason is another."""

    event = "not_joined"

    round: RoundIndex
    """After which round."""
    devices: dict[str, str]
    """By name, the reason."""


class TrackingStopped(RunEvent):
    """A tracker has failed, so nothing more is written for it; the run goes on."""

    event = "tracking_stopped"

    round: RoundIndex
    """In which round that was seen."""
    tracker: str
    """Its name, as of `train --track`."""
    reason: str
    """What went wrong."""


#: All kinds, in the order of docs/events.md.
KINDS: Final[dict[str, type[RunEvent]]] = {
    each.event: each
    for each in (
        TrainStarted,
        Round,
        RoundSkipped,
        Rejected,
        Evaluation,
        EvaluationSkipped,
        HealthWarning,
        Absences,
        Joined,
        NotJoined,
        TrackingStopped,
    )
}
