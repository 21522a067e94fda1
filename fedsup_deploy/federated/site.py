"""A place with clients' images where tasks are carried out: a worker process here, a device elsewhere.

Shapes: N images, C channels, H W spatial.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fedsup_deploy.data.dataset import ImageDataset
from fedsup_deploy.data.federated import FederatedData
from fedsup_deploy.errors import DataError
from fedsup_deploy.federated import batches
from fedsup_deploy.federated import client as local
from fedsup_deploy.federated.tasks import (
    CandidateCountsTask,
    CandidateStatisticsTask,
    CandidateTask,
    EvaluationTask,
    StatisticsTask,
    Task,
    TrainTask,
    Weights,
)
from fedsup_deploy.recalibrate.fold import affines, fold_weights
from fedsup_deploy.recalibrate.pooled import ChannelSums, PooledStatistics, pool
from fedsup_deploy.space.plan import NetworkPlan
from fedsup_deploy.supernet.forward import classify
from fedsup_deploy.supernet.layout import Layout
from fedsup_deploy.supernet.model import Supernet
from fedsup_deploy.supernet.normalization import BY_BATCH, ExceptFor, FixedAffine, SumCollector
from fedsup_deploy.supernet.shared_prefix import SharedPrefix

_EVALUATION_BATCH = 250
#: Of a network whose every normalisation is folded; one that is not would be an error.
_ALL_FOLDED = FixedAffine({})


class _Network(NamedTuple):
    """Layers and their tensors."""

    plan: NetworkPlan
    weights: Weights

    @property
    def resolution(self) -> int:
        """Side of the images it takes, in pixels."""
        side: int = self.plan.stem.in_size
        return side


class Site:
    """Carries out tasks on the images it holds.

    Args:
        layout: Gives plans and slices.
        data: The images.
        training: How clients train.
        calibration_samples: Images of each client that statistics are taken on, at most.
        calibration_batch: Images per batch of statistics.
        seed: Seed of the run.
        load_supernet: Gets the supernet that is held here, of which tasks name subnets; called once, when the first one
            does. None where the weights come with every task.
    """

    def __init__(
        self,
        layout: Layout,
        data: FederatedData,
        training: local.LocalTraining,
        calibration_samples: int,
        calibration_batch: int,
        seed: int,
        load_supernet: Callable[[], Supernet] | None = None,
    ) -> None:
        self._layout = layout
        self._data = data
        self._training = training
        self._calibration_samples = calibration_samples
        self._calibration_batch = calibration_batch
        self._seed = seed
        self._load_supernet = load_supernet
        self._split_at = functools.lru_cache(maxsize=4)(self._prepare_split)

    def perform(self, task: Task) -> Any:
        """Return the reply to a task; see `federated.tasks.Engine` for which task has which."""
        if isinstance(task, TrainTask):
            # Augmented before they are resized, once, to what each subnet takes in.
            images = self._prepare(self._data.client(task.client), self._data.preprocessing.padded_size)
            return local.train(task, self._layout, images, self._data.augmentation, self._training, self._seed)
        with torch.inference_mode():
            if isinstance(task, StatisticsTask):
                return [self._observe_layers(client, task) for client in task.clients]
            if isinstance(task, EvaluationTask):
                return self._evaluate(task)
            return self._examine(task)

    @functools.cached_property
    def _supernet(self) -> Supernet:
        assert self._load_supernet is not None, "a subnet was named where no supernet is held"
        return self._load_supernet()

    def _examine(self, task: CandidateTask | CandidateStatisticsTask | CandidateCountsTask) -> Any:
        """Return the reply to a task about subnets of the supernet."""
        if isinstance(task, CandidateCountsTask):
            subnet = self._supernet.extract(task.architecture)
            return [
                self._evaluate(EvaluationTask(subnet.plan, subnet.weights, task.statistics, "held-out", client))
                for client in task.clients
            ]
        subnets = [self._supernet.extract(architecture) for architecture in task.architectures]
        layers = frozenset(layer.name for subnet in subnets for layer in subnet.plan.norm_layers())
        new_collector = functools.partial(SumCollector, layers, BY_BATCH[self._layout.normalization])
        networks = [_Network(subnet.plan, subnet.weights) for subnet in subnets]
        observed = [self._observe(client, networks, new_collector) for client in task.clients]
        if isinstance(task, CandidateStatisticsTask):
            return observed
        images = self._split_at("validation", networks[0].resolution)
        folded = [
            self._folded(network, pool(parts))
            for network, parts in zip(networks, zip(*observed, strict=True), strict=True)
        ]
        return [(correct, len(images[1])) for correct in _num_correct(folded, *images)]

    def _observe_layers(self, client: int, task: StatisticsTask) -> PooledStatistics:
        kind = self._layout.normalization
        until = task.plan.until(task.observe[-1])
        weights = fold_weights(until, task.weights, affines(task.weights, kind, task.known))
        names = [layer.name for layer in until.norm_layers()]
        # A layer whose predecessors are known needs no batch to normalise by: its own output is not looked at.
        unused = frozenset(names[names.index(task.observe[-1]) :])
        observe, normalizer = frozenset(task.observe), ExceptFor(unused, BY_BATCH[kind])
        (statistics,) = self._observe(client, [_Network(until, weights)], lambda: SumCollector(observe, normalizer))
        return statistics

    def _observe(
        self, client: int, networks: Sequence[_Network], new_collector: Callable[[], SumCollector]
    ) -> list[PooledStatistics]:
        """Return what each network's layers were on a client's calibration images."""
        seen: list[dict[str, ChannelSums]] = [{} for _ in networks]
        for x_BCHW in self._calibration_batches(client, networks[0].resolution):
            shared = SharedPrefix(x_BCHW, new_collector)
            for network, layers in zip(networks, seen, strict=True):
                try:
                    shared.features(network.plan, network.weights)
                except DataError as error:
                    raise DataError(f"statistics of client {client}: {error}") from error
                for collector in shared.normalizers():
                    for name, (count, total, squares) in collector.sums.items():
                        sums = ChannelSums(count, total.numpy(), squares.numpy())
                        layers[name] = layers[name] + sums if name in layers else sums
        return [PooledStatistics(layers) for layers in seen]

    def _evaluate(self, task: EvaluationTask) -> tuple[int, int]:
        network = _Network(task.plan, task.weights)
        x_NCHW, labels_N = self._images_of(task)
        (correct,) = _num_correct([self._folded(network, task.statistics)], x_NCHW, labels_N)
        return correct, len(labels_N)

    def _folded(self, network: _Network, statistics: PooledStatistics) -> _Network:
        maps = affines(network.weights, self._layout.normalization, statistics)
        return _Network(network.plan, fold_weights(network.plan, network.weights, maps))

    def _images_of(self, task: EvaluationTask) -> tuple[Tensor, Tensor]:
        resolution = _Network(task.plan, task.weights).resolution
        if task.split == "client":
            return self._prepare(self._data.client(task.begin), resolution)
        if task.split == "held-out":
            return self._prepare(self._data.held_out_by(task.begin), resolution)
        x_NCHW, labels_N = self._split_at(task.split, resolution)
        return x_NCHW[task.begin : task.end], labels_N[task.begin : task.end]

    def _calibration_batches(self, client: int, resolution: int) -> Iterator[Tensor]:
        images = self._data.calibration_images(client, self._calibration_samples, self._seed)
        x_NCHW, _ = self._prepare(images, resolution)
        for indices_B in batches.split(torch.arange(len(x_NCHW)), self._calibration_batch):
            yield x_NCHW[indices_B]

    def _prepare(self, images: ImageDataset, resolution: int) -> tuple[Tensor, Tensor]:
        x_NCHW = self._data.preprocessing.for_size(resolution).apply(images.images_NHWC)
        return torch.from_numpy(x_NCHW), torch.tensor(images.labels_N)

    def _prepare_split(self, name: str, resolution: int) -> tuple[Tensor, Tensor]:
        return self._prepare(self._data.split(name), resolution)


def _num_correct(networks: Sequence[_Network], x_NCHW: Tensor, labels_N: Tensor) -> list[int]:
    """Return how many images each network, its normalisations folded, gives the right answer to."""
    correct = [0] * len(networks)
    for x_BCHW, labels_B in zip(x_NCHW.split(_EVALUATION_BATCH), labels_N.split(_EVALUATION_BATCH), strict=True):
        shared = SharedPrefix(x_BCHW, lambda: _ALL_FOLDED)
        for index, (plan, weights) in enumerate(networks):
            logits_BK = classify(plan, weights, shared.features(plan, weights))
            correct[index] += int((logits_BK.argmax(dim=1) == labels_B).sum())
    return correct


class InProcess:
    """The engine of one thread in this process: performs tasks one after the other where they are asked for.

    Args:
        site: Where the images are.
    """

    num_parallel = 1

    def __init__(self, site: Site) -> None:
        self._site = site

    def run(self, tasks: Iterable[Task]) -> Iterator[Any]:
        """Yield the reply to each task, in order.

        Side effects: While a task is performed, torch uses one thread.
        """
        for task in tasks:
            threads = torch.get_num_threads()
            torch.set_num_threads(1)
            try:
                reply = self._site.perform(task)
            finally:
                torch.set_num_threads(threads)
            yield reply

    def close(self) -> None:
        """Do nothing."""
