"""Whole federations on real digits: strategies, rounds, clients and engines together."""

import contextlib
from collections.abc import Iterator, Mapping

import numpy as np
import pytest
import torch

from fedsup_deploy import rng
from fedsup_deploy.data.augment import Augmentation
from fedsup_deploy.data.dataset import load_dataset
from fedsup_deploy.data.partition import partition
from fedsup_deploy.data.preprocess import Preprocessing
from fedsup_deploy.engines.workers import open_local
from fedsup_deploy.federation.jobs.statistics import CalibrationDraw
from fedsup_deploy.federation.jobs.train import Assignment, LocalTraining, Train
from fedsup_deploy.federation.messages import Blob, Engine
from fedsup_deploy.federation.networks import standalone
from fedsup_deploy.federation.server import recalibration
from fedsup_deploy.federation.server.assignment import Tier
from fedsup_deploy.federation.server.cohort import Terms
from fedsup_deploy.federation.server.federation import Federation
from fedsup_deploy.federation.server.rounds import RoundParams, RoundResult, run_rounds
from fedsup_deploy.federation.server.strategy import EFedSup, FedAvg, FedSup, ServerState, Strategy
from fedsup_deploy.federation.simulation import CLIENTS, TEST, FederatedData, tiers_by_index
from fedsup_deploy.space.search_space import SearchSpace
from fedsup_deploy.supernet.fold import affines, fold
from fedsup_deploy.supernet.layout import Layout
from fedsup_deploy.supernet.model import Supernet, initial_weights
from fedsup_deploy.supernet.normalization import FixedAffine
from fedsup_deploy.supernet.statistics import PooledStatistics

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
SMALLEST, LARGEST, ANY = Tier(architecture="smallest"), Tier(architecture="largest"), Tier(random=True)
TIERS = (SMALLEST, LARGEST, ANY, Tier(params=(1000, 2500)))


def data_of(num_images: int, kind: str, **options: float) -> FederatedData:
    splits = load_dataset("digits", None)
    train_images = splits.train.take(np.arange(num_images))
    clients = partition(train_images.labels_N, kind, NUM_CLIENTS, 0, **options)
    tiers = tiers_by_index(NUM_CLIENTS, len(TIERS))
    return FederatedData(train_images, tuple(clients), splits.test, splits.test, tiers=tiers)


@pytest.fixture(scope="module")
def data() -> FederatedData:
    return data_of(1348, "iid")


@pytest.fixture(scope="module")
def little_data() -> FederatedData:
    return data_of(200, "dirichlet", beta=0.5, min_samples=10)


def preprocessing_of(data: FederatedData) -> Preprocessing:
    return Preprocessing.fit(data.train, 8)


@contextlib.contextmanager
def federation_of(data: FederatedData, workers: int = 1) -> Iterator[Federation]:
    with open_local(data.populations, workers) as engines:
        yield federation_over(engines, data)


def federation_over(engines: Mapping[str, Engine], data: FederatedData) -> Federation:
    own = {name: engine for name, engine in engines.items() if name != CLIENTS}
    return Federation(
        clients=engines[CLIENTS],
        own=own,
        preprocessing=preprocessing_of(data),
        calibration=CalibrationDraw(64, 64),
        calibration_clients=None,
        terms=Terms(1.0, None),
        seed=0,
        on_absences=lambda what, num_asked, absent, *_: pytest.fail(f"{what}: of {num_asked} {absent}"),
    )


def start(normalization: str) -> ServerState:
    layout = Layout(SPACE, normalization)
    return ServerState(Supernet(layout, initial_weights(layout, 0)))


def params_of(data: FederatedData, rounds: int, clients: int = 4) -> RoundParams:
    augmentation = Augmentation(crop_padding=1, fill=preprocessing_of(data).fill)
    return RoundParams(rounds, clients, 0.1, 0, 0.0, TRAINING, augmentation)


def play(data: FederatedData, strategy: Strategy, normalization: str = "batch", rounds: int = 2) -> list[RoundResult]:
    with federation_of(data) as federation:
        return list(run_rounds(federation, start(normalization), strategy, params_of(data, rounds)))


def assert_same_bytes(first: Supernet, second: Supernet) -> None:
    for name, tensor in first.weights.items():
        assert tensor.numpy().tobytes() == second.weights[name].numpy().tobytes(), name


def test_same_bytes_for_any_engine_and_number_of_workers(little_data: FederatedData) -> None:
    """Two rounds of E-FedSup and of FedSup, then statistics and accuracy of a subnet."""
    strategies = [EFedSup(SPACE, 2, TIERS, 0.5, paper=False), FedSup(SPACE, 2, 3, 0.5, paper=False)]
    outcomes = []
    for workers in (1, 2, 3):
        with federation_of(little_data, workers) as federation:
            params = params_of(little_data, 2)
            results = [list(run_rounds(federation, start("batch"), each, params))[-1] for each in strategies]
            network = standalone(results[0].state.supernet.extract(SPACE.smallest))
            pooled = recalibration.collect(federation, network, "layer-wise")
            answers = recalibration.evaluate(federation, network, pooled, TEST)
        outcomes.append((results, pooled, answers))
    (first, first_pooled, first_answers), *others = outcomes
    for results, pooled, answers in others:
        for here, there in zip(first, results, strict=True):
            assert_same_bytes(here.state.supernet, there.state.supernet)
            assert (here.loss, here.sampled, here.bytes_up) == (there.loss, there.sampled, there.bytes_up)
        for name, sums in first_pooled.layers.items():
            assert np.array_equal(sums.squares_C, pooled.layers[name].squares_C), name
        assert answers == first_answers
    assert first_answers.num_images == 449
    weights = [result.state.supernet.weights["head.weight"] for result in first]
    assert not torch.equal(*weights)


@pytest.mark.parametrize(
    ("name", "normalization"),
    [("fedavg", "batch"), ("fedsup", "batch"), ("e-fedsup", "batch"), ("e-fedsup", "parametric")],
)
def test_every_strategy_learns_digits(data: FederatedData, name: str, normalization: str) -> None:
    """After a few rounds the largest subnet, recalibrated and folded, knows far more than one digit in ten."""
    strategy = {
        "fedavg": lambda: FedAvg(SPACE, 6, "largest"),
        "fedsup": lambda: FedSup(SPACE, 6, 3, None, paper=False),
        "e-fedsup": lambda: EFedSup(
            SPACE,
            6,
            (LARGEST, ANY, ANY, ANY),
            None,
            paper=False,
        ),
    }[name]()
    with federation_of(data) as federation:
        results = list(run_rounds(federation, start(normalization), strategy, params_of(data, 6)))
        supernet = results[-1].state.supernet
        network = standalone(supernet.extract(SPACE.largest))
        pooled = recalibration.collect(federation, network, "layer-wise")
        accuracy = recalibration.evaluate(federation, network, pooled, TEST).accuracy
    assert accuracy.share > 0.3
    check_folded(supernet, pooled, data, accuracy.share)


def check_folded(supernet: Supernet, pooled: PooledStatistics, data: FederatedData, accuracy: float) -> None:
    """Compare the largest subnet, folded, with the trained supernet on real images: to 1e-5, in any batch."""
    subnet = supernet.extract(SPACE.largest)
    net = fold(subnet, pooled).module()
    normalizer = FixedAffine(affines(subnet.weights, supernet.layout.normalization, pooled))
    assert data.test is not None
    x_NCHW = torch.from_numpy(preprocessing_of(data).apply(data.test.images_NHWC))
    expected_NK = supernet(x_NCHW, SPACE.largest, normalizer)
    for batch in (1, 3, 8):
        found_NK = torch.cat([net(x_BCHW) for x_BCHW in x_NCHW[:48].split(batch)])
        scale = max(1.0, float(expected_NK[:48].abs().max()))
        assert float((found_NK - expected_NK[:48]).abs().max()) <= 1e-5 * scale
    is_correct = net(x_NCHW).argmax(dim=1) == torch.tensor(data.test.labels_N)
    assert float(is_correct.float().mean()) == pytest.approx(accuracy, abs=1 / len(data.test))


def test_one_client_on_the_largest_subnet_of_fedavg_is_that_client_alone(little_data: FederatedData) -> None:
    before, params = start("batch").supernet, params_of(little_data, 1, clients=1)
    with federation_of(little_data) as federation:
        (result,) = run_rounds(federation, start("batch"), FedAvg(SPACE, 6, "largest"), params)
    (client,) = result.sampled
    job = Train(
        layout=before.layout,
        assignment=Assignment(SPACE.largest),
        weights=Blob(before.extract(SPACE.largest).weights),
        learning_rate=0.1,
        training=TRAINING,
        preprocessing=preprocessing_of(little_data),
        augmentation=params.augmentation,
        seed=rng.derive(0, "client", 0, client),
    )
    expected = little_data.populations()[CLIENTS].client(client).perform(job)
    trained = result.state.supernet.extract(SPACE.largest)
    for name, tensor in expected.weights.items():
        # Weights below 2e-6 are rounded when they are averaged.
        assert torch.allclose(trained.weights[name], tensor, rtol=0, atol=2.0**-43), name
        assert torch.equal(trained.weights[name][tensor.abs() > 2e-6], tensor[tensor.abs() > 2e-6]), name


def test_tier_of_smallest_subnets_leaves_the_rest_of_the_supernet_alone(little_data: FederatedData) -> None:
    before = start("batch").supernet
    strategy = EFedSup(SPACE, 2, (SMALLEST,) * 4, 0.0, paper=False)
    after = play(little_data, strategy)[-1].state.supernet
    for name, mask in before.layout.partial_coverage((SPACE.smallest,)).items():
        assert torch.equal(after.weights[name][~mask], before.weights[name][~mask]), name
    for name, index in before.layout.slices(SPACE.smallest).items():
        assert not torch.equal(after.weights[name][index], before.weights[name][index]), name


def test_sub_models_travel_lighter_than_the_supernet(little_data: FederatedData) -> None:
    whole = play(little_data, FedSup(SPACE, 1, 2, 0.0, paper=False), rounds=1)[0]
    parts = play(little_data, EFedSup(SPACE, 2, TIERS, 0.0, paper=False), rounds=1)[0]
    assert parts.bytes_down == parts.bytes_up < whole.bytes_down == whole.bytes_up


def test_continued_run_is_the_run_that_was_never_interrupted(little_data: FederatedData) -> None:
    strategy = EFedSup(SPACE, 2, TIERS, 0.0, paper=False)
    params = params_of(little_data, 3)
    with federation_of(little_data) as federation:
        whole = list(run_rounds(federation, start("batch"), strategy, params))
        (rest,) = run_rounds(federation, whole[1].state, strategy, params, first_round=2)
    assert_same_bytes(rest.state.supernet, whole[2].state.supernet)
