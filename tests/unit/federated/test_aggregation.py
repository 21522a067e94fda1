"""The coverage-weighted mean, eq. 5, by hand. The laws are in tests/property."""

import dataclasses

import pytest
import torch

from fedsup_deploy.federated.aggregation import CoverageMean
from fedsup_deploy.federated.tasks import ClientUpdate
from fedsup_deploy.supernet import slices as rule

SHAPES: rule.Shapes = {"w": (2, 3), "b": (2,)}
WHOLE: rule.Slices = {"w": (slice(0, 2), slice(0, 3)), "b": (slice(0, 2),)}
PART: rule.Slices = {"w": (slice(0, 1), slice(0, 2))}
PREVIOUS = {"w": torch.full((2, 3), 7.0), "b": torch.full((2,), 7.0)}


def update(num_samples: int, w: list[list[float]], b: list[float] | None = None, loss: float = 1.0) -> ClientUpdate:
    weights = {"w": torch.tensor(w)} | ({} if b is None else {"b": torch.tensor(b)})
    return ClientUpdate(0, num_samples, loss, weights)


GOOD = update(3, [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], [1.0, 2.0])


def test_entries_are_averaged_over_the_clients_that_hold_them() -> None:
    """The corner [0, :2] is held by both: (3 x 1 + 1 x 9) / 4 = 3 and (3 x 2 + 1 x 10) / 4 = 4."""
    mean = CoverageMean(SHAPES)
    assert mean.add(GOOD, WHOLE) is None
    assert mean.add(update(1, [[9.0, 10.0]]), PART) is None
    result = mean.result(PREVIOUS)
    assert result["w"].tolist() == [[3.0, 4.0, 3.0], [4.0, 5.0, 6.0]]
    assert result["b"].tolist() == [1.0, 2.0]


def test_entries_nobody_holds_keep_their_value() -> None:
    mean = CoverageMean(SHAPES)
    mean.add(update(5, [[1.0, 2.0]]), PART)
    result = mean.result(PREVIOUS)
    assert result["w"].tolist() == [[1.0, 2.0, 7.0], [7.0, 7.0, 7.0]]
    assert result["b"].tolist() == [7.0, 7.0]
    assert result["w"].dtype == torch.float32


def test_the_server_goes_beyond_the_average_where_clients_disagree() -> None:
    """Moves of 10 and -6 along two axes: half their mean square is (100 + 36) / 4 = 34, the average's is 25 + 9."""
    start, far, near = {"w": torch.zeros(2, 1)}, [[10.0], [0.0]], [[0.0], [-6.0]]
    whole = {"w": (slice(0, 2), slice(0, 1))}
    for moves, factor in (((far, near), 1.0), ((far, near, [[0.0], [0.0]]), 1.5), ((far,), 1.0), ((), 1.0)):
        mean = CoverageMean({"w": (2, 1)})
        assert [mean.add(update(1, w), whole) for w in moves] == [None] * len(moves)
        average = mean.result(start)["w"]
        torch.testing.assert_close(mean.result(start, extrapolates=True)["w"], factor * average)


def test_how_far_the_server_goes_is_another_matter_of_what_only_some_clients_hold() -> None:
    """All three hold the first row and disagree, so from 7 it goes 1.5 times as far; two hold the rest and agree."""
    mean = CoverageMean({"w": (2, 2)})
    first, both = {"w": (slice(0, 1), slice(0, 2))}, {"w": (slice(0, 2), slice(0, 2))}
    mean.add(update(1, [[7.0, 7.0]]), first)
    mean.add(update(1, [[8.0, 7.0], [5.0, 5.0]]), both)
    mean.add(update(1, [[7.0, 9.0], [5.0, 5.0]]), both)
    result = mean.result({"w": torch.full((2, 2), 7.0)}, extrapolates=True)
    torch.testing.assert_close(result["w"], torch.tensor([[7.5, 8.0], [5.0, 5.0]]))


def test_entries_nobody_holds_do_not_count_for_how_far_the_server_goes() -> None:
    mean = CoverageMean(SHAPES)
    mean.add(update(1, [[8.0, 7.0]]), PART)
    mean.add(update(1, [[7.0, 9.0]]), PART)
    mean.add(update(1, [[7.0, 7.0]]), PART)
    result = mean.result(PREVIOUS, extrapolates=True)
    torch.testing.assert_close(result["w"], torch.tensor([[7.5, 8.0, 7.0], [7.0, 7.0, 7.0]]))
    assert torch.equal(result["b"], PREVIOUS["b"])


def test_no_update_changes_nothing() -> None:
    result = CoverageMean(SHAPES).result(PREVIOUS)
    assert all(torch.equal(result[name], PREVIOUS[name]) for name in SHAPES)


def test_previous_weights_and_updates_are_left_alone() -> None:
    previous = {name: tensor.clone() for name, tensor in PREVIOUS.items()}
    mean = CoverageMean(SHAPES)
    mean.add(GOOD, WHOLE)
    result = mean.result(previous)
    result["b"].fill_(99.0)
    assert all(torch.equal(previous[name], PREVIOUS[name]) for name in SHAPES)
    assert GOOD.weights["b"].tolist() == [1.0, 2.0]


BAD = {
    "no samples": (dataclasses.replace(GOOD, num_samples=0), "0 samples"),
    "fewer than no samples": (dataclasses.replace(GOOD, num_samples=-3), "-3 samples"),
    "loss": (dataclasses.replace(GOOD, loss=float("nan")), "loss is nan"),
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
}


@pytest.mark.parametrize("name", BAD)
def test_bad_update_is_rejected_and_changes_nothing(name: str) -> None:
    bad, reason = BAD[name]
    mean = CoverageMean(SHAPES)
    mean.add(GOOD, WHOLE)
    before = mean.result(PREVIOUS)
    assert mean.add(bad, WHOLE) == reason
    after = mean.result(PREVIOUS)
    assert all(torch.equal(before[tensor], after[tensor]) for tensor in SHAPES)


def test_update_of_another_part_than_was_sent_is_rejected() -> None:
    assert CoverageMean(SHAPES).add(GOOD, PART) == "other tensors than it was sent"
