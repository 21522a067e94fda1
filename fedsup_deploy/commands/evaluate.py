"""`fedsup-deploy evaluate`, and how the accuracy of a search's candidates is found. Imports torch."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from pydantic import JsonValue

from fedsup_deploy.answers import Answers
from fedsup_deploy.artifact.measures import MeasuresRecord
from fedsup_deploy.commands.recalibrate import calibrate
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.events import EventLog, Listener
from fedsup_deploy.federation.client import HELD_OUT, TESTED, TRAINED, ClientId, ClientInfo
from fedsup_deploy.federation.networks import standalone
from fedsup_deploy.federation.server import recalibration
from fedsup_deploy.federation.server.federation import Federation
from fedsup_deploy.federation.simulation import TEST, VALIDATION
from fedsup_deploy.measures import ACCURACY, measures_of
from fedsup_deploy.results import LEFT_OUT_IF_NONE, Result
from fedsup_deploy.runs.clients import nothing_held_out
from fedsup_deploy.runs.federation import load_supernet, open_run_federation
from fedsup_deploy.runs.run import open_run
from fedsup_deploy.searchers.scoring.score import Score
from fedsup_deploy.space import cost
from fedsup_deploy.space.architecture import Architecture
from fedsup_deploy.supernet.model import Subnet, Supernet
from fedsup_deploy.supernet.statistics import PooledStatistics


@dataclasses.dataclass(frozen=True)
class OneClient:
    """Accuracy on the images of one client.

    Args:
        client: Its number.
        name: What people call it; None where it has a number only.
        num_images: Images of it that were looked at.
        num_right: Of these, classified correctly.
        accuracy: The share of these.
        interval: Its 95 % interval: of few images it is wide.
    """

    client: ClientId
    name: str | None
    num_images: int
    num_right: int
    accuracy: float
    interval: tuple[float, float]


@dataclasses.dataclass(frozen=True)
class ClientAccuracy:
    """Accuracy on the images of each client.

    These are means over clients, each of which counts the same: no share of images, so no interval of one is stated.
    How far such a mean may be off depends on how clients differ, of which few images of each say too little.

    Args:
        num_clients: That were asked.
        num_images: Of all of them.
        images: Which of their images: `held out`, `trained on`, `tested` for test images of their own, or `all`.
        accuracy_mean: Mean over clients.
        worst_decile: Mean of the tenth of them with the lowest.
        balanced_accuracy_mean: Mean over clients of the mean recall of the classes that the client has images of.
        balanced_accuracy_worst_decile: Mean of the tenth of them with the lowest of these.
        each: Of each client that was asked, ascending by number; None where that was not asked for.
    """

    num_clients: int
    num_images: int
    images: str
    accuracy_mean: float
    worst_decile: float
    balanced_accuracy_mean: float
    balanced_accuracy_worst_decile: float
    each: tuple[OneClient, ...] | None = dataclasses.field(default=None, metadata=LEFT_OUT_IF_NONE)


@dataclasses.dataclass(frozen=True)
class Evaluated(Result):
    """The accuracy of one subnet after recalibration.

    Args:
        run: The run's folder.
        arch_id: Of the subnet.
        architecture: Its choices.
        split: The images: `test` or `validation` of the server, `tested` or `held-out` of clients.
        num_images: How many.
        schedule: How its statistics were taken.
        costs: By name.
        accuracy: Share of the images classified correctly.
        accuracy_interval: Its 95 % interval.
        measures: What the same answers are worth otherwise: balanced accuracy, recalls and so on.
        clients: The same by client, where that was asked for, and wherever clients have test images or are unseen.
        unseen: The same of the clients that took no part, on all of their images; None where all took part.
    """

    run: Path
    arch_id: str
    architecture: dict[str, JsonValue]
    split: str
    num_images: int
    schedule: str
    costs: dict[str, int]
    accuracy: float
    accuracy_interval: tuple[float, float]
    measures: MeasuresRecord
    clients: ClientAccuracy | None = dataclasses.field(default=None, metadata=LEFT_OUT_IF_NONE)
    unseen: ClientAccuracy | None = dataclasses.field(default=None, metadata=LEFT_OUT_IF_NONE)


def evaluate(
    run_path: Path,
    architecture_name: str,
    *,
    split: str | None = None,
    per_client: bool = False,
    schedule: str | None = None,
    engine: str | None = None,
    listeners: tuple[Listener, ...] = (),
) -> Evaluated:
    """Return the accuracy of one subnet after recalibration.

    Args:
        run_path: A finished run.
        architecture_name: `largest`, `smallest`, an arch_id or a file.
        split: `validation` or `test` of the server, `tested` for test images of clients' own, or `held-out` for all
            that clients hold out; None is the first that there is of `test`, `tested` and `held-out`.
        per_client: Also evaluate it on test images of the clients' own; in a run without any on those that they hold
            out, or else train on. In a run with test images of clients, or with unseen clients, that is always done,
            but only here is told of each client, the unseen among them, what is right.
        schedule: How statistics are taken; None as the run's config says.
        engine: What runs the clients; None as the run's config says.
        listeners: Called with progress events.

    Raises:
        ConfigError: The server has no images, or no client holds any out or has test images of its own.
        FederationError: Too few clients have answered.
    """
    run = open_run(run_path, engine)
    architecture = run.architecture(architecture_name)
    schedule = schedule or run.config.calibration.schedule
    subnet = load_supernet(run).extract(architecture)
    log = EventLog(None, listeners)
    with open_run_federation(run, log) as federation:
        if split in (TEST, VALIDATION) and split not in federation.own:
            there_is = federation.final_split
            raise ConfigError(f"{run.path}: the server has no {split} images; evaluate with --split {there_is}")
        split = split or federation.final_split
        if split == HELD_OUT and not federation.judges:
            raise nothing_held_out(run.config)
        if split == TESTED and not federation.testing:
            raise ConfigError(f"{run.path}: no client has test images of its own; leave out --split {TESTED}")
        pooled = calibrate(run, architecture, subnet, schedule, federation, log).pooled
        answers = recalibration.evaluate(federation, standalone(subnet), pooled, split)
        asks_clients = per_client or federation.testing or federation.unseen is not None
        clients = _on_clients(federation, subnet, pooled, is_each_told=per_client) if asks_clients else None
        unseen = _on_unseen(federation, subnet, pooled, is_each_told=per_client)
    return Evaluated(
        run=run_path,
        arch_id=architecture.arch_id,
        architecture=architecture.to_dict(),
        split=split,
        num_images=answers.num_images,
        schedule=schedule,
        costs=cost.costs_of(run.space, [architecture]).row(0),
        accuracy=answers.accuracy.share,
        accuracy_interval=answers.accuracy.interval,
        measures=MeasuresRecord.of(answers, run.image_facts.classes),
        clients=clients,
        unseen=unseen,
    )


def _on_clients(
    federation: Federation, subnet: Subnet, pooled: PooledStatistics, *, is_each_told: bool
) -> ClientAccuracy:
    images = TESTED if federation.testing else HELD_OUT if federation.judges else TRAINED
    found = recalibration.evaluate_clients(federation, standalone(subnet), pooled, images)
    of = {TESTED: "tested", HELD_OUT: "held out", TRAINED: "trained on"}[images]
    return _over_clients(found, of, federation.infos.values() if is_each_told else None)


def _on_unseen(
    federation: Federation, subnet: Subnet, pooled: PooledStatistics, *, is_each_told: bool
) -> ClientAccuracy | None:
    if federation.unseen is None:
        return None
    found = recalibration.evaluate_unseen(federation, standalone(subnet), pooled)
    return _over_clients(found, "all", federation.unseen.clients() if is_each_told else None)


def _over_clients(found: Mapping[ClientId, Answers], images: str, told: Iterable[ClientInfo] | None) -> ClientAccuracy:
    """Return what was found over clients; `told` is who they are, where each is told of."""
    mean, worst_decile = _spread([answers.accuracy.share for answers in found.values()])
    balanced = _spread([measures_of(answers).balanced_accuracy.value for answers in found.values()])
    num_images = sum(answers.num_images for answers in found.values())
    each = None if told is None else tuple(_one(info, found[info.client]) for info in told if info.client in found)
    return ClientAccuracy(len(found), num_images, images, mean, worst_decile, *balanced, each)


def _one(info: ClientInfo, answers: Answers) -> OneClient:
    found = answers.accuracy
    return OneClient(info.client, info.name, found.num_images, found.correct, found.share, found.interval)


def measure(federation: Federation, supernet: Supernet, architectures: Sequence[Architecture]) -> Iterator[Score]:
    """Yield what each subnet is worth on the server's validation images, after one-shot recalibration.

    Args:
        federation: Of a server that has images.
        supernet: Of which they are subnets.
        architectures: The subnets.
    """
    for found in recalibration.evaluate_candidates(federation, supernet, architectures, VALIDATION):
        yield _score(found, found.accuracy.share)


def ask_clients(federation: Federation, supernet: Supernet, architectures: Sequence[Architecture]) -> Iterator[Score]:
    """Yield what each subnet is worth on the images that clients hold out, after one-shot recalibration.

    Args:
        federation: With clients that hold images out; in the accuracy each of these counts the same, in all other
            measures each image.
        supernet: Of which they are subnets.
        architectures: The subnets.
    """
    for found in recalibration.evaluate_candidates_on_clients(federation, supernet, architectures):
        yield _score(found, *_spread([answers.accuracy.share for answers in found.by_client]))


def _score(found: recalibration.CandidateAnswers, accuracy: float, worst_decile: float | None = None) -> Score:
    answers = found.answers
    measures = {name: one for name, one in measures_of(answers).by_name.items() if name != ACCURACY}
    return Score(accuracy, answers.num_images, worst_decile, found.is_complete, measures)


def _spread(shares: Sequence[float]) -> tuple[float, float]:
    """Return the mean of the clients' shares, and that of the lowest tenth of them, at least of one."""
    ordered = np.sort(np.asarray(shares))
    return float(ordered.mean()), float(ordered[: max(1, len(ordered) // 10)].mean())
