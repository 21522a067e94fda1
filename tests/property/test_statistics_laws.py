"""Laws of pooled statistics: those of all data in one place, however it is split into clients and batches."""

import dataclasses
import functools
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsup_deploy import rng
from fedsup_deploy.data.dataset import load_dataset
from fedsup_deploy.data.partition import partition
from fedsup_deploy.data.preprocess import Preprocessing
from fedsup_deploy.engines.inprocess import InProcess
from fedsup_deploy.federation.jobs.statistics import CalibrationDraw, TakeStatistics
from fedsup_deploy.federation.networks import standalone
from fedsup_deploy.federation.server import recalibration
from fedsup_deploy.federation.server.cohort import Terms
from fedsup_deploy.federation.server.federation import Federation
from fedsup_deploy.federation.simulation import CLIENTS, FederatedData
from fedsup_deploy.space.layers.layer import Layer
from fedsup_deploy.space.plan import NetworkPlan
from fedsup_deploy.space.search_space import SearchSpace
from fedsup_deploy.supernet.fold import fold
from fedsup_deploy.supernet.forward import forward
from fedsup_deploy.supernet.layout import Layout
from fedsup_deploy.supernet.model import Subnet, Supernet, initial_weights
from fedsup_deploy.supernet.normalization import BY_BATCH, SumCollector
from fedsup_deploy.supernet.statistics import ChannelSums, FloatArray, PooledStatistics, StatisticsSum

NUM_IMAGES, NUM_CLIENTS = 300, 12
TOLERANCE = 1e-5
PARTITIONS = {"iid": {}, "shards": {"shards_per_client": 2}, "dirichlet": {"beta": 0.1}}
SPACES = {
    "mobilenet": {
        "family": "mobilenet",
        "stem": {"widths": [8]},
        "stages": [
            {"name": "a", "widths": [8], "depths": [2], "kernel_sizes": [3], "expand_ratios": [2]},
            {"name": "b", "widths": [12], "depths": [1], "squeeze_excite": [True], "stride": 2},
        ],
    },
    "resnet": {
        "family": "resnet",
        "stem": {"widths": [8]},
        "stages": [
            {"name": "a", "widths": [16], "depths": [2], "expand_ratios": [0.5]},
            {"name": "b", "widths": [24], "depths": [1], "expand_ratios": [0.5], "stride": 2},
        ],
    },
}


# --- the sums alone


def sums_of(values_NC: FloatArray) -> ChannelSums:
    return ChannelSums(len(values_NC), values_NC.sum(axis=0), np.square(values_NC).sum(axis=0))


def one_layer(channels: int) -> NetworkPlan:
    """Return a network of one layer whose maps are of one pixel, so that an image has one value per channel."""
    return NetworkPlan(Layer("l", "conv", 1, channels, in_size=1, has_norm=True), (), ())


def sum_of(parts: list[FloatArray]) -> StatisticsSum:
    """Return the sum of clients that see these values."""
    total = StatisticsSum(one_layer(parts[0].shape[1]), frozenset({"l"}))
    for values_NC in parts:
        assert total.add(PooledStatistics({"l": sums_of(values_NC)}), len(values_NC)) is None
    return total


@settings(max_examples=50)
@given(seed=st.integers(0, 2**32), cuts=st.lists(st.integers(1, 199), max_size=12), scale=st.floats(1e-2, 1e3))
def test_pooled_moments_are_those_of_the_concatenation_however_it_is_cut(
    seed: int, cuts: list[int], scale: float
) -> None:
    generator = rng.generator(seed)
    values_NC = generator.normal(generator.normal(0, 3, 5), scale, (200, 5)).astype(np.float32).astype(np.float64)
    parts = [part for part in np.split(values_NC, sorted(cuts)) if len(part)]
    pooled = sum_of(parts).result().layers["l"]
    mean_C, variance_C = pooled.mean_and_variance()
    centre_C = generator.normal(0, scale, 5)
    assert pooled.count == 200
    np.testing.assert_allclose(mean_C, values_NC.mean(axis=0), rtol=0, atol=1e-12 * np.abs(values_NC).max())
    np.testing.assert_allclose(variance_C, values_NC.var(axis=0), rtol=1e-8)
    expected = np.sqrt(np.square(values_NC - centre_C).mean(axis=0))
    np.testing.assert_allclose(pooled.rms_around(centre_C), expected, rtol=1e-8)


@settings(max_examples=60)
@given(data=st.data(), seed=st.integers(0, 2**32), scales=st.lists(st.floats(-18, 5), min_size=1, max_size=8))
def test_neither_the_order_of_clients_nor_a_relay_changes_a_bit(
    data: st.DataObject, seed: int, scales: list[float]
) -> None:
    """Though clients' values differ by any power of ten, so that sums of floats would depend on it.

    Some are first added up elsewhere, in any order, and a relay may have relays of its own.
    """
    generator = rng.generator(seed)
    parts = [generator.normal(1, 2, (7, 3)) * 10.0**scale for scale in scales]
    expected = sum_of(parts).result().layers["l"]
    assert expected.count == 7 * len(parts)
    for _ in range(3):
        order = data.draw(st.permutations(parts))
        cuts = sorted(data.draw(st.tuples(*[st.integers(0, len(parts))] * 2)))
        total, relay, below = (
            sum_of(some) if some else StatisticsSum(one_layer(3), frozenset({"l"}))
            for some in (order[: cuts[0]], order[cuts[0] : cuts[1]], order[cuts[1] :])
        )
        relay.merge(below)
        total.merge(relay)
        found = total.result().layers["l"]
        assert found.count == expected.count
        assert found.total_C.tobytes() == expected.total_C.tobytes()
        assert found.squares_C.tobytes() == expected.squares_C.tobytes()


@settings(max_examples=50)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 6), exponent=st.integers(-30, 39))
def test_sums_are_those_of_whole_numbers_but_for_a_unit_in_the_last_place(seed: int, count: int, exponent: int) -> None:
    """Sums of up to 2^40 in multiples of 2^-61, each of which is a Python integer: added up without any rounding."""
    generator = rng.generator(seed)
    squares_KC = generator.uniform(0, 1, (count, 4)) * 2.0**exponent
    # Of nine values with these squares, the sum is at most three times the root.
    sums_KC = generator.uniform(-3, 3, (count, 4)) * np.sqrt(squares_KC)
    total = StatisticsSum(one_layer(4), frozenset({"l"}))
    for sums_C, squares_C in zip(sums_KC, squares_KC, strict=True):
        assert total.add(PooledStatistics({"l": ChannelSums(9, sums_C, squares_C)}), 9) is None
    found = total.result().layers["l"]
    for array_C, parts_KC in ((found.total_C, sums_KC), (found.squares_C, squares_KC)):
        exact = [sum(round(value * 2.0**61) for value in parts_KC[:, channel].tolist()) for channel in range(4)]
        expected_C = np.array([whole / 2**61 for whole in exact])
        np.testing.assert_allclose(array_C, expected_C, rtol=2.0**-52, atol=0)


# --- real images, clients and networks


@functools.cache
def federation(kind: str) -> FederatedData:
    train = load_dataset("digits", None).train.take(np.arange(NUM_IMAGES))
    clients = partition(train.labels_N, kind, NUM_CLIENTS, 0, **PARTITIONS[kind])
    return FederatedData(train, tuple(clients), None, None)


@functools.cache
def preprocessing() -> Preprocessing:
    """Return that of all images, whoever has them."""
    return Preprocessing.fit(federation("iid").train, 8)


def collect(data: FederatedData, subnet: Subnet, schedule: str, batch_size: int) -> PooledStatistics:
    """Return what a recalibration on all images of all clients gives."""
    clients = InProcess(data.populations()[CLIENTS])
    calibration = CalibrationDraw(NUM_IMAGES, batch_size)
    server = Federation(clients, {}, preprocessing(), calibration, None, Terms(1.0, None), 0, nobody_is_absent)
    return recalibration.collect(server, standalone(subnet), schedule)


def nobody_is_absent(what: str, num_asked: int, absent: Mapping[int, str]) -> None:
    raise AssertionError(f"{what}: of {num_asked} {absent}")


def subnet_of(family: str, normalization: str) -> tuple[Layout, Subnet]:
    """Return a network as after training: no vector is neutral, no weight is zero."""
    document = {"schema": 1, "name": family, "in_channels": 1, "resolutions": [8], **SPACES[family]}
    layout = Layout(SearchSpace.model_validate(document), normalization)
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: torch.randn(shape, generator=generator) * (0.3 if len(shape) == 1 else np.prod(shape[1:]) ** -0.5)
        + (1.0 if name.endswith("gamma") else 0.0)
        for name, shape in layout.shapes.items()
    }
    return layout, Supernet(layout, {n: t.float() for n, t in weights.items()}).extract(layout.space.largest)


def collected(kind: str, family: str, normalization: str, schedule: str, batch_size: int = 17) -> PooledStatistics:
    _, subnet = subnet_of(family, normalization)
    return collect(federation(kind), subnet, schedule, batch_size)


@functools.cache
def truth(family: str, normalization: str) -> PooledStatistics:
    """Return the statistics of all images together: one batch, in float64, that every layer normalises by.

    Then the statistics of a layer are those of its input when the layers before are normalised with theirs.
    """
    _, subnet = subnet_of(family, normalization)
    data = federation("iid")
    x_NCHW = torch.from_numpy(preprocessing().apply(data.train.images_NHWC)).double()
    names = frozenset(layer.name for layer in subnet.plan.norm_layers())
    collector = SumCollector(names, BY_BATCH[normalization])
    forward(subnet.plan, {name: tensor.double() for name, tensor in subnet.weights.items()}, x_NCHW, collector)
    return PooledStatistics(
        {n: ChannelSums(count, total.numpy(), squares.numpy()) for n, (count, total, squares) in collector.sums.items()}
    )


def errors(found: PooledStatistics, expected: PooledStatistics) -> dict[str, float]:
    """Return the largest error of each layer: of a mean relative to the channel's RMS, of a variance to itself.

    A channel that never answers has neither; it is measured by a millionth of the layer's largest.
    """
    assert found.layers.keys() == expected.layers.keys()
    result = {}
    for name, sums in found.layers.items():
        assert sums.count == expected.layers[name].count
        (mean_C, variance_C), (true_mean_C, true_variance_C) = (
            each.mean_and_variance() for each in (sums, expected.layers[name])
        )
        rms_C = expected.layers[name].rms_around(np.zeros(len(mean_C)))
        mean_error = np.abs(mean_C - true_mean_C) / np.maximum(rms_C, 1e-6 * rms_C.max())
        variance_error = np.abs(variance_C - true_variance_C) / np.maximum(
            true_variance_C, 1e-6 * true_variance_C.max()
        )
        result[name] = float(max(mean_error.max(), variance_error.max()))
    return result


@pytest.mark.parametrize("normalization", ["batch", "parametric"])
@pytest.mark.parametrize("family", SPACES)
@pytest.mark.parametrize("kind", PARTITIONS)
def test_layer_wise_statistics_are_those_of_all_images_in_one_place(kind: str, family: str, normalization: str) -> None:
    """At every layer, whether clients hold alike images, two classes each, or very different numbers of them."""
    found = errors(collected(kind, family, normalization, "layer-wise"), truth(family, normalization))
    _, subnet = subnet_of(family, normalization)
    assert list(found) == [layer.name for layer in subnet.plan.norm_layers()]
    assert max(found.values()) <= TOLERANCE, found


@pytest.mark.parametrize("batch_size", [1, 5, 1000])
def test_layer_wise_statistics_do_not_depend_on_the_batch_size(batch_size: int) -> None:
    found = errors(collected("shards", "resnet", "batch", "layer-wise", batch_size), truth("resnet", "batch"))
    assert max(found.values()) <= TOLERANCE, found


@pytest.mark.parametrize("batch_size", [1, 16])
def test_layer_wise_statistics_need_no_batch_to_normalise_by(batch_size: int) -> None:
    """Maps of one pixel, clients of one and of seventeen images: where predecessors are known, a layer is observed."""
    stages = [{"name": name, "widths": [6], "depths": [1], "stride": 2} for name in "abc"]
    document = {"schema": 1, "name": "deep", "family": "mobilenet", "in_channels": 1, "resolutions": [8]}
    layout = Layout(SearchSpace.model_validate({**document, "stem": {"widths": [6]}, "stages": stages}), "batch")
    subnet = Supernet(layout, initial_weights(layout, 0)).extract(layout.space.largest)
    assert subnet.plan.norm_layers()[-1].out_size == 1
    data = federation("iid")
    divided = dataclasses.replace(data, clients=tuple(np.split(np.arange(NUM_IMAGES), [1, 18])))

    in_one_place = dataclasses.replace(data, clients=(np.arange(NUM_IMAGES),))
    together = collect(in_one_place, subnet, "layer-wise", NUM_IMAGES)
    assert max(errors(collect(divided, subnet, "layer-wise", batch_size), together).values()) <= TOLERANCE


@pytest.mark.parametrize("normalization", ["batch", "parametric"])
def test_one_shot_statistics_are_not_exact(normalization: str) -> None:
    """So the tests above mean something. Only the first layer, which nothing comes before, is."""
    found = errors(collected("shards", "mobilenet", normalization, "one-shot"), truth("mobilenet", normalization))
    assert found.pop("stem") <= TOLERANCE
    assert min(found.values()) > 100 * TOLERANCE
    assert max(found.values()) > 0.02


def test_average_of_the_clients_variances_is_something_else() -> None:
    """What each client computes alone at the last layer, weighted by its images: the variance between is missing."""
    _, subnet = subnet_of("mobilenet", "batch")
    exact = truth("mobilenet", "batch")
    *before, last = exact.layers
    known = PooledStatistics({name: exact.layers[name] for name in before})
    job = TakeStatistics((standalone(subnet),), (last,), known, preprocessing(), CalibrationDraw(NUM_IMAGES, 64), 0)
    population = federation("shards").populations()[CLIENTS]
    answers = [population.client(client).perform(job) for client in range(NUM_CLIENTS)]
    clients = [answer.statistics[0].layers[last] for answer in answers]
    shares_K1 = np.array([[sums.count] for sums in clients]) / sum(sums.count for sums in clients)
    means_KC, variances_KC = map(np.stack, zip(*(sums.mean_and_variance() for sums in clients), strict=True))
    average_C = (shares_K1 * variances_KC).sum(axis=0)
    mean_C, variance_C = exact.layers[last].mean_and_variance()
    between_C = (shares_K1 * np.square(means_KC - mean_C)).sum(axis=0)
    assert (average_C < variance_C).all()
    assert (between_C / variance_C).max() > 0.01
    np.testing.assert_allclose(average_C + between_C, variance_C, rtol=1e-4)


@pytest.mark.parametrize("normalization", ["batch", "parametric"])
def test_net_folded_with_the_exact_statistics_answers_like_all_images_in_one_batch(normalization: str) -> None:
    """Recalibrated on clients, then folded: the logits are those of one batch of everything."""
    _, subnet = subnet_of("resnet", normalization)
    net = fold(subnet, collected("dirichlet", "resnet", normalization, "layer-wise")).module()
    data = federation("iid")
    x_NCHW = torch.from_numpy(preprocessing().apply(data.train.images_NHWC))
    expected = subnet(x_NCHW)
    # The batch's parametric normalisation has 1e-12 below its root, which the folded one has not.
    assert float((net(x_NCHW) - expected).abs().max()) <= 1e-4 * float(expected.abs().max())
    assert float((net(x_NCHW[:1]) - expected[:1]).abs().max()) <= 1e-4 * float(expected.abs().max())
