"""What a place with images answers to each task, recomputed from the images themselves."""

import dataclasses

import numpy as np
import pytest
import torch

from fedsup_deploy.data.federated import FederatedData, hold_out
from fedsup_deploy.federated.client import LocalTraining, train
from fedsup_deploy.federated.site import InProcess, Site
from fedsup_deploy.federated.tasks import (
    Assignment,
    CandidateCountsTask,
    CandidateStatisticsTask,
    CandidateTask,
    EvaluationTask,
    StatisticsTask,
    TrainTask,
)
from fedsup_deploy.recalibrate.fold import affines
from fedsup_deploy.recalibrate.pooled import PooledStatistics, pool
from fedsup_deploy.space.search_space import SearchSpace
from fedsup_deploy.supernet.layout import Layout
from fedsup_deploy.supernet.model import Subnet, Supernet, initial_weights
from fedsup_deploy.supernet.normalization import BY_BATCH, FixedAffine, SumCollector

TRAINING = LocalTraining(
    epochs=1, batch_size=16, momentum=0.0, weight_decay=0.0, clip_value=None, has_logit_adjustment=False
)
NOTHING = PooledStatistics({})


@pytest.fixture(scope="module")
def layout(digits_space: SearchSpace) -> Layout:
    return Layout(digits_space, "batch")


@pytest.fixture(scope="module")
def data(data_of) -> FederatedData:
    return data_of(130, 4)


@pytest.fixture(scope="module")
def divided(data: FederatedData) -> FederatedData:
    """The same images, of which all clients but the second hold a quarter out."""
    clients, held_out = hold_out(data.clients, 0.25, seed=0)
    clients, held_out = (clients[0], data.clients[1], *clients[2:]), (held_out[0], held_out[1][:0], *held_out[2:])
    return dataclasses.replace(data, clients=clients, held_out=held_out)


@pytest.fixture(scope="module")
def supernet(layout: Layout) -> Supernet:
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: tensor + 0.2 * torch.randn(tensor.shape, generator=generator)
        for name, tensor in initial_weights(layout, 0).items()
    }
    return Supernet(layout, weights)


@pytest.fixture(scope="module")
def subnet(supernet: Supernet) -> Subnet:
    return supernet.extract(supernet.layout.space.largest)


def calibration_images_of(data: FederatedData, client: int, count: int = 64) -> torch.Tensor:
    images = data.calibration_images(client, count, 0)
    return torch.from_numpy(data.preprocessing.apply(images.images_NHWC))


def site_of(layout: Layout, data: FederatedData, samples: int = 64, batch: int = 64) -> Site:
    return Site(layout, data, TRAINING, samples, batch, seed=0)


def holder_of(supernet: Supernet, data: FederatedData) -> Site:
    """Return a place where the supernet is held."""
    return Site(supernet.layout, data, TRAINING, 64, 64, seed=0, load_supernet=lambda: supernet)


def images_of(data: FederatedData, client: int) -> tuple[torch.Tensor, torch.Tensor]:
    images = data.client(client)
    return torch.from_numpy(data.preprocessing.apply(images.images_NHWC)), torch.tensor(images.labels_N)


def layer_names(subnet: Subnet) -> tuple[str, ...]:
    return tuple(layer.name for layer in subnet.plan.norm_layers())


def statistics_by_hand(subnet: Subnet, *batches: torch.Tensor) -> dict[str, tuple[int, torch.Tensor, torch.Tensor]]:
    collector = SumCollector(frozenset(layer_names(subnet)), BY_BATCH["batch"])
    for x_BCHW in batches:
        subnet(x_BCHW, collector)
    return collector.sums


def test_training_is_on_the_clients_own_images(layout: Layout, data: FederatedData, subnet: Subnet) -> None:
    task = TrainTask(2, 0, Assignment(layout.space.largest), subnet.weights, 0.1)
    update = site_of(layout, data).perform(task)
    expected = train(task, layout, images_of(data, 2), data.augmentation, TRAINING, 0)
    assert update.num_samples == len(data.clients[2]) == 32
    assert all(torch.equal(update.weights[name], tensor) for name, tensor in expected.weights.items())


def test_images_that_are_too_large_are_resized_once(data_of, space_of) -> None:
    """From 8 to 4 pixels for the subnet that takes 4, not by way of the 6 that others take: as evaluation does."""
    space = space_of({"widths": [4], "depths": [1]}, resolutions=[4, 6], num_classes=10)
    layout, data = Layout(space, "batch"), data_of(40, 4, size=6)
    assert (data.preprocessing.native_size, space.smallest.resolution) == (8, 4)
    weights = Supernet(layout, initial_weights(layout, 0)).extract(space.smallest).weights
    task = TrainTask(2, 0, Assignment(space.smallest), weights, 0.1)
    x_NCHW = torch.from_numpy(data.preprocessing.for_size(4).apply(data.client(2).images_NHWC))
    update = site_of(layout, data).perform(task)
    expected = train(task, layout, (x_NCHW, images_of(data, 2)[1]), data.augmentation, TRAINING, 0)
    for name, tensor in expected.weights.items():
        torch.testing.assert_close(update.weights[name], tensor, rtol=0, atol=1e-5)


def test_statistics_are_the_sums_over_each_clients_batches(layout: Layout, data: FederatedData, subnet: Subnet) -> None:
    """One reply per client, in order; 32 or 33 images in batches of 20, each layer normalised by its batch."""
    task = StatisticsTask((3, 0), subnet.plan, subnet.weights, NOTHING, layer_names(subnet))
    replies = site_of(layout, data, batch=20).perform(task)
    assert len(replies) == 2
    for client, reply in zip((3, 0), replies, strict=True):
        x_NCHW = calibration_images_of(data, client)
        assert reply.layers.keys() == set(layer_names(subnet))
        for name, (count, total, squares) in statistics_by_hand(subnet, x_NCHW[:20], x_NCHW[20:]).items():
            assert reply.layers[name].count == count
            assert np.array_equal(reply.layers[name].total_C, total.numpy())
            assert np.array_equal(reply.layers[name].squares_C, squares.numpy())


def test_no_more_than_the_asked_for_samples_are_looked_at(layout: Layout, data: FederatedData, subnet: Subnet) -> None:
    task = StatisticsTask((0,), subnet.plan, subnet.weights, NOTHING, ("stem",))
    (reply,) = site_of(layout, data, samples=10).perform(task)
    assert reply.layers["stem"].count == 10 * 8 * 8
    (everything,) = site_of(layout, data, samples=1000).perform(task)
    assert everything.layers["stem"].count == len(data.clients[0]) * 8 * 8


def test_only_the_asked_for_layers_are_observed_and_known_ones_are_used(
    layout: Layout, data: FederatedData, subnet: Subnet
) -> None:
    site = site_of(layout, data)
    (stem,) = site.perform(StatisticsTask((0,), subnet.plan, subnet.weights, NOTHING, ("stem",)))
    assert stem.layers.keys() == {"stem"}
    doubled = PooledStatistics(
        {"stem": dataclasses.replace(stem.layers["stem"], total_C=2 * stem.layers["stem"].total_C)}
    )
    task = StatisticsTask((0,), subnet.plan, subnet.weights, stem, ("s1.0.depthwise",))
    (found,) = site.perform(task)
    (other,) = site.perform(dataclasses.replace(task, known=doubled))
    assert found.layers.keys() == {"s1.0.depthwise"}
    assert not np.array_equal(found.layers["s1.0.depthwise"].total_C, other.layers["s1.0.depthwise"].total_C)


def calibrated(subnet: Subnet, data: FederatedData) -> PooledStatistics:
    x_NCHW, _ = images_of(data, 0)
    collector = SumCollector(frozenset(layer_names(subnet)), BY_BATCH["batch"])
    subnet(x_NCHW, collector)
    return PooledStatistics.from_arrays(
        {
            name: np.stack([np.full(len(total), float(count)), total.numpy(), squares.numpy()])
            for name, (count, total, squares) in collector.sums.items()
        }
    )


def num_correct(subnet: Subnet, statistics: PooledStatistics, x_NCHW: torch.Tensor, labels_N: torch.Tensor) -> int:
    logits = subnet(x_NCHW, FixedAffine(affines(subnet.weights, "batch", statistics)))
    return int((logits.argmax(dim=1) == labels_N).sum())


@pytest.mark.parametrize(("split", "begin", "end"), [("validation", 0, 60), ("validation", 5, 55), ("test", 0, 449)])
def test_evaluation_counts_correct_answers_on_a_part_of_a_split(
    layout: Layout, data: FederatedData, subnet: Subnet, split: str, begin: int, end: int
) -> None:
    statistics = calibrated(subnet, data)
    task = EvaluationTask(subnet.plan, subnet.weights, statistics, split, begin, end)
    images = data.split(split).take(np.arange(begin, end))
    x_NCHW = torch.from_numpy(data.preprocessing.apply(images.images_NHWC))
    expected = num_correct(subnet, statistics, x_NCHW, torch.tensor(images.labels_N))
    assert site_of(layout, data).perform(task) == (expected, end - begin)
    assert 0 < expected < end - begin


def test_evaluation_on_a_clients_own_images(layout: Layout, data: FederatedData, subnet: Subnet) -> None:
    statistics = calibrated(subnet, data)
    task = EvaluationTask(subnet.plan, subnet.weights, statistics, "client", 1)
    expected = num_correct(subnet, statistics, *images_of(data, 1))
    assert site_of(layout, data).perform(task) == (expected, len(data.clients[1]))


def test_evaluation_on_what_a_client_holds_out(layout: Layout, divided: FederatedData, subnet: Subnet) -> None:
    statistics = calibrated(subnet, divided)
    images = divided.train.take(divided.held_out[2])
    x_NCHW = torch.from_numpy(divided.preprocessing.apply(images.images_NHWC))
    expected = num_correct(subnet, statistics, x_NCHW, torch.tensor(images.labels_N))
    found = site_of(layout, divided).perform(EvaluationTask(subnet.plan, subnet.weights, statistics, "held-out", 2))
    assert found == (expected, 8)


def test_a_network_that_is_not_in_the_space_is_observed_and_evaluated_all_the_same(
    layout: Layout, data: FederatedData, space_of
) -> None:
    """Five and seven channels are no choices of the space; the network comes with its plan and its weights."""
    other = Layout(space_of({"widths": [5], "depths": [1]}, stem={"widths": [7]}, num_classes=10), "batch")
    trimmed = Supernet(other, initial_weights(other, 0)).extract(other.space.largest)
    site = site_of(layout, data)
    (sums,) = site.perform(StatisticsTask((0,), trimmed.plan, trimmed.weights, NOTHING, layer_names(trimmed)))
    x_NCHW = calibration_images_of(data, 0)
    for name, (count, total, _) in statistics_by_hand(trimmed, x_NCHW).items():
        assert sums.layers[name].count == count
        assert np.array_equal(sums.layers[name].total_C, total.numpy())
    expected = num_correct(trimmed, sums, *images_of(data, 1))
    assert site.perform(EvaluationTask(trimmed.plan, trimmed.weights, sums, "client", 1)) == (expected, 33)


def test_held_out_images_are_neither_trained_on_nor_observed(
    layout: Layout, divided: FederatedData, subnet: Subnet
) -> None:
    """Black pixels in their place change neither an update nor a sum."""
    pixels_NHWC = divided.train.images_NHWC.copy()
    pixels_NHWC[np.concatenate(divided.held_out)] = 0
    black = dataclasses.replace(divided, train=dataclasses.replace(divided.train, images_NHWC=pixels_NHWC))
    training = TrainTask(2, 0, Assignment(layout.space.largest), subnet.weights, 0.1)
    observing = StatisticsTask((2,), subnet.plan, subnet.weights, NOTHING, ("stem",))
    updates, sums = zip(
        *((site.perform(training), site.perform(observing)) for site in (site_of(layout, d) for d in (divided, black))),
        strict=True,
    )
    assert updates[0].num_samples == 24
    assert all(torch.equal(updates[0].weights[name], tensor) for name, tensor in updates[1].weights.items())
    assert np.array_equal(*(each[0].layers["stem"].squares_C for each in sums))


@pytest.mark.parametrize("name", ["largest", "smallest"])
def test_candidate_is_scored_after_one_shot_statistics_of_the_clients(
    supernet: Supernet, data: FederatedData, name: str
) -> None:
    """It travels as its architecture: what computes is cut from the supernet held there."""
    site, architecture = holder_of(supernet, data), supernet.layout.space.resolve(name)
    subnet = supernet.extract(architecture)
    request = StatisticsTask((0, 2), subnet.plan, subnet.weights, NOTHING, layer_names(subnet))
    statistics = pool(site.perform(request))
    expected = site.perform(EvaluationTask(subnet.plan, subnet.weights, statistics, "validation", 0, 60))
    assert site.perform(CandidateTask((architecture,), (0, 2))) == [expected]


def test_candidates_examined_together_have_the_sums_and_counts_of_each_alone(
    supernet: Supernet, divided: FederatedData
) -> None:
    """To the bit, in whatever order, though what neighbours have in common is computed once."""
    site, space = holder_of(supernet, divided), supernet.layout.space
    genes_NG = space.enumerate_genes()
    architectures = [space.decode(genes) for genes in (*genes_NG[:3], genes_NG[-1], *genes_NG[1:5], genes_NG[0])]
    together = site.perform(CandidateStatisticsTask(tuple(architectures), (3, 1)))
    for index, architecture in enumerate(architectures):
        alone = site.perform(CandidateStatisticsTask((architecture,), (3, 1)))
        for (expected,), found in zip(alone, together, strict=True):
            sums, expected_sums = (each.to_arrays() for each in (found[index], expected))
            assert sums.keys() == expected_sums.keys()
            assert all(np.array_equal(sums[name], array) for name, array in expected_sums.items())
    counts = site.perform(CandidateTask(tuple(architectures), (0, 2)))
    assert counts == [site.perform(CandidateTask((each,), (0, 2)))[0] for each in architectures]


def test_the_clients_part_in_scoring_a_candidate_are_sums_and_counts(
    supernet: Supernet, divided: FederatedData
) -> None:
    site, architecture = holder_of(supernet, divided), supernet.layout.space.smallest
    subnet = supernet.extract(architecture)
    sums = [one for (one,) in site.perform(CandidateStatisticsTask((architecture,), (3, 1)))]
    request = StatisticsTask((3, 1), subnet.plan, subnet.weights, NOTHING, layer_names(subnet))
    for found, expected in zip(sums, site.perform(request), strict=True):
        assert found.layers.keys() == expected.layers.keys()
        assert all(np.array_equal(found.layers[n].squares_C, each.squares_C) for n, each in expected.layers.items())
    statistics = pool(sums)
    counts = site.perform(CandidateCountsTask(architecture, statistics, (2, 0)))
    assert counts == [
        site.perform(EvaluationTask(subnet.plan, subnet.weights, statistics, "held-out", client)) for client in (2, 0)
    ]
    assert [counted for _, counted in counts] == [8, 8]


def test_the_supernet_is_loaded_once_and_only_where_it_is_needed(supernet: Supernet, data: FederatedData) -> None:
    loaded: list[Supernet] = []

    def load() -> Supernet:
        loaded.append(supernet)
        return supernet

    site = Site(supernet.layout, data, TRAINING, 64, 64, 0, load)
    subnet = supernet.extract(supernet.layout.space.smallest)
    site.perform(StatisticsTask((0,), subnet.plan, subnet.weights, NOTHING, ("stem",)))
    assert loaded == []
    for _ in range(2):
        site.perform(CandidateTask((supernet.layout.space.smallest,), (0,)))
    assert loaded == [supernet]


def test_lower_resolution_sees_smaller_images(layout: Layout, data: FederatedData, space_of) -> None:
    space = space_of({"widths": [4], "depths": [1]}, resolutions=[6, 8], num_classes=10)
    layout = Layout(space, "batch")
    subnet = Supernet(layout, initial_weights(layout, 0)).extract(space.smallest)
    task = StatisticsTask((0,), subnet.plan, subnet.weights, NOTHING, ("stem",))
    (reply,) = site_of(layout, data).perform(task)
    assert reply.layers["stem"].count == len(data.clients[0]) * 6 * 6


def test_in_process_engine_answers_in_order_when_asked(layout: Layout, data: FederatedData, subnet: Subnet) -> None:
    """A task is taken only when its reply is asked for, so a round may be stopped in between."""
    taken: list[int] = []

    def tasks():
        for client in (2, 0, 1):
            taken.append(client)
            yield TrainTask(client, 0, Assignment(layout.space.largest), subnet.weights, 0.1)

    engine = InProcess(site_of(layout, data))
    replies = engine.run(tasks())
    assert taken == []
    assert next(replies).client == 2
    assert taken == [2]
    assert [reply.client for reply in replies] == [0, 1]
    engine.close()


def test_in_process_engine_computes_with_one_thread_and_gives_the_others_back() -> None:
    """The order of a sum, and so its last bit, depends on the number of threads."""

    class Observer:
        def perform(self, task: str) -> int:
            if task == "fail":
                raise ValueError(task)
            return torch.get_num_threads()

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        replies = InProcess(Observer()).run(["look", "fail"])
        assert next(replies) == 1
        assert torch.get_num_threads() == 2
        with pytest.raises(ValueError, match="fail"):
            next(replies)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
