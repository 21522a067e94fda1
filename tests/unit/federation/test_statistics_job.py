"""`TakeStatistics`, recomputed from the images themselves."""

import dataclasses

import numpy as np
import pytest
import torch

from fedsup_deploy import rng
from fedsup_deploy.data.dataset import ImageDataset
from fedsup_deploy.data.preprocess import Preprocessing
from fedsup_deploy.errors import DataError
from fedsup_deploy.federation.client import HELD_OUT, TRAINED, Client
from fedsup_deploy.federation.jobs.statistics import CalibrationDraw, TakeStatistics
from fedsup_deploy.federation.messages import Blob
from fedsup_deploy.federation.networks import Network, SharedSubnet, standalone
from fedsup_deploy.federation.simulation import CLIENTS, FederatedData, hold_out
from fedsup_deploy.space.search_space import SearchSpace
from fedsup_deploy.supernet.layout import Layout
from fedsup_deploy.supernet.model import Subnet, Supernet, initial_weights
from fedsup_deploy.supernet.normalization import BY_BATCH, SumCollector
from fedsup_deploy.supernet.statistics import PooledStatistics

NOTHING = PooledStatistics({})
PREPROCESSING = Preprocessing((0.3,), (0.4,), 8, 8, 8)
SEED = 3


@pytest.fixture(scope="module")
def data(data_of) -> FederatedData:
    """Clients of 32 or 33 images."""
    return data_of(130, 4)


@pytest.fixture(scope="module")
def supernet(digits_space: SearchSpace) -> Supernet:
    layout, generator = Layout(digits_space, "batch"), torch.Generator().manual_seed(0)
    weights = {
        name: tensor + 0.2 * torch.randn(tensor.shape, generator=generator)
        for name, tensor in initial_weights(layout, 0).items()
    }
    return Supernet(layout, weights)


@pytest.fixture(scope="module")
def subnet(supernet: Supernet) -> Subnet:
    return supernet.extract(supernet.layout.space.largest)


def client_of(data: FederatedData, client: int) -> Client:
    return data.populations()[CLIENTS].client(client)


def job_of(networks: tuple[Network, ...], *observe: str, known: PooledStatistics = NOTHING) -> TakeStatistics:
    """Return the job for some layers; without names for all."""
    if not observe:
        observe = tuple(dict.fromkeys(layer.name for network in networks for layer in network.plan.norm_layers()))
    return TakeStatistics(networks, observe, known, PREPROCESSING, CalibrationDraw(64, 64), SEED)


def layer_names(subnet: Subnet) -> tuple[str, ...]:
    return tuple(layer.name for layer in subnet.plan.norm_layers())


def drawn(data: FederatedData, client: int, count: int = 64) -> torch.Tensor:
    """Return the images that the job looks at, in its order."""
    indices = data.clients[client]
    order = rng.generator_at(SEED).permutation(len(indices))[:count]
    return torch.from_numpy(PREPROCESSING.apply(data.train.images_NHWC[indices[order]]))


def statistics_by_hand(subnet: Subnet, *batches: torch.Tensor) -> dict[str, tuple[int, torch.Tensor, torch.Tensor]]:
    collector = SumCollector(frozenset(layer_names(subnet)), BY_BATCH["batch"])
    for x_BCHW in batches:
        subnet(x_BCHW, collector)
    return collector.sums


def assert_same(found: PooledStatistics, expected: PooledStatistics) -> None:
    """To the bit."""
    arrays, expected_arrays = found.to_arrays(), expected.to_arrays()
    assert arrays.keys() == expected_arrays.keys()
    assert all(np.array_equal(arrays[name], array) for name, array in expected_arrays.items())


@pytest.mark.parametrize("client", [3, 0])
def test_statistics_are_the_sums_over_the_clients_batches(data: FederatedData, subnet: Subnet, client: int) -> None:
    """32 or 33 images in batches of 20, each layer normalised by its batch."""
    job = dataclasses.replace(job_of((standalone(subnet),)), calibration=CalibrationDraw(64, 20))
    (found,) = client_of(data, client).perform(job).statistics
    x_NCHW = drawn(data, client)
    assert found.layers.keys() == set(layer_names(subnet))
    for name, (count, total, squares) in statistics_by_hand(subnet, x_NCHW[:20], x_NCHW[20:]).items():
        assert found.layers[name].count == count
        assert np.array_equal(found.layers[name].total_C, total.numpy())
        assert np.array_equal(found.layers[name].squares_C, squares.numpy())


def test_a_last_image_is_observed_with_the_batch_before(data: FederatedData, subnet: Subnet) -> None:
    """33 images in batches of 32."""
    assert len(data.clients[1]) == 33
    job = dataclasses.replace(job_of((standalone(subnet),)), calibration=CalibrationDraw(64, 32))
    (found,) = client_of(data, 1).perform(job).statistics
    for name, (_, total, _) in statistics_by_hand(subnet, drawn(data, 1)).items():
        assert np.array_equal(found.layers[name].total_C, total.numpy())


def test_no_more_than_the_asked_for_images_are_looked_at(data: FederatedData, subnet: Subnet) -> None:
    job, client = job_of((standalone(subnet),), "stem"), client_of(data, 0)
    for count, expected in ((10, 10), (1000, len(data.clients[0]))):
        (found,) = client.perform(dataclasses.replace(job, calibration=CalibrationDraw(count, 64))).statistics
        assert found.layers["stem"].count == expected * 8 * 8
        (total, _) = statistics_by_hand(subnet, drawn(data, 0, count))["stem"][1:]
        assert np.array_equal(found.layers["stem"].total_C, total.numpy())


@pytest.fixture(scope="module")
def counting_network(space_of) -> Subnet:
    """A network whose first layer passes three channels on as they are."""
    space = space_of({"widths": [3], "depths": [1]}, in_channels=3, stem={"widths": [3], "kernel_size": 1})
    layout = Layout(space, "batch")
    weights = {**initial_weights(layout, 0), "stem.weight": torch.eye(3)[:, :, None, None]}
    return Supernet(layout, weights).extract(space.largest)


def test_images_are_drawn_from_all_that_a_client_trains_on(counting_network: Subnet) -> None:
    """However they stand: here class by class, of which the first thirty images would be one class.

    An image of class k is 1 in channel k and 0 elsewhere, so the sum of a channel is 64 times the images of its class.
    """
    labels_N = np.repeat([0, 1, 2], 100)
    images_NHWC = np.zeros((300, 8, 8, 3), dtype=np.uint8)
    images_NHWC[np.arange(300), :, :, labels_N] = 255
    client = Client({TRAINED: ImageDataset("coloured", images_NHWC, labels_N, ("a", "b", "c"))})
    job = dataclasses.replace(
        job_of((standalone(counting_network),), "stem"),
        preprocessing=Preprocessing((0.0,) * 3, (1.0,) * 3, 8, 8, 8),
        calibration=CalibrationDraw(30, 7),
    )
    totals = []
    for seed in (SEED, SEED, SEED + 1):
        (found,) = client.perform(dataclasses.replace(job, seed=seed)).statistics
        chosen = rng.generator_at(seed).permutation(300)[:30]
        assert (found.layers["stem"].total_C / 64).tolist() == np.bincount(chosen // 100, minlength=3).tolist()
        assert (found.layers["stem"].squares_C / 64).tolist() == np.bincount(chosen // 100, minlength=3).tolist()
        totals.append(tuple(found.layers["stem"].total_C))
    assert min(totals[0]) > 0
    assert totals[0] == totals[1] != totals[2]
    (everything,) = client.perform(dataclasses.replace(job, calibration=CalibrationDraw(1000, 64))).statistics
    assert (everything.layers["stem"].total_C / 64).tolist() == [100, 100, 100]


def test_only_the_asked_for_layers_are_observed_and_known_ones_are_used(data: FederatedData, subnet: Subnet) -> None:
    client, networks = client_of(data, 0), (standalone(subnet),)
    (stem,) = client.perform(job_of(networks, "stem")).statistics
    assert stem.layers.keys() == {"stem"}
    sums = stem.layers["stem"]
    doubled = PooledStatistics({"stem": dataclasses.replace(sums, total_C=2 * sums.total_C)})
    (found,) = client.perform(job_of(networks, "s1.0.depthwise", known=stem)).statistics
    (other,) = client.perform(job_of(networks, "s1.0.depthwise", known=doubled)).statistics
    assert found.layers.keys() == {"s1.0.depthwise"}
    assert not np.array_equal(found.layers["s1.0.depthwise"].total_C, other.layers["s1.0.depthwise"].total_C)
    # One batch of all images has the statistics that are known, so the layer sees what it sees in a forward pass.
    _, total, squares = statistics_by_hand(subnet, drawn(data, 0))["s1.0.depthwise"]
    np.testing.assert_allclose(found.layers["s1.0.depthwise"].total_C, total.numpy(), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(found.layers["s1.0.depthwise"].squares_C, squares.numpy(), rtol=1e-4)


def test_a_network_that_is_in_no_space_is_observed_all_the_same(data: FederatedData, space_of) -> None:
    """Five and seven channels; the network comes with its plan and its weights."""
    other = Layout(space_of({"widths": [5], "depths": [1]}, stem={"widths": [7]}, num_classes=10), "batch")
    trimmed = Supernet(other, initial_weights(other, 0)).extract(other.space.largest)
    (found,) = client_of(data, 0).perform(job_of((standalone(trimmed),))).statistics
    for name, (count, total, _) in statistics_by_hand(trimmed, drawn(data, 0)).items():
        assert found.layers[name].count == count
        assert np.array_equal(found.layers[name].total_C, total.numpy())


def test_held_out_images_are_not_observed(data: FederatedData, subnet: Subnet) -> None:
    """Black pixels in their place change no sum, and they do not count."""
    clients, held_out = hold_out(data.clients, 0.25, seed=0)
    divided = dataclasses.replace(data, clients=clients, held_out=held_out)
    pixels_NHWC = divided.train.images_NHWC.copy()
    pixels_NHWC[np.concatenate(held_out)] = 0
    black = dataclasses.replace(divided, train=dataclasses.replace(divided.train, images_NHWC=pixels_NHWC))
    job = job_of((standalone(subnet),), "stem")
    (first,), (second,) = (client_of(each, 2).perform(job).statistics for each in (divided, black))
    assert first.layers["stem"].count == 24 * 64
    assert_same(first, second)


def test_a_candidate_has_the_statistics_of_the_subnet_extracted(data: FederatedData, supernet: Supernet) -> None:
    """It travels as its architecture: what computes is cut from the supernet beside it."""
    client, blob = client_of(data, 1), Blob(supernet.weights)
    for name in ("largest", "smallest"):
        architecture = supernet.layout.space.resolve(name)
        extracted = standalone(supernet.extract(architecture))
        (found,) = client.perform(job_of((SharedSubnet(supernet.layout, architecture, blob),))).statistics
        (expected,) = client.perform(job_of((extracted,))).statistics
        assert_same(found, expected)


def test_candidates_observed_together_have_the_sums_of_each_alone(data: FederatedData, supernet: Supernet) -> None:
    """To the bit, in whatever order, though what neighbours have in common is computed once."""
    client, blob, space = client_of(data, 3), Blob(supernet.weights), supernet.layout.space
    genes_NG = space.enumerate_genes()
    architectures = [space.decode(genes) for genes in (*genes_NG[:3], genes_NG[-1], *genes_NG[1:5], genes_NG[0])]
    candidates = tuple(SharedSubnet(supernet.layout, architecture, blob) for architecture in architectures)
    together = client.perform(job_of(candidates)).statistics
    assert len(together) == len(candidates)
    for candidate, found in zip(candidates, together, strict=True):
        (expected,) = client.perform(job_of((candidate,))).statistics
        assert found.layers.keys() == {layer.name for layer in candidate.plan.norm_layers()}
        assert_same(found, expected)


def test_lower_resolution_sees_smaller_images(data: FederatedData, space_of) -> None:
    layout = Layout(space_of({"widths": [4], "depths": [1]}, resolutions=[6, 8], num_classes=10), "batch")
    smallest = Supernet(layout, initial_weights(layout, 0)).extract(layout.space.smallest)
    (found,) = client_of(data, 0).perform(job_of((standalone(smallest),), "stem")).statistics
    assert found.layers["stem"].count == len(data.clients[0]) * 6 * 6


def test_one_image_has_nothing_to_normalise_a_map_of_one_pixel_by(space_of, data: FederatedData) -> None:
    layout = Layout(space_of({"widths": [4], "depths": [2], "stride": 2}, resolutions=[2]), "batch")
    small = standalone(Supernet(layout, initial_weights(layout, 0)).extract(layout.space.largest))
    client = Client({TRAINED: data.train.take([0])})
    job = dataclasses.replace(job_of((small,)), preprocessing=PREPROCESSING.for_size(2))
    with pytest.raises(DataError, match=r"^layer s1\.0\.\w+: got one image on a map of one pixel"):
        client.perform(job)


def test_client_without_images_to_train_on_says_so(data: FederatedData, subnet: Subnet) -> None:
    with pytest.raises(DataError, match=r"^no trained images$"):
        Client({HELD_OUT: data.train}).perform(job_of((standalone(subnet),)))


def test_weights_sent_are_left_alone(data: FederatedData, supernet: Supernet) -> None:
    before = {name: tensor.clone() for name, tensor in supernet.weights.items()}
    blob, space = Blob(supernet.weights), supernet.layout.space
    candidates = tuple(SharedSubnet(supernet.layout, each, blob) for each in (space.smallest, space.largest))
    client_of(data, 0).perform(job_of(candidates))
    assert all(torch.equal(supernet.weights[name], tensor) for name, tensor in before.items())
