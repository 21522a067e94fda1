"""Laws of the server's average, on random spaces, assignments and updates."""

from collections.abc import Sequence

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedsup_deploy import rng
from fedsup_deploy.federation.jobs.train import ClientUpdate
from fedsup_deploy.federation.server.aggregation import CoverageMean
from fedsup_deploy.federation.server.trimmed_mean import TrimmedMean, num_trimmed
from fedsup_deploy.space import sampling
from fedsup_deploy.supernet import slices as rule
from fedsup_deploy.supernet.layout import Layout

#: Images of a round, at most. Weights are then rounded to multiples of 2^-42, or of something smaller.
MAX_SAMPLES = 10_000
Seeds = st.integers(0, 2**32)
NumSamples = st.lists(st.integers(1, MAX_SAMPLES // 5), min_size=1, max_size=5)
#: What weights are multiplied by: from those that are exact to those of which little is left.
#: Share that a trimmed mean leaves out on either side; None: no trimmed mean.
Trims = st.one_of(st.none(), st.floats(0.01, 0.49))
Scales = st.sampled_from([1.0, 1e-3, 1e-5, 1e-6, 1e-8, 1e-12])
Weights = dict[str, Tensor]
Updates = Sequence[tuple[ClientUpdate, rule.Slices]]


def random_weights(shapes: rule.Shapes, seed: int) -> Weights:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def updates_of(
    layout: Layout, num_samples: list[int], seed: int, whole: Weights | None = None
) -> list[tuple[ClientUpdate, rule.Slices]]:
    """Return an update per client on a random architecture each: random numbers, or its part of `whole`."""
    generator = rng.generator(seed)
    updates = []
    for client, count in enumerate(num_samples):
        where = layout.slices(sampling.random_architecture(layout.space, generator))
        source = random_weights(layout.shapes, seed + 1 + client) if whole is None else whole
        weights = {name: tensor.clone() for name, tensor in rule.gather(source, where).items()}
        updates.append((ClientUpdate(count, 1.0, weights), where))
    return updates


def mean_of(updates: Updates, previous: Weights, trim: float | None = None) -> CoverageMean:
    mean = CoverageMean(previous, MAX_SAMPLES) if trim is None else TrimmedMean(previous, MAX_SAMPLES, 5, trim)
    assert [mean.add(update, where) for update, where in updates] == [None] * len(updates)
    return mean


def aggregate(updates: Updates, previous: Weights) -> Weights:
    return mean_of(updates, previous).result()


def assert_equal(found: Weights, expected: Weights) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def assert_rounded(found: Weights, expected: Weights) -> None:
    """Weights of 2e-6 and more are what they were, smaller ones but for half of 2^-42."""
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        is_exact = tensor.abs() >= 2e-6
        assert torch.equal(found[name][is_exact], tensor[is_exact]), name
        error = (found[name].double() - tensor.double()).abs()
        assert not error.numel() or float(error.max()) <= 2.0**-43, name


@settings(max_examples=20)
@given(data=st.data(), seed=Seeds)
def test_scatter_after_gather_changes_nothing(spaces, data: st.DataObject, seed: int) -> None:
    layout = Layout(data.draw(spaces), "parametric")
    weights = random_weights(layout.shapes, seed)
    where = layout.slices(sampling.random_architecture(layout.space, rng.generator(seed)))
    part = rule.gather(weights, where)
    empty = {name: torch.zeros(shape) for name, shape in layout.shapes.items()}
    rule.scatter_add(empty, part, where, 1.0)
    mask = rule.coverage(layout.shapes, [where])
    for name, tensor in weights.items():
        assert torch.equal(empty[name], torch.where(mask[name], tensor, torch.zeros(()))), name
        assert torch.equal(rule.gather(empty, where)[name], part[name]) if name in where else not empty[name].any()


@settings(max_examples=25)
@given(data=st.data(), seed=Seeds, num_samples=NumSamples, scale=Scales)
def test_equal_updates_come_back_whatever_their_images_and_parts(
    spaces, data: st.DataObject, seed: int, num_samples: list[int], scale: float
) -> None:
    """Exactly, but for weights that are smaller than any that matters."""
    layout = Layout(data.draw(spaces), "batch")
    weights = {name: scale * tensor for name, tensor in random_weights(layout.shapes, seed).items()}
    updates = updates_of(layout, num_samples, seed, weights)
    found = aggregate(updates, weights)
    assert_rounded(found, weights)
    masks = rule.coverage(layout.shapes, [where for _, where in updates])
    for name, mask in masks.items():
        assert torch.equal(found[name][~mask], weights[name][~mask]), name


@settings(max_examples=15)
@given(data=st.data(), seed=Seeds, num_samples=NumSamples, extrapolates=st.booleans(), trim=Trims)
def test_neither_the_order_of_clients_nor_a_relay_changes_a_bit(
    spaces, data: st.DataObject, seed: int, num_samples: list[int], extrapolates: bool, trim: float | None
) -> None:
    """Some updates are first added up elsewhere, in any order, and a relay may have relays of its own."""
    layout = Layout(data.draw(spaces), "batch")
    previous, updates = random_weights(layout.shapes, seed), updates_of(layout, num_samples, seed)
    expected = mean_of(updates, previous, trim).result(extrapolates=extrapolates)
    for _ in range(3):
        order = data.draw(st.permutations(updates))
        first, second = sorted(data.draw(st.tuples(*[st.integers(0, len(updates))] * 2)))
        mean, relay, below = (
            mean_of(some, previous, trim) for some in (order[:first], order[first:second], order[second:])
        )
        relay.merge(below)
        mean.merge(relay)
        assert_equal(mean.result(extrapolates=extrapolates), expected)


@settings(max_examples=20)
@given(data=st.data(), seed=Seeds, num_samples=NumSamples)
def test_uncovered_entries_are_bit_identical_and_covered_ones_are_the_weighted_mean(
    spaces, data: st.DataObject, seed: int, num_samples: list[int]
) -> None:
    """Eq. 5 entry by entry, over the clients whose mask has the entry."""
    layout = Layout(data.draw(spaces), "batch")
    previous, updates = random_weights(layout.shapes, seed), updates_of(layout, num_samples, seed)
    result = aggregate(updates, previous)
    for name, shape in layout.shapes.items():
        total, count = torch.zeros(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64)
        for update, where in updates:
            if name in where:
                mask = rule.coverage({name: shape}, [{name: where[name]}])[name]
                total[mask] += update.num_samples * update.weights[name].double().flatten()
                count[mask] += update.num_samples
        covered = count > 0
        assert torch.equal(result[name][~covered], previous[name][~covered]), name
        expected = (total[covered] / count[covered]).float()
        assert torch.allclose(result[name][covered], expected, rtol=1e-6, atol=2.0**-43), name


@settings(max_examples=15)
@given(data=st.data(), seed=Seeds, num_samples=NumSamples, trim=st.floats(0.01, 0.49))
def test_a_trimmed_mean_is_that_of_the_holders_of_each_entry_without_its_extremes(
    spaces, data: st.DataObject, seed: int, num_samples: list[int], trim: float
) -> None:
    """Entry by entry: the weights of its holders are sorted, the ends cut off, and the rest is averaged by images."""
    layout = Layout(data.draw(spaces), "batch")
    previous, updates = random_weights(layout.shapes, seed), updates_of(layout, num_samples, seed)
    result = mean_of(updates, previous, trim).result()
    for name, shape in layout.shapes.items():
        holders = [
            (update, rule.coverage({name: shape}, [{name: where[name]}])[name])
            for update, where in updates
            if name in where
        ]
        parts = [torch.full(shape, torch.nan, dtype=torch.float64) for _ in holders]
        for part, (update, mask) in zip(parts, holders, strict=True):
            part[mask] = update.weights[name].double().flatten()
        expected = previous[name].flatten().clone()
        for entry in range(expected.numel()):
            held = sorted(
                (part.flatten()[entry].item(), update.num_samples)
                for part, (update, mask) in zip(parts, holders, strict=True)
                if mask.flatten()[entry]
            )
            cut = num_trimmed(len(held), trim)
            if rest := held[cut : len(held) - cut]:
                expected[entry] = sum(weight * count for weight, count in rest) / sum(count for _, count in rest)
        assert torch.allclose(result[name].flatten(), expected, rtol=1e-6, atol=2.0**-42), name


@settings(max_examples=15)
@given(data=st.data(), seed=Seeds, num_samples=st.lists(st.integers(1, 2000), min_size=3, max_size=5))
def test_one_client_of_three_or_more_moves_no_entry_beyond_the_honest_ones(
    spaces, data: st.DataObject, seed: int, num_samples: list[int]
) -> None:
    """Whatever it sends, and however many images it says it has, where all hold an entry."""
    layout = Layout(data.draw(spaces), "batch")
    honest = [random_weights(layout.shapes, seed + client) for client in range(len(num_samples))]
    worst = {name: 64 * torch.sign(tensor) for name, tensor in random_weights(layout.shapes, seed - 1).items()}
    clients = [*zip(num_samples[1:], honest[1:], strict=True), (num_samples[0], worst)]
    updates = [(ClientUpdate(count, 1.0, weights), layout.whole) for count, weights in clients]
    result = mean_of(updates, random_weights(layout.shapes, seed - 2), trim=0.2).result()
    for name in layout.shapes:
        of_honest = torch.stack([weights[name] for weights in honest[1:]])
        lowest, highest = of_honest.amin(0) - 2.0**-42, of_honest.amax(0) + 2.0**-42
        assert bool(((result[name] >= lowest) & (result[name] <= highest)).all()), name


@settings(max_examples=20)
@given(data=st.data(), seed=Seeds, count=st.integers(1, MAX_SAMPLES), scale=Scales)
def test_one_client_on_the_whole_network_is_its_weights(
    spaces, data: st.DataObject, seed: int, count: int, scale: float
) -> None:
    layout = Layout(data.draw(spaces), "parametric")
    weights = {name: scale * tensor for name, tensor in random_weights(layout.shapes, seed).items()}
    update = ClientUpdate(count, 1.0, weights)
    previous = random_weights(layout.shapes, seed + 1)
    assert_rounded(aggregate([(update, layout.whole)], previous), weights)


@settings(max_examples=15)
@given(data=st.data(), seed=Seeds, num_samples=NumSamples)
def test_all_clients_on_the_whole_network_is_fedavg(
    spaces, data: st.DataObject, seed: int, num_samples: list[int]
) -> None:
    """The sum of n_k / n times the weights of client k, computed in numpy."""
    layout = Layout(data.draw(spaces), "batch")
    clients = [random_weights(layout.shapes, seed + client) for client in range(len(num_samples))]
    updates = [
        (ClientUpdate(count, 1.0, weights), layout.whole) for count, weights in zip(num_samples, clients, strict=True)
    ]
    result = aggregate(updates, random_weights(layout.shapes, seed - 1))
    for name in layout.shapes:
        shares = [count / sum(num_samples) for count in num_samples]
        parts = [share * weights[name].numpy().astype(float) for share, weights in zip(shares, clients, strict=True)]
        assert torch.allclose(result[name], torch.from_numpy(sum(parts)).float(), rtol=1e-6, atol=1e-7), name


@settings(max_examples=15)
@given(data=st.data(), seed=Seeds, num_samples=NumSamples, bad=st.floats(0, 1))
def test_update_with_one_number_that_is_not_finite_changes_nothing(
    spaces, data: st.DataObject, seed: int, num_samples: list[int], bad: float
) -> None:
    """Wherever in the update it is."""
    layout = Layout(data.draw(spaces), "batch")
    previous, updates = random_weights(layout.shapes, seed), updates_of(layout, num_samples, seed)
    expected = aggregate(updates, previous)
    ((poisoned, where),) = updates_of(layout, [5], seed + 1)
    flat = [(name, index) for name, tensor in poisoned.weights.items() for index in range(tensor.numel())]
    name, index = flat[int(bad * (len(flat) - 1))]
    poisoned.weights[name].view(-1)[index] = float("nan")
    mean = CoverageMean(previous, MAX_SAMPLES)
    reasons = [mean.add(update, part) for update, part in [*updates, (poisoned, where)]]
    assert reasons == [None] * len(updates) + [f"tensor {name} is not finite"]
    assert_equal(mean.result(), expected)
