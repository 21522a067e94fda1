"""`fedsup-deploy train`: config in, run folder out; resumable to the same bytes."""

import contextlib
import dataclasses
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import JsonValue

from fedsup_deploy import files, places
from fedsup_deploy.commands.joining import Conditions, Doorkeeper, doorkeeper
from fedsup_deploy.commands.keeping import SupernetKeeping, keeping_of
from fedsup_deploy.commands.planned_work import evaluation_macs, planned_phases
from fedsup_deploy.commands.resuming import (
    changes_of_cohorts,
    check_same_settings,
    lost_updates,
    settings_hash,
    taken_up,
)
from fedsup_deploy.commands.training_plan import TrainingPlan, batch_settings, plan_training, round_params
from fedsup_deploy.commands.training_summary import Trained, summary
from fedsup_deploy.config.load import dump, load_yaml, validate
from fedsup_deploy.config.schema import TrainConfig
from fedsup_deploy.data.preprocess import Preprocessing
from fedsup_deploy.errors import ArtifactError, DataError, FederationError
from fedsup_deploy.events import EventLog, Listener
from fedsup_deploy.federation.client import ClientId
from fedsup_deploy.federation.messages import Engine
from fedsup_deploy.federation.networks import standalone
from fedsup_deploy.federation.server import recalibration
from fedsup_deploy.federation.server.balance import count_classes
from fedsup_deploy.federation.server.cohort import OnAbsences, QuorumError, names_of
from fedsup_deploy.federation.server.federation import Federation
from fedsup_deploy.federation.server.health import Health
from fedsup_deploy.federation.server.late import Discarded
from fedsup_deploy.federation.server.rounds import RoundParams, RoundResult, SkippedRound, late_updates, run_rounds
from fedsup_deploy.federation.server.strategy import ServerState, Strategy
from fedsup_deploy.federation.simulation import CLIENTS, FederatedData
from fedsup_deploy.measures import measures_of
from fedsup_deploy.run_events import (
    Evaluation,
    EvaluationSkipped,
    HealthWarning,
    Rejected,
    Round,
    RoundSkipped,
    RunEvent,
    TrackingStopped,
    TrainStarted,
)
from fedsup_deploy.runs import run as runs
from fedsup_deploy.runs import tracking
from fedsup_deploy.runs.clients import ClientFacts
from fedsup_deploy.runs.federation import (
    absences_into,
    absent_fields,
    count_pixels,
    federation_of,
    open_engines,
    read_checkpoint,
    save_supernet,
    terms_of,
)
from fedsup_deploy.runs.history import read_run_events
from fedsup_deploy.runs.time_left import TimeLeft
from fedsup_deploy.space.search_space import SearchSpace
from fedsup_deploy.supernet.layout import Layout
from fedsup_deploy.supernet.model import Supernet, check_shapes, initial_weights


def train(
    config: TrainConfig,
    out: Path | None,
    *,
    resume: bool = False,
    listeners: tuple[Listener, ...] = (),
    command: Sequence[str] = (),
    track: Sequence[str] = (),
) -> Trained:
    """Train a supernet and write the run folder.

    Args:
        config: What to train.
        out: The run's folder; None is `runs/<name of the config>`.
        resume: Continue from the last checkpoint in the folder; start anew where there is none yet. A finished run
            stays as it is.
        listeners: Called with each event.
        command: The command line, for the record.
        track: Names of trackers, which write elsewhere what the run records. None of them can fail it.

    Raises:
        ConfigError: The config is impossible, or not the one the run was started with; or there is no such tracker.
        DependencyError: A library is missing that a tracker needs.
        DataError: The images are missing or malformed.
        ArtifactError: The folder holds a run already, or its checkpoint is damaged.
        FederationError: No client of a round returned a usable update.
        OutputError: The folder cannot be written, or another process is writing it.
    """
    folder = runs.RUNS / config.name if out is None else out
    tracking.require(track)
    with contextlib.ExitStack() as stack:
        # A finished run stays as it is, and may stand where nobody can write.
        if not (folder / runs.SUPERNET).exists():
            stack.enter_context(places.hold(folder, inside=True, advice=places.CHOOSE_OUT))
        _train(config, folder, EventLog(folder / runs.EVENTS, listeners), command, track, resume=resume)
    return summary(folder)


def _train(
    config: TrainConfig, folder: Path, log: EventLog, command: Sequence[str], track: Sequence[str], *, resume: bool
) -> None:
    """Train what is left to train of a run in a folder that is held."""
    plan = plan_training(config)
    space, data, layout, strategy = plan.space, plan.data, plan.layout, plan.strategy
    state, first_round = _start(folder, config, layout, strategy, resume=resume)
    if (folder / runs.SUPERNET).exists():
        runs.open_run(folder)  # Whatever of it is damaged or missing is said now, not by the next command.
        _change_terms(folder, config)
        return
    facts, data, changes = taken_up(folder, first_round, data)
    notes = [*data.notes, *changes]
    if (folder / runs.CONFIG).exists() and first_round > 0:
        notes += changes_of_cohorts(validate(load_yaml(folder / runs.CONFIG), TrainConfig), config)
    absences: list[tuple[str, int, Mapping[ClientId, str], Mapping[ClientId, str]]] = []
    with open_engines(config, data) as engines:
        if facts is None:
            facts = _image_facts(config, data, space, engines[CLIENTS], lambda *absence: absences.append(absence))
        # Until now nothing was written: the images may have been refused.
        log.drop_after(first_round)
        if first_round > 0 and config.federation.stale == "accept":
            notes += lost_updates(folder, first_round)
        # The first file of a run. Settings that change no weight may have changed.
        files.write_text(folder / runs.CONFIG, dump(config))
        if first_round == 0:
            _describe(folder, space, command)
        runs.write_image_facts(folder, facts)
        federation = federation_of(config, engines, Preprocessing.from_dict(facts.preprocessing), log)
        params = round_params(config, federation.preprocessing, facts.class_counts)
        health = Health(federation.infos, strategy, layout, config.seed)
        before = read_run_events(folder) if first_round > 0 else []
        keeping = keeping_of(folder, config, layout, first_round, before)
        conditions = Conditions.of(config, data, layout, batch_settings(config))
        door = doorkeeper(engines, conditions, folder, data.num_clients, log)
        late = late_updates(params, federation)
        with tracking.track(track, folder, before) as trackers:
            session = _Session(
                folder, config, strategy, params, federation, log, health, TimeLeft(), keeping, trackers, door, late
            )
            session.catch_up(before)
            session.tell(_started(session, plan, data, first_round, notes))
            for absence in absences:
                absences_into(log, round_index=0)(*absence)
            state = _train_rounds(session, state, first_round)
        session.tell_of_trackers(config.training.rounds - 1)
    # Before there is a supernet, for then others begin to write there.
    shutil.rmtree(folder / runs.STATISTICS, ignore_errors=True)
    keeping.write(folder / runs.SUPERNET, state.supernet)


def _image_facts(
    config: TrainConfig, data: FederatedData, space: SearchSpace, clients: Engine, on_absences: OnAbsences
) -> runs.ImageFacts:
    """Find out from the clients what is to be known of the images."""
    found = count_pixels(config, data.made_square, clients, max(space.resolutions), on_absences)
    shape = (found.native_size, found.native_size, len(found.mean))
    counts = None
    if config.training.class_weights:
        counts = count_classes(clients, terms_of(config), space.num_classes, on_absences)
    return runs.ImageFacts(
        classes=data.train.classes,
        shape=shape,
        preprocessing=found.to_dict(),
        clients=ClientFacts.of(data),
        class_counts=counts,
        fingerprint=data.fingerprint,
    )


@dataclasses.dataclass(frozen=True)
class _Session:
    """What all rounds of a run have in common."""

    folder: Path
    config: TrainConfig
    strategy: Strategy
    params: RoundParams
    federation: Federation
    log: EventLog
    health: Health
    time_left: TimeLeft
    keeping: SupernetKeeping
    trackers: tuple[tracking.Tracking, ...]
    door: Doorkeeper | None
    late: Discarded

    def with_those_who_joined(self, layout: Layout) -> "_Session":
        """Return the session of the federation as it is now: what it knew of its clients, it finds out anew."""
        federation = dataclasses.replace(self.federation)
        health = Health(federation.infos, self.strategy, layout, self.config.seed)
        for event in read_run_events(self.folder):
            health.read(event)
        return dataclasses.replace(self, federation=federation, health=health)

    def catch_up(self, before: Sequence[RunEvent]) -> None:
        """Read what was recorded of a run that goes on: what was told is not told again."""
        for event in before:
            self.time_left.read(event)
            self.health.read(event)

    def tell(self, event: TrainStarted | Round | RoundSkipped | Rejected | Evaluation | EvaluationSkipped) -> None:
        """Record what happened, how long the rest takes, and each fault that it shows."""
        self.time_left.read(event)
        seconds_left = self.time_left.seconds
        known = {} if seconds_left is None else {"seconds_left": round(seconds_left, 3)}
        self._record(event.model_copy(update=known))
        for finding in self.health.read(event):
            self._record(HealthWarning(round=event.round, **finding.model_dump()))
        self.tell_of_trackers(event.round)

    def tell_of_trackers(self, round_index: int) -> None:
        """Record which trackers have failed since this was asked last."""
        for tracker in self.trackers:
            if (reason := tracker.failure()) is not None:
                self.log.record(TrackingStopped(round=round_index, tracker=tracker.name, reason=reason))

    def _record(self, event: RunEvent) -> None:
        self.log.record(event)
        for tracker in self.trackers:
            tracker.tell(event)


def _started(
    session: _Session, plan: TrainingPlan, data: FederatedData, first_round: int, notes: Sequence[str]
) -> TrainStarted:
    federation, training, layout = session.federation, session.config.training, plan.layout
    has_links = session.config.engine.superlink is not None or session.config.federation.links is not None
    return TrainStarted(
        round=first_round,
        rounds=training.rounds,
        num_clients=len(data.seen),
        num_unseen_clients=len(data.unseen),
        num_images=sum(info.num_samples + info.num_held_out for info in federation.infos.values()),
        num_architectures=layout.space.num_architectures,
        notes=[*notes, *([plan.forecast.words] if has_links else [])],
        forecast=plan.forecast.to_dict(),
        phases=planned_phases(federation, session.strategy, session.params, layout),
        evaluate_every=training.evaluate_every,
        evaluation_macs=evaluation_macs(federation, layout),
    )


def _train_rounds(session: _Session, state: ServerState, first_round: int) -> ServerState:
    state, done = _train_until_one_joins(session, state, first_round)
    while done < session.config.training.rounds:
        session = session.with_those_who_joined(state.supernet.layout)
        state, done = _train_until_one_joins(session, state, done)
    return state


def _train_until_one_joins(session: _Session, state: ServerState, first_round: int) -> tuple[ServerState, int]:
    """Return what the rounds end with, and how many are done: all, or fewer where devices have joined."""
    training, federation, late = session.config.training, session.federation, session.late
    saved = done = first_round
    try:
        for result in run_rounds(federation, state, session.strategy, session.params, first_round, time.sleep, late):
            is_skipped = isinstance(result, SkippedRound)
            session.tell(_of(result, federation))
            for rejected in _rejections(result, federation):
                session.tell(rejected)
            finished, is_last = result.round_index + 1, result.round_index + 1 == training.rounds
            if is_last or (not is_skipped and finished % training.evaluate_every == 0):
                _evaluate(session, result.state.supernet, result.round_index, may_be_skipped=not is_last)
            # Only now: a round counts as done when all of its events are in the log; a skipped one with the next.
            if is_last or not is_skipped:
                state, done = result.state, finished
            if not is_skipped and done % training.checkpoint_every == 0:
                _save_checkpoint(session.folder, session.config, state, done)
                saved = done
            if session.door is not None and not (is_skipped or is_last) and session.door.let_in(done):
                _save_checkpoint(session.folder, session.config, state, done)
                return state, done
    except (KeyboardInterrupt, DataError, FederationError) as stop:
        if done > saved:
            _save_checkpoint(session.folder, session.config, state, done)
        if isinstance(stop, FederationError) and done > 0:
            raise FederationError(f"{stop}; then go on after round {done - 1} with --resume") from stop
        raise
    return state, done


def _of(result: RoundResult | SkippedRound, federation: Federation) -> Round | RoundSkipped:
    """Return what is recorded of a round."""
    asked: dict[str, object] = {
        "round": result.round_index,
        "clients": list(result.sampled),
        **absent_fields(result.absent, names_of(federation.clients, result.absent)),
        "rejected": list(result.rejected),
        **({"late": list(result.late)} if result.late else {}),
        "bytes_down": result.bytes_down,
        "bytes_up": result.bytes_up,
        "seconds": result.seconds,
    }
    if isinstance(result, SkippedRound):
        return RoundSkipped.model_validate({**asked, "notes": [f"{result.reason}; the round is skipped"]})
    joined = {str(client): rounds for client, rounds in result.joined.items()}
    refused = {str(client): reason for client, reason in result.refused.items()}
    said: dict[str, object] = {
        "loss": result.loss,
        "loss_before": result.loss_before,
        "learning_rate": result.learning_rate,
        **asked,
        **({"late_joined": joined} if joined else {}),
        **({"late_refused": refused} if refused else {}),
        "client_macs": result.client_macs,
    }
    return Round.model_validate(said)


def _evaluate(session: _Session, supernet: Supernet, round_index: int, *, may_be_skipped: bool) -> None:
    """Record how good the corners of the space are, and offer the supernet to be kept.

    Raises:
        QuorumError: Too few clients have answered, and it may not be skipped.
    """
    on_absences = absences_into(session.log, round_index=round_index)
    try:
        scores = _evaluate_corners(supernet, dataclasses.replace(session.federation, on_absences=on_absences))
    except QuorumError as error:
        if not may_be_skipped:
            raise
        session.tell(EvaluationSkipped(round=round_index, notes=[f"{error}; the evaluation is skipped"]))
        return
    session.keeping.offer(supernet, round_index + 1, scores)
    session.tell(Evaluation.model_validate({"round": round_index, **scores}))


def _rejections(result: RoundResult | SkippedRound, federation: Federation) -> Iterator[Rejected]:
    """Yield of each update of a round that came and was not used whose it was, and why."""
    names = names_of(federation.clients, result.rejected)
    for client in result.rejected:
        yield Rejected(
            round=result.round_index, client=client, client_name=names.get(client), reason=result.absent[client]
        )


def _evaluate_corners(supernet: Supernet, federation: Federation) -> dict[str, JsonValue]:
    """Return the accuracy of the corners of the space after one-shot recalibration, for the record."""
    started = time.perf_counter()
    fields: dict[str, JsonValue] = {}
    for name in ("largest", "smallest"):
        network = standalone(supernet.extract(supernet.layout.space.resolve(name)))
        pooled = recalibration.collect(federation, network, "one-shot")
        answers = recalibration.evaluate(federation, network, pooled, federation.choosing_split)
        for measure, found in measures_of(answers).by_name.items():
            fields |= {f"{measure}_{name}": found.value, f"{measure}_{name}_interval": list(found.interval)}
        fields["num_images"] = answers.num_images
    return {**fields, "seconds": time.perf_counter() - started}


def _start(
    folder: Path, config: TrainConfig, layout: Layout, strategy: Strategy, *, resume: bool
) -> tuple[ServerState, int]:
    """Return the state to start from and the number of rounds already done."""
    checkpoint = folder / runs.CHECKPOINT
    # Of a run that was stopped before its first checkpoint nothing is left to lose, and its settings may have been why.
    if not resume and (checkpoint.exists() or (folder / runs.SUPERNET).exists()):
        raise ArtifactError(f"{folder} holds a run already; continue it with --resume or choose another --out")
    if resume and (folder / runs.CONFIG).exists():
        check_same_settings(validate(load_yaml(folder / runs.CONFIG), TrainConfig), config, folder)
    if not checkpoint.exists():
        return ServerState(Supernet(layout, initial_weights(layout, config.seed)), strategy.initial(layout)), 0
    state, record = read_checkpoint(checkpoint, layout)
    if record.config_hash != settings_hash(config):
        raise ArtifactError(f"{checkpoint}: belongs to another config; choose another --out")
    expected = {name: tuple(tensor.shape) for name, tensor in strategy.initial(layout).items()}
    check_shapes(state.kept, expected, f"{checkpoint}: what the strategy keeps")
    return state, record.rounds


def _change_terms(folder: Path, config: TrainConfig) -> None:
    """Let the commands that work with a finished run expect of clients what the config now says."""
    before = validate(load_yaml(folder / runs.CONFIG), TrainConfig)
    if before.federation != config.federation:
        with places.hold(folder, inside=True, advice=places.CHOOSE_OUT):
            files.write_text(folder / runs.CONFIG, dump(before.model_copy(update={"federation": config.federation})))


def _save_checkpoint(folder: Path, config: TrainConfig, state: ServerState, rounds: int) -> None:
    path = folder / runs.CHECKPOINT
    config_hash = settings_hash(config)
    save_supernet(path, "checkpoint", state.supernet, state.kept, state.norms, rounds=rounds, config_hash=config_hash)


def _describe(folder: Path, space: SearchSpace, command: Sequence[str]) -> None:
    files.write_json(folder / runs.COMMAND, {"command": list(command)})
    files.write_text(folder / runs.SPACE, dump(space))
