"""`Train`: SGD inside one client, on one subnet or on several that share weights.

Shapes: B batch, C channels, H W spatial, K classes, N images.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fedsup_deploy import rng
from fedsup_deploy.data.augment import Augmentation
from fedsup_deploy.data.preprocess import Preprocessing
from fedsup_deploy.errors import DataError
from fedsup_deploy.federation import batches
from fedsup_deploy.federation.client import TRAINED, Client
from fedsup_deploy.federation.encoding import WireArchitecture, WireBlob, WireInt, WireLayout, WireTensor
from fedsup_deploy.federation.sgd import Sgd
from fedsup_deploy.space import sampling
from fedsup_deploy.space.architecture import Architecture
from fedsup_deploy.supernet import slices as rule
from fedsup_deploy.supernet.forward import at_resolution, forward
from fedsup_deploy.supernet.layout import Layout
from fedsup_deploy.supernet.normalization import BY_BATCH


@dataclasses.dataclass(frozen=True)
class LocalTraining:
    """How a client trains.

    Args:
        epochs: Passes over its images per round.
        batch_size: Images per step.
        momentum: SGD momentum; starts at rest in every round.
        weight_decay: L2 coefficient.
        clip_value: Each gradient entry is clipped to [-clip_value, clip_value]; None does not clip.
        has_logit_adjustment: Whether the loss adds the logarithm of the client's own class shares to the logits. The
            shares then explain what the client sees more often, and the network need not: with skewed labels the
            clients' classifiers drift apart less.
        class_weights: What an image of each class counts in the loss, on labels or on another subnet's answers to it.
            The loss of a batch is their mean over its images, not over their weights: so a client's images count by
            what their classes are worth in the whole federation, also where it has one class only. None: all count the
            same.

    Source of the adjustment: A. K. Menon et al., arXiv 2007.07314; in federated learning, J. Zhang et al.,
    arXiv 2209.00189.
    """

    epochs: int
    batch_size: int
    momentum: float
    weight_decay: float
    clip_value: float | None
    has_logit_adjustment: bool
    class_weights: tuple[float, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Assignment:
    """What one client trains in one round.

    Args:
        architecture: The subnet it is sent; None sends the whole supernet.
        num_subnets: Subnets of the whole supernet trained per batch, by the sandwich rule: at least 2. Of one subnet 1.
        inner: Subnets within the one it is sent that it trains as well, in the same steps.
        is_distilled: Whether all subnets but the first learn from its answers; otherwise they learn from the labels.
    """

    architecture: WireArchitecture | None
    num_subnets: int = 1
    inner: tuple[WireArchitecture, ...] = ()
    is_distilled: bool = False


@dataclasses.dataclass(frozen=True)
class ClientUpdate:
    """The answer.

    Args:
        num_samples: Images it trained on, n_k.
        loss: Mean loss over its batches.
        weights: Its tensors after training.
        num_macs: Multiply-accumulates of its forward passes; backward takes about twice as many more. 0: not counted.
        loss_before: Loss of its first batch, before the first step: of what it was sent. None: not said.
    """

    num_samples: WireInt
    loss: float
    weights: Mapping[str, WireTensor]
    num_macs: WireInt = 0
    loss_before: float | None = None


@dataclasses.dataclass(frozen=True)
class Train:
    """Train on the client's images for its local epochs.

    Args:
        layout: Of the supernet.
        assignment: What to train.
        weights: The tensors of the assignment: those of the subnet, or of the whole supernet.
        learning_rate: Step size of this round.
        training: How to train.
        preprocessing: Of the images, at the largest resolution.
        augmentation: Random changes of images, before they are resized, once, to what each subnet takes.
        seed: Decides the order of images, their changes and the subnets drawn.
    """

    kind: ClassVar[str] = "train"
    reply: ClassVar[type] = ClientUpdate

    layout: WireLayout
    assignment: Assignment
    weights: WireBlob
    learning_rate: float
    training: LocalTraining
    preprocessing: Preprocessing
    augmentation: Augmentation
    seed: int

    def perform(self, client: Client) -> ClientUpdate:
        """Return the client's tensors after training; those of the job stay as they are.

        Raises:
            DataError: A batch cannot be computed, or its loss is not finite.
        """
        preprocessing = self.preprocessing.for_size(self.preprocessing.padded_size)
        labels = torch.from_numpy(client.images(TRAINED).labels_N.copy())
        params, generator = self.training, rng.generator_at(self.seed)
        offset_K = log_shares(labels, self.layout.space.num_classes) if params.has_logit_adjustment else torch.zeros(1)
        sgd = Sgd(self.weights.tensors, params.momentum, params.weight_decay, params.clip_value)
        weight_K = None if params.class_weights is None else torch.tensor(params.class_weights)
        subnets = _Subnets(self.assignment, self.layout, _Loss(offset_K, weight_K), generator)
        losses: list[float] = []
        num_macs = 0
        for indices in _batches(len(labels), params, generator):
            # Batch by batch: of a client with many images all would be too many.
            images_BCHW = client.batch(TRAINED, preprocessing, indices.numpy())
            x_BCHW = torch.from_numpy(self.augmentation.apply(images_BCHW, generator))
            try:
                loss, trained = subnets.add_gradients(sgd, x_BCHW, labels[indices])
            except (DataError, IndexError, RuntimeError, ValueError) as error:
                # What torch raises for a batch it cannot compute, and one image normalised where the map is one pixel.
                reason, _, _ = str(error).partition("\n")
                raise DataError(f"step {len(losses)}: {reason}") from error
            if not math.isfinite(loss):
                raise DataError(f"loss is {loss} after {len(losses)} steps; lower training.learning_rate")
            losses.append(loss)
            num_macs += len(indices) * sum(self.layout.num_macs(architecture) for architecture in trained)
            sgd.step(self.learning_rate, sgd.indices(subnets.partial_coverage(trained)))
        # Copies, for a view would travel with all of the vector that it is of.
        weights = {name: tensor.clone() for name, tensor in sgd.tensors.items()}
        return ClientUpdate(len(labels), float(np.mean(losses)), weights, num_macs, losses[0] if losses else None)


@dataclasses.dataclass(frozen=True)
class _Loss:
    """Cross-entropy of logits that an offset is added to; an image counts what its class is worth, or all the same."""

    offset_K: Tensor
    weight_K: Tensor | None

    def of(self, logits_BK: Tensor, targets: Tensor, labels_B: Tensor) -> Tensor:
        """Return the mean over a batch; targets are labels or, of each image, a probability for each class."""
        if self.weight_K is None:
            return functional.cross_entropy(logits_BK + self.offset_K, targets)
        loss_B = functional.cross_entropy(logits_BK + self.offset_K, targets, reduction="none")
        return (loss_B * self.weight_K[labels_B]).mean()

    def answers(self, logits_BK: Tensor) -> Tensor:
        """Return the probabilities that other subnets learn from."""
        return (logits_BK.detach() + self.offset_K).softmax(dim=1)


class _Subnets:
    """The subnets that a client trains together, from the largest to the smallest: their gradients add up."""

    def __init__(self, assignment: Assignment, layout: Layout, loss: _Loss, generator: np.random.Generator) -> None:
        self._assignment, self._layout, self._loss, self._generator = assignment, layout, loss, generator
        self._sent = layout.slices(assignment.architecture) if assignment.architecture else layout.whole

    def add_gradients(self, sgd: Sgd, x_BCHW: Tensor, labels_B: Tensor) -> tuple[float, tuple[Architecture, ...]]:
        """Return the mean loss of a batch and the subnets trained on it.

        Side effects: Adds their gradients.
        """
        subnets = self._drawn()
        targets, total = labels_B, 0.0
        for architecture in subnets:
            where = rule.within(self._sent, self._layout.slices(architecture))
            part = sgd.part(where)
            x = at_resolution(x_BCHW, architecture.resolution)
            logits_BK = forward(self._layout.plan(architecture), part, x, BY_BATCH[self._layout.normalization])
            loss = self._loss.of(logits_BK, targets, labels_B)
            loss.backward()
            sgd.add_gradients(part, where)
            total += loss.item()
            if self._assignment.is_distilled and targets is labels_B:
                targets = self._loss.answers(logits_BK)
        return total / len(subnets), subnets

    def partial_coverage(self, trained: tuple[Architecture, ...]) -> dict[str, Tensor]:
        """Return masks of the entries that a step moves, of the tensors it moves only in part."""
        return {} if self._assignment.architecture else self._layout.partial_coverage(trained)

    def _drawn(self) -> tuple[Architecture, ...]:
        assignment = self._assignment
        if assignment.architecture is None:
            return sampling.sandwich(self._layout.space, self._generator, assignment.num_subnets)
        return (assignment.architecture, *assignment.inner)


def log_shares(labels_N: Tensor, num_classes: int) -> Tensor:
    """Return the logarithm of each class's share, shape (K,), with one image added to each so that none is 0."""
    counts_K = labels_N.bincount(minlength=num_classes) + 1
    return (counts_K / counts_K.sum()).log()


def _batches(num_samples: int, params: LocalTraining, generator: np.random.Generator) -> Iterator[Tensor]:
    """Yield index batches, reshuffled each epoch."""
    for _ in range(params.epochs):
        yield from batches.split(torch.from_numpy(generator.permutation(num_samples)), params.batch_size)
