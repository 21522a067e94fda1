"""How sure it is that a device gets the best, and what is cheaper."""

from collections.abc import Callable
from typing import Any

import pytest

from fedsup_deploy.report.glance import glance
from fedsup_deploy.report.search_facts import Searched
from fedsup_deploy.report.standing import (
    Difference,
    cheaper_in_words,
    how_sure,
    much_cheaper,
    not_much_cheaper_in_words,
)

MakeSearch = Callable[..., Searched]


def of(search_of: MakeSearch, known: list[tuple[int, float]], alike: int, **more: Any) -> Any:
    """Return what was found for a device, with so many as good as the best."""
    [device] = search_of({"jetson-nano": known}).result.results
    noise = device.within_noise.model_copy(update={"num_candidates": alike})
    return device.model_copy(update={"within_noise": noise, **more})


@pytest.mark.parametrize(
    ("alike", "told"),
    [
        (3, "cannot be told apart from any of the 3 others tried; 16 that fit were never tried"),
        (2, "cannot be told apart from 2 of the 3 others tried; 16 that fit were never tried"),
        (0, "better than all 3 others tried: it can be told apart from each; 16 that fit were never tried"),
    ],
)
def test_what_cannot_be_told_from_others_is_not_called_the_best(search_of: MakeSearch, alike: int, told: str) -> None:
    device = of(search_of, [(88, 1.0), (90, 2.0), (89, 2.2), (87, 0.5)], alike)
    assert how_sure(device.picked, device) == told


def test_where_all_that_fits_was_tried_that_and_the_noise_are_one_sentence(search_of: MakeSearch) -> None:
    device = of(search_of, [(88, 1.0), (90, 2.0), (89, 2.2)], 2, num_feasible=3, certified=True)
    assert (
        how_sure(device.picked, device) == "cannot be told apart from any of the 2 others tried; these are all that fit"
    )


def test_what_a_fleet_assigns_is_compared_with_the_best(search_of: MakeSearch) -> None:
    device = of(search_of, [(40, 1.0), (90, 2.0), (89, 2.2)], 1)
    best = device.picked.arch_id
    lower, _, alike = device.candidates
    lost = "points against the best tried for this device"
    assert how_sure(alike, device).startswith(f"-1.0 {lost}, {best}, cannot be told apart")
    assert how_sure(lower, device).startswith(f"-50.0 {lost}, {best}, can be told apart")


def test_a_much_cheaper_network_that_is_as_good_is_named_with_the_figures_of_both(search_of: MakeSearch) -> None:
    """Of several the most accurate; one that is worse beyond noise, or a little cheaper, is none."""
    searched = search_of(
        {"jetson-nano": [(40, 0.1), (88, 0.5), (90, 2.0), (89, 1.0), (90, 1.9)], "x86-laptop": [(90, 2.0)]}
    )
    device, alone = searched.result.results
    best = device.picked
    found = much_cheaper(best, device)
    assert found is not None
    assert (
        (found.accuracy, found.latency_ms_predicted) == (0.88, 0.5) if best.latency_ms_predicted == 1.9 else (0.89, 1.0)
    )
    told = cheaper_in_words(found, best)
    assert "10 parameters instead of 10 and 0.75 ms instead of 2.85 ms" in told
    assert "(2 images of 100) on the images they were chosen by, cannot be told apart; no bundle" in told
    assert much_cheaper(alone.picked, alone) is None
    lines = {each.question: each.lines for each in glance((), (searched,), ()).answers}
    [line] = lines["Is a much cheaper network as good?"]
    assert not_much_cheaper_in_words(alone.picked, alone) is None, "there is no other"
    assert line.startswith("jetson-nano: ")
    assert "3.8 times less predicted latency" in line


def test_where_none_is_much_cheaper_the_cheapest_that_is_as_good_is_named_with_the_threshold(
    search_of: MakeSearch,
) -> None:
    searched = search_of({"jetson-nano": [(40, 0.1), (89, 1.9), (90, 2.0), (88, 1.6)]})
    [device] = searched.result.results
    cheapest = device.candidates[-1].arch_id
    told = not_much_cheaper_in_words(device.picked, device)
    assert told == (
        "none that cannot be told apart has 50 % of the parameters or of the latency; the cheapest of them is "
        f"{cheapest}: 10 parameters (100 %) and 2.4 ms (80 %), -2.0 points (2 images of 100)"
    )
    lines = {each.question: each.lines for each in glance((), (searched,), ()).answers}
    assert lines["Is a much cheaper network as good?"] == (f"jetson-nano: {told}",)
    [alone] = search_of({"jetson-nano": [(89, 2.1), (90, 2.0)]}).result.results
    assert (not_much_cheaper_in_words(alone.picked, alone) or "").endswith(
        "and none has less of either without more of the other"
    )


def test_a_difference_of_predictions_has_no_images(search_of: MakeSearch) -> None:
    one, other = of(search_of, [(88, 1.0), (90, 2.0)], 1).candidates
    assert str(Difference.of(one, other)) == "-2.0 points (2 images of 100)"
    predicted = one.model_copy(update={"accuracy": None, "accuracy_predicted": 0.88})
    assert str(Difference.of(predicted, other)) == "-2.0 points"


def test_what_a_cheaper_network_has_on_test_images_is_quoted_where_a_bundle_knows_it(
    search_of: MakeSearch, bundle_of: Callable[..., Any]
) -> None:
    """Also where that bundle is of another device."""
    device = of(search_of, [(89, 1.0), (90, 2.0)], 1)
    cheaper, chosen = device.candidates
    bundles = [bundle_of(arch_id=cheaper.arch_id)]
    told = cheaper_in_words(cheaper, chosen, bundles)
    assert told.endswith("; on 450 test images, fp32, it has 90.0 % (86.9 to 92.4)")
    both = cheaper_in_words(cheaper, chosen, [*bundles, bundle_of(arch_id=chosen.arch_id)])
    assert both == f"{told}, 0.0 points, cannot be told apart"
