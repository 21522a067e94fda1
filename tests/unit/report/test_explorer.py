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


@pytest.fixture
def read(chromium: Any, pages: dict[str, Any], tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Open the page of some material in a browser."""
    with contextlib.ExitStack() as stack:

        def open_page(material: PageMaterial, width: int = 1280) -> Any:
            path = tmp_path / "page.html"
            path.write_text(render(material), encoding="utf-8")
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
    reader.page.get_by_role("link", name="To the top").click()
    reader.page.wait_for_function("() => document.querySelector('#glance').getBoundingClientRect().top > -10")
