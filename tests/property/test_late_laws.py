"""Laws of late updates, on random spaces, updates and orders of arrival."""

import itertools

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedsup_deploy import rng
from fedsup_deploy.federation.jobs.train import ClientUpdate
from fedsup_deploy.federation.server.aggregation import CoverageMean, as_if_in_time
from fedsup_deploy.federation.server.late import MOST_ROUNDS_LATE, staleness_weight
from fedsup_deploy.space import sampling
from fedsup_deploy.supernet import slices as rule
from fedsup_deploy.supernet.layout import Layout

MAX_SAMPLES = 10_000
Seeds = st.integers(0, 2**32)
NumSamples = st.lists(st.integers(1, MAX_SAMPLES // 5), min_size=1, max_size=5)
Weights = dict[str, Tensor]


def random_weights(shapes: rule.Shapes, seed: int) -> Weights:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


class Late:
    """An update of a random subnet, and what it began with: weights of an earlier round."""

    def __init__(self, layout: Layout, num_samples: int, seed: int) -> None:
        generator = rng.generator(seed)
        self.where = layout.slices(sampling.random_architecture(layout.space, generator))
        self.began_with = dict(rule.gather(random_weights(layout.shapes, seed), self.where))
        moved = rule.gather(random_weights(layout.shapes, seed + 1), self.where)
        self.move = {name: 0.1 * tensor for name, tensor in moved.items()}
        weights = {name: self.began_with[name] + self.move[name] for name in self.where}
        self.update = ClientUpdate(num_samples, 1.0, weights)


@settings(max_examples=15)
@given(data=st.data(), seed=Seeds, num_samples=NumSamples, weight=st.floats(0.01, 1.0))
def test_the_order_in_which_updates_are_added_changes_no_bit(
    spaces, data: st.DataObject, seed: int, num_samples: list[int], weight: float
) -> None:
    """Of late ones, and of those in time among them."""
    layout = Layout(data.draw(spaces), "batch")
    previous = random_weights(layout.shapes, seed)
    updates = [Late(layout, count, seed + 10 * index) for index, count in enumerate(num_samples)]
    is_late = data.draw(st.lists(st.booleans(), min_size=len(updates), max_size=len(updates)))
    results = []
    for order in (range(len(updates)), data.draw(st.permutations(range(len(updates))))):
        mean = CoverageMean(previous, MAX_SAMPLES)
        for index in order:
            each = updates[index]
            if is_late[index]:
                assert (
                    mean.add(as_if_in_time(each.update, each.where, each.began_with, previous, weight), each.where)
                    is None
                )
            else:
                assert mean.add(each.update, each.where) is None
        results.append(mean.result())
    assert all(torch.equal(results[0][name], results[1][name]) for name in previous)


@settings(max_examples=15)
@given(data=st.data(), seed=Seeds, num_samples=NumSamples, weight=st.floats(0.01, 1.0))
def test_the_average_is_that_of_moves_each_times_its_weight(
    spaces, data: st.DataObject, seed: int, num_samples: list[int], weight: float
) -> None:
    """W_i + sum of n_k weight (w_ki - V_i) / sum of n_k over those that hold i; nothing where nobody does."""
    layout = Layout(data.draw(spaces), "batch")
    previous = random_weights(layout.shapes, seed)
    mean = CoverageMean(previous, MAX_SAMPLES)
    total = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in layout.shapes.items()}
    count = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in layout.shapes.items()}
    for index, num in enumerate(num_samples):
        each = Late(layout, num, seed + 10 * index)
        assert mean.add(as_if_in_time(each.update, each.where, each.began_with, previous, weight), each.where) is None
        for name, part in each.where.items():
            total[name][part] += num * weight * each.move[name].double()
            count[name][part] += num
    for name, found in mean.result().items():
        expected = previous[name].double() + total[name] / count[name].clamp(min=1)
        torch.testing.assert_close(found.double(), expected, atol=2e-6, rtol=1e-6)


@settings(max_examples=15)
@given(data=st.data(), seed=Seeds, num_samples=NumSamples)
def test_an_update_that_began_with_the_weights_there_are_is_one_in_time(
    spaces, data: st.DataObject, seed: int, num_samples: list[int]
) -> None:
    """Up to the rounding of W + (w - W)."""
    layout = Layout(data.draw(spaces), "batch")
    previous = random_weights(layout.shapes, seed)
    late, in_time = (CoverageMean(previous, MAX_SAMPLES) for _ in range(2))
    for index, num in enumerate(num_samples):
        each = Late(layout, num, seed + 10 * index)
        assert (
            late.add(
                as_if_in_time(each.update, each.where, rule.gather(previous, each.where), previous, 1.0), each.where
            )
            is None
        )
        assert in_time.add(each.update, each.where) is None
    expected = in_time.result()
    for name, found in late.result().items():
        torch.testing.assert_close(found, expected[name], atol=2e-6, rtol=1e-6)


def test_the_later_the_less_an_update_counts_and_never_nothing() -> None:
    weights = [staleness_weight(rounds) for rounds in range(MOST_ROUNDS_LATE + 1)]
    assert weights[:2] == [1.0, 2**-0.5]
    assert weights[3] == 0.5
    assert all(0 < later < sooner for sooner, later in itertools.pairwise(weights))
