"""Recalibration and evaluation: what is asked of whom, and how answers are added up."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch

from fedsup_deploy import rng
from fedsup_deploy.accuracy import CountedAccuracy
from fedsup_deploy.answers import CONFIDENCE_BINS, UNITS, Answers
from fedsup_deploy.errors import DataError, FederationError
from fedsup_deploy.federation.client import HELD_OUT, TRAINED, ClientId, ClientInfo
from fedsup_deploy.federation.jobs.counts import CountAnswers, Counts
from fedsup_deploy.federation.jobs.statistics import CalibrationDraw, Observed, TakeStatistics
from fedsup_deploy.federation.messages import Blob, Job
from fedsup_deploy.federation.networks import Network, Standalone, standalone
from fedsup_deploy.federation.server import recalibration
from fedsup_deploy.federation.server.cohort import Terms
from fedsup_deploy.federation.server.federation import Federation
from fedsup_deploy.federation.simulation import FederatedData, hold_out
from fedsup_deploy.space.search_space import SearchSpace
from fedsup_deploy.supernet.layout import Layout
from fedsup_deploy.supernet.model import Supernet, initial_weights
from fedsup_deploy.supernet.statistics import ChannelSums, PooledStatistics

ANY = Terms(0.0, None)
NOTHING = PooledStatistics({})
Absences = list[tuple[str, ClientId, str]]


def network_of(space: SearchSpace) -> Standalone:
    """Return the largest subnet; nobody computes with its weights."""
    return Standalone(space.plan(space.largest), "batch", Blob({}))


@pytest.fixture(scope="module")
def supernet(digits_space: SearchSpace) -> Supernet:
    layout = Layout(digits_space, "batch")
    return Supernet(layout, initial_weights(layout, 0))


def observed(client: ClientId, job: TakeStatistics, num_images: int = 10) -> Observed:
    """Pretend that client k has 10 images and sees the value k in one pixel of each channel, and 0 elsewhere."""

    def of_one(network: Network) -> PooledStatistics:
        layers = [layer for layer in network.plan.norm_layers() if layer.name in job.observe]
        ones = {layer.name: np.ones(layer.out_channels) for layer in layers}
        return PooledStatistics(
            {
                layer.name: ChannelSums(
                    num_images * layer.out_size**2, client * ones[layer.name], client**2 * ones[layer.name]
                )
                for layer in layers
            }
        )

    return Observed(tuple(of_one(network) for network in job.networks))


def answers_of(correct: int, num_images: int) -> Answers:
    """Return answers to images of the first class, of which those that are not right are the second; all are sure."""
    cells_C3 = [row for row in ([0, 0, correct], [0, 1, num_images - correct]) if row[2]]
    confidence_B3 = np.zeros((CONFIDENCE_BINS, 3), np.int64)
    confidence_B3[-1] = num_images, correct, num_images * UNITS
    return Answers(10, np.array(cells_C3, np.int64).reshape(-1, 3), confidence_B3, np.empty((0, 3), np.int64))


def counts_of(correct: Iterable[int], num_images: int) -> Counts:
    return Counts.of([answers_of(each, num_images) for each in correct], num_images)


def answer(client: ClientId, job: Any) -> Any:
    """Of a network with w channels in its stem, client k is right about w + k of the 100 + k images it holds out.

    Of the 10 that it trains on about k.
    """
    if isinstance(job, TakeStatistics):
        return observed(client, job)
    if job.images == TRAINED:
        return counts_of([client for _ in job.networks], 10)
    return counts_of([network.plan.stem.out_channels + client for network in job.networks], 100 + client)


def infos_of(clients: Iterable[ClientId]) -> list[ClientInfo]:
    return [ClientInfo(client, 10, 100 + client) for client in clients]


@pytest.fixture
def federation_with(scripted, federation_over) -> Callable[..., Federation]:
    """Make a federation of clients that answer as above or otherwise; its server has no image."""

    def make(clients: Iterable[ClientId], answer: Any = answer, **changes: Any) -> Federation:
        return federation_over(scripted(infos_of(clients), answer), **changes)

    return make


def asked(federation: Federation) -> list[dict[ClientId, Any]]:
    """Return what the clients of a scripted engine were asked."""
    return federation.clients.asked  # type: ignore[attr-defined]


def names_of(network: Network) -> list[str]:
    return [layer.name for layer in network.plan.norm_layers()]


# --- statistics


def test_one_shot_observes_everything_in_one_pass(tiny_space: SearchSpace, federation_with) -> None:
    federation, network = federation_with(range(7)), network_of(tiny_space)
    pooled = recalibration.collect(federation, network, "one-shot")
    (jobs,) = asked(federation)
    assert list(jobs) == list(range(7))
    for job in jobs.values():
        assert job.networks == (network,)
        assert list(job.observe) == names_of(network) == list(pooled.layers)
        assert job.known.layers == {}
    for layer in network.plan.norm_layers():
        sums = pooled.layers[layer.name]
        assert sums.count == 7 * 10 * layer.out_size**2
        assert (set(sums.total_C), set(sums.squares_C)) == ({21.0}, {91.0})


def test_layer_wise_observes_one_layer_after_the_other_with_those_before_known(
    tiny_space: SearchSpace, federation_with
) -> None:
    federation, network = federation_with(range(3)), network_of(tiny_space)
    pooled = recalibration.collect(federation, network, "layer-wise")
    names = names_of(network)
    for client in range(3):
        jobs = [each[client] for each in asked(federation)]
        assert [job.observe for job in jobs] == [(name,) for name in names]
        assert [list(job.known.layers) for job in jobs] == [names[:index] for index in range(len(names))]
        assert jobs[-1].known.layers[names[0]].total_C[0] == 3.0
    assert list(pooled.layers) == names


def test_a_client_looks_at_the_same_images_in_every_pass_and_others_at_others(
    tiny_space: SearchSpace, federation_with
) -> None:
    """By a seed that follows from the run's and the client."""
    federation = federation_with(range(3), calibration=CalibrationDraw(10, 4), seed=5)
    recalibration.collect(federation, network_of(tiny_space), "layer-wise")
    expected = [rng.derive(5, "calibration", client) for client in range(3)]
    assert len(set(expected)) == 3
    for jobs in asked(federation):
        assert [job.seed for job in jobs.values()] == expected
        assert {job.calibration for job in jobs.values()} == {CalibrationDraw(10, 4)}
        assert {job.preprocessing for job in jobs.values()} == {federation.preprocessing}


@pytest.mark.parametrize(("clients", "expected"), [(None, 100), (5, 5), (150, 120)])
def test_not_all_clients_of_a_large_federation_calibrate(
    tiny_space: SearchSpace, federation_with, clients: int | None, expected: int
) -> None:
    federation = federation_with(range(120), calibration_clients=clients)
    recalibration.collect(federation, network_of(tiny_space), "one-shot")
    (jobs,) = asked(federation)
    assert len(jobs) == expected
    assert list(jobs) == [info.client for info in federation.calibrating]


@pytest.mark.parametrize(("schedule", "passes"), [("one-shot", 1), ("layer-wise", 9)])
def test_progress_is_told_after_every_pass(
    tiny_space: SearchSpace, federation_with, schedule: str, passes: int
) -> None:
    told: list[tuple[int, int]] = []
    recalibration.collect(
        federation_with([0]), network_of(tiny_space), schedule, lambda done, total: told.append((done, total))
    )
    assert told == [(done, passes) for done in range(1, passes + 1)]


def test_too_few_statistics_are_an_error(tiny_space: SearchSpace, federation_with) -> None:
    message = r"^statistics: 0 of 2 clients answered, 1 must \(client 0: battery\); mend that$"
    with pytest.raises(FederationError, match=message):
        recalibration.collect(
            federation_with([0, 1], lambda *_: "battery", terms=ANY), network_of(tiny_space), "one-shot"
        )
    with pytest.raises(FederationError, match="nobody could be asked"):
        recalibration.collect(federation_with([]), network_of(tiny_space), "one-shot")


def test_statistics_are_those_of_the_clients_that_answer(tiny_space: SearchSpace, federation_with) -> None:
    """Each of which is told of; whether somebody is missing can be seen from the counts."""
    absences: Absences = []
    network = network_of(tiny_space)
    replies = {0: "battery", 2: None}

    def some(client: ClientId, job: TakeStatistics) -> Any:
        if client == 3:
            return observed(client, job, num_images=9)
        return replies[client] if client in replies else observed(client, job)

    federation = federation_with(range(6), some, terms=ANY, absences=absences)
    pooled = recalibration.collect(federation, network, "one-shot")
    # Clients 1, 4 and 5.
    assert pooled.layers["stem"].count == 3 * 10 * 64
    assert (pooled.layers["stem"].total_C[0], pooled.layers["stem"].squares_C[0]) == (10.0, 42.0)
    assert absences == [
        ("statistics", 0, "battery"),
        ("statistics", 2, "no answer"),
        ("statistics", 3, f"layer stem: {9 * 64} values, expected those of 10 images"),
    ]
    assert not recalibration.is_complete(federation, network.plan, pooled)


def test_statistics_of_all_that_calibrate_are_complete(tiny_space: SearchSpace, federation_with) -> None:
    network = network_of(tiny_space)
    for changes in ({}, {"calibration_clients": 4}, {"calibration": CalibrationDraw(10, 4)}):
        federation = federation_with(range(6), **changes)
        pooled = recalibration.collect(federation, network, "one-shot")
        assert recalibration.is_complete(federation, network.plan, pooled)


def test_one_layer_that_somebody_is_missing_from_is_not_complete(tiny_space: SearchSpace, federation_with) -> None:
    """As where a client is absent from one of several passes."""
    network = network_of(tiny_space)
    last = names_of(network)[-1]

    def some(client: ClientId, job: TakeStatistics) -> Any:
        return "battery" if client == 1 and job.observe == (last,) else observed(client, job)

    absences: Absences = []
    federation = federation_with(range(3), some, terms=ANY, absences=absences)
    pooled = recalibration.collect(federation, network, "layer-wise")
    assert absences == [("statistics", 1, "battery")]
    assert pooled.layers["stem"].count == 3 * 10 * 64
    assert not recalibration.is_complete(federation, network.plan, pooled)


def test_a_client_is_part_of_the_statistics_of_every_network_or_of_none(supernet: Supernet, federation_with) -> None:
    """One says too little of the second network, one nothing at all."""
    space = supernet.layout.space

    def some(client: ClientId, job: Any) -> Any:
        if isinstance(job, CountAnswers) or client == 2:
            return answer(client, job)
        first, second = observed(client, job).statistics
        without = PooledStatistics({name: sums for name, sums in second.layers.items() if name != "stem"})
        return Observed((first, without) if client == 0 else (first,))

    absences: Absences = []
    federation = federation_with(range(3), some, terms=ANY, absences=absences)
    list(recalibration.evaluate_candidates_on_clients(federation, supernet, [space.smallest, space.largest]))
    assert absences == [
        ("statistics", 0, "statistics of other layers than asked for"),
        ("statistics", 1, "statistics of 1 networks, expected 2"),
    ]
    (job, *_) = asked(federation)[1].values()
    for statistics in job.statistics:
        assert {sums.total_C[0] for sums in statistics.layers.values()} == {2.0}
        assert statistics.layers["stem"].count == 10 * 64


# --- accuracies


@pytest.fixture
def server(scripted, federation_over) -> Federation:
    """A federation in which nobody must answer, of a server with three parts of images, of which it must have all."""
    own = {
        name: scripted([ClientInfo(part, 0, 100 + part) for part in range(3)], answer)
        for name in ("validation", "test")
    }
    return federation_over(scripted(infos_of(range(5)), answer), own, terms=Terms(0.0, 7.0))


@pytest.mark.parametrize("split", ["validation", "test"])
def test_every_part_of_the_servers_images_is_evaluated_once(
    tiny_space: SearchSpace, server: Federation, split: str
) -> None:
    """6 + 7 + 8 right answers of 100 + 101 + 102; nothing is asked of clients, and there is no deadline."""
    network = network_of(tiny_space)
    accuracy = recalibration.evaluate(server, network, NOTHING, split).accuracy
    assert (accuracy.correct, accuracy.num_images) == (21, 303)
    assert accuracy.share == 21 / 303
    (jobs,) = server.own[split].asked  # type: ignore[attr-defined]
    assert list(jobs) == [0, 1, 2]
    for job in jobs.values():
        assert (job.networks, job.statistics, job.images) == ((network,), (NOTHING,), HELD_OUT)
        assert job.preprocessing is server.preprocessing
    assert server.own[split].deadlines == [None]  # type: ignore[attr-defined]
    other = "test" if split == "validation" else "validation"
    assert asked(server) == server.own[other].asked == []  # type: ignore[attr-defined]


def test_of_the_servers_own_images_none_may_be_missing(tiny_space: SearchSpace, scripted, federation_over) -> None:
    """Whatever is expected of clients."""
    infos = [ClientInfo(part, 0, 100 + part) for part in range(2)]
    own = scripted(infos, lambda part, job: answer(part, job) if part else "out of memory")
    federation = federation_over(scripted([], answer), {"test": own}, terms=ANY)
    message = r"^evaluation on test images: 1 of 2 clients answered, 2 must \(client 0: out of memory\)"
    with pytest.raises(FederationError, match=message):
        recalibration.evaluate(federation, network_of(tiny_space), NOTHING, "test")


def test_networks_are_evaluated_on_what_clients_hold_out(tiny_space: SearchSpace, scripted, federation_over) -> None:
    """Clients 1 and 3 do: 7 + 9 right answers of 101 + 103."""
    infos = [ClientInfo(client, 10, 100 + client if client % 2 else 0) for client in range(5)]
    engine = scripted(infos, answer)
    federation = federation_over(engine, terms=Terms(0.5, 7.0))
    accuracy = recalibration.evaluate(federation, network_of(tiny_space), NOTHING, HELD_OUT).accuracy
    assert (accuracy.correct, accuracy.num_images) == (16, 204)
    assert [list(jobs) for jobs in engine.asked] == [[1, 3]]
    assert {job.images for job in engine.asked[0].values()} == {HELD_OUT}
    assert engine.deadlines == [7.0]


def test_clients_are_evaluated_each_on_its_own_images(tiny_space: SearchSpace, federation_with) -> None:
    federation, network = federation_with([1, 4, 9]), network_of(tiny_space)
    held_out = recalibration.evaluate_clients(federation, network, NOTHING, HELD_OUT)
    assert list(held_out) == [1, 4, 9]
    expected = [CountedAccuracy(7, 101), CountedAccuracy(10, 104), CountedAccuracy(15, 109)]
    assert [answers.accuracy for answers in held_out.values()] == expected
    trained = recalibration.evaluate_clients(federation, network, NOTHING, TRAINED)
    assert {client: answers.accuracy.share for client, answers in trained.items()} == {1: 0.1, 4: 0.4, 9: 0.9}
    assert [{job.images for job in jobs.values()} for jobs in asked(federation)] == [{HELD_OUT}, {TRAINED}]


def test_clients_evaluated_by_what_they_train_on_are_those_that_calibrate(
    tiny_space: SearchSpace, federation_with
) -> None:
    federation = federation_with(range(10), lambda *_: counts_of([1], 10), calibration_clients=3)
    found = recalibration.evaluate_clients(federation, network_of(tiny_space), NOTHING, TRAINED)
    assert list(found) == [info.client for info in federation.calibrating]


def test_clients_that_do_not_answer_have_no_share(tiny_space: SearchSpace, federation_with) -> None:
    absences: Absences = []
    federation = federation_with(
        range(3), lambda client, job: "battery" if client == 1 else answer(client, job), terms=ANY, absences=absences
    )
    assert list(recalibration.evaluate_clients(federation, network_of(tiny_space), NOTHING, HELD_OUT)) == [0, 2]
    assert absences == [("evaluation by clients", 1, "battery")]


def impossible() -> list[Counts]:
    """Return answers to 101 images, each of which is wrong in one way: rows, and then confidences and scores."""
    good = counts_of([7], 101)
    cells_C4, confidence_MB3 = good.cells_C4, good.confidence_MB3

    def rows(*changed: list[int]) -> Counts:
        return dataclasses.replace(good, cells_C4=np.array(changed, np.int64))

    def sure(column: int, number: int, at: int = -1) -> Counts:
        changed_MB3 = confidence_MB3.copy()
        changed_MB3[0, at, column] = number
        return dataclasses.replace(good, confidence_MB3=changed_MB3)

    first, second = cells_C4.tolist()
    return [
        rows(first),
        rows(second, first),
        rows(first, first, second),
        rows([0, 0, 0, 102], [0, 0, 1, -1]),
        rows([0, 0, 0, 101], [0, 0, 1, 0]),
        rows(first, [0, 0, 10, 94]),
        rows(first, [0, 10, 1, 94]),
        rows(first, [1, 0, 1, 94]),
        rows([-1, 0, 0, 7], second),
        dataclasses.replace(good, cells_C4=cells_C4[:, 1:]),
        dataclasses.replace(good, cells_C4=cells_C4[:0]),
        sure(0, 100),
        sure(1, 8),
        sure(1, -1),
        sure(2, 101 * UNITS + 1),
        sure(2, 101 * UNITS * 14 // 15),
        sure(2, 1, at=0),
        sure(0, 2**62, at=0),
        dataclasses.replace(good, scores_S4=np.array([[0, 0, 5, 101]])),
    ]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (counts_of([1], 99), "99 images, expected 101"),
        (counts_of([1], 102), "102 images, expected 101"),
        (counts_of([1, 1], 101), "confidences of shape (2, 15, 3), expected those of 1 network"),
        (counts_of([], 101), "confidences of shape (0, 15, 3), expected those of 1 network"),
        *((bad, "counts that no images have") for bad in impossible()),
    ],
)
def test_counts_that_cannot_be_are_refused(tiny_space: SearchSpace, federation_with, bad: Counts, reason: str) -> None:
    absences: Absences = []
    federation = federation_with(
        range(3), lambda client, job: bad if client == 1 else answer(client, job), terms=ANY, absences=absences
    )
    accuracy = recalibration.evaluate(federation, network_of(tiny_space), NOTHING, HELD_OUT).accuracy
    assert (accuracy.correct, accuracy.num_images) == (6 + 8, 100 + 102)
    assert absences == [("evaluation on held-out images", 1, reason)]


def test_nobody_to_judge_is_an_error_that_says_so(tiny_space: SearchSpace, scripted, federation_over) -> None:
    federation = federation_over(scripted([ClientInfo(0, 10)], answer))
    with pytest.raises(DataError, match=r"^evaluation on held-out images: no client holds images out$"):
        recalibration.evaluate(federation, network_of(tiny_space), NOTHING, HELD_OUT)


# --- candidates


def test_candidates_are_recalibrated_on_clients_and_counted_on_the_servers_images(
    supernet: Supernet, server: Federation
) -> None:
    """All five clients' sums are known where images are counted: of three parts, w, w + 1 and w + 2 are right."""
    space = supernet.layout.space
    architectures = [space.largest, space.smallest]
    found = list(recalibration.evaluate_candidates(server, supernet, architectures, "test"))
    assert [each.accuracy for each in found] == [CountedAccuracy(3 * 6 + 3, 303), CountedAccuracy(3 * 4 + 3, 303)]
    (sums,), (counts,) = asked(server), server.own["test"].asked  # type: ignore[attr-defined]
    assert (list(sums), list(counts)) == (list(range(5)), list(range(3)))
    for job in (*sums.values(), *counts.values()):
        assert [network.architecture for network in job.networks] == architectures
        assert {network.supernet.name for network in job.networks} == {Blob(supernet.weights).name}
    for job in counts.values():
        for network, statistics in zip(job.networks, job.statistics, strict=True):
            assert statistics.layers.keys() == set(names_of(network))
            assert statistics.layers["stem"].total_C[0] == 0 + 1 + 2 + 3 + 4


def test_clients_are_asked_for_sums_then_told_what_they_add_up_to_and_asked_for_counts(
    supernet: Supernet, scripted, federation_over
) -> None:
    """12 clients; the statistics of all are known to the two that judge, of which each has its accuracy."""
    space, clients = supernet.layout.space, range(12)
    engine = scripted([ClientInfo(k, 10, 100 + k if k in (7, 3) else 0) for k in clients], answer)
    architectures = [space.smallest, space.largest]
    found = list(recalibration.evaluate_candidates_on_clients(federation_over(engine), supernet, architectures))
    assert [tuple(answers.accuracy for answers in each.by_client) for each in found] == [
        (CountedAccuracy(7, 103), CountedAccuracy(11, 107)),
        (CountedAccuracy(9, 103), CountedAccuracy(13, 107)),
    ]
    sums, counts = engine.asked
    assert (list(sums), list(counts)) == (list(clients), [3, 7])
    for job in counts.values():
        assert job.images == HELD_OUT
        for statistics in job.statistics:
            total = statistics.layers["stem"]
            assert (total.count, total.total_C[0], total.squares_C[0]) == (12 * 10 * 64, 66.0, 506.0)


@pytest.mark.parametrize(("count", "sizes"), [(0, []), (1, [1]), (16, [16]), (17, [16, 1]), (32, [16, 16])])
def test_sixteen_candidates_at_most_are_asked_about_at_once(
    supernet: Supernet, federation_with, count: int, sizes: list[int]
) -> None:
    space, federation = supernet.layout.space, federation_with([2])
    architectures = [space.decode(genes) for genes in space.enumerate_genes()[:count]]
    found = list(recalibration.evaluate_candidates_on_clients(federation, supernet, architectures))
    assert [each.accuracy for each in found] == [CountedAccuracy(each.stem_width + 2, 102) for each in architectures]
    jobs = [job for each in asked(federation) for job in each.values()]
    for kind in (TakeStatistics, CountAnswers):
        of_kind = [job for job in jobs if isinstance(job, kind)]
        assert [len(job.networks) for job in of_kind] == sizes
        assert [network.architecture for job in of_kind for network in job.networks] == architectures


def test_candidates_of_different_resolutions_are_asked_about_one_after_the_other(federation_with, space_of) -> None:
    space = space_of({"widths": [4], "depths": [1], "kernel_sizes": [3, 5]}, resolutions=[6, 8])
    layout, federation = Layout(space, "batch"), federation_with([0])
    supernet = Supernet(layout, initial_weights(layout, 0))
    architectures = [space.decode(genes) for genes in space.enumerate_genes()]
    assert len(list(recalibration.evaluate_candidates_on_clients(federation, supernet, architectures))) == 4
    sums = [jobs[0] for jobs in asked(federation) if isinstance(jobs[0], TakeStatistics)]
    assert [[network.architecture.resolution for network in job.networks] for job in sums] == [[6, 6], [8, 8]]


def test_candidates_that_nobody_asks_for_are_not_evaluated(supernet: Supernet, federation_with) -> None:
    """A search stopped in between has not waited for all."""
    space, federation = supernet.layout.space, federation_with([0, 1])
    architectures = [space.decode(genes) for genes in space.enumerate_genes()]
    found = recalibration.evaluate_candidates_on_clients(federation, supernet, architectures)
    assert asked(federation) == []
    next(found)
    assert len(asked(federation)) == 2
    assert len(list(found)) == 31
    assert len(asked(federation)) == 4


# --- with real clients


@pytest.fixture(scope="module")
def divided(data_of) -> FederatedData:
    """Four clients, of which three hold a quarter of their images out."""
    data = data_of(130, 4)
    clients, held_out = hold_out(data.clients, 0.25, seed=0)
    clients, held_out = (clients[0], data.clients[1], *clients[2:]), (held_out[0], held_out[1][:0], *held_out[2:])
    return dataclasses.replace(data, clients=clients, held_out=held_out)


@pytest.fixture(scope="module")
def trained(digits_space: SearchSpace) -> Supernet:
    """A supernet as after training: no two numbers are alike."""
    layout, generator = Layout(digits_space, "batch"), torch.Generator().manual_seed(0)
    weights = {
        name: tensor + 0.2 * torch.randn(tensor.shape, generator=generator)
        for name, tensor in initial_weights(layout, 0).items()
    }
    return Supernet(layout, weights)


@pytest.mark.parametrize("name", ["largest", "smallest"])
def test_candidate_is_scored_as_the_subnet_extracted_after_one_shot_statistics(
    trained: Supernet, divided: FederatedData, federation_of, name: str
) -> None:
    federation, architecture = federation_of(divided), trained.layout.space.resolve(name)
    network = standalone(trained.extract(architecture))
    statistics = recalibration.collect(federation, network, "one-shot")
    assert recalibration.is_complete(federation, network.plan, statistics)
    for split in ("validation", "test"):
        expected = recalibration.evaluate(federation, network, statistics, split)
        assert expected.num_images == {"validation": 60, "test": 449}[split]
        (candidate,) = recalibration.evaluate_candidates(federation, trained, [architecture], split)
        assert (candidate.answers, candidate.is_complete) == (expected, True)
    by_client = recalibration.evaluate_clients(federation, network, statistics, HELD_OUT)
    (found,) = recalibration.evaluate_candidates_on_clients(federation, trained, [architecture])
    assert list(by_client) == [0, 2, 3]
    assert list(found.by_client) == list(by_client.values())
    assert [answers.num_images for answers in found.by_client] == [8, 8, 8]
    assert found.is_complete
    assert recalibration.evaluate(federation, network, statistics, HELD_OUT) == found.answers


@pytest.mark.parametrize("kind", [TakeStatistics, CountAnswers])
def test_what_somebody_was_absent_from_is_not_complete(
    trained: Supernet, divided: FederatedData, federation_of, scripted, kind: type[Job[Any]]
) -> None:
    """Of five clients one fails, in the statistics or where images are counted."""
    federation, architecture = federation_of(divided, terms=ANY), trained.layout.space.smallest
    honest = federation.clients

    def answer(client: ClientId, job: Job[Any]) -> Any:
        if client == 2 and isinstance(job, kind):
            return "battery"
        (reply,) = honest.ask({client: job})
        return reply.value

    failing = dataclasses.replace(federation, clients=scripted(honest.clients(), answer))
    (found,) = recalibration.evaluate_candidates_on_clients(failing, trained, [architecture])
    assert not found.is_complete
    (on_server,) = recalibration.evaluate_candidates(failing, trained, [architecture], "test")
    assert on_server.is_complete == (kind is CountAnswers)


def test_candidates_scored_together_have_the_accuracy_of_each_alone(
    trained: Supernet, divided: FederatedData, federation_of
) -> None:
    federation, space = federation_of(divided), trained.layout.space
    genes_NG = space.enumerate_genes()
    architectures = [space.decode(genes) for genes in (*genes_NG[:3], genes_NG[-1], *genes_NG[1:5], genes_NG[0])]
    together = list(recalibration.evaluate_candidates(federation, trained, architectures, "test"))
    alone = [
        found
        for each in architectures
        for found in recalibration.evaluate_candidates(federation, trained, [each], "test")
    ]
    assert together == alone
    assert len({found.accuracy.correct for found in together}) > 1


def test_sums_do_not_depend_on_the_order_of_clients(trained: Supernet, divided: FederatedData, federation_of) -> None:
    """To the bit: clients answer in whatever order, and the sums are the same."""
    network = standalone(trained.extract(trained.layout.space.largest))
    federation = federation_of(divided)
    expected = recalibration.collect(federation, network, "layer-wise").to_arrays()

    class Reversed:
        def clients(self) -> Any:
            return federation.clients.clients()

        def ask(self, jobs: Any, deadline_s: float | None = None) -> Any:
            return reversed(list(federation.clients.ask(jobs, deadline_s)))

    backwards = dataclasses.replace(federation, clients=Reversed())
    found = recalibration.collect(backwards, network, "layer-wise").to_arrays()
    assert list(found) == list(expected)
    assert all(np.array_equal(found[name], array) for name, array in expected.items())
