"""Fleets small enough to be planned by hand."""

import numpy as np
import pytest

from fedsup_deploy.errors import ConfigError
from fedsup_deploy.searchers.fleet import FleetChoice, choose_artifacts


def choices_for(
    accuracy: list[float], fits: list[list[int]], latency: list[list[float]] | None = None, most: int | None = None
) -> list[FleetChoice]:
    """Choose with the latencies in ms, 1 everywhere unless given."""
    fits_PA = np.array(fits, np.bool_)
    latency_PA = np.ones(fits_PA.shape) if latency is None else np.array(latency)
    return choose_artifacts(np.array(accuracy), fits_PA, latency_PA, most)


# A camera, a phone and a workstation; what fits the smaller fits the larger.
NESTED = {"accuracy": [0.80, 0.86, 0.93], "fits": [[1, 0, 0], [1, 1, 0], [1, 1, 1]]}


def test_each_number_of_artifacts_has_its_best_choice_until_nothing_is_lost() -> None:
    expected = [
        FleetChoice(1, (0, 0, 0), (0.0, 0.06, 0.13)),
        FleetChoice(2, (0, 0, 2), (0.0, 0.06, 0.0)),
        FleetChoice(3, (0, 1, 2), (0.0, 0.0, 0.0)),
    ]
    assert choices_for(**NESTED) == expected


def test_no_more_artifacts_are_looked_at_than_allowed() -> None:
    assert [choice.num_artifacts for choice in choices_for(**NESTED, most=2)] == [1, 2]
    assert [choice.num_artifacts for choice in choices_for(**NESTED, most=9)] == [1, 2, 3]


def test_one_artifact_is_enough_where_all_devices_have_the_same_best() -> None:
    assert choices_for([0.9, 0.8], [[1, 1], [1, 1]]) == [FleetChoice(1, (0, 0), (0.0, 0.0))]


def test_a_number_that_cannot_serve_all_devices_is_left_out() -> None:
    """Nothing fits two of the three: one large on a GPU, one small on a microcontroller, one for another runtime."""
    disjoint = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert choices_for([0.9, 0.8, 0.7], disjoint) == [FleetChoice(3, (0, 1, 2), (0.0, 0.0, 0.0))]
    assert choices_for([0.9, 0.8, 0.7], disjoint, most=2) == []


def test_a_device_that_nothing_fits_leaves_no_choice() -> None:
    assert choices_for([0.9, 0.8], [[1, 1], [0, 0]]) == []


def test_taking_the_best_step_first_would_miss_the_best_pair() -> None:
    """Row 0 is the best for one artifact, but the best two do not contain it."""
    accuracy = [0.70, 0.80, 0.80, 0.81, 0.81, 0.81, 0.81]
    fits = [
        [1, 1, 0, 1, 0, 0, 0],
        [1, 1, 0, 0, 1, 0, 0],
        [1, 0, 1, 0, 0, 1, 0],
        [1, 0, 1, 0, 0, 0, 1],
    ]
    one, two, *_ = choices_for(accuracy, fits)
    assert one.rows_P == (0, 0, 0, 0)
    assert two == FleetChoice(2, (1, 1, 2, 2), (0.01, 0.01, 0.01, 0.01))


def test_of_equal_sums_the_least_worst_loss_wins_even_if_it_is_slower() -> None:
    """Two artifacts for three devices: 4 and 2 points lost, or 3 and 3. Rows 0 to 2 are the bests of the devices."""
    accuracy = [0.80, 0.80, 0.78, 0.76, 0.77]
    fits = [[1, 0, 0, 0, 1], [0, 1, 0, 1, 1], [0, 0, 1, 1, 0]]
    latency = [[1, 1, 1, 1, 9]] * 3
    two, three = choices_for(accuracy, fits, latency)
    assert two == FleetChoice(2, (4, 4, 2), (0.03, 0.03, 0.0))
    assert three.rows_P == (0, 1, 2)


def test_of_equal_losses_the_lower_sum_of_latencies_wins() -> None:
    """Row 0 is the fastest on one device and row 1 on the other; row 2 is the fastest on both together."""
    latency = [[1, 5, 2], [5, 1, 2]]
    (choice,) = choices_for([0.9, 0.9, 0.9], [[1, 1, 1], [1, 1, 1]], latency)
    assert choice.rows_P == (2, 2)


def test_what_is_fast_on_one_device_is_not_forgotten_for_what_is_fast_on_all() -> None:
    """Row 1 is the fastest on both together; once the second device has its own, row 0 is faster on the first."""
    latency = [[1, 2, 9], [5, 2, 9]]
    one, two = choices_for([0.8, 0.8, 0.9], [[1, 1, 0], [1, 1, 1]], latency)
    assert (one.rows_P, two.rows_P) == ((1, 1), (0, 2))


def test_of_equal_choices_the_first_wins() -> None:
    assert choices_for([0.8, 0.9, 0.9], [[1, 1, 1]])[0].rows_P == (1,)


def test_of_chosen_artifacts_a_device_gets_the_best_that_fits_it() -> None:
    """Both rows are needed by others; the third device could run either, and gets the more accurate."""
    (choice,) = choices_for([0.8, 0.9], [[1, 0], [0, 1], [1, 1]])
    assert choice.rows_P == (0, 1, 1)


def test_losses_are_as_round_as_the_accuracies() -> None:
    """0.91 - 0.88 is 0.030000000000000027 in binary."""
    choice = choices_for([0.88, 0.91], [[1, 0], [1, 1]])[0]
    assert choice.loss_P == (0.0, 0.03)


def test_more_devices_than_can_be_told_apart_are_refused() -> None:
    with pytest.raises(ConfigError, match="got 63 device profiles, expected at most 62"):
        choices_for([0.9], [[1]] * 63)
    (choice,) = choices_for([0.9], [[1]] * 62)
    assert choice.rows_P == (0,) * 62
