"""Every registered engine, and the server behind it, against clients of which one is hostile.

Whatever that one does is an absence with a reason, and the result is to the bit that of a federation in which it simply
fails. Worker processes import this file to have its clients.
"""

import contextlib
import dataclasses
import fcntl
import functools
import importlib
import os
import re
import sys
import termios
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import torch
from torch import Tensor

from fedsup_deploy import registry, rng
from fedsup_deploy.data.augment import Augmentation
from fedsup_deploy.data.dataset import load_dataset
from fedsup_deploy.data.partition import partition
from fedsup_deploy.data.preprocess import Preprocessing
from fedsup_deploy.engines.inprocess import InProcess
from fedsup_deploy.errors import DataError, FederationError
from fedsup_deploy.federation import encoding
from fedsup_deploy.federation.client import HELD_OUT, TRAINED, Client, ClientId, ClientInfo, Performs
from fedsup_deploy.federation.jobs.agreement import both_of
from fedsup_deploy.federation.jobs.classes import ClassCounts
from fedsup_deploy.federation.jobs.counts import Counts
from fedsup_deploy.federation.jobs.moments import CountPixels, Pixels
from fedsup_deploy.federation.jobs.ranges import Ranges
from fedsup_deploy.federation.jobs.statistics import CalibrationDraw, Observed
from fedsup_deploy.federation.jobs.train import ClientUpdate, LocalTraining
from fedsup_deploy.federation.messages import Engine, Job, Reply
from fedsup_deploy.federation.networks import standalone
from fedsup_deploy.federation.server import recalibration
from fedsup_deploy.federation.server.balance import count_classes
from fedsup_deploy.federation.server.cohort import OnAbsences, Terms
from fedsup_deploy.federation.server.federation import Federation, pixel_preprocessing
from fedsup_deploy.federation.server.int8 import collect_ranges, compare_answers
from fedsup_deploy.federation.server.norms import NormLimits
from fedsup_deploy.federation.server.rounds import RoundParams, run_rounds
from fedsup_deploy.federation.server.strategy import FedSup, ServerState
from fedsup_deploy.federation.simulation import CLIENTS, FederatedData, Population, hold_out
from fedsup_deploy.space.onnx_graph import build_model, to_bytes, value_sizes
from fedsup_deploy.space.parts import parts_of
from fedsup_deploy.space.search_space import SearchSpace
from fedsup_deploy.supernet.fold import fold
from fedsup_deploy.supernet.layout import Layout
from fedsup_deploy.supernet.model import Supernet, initial_weights
from fedsup_deploy.supernet.statistics import ChannelSums, PooledStatistics

NUM_CLIENTS = 5
#: Who attacks: the first to answer, so that nothing is known yet to compare it with; who is late is the last.
HOSTILE, LATE = 0, NUM_CLIENTS - 1
HONEST = "honest"
#: With these all others are enough, or all must answer.
ENOUGH, ALL = 0.8, 1.0
DEADLINE_S = 9.0
#: Registered engines but for Flower's, which `tests/flower/test_attacks.py` takes through the same.
HERE = [name for name in registry.names("engine") if name != "flower"]
#: Each with one worker, in this process, and with two.
ENGINES = [(name, workers) for name in HERE for workers in (1, 2)]

SPACE = SearchSpace.model_validate(
    {
        "schema": 1,
        "name": "tiny",
        "family": "mobilenet",
        "in_channels": 1,
        "resolutions": [8],
        "stem": {"widths": [4]},
        "stages": [{"name": "a", "widths": [4, 6], "depths": [1], "stride": 2}],
    }
)
LAYOUT = Layout(SPACE, "batch")
TRAIN, STATISTICS, COUNTS, MOMENTS, CLASSES = "train", "statistics", "counts", "moments", "classes"
RANGES, AGREEMENT = "ranges", "agreement"


# --- attacks: what becomes of the honest answer to each kind of job


class UntellableError(Exception):
    """An error that cannot be told."""

    def __str__(self) -> str:
        raise RuntimeError("not even this")


class Trap:
    """What lets an answer fail when it is looked at."""

    def __getattribute__(self, name: str) -> Any:
        if name == "__class__":
            return object.__getattribute__(self, name)
        raise KeyError(name)


def raising(error: Exception) -> Callable[[Any], Any]:
    def attack(answer: object) -> object:
        raise error

    return attack


def nothing(answer: object) -> None:
    """Answer with nothing."""


def dying(answer: object) -> None:
    os._exit(1)


def trapped(answer: object) -> object:
    return object.__new__(type("Trapped", (Trap, type(answer)), {}))


def with_fields(value: object) -> Callable[[Any], Any]:
    """Answer with this in every field."""
    return lambda answer: type(answer)(*[value] * len(dataclasses.fields(answer)))


def of_another_job(answer: object) -> object:
    return (
        CountPixels.reply(np.ones((1, 256), dtype=np.int64), 2, 2) if isinstance(answer, Counts) else Counts.of([], 8)
    )


def fields(**values: object) -> Callable[[Any], Any]:
    return lambda answer: dataclasses.replace(answer, **values)


def tensors(change: Callable[[Tensor], Tensor]) -> Callable[[ClientUpdate], ClientUpdate]:
    """Change every tensor of an update."""
    return lambda update: fields(weights={name: change(tensor) for name, tensor in update.weights.items()})(update)


def one_weight(value: float) -> Callable[[ClientUpdate], ClientUpdate]:
    """Set one weight of an update."""

    def attack(update: ClientUpdate) -> ClientUpdate:
        update.weights[min(update.weights)].view(-1)[0] = value
        return update

    return attack


def names(*, rename: str = "{}", extra: int = 0) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Change the names of what is in a mapping: the last goes (-1), or is there twice (1)."""

    def change(values: Mapping[str, Any]) -> dict[str, Any]:
        named = {rename.format(name): value for name, value in values.items()}
        last = list(named)[-1]
        return {**named, f"{last}.1": named[last]} if extra > 0 else dict(list(named.items())[: len(named) + extra])

    return change


def weights(change: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> Callable[[ClientUpdate], ClientUpdate]:
    return lambda update: fields(weights=change(update.weights))(update)


def layers(change: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> Callable[[Observed], Observed]:
    """Change the layers of every network that was observed."""
    return lambda seen: Observed(tuple(PooledStatistics(change(each.layers)) for each in seen.statistics))


def sums(change: Callable[[ChannelSums], ChannelSums]) -> Callable[[Observed], Observed]:
    """Change the sums of every layer that was observed."""
    return layers(lambda of: {name: change(each) for name, each in of.items()})


def arrays(change: Callable[[Any], Any]) -> Callable[[ChannelSums], ChannelSums]:
    return lambda of: ChannelSums(of.count, change(of.total_C), change(of.squares_C))


def histogram(change: Callable[[Any], Any]) -> Callable[[Pixels], Pixels]:
    return lambda pixels: fields(histogram_CV=change(pixels.histogram_CV))(pixels)


def bins(change: Callable[[Any], Any]) -> Callable[[Ranges], Ranges]:
    return lambda ranges: fields(counts_VB=change(ranges.counts_VB))(ranges)


def classes(change: Callable[[Any], Any]) -> Callable[[ClassCounts], ClassCounts]:
    return lambda counts: fields(images_K=change(counts.images_K))(counts)


def extremes(change: Callable[[Tensor], Tensor]) -> Callable[[Ranges], Ranges]:
    return lambda ranges: fields(extremes_V2=change(ranges.extremes_V2))(ranges)


def negative(histogram_CV: Any) -> Any:
    """As many pixels as before, but fewer than none of a value."""
    change = np.zeros_like(histogram_CV)
    change[:, :2] = 1000, -1000
    return histogram_CV + change


def beyond_int64(histogram_CV: Any) -> Any:
    """As many pixels as before, modulo 2^64."""
    change = np.zeros_like(histogram_CV)
    change[:, 1:5] = 2**62
    return histogram_CV + change


def answers(change: Callable[[Any], Any]) -> Callable[[Counts], Counts]:
    """Change the rows of what was answered."""
    return lambda counts: fields(cells_C4=change(counts.cells_C4))(counts)


def confidences(change: Callable[[Any], Any]) -> Callable[[Counts], Counts]:
    return lambda counts: fields(confidence_MB3=change(counts.confidence_MB3))(counts)


def more_right(cells_C4: Any) -> Any:
    """As many images as before, all answered rightly."""
    cells_C4 = cells_C4.copy()
    cells_C4[:, 2] = cells_C4[:, 1]
    return np.unique(cells_C4, axis=0)


def on_all(attack: Callable[[Any], Any]) -> dict[str, Callable[[Any], Any]]:
    return dict.fromkeys((TRAIN, STATISTICS, COUNTS, MOMENTS, CLASSES, RANGES, AGREEMENT), attack)


MANY = 10**30
#: Python refuses to write it down.
HUGE = 10**5000
FAILS = "fails"

#: By its name: what the server says, and for each kind of job it applies to what becomes of the honest answer.
ATTACKS: Final[dict[str, tuple[str, dict[str, Callable[[Any], Any]]]]] = {
    FAILS: (r"^no power$", on_all(raising(DataError("no power")))),
    "fails otherwise": (r"^ZeroDivisionError: zero by zero$", on_all(raising(ZeroDivisionError("zero\nby zero")))),
    "fails untellably": (r"^UntellableError", on_all(raising(UntellableError()))),
    "says nothing": (r"^no answer$", on_all(nothing)),
    "plain types": (r"^malformed answer: got dict", on_all(vars)),
    "another job": (r"^malformed answer: got (Counts|Pixels), expected ", on_all(of_another_job)),
    "trapped": (r"^malformed answer", on_all(trapped)),
    "None": (r"^malformed answer", on_all(with_fields(None))),
    "text": (r"^malformed answer", on_all(with_fields("1"))),
    "lists": (r"^malformed answer", on_all(with_fields([[1]]))),
    "NaN": (
        r"not finite|malformed answer",
        {
            TRAIN: one_weight(float("nan")),
            STATISTICS: sums(arrays(lambda of_C: of_C * np.nan)),
            COUNTS: answers(lambda of: of * np.nan),
            MOMENTS: histogram(lambda of: of * np.nan),
            CLASSES: classes(lambda of: of * np.nan),
            RANGES: extremes(lambda of: of * float("nan")),
            AGREEMENT: fields(both=float("nan")),
        },
    ),
    "infinity": (
        r"not finite|malformed answer",
        {
            TRAIN: one_weight(float("-inf")),
            STATISTICS: sums(lambda of: ChannelSums(of.count, of.total_C, of.squares_C + np.inf)),
            COUNTS: fields(counted=float("inf")),
            MOMENTS: fields(height=float("inf")),
            RANGES: extremes(lambda of: of + float("inf")),
            AGREEMENT: fields(neither=float("inf")),
        },
    ),
    "NaN loss": (r"^loss is not finite$", {TRAIN: fields(loss=float("nan"))}),
    "infinite loss": (r"^loss is not finite$", {TRAIN: fields(loss=float("inf"))}),
    "endless loss": (r"loss|malformed answer", {TRAIN: fields(loss=10**400)}),
    "shape": (
        r"^tensor .* is \(|channels$|^confidences of shape|^(histogram|class counts) of shape|^counts of int64",
        {
            TRAIN: tensors(lambda tensor: tensor.view(1, -1)),
            STATISTICS: sums(arrays(lambda of_C: of_C[1:])),
            COUNTS: confidences(lambda of: of.repeat(2, axis=0)),
            MOMENTS: histogram(lambda of: of[:, 1:]),
            CLASSES: classes(lambda of: of[1:]),
            RANGES: bins(lambda of: of[:, 1:]),
        },
    ),
    "no dimension": (
        r"^tensor .* is \(|malformed answer|^(histogram|class counts) of shape|^counts (of int64|that no)",
        {
            TRAIN: tensors(torch.sum),
            STATISTICS: sums(arrays(np.sum)),
            COUNTS: answers(np.sum),
            MOMENTS: histogram(np.sum),
            CLASSES: classes(np.sum),
            RANGES: bins(np.sum),
        },
    ),
    "nothing in it": (
        r"^other tensors|^statistics of 0 networks|^counts that no|^(histogram|class counts) of shape|^counts of int64",
        {
            TRAIN: fields(weights={}),
            STATISTICS: fields(statistics=()),
            COUNTS: answers(lambda of: of[:0]),
            MOMENTS: histogram(lambda of: of[:0]),
            CLASSES: classes(lambda of: of[:0]),
            RANGES: bins(lambda of: of[:0]),
        },
    ),
    "lacks a name": (
        r"^other tensors|^statistics of other layers",
        {TRAIN: weights(names(extra=-1)), STATISTICS: layers(names(extra=-1))},
    ),
    "a name too many": (
        r"^other tensors|^statistics of other layers",
        {TRAIN: weights(names(extra=1)), STATISTICS: layers(names(extra=1))},
    ),
    "names": (
        r"^other tensors|^statistics of other layers",
        {TRAIN: weights(names(rename="../{}")), STATISTICS: layers(names(rename="../{}"))},
    ),
    "float64": (
        r"float64$|malformed answer|extremes of float64",
        {
            TRAIN: tensors(Tensor.double),
            MOMENTS: histogram(lambda of: of.astype(np.float64)),
            CLASSES: classes(lambda of: of.astype(np.float64)),
            RANGES: extremes(Tensor.double),
        },
    ),
    "float32": (r"malformed answer", {STATISTICS: sums(arrays(lambda of_C: of_C.astype(np.float32)))}),
    "float16": (r"float16$", {TRAIN: tensors(Tensor.half)}),
    "bfloat16": (r"malformed answer", {TRAIN: tensors(Tensor.bfloat16)}),
    "integers": (
        r"int64$|malformed answer",
        {
            TRAIN: tensors(Tensor.long),
            STATISTICS: sums(arrays(lambda of_C: of_C.astype(np.int64))),
            MOMENTS: histogram(lambda of: of.astype(np.uint64)),
        },
    ),
    "objects": (
        r"malformed answer",
        {
            STATISTICS: sums(arrays(lambda of_C: of_C.astype(object))),
            COUNTS: answers(lambda of: of.astype(object)),
            MOMENTS: histogram(lambda of: of.astype(object)),
            CLASSES: classes(lambda of: of.astype(object)),
            RANGES: bins(lambda of: of.astype(object)),
        },
    ),
    "complex": (
        r"complex128|malformed answer",
        {
            TRAIN: tensors(lambda tensor: tensor.to(torch.complex128)),
            STATISTICS: sums(arrays(lambda of_C: of_C * 1j)),
        },
    ),
    "fewer than none": (
        r"^no images|^malformed answer: .* count -|counts",
        {
            TRAIN: fields(num_samples=-1),
            STATISTICS: sums(lambda of: dataclasses.replace(of, count=-of.count)),
            COUNTS: answers(np.negative),
            MOMENTS: histogram(negative),
            CLASSES: classes(lambda of: of + np.array([99, -99] + [0] * (len(of) - 2))),
            RANGES: bins(negative),
            AGREEMENT: lambda of: fields(both=of.both + of.neither + 1, neither=-1)(of),
        },
    ),
    "none": (
        r"^no images|0 values|^0 images|^other (class )?counts",
        {
            TRAIN: fields(num_samples=0),
            STATISTICS: sums(lambda of: dataclasses.replace(of, count=0)),
            COUNTS: fields(counted=0),
            MOMENTS: histogram(np.zeros_like),
            CLASSES: classes(np.zeros_like),
            RANGES: bins(np.zeros_like),
            AGREEMENT: with_fields(0),
        },
    ),
    "twice the images": (
        r"^more images than it has announced|values, expected|^(16|6) images|^other (class )?counts",
        {
            TRAIN: lambda update: fields(num_samples=2 * update.num_samples)(update),
            STATISTICS: sums(lambda of: ChannelSums(2 * of.count, 2 * of.total_C, 2 * of.squares_C)),
            COUNTS: lambda counts: fields(counted=2 * counts.counted)(counts),
            MOMENTS: histogram(lambda of: 2 * of),
            CLASSES: classes(lambda of: 2 * of),
            RANGES: bins(lambda of: 2 * of),
            AGREEMENT: lambda of: fields(neither=of.neither + sum(of.counts))(of),
        },
    ),
    "absurd": (
        r"malformed answer: \w+: Input should be less than 9223372036854775808|count 1e\+30$",
        {
            TRAIN: fields(num_samples=MANY),
            STATISTICS: sums(lambda of: dataclasses.replace(of, count=MANY)),
            COUNTS: fields(counted=MANY),
            MOMENTS: fields(height=MANY),
            AGREEMENT: fields(both=MANY),
        },
    ),
    "5,000 digits": (
        r"malformed answer|images",
        {
            TRAIN: fields(num_samples=HUGE),
            STATISTICS: sums(lambda of: dataclasses.replace(of, count=HUGE)),
            COUNTS: fields(counted=HUGE),
            MOMENTS: fields(height=HUGE),
            AGREEMENT: fields(both=HUGE),
        },
    ),
    "more right than counted": (r"^counts that no", {COUNTS: answers(more_right)}),
    "other confidences": (r"^counts that no", {COUNTS: confidences(lambda of: of[:, ::-1])}),
    "beyond 64 bits": (
        r"counts",
        {MOMENTS: histogram(beyond_int64), COUNTS: answers(beyond_int64), RANGES: bins(beyond_int64)},
    ),
    "other extremes": (r"^extremes .* not those of the counts", {RANGES: extremes(lambda of: 2 * of)}),
    "extremes the wrong way round": (
        r"^extremes .* not those of the counts",
        {RANGES: extremes(lambda of: of.flip(1))},
    ),
    "another size": (r"^images of", {MOMENTS: fields(height=4, width=16)}),
    "another channel": (r"channels", {MOMENTS: histogram(lambda of: np.repeat(of, 2, axis=0))}),
    "heavy": (r"has a weight beyond 64$", {TRAIN: one_weight(65.0)}),
    "far away": (
        r"^its update has moved more than 10 times as far as usual$",
        {TRAIN: tensors(lambda tensor: tensor.clamp(-32, 32) + 5)},
    ),
    "very heavy": (r"has a weight beyond 64$", {TRAIN: tensors(lambda tensor: torch.full_like(tensor, 3e38))}),
    "sums too large": (r"beyond", {STATISTICS: sums(arrays(lambda of_C: of_C + 2.0**41))}),
    "squares below zero": (
        r"sums that no values have",
        {STATISTICS: sums(lambda of: ChannelSums(of.count, of.total_C, -1 - of.squares_C))},
    ),
    "squares below those of the mean": (
        r"sums that no values have",
        {STATISTICS: sums(lambda of: ChannelSums(of.count, of.total_C + 1e6, of.squares_C))},
    ),
    "negative work": (r"^an impossible number of multiply", {TRAIN: fields(num_macs=-1)}),
    "absurd work": (r"num_macs: Input should be less", {TRAIN: fields(num_macs=MANY)}),
}


class Hostile(Client):
    """A client that does something else with its honest answers to some kinds of jobs."""

    def __init__(self, honest: Client, attack: Mapping[str, Callable[[Any], Any]]) -> None:
        super().__init__({})
        self._honest, self._attack = honest, attack

    def perform(self, job: Performs[Any]) -> Any:
        """Return the answer, or what became of it."""
        assert not isinstance(job, type)
        return self._attack.get(getattr(job, "kind", ""), lambda answer: answer)(self._honest.perform(job))


class WithOneHostile:
    """A population in which one client is not what it seems."""

    def __init__(self, honest: Population, who: ClientId, attack: Mapping[str, Callable[[Any], Any]]) -> None:
        self._honest, self._who, self._attack = honest, who, attack

    def infos(self) -> Sequence[ClientInfo]:
        """Return what each announces."""
        return self._honest.infos()

    def client(self, client: ClientId) -> Client:
        """Return one of them."""
        found = self._honest.client(client)
        return Hostile(found, self._attack) if client == self._who else found


def blocking(folder: Path) -> Callable[[Any], Any]:
    """Say that it has begun, and answer only once someone allows it to."""

    def attack(answer: object) -> object:
        (folder / "begun").touch()
        with (folder / "gate").open("rb", buffering=0) as gate:
            gate.read(1)
        return answer

    return attack


def populations(data: FederatedData, folder: Path) -> dict[str, Population]:
    """Return one population for each attack. Called in every worker process."""
    honest = data.populations()[CLIENTS]
    hostile = {name: WithOneHostile(honest, HOSTILE, attack) for name, (_, attack) in ATTACKS.items()}
    late = WithOneHostile(honest, LATE, on_all(blocking(folder)))
    doomed = WithOneHostile(honest, HOSTILE, on_all(dying))
    return {HONEST: honest, **hostile, "late": late, "dies": doomed}


# --- exchanges: what a server asks for, and what comes of it, down to the bits


def training(federation: Federation, limits: NormLimits, trim: float | None = None) -> object:
    """Two rounds: of the smallest subnet, and of the whole supernet."""
    params = RoundParams(
        rounds=2,
        clients_per_round=NUM_CLIENTS,
        learning_rate=0.1,
        warmup_rounds=0,
        final_learning_rate=0.0,
        training=LocalTraining(1, 8, 0.9, 1e-4, 1.0, has_logit_adjustment=True),
        augmentation=Augmentation(crop_padding=1),
        trim=trim,
        norm_limits=limits,
    )
    state, strategy = ServerState(supernet()), FedSup(SPACE, 2, 2, 0.5, paper=False)
    outcome = []
    for result in run_rounds(federation, state, strategy, params):
        if result.absent:
            what = f"training in round {result.round_index}"
            federation.on_absences(what, len(result.sampled), result.absent, {})
        bits = {name: tensor.numpy().tobytes() for name, tensor in result.state.supernet.weights.items()}
        assert set(result.rejected) <= set(result.absent)
        outcome.append((bits, result.loss, result.sampled, result.client_macs, result.state.norms))
    return outcome


def collected(federation: Federation, schedule: str) -> object:
    network = standalone(supernet().extract(SPACE.largest))
    found = recalibration.collect(federation, network, schedule)
    return {name: array.tobytes() for name, array in found.to_arrays().items()}


def evaluation_by_clients(federation: Federation) -> object:
    network = standalone(supernet().extract(SPACE.largest))
    return recalibration.evaluate_clients(federation, network, statistics(), TRAINED)


def evaluation_held_out(federation: Federation) -> object:
    network = standalone(supernet().extract(SPACE.largest))
    return recalibration.evaluate(federation, network, statistics(), HELD_OUT)


def search(federation: Federation) -> object:
    architectures = [SPACE.smallest, SPACE.largest]
    return list(recalibration.evaluate_candidates_on_clients(federation, supernet(), architectures))


def pixel_moments(federation: Federation) -> object:
    return pixel_preprocessing(federation.clients, federation.terms, 8, federation.on_absences)


def class_counts(federation: Federation) -> object:
    return count_classes(federation.clients, federation.terms, SPACE.num_classes, federation.on_absences)


def activation_ranges(federation: Federation) -> object:
    network = standalone(supernet().extract(SPACE.largest))
    found = collect_ranges(federation, network, statistics(), value_sizes(onnx_model()))
    return found.counts_VB.tobytes(), found.extremes_V2.tobytes()


def comparison_of_files(federation: Federation) -> object:
    models = both_of(to_bytes(onnx_model()), to_bytes(onnx_model(shift=0.05)))
    return compare_answers(federation, models, federation.preprocessing, HELD_OUT)


def onnx_model(shift: float = 0.0) -> Any:
    """Return the largest subnet as an ONNX model, its weights all moved by something."""
    network = fold(supernet().extract(SPACE.largest), statistics())
    weights = {name: tensor.numpy() + np.float32(shift) for name, tensor in network.weights.items()}
    return build_model(parts_of(network.plan), weights)


#: By its name: the kinds of jobs it consists of, and itself.
EXCHANGES: Final[dict[str, tuple[set[str], Callable[[Federation], object]]]] = {
    "training": ({TRAIN}, functools.partial(training, limits=NormLimits(10.0))),
    "trimmed training": ({TRAIN}, functools.partial(training, limits=NormLimits(10.0, 1.5), trim=0.3)),
    "one-shot statistics": ({STATISTICS}, functools.partial(collected, schedule="one-shot")),
    "layer-wise statistics": ({STATISTICS}, functools.partial(collected, schedule="layer-wise")),
    "evaluation by clients": ({COUNTS}, evaluation_by_clients),
    "evaluation on held-out images": ({COUNTS}, evaluation_held_out),
    "search": ({STATISTICS, COUNTS}, search),
    "pixel moments": ({MOMENTS}, pixel_moments),
    "class counts": ({CLASSES}, class_counts),
    "activation ranges": ({RANGES}, activation_ranges),
    "comparison of files": ({AGREEMENT}, comparison_of_files),
}


@functools.cache
def federated_data() -> FederatedData:
    images = load_dataset("digits", None).train.take(np.arange(11 * NUM_CLIENTS))
    clients, held_out = hold_out(partition(images.labels_N, "iid", NUM_CLIENTS, 0), 0.25, 0)
    return FederatedData(images, clients, None, None, held_out)


@functools.cache
def supernet() -> Supernet:
    return Supernet(LAYOUT, initial_weights(LAYOUT, 0))


@functools.cache
def statistics() -> PooledStatistics:
    network = standalone(supernet().extract(SPACE.largest))
    return recalibration.collect(federation_of(honest_engine()), network, "one-shot")


def honest_engine() -> InProcess:
    return InProcess(federated_data().populations()[CLIENTS])


def federation_of(
    engine: Engine, quorum: float = ALL, deadline_s: float | None = None, on_absences: OnAbsences = lambda *_: None
) -> Federation:
    preprocessing = Preprocessing.fit(federated_data().train, 8)
    terms = Terms(quorum, deadline_s)
    return Federation(engine, {}, preprocessing, CalibrationDraw(8, 4), None, terms, 0, on_absences)


Absences = list[tuple[str, ClientId, str]]


def carried_out(
    exchange: str, engine: Engine, quorum: float = ALL, deadline_s: float | None = None
) -> tuple[object, Absences]:
    """Return the outcome of an exchange, and the absences from it."""
    absences: Absences = []

    def tell(what: str, num_asked: int, absent: Mapping[ClientId, str], *_: object) -> None:
        assert num_asked == NUM_CLIENTS
        absences.extend((what, client, reason) for client, reason in absent.items())

    federation = federation_of(engine, quorum, deadline_s, tell)
    return EXCHANGES[exchange][1](federation), absences


@functools.cache
def without(who: ClientId | None, kinds: frozenset[str], exchange: str) -> tuple[object, list[tuple[str, ClientId]]]:
    """Return the outcome where one client fails at jobs of these kinds, and what it is absent from."""
    honest = federated_data().populations()[CLIENTS]
    failing = {kind: raising(DataError("no power")) for kind in kinds}
    population = honest if who is None else WithOneHostile(honest, who, failing)
    outcome, absences = carried_out(exchange, InProcess(population), ENOUGH)
    return outcome, [(what, client) for what, client, _ in absences]


def check(
    exchange: str, engine: Engine, who: ClientId, kinds: set[str], because: str, deadline_s: float | None = None
) -> None:
    """Carry out an exchange in which one client is hostile, above the quorum and below."""
    outcome, absences = carried_out(exchange, engine, ENOUGH, deadline_s)
    expected, absent_from = without(who, frozenset(kinds), exchange)
    assert [(what, client) for what, client, _ in absences] == absent_from != []
    assert outcome == expected
    for _, _, reason in absences:
        assert re.search(because, reason), reason
        assert len(reason.splitlines()) == 1
    with pytest.raises(FederationError) as error:
        carried_out(exchange, engine, ALL, deadline_s)
    what, _, reason = absences[0]
    answered = f"{what}: {NUM_CLIENTS - 1} of {NUM_CLIENTS} clients answered, {NUM_CLIENTS} must"
    start = f"{answered} (client {who}: {reason}); "
    assert str(error.value).startswith(start), (str(error.value), start)


# --- engines


MakePopulations = Callable[[], dict[str, Population]]


class Gate:
    """Keeps the client that is late from answering, one opening for one answer; and knows whether it has begun."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        os.mkfifo(folder / "gate")
        self._descriptor = os.open(folder / "gate", os.O_RDWR)

    def open(self) -> None:
        os.write(self._descriptor, b".")

    def let_out(self) -> None:
        """Open it for a client that has begun, and wait until that has passed: the next one must not take its place."""
        self.open()
        while array("i", fcntl.ioctl(self._descriptor, termios.FIONREAD, bytes(4)))[0]:
            os.sched_yield()

    def close(self) -> None:
        os.close(self._descriptor)

    def forget(self) -> None:
        (self.folder / "begun").unlink(missing_ok=True)

    def has_begun(self) -> bool:
        return (self.folder / "begun").exists()


class Impatient:
    """An engine whose time is up once all have answered but one, which has begun.

    Args:
        engine: A registered one; its clock is replaced.
        gate: What keeps the last one.
        before: Whether it may answer before the time is up, because nobody could wait; or after, or never.
    """

    def __init__(self, engine: Any, gate: Gate, *, before: bool = False, after: bool = False) -> None:
        engine.clock = lambda: 1e9 if self._heard == self._awaited and gate.has_begun() else 0.0
        self._engine, self._gate, self._before, self._after = engine, gate, before, after
        self._heard, self._awaited = 0, -1

    def clients(self) -> Sequence[ClientInfo]:
        return self._engine.clients()

    def ask(self, jobs: Mapping[ClientId, Job[Any]], deadline_s: float | None = None) -> Iterator[Reply[Any]]:
        self._heard, self._awaited = 0, len(jobs) - 1
        self._gate.forget()
        if self._before:
            self._gate.open()
        for reply in self._engine.ask(jobs, deadline_s):
            self._heard += 1
            yield reply
        if self._after:
            self._gate.let_out()


@dataclasses.dataclass(frozen=True)
class Rewritten:
    """What an engine that is not ours, or the network, might make of replies.

    Args:
        engine: Where they come from.
        rewrite: Takes the jobs and the replies.
    """

    engine: Engine
    rewrite: Callable[[Mapping[ClientId, Job[Any]], list[Reply[Any]]], Iterator[Reply[Any]]]

    def clients(self) -> Sequence[ClientInfo]:
        return self.engine.clients()

    def ask(self, jobs: Mapping[ClientId, Job[Any]], deadline_s: float | None = None) -> Iterator[Reply[Any]]:
        return self.rewrite(jobs, list(self.engine.ask(jobs, deadline_s)))


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    with contextlib.closing(Gate(tmp_path_factory.mktemp("late"))) as gate:
        yield gate


@pytest.fixture(scope="module")
def make_populations(gate: Gate) -> Iterator[MakePopulations]:
    """Make the populations from a copy of this module that workers can import, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parent)
        module = importlib.import_module(Path(__file__).stem)
        yield functools.partial(module.populations, federated_data(), gate.folder)
        sys.modules.pop(module.__name__)


@pytest.fixture(scope="module")
def engines(request: pytest.FixtureRequest, make_populations: MakePopulations) -> Iterator[dict[str, Engine]]:
    """Open a registered engine: for each attack one between the server and the population that suffers from it."""
    name, workers = request.param
    with registry.resolve("engine", name)(make_populations, workers) as engines:
        yield engines


@pytest.fixture(scope="module")
def doomed(request: pytest.FixtureRequest, make_populations: MakePopulations) -> Iterator[Engine]:
    """Open a registered engine of which a worker will die."""
    with registry.resolve("engine", request.param)(make_populations, 2) as engines:
        yield engines["dies"]


def id_of(engine: tuple[str, int]) -> str:
    return f"{engine[0]} x{engine[1]}"


in_every_exchange = pytest.mark.parametrize("exchange", EXCHANGES)
with_every_engine = pytest.mark.parametrize("engines", ENGINES, indirect=True, ids=id_of)
with_workers_that_die = pytest.mark.parametrize("doomed", HERE, indirect=True)

CASES = [
    (attack, exchange)
    for attack, (_, kinds) in ATTACKS.items()
    for exchange, (asked, _) in EXCHANGES.items()
    if kinds.keys() & asked
]


@pytest.mark.parametrize(("attack", "exchange"), CASES)
@with_every_engine
def test_an_attack_is_an_absence_with_a_reason(engines: dict[str, Engine], attack: str, exchange: str) -> None:
    because, kinds = ATTACKS[attack]
    attacked = kinds.keys() & EXCHANGES[exchange][0]
    check(exchange, engines[attack], HOSTILE, attacked, because)


@in_every_exchange
@with_every_engine
def test_a_late_answer_is_not_waited_for(engines: dict[str, Engine], exchange: str, gate: Gate) -> None:
    is_here = isinstance(engines["late"], InProcess)
    engine = Impatient(engines["late"], gate, before=is_here, after=not is_here)
    check(exchange, engine, LATE, EXCHANGES[exchange][0], r"^no answer within 9 s$", DEADLINE_S)


@pytest.mark.parametrize("engines", [each for each in ENGINES if each[1] > 1], indirect=True, ids=id_of)
def test_a_client_that_never_answers_keeps_one_worker_only(engines: dict[str, Engine], gate: Gate) -> None:
    try:
        engine = Impatient(engines["late"], gate)
        outcome, absences = carried_out("pixel moments", engine, ENOUGH, DEADLINE_S)
        assert outcome == without(LATE, frozenset({MOMENTS}), "pixel moments")[0]
        assert absences == [("pixel moments", LATE, "no answer within 9 s")]
        assert carried_out("search", engines[HONEST]) == without(None, frozenset(), "search")
    finally:
        gate.open()


@in_every_exchange
@with_workers_that_die
def test_a_worker_that_dies_ends_everything(doomed: Engine, exchange: str) -> None:
    """A worker is not a client. The first exchange kills it, and those that follow are told."""
    with pytest.raises(FederationError, match=r"^a worker process died, .* continue with --resume$"):
        carried_out(exchange, doomed, ENOUGH)


@in_every_exchange
@pytest.mark.parametrize("engines", [*ENGINES, *((name, 4) for name in HERE)], indirect=True, ids=id_of)
def test_same_bits_whatever_carries_the_jobs(engines: dict[str, Engine], exchange: str) -> None:
    assert carried_out(exchange, engines[HONEST]) == without(None, frozenset(), exchange)


# --- what no client can do to our engines, but another engine, or the network, could


@in_every_exchange
@pytest.mark.parametrize("seed", range(3))
def test_same_bits_in_whatever_order_replies_come(exchange: str, seed: int) -> None:
    def shuffled(jobs: Mapping[ClientId, Job[Any]], replies: list[Reply[Any]]) -> Iterator[Reply[Any]]:
        order = rng.generator(seed, "order of replies").permutation(len(replies))
        return (replies[index] for index in order)

    engine = Rewritten(honest_engine(), shuffled)
    assert carried_out(exchange, engine) == without(None, frozenset(), exchange)


def twice(jobs: Mapping[ClientId, Job[Any]], replies: list[Reply[Any]]) -> Iterator[Reply[Any]]:
    """First all, then all again, and then an excuse of everybody."""
    yield from [*replies, *replies]
    yield from (Reply(reply.client, None, "on second thoughts") for reply in replies)


def of_strangers(jobs: Mapping[ClientId, Job[Any]], replies: list[Reply[Any]]) -> Iterator[Reply[Any]]:
    """Of clients that were not asked, before those that were."""
    yield from (Reply(client, replies[0].value) for client in (-1, NUM_CLIENTS, 2**70))
    yield from replies


@in_every_exchange
@pytest.mark.parametrize("rewrite", [twice, of_strangers])
def test_one_answer_of_each_that_was_asked_counts(exchange: str, rewrite: Callable[..., Iterator[Reply[Any]]]) -> None:
    engine = Rewritten(honest_engine(), rewrite)
    assert carried_out(exchange, engine) == without(None, frozenset(), exchange)


@in_every_exchange
def test_a_message_with_an_answer_for_another_is_no_answer(exchange: str) -> None:
    """Each client has a connection of its own here, and the hostile one writes another's name."""

    def received(jobs: Mapping[ClientId, Job[Any]], replies: list[Reply[Any]]) -> Iterator[Reply[Any]]:
        for reply in replies:
            said = dataclasses.replace(reply, client=LATE) if reply.client == HOSTILE else reply
            found = encoding.decode_replies(encoding.encode_replies([said], jobs), {reply.client: jobs[reply.client]})
            assert isinstance(found, list)
            yield from found

    check(exchange, Rewritten(honest_engine(), received), HOSTILE, EXCHANGES[exchange][0], r"^no answer$")


@in_every_exchange
def test_of_two_answers_in_a_message_the_first_counts(exchange: str) -> None:
    def received(jobs: Mapping[ClientId, Job[Any]], replies: list[Reply[Any]]) -> Iterator[Reply[Any]]:
        excuses = [Reply(reply.client, None, "on second thoughts") for reply in replies]
        found = encoding.decode_replies(encoding.encode_replies([*replies, *excuses, *replies], jobs), jobs)
        assert isinstance(found, list)
        return iter(found)

    engine = Rewritten(honest_engine(), received)
    assert carried_out(exchange, engine) == without(None, frozenset(), exchange)


def test_how_much_was_tried() -> None:
    """Attacks x exchanges x engines, with those that are late, and those that die in a worker."""
    in_time, late, died = len(CASES) * len(ENGINES), len(EXCHANGES) * len(ENGINES), len(EXCHANGES) * len(ENGINES) // 2
    assert (len(ATTACKS) + 2, len(EXCHANGES), len(ENGINES)) == (50, 11, 2)
    assert in_time + late + died == 629
