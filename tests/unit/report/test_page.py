"""The page as a file; what a reader sees of it is tested in a browser (`tests/e2e/test_report_page.py`)."""

import base64
import dataclasses
import hashlib
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest

from fedsup_deploy import resources
from fedsup_deploy.config.load import load_yaml, validate
from fedsup_deploy.report import glossary, library, look
from fedsup_deploy.report.mistakes import Mistake, Mistakes
from fedsup_deploy.report.page import PageMaterial, render
from fedsup_deploy.space.search_space import SearchSpace

pytest.importorskip("vl_convert", reason=f"the extra report ({library.INSTALL})")

POLICY = re.compile(r'http-equiv="Content-Security-Policy" content="([^"]*)"')


class Parts(HTMLParser):
    """What stands in scripts and styles, and which elements there are."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.inside: list[tuple[str, dict[str, str | None], str]] = []
        self.ids: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside.append((tag, dict(attrs), ""))
        self.ids += [value for name, value in attrs if name == "id" and value is not None]

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002  what comes after belongs to no element
        self.inside.append(("", {}, ""))

    def handle_data(self, data: str) -> None:
        if self.inside:
            tag, attributes, text = self.inside[-1]
            self.inside[-1] = (tag, attributes, text + data)

    def texts(self, tag: str) -> list[tuple[dict[str, str | None], str]]:
        return [(attributes, text) for found, attributes, text in self.inside if found == tag]


@pytest.fixture
def report(run_of: Callable[..., Any], search_of: Callable[..., Any], bundle_of: Callable[..., Any]) -> PageMaterial:
    known = {"jetson-nano": [(80, 1.0), (90, 2.0)]}
    return PageMaterial((run_of([([0], {})]),), (search_of(known),), (bundle_of(),))


def hashed(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_its_policy_lets_in_its_own_style_and_scripts_and_nothing_else(report: PageMaterial) -> None:
    page = render(report)
    found = POLICY.search(page)
    assert found is not None
    parts = Parts(page)
    scripts = [text for attributes, text in parts.texts("script") if attributes.get("type") is None]
    [(_, style)] = parts.texts("style")
    assert len(scripts) == 2
    rules = dict(rule.strip().split(" ", 1) for rule in found[1].split(";"))
    assert rules == {
        "default-src": "'none'",
        "script-src": " ".join(map(hashed, scripts)),
        "style-src": hashed(style),
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert not any("style" in attributes for _, attributes, _ in parts.inside)


def test_images_are_let_in_only_where_there_are_some_and_a_file_shows_them_once(report: PageMaterial) -> None:
    found = Mistakes((Mistake(b"png", "a", "b", 0.875),), 3, 100, "test images")
    plain = report.bundles[0]
    both = tuple(dataclasses.replace(plain, mistakes=each) for each in (found, found, "its run is not there"))
    page = render(dataclasses.replace(report, bundles=both))
    policy = POLICY.search(page)
    assert policy is not None
    assert "img-src data:;" in policy[1]
    assert page.count('<img alt="an image of a, taken for b"') == 1
    assert "3 of 100 test images; the 1 it is surest of." in page
    assert f"Its file is that of {plain.name}, where they are shown." in page
    assert "Not shown: its run is not there." in page
    assert "img-src" not in render(report)
    none = Mistakes((), 0, 100, "test images")
    right = render(dataclasses.replace(report, bundles=(dataclasses.replace(plain, mistakes=none),)))
    assert "None of 100 test images." in right
    assert "img-src" not in right


def test_bundles_of_one_network_show_its_figures_once(report: PageMaterial) -> None:
    [bundle] = report.bundles
    other = dataclasses.replace(bundle, manifest=bundle.manifest.model_copy(update={"arch_id": "b" * 12}))
    page = render(dataclasses.replace(report, bundles=(bundle, other)))
    assert page.count('id="figure-bundle-1-network"') == 1
    assert 'id="figure-bundle-2-network"' not in page
    assert f'are those of <a href="#bundle-1">{bundle.name}</a>' in page
    third = bundle.manifest.model_copy(update={"accuracy": bundle.manifest.accuracy.model_copy(update={"split": "b"})})
    apart = render(dataclasses.replace(report, bundles=(bundle, dataclasses.replace(bundle, manifest=third))))
    assert 'id="figure-bundle-2-network"' in apart


def test_the_title_tells_pages_of_one_run_apart_and_words_are_explained(report: PageMaterial) -> None:
    page = render(report)
    assert "<title>a-run: 2 devices: fedsup-deploy report</title>" in page
    assert '<a href="#explorer">All candidates</a>' in page
    assert all(f"<dt>{word}</dt>" in page for word, _ in glossary.WORDS)


def test_every_plot_has_its_place_and_every_name_is_there_once(report: PageMaterial) -> None:
    parts = Parts(render(report))
    assert len(set(parts.ids)) == len(parts.ids)
    [figures] = [
        json.loads(text) for attributes, text in parts.texts("script") if attributes.get("id") == "data-figures"
    ]
    places = [attributes["data-figure"] for _, attributes, _ in parts.inside if "data-figure" in attributes]
    assert sorted(figures) == sorted(map(str, places))
    assert {figure.name for figure in report.pictures()} == {*figures, "search-1-jetson-nano"}


@pytest.mark.parametrize("kind", ["runs", "searches", "bundles"])
def test_one_kind_alone_is_a_page(report: PageMaterial, kind: str) -> None:
    alone = PageMaterial(**{name: getattr(report, name) if name == kind else () for name in vars(report)})
    assert "<h2" in render(alone)


def test_a_page_of_nine_devices_with_all_candidates_that_are_drawn_is_small(search_of: Callable[..., Any]) -> None:
    """Each device has others, of the space of 10,368 that is shipped; more are thinned out."""
    space = validate(load_yaml(resources.find("configs/spaces", "fedsup-mobilenet")), SearchSpace)
    genes = space.enumerate_genes()
    architectures = [space.decode(genes[at]) for at in range(0, len(genes), 5)]
    known = [(50 + at % 40, 1 + at / 1000) for at in range(230)]
    searches = tuple(
        search_of({f"device-{number}": known}, architectures=architectures[230 * number :], name=f"{number}")
        for number in range(9)
    )
    page = render(PageMaterial((), searches, ()))
    assert len(json.loads(Parts(page).texts("script")[2][1])["architectures"]) >= 1900
    assert len(page.encode()) < 2_000_000


def test_no_plot_names_a_colour(report: PageMaterial) -> None:
    """So that light, dark and paper are one list."""
    for figure in report.pictures():
        assert re.findall(r"#[0-9a-f]{3,8}|rgb|var\(", json.dumps(figure.spec)) == []


@pytest.mark.parametrize("colours", [look.LIGHT, look.DARK])
def test_colours_can_be_told_from_what_is_behind_them(colours: dict[str, str]) -> None:
    """By the contrast that WCAG 2 asks for: 4.5 of text, 3 of what is drawn."""
    for name in ("ink", "muted", "limit", "one"):
        assert min(contrast(colours[name], colours[behind]) for behind in ("paper", "raised")) >= 4.5, name
    for name in (*look.SERIES, "faint"):
        assert min(contrast(colours[name], colours[behind]) for behind in ("paper", "raised")) >= 3, name


def contrast(one: str, other: str) -> float:
    low, high = sorted(map(luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(share * part for share, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
