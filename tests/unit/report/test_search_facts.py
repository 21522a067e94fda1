"""What a search says: points with their bounds, and its figures."""

from collections.abc import Callable
from typing import Any

import pytest

from fedsup_deploy.report import blocks, search_figures
from fedsup_deploy.report.search_facts import (
    Known,
    Searched,
    document,
    drawn,
    price,
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

    assert (datasets(6.6)["limits"], datasets(6.6)["beyond"]) == ([{"x": 6.6, "text": "limit", "is_left": False}], [])
    assert (datasets(6.7)["limits"], datasets(6.7)["beyond"]) == ([], [{"text": "limit: 6.7"}])


@pytest.mark.parametrize(("right", "verdict"), [(88, "cannot be told apart"), (20, "can be told apart")])
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
