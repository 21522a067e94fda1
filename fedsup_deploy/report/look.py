"""How a page and its plots look: the one list of colours and sizes. Plots name styles, never a colour."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from fedsup_deploy.artifact.document import JsonObject

#: Colours on white, as in pictures and on paper; each has a contrast of 3 or more, text of 4.5 or more.
LIGHT: Final[Mapping[str, str]] = MappingProxyType(
    {
        "paper": "#ffffff",
        "raised": "#f4f6f8",
        "ink": "#16191d",
        "muted": "#525a63",
        "grid": "#dfe3e7",
        "faint": "#7d8690",
        "one": "#0b5cad",
        "two": "#b04a00",
        "three": "#12713f",
        "four": "#7a3aa8",
        "limit": "#b3001e",
    }
)
#: The same on black.
DARK: Final[Mapping[str, str]] = MappingProxyType(
    {
        "paper": "#14171a",
        "raised": "#1d2126",
        "ink": "#e9ecef",
        "muted": "#adb5bd",
        "grid": "#343a40",
        "faint": "#868e96",
        "one": "#74b9f7",
        "two": "#f4a261",
        "three": "#74d3a1",
        "four": "#cda5f3",
        "limit": "#ff8080",
    }
)
#: Whatever the reader has chosen: the page's own variables.
OF_PAGE: Final[Mapping[str, str]] = MappingProxyType({name: f"var(--{name})" for name in LIGHT})

SERIES: Final = ("one", "two", "three", "four")
FONT: Final = "system-ui, 'DejaVu Sans', sans-serif"

#: A mark says its own values where it is pointed at.
_TOLD: Final[JsonObject] = {"tooltip": {"content": "encoding"}}


def config(colours: Mapping[str, str]) -> JsonObject:
    """Return the configuration of Vega-Lite: what marks of each style look like.

    Args:
        colours: By name: `LIGHT` or `OF_PAGE`.
    """
    ink, muted, paper = colours["ink"], colours["muted"], colours["paper"]
    label: JsonObject = {"font": FONT, "fontSize": 12}
    axis: JsonObject = {
        "labelFont": FONT,
        "titleFont": FONT,
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
    }
    styles: JsonObject = {
        "range": {"color": muted, "strokeWidth": 1, "opacity": 0.8},
        "limit": {"color": colours["limit"], "strokeWidth": 2, "strokeDash": [6, 4]},
        "limit-text": {**label, "color": colours["limit"]},
        "small-text": {**label, "color": ink, "fontSize": 11},
        "bar": {"color": colours["one"]},
        "share": {"color": colours["one"], "stroke": colours["grid"], "strokeWidth": 0.5},
        "ring": {"color": ink, "strokeWidth": 2.5},
    }
    return {
        "aria": False,
        "background": "transparent" if paper.startswith("var(") else paper,
        "font": FONT,
        "view": {"stroke": "transparent"},
        "axis": {
            **axis,
            "labelColor": muted,
            "titleColor": ink,
            "gridColor": colours["grid"],
            "domainColor": colours["faint"],
            "tickColor": colours["faint"],
            "labelLimit": 130,
            "titlePadding": 8,
            "labelOverlap": True,
        },
        "legend": {
            **axis,
            "labelColor": ink,
            "titleColor": ink,
            "orient": "top",
            "title": None,
            "labelLimit": 200,
            "symbolOpacity": 1,
            "symbolFillColor": muted,
            "symbolStrokeColor": muted,
        },
        "title": {"anchor": "start", "color": ink, "font": FONT, "fontSize": 14, "offset": 12},
        "range": {"category": [colours[name] for name in SERIES]},
        "line": {"strokeWidth": 2, "color": colours["one"]},
        "point": {"size": 50, "filled": True, "color": colours["one"], "opacity": 1, **_TOLD},
        "rule": {"color": muted},
        "text": {"color": ink},
        "area": {"opacity": 0.2},
        "bar": {"color": colours["one"], **_TOLD},
        "rect": _TOLD,
        "tick": _TOLD,
        "style": styles,
    }
