"""Updates that have moved far, by hand: what is usual, who waits, who is rejected, what is shortened."""

import dataclasses
import itertools
from collections.abc import Sequence

import pytest
import torch

from fedsup_deploy.federation.jobs.train import ClientUpdate, LocalTraining
from fedsup_deploy.federation.server import norms
from fedsup_deploy.federation.server.aggregation import CoverageMean
from fedsup_deploy.federation.server.norms import NormGate, NormLimits, Norms, norm_of, reach
from fedsup_deploy.supernet import slices as rule

#: One step, whatever its images.
TRAINING = LocalTraining(1, 1_000, 0.9, 0.0, None, has_logit_adjustment=False)
#: One entry, so that a client's norm at a learning rate of 1 is what it moves.
WHERE: rule.Slices = {"w": (slice(0, 1), slice(0, 1))}
PREVIOUS = {"w": torch.full((1, 1), 7.0)}
TOO_FAR = "its update has moved more than 10 times as far as usual"


def update(move: float, num_samples: int = 1) -> ClientUpdate:
    return ClientUpdate(num_samples, 1.0, {"w": PREVIOUS["w"] + move})


def play(
    moves: Sequence[float], limits: NormLimits, before: Norms = (), rate: float = 1.0
) -> tuple[NormGate, dict[int, str], float]:
    """Return the gate after updates of clients 0, 1, ..., who is rejected, and where the average goes."""
    mean = CoverageMean(PREVIOUS, 100)
    gate = NormGate(mean, PREVIOUS, limits, before, len(moves), TRAINING, rate)
    for client, move in enumerate(moves):
        assert gate.add(client, update(move), WHERE) is None
    rejected = gate.close()
    return gate, rejected, mean.result()["w"].item()


def test_a_norm_is_the_root_of_the_mean_square_of_moves_over_how_far_steps_lead() -> None:
    """Of 3, 4 and 0 and of 0, 0: the root of 25 / 5, over 0.1. What a client was not sent does not count."""
    previous = {"a": torch.ones(3, 2), "b": torch.ones(2), "c": torch.ones(9)}
    where = {"a": (slice(0, 3), slice(0, 1)), "b": (slice(0, 2),)}
    weights = {"a": torch.tensor([[4.0], [5.0], [1.0]]), "b": torch.ones(2)}
    assert norm_of(ClientUpdate(1, 1.0, weights), previous, where, 0.1) == pytest.approx(10 * 5**0.5)


def test_what_waits_is_dropped_where_a_round_breaks_off() -> None:
    gate = NormGate(CoverageMean(PREVIOUS, 100), PREVIOUS, NormLimits(10.0), (), 4, TRAINING, 1.0)
    assert gate.add(0, update(1.0), WHERE) is None
    gate.drop()
    with pytest.raises(ValueError, match="closed file"):
        gate.close()


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_steps_lead_as_far_as_those_of_sgd_with_gradients_of_one(momentum: float) -> None:
    """Two passes over 25 images, ten in a step: six steps, the first of them without momentum."""
    weight = torch.zeros(1, requires_grad=True)
    sgd = torch.optim.SGD([weight], lr=0.1, momentum=momentum)
    for _ in range(6):
        weight.grad = torch.ones(1)
        sgd.step()
    training = dataclasses.replace(TRAINING, epochs=2, batch_size=10, momentum=momentum)
    assert reach(25, training, 0.1) == pytest.approx(-weight.item())


def test_a_client_with_many_images_may_move_far() -> None:
    """As its many steps lead there; with few images nobody comes there honestly."""
    training = dataclasses.replace(TRAINING, batch_size=1)
    for num_samples, is_rejected in ((40, False), (1, True)):
        mean = CoverageMean(PREVIOUS, 100)
        gate = NormGate(mean, PREVIOUS, NormLimits(rejected=10.0), (), 4, training, 1.0)
        for client in range(3):
            assert gate.add(client, update(0.5), WHERE) is None
        assert gate.add(3, update(20.0, num_samples), WHERE) is None
        assert (gate.close() != {}) is is_rejected


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_an_update_of_more_than_ten_times_the_median_is_rejected(sign: float) -> None:
    """Of 1, 2, 3 and what is far the median is 2.5."""
    limits = NormLimits(rejected=10.0)
    assert play([1.0, 2.0, 3.0, sign * 25.0], limits)[1] == {}
    _, rejected, average = play([1.0, 2.0, 3.0, sign * 25.5], limits)
    assert rejected == {3: TOO_FAR}
    assert average == 9.0


def test_the_rounds_before_count_too() -> None:
    """So of a round in which most are far all those are rejected, and who is rejected is not compared with later."""
    limits, before = NormLimits(rejected=10.0), ((1.0, 1.0), (1.0,), (1.0, 1.0))
    gate, rejected, average = play([30.0, 2.0, 30.0], limits, before)
    assert rejected == {0: TOO_FAR, 2: TOO_FAR}
    assert average == 9.0
    assert gate.norms == ((1.0,), (1.0, 1.0), (2.0,))


#: Norms of ten clients.
DIFFERENT = (0.25, 0.4, 0.45, 0.5, 0.8, 1.25, 2.0, 2.2, 2.5, 4.0)


def test_where_clients_differ_much_more_is_usual() -> None:
    """Half are within a factor of 2.2 of the median, 1.1: three standard deviations of logarithms are one of 33.3."""
    limits = NormLimits(rejected=10.0)
    assert play([36.0, 0.9, 1.1], limits, (DIFFERENT,) * 3)[1] == {}
    told = "its update has moved more than 33.3 times as far as usual"
    assert play([37.0, 0.9, 1.1], limits, (DIFFERENT,) * 3)[1] == {0: told}
    alike = tuple(norm**0.1 for norm in DIFFERENT)
    assert play([11.0, 0.9, 1.1], limits, (alike,) * 3)[1] == {0: TOO_FAR}


def test_the_square_of_the_limit_is_outrageous_whatever_others_do() -> None:
    """Where norms span eight decades, and where some of them are zero."""
    for before in (tuple(norm**20 for norm in DIFFERENT), (0.0,) * 6 + (1.0,) * 3 + (1e4,) * 3):
        small = tuple(0.1 * norm for norm in before)
        assert play([9.9, 0.1, 0.1], NormLimits(rejected=10.0), (small,))[1] == {}
        assert list(play([10.1, 0.1, 0.1], NormLimits(rejected=10.0), (small,))[1]) == [0]


def test_of_fewer_than_five_norms_nobody_can_tell_how_much_they_differ() -> None:
    assert play([13.0, 1.0, 0.2, 4.0], NormLimits(rejected=5.0))[1] == {0: TOO_FAR.replace("10", "5")}
    assert play([13.0, 1.0, 0.2, 4.0, 1.0], NormLimits(rejected=5.0))[1] == {}


def test_of_longer_ago_none_counts() -> None:
    limits = NormLimits(rejected=10.0)
    assert play([30.0, 2.0, 30.0], limits, ((1.0,) * 99, (2.0,), (), (2.0,)))[1] == {0: TOO_FAR, 2: TOO_FAR}
    assert play([20.0, 2.0, 20.0], limits, ((1.0,) * 99, (2.0,), (), (2.0,)))[1] == {}


def test_a_smaller_step_size_has_smaller_moves() -> None:
    """The same multiple of it is as far, so rounds of a warm-up, and the last ones, are compared with others."""
    before = ((1.0, 1.0, 1.0),)
    assert play([0.02, 0.01, 0.05], NormLimits(rejected=10.0), before, rate=0.01)[1] == {}
    assert play([0.02, 0.01, 0.2], NormLimits(rejected=10.0), before, rate=0.01)[1] == {2: TOO_FAR}


def test_of_two_nobody_can_tell_which_is_outrageous() -> None:
    assert play([1e-6, 50.0], NormLimits(rejected=10.0))[1] == {}
    assert play([1e-6, 50.0], NormLimits(rejected=10.0), ((1e-6,),))[1] == {1: TOO_FAR}


def test_where_most_do_not_move_nobody_is_outrageous() -> None:
    assert play([0.0, 0.0, 0.0, 1.0], NormLimits(rejected=10.0, clipped=1.0))[1:] == ({}, 7.25)


def test_what_has_moved_further_is_shortened() -> None:
    """Of 1, 1, 4 and 8 to twice the median, 5: moves of 1, 1, 4 and 5; and -8 to -5."""
    limits = NormLimits(clipped=2.0)
    assert play([1.0, 1.0, 4.0, 8.0], limits)[1:] == ({}, 7 + 11 / 4)
    assert play([1.0, 1.0, 4.0, -8.0], limits)[1:] == ({}, 7 + 1 / 4)


def test_what_is_rejected_does_not_decide_how_far_others_may_move() -> None:
    """With the 50 the median of 1, 1, 4 were 2.5."""
    limits = NormLimits(rejected=10.0, clipped=2.0)
    assert play([1.0, 1.0, 4.0, 50.0], limits)[1:] == ({3: TOO_FAR}, play([1.0, 1.0, 4.0], limits)[2])


def test_what_is_rejected_does_not_let_others_pass() -> None:
    """Without the 50 the median is 1.25, and 14 is more than ten times that; with it, it were 1.5."""
    alone = play([1.0, 1.0, 1.5, 14.0], NormLimits(rejected=10.0))
    both = play([1.0, 1.0, 1.5, 14.0, 50.0], NormLimits(rejected=10.0))
    assert (alone[1], both[1]) == ({3: TOO_FAR}, {3: TOO_FAR, 4: TOO_FAR})
    assert (alone[0].norms, alone[2]) == (both[0].norms, both[2])


def test_without_limits_nothing_is_measured() -> None:
    gate, rejected, average = play([1.0, 1.0, 1.0, 41.0], norms.NO_LIMITS, ((1.0,) * 9,))
    assert (gate.norms, rejected, average) == ((), {}, 18.0)


def test_what_is_no_update_is_rejected_at_once_and_not_measured() -> None:
    gate = NormGate(CoverageMean(PREVIOUS, 100), PREVIOUS, NormLimits(10.0), (), 4, TRAINING, 1.0)
    assert gate.add(0, dataclasses.replace(update(1.0), loss=float("nan")), WHERE) == "loss is not finite"
    assert gate.close() == {}
    assert gate.norms == ((),)


@pytest.mark.parametrize("kept_bytes", [1, 2**20])
def test_no_order_of_replies_changes_a_bit(kept_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether those that wait are in memory or in a file, and whether anything is known of rounds before."""
    monkeypatch.setattr(norms, "_KEPT_BYTES", kept_bytes)
    moves = (1 / 3, -1 / 7, 2 / 3, 15.0, 0.9)
    for before in ((), ((0.2, 0.3, 0.5, 0.7), (0.1, 0.4))):
        outcomes = set()
        for order in itertools.permutations(enumerate(moves)):
            mean = CoverageMean(PREVIOUS, 100)
            gate = NormGate(mean, PREVIOUS, NormLimits(10.0, 1.5), before, len(moves), TRAINING, 1.0)
            assert [gate.add(client, update(move, 1 + client), WHERE) for client, move in order] == [None] * 5
            rejected = gate.close()
            outcomes.add((mean.result(extrapolates=True)["w"].item(), tuple(rejected), gate.norms))
        assert len(outcomes) == 1
        assert outcomes.pop()[1] == (3,)


def test_only_what_may_be_outrageous_waits() -> None:
    """Of ten in three rounds before each, most updates are added up as they come: 30 norms beside ten unknown ones."""
    mean = CoverageMean(PREVIOUS, 100)
    gate = NormGate(mean, PREVIOUS, NormLimits(rejected=10.0), ((1.0,) * 10,) * 3, 10, TRAINING, 1.0)
    assert gate.add(0, update(10.0), WHERE) is None
    assert mean.result()["w"].item() == 17.0
    assert gate.add(1, update(10.5), WHERE) is None
    assert mean.result()["w"].item() == 17.0
    assert gate.close() == {1: TOO_FAR}
