"""Local training: every step recomputed by hand with autograd."""

import dataclasses
import functools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from fedsup_deploy import rng
from fedsup_deploy.data.augment import Augmentation
from fedsup_deploy.federated import client
from fedsup_deploy.federated.client import LocalTraining, train
from fedsup_deploy.federated.tasks import Assignment, ClientFailure, ClientUpdate, TrainTask
from fedsup_deploy.space import sampling
from fedsup_deploy.space.architecture import Architecture
from fedsup_deploy.space.search_space import SearchSpace
from fedsup_deploy.supernet import slices as rule
from fedsup_deploy.supernet.forward import at_resolution
from fedsup_deploy.supernet.layout import Layout
from fedsup_deploy.supernet.model import Supernet, initial_weights

SEED = 5
PLAIN = LocalTraining(
    epochs=1, batch_size=100, momentum=0.0, weight_decay=0.0, clip_value=None, has_logit_adjustment=False
)
Weights = dict[str, Tensor]


@pytest.fixture(scope="module")
def layout(tiny_space: SearchSpace) -> Layout:
    return Layout(tiny_space, "batch")


def start_of(layout: Layout) -> Weights:
    """Random weights everywhere, so that everything has a gradient and something to decay."""
    generator = torch.Generator().manual_seed(1)
    return {
        name: tensor + 0.3 * torch.randn(tensor.shape, generator=generator)
        for name, tensor in initial_weights(layout, 0).items()
    }


def images_of(space: SearchSpace, count: int = 12) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    side = max(space.resolutions)
    return (
        torch.randn(count, 1, side, side, generator=generator),
        torch.randint(0, space.num_classes, (count,), generator=generator),
    )


def task_of(
    layout: Layout, architecture: Architecture | None = None, num_subnets: int = 1, rate: float = 0.1
) -> TrainTask:
    where = layout.whole if architecture is None else layout.slices(architecture)
    weights = rule.gather(start_of(layout), where)
    return TrainTask(3, 2, Assignment(architecture, num_subnets, is_distilled=True), weights, rate)


def run(layout: Layout, task: TrainTask, params: LocalTraining, count: int = 12) -> ClientUpdate:
    update = train(task, layout, images_of(layout.space, count), Augmentation(), params, SEED)
    assert isinstance(update, ClientUpdate), update
    return update


def gradients(
    layout: Layout,
    weights: Weights,
    subnets: tuple[Architecture, ...],
    batch: tuple[Tensor, Tensor],
    log_shares: list[float] | None = None,
):
    """Return the mean loss and the summed gradients of the sandwich rule, from one graph over the whole supernet."""
    leaves = {name: tensor.detach().clone().requires_grad_() for name, tensor in weights.items()}
    supernet = Supernet(layout, leaves)
    x_BCHW, targets = batch
    losses = []
    for architecture in subnets:
        logits = supernet(at_resolution(x_BCHW, architecture.resolution), architecture)
        log_probabilities = (logits + torch.tensor(log_shares or [0.0])).log_softmax(dim=1)
        if targets.ndim == 1:
            losses.append(-log_probabilities[torch.arange(len(targets)), targets].mean())
            targets = log_probabilities.detach().exp()
        else:
            losses.append(-(targets * log_probabilities).sum(dim=1).mean())
    found = torch.autograd.grad(torch.stack(losses).sum(), list(leaves.values()), allow_unused=True)
    return torch.stack(losses).mean().item(), dict(zip(leaves, found, strict=True))


def batches_of(layout: Layout, params: LocalTraining, num_subnets: int, count: int = 12):
    """Yield the batches of a client and the subnets trained on each, drawn as the client draws them."""
    x_NCHW, labels_N = images_of(layout.space, count)
    generator = rng.generator(SEED, "client", 2, 3)
    for _ in range(params.epochs):
        order = generator.permutation(count)
        for begin in range(0, count, params.batch_size):
            chosen = order[begin : begin + params.batch_size]
            subnets = sampling.sandwich(layout.space, generator, num_subnets) if num_subnets > 1 else ()
            yield (x_NCHW[chosen], labels_N[chosen]), subnets


def by_hand(layout: Layout, weights: Weights, params: LocalTraining, num_subnets: int, rate: float) -> Weights:
    """Return the weights after SGD that touches only what a subnet of the step uses."""
    momenta = {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
    for batch, subnets in batches_of(layout, params, num_subnets):
        _, found = gradients(layout, weights, subnets, batch)
        masks = rule.coverage(layout.shapes, [layout.slices(architecture) for architecture in subnets])
        for name, found_here in found.items():
            mask = masks[name]
            if found_here is None:
                assert not mask.any()
                continue
            limit = math.inf if params.clip_value is None else params.clip_value
            gradient = found_here.clamp(-limit, limit) + params.weight_decay * weights[name]
            momenta[name] = torch.where(mask, params.momentum * momenta[name] + gradient, momenta[name])
            weights[name] = torch.where(mask, weights[name] - rate * momenta[name], weights[name])
    return weights


def assert_close(found, expected: Weights, tolerance: float = 1e-5) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.allclose(found[name], tensor, rtol=0, atol=tolerance), name


@pytest.mark.parametrize("name", ["largest", "smallest"])
@pytest.mark.parametrize("normalization", ["batch", "parametric"])
def test_static_subnet_takes_a_plain_gradient_step_on_the_labels(
    tiny_space: SearchSpace, name: str, normalization: str
) -> None:
    """The smallest has a lower resolution than the images: they are resized for it."""
    layout = Layout(tiny_space, normalization)
    architecture = tiny_space.resolve(name)
    update = run(layout, task_of(layout, architecture), PLAIN)
    loss, found = gradients(layout, start_of(layout), (architecture,), images_of(tiny_space))
    stepped = {n: t if found[n] is None else t - 0.1 * found[n] for n, t in start_of(layout).items()}
    assert_close(update.weights, rule.gather(stepped, layout.slices(architecture)))
    assert update.loss == pytest.approx(loss, rel=1e-5)
    assert (update.client, update.num_samples) == (3, 12)
    assert update.num_macs == 12 * layout.num_macs(architecture)


def test_weight_decay_momentum_and_clipping_of_a_static_subnet(layout: Layout) -> None:
    """Two epochs of one batch: the second step has momentum."""
    params = dataclasses.replace(PLAIN, epochs=2, momentum=0.9, weight_decay=0.1, clip_value=0.02)
    architecture = layout.space.largest
    update = run(layout, task_of(layout, architecture), params)
    weights, velocity = start_of(layout), {name: torch.zeros(()) for name in layout.shapes}
    clipped = 0
    for batch, _ in batches_of(layout, params, 1):
        _, found = gradients(layout, weights, (architecture,), batch)
        for name in layout.slices(architecture):
            clipped += int((found[name].abs() > 0.02).sum())
            velocity[name] = 0.9 * velocity[name] + found[name].clamp(-0.02, 0.02) + 0.1 * weights[name]
            weights[name] = weights[name] - 0.1 * velocity[name]
    assert clipped > 100
    assert_close(update.weights, rule.gather(weights, layout.slices(architecture)))


@pytest.mark.parametrize("num_subnets", [2, 4])
@pytest.mark.parametrize("normalization", ["batch", "parametric"])
def test_sandwich_trains_the_largest_on_labels_and_the_others_on_its_softmax(
    tiny_space: SearchSpace, num_subnets: int, normalization: str
) -> None:
    layout = Layout(tiny_space, normalization)
    update = run(layout, task_of(layout, num_subnets=num_subnets), PLAIN)
    ((batch, subnets),) = batches_of(layout, PLAIN, num_subnets)
    assert (subnets[0], subnets[-1]) == (tiny_space.largest, tiny_space.smallest)
    loss, found = gradients(layout, start_of(layout), subnets, batch)
    expected = {
        name: tensor - 0.1 * (torch.zeros(()) if found[name] is None else found[name])
        for name, tensor in start_of(layout).items()
    }
    assert_close(update.weights, expected)
    assert update.loss == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("num_subnets", [1, 3])
def test_logit_adjustment_adds_the_logarithms_of_the_clients_class_shares(layout: Layout, num_subnets: int) -> None:
    """Of 12 images 8, 2 and 2 are of the three classes; with one more of each, shares are 9/15, 3/15 and 3/15."""
    params = dataclasses.replace(PLAIN, has_logit_adjustment=True)
    assert images_of(layout.space)[1].bincount().tolist() == [8, 2, 2]
    log_shares = [math.log(share / 15) for share in (9, 3, 3)]
    ((batch, subnets),) = batches_of(layout, params, num_subnets)
    task = task_of(layout, None if subnets else layout.space.largest, num_subnets)
    update, plain = run(layout, task, params), run(layout, task, PLAIN)
    loss, found = gradients(layout, start_of(layout), subnets or (layout.space.largest,), batch, log_shares)
    assert update.loss == pytest.approx(loss, rel=1e-5)
    assert_close(update.weights, {name: task.weights[name] - 0.1 * found[name] for name in task.weights})
    assert not torch.allclose(plain.weights["head.bias"], update.weights["head.bias"], atol=1e-3)


def test_class_a_client_has_not_seen_keeps_a_finite_share(layout: Layout) -> None:
    params = dataclasses.replace(PLAIN, has_logit_adjustment=True)
    x_NCHW, labels_N = images_of(layout.space)
    images = x_NCHW, torch.zeros_like(labels_N)
    update = train(task_of(layout, layout.space.largest), layout, images, Augmentation(), params, SEED)
    assert isinstance(update, ClientUpdate)
    assert all(torch.isfinite(tensor).all() for tensor in update.weights.values())


@pytest.mark.parametrize("normalization", ["batch", "parametric"])
def test_sandwich_on_labels_adds_up_the_gradients_of_each_alone(tiny_space: SearchSpace, normalization: str) -> None:
    layout = Layout(tiny_space, normalization)
    task = dataclasses.replace(task_of(layout), assignment=Assignment(None, 3))
    update = run(layout, task, PLAIN)
    ((batch, subnets),) = batches_of(layout, PLAIN, 3)
    each = [gradients(layout, start_of(layout), (architecture,), batch) for architecture in subnets]
    expected = {
        name: tensor - 0.1 * sum(found[name] for _, found in each if found[name] is not None)
        for name, tensor in start_of(layout).items()
    }
    assert_close(update.weights, expected)
    assert update.loss == pytest.approx(np.mean([loss for loss, _ in each]), rel=1e-5)
    assert update.num_macs == 12 * sum(layout.num_macs(architecture) for architecture in subnets)


def test_gradients_of_a_subnet_and_of_one_within_it_add_up(corner_space: SearchSpace) -> None:
    """The smallest subnet with a stem of 16 channels has all of the smallest, whose stem has 8."""
    layout = Layout(corner_space, "batch")
    inner = layout.space.smallest
    sent = dataclasses.replace(inner, stem_width=16)
    assignment = Assignment(sent, inner=(inner,))
    task = dataclasses.replace(task_of(layout, sent), assignment=assignment)
    update = run(layout, task, PLAIN)
    ((batch, _),) = batches_of(layout, PLAIN, 1)
    start = start_of(layout)
    (_, of_sent), (_, of_inner) = (gradients(layout, start, (subnet,), batch) for subnet in (sent, inner))
    expected = {}
    for name, where in layout.slices(sent).items():
        gradient = of_sent[name].clone()
        if name in layout.slices(inner):
            shared = layout.slices(inner)[name]
            gradient[shared] += of_inner[name][shared]
        expected[name] = (start[name] - 0.1 * gradient)[where]
    assert_close(update.weights, expected)


def test_soft_targets_are_not_labels(layout: Layout) -> None:
    """Training every subnet on the labels would give something else, so the test above means something."""
    ((batch, subnets),) = batches_of(layout, PLAIN, 2)
    _, distilled = gradients(layout, start_of(layout), subnets, batch)
    on_labels = [gradients(layout, start_of(layout), (architecture,), batch)[1] for architecture in subnets]
    difference = distilled["head.bias"] - on_labels[0]["head.bias"] - on_labels[1]["head.bias"]
    assert difference.abs().max() > 1e-2


@pytest.fixture(scope="module")
def corner_space(space_of) -> SearchSpace:
    """Largest 16 -> 16 and smallest 8 -> 8 have no shortcut convolution; 16 -> 8 uses 8 rows of it, 8 -> 16 columns."""
    return space_of({"widths": [8, 16], "depths": [1]}, stem={"widths": [8, 16]})


def test_nothing_outside_the_slices_of_a_step_moves(corner_space: SearchSpace) -> None:
    """One step, with weight decay, of a sandwich whose random subnet is 16 -> 8."""
    layout = Layout(corner_space, "batch")
    params = dataclasses.replace(PLAIN, weight_decay=0.5, momentum=0.9)

    def random_subnet(client: int) -> tuple[int, int]:
        generator = rng.generator(SEED, "client", 2, client)
        generator.permutation(12)
        _, middle, _ = sampling.sandwich(corner_space, generator, 3)
        return middle.stem_width, middle.stages[0][0].width

    wanted = next(client for client in range(100) if random_subnet(client) == (16, 8))
    update = run(layout, dataclasses.replace(task_of(layout, num_subnets=3), client=wanted), params)
    name = "s1.0.shortcut.weight"
    before, after = start_of(layout)[name], update.weights[name]
    assert after.shape == (16, 16, 1, 1)
    assert torch.equal(after[8:], before[8:])
    assert (after[:8] != before[:8]).all()


def test_untrained_tensor_does_not_decay(corner_space: SearchSpace) -> None:
    layout = Layout(corner_space, "batch")
    params = dataclasses.replace(PLAIN, weight_decay=0.5, momentum=0.9, epochs=3)
    update = run(layout, task_of(layout, num_subnets=2), params)
    name = "s1.0.shortcut.weight"
    assert torch.equal(update.weights[name], start_of(layout)[name])
    assert not torch.equal(update.weights["stem.weight"], start_of(layout)["stem.weight"])


def test_steps_with_changing_subnets_are_those_of_sgd_on_covered_entries(corner_space: SearchSpace) -> None:
    """Eighteen steps whose random subnet covers now rows, now columns, now nothing of the shortcut."""
    layout = Layout(corner_space, "batch")
    params = dataclasses.replace(PLAIN, epochs=6, batch_size=4, momentum=0.9, weight_decay=0.2, clip_value=0.5)
    assert len({subnets[1] for _, subnets in batches_of(layout, params, 3)}) == 4
    update = run(layout, task_of(layout, num_subnets=3, rate=0.02), params)
    expected = by_hand(layout, start_of(layout), params, 3, 0.02)
    assert_close(update.weights, expected, 1e-4)
    moved = (update.weights["s1.0.shortcut.weight"] != start_of(layout)["s1.0.shortcut.weight"])[:, :, 0, 0]
    assert moved[:8].all()
    assert moved[:, :8].all()
    assert not moved[8:, 8:].any()


def failing_tasks(layout: Layout):
    """Tasks that cannot be done: what is wrong, the task, the images, and the reason given."""
    x_NCHW, labels_N = images_of(layout.space)
    infinite = task_of(layout, layout.space.largest)
    infinite.weights["head.bias"][0] = float("nan")
    diverging = task_of(layout, layout.space.largest, rate=1e30)
    good = task_of(layout, layout.space.largest)
    return {
        "label without a class": (good, (x_NCHW, labels_N + 100), "step 0: Target"),
        "images not square": (good, (x_NCHW[:, :, :5], labels_N), "step 0: got images of 5x8 pixels"),
        "broken weights": (infinite, (x_NCHW, labels_N), "loss is nan after 0 steps"),
        "divergence": (diverging, (x_NCHW, labels_N), "loss is "),
    }


@pytest.mark.parametrize("name", ["label without a class", "images not square", "broken weights", "divergence"])
def test_failing_client_says_why_and_leaves_the_weights_as_they_were(layout: Layout, name: str) -> None:
    task, images, reason = failing_tasks(layout)[name]
    before = {tensor_name: tensor.clone() for tensor_name, tensor in task.weights.items()}
    params = dataclasses.replace(PLAIN, epochs=3)
    failure = train(task, layout, images, Augmentation(), params, SEED)
    assert isinstance(failure, ClientFailure)
    assert failure.client == 3
    assert failure.reason.startswith(reason)
    assert "\n" not in failure.reason
    for tensor_name, tensor in before.items():
        assert torch.equal(task.weights[tensor_name], tensor) or bool(tensor.isnan().any())
        assert not task.weights[tensor_name].requires_grad


def test_one_image_where_the_map_is_one_pixel_is_a_failure(space_of) -> None:
    """Batch normalisation has nothing to normalise a single value by."""
    layout = Layout(space_of({"widths": [4], "depths": [1], "stride": 2}, resolutions=[2]), "batch")
    failure = train(
        task_of(layout, layout.space.largest), layout, images_of(layout.space, 1), Augmentation(), PLAIN, SEED
    )
    assert isinstance(failure, ClientFailure)
    assert failure.reason.startswith("step 0: layer s1.0.")
    assert failure.reason.endswith("got one image on a map of one pixel, expected batches of two images or more")


def test_successful_client_leaves_the_weights_it_was_sent_as_they_were(layout: Layout) -> None:
    task = task_of(layout, num_subnets=3)
    run(layout, task, dataclasses.replace(PLAIN, momentum=0.9, weight_decay=0.1))
    assert all(torch.equal(task.weights[name], tensor) for name, tensor in start_of(layout).items())


def test_update_carries_no_gradient_history(layout: Layout) -> None:
    update = run(layout, task_of(layout, num_subnets=2), PLAIN)
    assert not any(tensor.requires_grad or tensor.grad is not None for tensor in update.weights.values())


def test_same_task_same_bytes_and_other_rounds_or_clients_differ(layout: Layout) -> None:
    params = dataclasses.replace(PLAIN, batch_size=4)
    task = task_of(layout, num_subnets=3)
    first, again = (run(layout, task, params) for _ in range(2))
    assert all(torch.equal(first.weights[name], again.weights[name]) for name in first.weights)
    for change in ({"round_index": 9}, {"client": 9}):
        other = run(layout, dataclasses.replace(task, **change), params)
        assert not torch.equal(first.weights["head.weight"], other.weights["head.weight"])


def test_augmentation_is_applied_to_training_images(layout: Layout) -> None:
    """Mirroring changes the gradient; what is mirrored follows the client's generator, so it can be repeated."""
    task, images = task_of(layout, layout.space.largest), images_of(layout.space)
    mirrored = [train(task, layout, images, Augmentation(flip=True), PLAIN, SEED) for _ in range(2)]
    plain = run(layout, task, PLAIN)
    assert all(isinstance(update, ClientUpdate) for update in mirrored)
    assert torch.equal(mirrored[0].weights["stem.weight"], mirrored[1].weights["stem.weight"])
    assert not torch.equal(mirrored[0].weights["stem.weight"], plain.weights["stem.weight"])


def test_batches_cover_every_image_in_every_epoch_in_a_new_order() -> None:
    params = dataclasses.replace(PLAIN, epochs=2, batch_size=4)
    batches = [batch.tolist() for batch in client._batches(10, params, rng.generator(0))]
    assert [len(batch) for batch in batches] == [4, 4, 2] * 2
    epochs = [functools.reduce(lambda x, y: x + y, batches[:3]), functools.reduce(lambda x, y: x + y, batches[3:])]
    assert [sorted(epoch) for epoch in epochs] == [list(range(10))] * 2
    assert epochs[0] != epochs[1]


def test_loss_is_the_mean_over_batches(layout: Layout) -> None:
    params = dataclasses.replace(PLAIN, batch_size=4)
    update = run(layout, task_of(layout, layout.space.largest, rate=1e-12), params)
    expected = np.mean(
        [
            gradients(layout, start_of(layout), (layout.space.largest,), batch)[0]
            for batch, _ in batches_of(layout, params, 1)
        ]
    )
    assert update.loss == pytest.approx(expected, rel=1e-5)
