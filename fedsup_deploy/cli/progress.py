"""Progress of long work, drawn from the same events that a run writes to its log.

An event advances a bar if it has `done` and `total` (counts), and optionally `stage`: the bar's name, else its kind.
Rounds are told by what their events have anyway: `round`, from 0, in each of them, and `rounds` in `train_started`; how
long the rest takes stands there as well (`seconds_left`). Absent clients are told of in a line of their own, and so are
each of the `notes` of an event and each fault in the `health` of a run. Of updates that were `rejected` there is a line
for each reason a client gives, once.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from fedsup_deploy.events import Listener
from fedsup_deploy.ondevice.printable import printable

_DETAILS: Final = (
    "loss",
    "absent",
    "accuracy",
    "accuracy_smallest",
    "accuracy_largest",
    "latency_ms",
    "name",
    "profile",
)

#: Columns of a bar's line beside its name, the bar and two numbers: the stroke between them, the time, and blanks.
_WIDTH_OF_THE_REST: Final = 1 + 7 + 4
_LEAST_DETAIL: Final = 8
#: Accuracies that differ by less are not both shown.
_NOTABLE: Final = 0.01


class StageProgress(NamedTuple):
    """How far a stage has come."""

    stage: str
    done: int
    total: int
    detail: str
    left_s: float | None = None
    """How long it still takes, seconds, where the event says it."""


class Steps:
    """Reads events one after another."""

    def __init__(self) -> None:
        self._rounds: int | None = None
        self._details: dict[str, Any] = {}

    def read(self, event: dict[str, Any]) -> StageProgress | None:
        """Return what an event says about progress, or None."""
        self._rounds = event.get("rounds", self._rounds)
        kind = event["event"]
        stage, done, total = event.get("stage", kind), event.get("done"), event.get("total")
        # Of a round's absent clients, with the reasons, it is shown how many there are, if any.
        values = {**event, "absent": len(event.get("absent", ())) or None}
        details = {key: _with_sample(values, key) for key in _DETAILS if values.get(key) is not None}
        if done is None and "round" in event:
            # Rounds keep showing the accuracies of their last evaluation.
            self._details.pop("absent", None)
            self._details |= details
            is_over = kind != "train_started"
            stage, done, total, details = "rounds", event["round"] + is_over, self._rounds, self._details
        if done is None or not total:
            return None
        shown = ", ".join(f"{key} {_short(details[key])}" for key in _DETAILS if key in details)
        return StageProgress(stage, done, total, shown, event.get("seconds_left"))


#: Lines that kinds of events are told in.
_LINES: Final[dict[str, Callable[[dict[str, Any]], list[str]]]] = {
    "health": lambda event: [f"warning: {event['words']}"],
    "tracking_stopped": lambda event: [f"warning: nothing more is written for {event['tracker']}: {event['reason']}"],
    "joined": lambda event: [f"joined: {', '.join(event['names'].values())}; from round {event['since_round']} on"],
    "not_joined": lambda event: [f"not joined: {name}: {reason}" for name, reason in event["devices"].items()],
}


class Remarks:
    """Reads events one after another."""

    def __init__(self) -> None:
        self._last = ""
        self._rejected: set[tuple[int, str]] = set()

    def read(self, event: dict[str, Any]) -> list[str]:
        """Return lines to be read beside the progress: notes, warnings, who is absent unless the last said the same."""
        if (told := _LINES.get(event["event"])) is not None:
            return told(event)
        if event["event"] not in {"absences", "rejected"}:
            return [f"note: {note}" for note in event.get("notes", ())]
        # Here, not above: not every command has clients.
        from fedsup_deploy.federation.client import called

        if event["event"] == "rejected":
            key, client = (event["client"], event["reason"]), called(event["client"], event.get("client_name"))
            line = f"training in round {event['round']}: the update of {client} was rejected: {event['reason']}"
            lines = [] if key in self._rejected else [line]
            self._rejected.add(key)
            return lines
        client, reason = next(iter(event["absent"].items()))
        line = f"{event['what']}: {len(event['absent'])} of {event['num_asked']} clients absent"
        line, before = (
            f"{line} ({called(int(client), event.get('absent_names', {}).get(client))}: {reason})",
            self._last,
        )
        self._last = line
        return [] if line == before else [line]


def remarks_into(write: Callable[[str], None]) -> Listener:
    """Return a listener that shows no progress, only what nobody should miss.

    Such are notes, as of images that are not used, and warnings. Absent clients it leaves to results and records.

    Args:
        write: Takes a line.
    """
    remarks = Remarks()

    def listener(event: dict[str, Any]) -> None:
        if event["event"] != "absences":
            for remark in remarks.read(event):
                write(remark)

    return listener


class Lines:
    """A listener that writes one line for every tenth of a stage: for logs and pipes.

    Args:
        write: Takes a line.
        clock: Returns seconds; only differences matter.
    """

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._write, self._clock = write, clock
        self._steps, self._remarks = Steps(), Remarks()
        self._starts: dict[str, tuple[int, float]] = {}
        self._tenths: dict[str, int] = {}

    def __call__(self, event: dict[str, Any]) -> None:
        """Write a line if the event completes another tenth of its stage, and its remarks."""
        for remark in self._remarks.read(event):
            self._write(remark)
        step = self._steps.read(event)
        if step is None:
            return
        now, tenth = self._clock(), 10 * step.done // step.total
        first_done, start = self._starts.setdefault(step.stage, (step.done, now))
        if tenth <= self._tenths.get(step.stage, -1):
            return
        self._tenths[step.stage] = tenth
        parts = [f"{step.stage} {step.done}/{step.total}", *([step.detail] if step.detail else [])]
        left_s = step.left_s
        if left_s is None and first_done < step.done < step.total:
            left_s = (now - start) / (step.done - first_done) * (step.total - step.done)
        parts += [f"about {round(left_s)} s left"] if left_s is not None and round(left_s) else []
        self._write(", ".join(parts))


@contextlib.contextmanager
def bars() -> Iterator[Listener]:
    """Yield a listener that draws one progress bar per stage on stderr, with the time left."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TaskID, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class TimeLeftColumn(TimeRemainingColumn):
        """What the events say, counted down; where they say nothing, what the speed until now comes to."""

        def render(self, task: Task) -> Text:
            ends_at = task.fields["ends_at"]
            if ends_at is None:
                return super().render(task)
            minutes, seconds = divmod(max(0, round(ends_at - task.get_time())), 60)
            hours, minutes = divmod(minutes, 60)
            return Text(f"{hours:d}:{minutes:02d}:{seconds:02d}", style="progress.remaining")

    console = Console(file=sys.stderr)
    # On a narrow terminal it is the details that are cut, not how far the work is and how long it takes.
    bar_width = min(40, console.width // 4)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width),
        MofNCompleteColumn(),
        TimeLeftColumn(),
        TextColumn("{task.fields[detail]}", markup=False),
    )
    steps, remarks = Steps(), Remarks()
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=console) as progress:

        def listener(event: dict[str, Any]) -> None:
            for remark in remarks.read(event):
                progress.console.print(printable(remark), markup=False, highlight=False)
            step = steps.read(event)
            if step is None:
                return
            if step.stage not in tasks:
                tasks[step.stage] = progress.add_task(
                    step.stage, total=step.total, completed=step.done, detail="", ends_at=None
                )
            taken = max(map(len, tasks)) + bar_width + 2 * len(str(step.total)) + _WIDTH_OF_THE_REST
            detail = shortened(step.detail, console.width - taken)
            ends_at = None if step.left_s is None else progress.get_time() + step.left_s
            progress.update(tasks[step.stage], completed=step.done, total=step.total, detail=detail, ends_at=ends_at)

        yield listener


def shortened(text: str, width: int) -> str:
    """Return a text, or as much of its beginning as fits; nothing where hardly anything would."""
    if len(text) <= width:
        return text
    return f"{text[: width - 1]}…" if width >= _LEAST_DETAIL else ""


def _with_sample(event: dict[str, Any], key: str) -> object:
    """Return a value of an event; of an accuracy with the images it was found on, and its interval where it has one.

    The balanced accuracy stands beside it where it is another: where classes have different numbers of images.
    """
    value, interval, balanced = event[key], event.get(f"{key}_interval"), event.get(f"balanced_{key}")
    if not key.startswith("accuracy") or "num_images" not in event:
        return value
    bounds = "" if interval is None else f"{interval[0]:.2f}-{interval[1]:.2f}, "
    beside = "" if balanced is None or abs(balanced - value) < _NOTABLE else f", balanced {balanced:.3f}"
    return f"{value:.3f} ({bounds}{event['num_images']:,} images{beside})"


def _short(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else printable(str(value))
