"""`fedsup-deploy train`: config in, run folder out; resumable to the same bytes."""

import contextlib
import dataclasses
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import JsonValue, TypeAdapter, ValidationError
from typing_extensions import NotRequired, TypedDict

from fedsup_deploy import files, places, registry
from fedsup_deploy.accuracy import CountedAccuracy
from fedsup_deploy.commands.footprint import check_memory
from fedsup_deploy.commands.scoring import nothing_held_out
from fedsup_deploy.config.load import dump, load_yaml, validate
from fedsup_deploy.config.schema import TrainConfig
from fedsup_deploy.data.augment import Augmentation
from fedsup_deploy.data.preprocess import Preprocessing
from fedsup_deploy.errors import ArtifactError, ConfigError, DataError, FederationError
from fedsup_deploy.events import EventLog, Listener, read_events
from fedsup_deploy.federation.batches import check_can_be_normalized
from fedsup_deploy.federation.client import ClientId
from fedsup_deploy.federation.jobs.train import LocalTraining
from fedsup_deploy.federation.messages import Engine
from fedsup_deploy.federation.networks import standalone
from fedsup_deploy.federation.server import recalibration
from fedsup_deploy.federation.server.cohort import OnAbsences
from fedsup_deploy.federation.server.federation import Federation
from fedsup_deploy.federation.server.rounds import RoundParams, RoundResult, run_rounds
from fedsup_deploy.federation.server.strategy import ServerState, Strategy
from fedsup_deploy.federation.simulation import CLIENTS, VALIDATION, FederatedData
from fedsup_deploy.results import Result
from fedsup_deploy.runs import run as runs
from fedsup_deploy.runs.federation import (
    absences_into,
    count_pixels,
    federation_of,
    open_engines,
    read_checkpoint,
    save_supernet,
)
from fedsup_deploy.space.search_space import SearchSpace
from fedsup_deploy.supernet.layout import Layout
from fedsup_deploy.supernet.model import Supernet, check_shapes, initial_weights


@dataclasses.dataclass(frozen=True)
class CornerAccuracy:
    """Share of the validation images classified correctly by the corners of the space, after recalibration.

    Args:
        largest: Of the largest subnet.
        smallest: Of the smallest.
        num_images: How many; None where an older version trained the run, and then no intervals either.
        largest_interval: The 95 % interval of `largest`.
        smallest_interval: That of `smallest`.
    """

    largest: float
    smallest: float
    num_images: int | None
    largest_interval: tuple[float, float] | None
    smallest_interval: tuple[float, float] | None


@dataclasses.dataclass(frozen=True)
class Trained(Result):
    """What training came to.

    Args:
        run: The run's folder.
        rounds: That were trained.
        accuracy: At the last evaluation.
        seconds: Of training in all.
        bytes_up: What clients have sent.
        bytes_down: What clients were sent.
        client_macs: Multiply-accumulates of clients' forward passes.
    """

    run: Path
    rounds: int
    accuracy: CornerAccuracy
    seconds: float
    bytes_up: int
    bytes_down: int
    client_macs: int


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
    settings = {
        "training.batch_size": config.training.batch_size,
        "calibration.batch_size": config.calibration.batch_size,
        "calibration.samples_per_client": config.calibration.samples_per_client,
    }
    infos = data.populations()[CLIENTS].infos()
    check_can_be_normalized(layout, infos, settings)
    if not config.data.server_images and not any(info.num_held_out for info in infos):
        raise nothing_held_out(config)
    strategy = make_strategy(config, space)
    state, first_round = _start(folder, config, layout, strategy, resume=resume)
    if (folder / runs.SUPERNET).exists():
        runs.open_run(folder)  # Whatever of it is damaged or missing is said now, not by the next command.
        _change_terms(folder, config)
        return
    absences: list[tuple[str, int, Mapping[ClientId, str]]] = []
    with open_engines(config, data) as engines:
        facts = runs.read_image_facts(folder) if first_round > 0 else None
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
            num_clients=data.num_clients,
            num_images=len(data.train),
            num_architectures=space.num_architectures,
            notes=list(data.notes),
        )
        federation = federation_of(config, engines, Preprocessing.from_dict(facts.preprocessing), log)
        for absence in absences:
            absences_into(log, round=0)(*absence)
        state = _train_rounds(_Session(folder, config, strategy, federation, log), state, first_round)
    # Before there is a supernet, for then others begin to write there.
    shutil.rmtree(folder / runs.STATISTICS, ignore_errors=True)
    save_supernet(folder / runs.SUPERNET, "supernet", state.supernet)


def _image_facts(
    config: TrainConfig, data: FederatedData, space: SearchSpace, clients: Engine, on_absences: OnAbsences
) -> runs.ImageFacts:
    """Find out from the clients what is to be known of the images."""
    found = count_pixels(config, clients, max(space.resolutions), on_absences)
    shape = (found.native_size, found.native_size, len(found.mean))
    return runs.ImageFacts(classes=data.train.classes, shape=shape, preprocessing=found.to_dict())


class _RoundEvent(TypedDict):
    """What a summary needs of a `round` event; runs of older versions know no `client_macs`."""

    seconds: float
    bytes_up: int
    bytes_down: int
    client_macs: NotRequired[int]


class _EvaluationEvent(TypedDict):
    """The same of an evaluation; runs of older versions know no `num_images`."""

    accuracy_largest: float
    accuracy_smallest: float
    num_images: NotRequired[int]


def summary(folder: Path) -> Trained:
    """Return what `train` returns, from the events of a run.

    Raises:
        ArtifactError: The events are missing or damaged.
    """
    path = folder / runs.EVENTS
    events = read_events(path)
    of_kind = {kind: [event for event in events if event["event"] == kind] for kind in ("round", "evaluation")}
    try:
        rounds = TypeAdapter(list[_RoundEvent]).validate_python(of_kind["round"], strict=True)
        last = TypeAdapter(_EvaluationEvent).validate_python(of_kind["evaluation"][-1], strict=True)
    except (LookupError, ValidationError) as error:
        raise ArtifactError(
            f"{path}: a round or the last evaluation is missing or damaged; the supernet is not"
        ) from error
    return Trained(
        run=folder,
        rounds=len(rounds),
        accuracy=_corners(last),
        seconds=round(sum(event["seconds"] for event in rounds), 2),
        bytes_up=sum(event["bytes_up"] for event in rounds),
        bytes_down=sum(event["bytes_down"] for event in rounds),
        client_macs=sum(event.get("client_macs", 0) for event in rounds),
    )


def _corners(event: _EvaluationEvent) -> CornerAccuracy:
    shares, num_images = (event["accuracy_largest"], event["accuracy_smallest"]), event.get("num_images")
    if num_images is None:
        return CornerAccuracy(*shares, None, None, None)
    return CornerAccuracy(*shares, num_images, *(_interval(share, num_images) for share in shares))


def _interval(share: float, num_images: int) -> tuple[float, float]:
    return CountedAccuracy.of_share(share, num_images).interval


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
    federation: Federation
    log: EventLog


def round_params(config: TrainConfig, preprocessing: Preprocessing) -> RoundParams:
    """Return how the config's rounds run."""
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
        ),
        augmentation=Augmentation(augmentation.crop_padding, augmentation.flip, preprocessing.black),
    )


def _train_rounds(session: _Session, state: ServerState, first_round: int) -> ServerState:
    training, federation = session.config.training, session.federation
    params = round_params(session.config, federation.preprocessing)
    saved = done = first_round
    try:
        for result in run_rounds(federation, state, session.strategy, params, first_round):
            session.log.emit("round", **_round_fields(result))
            finished = result.round_index + 1
            if finished % training.evaluate_every == 0 or finished == training.rounds:
                on_absences = absences_into(session.log, round=result.round_index)
                scores = _evaluate_corners(
                    result.state.supernet, dataclasses.replace(federation, on_absences=on_absences)
                )
                session.log.emit("evaluation", round=result.round_index, **scores)
            # Only now: a round counts as done when all of its events are in the log.
            state, done = result.state, finished
            if done % training.checkpoint_every == 0:
                _save_checkpoint(session.folder, session.config, state, done)
                saved = done
    except (KeyboardInterrupt, DataError, FederationError) as stop:
        if done > saved:
            _save_checkpoint(session.folder, session.config, state, done)
        if isinstance(stop, FederationError) and done > 0:
            raise FederationError(f"{stop}; then go on after round {done - 1} with --resume") from stop
        raise
    return state


def _round_fields(result: RoundResult) -> dict[str, JsonValue]:
    return {
        "round": result.round_index,
        "loss": result.loss,
        "learning_rate": result.learning_rate,
        "clients": list(result.sampled),
        "absent": {str(client): reason for client, reason in result.absent.items()},
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
        accuracy = recalibration.evaluate(federation, network, pooled, federation.split(VALIDATION))
        fields |= {f"accuracy_{name}": accuracy.share, f"accuracy_{name}_interval": list(accuracy.interval)}
        fields["num_images"] = accuracy.num_images
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
        _check_same(validate(load_yaml(folder / runs.CONFIG), TrainConfig), config, folder)
    if not checkpoint.exists():
        return ServerState(Supernet(layout, initial_weights(layout, config.seed)), strategy.initial(layout)), 0
    state, record = read_checkpoint(checkpoint, layout)
    if record.config_hash != _config_hash(config):
        raise ArtifactError(f"{checkpoint}: belongs to another config; choose another --out")
    expected = {name: tuple(tensor.shape) for name, tensor in strategy.initial(layout).items()}
    check_shapes(state.kept, expected, f"{checkpoint}: what the strategy keeps")
    return state, record.rounds


def _check_same(before: TrainConfig, now: TrainConfig, folder: Path) -> None:
    old, new = _flat(_what_matters(before)), _flat(_what_matters(now))
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            raise ConfigError(
                f"cannot resume {folder}: {key} is {json.dumps(new.get(key))}, the run was started with "
                f"{json.dumps(old.get(key))}; "
                "use the same config or choose another --out"
            )


def _change_terms(folder: Path, config: TrainConfig) -> None:
    """Let the commands that work with a finished run expect of clients what the config now says."""
    before = validate(load_yaml(folder / runs.CONFIG), TrainConfig)
    if before.federation != config.federation:
        with places.hold(folder, inside=True, advice=places.CHOOSE_OUT):
            files.write_text(folder / runs.CONFIG, dump(before.model_copy(update={"federation": config.federation})))


def _what_matters(config: TrainConfig) -> dict[str, JsonValue]:
    """Return the config without the settings that change no weight: a run may be resumed with others."""
    parts = {"data": {"cache_mib"}, "training": {"checkpoint_every", "evaluate_every"}}
    return config.model_dump(mode="json", exclude={"engine": True, "federation": True, **parts})


def _flat(document: JsonValue, prefix: str = "") -> dict[str, JsonValue]:
    if not isinstance(document, dict):
        return {prefix: document}
    items = [_flat(value, f"{prefix}.{key}" if prefix else key) for key, value in document.items()]
    return {key: value for item in items for key, value in item.items()}


def _config_hash(config: TrainConfig) -> str:
    return files.sha256_of(_what_matters(config))


def _save_checkpoint(folder: Path, config: TrainConfig, state: ServerState, rounds: int) -> None:
    path = folder / runs.CHECKPOINT
    save_supernet(path, "checkpoint", state.supernet, state.kept, rounds=rounds, config_hash=_config_hash(config))


def _describe(folder: Path, space: SearchSpace, command: Sequence[str]) -> None:
    files.write_json(folder / runs.COMMAND, {"command": list(command)})
    files.write_text(folder / runs.SPACE, dump(space))
