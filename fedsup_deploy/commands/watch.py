"""`fedsup-deploy watch`: what can be seen of a run, whether it goes on or is over. Changes nothing; torch-free."""

import dataclasses
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Literal

from fedsup_deploy import places
from fedsup_deploy.config.load import load_yaml, validate
from fedsup_deploy.config.schema import TrainConfig
from fedsup_deploy.errors import ArtifactError
from fedsup_deploy.federation.simulation import tiers_by_index
from fedsup_deploy.report import progress, trend
from fedsup_deploy.report.run_figures import RunMaterial, tier_words
from fedsup_deploy.results import Result
from fedsup_deploy.run_events import (
    CORNERS,
    AskedClients,
    Evaluation,
    EvaluationSkipped,
    HealthWarning,
    RoundSkipped,
    TrackingStopped,
    TrainStarted,
)
from fedsup_deploy.runs import run as runs
from fedsup_deploy.runs.history import History, read_history
from fedsup_deploy.space.search_space import SearchSpace

#: Rounds that say how long one takes now.
RECENT: Final = 10
#: Clients that are listed: those that were absent most often.
MOST_WORST: Final = 5

State = Literal["not begun", "running", "stopped", "ended"]


@dataclasses.dataclass(frozen=True)
class Size:
    """How right the subnet of one size was, round by round.

    Args:
        size: One of `CORNERS`.
        rounds: After how many rounds it was evaluated.
        accuracy: Its accuracy then.
        interval: The 95 % interval of the last; None where there is none.
        change: Mean of the last few evaluations less that of as many before; None before the second.
    """

    size: str
    rounds: tuple[int, ...]
    accuracy: tuple[float, ...]
    interval: tuple[float, float] | None
    change: float | None


@dataclasses.dataclass(frozen=True)
class AbsentClient:
    """A client without an update that was used, in some rounds.

    Args:
        client: Its number.
        name: Its name; None where it has none.
        asked: Rounds that asked it.
        absent: Rounds of these without a usable update of it.
        reason: The last reason.
    """

    client: int
    name: str | None
    asked: int
    absent: int
    reason: str


@dataclasses.dataclass(frozen=True)
class TierView:
    """The clients of one class of devices.

    Args:
        tier: Its number.
        trains: What its clients train.
        clients: How many may take part.
        asked: Updates that they were asked for.
        answered: Those of these that were used.
        never_asked: Clients of it that were asked in no round.
    """

    tier: int
    trains: str
    clients: int
    asked: int
    answered: int
    never_asked: int


@dataclasses.dataclass(frozen=True)
class Warned:
    """A fault that training has warned of.

    Args:
        round: In which round, from 1.
        kind: As of docs/health.md; `tracking_stopped` where a tracker has failed.
        words: What is wrong, and what to do.
    """

    round: int
    kind: str
    words: str


@dataclasses.dataclass(frozen=True)
class RunView(Result):
    """What can be seen of a run now. Rounds are counted from 1, as people do.

    Args:
        run: Its folder.
        state: `stopped` is a run that nobody on this machine trains now.
        rounds_done: Rounds that are over.
        rounds: Rounds of the whole run; None where nobody knows.
        seconds_left: How long it still takes; None where nobody knows.
        seconds_silent: Since its last event; None where there is none.
        seconds: All rounds and evaluations until now.
        seconds_a_round: The mean of the last `RECENT`, of fewer where there are fewer; None before the first.
        loss: Of each round.
        loss_before: The same of the losses that clients began with; None where nobody has said it.
        sizes: Accuracy by size; empty before the first evaluation.
        learning: Whether accuracy still rises, and whether more rounds would help; None before the second evaluation.
        fallen: Of each size whose accuracy is below its best, as far as can be told apart, that.
        num_images: Images of an evaluation; None where nobody knows.
        num_clients: Clients that may take part; None where nobody knows.
        asked: Updates that were asked for, in all rounds.
        answered: Those of these that were used.
        last_asked: Of the last round.
        last_answered: Of the last round.
        rejected: Of the updates that are missing those that came and were not used.
        never_asked: Clients that may take part and were asked in no round; None where nobody knows.
        worst: Clients that were absent most often, up to `MOST_WORST`.
        num_absent: Clients that were absent at least once.
        reasons: Why updates are missing, the most frequent reasons first, with their number.
        tiers: None where there is one, or nobody knows who is of which.
        bytes_down: What clients were sent.
        bytes_up: What they have sent.
        rounds_played: Rounds that these are of.
        bytes_a_client: What one client moves each time it is asked, in words; None before the first round.
        warnings: What training has warned of.
        notes: What was said of the images.
        next_commands: What goes on from here: of a run that was stopped the command that resumes it.
    """

    run: Path
    state: State
    rounds_done: int
    rounds: int | None
    seconds_left: float | None
    seconds_silent: float | None
    seconds: float
    seconds_a_round: float | None
    loss: tuple[float, ...]
    loss_before: tuple[float | None, ...]
    sizes: tuple[Size, ...]
    learning: str | None
    fallen: tuple[str, ...]
    num_images: int | None
    num_clients: int | None
    asked: int
    answered: int
    last_asked: int
    last_answered: int
    rejected: int
    never_asked: int | None
    worst: tuple[AbsentClient, ...]
    num_absent: int
    reasons: dict[str, int]
    tiers: tuple[TierView, ...] | None
    bytes_down: int
    bytes_up: int
    rounds_played: int
    bytes_a_client: str | None
    warnings: tuple[Warned, ...]
    notes: tuple[str, ...]
    next_commands: tuple[str, ...]

    @property
    def is_cut(self) -> bool:
        """Whether there is a supernet, but its log tells of fewer rounds than the run has."""
        return self.state == "ended" and self.rounds is not None and self.rounds_done < self.rounds


def watch(folder: Path, now_s: float) -> RunView:
    """Return what can be seen of a run in a folder.

    Args:
        folder: Of the run.
        now_s: The time, in seconds since 1970.

    Raises:
        ArtifactError: The folder is none of a run, or a file of it is damaged.
    """
    if not folder.is_dir():
        raise ArtifactError(f"no run at {folder}; `fedsup-deploy train` makes one")
    if not (folder / runs.EVENTS).is_file():
        # Training begins with its config in an empty folder; what holds other files alone is something else.
        if not (folder / runs.CONFIG).is_file() and any(not path.name.startswith(".") for path in folder.iterdir()):
            raise ArtifactError(f"no run at {folder}: no {runs.CONFIG} there; make one with `fedsup-deploy train`")
        return view_of(folder, History.of(()), _state(folder, History.of(())), now_s)
    history = read_history(folder)
    return view_of(folder, history, _state(folder, history), now_s)


def view_of(folder: Path, history: History, state: State, now_s: float) -> RunView:
    """Return what can be seen of a run; arguments as of `watch`."""
    rounds, asked = history.rounds, history.asked
    starts = [event for event in history.other if isinstance(event, TrainStarted)]
    silent = None if history.last_unix_time_s is None else max(0.0, now_s - history.last_unix_time_s)
    worst = _absent(asked)
    recent = [each.seconds for each in rounds[-RECENT:]]
    last = asked[-1] if asked else None
    return RunView(
        run=folder,
        state=state,
        rounds_done=last.round + 1 if last is not None else 0,
        rounds=starts[-1].rounds if starts else None,
        seconds_left=_left(history, state, silent),
        seconds_silent=None if silent is None else round(silent, 3),
        seconds=round(
            sum(each.seconds for each in asked) + sum(each.seconds or 0.0 for each in history.evaluations), 3
        ),
        seconds_a_round=round(sum(recent) / len(recent), 3) if recent else None,
        loss=tuple(each.loss for each in rounds),
        loss_before=tuple(each.loss_before for each in rounds),
        sizes=_sizes(history.evaluations),
        learning=trend.in_words(history.evaluations),
        fallen=tuple(trend.fallen(history.evaluations)),
        num_images=history.evaluations[-1].num_images if history.evaluations else None,
        num_clients=history.num_clients,
        asked=sum(len(each.clients) for each in asked),
        answered=sum(len(each.answered) for each in asked),
        last_asked=0 if last is None else len(last.clients),
        last_answered=0 if last is None else len(last.answered),
        rejected=sum(len(each.rejected) for each in asked),
        never_asked=_never_asked(history),
        worst=tuple(worst[:MOST_WORST]),
        num_absent=len(worst),
        reasons=dict(Counter(reason for each in asked for reason in each.absent.values()).most_common()),
        tiers=_tiers(folder, history),
        bytes_down=sum(each.bytes_down for each in asked),
        bytes_up=sum(each.bytes_up for each in asked),
        rounds_played=len(asked),
        bytes_a_client=progress.bytes_of_a_client(asked),
        warnings=_warnings(history),
        notes=history.notes,
        next_commands=tuple(map(shlex.join, _next(folder, state))),
    )


def _next(folder: Path, state: State) -> Iterator[tuple[str, ...]]:
    """Yield the commands that go on with a run; its own config is what it was begun with, whatever was typed then."""
    config = folder / runs.CONFIG
    if state == "stopped" and config.is_file():
        yield ("fedsup-deploy", "train", "--config", str(config), "--out", str(folder), "--resume")
    if state == "ended":
        yield ("fedsup-deploy", "evaluate", str(folder), "--arch", "largest")
        yield ("fedsup-deploy", "profile", "list")
        yield ("fedsup-deploy", "search", "--run", str(folder), "--profile", "NAME")


def _never_asked(history: History) -> int | None:
    if history.num_clients is None:
        return None
    return max(0, history.num_clients - len({client for each in history.asked for client in each.clients}))


def _state(folder: Path, history: History) -> State:
    if (folder / runs.SUPERNET).exists():
        return "ended"
    if places.writer_of(folder) is not None:
        return "running"
    return "stopped" if history.rounds or history.other else "not begun"


def _left(history: History, state: State, silent: float | None) -> float | None:
    """Return how long a run still takes: of one that goes on, time has passed since its last event."""
    if state == "ended":
        return 0.0
    if history.seconds_left is None or state == "stopped":
        return history.seconds_left
    return round(max(0.0, history.seconds_left - (silent or 0.0)), 3)


def _sizes(evaluations: Sequence[Evaluation]) -> tuple[Size, ...]:
    if not evaluations:
        return ()
    after = tuple(each.round + 1 for each in evaluations)
    changes = {each.size: each.change for each in trend.of(evaluations)}
    return tuple(
        Size(
            size=corner,
            rounds=after,
            accuracy=tuple(each.accuracy(corner) for each in evaluations),
            interval=evaluations[-1].interval(corner),
            change=changes.get(corner),
        )
        for corner in CORNERS
    )


def _absent(rounds: Sequence[AskedClients]) -> list[AbsentClient]:
    """Return the clients that were absent, those that were so most often first."""
    asked = Counter(client for each in rounds for client in each.clients)
    missed = Counter(int(client) for each in rounds for client in each.absent)
    reasons = {int(client): reason for each in rounds for client, reason in each.absent.items()}
    names = {int(client): name for each in rounds for client, name in each.absent_names.items()}
    return [
        AbsentClient(client, names.get(client), asked[client], missed[client], reasons[client])
        for client in sorted(missed, key=lambda client: (-missed[client], client))
    ]


def _tiers(folder: Path, history: History) -> tuple[TierView, ...] | None:
    """Return what came of each tier; None where the tier of a client does not follow from its number."""
    if not ((folder / runs.CONFIG).is_file() and (folder / runs.SPACE).is_file()):
        return None
    config = validate(load_yaml(folder / runs.CONFIG), TrainConfig)
    run = runs.Run(folder, config, validate(load_yaml(folder / runs.SPACE), SearchSpace))
    material = RunMaterial(run, history, runs.read_image_facts(folder))
    seen, trains = material.seen, tier_words(material)
    if len(trains) < 2 or not seen or not material.has_tiers_by_number:
        return None
    tier_of = dict(zip(seen, tiers_by_index(len(seen), len(trains)), strict=True))
    clients = Counter(tier_of.values())
    asked = Counter(tier_of[client] for each in history.asked for client in each.clients if client in tier_of)
    answered = Counter(tier_of[client] for each in history.asked for client in each.answered if client in tier_of)
    once = {client for each in history.asked for client in each.clients if client in tier_of}
    never = clients - Counter(tier_of[client] for client in once)
    return tuple(
        TierView(tier, words, clients[tier], asked[tier], answered[tier], never[tier])
        for tier, words in enumerate(trains)
    )


def _warnings(history: History) -> tuple[Warned, ...]:
    found = [
        Warned(each.round + 1, each.kind, each.words) for each in history.health if isinstance(each, HealthWarning)
    ]
    found += [
        Warned(each.round + 1, each.event, f"nothing more is written for {each.tracker}: {each.reason}")
        for each in history.other
        if isinstance(each, TrackingStopped)
    ]
    found += [
        Warned(each.round + 1, each.event, note)
        for each in (*history.skipped, *history.other)
        if isinstance(each, (RoundSkipped, EvaluationSkipped))
        for note in each.notes
    ]
    return tuple(sorted(found, key=lambda each: each.round))
