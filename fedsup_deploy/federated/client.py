"""Training inside one client: plain SGD on a static subnet, or the sandwich rule with in-place distillation.

Shapes: B batch, C channels, H W spatial, K classes, N images.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fedsup_deploy import rng
from fedsup_deploy.data.augment import Augmentation
from fedsup_deploy.errors import DataError
from fedsup_deploy.federated import batches
from fedsup_deploy.federated.tasks import Assignment, ClientFailure, ClientUpdate, TrainTask, Weights
from fedsup_deploy.space import sampling
from fedsup_deploy.space.architecture import Architecture
from fedsup_deploy.supernet import slices as rule
from fedsup_deploy.supernet.forward import at_resolution, forward
from fedsup_deploy.supernet.layout import Layout
from fedsup_deploy.supernet.normalization import BY_BATCH

#: Computes the loss of a batch and adds its gradients; says which subnets took part (none: everything did).
Backward = Callable[[dict[str, Tensor], Tensor, Tensor], tuple[float, tuple[Architecture, ...]]]


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

    Source of the adjustment: A. K. Menon et al., arXiv 2007.07314; in federated learning, J. Zhang et al.,
    arXiv 2209.00189.
    """

    epochs: int
    batch_size: int
    momentum: float
    weight_decay: float
    clip_value: float | None
    has_logit_adjustment: bool


def train(
    task: TrainTask,
    layout: Layout,
    images: tuple[Tensor, Tensor],
    augmentation: Augmentation,
    params: LocalTraining,
    seed: int,
) -> ClientUpdate | ClientFailure:
    """Return the client's tensors after its local epochs.

    Args:
        task: What to train, from which weights.
        layout: Gives plans and slices.
        images: The client's x_NCHW, preprocessed but not resized, and labels_N.
        augmentation: Random changes of images.
        params: How to train.
        seed: Seed of the run.

    Returns:
        The update, or a failure when a batch cannot be computed or its loss is not finite. `task` stays as it is.
    """
    x_NCHW, labels_N = images
    weights = {name: tensor.detach().clone().requires_grad_() for name, tensor in task.weights.items()}
    generator = rng.generator(seed, "client", task.round_index, task.client)
    offset_K = _log_shares(labels_N, layout.space.num_classes) if params.has_logit_adjustment else torch.zeros(1)
    make_backward = _static if task.assignment.architecture else _sandwich
    backward = make_backward(task.assignment, layout, offset_K, generator)
    optimizer = torch.optim.SGD(
        weights.values(),
        lr=task.learning_rate,
        momentum=params.momentum,
        weight_decay=params.weight_decay,
        foreach=True,
    )
    losses: list[float] = []
    for indices in _batches(len(labels_N), params, generator):
        x_BCHW = torch.from_numpy(augmentation.apply(x_NCHW[indices].numpy(), generator))
        optimizer.zero_grad(set_to_none=True)
        try:
            loss, trained = backward(weights, x_BCHW, labels_N[indices])
        except (DataError, IndexError, RuntimeError, ValueError) as error:
            # What torch raises for a batch it cannot compute, and one image normalised where the map is one pixel.
            reason, _, _ = str(error).partition("\n")
            return ClientFailure(task.client, f"step {len(losses)}: {reason}")
        if not math.isfinite(loss):
            return ClientFailure(task.client, f"loss is {loss} after {len(losses)} steps")
        losses.append(loss)
        if params.clip_value is not None:
            torch.nn.utils.clip_grad_value_(weights.values(), params.clip_value, foreach=True)
        _step(optimizer, weights, layout, trained)
    trained_weights = {name: tensor.detach() for name, tensor in weights.items()}
    return ClientUpdate(task.client, len(labels_N), float(np.mean(losses)), trained_weights)


def _static(assignment: Assignment, layout: Layout, offset_K: Tensor, _: np.random.Generator) -> Backward:
    """Cross-entropy on the labels, one fixed subnet."""
    assert assignment.architecture is not None
    architecture = assignment.architecture
    plan = layout.plan(architecture)
    normalizer = BY_BATCH[layout.normalization]

    def backward(weights: dict[str, Tensor], x_BCHW: Tensor, labels_B: Tensor) -> tuple[float, tuple[()]]:
        logits_BK = forward(plan, weights, at_resolution(x_BCHW, architecture.resolution), normalizer)
        loss = functional.cross_entropy(logits_BK + offset_K, labels_B)
        loss.backward()
        return loss.item(), ()

    return backward


def _sandwich(assignment: Assignment, layout: Layout, offset_K: Tensor, generator: np.random.Generator) -> Backward:
    """The largest subnet on the labels; the smallest and random ones on the largest's soft answers.

    Source: FedSup (arXiv 2206.01366), sandwich rule and in-place distillation of J. Yu and T. Huang (arXiv 1903.05134).
    """

    def backward(
        weights: dict[str, Tensor], x_BCHW: Tensor, labels_B: Tensor
    ) -> tuple[float, tuple[Architecture, ...]]:
        subnets = sampling.sandwich(layout.space, generator, assignment.num_subnets)
        targets, total = labels_B, 0.0
        for index, architecture in enumerate(subnets):
            part = rule.gather(weights, layout.slices(architecture))
            x = at_resolution(x_BCHW, architecture.resolution)
            logits_BK = forward(layout.plan(architecture), part, x, BY_BATCH[layout.normalization]) + offset_K
            loss = functional.cross_entropy(logits_BK, targets)
            loss.backward()
            total += loss.item()
            if index == 0:
                targets = logits_BK.detach().softmax(dim=1)
        return total / len(subnets), subnets

    return backward


def _log_shares(labels_N: Tensor, num_classes: int) -> Tensor:
    """Return the logarithm of each class's share, shape (K,), with one image added to each so that none is 0."""
    counts_K = labels_N.bincount(minlength=num_classes) + 1
    return (counts_K / counts_K.sum()).log()


def _step(
    optimizer: torch.optim.Optimizer, weights: Weights, layout: Layout, trained: tuple[Architecture, ...]
) -> None:
    """Take one step that moves only entries some trained subnet uses.

    Without this, weight decay and momentum would move entries no gradient reached.
    """
    masks = layout.partial_coverage(trained) if trained else {}
    before = {name: weights[name].detach().clone() for name in masks}
    momenta = {name: optimizer.state[weights[name]].get("momentum_buffer") for name in masks}
    kept = {name: None if buffer is None else buffer.clone() for name, buffer in momenta.items()}
    optimizer.step()
    with torch.no_grad():
        for name, mask in masks.items():
            weights[name].copy_(torch.where(mask, weights[name], before[name]))
            buffer, previous = optimizer.state[weights[name]].get("momentum_buffer"), kept[name]
            if buffer is not None:
                buffer.copy_(torch.where(mask, buffer, torch.zeros_like(buffer) if previous is None else previous))


def _batches(num_samples: int, params: LocalTraining, generator: np.random.Generator) -> Iterator[Tensor]:
    """Yield index batches, reshuffled each epoch."""
    for _ in range(params.epochs):
        yield from batches.split(torch.from_numpy(generator.permutation(num_samples)), params.batch_size)
