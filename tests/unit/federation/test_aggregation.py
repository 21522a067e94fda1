"""The coverage-weighted mean, eq. 5, by hand. The laws are in tests/property."""

import dataclasses
import itertools

import pytest
import torch

from fedsup_deploy.federation.jobs.train import ClientUpdate
from fedsup_deploy.federation.server.aggregation import CoverageMean
from fedsup_deploy.supernet import slices as rule

WHOLE: rule.Slices = {"w": (slice(0, 2), slice(0, 3)), "b": (slice(0, 2),)}
PART: rule.Slices = {"w": (slice(0, 1), slice(0, 2))}
PREVIOUS = {"w": torch.full((2, 3), 7.0), "b": torch.full((2,), 7.0)}
MAX_SAMPLES = 10
NO_IMAGES = "no images, or more than a round has"


def update(num_samples: int, w: list[list[float]], b: list[float] | None = None, loss: float = 1.0) -> ClientUpdate:
    weights = {"w": torch.tensor(w)} | ({} if b is None else {"b": torch.tensor(b)})
    return ClientUpdate(num_samples, loss, weights)


GOOD = update(3, [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], [1.0, 2.0])


def test_entries_are_averaged_over_the_clients_that_hold_them() -> None:
    """The corner [0, :2] is held by both: (3 x 1 + 1 x 9) / 4 = 3 and (3 x 2 + 1 x 10) / 4 = 4."""
    mean = CoverageMean(PREVIOUS, MAX_SAMPLES)
    assert mean.add(GOOD, WHOLE) is None
    assert mean.add(update(1, [[9.0, 10.0]]), PART) is None
    result = mean.result()
    assert result["w"].tolist() == [[3.0, 4.0, 3.0], [4.0, 5.0, 6.0]]
    assert result["b"].tolist() == [1.0, 2.0]


def test_updates_may_be_added_up_elsewhere() -> None:
    """The same numbers, of which one client's come by way of another sum."""
    mean, relay = (CoverageMean(PREVIOUS, MAX_SAMPLES) for _ in range(2))
    assert relay.add(update(1, [[9.0, 10.0]]), PART) is None
    assert mean.add(GOOD, WHOLE) is None
    mean.merge(relay)
    result = mean.result()
    assert result["w"].tolist() == [[3.0, 4.0, 3.0], [4.0, 5.0, 6.0]]
    assert result["b"].tolist() == [1.0, 2.0]
    assert relay.result()["w"].tolist() == [[9.0, 10.0, 7.0], [7.0, 7.0, 7.0]]


def test_what_was_added_up_elsewhere_counts_as_images_of_this_round() -> None:
    """Of 10 images 3 + 3 are there already."""
    mean, relay = (CoverageMean(PREVIOUS, MAX_SAMPLES) for _ in range(2))
    relay.add(GOOD, WHOLE)
    mean.add(GOOD, WHOLE)
    mean.merge(relay)
    assert mean.add(update(5, [[1.0, 2.0]]), PART) == NO_IMAGES
    assert mean.add(update(4, [[1.0, 2.0]]), PART) is None


def test_entries_nobody_holds_keep_their_value() -> None:
    mean = CoverageMean(PREVIOUS, MAX_SAMPLES)
    mean.add(update(5, [[1.0, 2.0]]), PART)
    result = mean.result()
    assert result["w"].tolist() == [[1.0, 2.0, 7.0], [7.0, 7.0, 7.0]]
    assert result["b"].tolist() == [7.0, 7.0]
    assert result["w"].dtype == torch.float32


def test_the_server_goes_beyond_the_average_where_clients_disagree() -> None:
    """Moves of 1 and -1/2 along two axes: half their mean square is 5/4 / 4 = 5/16, the average's is 1/4 + 1/16.

    With a third that stays, half the mean square is 5/24 and the average's 1/9 + 1/36 = 5/36: 3/2 of it.
    """
    start, far, near = {"w": torch.zeros(2, 1)}, [[1.0], [0.0]], [[0.0], [-0.5]]
    whole = {"w": (slice(0, 2), slice(0, 1))}
    for moves, factor in (((far, near), 1.0), ((far, near, [[0.0], [0.0]]), 1.5), ((far,), 1.0), ((), 1.0)):
        mean = CoverageMean(start, MAX_SAMPLES)
        assert [mean.add(update(1, w), whole) for w in moves] == [None] * len(moves)
        average = mean.result()["w"]
        torch.testing.assert_close(mean.result(extrapolates=True)["w"], factor * average)


def test_a_move_of_more_than_eight_counts_as_eight_for_how_far_the_server_goes() -> None:
    """Moves of 16 and -8 average 4. Half the mean of 64 and 64 is twice its square; of 256 and 64 five times."""
    mean = CoverageMean({"w": torch.zeros(1, 1)}, MAX_SAMPLES)
    for move in (16.0, -8.0):
        assert mean.add(update(1, [[move]]), {"w": (slice(0, 1), slice(0, 1))}) is None
    assert mean.result(extrapolates=True)["w"].tolist() == [[8.0]]


def test_how_far_the_server_goes_is_another_matter_of_what_only_some_clients_hold() -> None:
    """All three hold the first row and disagree, so from 7 it goes 1.5 times as far; two hold the rest and agree."""
    mean = CoverageMean({"w": torch.full((2, 2), 7.0)}, MAX_SAMPLES)
    first, both = {"w": (slice(0, 1), slice(0, 2))}, {"w": (slice(0, 2), slice(0, 2))}
    mean.add(update(1, [[7.0, 7.0]]), first)
    mean.add(update(1, [[8.0, 7.0], [6.5, 6.5]]), both)
    mean.add(update(1, [[7.0, 6.5], [6.5, 6.5]]), both)
    result = mean.result(extrapolates=True)
    torch.testing.assert_close(result["w"], torch.tensor([[7.5, 6.75], [6.5, 6.5]]))


def test_entries_nobody_holds_do_not_count_for_how_far_the_server_goes() -> None:
    mean = CoverageMean(PREVIOUS, MAX_SAMPLES)
    for w in ([8.0, 7.0], [7.0, 6.5], [7.0, 7.0]):
        mean.add(update(1, [w]), PART)
    result = mean.result(extrapolates=True)
    torch.testing.assert_close(result["w"], torch.tensor([[7.5, 6.75, 7.0], [7.0, 7.0, 7.0]]))
    assert torch.equal(result["b"], PREVIOUS["b"])


def test_no_update_changes_nothing() -> None:
    result = CoverageMean(PREVIOUS, MAX_SAMPLES).result()
    assert all(torch.equal(result[name], tensor) for name, tensor in PREVIOUS.items())


def test_previous_weights_and_updates_are_left_alone() -> None:
    previous = {name: tensor.clone() for name, tensor in PREVIOUS.items()}
    mean = CoverageMean(previous, MAX_SAMPLES)
    mean.add(GOOD, WHOLE)
    result = mean.result()
    result["b"].fill_(99.0)
    assert all(torch.equal(previous[name], PREVIOUS[name]) for name in PREVIOUS)
    assert GOOD.weights["b"].tolist() == [1.0, 2.0]


def test_small_weights_are_rounded_and_others_are_exact() -> None:
    """In a round of 10,000 images: 2e-6 and more are exact, 2^-42 is a whole multiple, and 2^-45 rounds to nothing."""
    values = [2e-6, -2e-6, 1 / 3, -63.9, 2.0**-42, 2.0**-45]
    mean = CoverageMean({"w": torch.ones(1, 6)}, 10_000)
    assert mean.add(update(7, [values]), {"w": (slice(0, 1), slice(0, 6))}) is None
    assert mean.result()["w"].tolist() == [[*torch.tensor(values)[:5].tolist(), 0.0]]


@pytest.mark.parametrize("max_samples", [1, 2, 3, 127, 128, 10_000, 2**20 - 1, 2**31])
@pytest.mark.parametrize("sign", [1, -1])
def test_no_sum_overflows_however_large_the_weights_and_the_round(max_samples: int, sign: int) -> None:
    """The largest weight there may be, with the whole round's images, and the largest move."""
    mean = CoverageMean({"w": torch.full((1, 1), -sign * 64.0)}, max_samples)
    assert mean.add(update(max_samples, [[sign * 64.0]]), {"w": (slice(0, 1), slice(0, 1))}) is None
    for extrapolates in (False, True):
        assert mean.result(extrapolates=extrapolates)["w"].item() == sign * 64.0


BAD = {
    "no samples": (dataclasses.replace(GOOD, num_samples=0), NO_IMAGES),
    "fewer than no samples": (dataclasses.replace(GOOD, num_samples=-3), NO_IMAGES),
    "more samples than the round has left": (dataclasses.replace(GOOD, num_samples=8), NO_IMAGES),
    "loss": (dataclasses.replace(GOOD, loss=float("nan")), "loss is not finite"),
    "loss before": (dataclasses.replace(GOOD, loss_before=float("inf")), "loss before training is not finite"),
    "absurd loss": (dataclasses.replace(GOOD, loss=-1e7), "loss is beyond 1e+06"),
    "missing tensor": (update(1, [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), "other tensors than it was sent"),
    "extra tensor": (
        dataclasses.replace(GOOD, weights={**GOOD.weights, "x": torch.zeros(1)}),
        "other tensors than it was sent",
    ),
    "wrong shape": (update(1, [[1.0, 2.0]], [1.0, 2.0]), "tensor w is (1, 2) torch.float32"),
    "shape that broadcasts": (update(1, [[1.0]], [1.0, 2.0]), "tensor w is (1, 1) torch.float32"),
    "other type": (
        dataclasses.replace(GOOD, weights={name: tensor.double() for name, tensor in GOOD.weights.items()}),
        "tensor w is (2, 3) torch.float64",
    ),
    "not a number": (update(1, [[1.0, 2.0, 3.0], [4.0, float("nan"), 6.0]], [1.0, 2.0]), "tensor w is not finite"),
    "infinite": (update(1, [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], [float("-inf"), 2.0]), "tensor b is not finite"),
    "too large": (
        update(1, [[1.0, 2.0, 3.0], [4.0, -64.5, 6.0]], [1.0, 2.0]),
        "tensor w has a weight beyond 64",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_update_is_rejected_and_changes_nothing(name: str) -> None:
    bad, reason = BAD[name]
    mean = CoverageMean(PREVIOUS, MAX_SAMPLES)
    mean.add(GOOD, WHOLE)
    before = [mean.result(extrapolates=extrapolates) for extrapolates in (False, True)]
    assert mean.add(bad, WHOLE) == reason
    after = [mean.result(extrapolates=extrapolates) for extrapolates in (False, True)]
    for first, second in zip(before, after, strict=True):
        assert all(torch.equal(first[tensor], second[tensor]) for tensor in PREVIOUS)
    assert mean.add(dataclasses.replace(GOOD, num_samples=7), WHOLE) is None


def test_update_of_another_part_than_was_sent_is_rejected() -> None:
    assert CoverageMean(PREVIOUS, MAX_SAMPLES).add(GOOD, PART) == "other tensors than it was sent"


def test_order_and_relays_change_no_bit_of_thirds() -> None:
    """Where sums of floats would: three clients of 1, 2 and 3 images whose weights are no sums of halves."""
    whole = {"w": (slice(0, 1), slice(0, 2))}
    updates = [update(n, [[n / 3, -n / 7]]) for n in (1, 2, 3)]
    results = set()
    for order in itertools.permutations(updates):
        for relayed in range(4):
            mean, relay = (CoverageMean({"w": torch.full((1, 2), 0.1)}, 6) for _ in range(2))
            for index, each in enumerate(order):
                assert (relay if index < relayed else mean).add(each, whole) is None
            mean.merge(relay)
            results.add(tuple(mean.result(extrapolates=True)["w"].flatten().tolist()))
    assert len(results) == 1
