"""Local training: every step recomputed by hand with autograd."""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from fedsup_deploy import rng
from fedsup_deploy.data.augment import Augmentation
from fedsup_deploy.data.dataset import ImageDataset
from fedsup_deploy.data.preprocess import Preprocessing
from fedsup_deploy.errors import DataError
from fedsup_deploy.federation.client import HELD_OUT, TRAINED, Client
from fedsup_deploy.federation.jobs import train
from fedsup_deploy.federation.jobs.train import Assignment, ClientUpdate, LocalTraining, Train
from fedsup_deploy.federation.messages import Blob
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


def preprocessing_of(space: SearchSpace) -> Preprocessing:
    """From 0..255 to -2..2."""
    side = max(space.resolutions)
    return Preprocessing((0.5,), (0.25,), side, side, side)


def images_of(space: SearchSpace, count: int = 12) -> ImageDataset:
    """Noise; of 12 images 8, 2 and 2 are of the three classes."""
    side = max(space.resolutions)
    pixels_NHWC = rng.generator(2).integers(0, 256, (count, side, side, 1), dtype=np.uint8)
    return ImageDataset("noise", pixels_NHWC, np.array([0, 1, 0, 0, 2, 0, 0, 1, 0, 2, 0, 0])[:count], ("a", "b", "c"))


def tensors_of(space: SearchSpace, count: int = 12) -> tuple[Tensor, Tensor]:
    """Return the images as networks take them, and the labels."""
    images = images_of(space, count)
    return torch.from_numpy(preprocessing_of(space).apply(images.images_NHWC)), torch.tensor(images.labels_N)


def job_of(
    layout: Layout, architecture: Architecture | None = None, num_subnets: int = 1, rate: float = 0.1, **changes: Any
) -> Train:
    where = layout.whole if architecture is None else layout.slices(architecture)
    assignment = Assignment(architecture, num_subnets, is_distilled=True)
    preprocessing, weights = preprocessing_of(layout.space), Blob(rule.gather(start_of(layout), where))
    job = Train(layout, assignment, weights, rate, PLAIN, preprocessing, Augmentation(), SEED)
    return dataclasses.replace(job, **changes)


def run(job: Train, params: LocalTraining = PLAIN, count: int = 12) -> ClientUpdate:
    client = Client({TRAINED: images_of(job.layout.space, count)})
    return client.perform(dataclasses.replace(job, training=params))


def gradients(
    layout: Layout,
    weights: Weights,
    subnets: tuple[Architecture, ...],
    batch: tuple[Tensor, Tensor],
    log_shares: list[float] | None = None,
    class_weights: tuple[float, ...] = (1.0, 1.0, 1.0),
):
    """Return the mean loss and the summed gradients of the sandwich rule, from one graph over the whole supernet."""
    leaves = {name: tensor.detach().clone().requires_grad_() for name, tensor in weights.items()}
    supernet = Supernet(layout, leaves)
    x_BCHW, targets = batch
    weight_B = torch.tensor(class_weights)[targets]
    losses = []
    for architecture in subnets:
        logits = supernet(at_resolution(x_BCHW, architecture.resolution), architecture)
        log_probabilities = (logits + torch.tensor(log_shares or [0.0])).log_softmax(dim=1)
        if targets.ndim == 1:
            losses.append(-(weight_B * log_probabilities[torch.arange(len(targets)), targets]).mean())
            targets = log_probabilities.detach().exp()
        else:
            losses.append(-(weight_B * (targets * log_probabilities).sum(dim=1)).mean())
    found = torch.autograd.grad(torch.stack(losses).sum(), list(leaves.values()), allow_unused=True)
    return torch.stack(losses).mean().item(), dict(zip(leaves, found, strict=True))


def batches_of(
    layout: Layout, params: LocalTraining, num_subnets: int, count: int = 12
) -> Iterator[tuple[tuple[Tensor, Tensor], tuple[Architecture, ...]]]:
    """Yield the batches of a client and the subnets trained on each, drawn as the client draws them."""
    x_NCHW, labels_N = tensors_of(layout.space, count)
    generator = rng.generator_at(SEED)
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
    update = run(job_of(layout, architecture))
    loss, found = gradients(layout, start_of(layout), (architecture,), tensors_of(tiny_space))
    stepped = {n: t if found[n] is None else t - 0.1 * found[n] for n, t in start_of(layout).items()}
    assert_close(update.weights, rule.gather(stepped, layout.slices(architecture)))
    assert update.loss == pytest.approx(loss, rel=1e-5)
    assert update.num_samples == 12
    assert update.num_macs == 12 * layout.num_macs(architecture)


def test_weight_decay_momentum_and_clipping_of_a_static_subnet(layout: Layout) -> None:
    """Two epochs of one batch: the second step has momentum."""
    params = dataclasses.replace(PLAIN, epochs=2, momentum=0.9, weight_decay=0.1, clip_value=0.02)
    architecture = layout.space.largest
    update = run(job_of(layout, architecture), params)
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
    update = run(job_of(layout, num_subnets=num_subnets))
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
    assert tensors_of(layout.space)[1].bincount().tolist() == [8, 2, 2]
    log_shares = [math.log(share / 15) for share in (9, 3, 3)]
    ((batch, subnets),) = batches_of(layout, params, num_subnets)
    job = job_of(layout, None if subnets else layout.space.largest, num_subnets)
    update, plain = run(job, params), run(job)
    loss, found = gradients(layout, start_of(layout), subnets or (layout.space.largest,), batch, log_shares)
    assert update.loss == pytest.approx(loss, rel=1e-5)
    assert_close(update.weights, {name: tensor - 0.1 * found[name] for name, tensor in job.weights.tensors.items()})
    assert not torch.allclose(plain.weights["head.bias"], update.weights["head.bias"], atol=1e-3)


@pytest.mark.parametrize("num_subnets", [1, 3])
def test_an_image_counts_what_its_class_is_worth_on_labels_and_on_answers(layout: Layout, num_subnets: int) -> None:
    """Of 12 images 8, 2 and 2 are of the three classes; a batch is divided by its images, not by their weights."""
    weights = (0.25, 3.0, 1.5)
    params = dataclasses.replace(PLAIN, class_weights=weights)
    ((batch, subnets),) = batches_of(layout, params, num_subnets)
    job = job_of(layout, None if subnets else layout.space.largest, num_subnets)
    update, plain = run(job, params), run(job)
    chosen = subnets or (layout.space.largest,)
    loss, found = gradients(layout, start_of(layout), chosen, batch, class_weights=weights)
    assert update.loss == pytest.approx(loss, rel=1e-5)
    assert_close(update.weights, {name: tensor - 0.1 * found[name] for name, tensor in job.weights.tensors.items()})
    assert not torch.allclose(plain.weights["head.bias"], update.weights["head.bias"], atol=1e-3)


def test_loss_before_training_is_that_of_the_first_batch_with_what_was_sent(layout: Layout) -> None:
    """Twelve images in six steps, whose mean is another loss."""
    params = dataclasses.replace(PLAIN, epochs=2, batch_size=4)
    update = run(job_of(layout, layout.space.largest, rate=0.3), params)
    first, *others = (batch for batch, _ in batches_of(layout, params, 1))
    assert len(others) == 5
    loss, _ = gradients(layout, start_of(layout), (layout.space.largest,), first)
    assert update.loss_before == pytest.approx(loss, rel=1e-5)
    assert update.loss != pytest.approx(loss, rel=1e-2)


def test_a_client_of_one_rare_class_counts_for_more_than_one_of_a_common_class(layout: Layout) -> None:
    """It would not if weights were its own, or a batch were divided by them."""
    images = dataclasses.replace(images_of(layout.space), labels_N=np.full(12, 2, dtype=np.int64))
    job, moved = job_of(layout, layout.space.largest), []
    for weight in (1.0, 4.0):
        params = dataclasses.replace(PLAIN, class_weights=(0.5, 0.5, weight))
        update = Client({TRAINED: images}).perform(dataclasses.replace(job, training=params))
        moved.append(update.weights["head.bias"] - job.weights.tensors["head.bias"])
    torch.testing.assert_close(moved[1], 4 * moved[0], rtol=1e-4, atol=1e-6)


def test_class_a_client_has_not_seen_keeps_a_finite_share(layout: Layout) -> None:
    """Twelve images of one class of three: 13/15, 1/15 and 1/15."""
    shares_K = train.log_shares(torch.zeros(12, dtype=torch.int64), 3).exp()
    torch.testing.assert_close(shares_K, torch.tensor([13 / 15, 1 / 15, 1 / 15]))
    images = dataclasses.replace(images_of(layout.space), labels_N=np.zeros(12, dtype=np.int64))
    params = dataclasses.replace(PLAIN, has_logit_adjustment=True)
    update = Client({TRAINED: images}).perform(job_of(layout, layout.space.largest, training=params))
    assert all(torch.isfinite(tensor).all() for tensor in update.weights.values())


@pytest.mark.parametrize("normalization", ["batch", "parametric"])
def test_sandwich_on_labels_adds_up_the_gradients_of_each_alone(tiny_space: SearchSpace, normalization: str) -> None:
    layout = Layout(tiny_space, normalization)
    update = run(job_of(layout, assignment=Assignment(None, 3)))
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
    update = run(job_of(layout, sent, assignment=Assignment(sent, inner=(inner,))))
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

    def random_subnet(seed: int) -> tuple[int, int]:
        generator = rng.generator_at(seed)
        generator.permutation(12)
        _, middle, _ = sampling.sandwich(corner_space, generator, 3)
        return middle.stem_width, middle.stages[0][0].width

    wanted = next(seed for seed in range(100) if random_subnet(seed) == (16, 8))
    update = run(job_of(layout, num_subnets=3, seed=wanted), params)
    name = "s1.0.shortcut.weight"
    before, after = start_of(layout)[name], update.weights[name]
    assert after.shape == (16, 16, 1, 1)
    assert torch.equal(after[8:], before[8:])
    assert (after[:8] != before[:8]).all()


def test_untrained_tensor_does_not_decay(corner_space: SearchSpace) -> None:
    layout = Layout(corner_space, "batch")
    params = dataclasses.replace(PLAIN, weight_decay=0.5, momentum=0.9, epochs=3)
    update = run(job_of(layout, num_subnets=2), params)
    name = "s1.0.shortcut.weight"
    assert torch.equal(update.weights[name], start_of(layout)[name])
    assert not torch.equal(update.weights["stem.weight"], start_of(layout)["stem.weight"])


def test_steps_with_changing_subnets_are_those_of_sgd_on_covered_entries(corner_space: SearchSpace) -> None:
    """Eighteen steps whose random subnet covers now rows, now columns, now nothing of the shortcut."""
    layout = Layout(corner_space, "batch")
    params = dataclasses.replace(PLAIN, epochs=6, batch_size=4, momentum=0.9, weight_decay=0.2, clip_value=0.5)
    assert len({subnets[1] for _, subnets in batches_of(layout, params, 3)}) == 4
    update = run(job_of(layout, num_subnets=3, rate=0.02), params)
    expected = by_hand(layout, start_of(layout), params, 3, 0.02)
    assert_close(update.weights, expected, 1e-4)
    moved = (update.weights["s1.0.shortcut.weight"] != start_of(layout)["s1.0.shortcut.weight"])[:, :, 0, 0]
    assert moved[:8].all()
    assert moved[:, :8].all()
    assert not moved[8:, 8:].any()


class Failing(NamedTuple):
    """What cannot be done, and the reason given."""

    job: Train
    images: ImageDataset
    reason: str


def failing(layout: Layout) -> dict[str, Failing]:
    images, good = images_of(layout.space), job_of(layout, layout.space.largest)
    more_classes = dataclasses.replace(images, labels_N=images.labels_N + 100, classes=tuple(map(str, range(103))))
    not_square = dataclasses.replace(images, images_NHWC=images.images_NHWC[:, :5])
    broken = job_of(layout, layout.space.largest)
    broken.weights.tensors["head.bias"][0] = float("nan")
    diverging = dataclasses.replace(good, learning_rate=1e30)
    return {
        "label without a class": Failing(good, more_classes, "step 0: Target"),
        "images not square": Failing(good, not_square, "preprocessing: got uint8 images of shape (12, 5, 8, 1)"),
        "broken weights": Failing(broken, images, "loss is nan after 0 steps; lower training.learning_rate"),
        "divergence": Failing(diverging, images, "loss is "),
    }


@pytest.mark.parametrize("name", ["label without a class", "images not square", "broken weights", "divergence"])
def test_failing_client_says_why_and_leaves_the_weights_as_they_were(layout: Layout, name: str) -> None:
    job, images, reason = failing(layout)[name]
    before = {tensor_name: tensor.clone() for tensor_name, tensor in job.weights.tensors.items()}
    params = dataclasses.replace(PLAIN, epochs=3)
    with pytest.raises(DataError, match=f"^{re.escape(reason)}") as error:
        Client({TRAINED: images}).perform(dataclasses.replace(job, training=params))
    assert "\n" not in str(error.value)
    for tensor_name, tensor in job.weights.tensors.items():
        assert torch.allclose(before[tensor_name], tensor, rtol=0, atol=0, equal_nan=True)
        assert not tensor.requires_grad


def test_client_without_images_to_train_on_says_so(layout: Layout) -> None:
    with pytest.raises(DataError, match=r"^no trained images$"):
        Client({HELD_OUT: images_of(layout.space)}).perform(job_of(layout))


def test_one_image_where_the_map_is_one_pixel_is_a_failure(space_of) -> None:
    """Batch normalisation has nothing to normalise a single value by."""
    layout = Layout(space_of({"widths": [4], "depths": [1], "stride": 2}, resolutions=[2]), "batch")
    message = r"^step 0: layer s1\.0\.\w+: got one image on a map of one pixel, expected batches of two images or more$"
    with pytest.raises(DataError, match=message):
        run(job_of(layout, layout.space.largest), count=1)


def test_successful_client_leaves_the_weights_it_was_sent_as_they_were(layout: Layout) -> None:
    job = job_of(layout, num_subnets=3)
    run(job, dataclasses.replace(PLAIN, momentum=0.9, weight_decay=0.1))
    assert all(torch.equal(job.weights.tensors[name], tensor) for name, tensor in start_of(layout).items())


def test_no_tensor_of_an_update_is_a_view_of_something_larger(layout: Layout) -> None:
    """Which would travel with it."""
    update = run(job_of(layout, num_subnets=2))
    for tensor in update.weights.values():
        assert tensor.untyped_storage().nbytes() == 4 * tensor.numel()


def test_update_carries_no_gradient_history(layout: Layout) -> None:
    update = run(job_of(layout, num_subnets=2))
    assert not any(tensor.requires_grad or tensor.grad is not None for tensor in update.weights.values())


def test_same_job_same_bytes_and_another_seed_differs(layout: Layout) -> None:
    params = dataclasses.replace(PLAIN, batch_size=4)
    job = job_of(layout, num_subnets=3)
    first, again, other = (run(each, params) for each in (job, job, dataclasses.replace(job, seed=SEED + 1)))
    assert all(torch.equal(first.weights[name], again.weights[name]) for name in first.weights)
    assert not torch.equal(first.weights["head.weight"], other.weights["head.weight"])


def test_augmentation_is_applied_to_training_images(layout: Layout) -> None:
    """Mirroring changes the gradient; what is mirrored follows the job's seed, so it can be repeated."""
    job = job_of(layout, layout.space.largest)
    first, again = (run(dataclasses.replace(job, augmentation=Augmentation(flip=True))) for _ in range(2))
    assert torch.equal(first.weights["stem.weight"], again.weights["stem.weight"])
    assert not torch.equal(first.weights["stem.weight"], run(job).weights["stem.weight"])


def test_images_that_are_too_large_are_resized_once(space_of) -> None:
    """From 8 to 4 pixels for the subnet that takes 4, not by way of the 6 that others take: as evaluation does."""
    layout = Layout(space_of({"widths": [4], "depths": [1]}, resolutions=[4, 6]), "batch")
    smallest = layout.space.smallest
    assert smallest.resolution == 4
    pixels_NHWC = rng.generator(2).integers(0, 256, (12, 8, 8, 1), dtype=np.uint8)
    images = dataclasses.replace(images_of(layout.space), images_NHWC=pixels_NHWC)
    preprocessing = Preprocessing((0.5,), (0.25,), 8, 8, 6)
    update = Client({TRAINED: images}).perform(job_of(layout, smallest, preprocessing=preprocessing))
    x_NCHW = torch.from_numpy(preprocessing.for_size(4).apply(pixels_NHWC))
    _, found = gradients(layout, start_of(layout), (smallest,), (x_NCHW, torch.tensor(images.labels_N)))
    stepped = {name: tensor - 0.1 * found[name] for name, tensor in start_of(layout).items()}
    assert_close(update.weights, rule.gather(stepped, layout.slices(smallest)))


def test_held_out_images_are_not_trained_on(layout: Layout) -> None:
    trained = images_of(layout.space)
    both = Client({TRAINED: trained, HELD_OUT: trained.take([0])})
    job = job_of(layout, layout.space.largest)
    first, second = both.perform(job), Client({TRAINED: trained}).perform(job)
    assert first.num_samples == 12
    assert all(torch.equal(first.weights[name], tensor) for name, tensor in second.weights.items())


def test_batches_cover_every_image_in_every_epoch_in_a_new_order() -> None:
    params = dataclasses.replace(PLAIN, epochs=2, batch_size=4)
    batches = [batch.tolist() for batch in train._batches(10, params, rng.generator(0))]
    assert [len(batch) for batch in batches] == [4, 4, 2] * 2
    epochs = [functools.reduce(lambda x, y: x + y, batches[:3]), functools.reduce(lambda x, y: x + y, batches[3:])]
    assert [sorted(epoch) for epoch in epochs] == [list(range(10))] * 2
    assert epochs[0] != epochs[1]


def test_loss_is_the_mean_over_batches(layout: Layout) -> None:
    params = dataclasses.replace(PLAIN, batch_size=4)
    update = run(job_of(layout, layout.space.largest, rate=1e-12), params)
    expected = np.mean(
        [
            gradients(layout, start_of(layout), (layout.space.largest,), batch)[0]
            for batch, _ in batches_of(layout, params, 1)
        ]
    )
    assert update.loss == pytest.approx(expected, rel=1e-5)
