"""The page of `fedsup-deploy report` as a reader meets it: in a browser, without a network, by hand and by keyboard."""

import contextlib
import dataclasses
import json
import re
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fedsup_deploy.ondevice.printable import printable

MOST_BYTES = 2_000_000
MOST_MS_TO_FIRST_PAINT = 1000
#: Markup, script, ends of the elements that it may stand in, what templates and plots would compute, and controls.
HOSTILE = (
    "</script><script>document.title='taken'</script><img src=x onerror=document.title='taken'>"
    "\"'&lt;{{7*7}}\u2028\u202e\x07"
)


@dataclasses.dataclass(frozen=True)
class Made:
    """A page, and what it is about.

    Args:
        page: The file.
        plots: The pictures.
        search: The document of the search.
    """

    page: Path
    plots: tuple[Path, ...]
    search: Any


@pytest.fixture(scope="module")
def made(workshop: Any, searched: Any, exported: Any) -> Made:
    """The page of a search for two devices, another search with its bundle, which so comes first, and a run."""
    devices = ("--profile", "jetson-nano", "--profile", "x86-laptop", "--max-latency-ms", "0.75")
    workshop.json("search", *devices, "--max-artifacts", "1", "--out", "two.json")
    asked = workshop.json("evaluate", "runs/digits", "--arch", "smallest", "--per-client")
    (workshop.folder / "clients.json").write_text(json.dumps(asked))
    words = ("two.json", searched["out"], exported["folder"], "runs/digits", "clients.json")
    told = workshop.json("report", *words, "--out", "looked.html", "--plots", "plots", "--mistakes")
    assert told["num_bytes"] == (workshop.folder / "looked.html").stat().st_size
    assert [len(told[kind]) for kind in ("runs", "searches", "bundles", "evaluations")] == [1, 2, 1, 1]
    plots = tuple(workshop.folder / path for path in told["plots"])
    return Made(workshop.folder / "looked.html", plots, json.loads((workshop.folder / "two.json").read_text()))


@pytest.fixture
def read(chromium: Any, pages: dict[str, Any]) -> Iterator[Callable[..., Any]]:
    """Open a page; at the end it has said nothing, and asked for nothing."""
    readers = []
    with contextlib.ExitStack() as stack:

        def open_page(path: Path, width: int = 1280, scheme: str = "light", **options: Any) -> Any:
            reading = pages["reading"](chromium, path, pages["Look"](width, scheme), **options)
            readers.append(stack.enter_context(reading))
            return readers[-1]

        yield open_page
        assert [reader.said for reader in readers] == [[]] * len(readers)
        assert [reader.asked for reader in readers] == [[]] * len(readers)


def named(reader: Any) -> str:
    return str(reader.page.inner_text("#candidate-name"))


def pick_of(made: Made, device: str) -> str:
    """Return what a device gets: there is one architecture for both."""
    return str(made.search["fleet"]["options"][0]["assigned"][device])


def test_the_same_input_gives_the_same_page(workshop: Any, made: Made) -> None:
    """With pictures or without."""
    words = ("two.json", "runs/digits/search.json", "exports", "runs/digits", "clients.json")
    workshop.json("report", *words, "--out", "again.html", "--mistakes")
    assert (workshop.folder / "again.html").read_bytes() == made.page.read_bytes()


def test_the_page_is_small_and_names_no_machine(made: Made, workshop: Any) -> None:
    content = made.page.read_text(encoding="utf-8")
    assert made.page.stat().st_size < MOST_BYTES
    assert str(workshop.folder) not in content
    markup = re.sub(r"(<script[^>]*>).*?</script>", r"\1", content, flags=re.DOTALL)
    assert markup.count("<script") == 5
    addresses = re.findall(r"<(?:script|link|img|iframe)[^>]*\b(?:src|href)=\"([^\"]*)", markup)
    assert {each.partition(",")[0] for each in addresses} == {"data:image/png;base64"}


def test_every_plot_is_a_picture_twice(made: Made) -> None:
    by_name: dict[str, set[str]] = {}
    for path in made.plots:
        by_name.setdefault(path.stem, set()).add(path.suffix)
        if path.suffix == ".svg":
            assert ET.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"
            assert "var(--" not in path.read_text(encoding="utf-8")
        else:
            assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert set(map(frozenset, by_name.values())) == {frozenset({".svg", ".png"})}
    figures = set(re.findall(r'data-figure="([^"]+)"', made.page.read_text(encoding="utf-8")))
    assert by_name.keys() - figures == {"search-1-jetson-nano", "search-2-jetson-nano", "search-2-x86-laptop"}
    assert figures <= by_name.keys()


def test_it_is_painted_at_once(read: Any, made: Made) -> None:
    assert min(read(made.page).first_paint_ms() for _ in range(3)) < MOST_MS_TO_FIRST_PAINT


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 800, 1280])
def test_it_is_read_on_any_screen(read: Any, made: Made, width: int, scheme: str) -> None:
    """Nothing of the page is beyond the edge, and every plot is drawn, in the colours of the scheme."""
    reader = read(made.page, width, scheme)
    assert not reader.is_too_wide()
    plots = reader.page.locator(".plot svg")
    assert plots.count() == reader.page.locator(".plot").count() > 10
    widths = plots.evaluate_all("all => all.map(each => each.getBoundingClientRect().width)")
    assert max(widths) <= width
    assert min(widths) > 200
    colours = reader.page.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    light, dark = "rgb(255, 255, 255)", "rgb(20, 23, 26)"
    assert colours[0] == (light if scheme == "light" else dark)
    label = reader.page.locator(".plot svg .role-axis-title text").first
    assert label.evaluate("each => getComputedStyle(each).fill") == colours[1]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_anybody_can_use_it(chromium: Any, pages: dict[str, Any], made: Made, scheme: str) -> None:
    """As far as axe-core tells. It is put into the page, which lets no script in: so without the policy."""
    from axe_playwright_python.sync_playwright import Axe

    with pages["reading"](chromium, made.page, pages["Look"](1000, scheme), bypass_csp=True) as reader:
        found = Axe().run(reader.page).response["violations"]
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found] == []


def test_the_first_screen_says_what_everybody_asks(read: Any, made: Made) -> None:
    """Without a scroll of more than a screen, and where the rest of the page says the same."""
    reader = read(made.page)
    text = reader.page.inner_text("#glance")
    for device in ("jetson-nano, at most 0.75 ms (two.json)", "x86-laptop, at most 0.75 ms (two.json)"):
        assert device in text
    assert pick_of(made, "jetson-nano") in text
    questions = reader.page.locator("#glance .asked dt").all_inner_texts()
    assert len(questions) == len(set(questions)) == 11
    assert all(reader.page.locator("#glance .asked dd").all_inner_texts())
    assert reader.page.locator("#glance").bounding_box()["y"] < 200
    worst = reader.page.locator("#figure-clients-1-accuracy table tbody th").first
    assert f": {worst.text_content()} " in text


@pytest.mark.parametrize("width", [360, 800, 1280, 1920])
def test_what_each_device_gets_is_seen_whole(read: Any, made: Made, width: int) -> None:
    """Every column of it, with its head; and its rows lead to the card and the bundle of the device."""
    reader = read(made.page, width)
    cells = reader.page.locator("#glance .gets tbody :is(th, td)")
    assert cells.count() == 8 * 3
    boxes = cells.evaluate_all(
        "all => all.map(each => [each.getBoundingClientRect().left, each.getBoundingClientRect().right, "
        "each.scrollWidth - each.clientWidth])"
    )
    for left, right, hidden in boxes:
        assert left >= 0
        assert right <= width
        assert hidden <= 1
    assert reader.page.locator("#glance .gets .head").first.is_visible() == (width <= 1000)
    links = reader.page.locator("#glance .gets a").evaluate_all("all => all.map(each => each.getAttribute('href'))")
    assert "#search-2-device-2" in links
    assert "#bundle-1" in links
    assert all(reader.page.locator(link).count() == 1 for link in links)


def test_the_fronts_follow_the_chosen_device(read: Any, made: Made) -> None:
    reader = read(made.page)
    reader.choose("device", value="x86-laptop")
    fronts = reader.page.locator("[data-front]").evaluate_all("all => all.map(each => [each.dataset.front, each.open])")
    assert ["x86-laptop", True] in fronts
    assert all(is_open == (device == "x86-laptop") for device, is_open in fronts)


def test_the_words_of_a_network_stand_beside_its_bars(read: Any, made: Made) -> None:
    reader = read(made.page)
    bars = reader.page.locator("#figure-bundle-1-network svg .mark-rect.role-mark path")
    texts = reader.page.locator("#figure-bundle-1-network svg .mark-text.role-mark text")
    edges = "all => all.map(each => [each.getBoundingClientRect().left, each.getBoundingClientRect().right])"
    plot = reader.page.locator("#figure-bundle-1-network .plot").bounding_box()
    assert bars.count() == texts.count() > 1
    for (_, bar), (left, right) in zip(bars.evaluate_all(edges), texts.evaluate_all(edges), strict=True):
        assert bar <= left
        assert right <= plot["x"] + plot["width"]


def test_what_a_bundle_gets_wrong_is_shown(read: Any, made: Made, bundle: Path) -> None:
    """Images of the server, of which the bundle's accuracy is, drawn as they are."""
    reader = read(made.page)
    images = reader.page.locator("#bundle-1 .wrong img")
    assert 0 < images.count() <= 12
    sizes = images.evaluate_all("all => all.map(each => [each.complete, each.naturalWidth, each.naturalHeight])")
    assert sizes == [[True, 8, 8]] * images.count()
    told = reader.page.locator("#bundle-1 .wrong p").all_inner_texts()
    parts = [re.fullmatch(r"is (\d)\s*said (\d) \((\d+) %\)", each.strip()) for each in told]
    found = [(each[1], each[2], int(each[3])) for each in parts if each]
    assert len(found) == images.count()
    assert all(truth != said for truth, said, _ in found)
    assert [share for *_, share in found] == sorted((share for *_, share in found), reverse=True)
    [(wrong, of)] = re.findall(r"(\d+) of (\d+) test images of digits", reader.page.inner_text("#bundle-1"))
    accuracy = json.loads((bundle / "manifest.json").read_text())["accuracy"]
    assert int(of) == accuracy["num_samples"]
    assert int(wrong) == round((1 - accuracy["recalibrated"]) * int(of))


def test_what_is_pointed_at_is_shown_as_blocks(read: Any, made: Made) -> None:
    """And a click keeps it."""
    reader = read(made.page)
    reader.choose("device", value="x86-laptop")
    pick = pick_of(made, "x86-laptop")
    assert named(reader) == pick
    assert "the pick" in reader.page.inner_text("#candidate-facts")
    marks = reader.page.locator("#candidates-plot .mark-symbol.role-mark").last.locator("path")
    seen, blocks = set(), set()
    for mark in marks.all()[:12]:
        mark.hover(force=True)
        seen.add(named(reader))
        blocks.add(reader.page.locator("#candidate-blocks .role-mark.mark-text text").all_text_contents().__str__())
    assert len(seen) > 3
    assert len(blocks) > 1
    reader.page.mouse.move(2, 2)
    assert named(reader) == pick
    marks.first.click(force=True)
    kept = named(reader)
    reader.page.mouse.move(2, 2)
    assert named(reader) == kept


def test_the_figures_of_a_candidate_are_those_of_the_search(read: Any, made: Made) -> None:
    reader = read(made.page)
    reader.choose("device", value="x86-laptop")
    pick = pick_of(made, "x86-laptop")
    assert named(reader) == pick
    result = next(each for each in made.search["results"] if each["profile"]["name"] == "x86-laptop")
    chosen = next(each for each in result["candidates"] if each["arch_id"] == pick)
    facts = reader.page.inner_text("#candidate-facts")
    low, high = chosen["accuracy_interval"]
    assert f"{100 * chosen['accuracy']:.1f} % ({100 * low:.1f} to {100 * high:.1f}), 202 images" in facts
    assert f"{chosen['num_macs']:,}" in facts
    held = chosen["latency_percentile_ms"]
    mape = result["profile"]["error"]["mape"]
    off = f"({held * (1 - mape):.3g} to {held * (1 + mape):.3g})"
    assert f"{held:.3g} {off}, {round(100 * held / 0.75)} % of the limit" in facts
    assert reader.page.locator("#candidate-blocks .role-mark.mark-text text").count() == 1 + sum(
        map(len, chosen["architecture"]["stages"])
    )


def test_device_price_and_objective_can_be_changed(read: Any, made: Made) -> None:
    reader = read(made.page)
    titles = reader.page.locator("#candidates-plot .role-axis-title text")
    assert "latency" in titles.first.text_content()
    reader.choose("price", value="macs")
    assert "multiply-accumulates" in titles.all_text_contents()
    reader.choose("device", value="x86-laptop")
    assert named(reader) == pick_of(made, "x86-laptop")
    assert reader.page.input_value("#price") == "macs"
    assert "multiply-accumulates" in titles.all_text_contents()


def test_it_is_used_by_keyboard_alone(read: Any, made: Made) -> None:
    """From the top of the page to a candidate, along the candidates and the front, and back to the pick."""
    reader = read(made.page)
    keyboard = reader.page.keyboard
    for _ in range(60):
        keyboard.press("Tab")
        if reader.page.evaluate("document.activeElement.id") == "candidates":
            break
    plot = reader.page.locator("#candidates")
    assert plot.evaluate("each => each === document.activeElement")
    pick = named(reader)
    number = int(plot.get_attribute("aria-valuenow"))
    step = "ArrowRight" if number < int(plot.get_attribute("aria-valuemax")) else "ArrowLeft"
    for _ in range(2):  # the other search may have the same
        keyboard.press(step)
    assert abs(int(plot.get_attribute("aria-valuenow")) - number) in {1, 2}
    assert named(reader) != pick
    assert named(reader) in plot.get_attribute("aria-valuetext")
    for _ in range(200):
        keyboard.press("ArrowLeft")
    assert plot.get_attribute("aria-valuenow") == "1"
    keyboard.press("Home")
    assert named(reader) == pick
    button = reader.page.locator('button[data-arch][aria-pressed="true"]').first
    assert button.inner_text() == pick
    reader.page.locator('button[data-device="x86-laptop"]').first.evaluate(
        "each => each.closest('details').open = true"
    )
    other = reader.page.locator('button[data-device="x86-laptop"]').first
    other.focus()
    keyboard.press("Enter")
    reader.wait()
    assert named(reader) == other.inner_text()
    assert reader.page.input_value("#device") == "x86-laptop"


def test_it_prints(read: Any, made: Made, tmp_path: Path) -> None:
    """Light, whatever the screen is, and on paper there is nothing to choose with."""
    reader = read(made.page, 1280, "dark")
    content = reader.page.pdf(path=tmp_path / "page.pdf", format="A4", print_background=True)
    assert content.startswith(b"%PDF")
    assert content.count(b"/Type /Page\n") > 2
    reader.page.emulate_media(media="print")
    assert reader.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not reader.page.locator(".controls").is_visible()
    assert reader.page.locator("#figure-run-1-loss svg").is_visible()


def test_without_its_script_all_values_are_there(chromium: Any, pages: dict[str, Any], made: Made) -> None:
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(made.page.resolve().as_uri())
    assert "drawn by its own script" in page.inner_text("noscript")
    for arch_id in (pick_of(made, "jetson-nano"), pick_of(made, "x86-laptop")):
        assert arch_id in page.inner_text("#search-2")
    context.close()


@pytest.fixture
def hostile(workshop: Any, made: Made, exported: Any, tmp_path: Path) -> Path:
    """A page of a run, a search and a bundle in which every name that others choose is an attack."""
    run, bundle, search = tmp_path / "run", tmp_path / "bundle", tmp_path / "search.json"
    shutil.copytree(workshop.folder / "runs" / "digits", run)
    shutil.copytree(workshop.folder / exported["folder"], bundle)
    classes = [f"{index}{HOSTILE}" for index in range(10)]
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["classes"] = classes
    for each, name in zip(manifest["accuracy"]["measures"]["classes"], classes, strict=True):
        each["name"] = name
    manifest["accuracy"] |= {"dataset": HOSTILE, "split": HOSTILE}
    manifest |= {"left_out": {f"int8{HOSTILE}": HOSTILE}, "versions": {HOSTILE: HOSTILE}, "processor": HOSTILE}
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    (bundle / "measured.json").unlink(missing_ok=True)
    document = made.search
    document = {**document, "run": {**document["run"], "name": HOSTILE}, "processor": HOSTILE}
    document["space"] = {**document["space"], "name": HOSTILE}
    search.write_text(json.dumps(document))
    facts = json.loads((run / "data.json").read_text())
    facts |= {"classes": classes, "class_counts": [10] * 10}
    facts["clients"] |= {"names": [f"{index}{HOSTILE}" for index in range(facts["clients"]["num_clients"])]}
    (run / "data.json").write_text(json.dumps(facts))
    lines = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    for line in lines:
        if line["event"] == "round":
            line["absent"] = {str(line["clients"][0]): HOSTILE}
        if line["event"] == "train_started":
            line["notes"] = [HOSTILE]
    lines.append({"event": "health", "round": 0, "kind": "k", "subject": "", "words": HOSTILE, "figures": {}})
    (run / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    asked = json.loads((workshop.folder / "clients.json").read_text())
    asked |= {"run": HOSTILE, "arch_id": HOSTILE}
    for each in asked["clients"]["each"]:
        each["name"] = f"{each['client']}{HOSTILE}"
    (tmp_path / "clients.json").write_text(json.dumps(asked))
    # The folder's name is a name, too, but for what no file can be called.
    renamed = tmp_path / HOSTILE.replace("/", "").replace("\0", "")
    run.rename(renamed)
    told = workshop.json(
        *("report", search, bundle, renamed, tmp_path / "clients.json"),
        *("--out", tmp_path / "hostile.html", "--plots", tmp_path / "plots"),
    )
    assert told["num_bytes"] > 0
    return tmp_path / "hostile.html"


def test_text_of_others_is_text_everywhere(read: Any, hostile: Path) -> None:
    """In tables, attributes, plots and pictures. Nothing of it is markup, a script, or a command to a screen."""
    reader = read(hostile)
    page, shown = reader.page, printable(HOSTILE)
    assert "taken" not in page.title().partition("document.title")[0]
    assert page.evaluate("document.querySelectorAll('img, iframe, object').length") == 0
    text = page.evaluate("document.body.textContent")
    assert text.count(shown) > 20
    for sign in ("\u2028", "\u202e", "\x07"):
        assert sign not in text
        assert sign not in hostile.read_text(encoding="utf-8")
    drawn = page.locator("#figure-bundle-1-recall svg").evaluate("each => each.textContent")
    assert "0</script><script" in drawn  # and no more, for it is long
    table = page.locator("#figure-bundle-1-recall table").evaluate("each => each.textContent")
    assert f"0{shown}" in table
    assert page.locator("#figure-bundle-1-recall [role=img]").get_attribute("aria-label").startswith("Recall")
    for picture in hostile.parent.joinpath("plots").glob("*.svg"):
        tags = {each.tag.rpartition("}")[2] for each in ET.parse(picture).iter()}
        assert tags.isdisjoint({"script", "img", "image", "foreignObject"})


def test_pictures_for_the_documentation_can_be_made(
    chromium: Any, pages: dict[str, Any], made: Made, tmp_path: Path
) -> None:
    written = pages["shoot"](chromium, made.page, tmp_path / "pictures")
    assert [path.stem for path in written] == [f"report-{name}" for name in pages["SHOTS"]]
    assert all(path.stat().st_size > 2000 for path in written)


def test_the_shipped_pictures_are_those_that_the_tool_makes(repository: Path, pages: dict[str, Any]) -> None:
    shipped = {path.stem for path in (repository / "docs" / "pictures").glob("report-*.png")}
    assert shipped == {f"report-{name}" for name in pages["SHOTS"]}
