"""`CountAnswers`, recomputed from the images themselves."""

import dataclasses

import numpy as np
import pytest
import torch

from fedsup_deploy.answers import Answers, count_answers
from fedsup_deploy.data.dataset import DatasetSplits, ImageDataset
from fedsup_deploy.data.preprocess import Preprocessing
from fedsup_deploy.errors import DataError
from fedsup_deploy.federation.client import HELD_OUT, TRAINED, Client
from fedsup_deploy.federation.jobs.counts import CountAnswers, Counts
from fedsup_deploy.federation.messages import Blob
from fedsup_deploy.federation.networks import Network, SharedSubnet, standalone
from fedsup_deploy.measures import measures_of
from fedsup_deploy.space.search_space import SearchSpace
from fedsup_deploy.supernet.fold import affines
from fedsup_deploy.supernet.layout import Layout
from fedsup_deploy.supernet.model import Subnet, Supernet, initial_weights
from fedsup_deploy.supernet.normalization import BY_BATCH, FixedAffine, SumCollector
from fedsup_deploy.supernet.statistics import ChannelSums, PooledStatistics

PREPROCESSING = Preprocessing((0.3,), (0.4,), 8, 8, 8)


def supernet_of(layout: Layout) -> Supernet:
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: tensor + 0.2 * torch.randn(tensor.shape, generator=generator)
        for name, tensor in initial_weights(layout, 0).items()
    }
    return Supernet(layout, weights)


@pytest.fixture(scope="module")
def supernet(digits_space: SearchSpace) -> Supernet:
    return supernet_of(Layout(digits_space, "batch"))


@pytest.fixture(scope="module")
def client(digits: DatasetSplits) -> Client:
    """449 images, which are more than one batch, and 120 others."""
    return Client({HELD_OUT: digits.test, TRAINED: digits.train.take(np.arange(120))})


def calibrated(subnet: Subnet, images: ImageDataset) -> PooledStatistics:
    """Return statistics of one batch."""
    collector = SumCollector(
        frozenset(layer.name for layer in subnet.plan.norm_layers()), BY_BATCH[subnet.normalization]
    )
    side = subnet.plan.stem.in_size
    subnet(torch.from_numpy(PREPROCESSING.for_size(side).apply(images.images_NHWC)), collector)
    return PooledStatistics(
        {n: ChannelSums(count, total.numpy(), squares.numpy()) for n, (count, total, squares) in collector.sums.items()}
    )


def num_correct(subnet: Subnet, statistics: PooledStatistics, images: ImageDataset) -> int:
    side = subnet.plan.stem.in_size
    x_NCHW = torch.from_numpy(PREPROCESSING.for_size(side).apply(images.images_NHWC))
    logits = subnet(x_NCHW, FixedAffine(affines(subnet.weights, subnet.normalization, statistics)))
    return int((logits.argmax(dim=1) == torch.tensor(images.labels_N)).sum())


def test_of_two_classes_scores_are_counted_as_well(client: Client, digits: DatasetSplits, space_of) -> None:
    space = space_of({"widths": [5], "depths": [1]}, num_classes=2)
    subnet = supernet_of(Layout(space, "batch")).extract(space.largest)
    images = dataclasses.replace(digits.test, labels_N=digits.test.labels_N % 2)
    statistics = calibrated(subnet, digits.train.take(np.arange(50)))
    found = Client({HELD_OUT: images}).perform(job_of((standalone(subnet),), statistics))
    assert found.reason_to_reject(1, 2, 449) is None
    x_NCHW = torch.from_numpy(PREPROCESSING.for_size(8).apply(images.images_NHWC))
    logits = subnet(x_NCHW, FixedAffine(affines(subnet.weights, subnet.normalization, statistics)))
    (answers,) = found.by_network(1, 2)
    expected = count_answers(logits.detach().numpy(), images.labels_N)
    # Folded, the last digits of a logit are others: an image may be in the next bin.
    assert (answers.num_images, answers.scores_S3[:, 2].sum()) == (449, 449)
    assert np.abs(answers.confusion() - expected.confusion()).sum() <= 2
    assert measures_of(answers).auc.value == pytest.approx(measures_of(expected).auc.value, abs=1e-3)


def job_of(networks: tuple[Network, ...], *statistics: PooledStatistics, images: str = HELD_OUT) -> CountAnswers:
    return CountAnswers(networks, statistics, images, PREPROCESSING)


def answers_of(counts: Counts) -> list[Answers]:
    num_networks = len(counts.confidence_MB3)
    assert counts.reason_to_reject(num_networks, 10, counts.counted) is None
    return counts.by_network(num_networks, 10)


def correct_of(counts: Counts) -> tuple[list[int], int]:
    return [answers.num_correct for answers in answers_of(counts)], counts.counted


@pytest.mark.parametrize("which", [HELD_OUT, TRAINED])
@pytest.mark.parametrize("name", ["largest", "smallest"])
def test_right_answers_are_counted(
    supernet: Supernet, client: Client, digits: DatasetSplits, name: str, which: str
) -> None:
    subnet = supernet.extract(supernet.layout.space.resolve(name))
    statistics, images = calibrated(subnet, digits.train.take(np.arange(50))), client.images(which)
    expected = num_correct(subnet, statistics, images)
    found = client.perform(job_of((standalone(subnet),), statistics, images=which))
    assert correct_of(found) == ([expected], len(images))
    assert 0 < expected < len(images)


def test_parametric_normalisation_is_folded_too(
    digits_space: SearchSpace, client: Client, digits: DatasetSplits
) -> None:
    supernet = supernet_of(Layout(digits_space, "parametric"))
    subnet = supernet.extract(digits_space.largest)
    statistics = calibrated(subnet, digits.train.take(np.arange(50)))
    expected = num_correct(subnet, statistics, digits.test)
    assert correct_of(client.perform(job_of((standalone(subnet),), statistics))) == ([expected], 449)


def test_a_network_that_is_in_no_space_is_evaluated_all_the_same(
    client: Client, digits: DatasetSplits, space_of
) -> None:
    """Five and seven channels, and six pixels; the network comes with its plan and its weights."""
    space = space_of({"widths": [5], "depths": [1]}, stem={"widths": [7]}, resolutions=[6], num_classes=10)
    trimmed = supernet_of(Layout(space, "batch")).extract(space.largest)
    statistics = calibrated(trimmed, digits.train.take(np.arange(50)))
    expected = num_correct(trimmed, statistics, digits.test)
    assert correct_of(client.perform(job_of((standalone(trimmed),), statistics))) == ([expected], 449)


def test_candidates_counted_together_have_the_counts_of_each_alone(
    supernet: Supernet, client: Client, digits: DatasetSplits
) -> None:
    """And those of the subnet extracted. As on a server, the statistics of all are taken on the same images."""
    space, blob = supernet.layout.space, Blob(supernet.weights)
    genes_NG = space.enumerate_genes()
    architectures = [space.decode(genes) for genes in (*genes_NG[:3], genes_NG[-1], *genes_NG[1:5], genes_NG[0])]
    candidates = tuple(SharedSubnet(supernet.layout, architecture, blob) for architecture in architectures)
    subnets = [supernet.extract(architecture) for architecture in architectures]
    statistics = [calibrated(subnet, digits.train.take(np.arange(50))) for subnet in subnets]
    together = client.perform(job_of(candidates, *statistics))
    alone = [answers_of(client.perform(job_of((c,), s)))[0] for c, s in zip(candidates, statistics, strict=True)]
    by_hand = [num_correct(n, s, digits.test) for n, s in zip(subnets, statistics, strict=True)]
    assert answers_of(together) == alone
    assert [each.num_correct for each in alone] == by_hand
    assert len(set(by_hand)) > 1


def test_client_that_holds_nothing_out_says_so(supernet: Supernet, digits: DatasetSplits) -> None:
    subnet = supernet.extract(supernet.layout.space.smallest)
    job = job_of((standalone(subnet),), calibrated(subnet, digits.train.take(np.arange(50))))
    with pytest.raises(DataError, match=r"^no held-out images$"):
        Client({TRAINED: digits.train}).perform(job)


def test_a_normalisation_without_statistics_is_an_error(
    supernet: Supernet, client: Client, digits: DatasetSplits
) -> None:
    """It is not silently left out."""
    subnet = supernet.extract(supernet.layout.space.smallest)
    known = calibrated(subnet, digits.train.take(np.arange(50)))
    partial = dataclasses.replace(known, layers={n: sums for n, sums in known.layers.items() if n != "stem"})
    with pytest.raises(KeyError, match="no statistics for layer stem"):
        client.perform(job_of((standalone(subnet),), partial))
