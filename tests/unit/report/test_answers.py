"""What a search answers for each device, in words."""

import dataclasses
from collections.abc import Callable
from typing import Any

from fedsup_deploy.report import bundle_facts, off_by, search_figures
from fedsup_deploy.report.answers import answer
from fedsup_deploy.report.bundle_facts import BundleMaterial
from fedsup_deploy.report.run_figures import RunMaterial
from fedsup_deploy.report.search_facts import (
    Searched,
    objectives_of,
    ranged,
    role,
)

MakeSearch = Callable[..., Searched]
#: Right answers of 100, and milliseconds; the limit is on 1.5 times these.
KNOWN = [(80, 1.0), (90, 2.0), (85, 2.2), (70, 0.5)]


def only(searched: Searched) -> Any:
    [device] = searched.result.results
    return device


def test_the_answer_for_a_device(search_of: MakeSearch) -> None:
    searched = search_of({"jetson-nano": KNOWN})
    found = answer(only(searched), searched)
    assert found.pick == only(searched).candidates[1].arch_id
    assert found.value == "90.0 % (82.6 to 94.5), of 100 images for validation; chosen by these, so probably too high"
    assert found.chosen_by is None
    assert found.latency == "3 ms, between 1.5 and 6 ms"
    assert found.room == (
        "latency: 3 of 4 ms (75 %), predicted to keep it; nobody has measured how far off predictions are: measure",
    )
    assert found.why == "the best accuracy of those tried; 4 of 20 that keep the limits were tried, by exact search"
    assert found.sure == "cannot be told apart from 1 of the 3 others tried; 16 that fit were never tried"
    assert found.less == f"1.5 ms less: {only(searched).candidates[0].arch_id}, -10.0 points, cannot be told apart"
    assert "nothing beyond the limit" in found.more
    assert found.clients is None
    assert found.trust == "costs are published; nobody has measured how far predictions are off"


def test_with_a_bundle_a_device_has_the_accuracy_of_test_images_and_of_its_precision(
    search_of: MakeSearch, bundle_of: Callable[..., BundleMaterial]
) -> None:
    searched = dataclasses.replace(search_of({"jetson-nano": KNOWN}), precisions={"jetson-nano": "fp32"})
    found = answer(only(searched), searched, bundle=bundle_of())
    assert found.value == bundle_facts.accuracy(bundle_of().manifest)
    assert found.chosen_by is not None
    assert found.chosen_by.startswith("90.0 % (82.6 to 94.5), of 100 images for validation")
    assert found.latency == "3 ms of fp32, between 1.5 and 6 ms"
    assert found.room[0].startswith("latency of fp32: 3 of 4 ms")


def test_where_nothing_beyond_the_limit_was_tried_the_largest_subnet_of_the_run_is_a_hint(
    search_of: MakeSearch, run_of: Callable[..., RunMaterial]
) -> None:
    """It is of as many images, and the run's own."""
    searched = search_of({"jetson-nano": KNOWN}, run={"name": "a-run", "hash": "0" * 64, "rounds": 1})
    run = run_of([([0], {})])
    told = answer(only(searched), searched, runs=[run]).more
    assert "after training the largest subnet of all had 50.0 % (40.4 to 59.6) of the same images" in told
    assert "can be told apart" in told
    other = search_of({"jetson-nano": KNOWN}, run={"name": "a-run", "hash": "0" * 64, "rounds": 9})
    assert "largest" not in answer(only(other), other, runs=[run]).more


def test_more_time_is_what_another_search_of_the_run_found_beyond_the_limit(search_of: MakeSearch) -> None:
    """If it differs in the limit on latency alone."""
    searched = search_of({"jetson-nano": KNOWN})
    wider = search_of({"jetson-nano": [*KNOWN, (95, 3.0)]}, limit_ms=5.0, name="wider.json")
    best = only(wider).candidates[-1].arch_id
    told = answer(only(searched), searched, [wider]).more
    assert told == f"1.5 ms more: {best}, +5.0 points, cannot be told apart (wider.json, up to 5 ms)"
    in_vain = search_of({"jetson-nano": [*KNOWN, (70, 3.0)]}, limit_ms=5.0, name="wider.json")
    assert answer(only(searched), searched, [in_vain]).more == "nothing that was found up to 5 ms (wider.json)"
    other_run = search_of({"jetson-nano": KNOWN}, limit_ms=5.0, run={"name": "b", "hash": "1" * 64, "rounds": 3})
    for other in (search_of({"jetson-nano": KNOWN}), search_of({"x86-laptop": KNOWN}, limit_ms=5.0), other_run):
        assert "nothing beyond the limit" in answer(only(searched), searched, [other]).more


def test_where_all_subnets_keep_the_limits_more_time_brings_nothing(search_of: MakeSearch) -> None:
    searched = search_of({"jetson-nano": KNOWN})
    device = only(searched).model_copy(update={"num_feasible": 64})
    assert answer(device, searched).more == "nothing: all 64 subnets of the space keep all limits"


def test_where_clients_were_asked_the_worst_of_them_are_told(search_of: MakeSearch) -> None:
    searched = search_of({"jetson-nano": KNOWN})
    device = only(searched)
    asked = tuple(each.model_copy(update={"worst_decile": 0.5}) for each in device.candidates)
    result = searched.result.model_copy(update={"results": (device.model_copy(update={"candidates": asked}),)})
    assert answer(result.results[0], dataclasses.replace(searched, result=result)).clients == "50.0 % in the mean"
    assert objectives_of(result.results[0]) == ["accuracy", "worst_decile"]


def test_in_a_fleet_a_device_gets_what_was_assigned(search_of: MakeSearch) -> None:
    plain = search_of({"jetson-nano": KNOWN, "x86-laptop": KNOWN})
    best, other = (plain.result.results[0].candidates[at].arch_id for at in (1, 2))
    option = {
        "num_artifacts": 1,
        "assigned": {"jetson-nano": other, "x86-laptop": best},
        "lost": {"jetson-nano": 0.05, "x86-laptop": 0.0},
    }
    shared = search_of(
        {"jetson-nano": KNOWN, "x86-laptop": KNOWN}, fleet={"max_artifacts": 1, "options": [option], "chosen": 1}
    )
    first, second = shared.result.results
    assert [role(each, first, shared.result) for each in first.candidates] == ["front", "front", "pick", "front"]
    assert answer(first, shared).pick == other
    assert f"its own best, {best}, has +5.0 points" in answer(first, shared).why
    assert answer(second, shared).pick == best
    assert [row[1] for row in search_figures.front_table(shared, first).rows].count("pick") == 1
    assert shared.result.fleet is not None
    assert (
        "1 architecture: -5.0 points at worst (jetson-nano). In force: 1."
        in search_figures.fleet(shared.result.fleet, "fleet").says
    )
    table = search_figures.fleet(shared.result.fleet, "fleet").table
    assert table.rows == (("1", "-2.5 points", "jetson-nano: -5.0 points", "in force"),)


def test_the_best_network_tried_for_any_device_is_named_with_why_it_is_not_taken(
    search_of: MakeSearch,
) -> None:
    """How right it is does not depend on the device; what it costs there somebody may have computed."""
    both = {"jetson-nano": KNOWN, "x86-laptop": [*KNOWN, (97, 2.4)]}
    plain = search_of(both)
    first, second = plain.result.results
    best = second.candidates[-1].arch_id
    found = answer(first, plain).best
    lead = f"{best} (97.0 %, +7.0 points on the same images, cannot be told apart): "
    tried = "this search tried 4 of the 20 that keep the limits, not this one; what it costs here cannot be computed: "
    assert found == f"{lead}{tried}put the run of the search on this page"
    changed = dataclasses.replace(plain, priced={"jetson-nano": {}})
    assert answer(first, changed).best == f"{lead}{tried}its profile has changed since the search"
    assert "nothing beyond the limit was tried" not in answer(first, plain).more
    assert answer(second, plain).best is None
    for costs, told in (
        ({"latency_ms": 4.5}, "it needs 4.5 ms, over the limit of 4 ms"),
        (
            {"latency_ms": 3.5},
            "it needs 3.5 ms here and keeps the limits, but this search did not try it: "
            f"take it (fedsup-deploy export RUN --arch {best} --profile jetson-nano)",
        ),
    ):
        priced = dataclasses.replace(plain, priced={"jetson-nano": {best: costs}})
        assert answer(first, priced).best == f"{lead}{told}"
    other_run = search_of(
        {"x86-laptop": both["x86-laptop"]}, name="b", run={"name": "b", "hash": "1" * 64, "rounds": 3}
    )
    alone = search_of({"jetson-nano": KNOWN})
    assert answer(only(alone), alone, [other_run]).best is None, "of other weights"


def test_what_another_search_of_the_same_device_has_priced_is_known_without_the_run(search_of: MakeSearch) -> None:
    """Also where that search had a lower limit."""
    wide = search_of({"jetson-nano": KNOWN}, limit_ms=9.0, name="wide.json")
    narrow = search_of({"jetson-nano": [*KNOWN, (97, 2.4)]})
    found = answer(only(wide), wide, [narrow]).best
    assert found is not None
    assert "it needs 3.6 ms here and keeps the limits, but this search did not try it: take it" in found
    profile = only(narrow).profile.model_copy(update={"hash": "1" * 64})
    changed = only(narrow).model_copy(update={"profile": profile})
    other = dataclasses.replace(narrow, result=narrow.result.model_copy(update={"results": (changed,)}))
    assert "what it costs here cannot be computed" in (answer(only(wide), wide, [other]).best or "")


def test_where_all_that_fits_was_tried_the_best_tried_elsewhere_is_over_a_limit(search_of: MakeSearch) -> None:
    plain = search_of({"jetson-nano": KNOWN, "x86-laptop": [*KNOWN, (97, 2.4)]})
    exact = plain.result.results[0].model_copy(update={"num_feasible": 4})
    told = answer(exact, plain).best
    assert told is not None
    assert told.endswith("it is over a limit here: all 4 that keep the limits were tried")


def test_more_time_is_priced_where_a_better_network_was_tried_for_another_device(search_of: MakeSearch) -> None:
    """The next better one and the best one; that this is all there is where the whole space was tried."""
    plain = search_of({"jetson-nano": KNOWN, "x86-laptop": [*KNOWN, (92, 2.3), (97, 2.4)]})
    device, other = plain.result.results
    near, best = (each.arch_id for each in other.candidates[-2:])
    priced = dataclasses.replace(plain, priced={"jetson-nano": {near: {"latency_ms": 4.5}, best: {"latency_ms": 6.0}}})
    told = f"1.5 ms more: {near}, +2.0 points, cannot be told apart; "
    told += f"3 ms more: {best}, +7.0 points, cannot be told apart, the best tried"
    assert answer(device, priced).more == told
    whole = device.model_copy(update={"num_architectures": 6})
    assert answer(whole, priced).more == f"{told}; all 6 subnets of the space were tried"
    laptop = other.model_copy(update={"num_architectures": 6, "num_feasible": 5})
    assert answer(laptop, priced).more == "nothing: all 6 subnets of the space were tried, and none is better"


def test_a_higher_limit_is_for_those_that_are_near_theirs(search_of: MakeSearch) -> None:
    """Whoever leaves some of it, and has not tried all that fits, tries more of that first."""
    searched = search_of({"jetson-nano": KNOWN, "x86-laptop": [*KNOWN, (60, 2.4)]})
    device = searched.result.results[0]
    assert answer(device, searched).more.endswith(
        "try more of them before you raise it (fedsup-deploy search --evaluations N)"
    )
    for changes in ({"limits": {"latency_ms": 3.1}}, {"num_feasible": 4}):
        told = answer(device.model_copy(update=changes), searched).more
        assert told.endswith("search with a higher limit and put both on one page")


def test_where_nothing_better_was_tried_for_any_device_that_is_said(search_of: MakeSearch) -> None:
    searched = search_of({"jetson-nano": KNOWN, "x86-laptop": [*KNOWN, (60, 2.4)]})
    told = answer(searched.result.results[0], searched).more
    assert told.startswith("of all 5 networks that were tried on these images, for whatever device, none is better")


def test_a_latency_is_a_range_by_how_far_predictions_were_off(search_of: MakeSearch) -> None:
    plain = only(search_of({"jetson-nano": KNOWN}))
    error = {"acc5": 0.5, "acc10": 0.5, "spearman": None, "mape": 0.25, "num_heldout": 4, "method": "published"}
    for number, told in ((4, ""), (1, ", an error that is known of one network alone")):
        profile = plain.profile.model_validate(plain.profile.model_dump() | {"error": error | {"num_heldout": number}})
        assert off_by.bounds(2.0, None, profile) == (1.5, 2.5)
        assert off_by.in_words(2.0, None, profile) == f"by the profile's error of 25.0 % between 1.5 and 2.5 ms{told}"
    assert off_by.in_words(2.0, None, plain.profile) == "nobody has measured how far predictions are off"
    assert off_by.in_words(2.0, (1.0, 3.0), plain.profile) == "between 1 and 3 ms"
    candidate = plain.picked.model_copy(update={"latency_interval_ms": None})
    known = plain.model_copy(update={"profile": profile, "percentile": None})
    assert ranged(candidate, "latency_ms", known).bounds == (2.25, 3.75), "and so it is drawn"
