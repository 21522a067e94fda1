"""The drawings of the documentation: those that the tool makes, and letters that can be read on a phone."""

import re
import runpy
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
TOOL = runpy.run_path(str(REPOSITORY / "tools" / "drawings.py"))
PICTURES = REPOSITORY / "docs" / "pictures"
SVG = "{http://www.w3.org/2000/svg}"
#: Of a letter in ems, on average, so that lines of text can be held against the edge without a browser.
EMS = 0.55

every_drawing = pytest.mark.parametrize("drawing", [make() for make in TOOL["DRAWINGS"]], ids=lambda each: each.name)


def test_there_is_no_other() -> None:
    made = {make().name for make in TOOL["DRAWINGS"]}
    assert {path.stem for path in PICTURES.glob("drawing-*")} == made
    pages = "\n".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "docs").glob("*.md"))
    assert set(re.findall(r"!\[[^]]+\]\(pictures/(drawing-[a-z]+)\.svg\)", pages)) == made


@every_drawing
def test_it_is_what_the_tool_makes(drawing: Any) -> None:
    file = PICTURES / f"{drawing.name}.svg"
    assert file.read_text(encoding="utf-8") == drawing.svg(), "run: python tools/drawings.py"


@every_drawing
def test_its_text_is_large_enough_and_within_its_edges(drawing: Any) -> None:
    root = ET.fromstring(drawing.svg())
    assert root[0].text
    assert "prefers-color-scheme: dark" in str(root[1].text)
    for text in root.findall(f"{SVG}text"):
        x, y, size = (float(text.get(name, "nan")) for name in ("x", "y", "font-size"))
        wide = EMS * size * len(text.text or "")
        start = x - {"start": 0.0, "middle": 0.5, "end": 1.0}[text.get("text-anchor", "start")] * wide
        assert size >= 12, text.text
        assert start >= 0, text.text
        assert start + wide <= TOOL["WIDTH"], text.text
        assert 0 < y < drawing.height, text.text
