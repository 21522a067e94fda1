"""The choice for a fleet against every choice there is."""

import itertools
from collections.abc import Iterable

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedsup_deploy.searchers.fleet import FleetChoice, choose_artifacts

law = settings(max_examples=80)

#: Accuracies in hundredths, whether each fits each profile, latencies in quarters of a millisecond.
Fleet = tuple[list[int], NDArray[np.bool_], NDArray[np.int64]]
#: Loss in all, the worst loss, latency in all.
Worth = tuple[int, int, int]


@st.composite
def fleets(draw: st.DrawFn) -> Fleet:
    """A few architectures with few values, so that equal ones occur, and a few profiles."""
    num_profiles, num_architectures = draw(st.integers(1, 5)), draw(st.integers(1, 7))
    size = num_profiles * num_architectures
    accuracy = draw(st.lists(st.integers(80, 83), min_size=num_architectures, max_size=num_architectures))
    fits = draw(st.lists(st.booleans(), min_size=size, max_size=size))
    latency = draw(st.lists(st.integers(1, 4), min_size=size, max_size=size))
    shape = num_profiles, num_architectures
    return accuracy, np.array(fits).reshape(shape), np.array(latency).reshape(shape)


def choose(fleet: Fleet, max_artifacts: int | None = None) -> list[FleetChoice]:
    accuracy, fits, latency = fleet
    return choose_artifacts(np.array(accuracy) / 100, fits, latency / 4, max_artifacts)


def worth_of(fleet: Fleet, rows: Iterable[int]) -> Worth:
    """What giving an architecture to each profile comes to."""
    accuracy, fits, latency = fleet
    given_rows = list(rows)
    best = [max(accuracy[row] for row in np.flatnonzero(fits_A)) for fits_A in fits]
    losses = [best[profile] - accuracy[row] for profile, row in enumerate(given_rows)]
    return sum(losses), max(losses), sum(int(latency[profile, row]) for profile, row in enumerate(given_rows))


def by_hand(fleet: Fleet) -> dict[int, Worth]:
    """The best worth of each number of architectures that serves all, over all ways to give them out."""
    _, fits, _ = fleet
    found: dict[int, Worth] = {}
    for rows in itertools.product(*(np.flatnonzero(fits_A) for fits_A in fits)):
        worth = worth_of(fleet, rows)
        for count in range(len(set(rows)), len(fits) + 1):
            found[count] = min(found.get(count, worth), worth)
    return found


@law
@given(fleets())
def test_every_choice_is_the_best_of_all_and_none_is_missing(fleet: Fleet) -> None:
    """From the fewest that serve all profiles to the fewest by which none of them loses anything."""
    expected = by_hand(fleet)
    lossless = [count for count, worth in expected.items() if worth[0] == 0]
    found = {choice.num_artifacts: worth_of(fleet, choice.rows_P) for choice in choose(fleet)}
    assert found == {count: worth for count, worth in expected.items() if count <= min(lossless)}


@law
@given(fleets())
def test_every_profile_gets_what_fits_it_and_is_told_what_it_loses(fleet: Fleet) -> None:
    accuracy, fits, _ = fleet
    for choice in choose(fleet):
        assert len(set(choice.rows_P)) == choice.num_artifacts
        assert all(fits[profile, row] for profile, row in enumerate(choice.rows_P))
        best = [max(np.array(accuracy)[fits_A]) for fits_A in fits]
        losses = [(best[profile] - accuracy[row]) / 100 for profile, row in enumerate(choice.rows_P)]
        np.testing.assert_allclose(choice.loss_P, losses, rtol=0, atol=1e-12)


@law
@given(fleets())
def test_an_artifact_more_loses_less_and_one_per_profile_loses_nothing(fleet: Fleet) -> None:
    choices = choose(fleet)
    losses = [sum(choice.loss_P) for choice in choices]
    assert all(more < fewer for fewer, more in itertools.pairwise(losses))
    if choices:
        assert losses[-1] == 0
    else:
        assert not fleet[1].any(axis=1).all()


@law
@given(fleets(), st.integers(1, 5))
def test_a_maximum_leaves_out_larger_choices_and_changes_no_other(fleet: Fleet, most: int) -> None:
    expected = [choice for choice in choose(fleet) if choice.num_artifacts <= most]
    assert choose(fleet, most) == expected
