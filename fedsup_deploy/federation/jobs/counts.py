"""`CountAnswers`: what networks answer to images, as counts.

Shapes: B batch, N images, M networks, K classes, C and S rows of counts.
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar, Final

import numpy as np
import torch

from fedsup_deploy.answers import (
    CONFIDENCE_BINS,
    SCORE_BINS,
    TWO,
    UNITS,
    Answers,
    IntArray,
    count_answers,
)
from fedsup_deploy.data.preprocess import Preprocessing
from fedsup_deploy.federation.client import Client
from fedsup_deploy.federation.encoding import WireHistogram, WireInt, WireStatistics
from fedsup_deploy.federation.networks import Network, folded, resolution_of
from fedsup_deploy.supernet.forward import classify
from fedsup_deploy.supernet.normalization import FixedAffine
from fedsup_deploy.supernet.shared_prefix import SharedPrefix

_BATCH_SIZE: Final = 250
#: Of a network whose every normalisation is folded; one that is not would be an error.
_ALL_FOLDED: Final = FixedAffine({})


@dataclasses.dataclass(frozen=True, eq=False)
class Counts:
    """The answer: `Answers` of each network as they travel. What no image has takes no room.

    Args:
        cells_C4: Rows (network, class of the image, class answered, images), ascending, none empty.
        confidence_MB3: Of each network and bin of confidence the images, right answers and confidences added up.
        scores_S4: Of two classes rows (network, class of the image, bin of the score, images), ascending, none empty.
        counted: Images looked at.
    """

    cells_C4: WireHistogram
    confidence_MB3: WireHistogram
    scores_S4: WireHistogram
    counted: WireInt

    @classmethod
    def of(cls, answers: Sequence[Answers], counted: int) -> "Counts":
        """Return the answers of some networks to the same images."""
        nothing = np.empty((0, CONFIDENCE_BINS, 3), np.int64)
        return cls(
            _joined([each.cells_C3 for each in answers]),
            np.concatenate([nothing, *(each.confidence_B3[None] for each in answers)]),
            _joined([each.scores_S3 for each in answers]),
            counted,
        )

    def reason_to_reject(self, num_networks: int, num_classes: int, num_images: int) -> str | None:
        """Return why these cannot be counts of so many images, or None."""
        if self.counted != num_images:
            return f"{self.counted} images, expected {num_images}"
        if self.confidence_MB3.shape != (num_networks, CONFIDENCE_BINS, 3):
            networks = "1 network" if num_networks == 1 else f"{num_networks} networks"
            return f"confidences of shape {self.confidence_MB3.shape}, expected those of {networks}"
        num_bins = SCORE_BINS if num_classes == TWO else 0
        cells = _are_rows(self.cells_C4, (num_networks, num_classes, num_classes), num_images)
        if not (cells and _are_rows(self.scores_S4, (num_networks, num_classes, num_bins), num_images)):
            return "counts that no images have"
        answers = self.by_network(num_networks, num_classes)
        are_possible = all(_is_of_images(each, answers[0], num_images) for each in answers)
        return None if are_possible else "counts that no images have"

    def by_network(self, num_networks: int, num_classes: int) -> list[Answers]:
        """Return the answers of each network."""
        cells, scores = (_parted(rows, num_networks) for rows in (self.cells_C4, self.scores_S4))
        return [Answers(num_classes, *each) for each in zip(cells, self.confidence_MB3, scores, strict=True)]


@dataclasses.dataclass(frozen=True)
class CountAnswers:
    """Count the answers of networks to images.

    Args:
        networks: Of one resolution. Several must be subnets of one supernet: what neighbours have in common is computed
            once.
        statistics: For each network what its activations are normalised with; of several, those of one exchange.
        images: Which of the client's images, one of `IMAGES`.
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
        images_NCHW, labels_N = client.prepared(self.images, preprocessing)
        logits: list[list[torch.Tensor]] = [[] for _ in self.networks]
        with torch.inference_mode():
            computing = [
                (network.plan, folded(network.plan, network.normalization, network.tensors(), known))
                for network, known in zip(self.networks, self.statistics, strict=True)
            ]
            for x_BCHW in torch.from_numpy(images_NCHW).split(_BATCH_SIZE):
                shared = SharedPrefix(x_BCHW, lambda: _ALL_FOLDED)
                for found, (plan, weights) in zip(logits, computing, strict=True):
                    found.append(classify(plan, weights, shared.features(plan, weights)))
            answers = [count_answers(torch.cat(found).numpy(), labels_N) for found in logits]
        return Counts.of(answers, len(labels_N))


def num_classes_of(network: Network) -> int:
    """Return how many classes a network tells apart."""
    number: int = network.plan.head[-1].out_channels
    return number


def _joined(parts: Sequence[IntArray]) -> IntArray:
    """Return the rows of all networks, each with the network's number before it."""
    numbered = [np.insert(rows_C3, 0, number, axis=1) for number, rows_C3 in enumerate(parts)]
    return np.concatenate([np.empty((0, 4), np.int64), *numbered])


def _parted(rows_C4: IntArray, num_networks: int) -> list[IntArray]:
    """Return the rows of each network."""
    borders = np.searchsorted(rows_C4[:, 0], np.arange(1, num_networks))
    return np.split(rows_C4[:, 1:], borders)[:num_networks]


def _are_rows(rows_C4: IntArray, sizes: tuple[int, int, int], num_images: int) -> bool:
    """Return whether these are rows of counts: three numbers below their sizes, ascending, and how many images."""
    if rows_C4.ndim != 2 or rows_C4.shape[1] != 4:
        return False
    if ((rows_C4 < 0) | (rows_C4 >= (*sizes, num_images + 1))).any() or (rows_C4[:, 3] == 0).any():
        return False
    code_C = (rows_C4[:, 0] * sizes[1] + rows_C4[:, 1]) * sizes[2] + rows_C4[:, 2]
    return bool((np.diff(code_C) > 0).all())


def _is_of_images(answers: Answers, first: Answers, num_images: int) -> bool:
    """Return whether rows and confidences agree with each other, and with those of the first network."""
    if answers.num_images != num_images or not np.array_equal(answers.images_by_class, first.images_by_class):
        return False
    images_B, right_B, units_B = answers.confidence_B3.T
    if ((right_B < 0) | (right_B > images_B) | (images_B > num_images)).any():
        return False
    if int(images_B.sum()) != num_images or int(right_B.sum()) != answers.num_correct:
        return False
    # The smallest confidence of each bin, and of the next.
    bounds_B = -(-np.arange(CONFIDENCE_BINS + 1) * UNITS // CONFIDENCE_BINS)
    low_B, high_B = bounds_B[:-1], np.append(bounds_B[1:-1] - 1, UNITS)
    if ((units_B < images_B * low_B) | (units_B > images_B * high_B)).any():
        return False
    scored_K = np.bincount(answers.scores_S3[:, 0], answers.scores_S3[:, 2], answers.num_classes)
    return answers.num_classes != TWO or np.array_equal(scored_K, answers.images_by_class)
