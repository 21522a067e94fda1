"""Which search comes first, and which says that it holds."""

from collections.abc import Callable
from typing import Any

from fedsup_deploy.report import sections


def test_a_search_of_which_there_are_bundles_comes_first_and_says_so(
    search_of: Callable[..., Any], bundle_of: Callable[..., Any]
) -> None:
    other = search_of({"jetson-nano": [(70, 1.0)]}, name="other.json")
    held = search_of({"jetson-nano": [(80, 1.0), (90, 2.0)]})
    document = bundle_of().manifest.model_dump(mode="json", by_alias=True)
    bundle = bundle_of(arch_id=held.result.results[0].pick, profile=document["profile"] | {"name": "jetson-nano"})
    assert sections.in_order([other, held], [bundle]) == (held, other)
    assert sections.in_order([other, held], []) == (other, held)
    told = [dict(sections.search("s", each, [held, other], [bundle], []).facts.rows)["holds"] for each in (held, other)]
    assert told == [
        "bundles on this page are of it, for 1 of 1 device",
        "no bundle on this page is of it: they are of search.json",
    ]
    assert "holds" not in dict(sections.search("s", held, [held], [bundle], []).facts.rows)
