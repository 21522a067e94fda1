"""The trimmed mean over coverage, by hand. Its laws are in tests/property."""

import itertools

import pytest
import torch

from fedsup_deploy.federation.jobs.train import ClientUpdate
from fedsup_deploy.federation.server.aggregation import CoverageMean
from fedsup_deploy.federation.server.trimmed_mean import TrimmedMean, num_trimmed
from fedsup_deploy.supernet import slices as rule

PREVIOUS = {"w": torch.full((1, 3), 7.0)}
MAX_SAMPLES, MAX_CLIENTS = 100, 6


def update(num_samples: int, *w: float) -> tuple[ClientUpdate, rule.Slices]:
    """Return an update of a client that holds the first entries."""
    return ClientUpdate(num_samples, 1.0, {"w": torch.tensor([w])}), {"w": (slice(0, 1), slice(0, len(w)))}


def mean_of(*updates: tuple[ClientUpdate, rule.Slices], trim: float = 0.2) -> TrimmedMean:
    mean = TrimmedMean(PREVIOUS, MAX_SAMPLES, MAX_CLIENTS, trim)
    assert [mean.add(*each) for each in updates] == [None] * len(updates)
    return mean


@pytest.mark.parametrize(
    ("trim", "of_holders"),
    [
        (0.2, [0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2, 3]),
        (0.01, [0, 0, 0, 1, 1, 1, 1]),
        (0.499, [0, 0, 0, 1, 1, 2, 2, 3, 3]),
        (0.1, [0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2]),
    ],
)
def test_how_many_are_left_out(trim: float, of_holders: list[int]) -> None:
    """Rounded up, but one remains, and of two nobody is left out."""
    assert [num_trimmed(holders, trim) for holders in range(len(of_holders))] == of_holders


def test_of_each_entry_the_largest_and_the_smallest_of_its_holders_is_left_out() -> None:
    """All four hold the first, three the second and two the third: (1 x 2 + 2 x 3) / 3, then the median, then the mean.

    Who is left out of one entry counts for another, and counts by images.
    """
    mean = mean_of(
        update(5, 63.0, 1.0, 1.0), update(1, 2.0, -60.0, 4.0), update(2, 3.0, 2.0), update(9, -63.0), trim=0.25
    )
    torch.testing.assert_close(mean.result()["w"], torch.tensor([[8 / 3, 1.0, 9 / 6]]))


def test_one_or_two_holders_are_averaged_and_nobody_is_no_change() -> None:
    assert mean_of(update(3, 1.0, 5.0), update(1, 9.0)).result()["w"].tolist() == [[3.0, 5.0, 7.0]]


def test_of_equal_weights_any_is_left_out_with_its_images() -> None:
    """1, 1 and 5: whichever 1 goes, the other remains; and of three equal ones their weight remains."""
    for order in itertools.permutations([update(1, 1.0), update(6, 1.0), update(2, 5.0)]):
        assert mean_of(*order).result()["w"][0, 0].item() == 1.0
    assert mean_of(*[update(count, -2.5) for count in (1, 2, 3)]).result()["w"][0, 0].item() == -2.5


def test_equal_weights_of_other_images_are_left_out_in_any_order_alike() -> None:
    """Of five, with two left out: which of those with 1 / 3 goes decides how much the other ones count."""
    updates = [update(*each) for each in ((1, 1 / 3), (7, 1 / 3), (2, 1 / 7), (3, 1 / 3), (5, 0.9), (4, -1 / 9))]
    found = {mean_of(*order).result(extrapolates=True)["w"][0, 0].item() for order in itertools.permutations(updates)}
    assert len(found) == 1


@pytest.mark.parametrize("weight", [0.0, -0.0, 64.0, -64.0, 1e-38, -1e-38, 2.0**-42])
def test_whatever_weight_is_in_the_middle_is_found(weight: float) -> None:
    lower, upper = torch.nextafter(torch.tensor([weight, weight]), torch.tensor([-65.0, 65.0])).clamp(-64, 64).tolist()
    found = mean_of(update(2, upper), update(1, weight), update(3, lower), trim=0.4).result()["w"][0, 0].item()
    alone = CoverageMean(PREVIOUS, MAX_SAMPLES)
    assert alone.add(*update(1, weight)) is None
    assert found == alone.result()["w"][0, 0].item()


def test_how_far_the_server_goes_is_that_of_those_who_remain() -> None:
    """Both beyond go; the two others move 1 and -1/2 of 1 image each: 5/8 to the square of 1/4 twice is 5."""
    mean = mean_of(*(update(1, 7 + move) for move in (1.0, -0.5, 8.0, -8.0)))
    assert mean.result()["w"][0, 0].item() == 7.25
    assert mean.result(extrapolates=True)["w"][0, 0].item() == 7 + 0.25 * 5


def test_updates_may_be_added_up_elsewhere() -> None:
    updates = [update(n, n / 3, -n / 7) for n in (1, 2, 3, 4, 5)]
    expected = mean_of(*updates).result(extrapolates=True)["w"]
    for split in range(6):
        mean, relay = mean_of(*updates[:split]), mean_of(*updates[split:])
        mean.merge(relay)
        assert torch.equal(mean.result(extrapolates=True)["w"], expected)
    with pytest.raises(ValueError, match="expected one that leaves out as many"):
        mean_of().merge(CoverageMean(PREVIOUS, MAX_SAMPLES))
    with pytest.raises(ValueError, match="expected one that leaves out as many"):
        mean_of().merge(mean_of(trim=0.4))


@pytest.mark.parametrize("sign", [1, -1])
def test_no_sum_overflows_however_large_the_weights_and_the_round(sign: int) -> None:
    most = 2**31 - 1
    mean = TrimmedMean({"w": torch.full((1, 3), -64.0 * sign)}, 3 * most, 3, 0.2)
    for weight in (64.0, 64.0, -64.0):
        assert mean.add(*update(most, *[sign * weight] * 3)) is None
    assert mean.result(extrapolates=True)["w"].tolist() == [[sign * 64.0] * 3]


def test_nobody_has_more_images_than_are_kept_beside_a_weight() -> None:
    mean = TrimmedMean(PREVIOUS, 2**40, 3, 0.2)
    assert mean.add(*update(2**31, 1.0)) == "no images, or more than a round has"
    assert mean.add(*update(2**31 - 1, 1.0)) is None


def test_what_is_kept_of_an_entry_is_what_is_stated() -> None:
    """For ten clients and a fifth of them two of either side, whoever holds it: 4 + 16 x 2 bytes."""
    previous = {"w": torch.zeros(50, 20), "b": torch.zeros(7)}
    mean = TrimmedMean(previous, 100, 10, 0.2)
    weights = ClientUpdate(1, 1.0, {"w": torch.ones(5, 20)})
    for _ in range(10):
        assert mean.add(weights, {"w": (slice(0, 5), slice(0, 20))}) is None
    assert mean.extra_bytes == 36 * 50 * 20


def test_a_result_can_be_asked_for_again() -> None:
    mean = mean_of(*(update(n, n / 3, 2.0) for n in (1, 2, 3)))
    before = mean.result()["w"]
    assert mean.add(*update(4, 9.0)) is None
    assert not torch.equal(mean.result()["w"], before)
    assert torch.equal(mean.result()["w"], mean.result()["w"])
