"""`TakeStatistics`: sums of what a client's images do to the layers of networks.

Shapes: B batch, N images, C channels, H W spatial.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from fedsup_deploy import rng
from fedsup_deploy.data.preprocess import Preprocessing
from fedsup_deploy.federation import batches
from fedsup_deploy.federation.client import TRAINED, Client
from fedsup_deploy.federation.encoding import WireStatistics
from fedsup_deploy.federation.messages import Weights
from fedsup_deploy.federation.networks import Network, folded, resolution_of
from fedsup_deploy.space.plan import NetworkPlan
from fedsup_deploy.supernet.normalization import BY_BATCH, ExceptFor, SumCollector
from fedsup_deploy.supernet.shared_prefix import SharedPrefix
from fedsup_deploy.supernet.statistics import ChannelSums, PooledStatistics


@dataclasses.dataclass(frozen=True)
class CalibrationDraw:
    """Which of a client's images statistics are taken on: some of all, in random order.

    A file order, such as class by class, must not decide which they are, nor which share a batch.

    Args:
        num_images: How many, at most.
        batch_size: Images per forward pass.
    """

    num_images: int
    batch_size: int


@dataclasses.dataclass(frozen=True)
class Observed:
    """The answer.

    Args:
        statistics: For each network the sums of the layers asked for that it has.
    """

    statistics: tuple[WireStatistics, ...]


class _Computing(NamedTuple):
    """Layers and their tensors."""

    plan: NetworkPlan
    weights: Weights


@dataclasses.dataclass(frozen=True)
class TakeStatistics:
    """Observe layers of networks on some of the client's images.

    Args:
        networks: Of one resolution. Several must be subnets of one supernet, of which nothing is known: what neighbours
            have in common is computed once.
        observe: Names of layers whose sums are wanted; those neither known nor wanted normalise by their batch.
        known: Statistics of layers that are normalised with them.
        preprocessing: Of the images, for the networks' resolution.
        calibration: Which images.
        seed: Decides the draw.
    """

    kind: ClassVar[str] = "statistics"
    reply: ClassVar[type] = Observed

    networks: tuple[Network, ...]
    observe: tuple[str, ...]
    known: WireStatistics
    preprocessing: Preprocessing
    calibration: CalibrationDraw
    seed: int

    def perform(self, client: Client) -> Observed:
        """Return the sums.

        Raises:
            DataError: One image is all there is to normalise a map of one pixel by.
        """
        with torch.inference_mode():
            if len(self.networks) == 1:
                return Observed(tuple(self._of_one(client, self.networks[0])))
            by_batch = BY_BATCH[self.networks[0].normalization]
            networks = [_Computing(network.plan, network.tensors()) for network in self.networks]
            return Observed(
                tuple(self._observe(client, networks, lambda: SumCollector(frozenset(self.observe), by_batch)))
            )

    def _of_one(self, client: Client, network: Network) -> list[PooledStatistics]:
        until = network.plan.until(self.observe[-1])
        weights = folded(until, network.normalization, network.tensors(), self.known)
        names = [layer.name for layer in until.norm_layers()]
        # A layer whose predecessors are known needs no batch to normalise by: its own output is not looked at.
        unused = frozenset(names[names.index(self.observe[-1]) :])
        observe, normalizer = frozenset(self.observe), ExceptFor(unused, BY_BATCH[network.normalization])
        return self._observe(client, [_Computing(until, weights)], lambda: SumCollector(observe, normalizer))

    def _observe(
        self, client: Client, networks: Sequence[_Computing], new_collector: Callable[[], SumCollector]
    ) -> list[PooledStatistics]:
        seen: list[dict[str, ChannelSums]] = [{} for _ in networks]
        resolution = resolution_of(self.networks[0])
        for x_BCHW in drawn(client, self.preprocessing.for_size(resolution), self.calibration, self.seed):
            shared = SharedPrefix(x_BCHW, new_collector)
            for network, layers in zip(networks, seen, strict=True):
                shared.features(network.plan, network.weights)
                for collector in shared.normalizers():
                    for name, (count, total, squares) in collector.sums.items():
                        sums = ChannelSums(count, total.numpy(), squares.numpy())
                        layers[name] = layers[name] + sums if name in layers else sums
        return [PooledStatistics(layers) for layers in seen]


def drawn(client: Client, preprocessing: Preprocessing, calibration: CalibrationDraw, seed: int) -> Iterator[Tensor]:
    """Yield the images that something is observed on, in batches (B, C, H, W).

    Args:
        client: Whose they are.
        preprocessing: Of the images, for the size that networks take.
        calibration: How many.
        seed: Decides the draw.

    Raises:
        DataError: It has no images to train on.
    """
    images = client.images(TRAINED)
    chosen = rng.generator_at(seed).permutation(len(images))[: calibration.num_images]
    x_NCHW = torch.from_numpy(client.batch(TRAINED, preprocessing, chosen))
    for indices_B in batches.split(torch.arange(len(x_NCHW)), calibration.batch_size):
        yield x_NCHW[indices_B]
