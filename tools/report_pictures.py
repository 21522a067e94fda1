"""Write docs/pictures/ from a report page, in Chromium. Run: python tools/report_pictures.py PAGE.

The page of `fedsup-deploy demo` is what they are made of. `tests/e2e/test_report_page.py` reads pages with the same
`Reader`. Needs the extra `browser`, and Debian's package chromium.
"""

import contextlib
import io
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"
NEEDED = "Chromium (install chromium, and `pip install 'fedsup-deploy[browser]'`)"
#: Whatever is drawn is drawn by then, also where all cores are busy.
DEADLINE_MS = 120_000
HEIGHT = 900


class Look(NamedTuple):
    """How a page is looked at."""

    width: int
    scheme: str


#: What a picture shows: the elements, below each other, and how they are looked at.
SHOTS = {
    "overview": (("#glance .gets", "#explorer .explorer"), Look(1120, "light")),
    "glance": (("#glance",), Look(1120, "light")),
    "search": (("#explorer .explorer",), Look(1280, "light")),
    "devices": (("#search-1 .answers",), Look(1280, "light")),
    "bundle": (("#bundle-1 .figures",), Look(1280, "light")),
    "training": (("#run-1 .figures",), Look(1280, "dark")),
    "phone": (("#explorer .explorer",), Look(360, "dark")),
}
#: Between two elements of a picture, pixels.
GAP = 16


class Reader:
    """A page that is open in a browser, and what it should not have done.

    Attributes:
        page: Of Playwright.
        said: Lines in its console, and errors.
        asked: What it asked for beside its own file.
    """

    def __init__(self, page: Any, path: Path) -> None:
        self.page, self.said, self.asked = page, list[str](), list[str]()
        page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("dialog", lambda dialog: (self.said.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.goto(path.resolve().as_uri())
        page.wait_for_selector("html[data-ready=true]", timeout=DEADLINE_MS)
        self.asked.remove(path.resolve().as_uri())

    def choose(self, control: str, **which: Any) -> None:
        """Choose an entry of one of the controls of the candidates, and wait until it is drawn."""
        self.page.select_option(f"#{control}", **which)
        self.wait()

    def wait(self) -> None:
        """Wait until the candidates are drawn."""
        self.page.wait_for_selector("#candidates[aria-busy=false]", timeout=DEADLINE_MS)

    def first_paint_ms(self) -> float:
        """Return when something could be seen."""
        entry = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
        return float(self.page.evaluate(entry))

    def is_too_wide(self) -> bool:
        """Return whether the page as a whole has to be moved sideways to be read."""
        return bool(self.page.evaluate("document.documentElement.scrollWidth > window.innerWidth"))


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """Yield the browser.

    Raises:
        LookupError: It, or what drives it, is not installed.
    """
    program = shutil.which("chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise LookupError(NEEDED) from error
    if program is None:
        raise LookupError(NEEDED)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program)
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def reading(browser: Any, path: Path, look: Look, **options: Any) -> Iterator[Reader]:
    """Yield a page, open in a window of its own."""
    size = {"width": look.width, "height": HEIGHT}
    context = browser.new_context(viewport=size, color_scheme=look.scheme, **options)
    try:
        yield Reader(context.new_page(), path)
    finally:
        context.close()


def shoot(browser: Any, path: Path, folder: Path) -> list[Path]:
    """Write the pictures of a page, of few colours, and return them."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, (elements, look) in SHOTS.items():
        with reading(browser, path, look) as reader:
            # The first device of the demo has few candidates.
            reader.choose("device", index=1)
            shots = [reader.page.locator(element).first.screenshot() for element in elements]
        written.append(folder / f"report-{name}.png")
        _stacked(shots).quantize(96).save(written[-1], optimize=True)
    return written


def _stacked(shots: list[bytes]) -> Any:
    """Return pictures below each other as one, on the colour of the first one's corner."""
    from PIL import Image

    pictures = [Image.open(io.BytesIO(shot)).convert("RGB") for shot in shots]
    height = sum(each.height for each in pictures) + GAP * (len(pictures) - 1)
    whole = Image.new("RGB", (max(each.width for each in pictures), height), pictures[0].getpixel((0, 0)))
    top = 0
    for each in pictures:
        whole.paste(each, (0, top))
        top += each.height + GAP
    return whole


if __name__ == "__main__":
    with chromium() as browser:
        for picture in shoot(browser, Path(sys.argv[1]), PICTURES):
            print(picture)
