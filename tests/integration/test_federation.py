"""Whole federations on real digits: strategies, rounds, clients and engines together."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from fedsup_deploy.data.augment import Augmentation
from fedsup_deploy.data.dataset import load_dataset
from fedsup_deploy.data.federated import FederatedData
from fedsup_deploy.data.partition import partition
from fedsup_deploy.data.preprocess import Preprocessing
from fedsup_deploy.engines.local import LocalEngine
from fedsup_deploy.federated import statistics
from fedsup_deploy.federated.assignment import Tier
from fedsup_deploy.federated.client import LocalTraining, train
from fedsup_deploy.federated.rounds import RoundParams, RoundResult, run_rounds
from fedsup_deploy.federated.site import InProcess, Site
from fedsup_deploy.federated.strategy import EFedSup, FedAvg, FedSup, Strategy
from fedsup_deploy.federated.tasks import Assignment, Engine, TrainTask
from fedsup_deploy.recalibrate.fold import affines, fold
from fedsup_deploy.recalibrate.pooled import PooledStatistics
from fedsup_deploy.space.search_space import SearchSpace
from fedsup_deploy.supernet.layout import Layout
from fedsup_deploy.supernet.model import Supernet, initial_weights
from fedsup_deploy.supernet.normalization import FixedAffine

NUM_CLIENTS = 8
TRAINING = LocalTraining(
    epochs=1, batch_size=16, momentum=0.9, weight_decay=1e-4, clip_value=1.0, has_logit_adjustment=True
)
SPACE = SearchSpace.model_validate(
    {
        "schema": 1,
        "name": "small",
        "family": "mobilenet",
        "in_channels": 1,
        "resolutions": [8],
        "stem": {"widths": [8, 12]},
        "stages": [
            {"name": "a", "widths": [8, 16], "depths": [1, 2], "kernel_sizes": [3, 5]},
            {"name": "b", "widths": [16, 32], "depths": [1], "kernel_sizes": [3, 5], "stride": 2},
        ],
    }
)
TIERS = (Tier("smallest"), Tier("largest"), Tier(), Tier(params_range=(1000, 2500)))


def data_of(num_images: int, kind: str, **options: float) -> FederatedData:
    splits = load_dataset("digits", None)
    train_images = splits.train.take(np.arange(num_images))
    clients = partition(train_images.labels_N, kind, NUM_CLIENTS, 0, **options)
    preprocessing = Preprocessing.fit(train_images, 8)
    augmentation = Augmentation(crop_padding=1, fill=preprocessing.black)
    return FederatedData(train_images, tuple(clients), splits.test, splits.test, preprocessing, augmentation)


@pytest.fixture(scope="module")
def data() -> FederatedData:
    return data_of(1348, "iid")


@pytest.fixture(scope="module")
def little_data() -> FederatedData:
    return data_of(200, "dirichlet", beta=0.5, min_samples=10)


def make_site(data: FederatedData, normalization: str, training: LocalTraining = TRAINING) -> functools.partial[Site]:
    return functools.partial(Site, Layout(SPACE, normalization), data, training, 64, 64, 0)


def start(normalization: str) -> Supernet:
    layout = Layout(SPACE, normalization)
    return Supernet(layout, initial_weights(layout, 0))


@contextmanager
def closing(engine: Engine) -> Iterator[Engine]:
    try:
        yield engine
    finally:
        engine.close()


def play(engine: Engine, strategy: Strategy, normalization: str = "batch", rounds: int = 2) -> list[RoundResult]:
    params = RoundParams(rounds, 4, 0.1, 0, 0.0)
    return list(run_rounds(start(normalization), strategy, engine, params, 0))


def assert_same_bytes(first: Supernet, second: Supernet) -> None:
    for name, tensor in first.weights.items():
        assert tensor.numpy().tobytes() == second.weights[name].numpy().tobytes(), name


def test_same_bytes_for_any_engine_and_number_of_workers(little_data: FederatedData) -> None:
    """Two rounds of E-FedSup and of FedSup, then statistics and accuracy of a subnet."""
    strategies = [
        EFedSup(SPACE, NUM_CLIENTS, 2, TIERS, 0.5, paper=False),
        FedSup(SPACE, NUM_CLIENTS, 2, 3, 0.5, paper=False),
    ]
    outcomes = []
    for make in (
        lambda: InProcess(make_site(little_data, "batch")()),
        lambda: LocalEngine(make_site(little_data, "batch"), 1),
        lambda: LocalEngine(make_site(little_data, "batch"), 2),
    ):
        with closing(make()) as engine:
            results = [play(engine, strategy)[-1] for strategy in strategies]
            supernet = results[0].supernet
            subnet = supernet.extract(SPACE.smallest)
            pooled = statistics.collect(engine, subnet.plan, subnet.weights, range(NUM_CLIENTS), "layer-wise")
            accuracy = statistics.evaluate(engine, subnet.plan, subnet.weights, pooled, "test", 449)
        outcomes.append((results, pooled, accuracy))
    (first, first_pooled, first_accuracy), *others = outcomes
    for results, pooled, accuracy in others:
        for here, there in zip(first, results, strict=True):
            assert_same_bytes(here.supernet, there.supernet)
            assert (here.loss, here.sampled, here.bytes_up) == (there.loss, there.sampled, there.bytes_up)
        for name, sums in first_pooled.layers.items():
            assert np.array_equal(sums.squares_C, pooled.layers[name].squares_C), name
        assert accuracy == first_accuracy
    assert not torch.equal(first[0].supernet.weights["head.weight"], first[1].supernet.weights["head.weight"])


@pytest.mark.parametrize(
    ("name", "normalization"),
    [("fedavg", "batch"), ("fedsup", "batch"), ("e-fedsup", "batch"), ("e-fedsup", "parametric")],
)
def test_every_strategy_learns_digits(data: FederatedData, name: str, normalization: str) -> None:
    """After a few rounds the largest subnet, recalibrated and folded, knows far more than one digit in ten."""
    strategy = {
        "fedavg": lambda: FedAvg(SPACE, NUM_CLIENTS, 6, "largest"),
        "fedsup": lambda: FedSup(SPACE, NUM_CLIENTS, 6, 3, None, paper=False),
        "e-fedsup": lambda: EFedSup(SPACE, NUM_CLIENTS, 6, (Tier("largest"), Tier()), None, paper=False),
    }[name]()
    engine = InProcess(make_site(data, normalization)())
    results = play(engine, strategy, normalization, rounds=6)
    subnet = results[-1].supernet.extract(SPACE.largest)
    pooled = statistics.collect(engine, subnet.plan, subnet.weights, range(NUM_CLIENTS), "layer-wise")
    accuracy = statistics.evaluate(engine, subnet.plan, subnet.weights, pooled, "test", len(data.test))
    assert accuracy > 0.3
    check_folded(results[-1].supernet, pooled, data, accuracy)


def check_folded(supernet: Supernet, pooled: PooledStatistics, data: FederatedData, accuracy: float) -> None:
    """Compare the largest subnet, folded, with the trained supernet on real images: to 1e-5, in any batch."""
    subnet = supernet.extract(SPACE.largest)
    net = fold(subnet, pooled)
    normalizer = FixedAffine(affines(subnet.weights, supernet.layout.normalization, pooled))
    x_NCHW = torch.from_numpy(data.preprocessing.apply(data.test.images_NHWC))
    expected_NK = supernet(x_NCHW, SPACE.largest, normalizer)
    for batch in (1, 3, 8):
        found_NK = torch.cat([net(x_BCHW) for x_BCHW in x_NCHW[:48].split(batch)])
        scale = max(1.0, float(expected_NK[:48].abs().max()))
        assert float((found_NK - expected_NK[:48]).abs().max()) <= 1e-5 * scale
    is_correct = net(x_NCHW).argmax(dim=1) == torch.tensor(data.test.labels_N)
    assert float(is_correct.float().mean()) == pytest.approx(accuracy, abs=1 / len(data.test))


def test_one_client_on_the_largest_subnet_of_fedavg_is_that_client_alone(little_data: FederatedData) -> None:
    supernet = start("batch")
    params = RoundParams(1, 1, 0.1, 0, 0.0)
    engine = InProcess(make_site(little_data, "batch")())
    (result,) = run_rounds(supernet, FedAvg(SPACE, NUM_CLIENTS, 6, "largest"), engine, params, 0)
    subnet = supernet.extract(SPACE.largest)
    task = TrainTask(result.sampled[0], 0, Assignment(SPACE.largest), subnet.weights, 0.1)
    images = little_data.client(result.sampled[0])
    prepared = torch.from_numpy(little_data.preprocessing.apply(images.images_NHWC)), torch.tensor(images.labels_N)
    expected = train(task, supernet.layout, prepared, little_data.augmentation, TRAINING, 0)
    trained = result.supernet.extract(SPACE.largest)
    assert all(torch.equal(trained.weights[name], tensor) for name, tensor in expected.weights.items())


def test_tier_of_smallest_subnets_leaves_the_rest_of_the_supernet_alone(little_data: FederatedData) -> None:
    before = start("batch")
    engine = InProcess(make_site(little_data, "batch")())
    after = play(engine, EFedSup(SPACE, NUM_CLIENTS, 2, (Tier("smallest"),), 0.0, paper=False))[-1].supernet
    for name, mask in before.layout.partial_coverage((SPACE.smallest,)).items():
        assert torch.equal(after.weights[name][~mask], before.weights[name][~mask]), name
    for name, index in before.layout.slices(SPACE.smallest).items():
        assert not torch.equal(after.weights[name][index], before.weights[name][index]), name


def test_sub_models_travel_lighter_than_the_supernet(little_data: FederatedData) -> None:
    engine = InProcess(make_site(little_data, "batch")())
    whole = play(engine, FedSup(SPACE, NUM_CLIENTS, 1, 2, 0.0, paper=False), rounds=1)[0]
    parts = play(engine, EFedSup(SPACE, NUM_CLIENTS, 2, TIERS, 0.0, paper=False), rounds=1)[0]
    assert parts.bytes_down == parts.bytes_up < whole.bytes_down == whole.bytes_up


def test_continued_run_is_the_run_that_was_never_interrupted(little_data: FederatedData) -> None:
    strategy = EFedSup(SPACE, NUM_CLIENTS, 2, TIERS, 0.0, paper=False)
    engine = InProcess(make_site(little_data, "batch")())
    whole = play(engine, strategy, rounds=3)
    params = RoundParams(3, 4, 0.1, 0, 0.0)
    (rest,) = run_rounds(whole[1].supernet, strategy, engine, params, 0, first_round=2)
    assert_same_bytes(rest.supernet, whole[2].supernet)
