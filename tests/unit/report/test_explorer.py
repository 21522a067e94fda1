"""The plot of all candidates, in a browser: what it opens on, and how networks are drawn one after the other."""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fedsup_deploy.report import library
from fedsup_deploy.report.page import PageMaterial, render
from fedsup_deploy.space.search_space import SearchSpace

pytest.importorskip("vl_convert", reason=f"the extra report ({library.INSTALL})")

MakeSearch = Callable[..., Any]
#: Right answers of 100, and milliseconds.
KNOWN = [(80, 1.0), (90, 2.0)]


def written(material: PageMaterial, folder: Path) -> Path:
    path = folder / "page.html"
    path.write_text(render(material), encoding="utf-8")
    return path


@pytest.fixture
def read(chromium: Any, pages: dict[str, Any], tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Open the page of some material in a browser."""
    with contextlib.ExitStack() as stack:

        def open_page(material: PageMaterial, width: int = 1280) -> Any:
            path = written(material, tmp_path)
            return stack.enter_context(pages["reading"](chromium, path, pages["Look"](width, "light")))

        yield open_page


def test_blocks_stand_in_their_order_whatever_was_drawn_before(
    read: Callable[..., Any], search_of: MakeSearch, space_of: Callable[..., SearchSpace]
) -> None:
    """From a shallow network to a deeper one: blocks that are new stand where they belong, not at the end."""
    stage = {"widths": [4], "depths": [1, 3]}
    space = space_of(stage, stage, resolutions=[8], stem={"widths": [4]})
    networks = sorted(map(space.decode, space.enumerate_genes()), key=lambda each: sum(map(len, each.stages)))
    known = [(50 + at, 1.0 + at / 10) for at in range(len(networks))]
    reader = read(PageMaterial((), (search_of({"jetson-nano": known}, architectures=networks),), ()))
    reader.page.locator("#candidates").focus()
    for _ in networks:
        reader.page.keyboard.press("ArrowLeft")
    texts = "[...document.querySelectorAll('#candidate-blocks .role-axis-label text')]"
    for network in networks:
        stages = enumerate(network.stages, start=1)
        expected = ["first", *(f"{stage}.{at}" for stage, blocks in stages for at, _ in enumerate(blocks, start=1))]
        are_there = f"names => {texts}.map(each => each.textContent).sort().join() === [...names].sort().join()"
        reader.page.wait_for_function(are_there, arg=expected)
        from_above = "(one, other) => one.getBoundingClientRect().top - other.getBoundingClientRect().top"
        drawn = reader.page.evaluate(f"{texts}.sort({from_above}).map(each => each.textContent)")
        assert drawn == expected
        reader.page.keyboard.press("ArrowRight")


def test_it_opens_on_what_the_first_search_found_and_texts_of_limits_stand_apart(
    read: Callable[..., Any], search_of: MakeSearch
) -> None:
    """The first is the one of which there are bundles, also where another one found something faster."""
    first = search_of({"jetson-nano": [(80, 1.0), (90, 2.0)]}, limit_ms=4.0)
    faster = search_of({"jetson-nano": [(99, 0.5)]}, limit_ms=4.1, name="other.json")
    far = search_of({"jetson-nano": [(99, 0.5)]}, limit_ms=40.0, name="far.json")
    reader = read(PageMaterial((), (first, faster, far), ()), 360)
    assert reader.page.inner_text("#candidate-name") == first.result.results[0].pick
    boxes = [
        each.bounding_box()
        for each in reader.page.locator("#candidates-plot .mark-text text").all()
        if "limit" in each.text_content()
    ]
    assert len(boxes) == 3
    ends = sorted(box["y"] + box["height"] for box in boxes)
    line = min(box["height"] for box in boxes)
    assert min(later - before for before, later in itertools.pairwise(ends)) >= 0.9 * line


def test_a_lone_card_has_the_whole_row_and_the_top_is_a_click_away(
    read: Callable[..., Any], search_of: MakeSearch
) -> None:
    devices = {name: [(80, 1.0), (90, 2.0)] for name in "abcd"}
    reader = read(PageMaterial((), (search_of(devices),), ()))
    cards = [each.bounding_box()["width"] for each in reader.page.locator(".answers > .card").all()]
    assert cards[-1] > 2.5 * cards[0]
    reader.page.locator("#words").scroll_into_view_if_needed()
    reader.page.get_by_role("link", name="To the top").last.click()
    reader.page.wait_for_function("() => document.querySelector('#glance').getBoundingClientRect().top > -10")


def test_all_is_drawn_when_a_page_is_printed_at_once(
    chromium: Any, search_of: MakeSearch, run_of: Callable[..., Any], tmp_path: Path
) -> None:
    """Before the page has drawn anything by itself; and on paper every front has its title, and the plot its device."""
    material = PageMaterial((run_of([([0, 1], {}), ([0, 1], {})]),), (search_of({"a": KNOWN, "b": KNOWN}),), ())
    page = chromium.new_page()
    # Nothing that the page puts off is done: whoever prints is faster.
    page.add_init_script("window.setTimeout = () => 0")
    page.goto(written(material, tmp_path).as_uri())
    assert page.locator(".plot svg").count() == 0
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator(".plot svg").count() == page.locator(".plot").count() > 5
    page.emulate_media(media="print")
    assert page.locator("[data-front] summary").all_inner_texts() == ["a: 2 on the front", "b: 2 on the front"]
    assert all(each.is_visible() for each in page.locator("[data-front] table").all())
    assert page.inner_text("#candidates-title").startswith("a: accuracy against")
    assert page.locator("#words dd").first.is_visible()
    assert not page.locator(".up").first.is_visible()
    page.close()


def test_on_paper_what_a_device_gets_is_a_card_as_wide_as_its_words(
    read: Callable[..., Any], search_of: MakeSearch
) -> None:
    """As on a phone: eight columns beside each other are a word wide."""
    reader = read(PageMaterial((), (search_of({"a": KNOWN, "b": KNOWN}),), ()))
    reader.page.emulate_media(media="print")
    reader.page.set_viewport_size({"width": 720, "height": 1000})
    assert reader.page.locator("#glance .gets .head").first.is_visible()
    assert reader.page.locator("#glance .gets td").nth(1).bounding_box()["width"] > 250


def test_a_mark_says_its_values_where_it_is_pointed_at(read: Callable[..., Any], run_of: Callable[..., Any]) -> None:
    reader = read(PageMaterial((run_of([([0, 1], {}), ([0, 1], {}), ([0, 1], {})]),), (), ()))
    point = reader.page.locator("#figure-run-1-loss svg .mark-symbol path").nth(1)
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    reader.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    reader.page.wait_for_function("() => !document.querySelector('#tip').hidden")
    told = reader.page.inner_text("#tip")
    assert "loss" in told
    assert "round" in told
    assert "\n2" in told
    reader.page.mouse.move(2, 2)
    reader.page.wait_for_function("() => document.querySelector('#tip').hidden")


def test_keys_lead_to_both_ends_of_the_front_and_back_to_it(read: Callable[..., Any], search_of: MakeSearch) -> None:
    known = [(70, 1.0), (80, 2.0), (60, 2.5), (50, 2.6)]
    reader = read(PageMaterial((), (search_of({"a": known}), search_of({"a": KNOWN}, name="b.json")), ()))
    plot = reader.page.locator("#candidates")
    plot.focus()
    reader.page.keyboard.press("End")
    assert plot.get_attribute("aria-valuenow") == plot.get_attribute("aria-valuemax")
    assert ": 50.0 %" in plot.get_attribute("aria-valuetext")
    reader.page.keyboard.press("ArrowUp")
    assert "candidate:" not in plot.get_attribute("aria-valuetext"), "the last of the front"
    picks = set()
    for _ in range(2):
        reader.page.keyboard.press("Home")
        picks.add((plot.get_attribute("aria-valuenow"), reader.page.inner_text("#candidate-facts dd >> nth=0")))
    assert {told for _, told in picks} == {"the pick, search.json", "the pick, b.json"}
    assert not reader.page.locator("#objective").is_visible(), "nothing to choose"
    button = reader.page.locator("button[data-arch]").last
    button.click()
    reader.page.locator("#back").wait_for()
    reader.page.locator("#back button").click()
    assert button.evaluate("each => each === document.activeElement")
    assert not reader.page.locator("#back").is_visible()


@pytest.mark.parametrize("width", [360, 640])
def test_on_a_phone_no_wide_table_is_beyond_the_edge(
    read: Callable[..., Any], search_of: MakeSearch, width: int
) -> None:
    """Its rows are cards, with the head of each column."""
    reader = read(PageMaterial((), (search_of({"a": KNOWN}), search_of({"a": KNOWN}, name="b.json")), ()), width)
    tables = reader.page.locator(".stack:visible")
    assert tables.count() > 2
    assert max(tables.evaluate_all("all => all.map(each => each.getBoundingClientRect().right)")) <= width
    heads = reader.page.locator("[data-front][open] .head").all_inner_texts()
    assert heads[:3] == ["is", "accuracy, chosen by", "latency"]
    legend = reader.page.locator("#candidates-plot svg .role-legend-label text")
    assert set(legend.all_text_contents()) == {"search.json", "b.json", "candidate", "front", "pick"}
    assert max(legend.evaluate_all("all => all.map(each => each.getBoundingClientRect().right)")) <= width
