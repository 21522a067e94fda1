"""Laws of the server's average, on random spaces, assignments and updates."""

import itertools

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedsup_deploy import rng
from fedsup_deploy.federated.aggregation import CoverageMean
from fedsup_deploy.federated.tasks import ClientUpdate
from fedsup_deploy.space import sampling
from fedsup_deploy.supernet import slices as rule
from fedsup_deploy.supernet.layout import Layout

Seeds = st.integers(0, 2**32)
NumSamples = st.lists(st.integers(1, 10_000), min_size=1, max_size=5)
Weights = dict[str, Tensor]


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
        updates.append((ClientUpdate(client, count, 1.0, weights), where))
    return updates


def aggregate(layout: Layout, updates: list[tuple[ClientUpdate, rule.Slices]], previous: Weights) -> Weights:
    mean = CoverageMean(layout.shapes)
    assert [mean.add(update, where) for update, where in updates] == [None] * len(updates)
    return mean.result(previous)


def assert_equal(found: Weights, expected: Weights) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


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


@settings(max_examples=20)
@given(data=st.data(), seed=Seeds, num_samples=NumSamples)
def test_equal_updates_come_back_exactly_whatever_their_weights_and_parts(
    spaces, data: st.DataObject, seed: int, num_samples: list[int]
) -> None:
    layout = Layout(data.draw(spaces), "batch")
    weights = random_weights(layout.shapes, seed)
    assert_equal(aggregate(layout, updates_of(layout, num_samples, seed, weights), weights), weights)


@settings(max_examples=15)
@given(data=st.data(), seed=Seeds, num_samples=NumSamples)
def test_order_of_clients_does_not_matter(spaces, data: st.DataObject, seed: int, num_samples: list[int]) -> None:
    layout = Layout(data.draw(spaces), "batch")
    previous, updates = random_weights(layout.shapes, seed), updates_of(layout, num_samples, seed)
    expected = aggregate(layout, updates, previous)
    for order in itertools.islice(itertools.permutations(updates), 1, 24, 5):
        for name, tensor in aggregate(layout, list(order), previous).items():
            assert torch.allclose(tensor, expected[name], rtol=1e-6, atol=1e-6), name


@settings(max_examples=20)
@given(data=st.data(), seed=Seeds, num_samples=NumSamples)
def test_uncovered_entries_are_bit_identical_and_covered_ones_are_the_weighted_mean(
    spaces, data: st.DataObject, seed: int, num_samples: list[int]
) -> None:
    """Eq. 5 entry by entry, over the clients whose mask has the entry."""
    layout = Layout(data.draw(spaces), "batch")
    previous, updates = random_weights(layout.shapes, seed), updates_of(layout, num_samples, seed)
    result = aggregate(layout, updates, previous)
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
        assert torch.allclose(result[name][covered], expected, rtol=1e-6, atol=0), name


@settings(max_examples=15)
@given(data=st.data(), seed=Seeds, count=st.integers(1, 10_000))
def test_one_client_on_the_whole_network_is_its_weights(spaces, data: st.DataObject, seed: int, count: int) -> None:
    layout = Layout(data.draw(spaces), "parametric")
    weights = random_weights(layout.shapes, seed)
    update = ClientUpdate(0, count, 1.0, weights)
    assert_equal(aggregate(layout, [(update, layout.whole)], random_weights(layout.shapes, seed + 1)), weights)


@settings(max_examples=15)
@given(data=st.data(), seed=Seeds, num_samples=NumSamples)
def test_all_clients_on_the_whole_network_is_fedavg(
    spaces, data: st.DataObject, seed: int, num_samples: list[int]
) -> None:
    """The sum of n_k / n times the weights of client k, computed in numpy."""
    layout = Layout(data.draw(spaces), "batch")
    clients = [random_weights(layout.shapes, seed + client) for client in range(len(num_samples))]
    updates = [
        (ClientUpdate(client, count, 1.0, weights), layout.whole)
        for client, (count, weights) in enumerate(zip(num_samples, clients, strict=True))
    ]
    result = aggregate(layout, updates, random_weights(layout.shapes, seed - 1))
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
    expected = aggregate(layout, updates, previous)
    ((poisoned, where),) = updates_of(layout, [5], seed + 1)
    flat = [(name, index) for name, tensor in poisoned.weights.items() for index in range(tensor.numel())]
    name, index = flat[int(bad * (len(flat) - 1))]
    poisoned.weights[name].view(-1)[index] = float("nan")
    mean = CoverageMean(layout.shapes)
    reasons = [mean.add(update, part) for update, part in [*updates, (poisoned, where)]]
    assert reasons == [None] * len(updates) + [f"tensor {name} is not finite"]
    assert_equal(mean.result(previous), expected)
