"""Laws of pooled statistics: those of all data in one place, however it is split into clients and batches."""

import dataclasses
import functools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsup_deploy import rng
from fedsup_deploy.data.augment import Augmentation
from fedsup_deploy.data.dataset import load_dataset
from fedsup_deploy.data.federated import FederatedData
from fedsup_deploy.data.partition import partition
from fedsup_deploy.data.preprocess import Preprocessing
from fedsup_deploy.federated import statistics
from fedsup_deploy.federated.client import LocalTraining
from fedsup_deploy.federated.site import InProcess, Site
from fedsup_deploy.federated.tasks import StatisticsTask
from fedsup_deploy.recalibrate.fold import fold
from fedsup_deploy.recalibrate.pooled import ChannelSums, FloatArray, PooledStatistics, pool
from fedsup_deploy.space.search_space import SearchSpace
from fedsup_deploy.supernet.forward import forward
from fedsup_deploy.supernet.layout import Layout
from fedsup_deploy.supernet.model import Subnet, Supernet, initial_weights
from fedsup_deploy.supernet.normalization import BY_BATCH, SumCollector

NUM_IMAGES, NUM_CLIENTS = 300, 12
TOLERANCE = 1e-5
#: Nobody trains here.
TRAINING = LocalTraining(
    epochs=1, batch_size=8, momentum=0.0, weight_decay=0.0, clip_value=None, has_logit_adjustment=False
)
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


@settings(max_examples=50)
@given(seed=st.integers(0, 2**32), cuts=st.lists(st.integers(1, 199), max_size=12), scale=st.floats(1e-2, 1e3))
def test_pooled_moments_are_those_of_the_concatenation_however_it_is_cut(
    seed: int, cuts: list[int], scale: float
) -> None:
    generator = rng.generator(seed)
    values_NC = generator.normal(generator.normal(0, 3, 5), scale, (200, 5)).astype(np.float32).astype(np.float64)
    parts = [part for part in np.split(values_NC, sorted(cuts)) if len(part)]
    pooled = pool(PooledStatistics({"l": sums_of(part)}) for part in parts).layers["l"]
    mean_C, variance_C = pooled.mean_and_variance()
    centre_C = generator.normal(0, scale, 5)
    assert pooled.count == 200
    np.testing.assert_allclose(mean_C, values_NC.mean(axis=0), rtol=0, atol=1e-12 * np.abs(values_NC).max())
    np.testing.assert_allclose(variance_C, values_NC.var(axis=0), rtol=1e-8)
    expected = np.sqrt(np.square(values_NC - centre_C).mean(axis=0))
    np.testing.assert_allclose(pooled.rms_around(centre_C), expected, rtol=1e-8)


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32), order=st.permutations(range(6)))
def test_order_of_clients_changes_no_more_than_rounding(seed: int, order: list[int]) -> None:
    generator = rng.generator(seed)
    parts = [PooledStatistics({"l": sums_of(generator.normal(1, 2, (7, 3)))}) for _ in range(6)]
    first, second = pool(parts).layers["l"], pool([parts[index] for index in order]).layers["l"]
    np.testing.assert_allclose(first.total_C, second.total_C, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(first.squares_C, second.squares_C, rtol=1e-12)


# --- real images, clients and networks


@functools.cache
def federation(kind: str) -> FederatedData:
    train = load_dataset("digits", None).train.take(np.arange(NUM_IMAGES))
    clients = partition(train.labels_N, kind, NUM_CLIENTS, 0, **PARTITIONS[kind])
    return FederatedData(train, tuple(clients), train, train, Preprocessing.fit(train, 8), Augmentation())


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
    """Return what a recalibration over all images of all clients gives."""
    layout, subnet = subnet_of(family, normalization)
    engine = InProcess(Site(layout, federation(kind), TRAINING, NUM_IMAGES, batch_size, 0))
    return statistics.collect(engine, subnet.plan, subnet.weights, range(NUM_CLIENTS), schedule)


@functools.cache
def truth(family: str, normalization: str) -> PooledStatistics:
    """Return the statistics of all images together: one batch, in float64, that every layer normalises by.

    Then the statistics of a layer are those of its input when the layers before are normalised with theirs.
    """
    _, subnet = subnet_of(family, normalization)
    data = federation("iid")
    x_NCHW = torch.from_numpy(data.preprocessing.apply(data.train.images_NHWC)).double()
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

    def collect(data: FederatedData, batch_size: int) -> PooledStatistics:
        engine = InProcess(Site(layout, data, TRAINING, NUM_IMAGES, batch_size, 0))
        return statistics.collect(engine, subnet.plan, subnet.weights, range(data.num_clients), "layer-wise")

    together = collect(dataclasses.replace(data, clients=(np.arange(NUM_IMAGES),)), NUM_IMAGES)
    assert max(errors(collect(divided, batch_size), together).values()) <= TOLERANCE


@pytest.mark.parametrize("normalization", ["batch", "parametric"])
def test_one_shot_statistics_are_not_exact(normalization: str) -> None:
    """So the tests above mean something. Only the first layer, which nothing comes before, is."""
    found = errors(collected("shards", "mobilenet", normalization, "one-shot"), truth("mobilenet", normalization))
    assert found.pop("stem") <= TOLERANCE
    assert min(found.values()) > 100 * TOLERANCE
    assert max(found.values()) > 0.02


def test_average_of_the_clients_variances_is_something_else() -> None:
    """What each client computes alone at the last layer, weighted by its images: the variance between is missing."""
    layout, subnet = subnet_of("mobilenet", "batch")
    exact = truth("mobilenet", "batch")
    *before, last = exact.layers
    known = PooledStatistics({name: exact.layers[name] for name in before})
    site = Site(layout, federation("shards"), TRAINING, NUM_IMAGES, 64, 0)
    task = StatisticsTask(tuple(range(NUM_CLIENTS)), subnet.plan, subnet.weights, known, (last,))
    clients = [reply.layers[last] for reply in site.perform(task)]
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
    net = fold(subnet, collected("dirichlet", "resnet", normalization, "layer-wise"))
    data = federation("iid")
    x_NCHW = torch.from_numpy(data.preprocessing.apply(data.train.images_NHWC))
    expected = subnet(x_NCHW)
    # The batch's parametric normalisation has 1e-12 below its root, which the folded one has not.
    assert float((net(x_NCHW) - expected).abs().max()) <= 1e-4 * float(expected.abs().max())
    assert float((net(x_NCHW[:1]) - expected[:1]).abs().max()) <= 1e-4 * float(expected.abs().max())
