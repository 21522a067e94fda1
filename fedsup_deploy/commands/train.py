"""`fedsup-deploy train`: config in, run folder out; resumable to the same bytes."""

import contextlib
import dataclasses
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import JsonValue

from fedsup_deploy import files, places, registry
from fedsup_deploy.commands.footprint import check_memory
from fedsup_deploy.commands.joining import Conditions, Doorkeeper, doorkeeper
from fedsup_deploy.commands.keeping import KeepBest, KeepLast, SupernetKeeping
from fedsup_deploy.commands.resuming import check_same_settings, settings_hash, taken_up
from fedsup_deploy.commands.scoring import nothing_held_out
from fedsup_deploy.commands.training_summary import Trained, summary
from fedsup_deploy.config.load import dump, load_yaml, validate
from fedsup_deploy.config.schema import TrainConfig
from fedsup_deploy.data.augment import Augmentation
from fedsup_deploy.data.preprocess import Preprocessing
from fedsup_deploy.errors import ArtifactError, DataError, FederationError
from fedsup_deploy.events import EventLog, Listener, read_events
from fedsup_deploy.federation.batches import check_can_be_normalized
from fedsup_deploy.federation.client import ClientId
from fedsup_deploy.federation.jobs.train import LocalTraining
from fedsup_deploy.federation.messages import Engine
from fedsup_deploy.federation.networks import standalone
from fedsup_deploy.federation.server import recalibration
from fedsup_deploy.federation.server.balance import class_weights, count_classes
from fedsup_deploy.federation.server.cohort import OnAbsences, names_of
from fedsup_deploy.federation.server.federation import Federation
from fedsup_deploy.federation.server.health import Health
from fedsup_deploy.federation.server.rounds import RoundParams, RoundResult, cohort_size, run_rounds
from fedsup_deploy.federation.server.strategy import ServerState, Strategy
from fedsup_deploy.federation.simulation import CLIENTS, FederatedData
from fedsup_deploy.measures import measures_of
from fedsup_deploy.runs import run as runs
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
) -> Trained:
    """Train a supernet and write the run folder.

    Args:
        config: What to train.
        out: The run's folder; None is `runs/<name of the config>`.
        resume: Continue from the last checkpoint in the folder; start anew where there is none yet. A finished run
            stays as it is.
        listeners: Called with each event.
        command: The command line, for the record.

    Raises:
        ConfigError: The config is impossible, or not the one the run was started with.
        DataError: The images are missing or malformed.
        ArtifactError: The folder holds a run already, or its checkpoint is damaged.
        FederationError: No client of a round returned a usable update.
        OutputError: The folder cannot be written, or another process is writing it.
    """
    folder = runs.RUNS / config.name if out is None else out
    with contextlib.ExitStack() as stack:
        # A finished run stays as it is, and may stand where nobody can write.
        if not (folder / runs.SUPERNET).exists():
            stack.enter_context(places.hold(folder, inside=True, advice=places.CHOOSE_OUT))
        _train(config, folder, EventLog(folder / runs.EVENTS, listeners), command, resume=resume)
    return summary(folder)


def _train(config: TrainConfig, folder: Path, log: EventLog, command: Sequence[str], *, resume: bool) -> None:
    """Train what is left to train of a run in a folder that is held."""
    space = runs.load_space(config)
    data = runs.load_data(config)
    space = space.with_data(data.train.image_shape[-1], len(data.train.classes))
    check_memory(config, space)
    layout = Layout(space, config.supernet.normalization)
    batches = {
        "training.batch_size": config.training.batch_size,
        "calibration.batch_size": config.calibration.batch_size,
        "calibration.samples_per_client": config.calibration.samples_per_client,
    }
    infos = data.populations()[CLIENTS].infos()
    check_can_be_normalized(layout, infos, batches)
    if not config.server_has_images and not any(info.num_held_out for info in infos):
        raise nothing_held_out(config)
    strategy = make_strategy(config, space)
    # Unseen clients do not, so only now it is known.
    cohort_size(config.training.clients_per_round, len(strategy.eligible(infos)))
    state, first_round = _start(folder, config, layout, strategy, resume=resume)
    if (folder / runs.SUPERNET).exists():
        runs.open_run(folder)  # Whatever of it is damaged or missing is said now, not by the next command.
        _change_terms(folder, config)
        return
    facts, data, changes = taken_up(folder, first_round, data)
    infos = data.populations()[CLIENTS].infos()
    absences: list[tuple[str, int, Mapping[ClientId, str], Mapping[ClientId, str]]] = []
    with open_engines(config, data) as engines:
        if facts is None:
            facts = _image_facts(config, data, space, engines[CLIENTS], lambda *absence: absences.append(absence))
        # Until now nothing was written: the images may have been refused.
        log.drop_after(first_round)
        if first_round == 0:
            _describe(folder, space, command)
        # Settings that change no weight may have changed.
        files.write_text(folder / runs.CONFIG, dump(config))
        runs.write_image_facts(folder, facts)
        log.emit(
            "train_started",
            round=first_round,
            rounds=config.training.rounds,
            num_clients=len(data.seen),
            num_unseen_clients=len(data.unseen),
            num_images=sum(info.num_samples + info.num_held_out for info in infos),
            num_architectures=space.num_architectures,
            notes=[*data.notes, *changes],
        )
        for absence in absences:
            absences_into(log, round=0)(*absence)
        federation = federation_of(config, engines, Preprocessing.from_dict(facts.preprocessing), log)
        params = round_params(config, federation.preprocessing, facts.class_counts)
        health = _health_until_now(folder, Health(federation.infos, strategy, layout, config.seed))
        keeping = _keeping(folder, config, layout, first_round)
        door = doorkeeper(engines, Conditions.of(config, data, layout, batches), folder, data.num_clients, log)
        session = _Session(folder, config, strategy, params, federation, log, health, keeping, door)
        state = _train_rounds(session, state, first_round)
    # Before there is a supernet, for then others begin to write there.
    shutil.rmtree(folder / runs.STATISTICS, ignore_errors=True)
    keeping.write(folder / runs.SUPERNET, state.supernet)


def _health_until_now(folder: Path, health: Health) -> Health:
    """Let it read what was recorded of a run that goes on: what was told is not told again."""
    for event in read_events(folder / runs.EVENTS):
        health.read(event)
    return health


def _keeping(folder: Path, config: TrainConfig, layout: Layout, first_round: int) -> SupernetKeeping:
    """Return what decides which supernet the run ends with."""
    if config.training.keep == "last":
        return KeepLast()
    return KeepBest(
        folder / runs.BEST, layout, settings_hash(config), is_new=first_round < config.training.evaluate_every
    )


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


def make_strategy(config: TrainConfig, space: SearchSpace) -> Strategy:
    """Return the config's strategy over a space."""
    options = {name: value for name, value in config.strategy if name != "name"}
    strategy: Strategy = registry.load(config.strategy.strategy)(space=space, rounds=config.training.rounds, **options)
    return strategy


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
    keeping: SupernetKeeping
    door: Doorkeeper | None

    def with_those_who_joined(self, layout: Layout) -> "_Session":
        """Return the session of the federation as it is now: what it knew of its clients, it finds out anew."""
        federation = dataclasses.replace(self.federation)
        health = _health_until_now(self.folder, Health(federation.infos, self.strategy, layout, self.config.seed))
        return dataclasses.replace(self, federation=federation, health=health)

    def tell(self, kind: str, round_index: int, fields: Mapping[str, JsonValue]) -> None:
        """Record what happened, and each fault that it shows."""
        event: dict[str, JsonValue] = {"round": round_index, **fields}
        self.log.emit(kind, **event)
        for finding in self.health.read({"event": kind, **event}):
            self.log.emit("health", round=round_index, **finding.model_dump())


def round_params(
    config: TrainConfig, preprocessing: Preprocessing, class_counts: Sequence[int] | None = None
) -> RoundParams:
    """Return how the config's rounds run.

    Args:
        config: The settings.
        preprocessing: Of the images.
        class_counts: How many images of each class the clients train on, where that decides what each counts.
    """
    training, augmentation = config.training, config.data.augmentation
    return RoundParams(
        rounds=training.rounds,
        clients_per_round=training.clients_per_round,
        learning_rate=training.learning_rate,
        warmup_rounds=training.warmup_rounds,
        final_learning_rate=training.final_learning_rate,
        training=LocalTraining(
            epochs=training.local_epochs,
            batch_size=training.batch_size,
            momentum=training.momentum,
            weight_decay=training.weight_decay,
            clip_value=training.clip_value,
            has_logit_adjustment=training.logit_adjustment,
            class_weights=None if class_counts is None else class_weights(class_counts),
        ),
        augmentation=Augmentation(augmentation.crop_padding, augmentation.flip, preprocessing.fill),
    )


def _train_rounds(session: _Session, state: ServerState, first_round: int) -> ServerState:
    state, done = _train_until_one_joins(session, state, first_round)
    while done < session.config.training.rounds:
        session = session.with_those_who_joined(state.supernet.layout)
        state, done = _train_until_one_joins(session, state, done)
    return state


def _train_until_one_joins(session: _Session, state: ServerState, first_round: int) -> tuple[ServerState, int]:
    """Return what the rounds end with, and how many are done: all, or fewer where devices have joined."""
    training, federation = session.config.training, session.federation
    saved = done = first_round
    try:
        for result in run_rounds(federation, state, session.strategy, session.params, first_round):
            session.tell("round", result.round_index, _round_fields(result, federation))
            finished = result.round_index + 1
            if finished % training.evaluate_every == 0 or finished == training.rounds:
                on_absences = absences_into(session.log, round=result.round_index)
                scores = _evaluate_corners(
                    result.state.supernet, dataclasses.replace(federation, on_absences=on_absences)
                )
                session.keeping.offer(result.state.supernet, finished, scores)
                session.tell("evaluation", result.round_index, scores)
            # Only now: a round counts as done when all of its events are in the log.
            state, done = result.state, finished
            if done % training.checkpoint_every == 0:
                _save_checkpoint(session.folder, session.config, state, done)
                saved = done
            if session.door is not None and done < training.rounds and session.door.let_in(done):
                _save_checkpoint(session.folder, session.config, state, done)
                return state, done
    except (KeyboardInterrupt, DataError, FederationError) as stop:
        if done > saved:
            _save_checkpoint(session.folder, session.config, state, done)
        if isinstance(stop, FederationError) and done > 0:
            raise FederationError(f"{stop}; then go on after round {done - 1} with --resume") from stop
        raise
    return state, done


def _round_fields(result: RoundResult, federation: Federation) -> dict[str, JsonValue]:
    return {
        "loss": result.loss,
        "loss_before": result.loss_before,
        "learning_rate": result.learning_rate,
        "clients": list(result.sampled),
        **absent_fields(result.absent, names_of(federation.clients, result.absent)),
        "bytes_down": result.bytes_down,
        "bytes_up": result.bytes_up,
        "client_macs": result.client_macs,
        "seconds": result.seconds,
    }


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
    save_supernet(path, "checkpoint", state.supernet, state.kept, rounds=rounds, config_hash=settings_hash(config))


def _describe(folder: Path, space: SearchSpace, command: Sequence[str]) -> None:
    files.write_json(folder / runs.COMMAND, {"command": list(command)})
    files.write_text(folder / runs.SPACE, dump(space))
