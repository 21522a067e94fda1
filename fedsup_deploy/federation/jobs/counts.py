"""`CountCorrect`: how many images networks give the right answer to.

Shapes: B batch, N images, C channels, H W spatial, K classes.
"""

import dataclasses
from typing import ClassVar

import torch

from fedsup_deploy.data.preprocess import Preprocessing
from fedsup_deploy.federation.client import Client
from fedsup_deploy.federation.encoding import WireInt, WireStatistics
from fedsup_deploy.federation.networks import Network, folded, resolution_of
from fedsup_deploy.supernet.forward import classify
from fedsup_deploy.supernet.normalization import FixedAffine
from fedsup_deploy.supernet.shared_prefix import SharedPrefix

_BATCH_SIZE = 250
#: Of a network whose every normalisation is folded; one that is not would be an error.
_ALL_FOLDED = FixedAffine({})


@dataclasses.dataclass(frozen=True)
class Counts:
    """The answer.

    Args:
        correct: For each network the images it is right about.
        counted: Images looked at.
    """

    correct: tuple[WireInt, ...]
    counted: WireInt


@dataclasses.dataclass(frozen=True)
class CountCorrect:
    """Count the right answers of networks on images.

    Args:
        networks: Of one resolution. Several must be subnets of one supernet: what neighbours have in common is computed
            once.
        statistics: For each network what its activations are normalised with; of several, those of one exchange.
        images: Which of the client's images, `TRAINED` or `HELD_OUT`.
        preprocessing: Of the images, for any resolution.
    """

    kind: ClassVar[str] = "counts"
    reply: ClassVar[type] = Counts

    networks: tuple[Network, ...]
    statistics: tuple[WireStatistics, ...]
    images: str
    preprocessing: Preprocessing

    def perform(self, client: Client) -> Counts:
        """Return the counts.

        Raises:
            DataError: The client has none of these images.
        """
        preprocessing = self.preprocessing.for_size(resolution_of(self.networks[0]))
        x_NCHW, labels_N = map(torch.from_numpy, client.prepared(self.images, preprocessing))
        correct = [0] * len(self.networks)
        with torch.inference_mode():
            computing = [
                (network.plan, folded(network.plan, network.normalization, network.tensors(), known))
                for network, known in zip(self.networks, self.statistics, strict=True)
            ]
            for x_BCHW, labels_B in zip(x_NCHW.split(_BATCH_SIZE), labels_N.split(_BATCH_SIZE), strict=True):
                shared = SharedPrefix(x_BCHW, lambda: _ALL_FOLDED)
                for index, (plan, weights) in enumerate(computing):
                    logits_BK = classify(plan, weights, shared.features(plan, weights))
                    correct[index] += int((logits_BK.argmax(dim=1) == labels_B).sum())
        return Counts(tuple(correct), len(labels_N))
