"""What a search answers: points with their bounds, and words."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from fedsup_deploy.report import blocks, bundle_facts, search_figures
from fedsup_deploy.report.bundle_facts import BundleMaterial
from fedsup_deploy.report.run_figures import RunMaterial
from fedsup_deploy.report.search_facts import (
    Known,
    Searched,
    answer,
    document,
    drawn,
    objectives_of,
    price,
    role,
    worth,
)

MakeSearch = Callable[..., Searched]
#: Right answers of 100, and milliseconds; the limit is on 1.5 times these.
KNOWN = [(80, 1.0), (90, 2.0), (85, 2.2), (70, 0.5)]


def only(searched: Searched) -> Any:
    [device] = searched.result.results
    return device


def test_points_have_the_bounds_of_both_axes(search_of: MakeSearch) -> None:
    """The latency is the percentile that the limit means, and so are its bounds."""
    searched = search_of({"jetson-nano": KNOWN})
    device = only(searched)
    first = device.candidates[0]
    assert price(first, "latency_ms", device) == Known(1.5, 0.75, 3.0)
    assert price(first, "macs", device) == Known(1000)
    found = worth(first, "accuracy", device, searched.result.accuracy_model)
    assert found == Known(0.8, *first.accuracy_interval)


def test_of_a_risk_the_upper_bound_is_what_counts(search_of: MakeSearch) -> None:
    device = only(search_of({"jetson-nano": KNOWN}))
    bounded = device.candidates[0].model_copy(update={"latency_upper_ms": 2.5})
    assert price(bounded, "latency_ms", device) == Known(2.5, 0.75, 2.5)


def test_the_answer_for_a_device(search_of: MakeSearch) -> None:
    searched = search_of({"jetson-nano": KNOWN})
    found = answer(only(searched), searched)
    assert found.pick == only(searched).candidates[1].arch_id
    assert found.value == "90.0 % (82.6 to 94.5), of 100 images for validation, by which it was chosen: that flatters"
    assert found.chosen_by is None
    assert found.latency == "3 ms (1.5 to 6 ms)"
    assert found.room == ("latency: 3 of 4 ms (75%), predicted within; how far off that is, nobody knows: measure",)
    assert found.why == "the best value in accuracy of those tried; 4 of 20 that fit were tried, by exact"
    assert found.sure == "cannot be told from 1 of the 3 others tried; 16 that fit were never tried"
    assert found.less == f"1.5 ms less: {only(searched).candidates[0].arch_id}, -10.0 points, intervals overlap"
    assert "nothing beyond the limit" in found.more
    assert found.clients is None
    assert found.trust == "costs published; nobody has measured how far predictions are off"


def test_with_a_bundle_a_device_has_the_accuracy_of_test_images_and_of_its_precision(
    search_of: MakeSearch, bundle_of: Callable[..., BundleMaterial]
) -> None:
    searched = dataclasses.replace(search_of({"jetson-nano": KNOWN}), precisions={"jetson-nano": "fp32"})
    found = answer(only(searched), searched, bundle=bundle_of())
    assert found.value == bundle_facts.accuracy(bundle_of().manifest)
    assert found.chosen_by is not None
    assert found.chosen_by.startswith("90.0 % (82.6 to 94.5), of 100 images for validation")
    assert found.latency == "3 ms of fp32 (1.5 to 6 ms)"
    assert found.room[0].startswith("latency of fp32: 3 of 4 ms")


def test_where_nothing_beyond_the_limit_was_tried_the_largest_subnet_of_the_run_is_a_hint(
    search_of: MakeSearch, run_of: Callable[..., RunMaterial]
) -> None:
    """It is of as many images, and the run's own."""
    searched = search_of({"jetson-nano": KNOWN}, run={"name": "a-run", "hash": "0" * 64, "rounds": 1})
    run = run_of([([0], {})])
    told = answer(only(searched), searched, runs=[run]).more
    assert "after training the largest subnet of all had 50.0 % (40.4 to 59.6) of the same images" in told
    assert "intervals lie apart" in told
    other = search_of({"jetson-nano": KNOWN}, run={"name": "a-run", "hash": "0" * 64, "rounds": 9})
    assert "largest" not in answer(only(other), other, runs=[run]).more


def test_more_time_is_what_another_search_of_the_run_found_beyond_the_limit(search_of: MakeSearch) -> None:
    """If it differs in the limit on latency alone."""
    searched = search_of({"jetson-nano": KNOWN})
    wider = search_of({"jetson-nano": [*KNOWN, (95, 3.0)]}, limit_ms=5.0, name="wider.json")
    best = only(wider).candidates[-1].arch_id
    told = answer(only(searched), searched, [wider]).more
    assert told == f"1.5 ms more: {best}, +5.0 points, intervals overlap (wider.json, up to 5 ms)"
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
        "1 architecture: at most 5 points (jetson-nano). In force: 1."
        in search_figures.fleet(shared.result.fleet, "fleet").says
    )
    table = search_figures.fleet(shared.result.fleet, "fleet").table
    assert table.rows == (("1", "-2.5 points", "jetson-nano: -5.0 points", "in force"),)


def test_of_many_candidates_the_front_and_the_pick_are_drawn_always(search_of: MakeSearch) -> None:
    searched = search_of({"jetson-nano": [(80 - at, 1.0 + at / 100) for at in range(50)]})
    device = only(searched)
    kept = {each.arch_id for each in drawn(device, searched.result, 11)}
    assert kept >= {*device.front, device.pick}
    assert len(kept) == 11
    assert len(drawn(device, searched.result, 1)) == 1
    assert len(drawn(device, searched.result, 50)) == 50


def test_the_document_has_each_architecture_once(search_of: MakeSearch) -> None:
    searches = [search_of({"jetson-nano": KNOWN, "x86-laptop": KNOWN}), search_of({"jetson-nano": KNOWN}, name="b")]
    found: Any = document(searches)
    assert len(found["architectures"]) == 4
    assert [each["name"] for each in found["searches"]] == ["search.json", "b"]
    first = found["searches"][0]["devices"]["jetson-nano"]["candidates"][0]
    device = found["searches"][0]["devices"]["jetson-nano"]
    prices = dict(zip(device["prices"], first["prices"], strict=True))
    assert (prices["latency_ms"], prices["macs"]) == ([1.5, 0.75, 3.0], [1000.0])
    architecture = searches[0].result.results[0].candidates[0].to_architecture()
    listed = [found["blocks"][place] for place in found["architectures"][first["arch"]]]
    assert listed == blocks.block_rows(architecture)


def test_a_limit_far_beyond_all_candidates_is_told_and_not_drawn(search_of: MakeSearch) -> None:
    def datasets(limit_ms: float) -> Any:
        [figure] = search_figures.figures([search_of({"jetson-nano": KNOWN}, limit_ms=limit_ms)])
        return figure.spec["datasets"]

    assert (datasets(6.6)["limits"], datasets(6.6)["beyond"]) == ([{"x": 6.6, "text": "limit"}], [])
    assert (datasets(6.7)["limits"], datasets(6.7)["beyond"]) == ([], [{"text": "limit: 6.7"}])


@pytest.mark.parametrize(("right", "verdict"), [(88, "intervals overlap"), (20, "intervals lie apart")])
def test_searches_are_compared_device_by_device(search_of: MakeSearch, right: int, verdict: str) -> None:
    first = search_of({"jetson-nano": KNOWN, "x86-laptop": KNOWN})
    table = search_figures.comparison([first, search_of({"jetson-nano": [(right, 1.0)]}, name="again.json")])
    assert table is not None
    [row] = table.rows
    assert (row[0], row[2]) == ("jetson-nano", "again.json")
    assert row[4:] == (f"{right - 90:+.1f} points", "-1.5 ms", verdict)
    same = search_figures.comparison([first, search_of({"jetson-nano": KNOWN}, name="again.json")])
    assert same is not None
    assert same.rows[0][3] == "the same"
    assert search_figures.comparison([first]) is None
