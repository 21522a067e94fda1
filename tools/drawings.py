"""Write the drawings of docs/pictures/: how subnets share weights, what travels, a bundle's life.

Run: python tools/drawings.py. They are as wide as a phone, and light or dark as the reader's browser prefers.
"""

import html
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"
WIDTH = 400
#: The smallest letters, in pixels of a drawing that is shown as wide as it is.
TEXT, SMALL = 14, 12
STYLE = """\
svg { color-scheme: light dark; font-family: system-ui, 'DejaVu Sans', sans-serif; }
.paper { fill: #ffffff; } .box { fill: #f4f6f8; stroke: #7d8690; }
.line { stroke: #525a63; fill: none; stroke-width: 1.5; }
.tip { fill: #525a63; } .ink { fill: #16191d; } .muted { fill: #525a63; } .stays { fill: #b3001e; }
.one { fill: #0b5cad; } .two { fill: #74b9f7; } .three { fill: #dbe9f7; } .edge { stroke: #525a63; stroke-width: 0.75; }
@media (prefers-color-scheme: dark) {
.paper { fill: #14171a; } .box { fill: #1d2126; stroke: #868e96; } .line { stroke: #adb5bd; }
.tip { fill: #adb5bd; } .ink { fill: #e9ecef; } .muted { fill: #adb5bd; } .stays { fill: #ff8080; }
.one { fill: #74b9f7; } .two { fill: #2f6ea5; } .three { fill: #22384d; } .edge { stroke: #adb5bd; }
}"""


class Drawing(NamedTuple):
    """A drawing, and what it shows to those who cannot see it."""

    name: str
    height: int
    says: str
    parts: tuple[str, ...]

    def svg(self) -> str:
        """Return the file's text."""
        size = f'width="{WIDTH}" height="{self.height}" viewBox="0 0 {WIDTH} {self.height}"'
        head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="title">'
        paper = f'<rect class="paper" width="{WIDTH}" height="{self.height}"/>'
        told = f'<title id="title">{html.escape(self.says)}</title>'
        return "\n".join((head, told, f"<style>\n{STYLE}\n</style>", paper, *self.parts, "</svg>\n"))


def text(
    x: float, y: float, words: str, *, of: str = "ink", size: int = SMALL, bold: bool = False, at: str = "start"
) -> str:
    """Return a line of text; its letters stand on `y`."""
    weight = ' font-weight="600"' if bold else ""
    place = f'x="{x:g}" y="{y:g}" text-anchor="{at}"'
    return f'<text {place} class="{of}" font-size="{size}"{weight}>{html.escape(words)}</text>'


def lines(x: float, y: float, words: str, *, of: str = "muted", at: str = "start") -> str:
    """Return lines of small text below each other; they are separated by `|`."""
    return "\n".join(text(x, y + 16 * number, line, of=of, at=at) for number, line in enumerate(words.split("|")))


def box(x: float, y: float, width: float, height: float, kind: str = "box", round_by: float = 6) -> str:
    """Return a rectangle."""
    edge = "" if kind == "box" else " edge"
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{round_by:g}" class="{kind}{edge}"/>'


def arrow(*points: tuple[float, float]) -> str:
    """Return an arrow through points, with its tip at the last; the last part is level or upright."""
    (x0, y0), (x, y) = points[-2:]
    along_x, along_y = (x > x0) - (x < x0), (y > y0) - (y < y0)
    back_x, back_y = x - 8 * along_x, y - 8 * along_y
    wide_x, wide_y = 4 * along_y, 4 * along_x
    tip = _joined((x, y), (back_x - wide_x, back_y - wide_y), (back_x + wide_x, back_y + wide_y))
    path = _joined(*points[:-1], (back_x, back_y))
    return f'<polyline class="line" points="{path}"/><polygon class="tip" points="{tip}"/>'


def _joined(*points: tuple[float, float]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in points)


def corner(x: float, y: float, side: float, shares: dict[str, float]) -> str:
    """Return a square of weights with the corners of subnets in it, the largest first."""
    return "\n".join(box(x, y, share * side, share * side, kind, 0) for kind, share in shares.items())


NESTED = {"three": 1.0, "two": 0.7, "one": 0.4}


def supernet() -> Drawing:
    """Return how a smaller subnet is a corner of a larger one, and who trains which."""
    parts = [
        text(16, 28, "Subnets share their weights", size=TEXT, bold=True),
        text(16, 54, "the weights of a layer", of="muted"),
        corner(16, 64, 150, NESTED),
        lines(16, 232, "down: channels it makes|across: channels it reads"),
        box(186, 70, 14, 14, "one", 2),
        lines(208, 82, "the smallest subnet:|the first channels", of="ink"),
        box(186, 116, 14, 14, "two", 2),
        lines(208, 128, "a larger one: more of them,|the smallest's as well", of="ink"),
        box(186, 162, 14, 14, "three", 2),
        lines(208, 174, "the largest: all of them", of="ink"),
        text(208, 214, "of a 5x5 kernel the centre,", of="muted"),
        text(208, 230, "of a stage the first blocks", of="muted"),
    ]
    parts += [
        box(208 + 11 * across, 240 + 11 * down, 11, 11, "one" if 0 < across < 4 and 0 < down < 4 else "three", 0)
        for down in range(5)
        for across in range(5)
    ]
    parts += [box(290, 240 + 19 * number, 76, 15, "one" if number < 2 else "three", 3) for number in range(3)]
    parts += [
        text(16, 332, "Who trains which (E-FedSup)", size=TEXT, bold=True),
    ]
    tiers = (
        ("weak devices", "a quarter", {"one": 0.4}),
        ("those between", "a half", {"two": 0.7, "one": 0.4}),
        ("strong devices", "a quarter", NESTED),
    )
    for number, (who, many, held) in enumerate(tiers):
        x = 16 + 128 * number
        parts += [
            box(x, 344, 112, 118),
            text(x + 56, 364, who, at="middle", bold=True),
            corner(x + 56 - 28, 374, 56, held),
            text(x + 56, 452, many, of="muted", at="middle"),
            arrow((x + 56, 462), (x + 56, 490)),
        ]
    parts += [
        box(16, 492, 368, 78),
        text(200, 512, "the server", at="middle", bold=True),
        lines(
            200,
            530,
            "averages every weight over those that trained it:|the corner over all, the rest over fewer.|"
            "So one run trains the subnets of all devices.",
            at="middle",
        ),
    ]
    says = (
        "A layer's weights as a square: the smallest subnet is its upper left corner, larger subnets are larger "
        "corners that contain it. Weak devices train the corner, strong ones all of it, and the server averages "
        "every weight over the devices that trained it."
    )
    return Drawing("drawing-supernet", 586, says, tuple(parts))


def wire() -> Drawing:
    """Return what travels between the server and its clients, and what stays."""
    parts = [
        text(16, 28, "What travels, and what stays", size=TEXT, bold=True),
        box(16, 42, 368, 92),
        text(200, 62, "server", at="middle", bold=True),
        lines(
            200, 80, "supernet; sums and counts over all clients;|test images of its own, if it has any", at="middle"
        ),
        text(200, 122, "has no image of a client", of="stays", at="middle"),
        arrow((70, 134), (70, 274)),
        text(84, 156, "jobs", bold=True),
        lines(84, 174, "a subnet's weights,|what to do with it,|a seed for this client|and round"),
        arrow((330, 274), (330, 136)),
        text(316, 156, "replies", at="end", bold=True),
        lines(316, 174, "weights, or|sums and counts:|see below", at="end"),
        text(200, 258, "or none: it is absent", of="muted", at="middle"),
        box(16, 276, 368, 92),
        text(200, 296, "client: a device, or a part of a simulation", at="middle", bold=True),
        lines(200, 314, "knows no other client, nor the run's seed", at="middle"),
        text(200, 338, "images and their labels stay here,", of="stays", at="middle"),
        text(200, 354, "and so do the activations of single images", of="stays", at="middle"),
        text(16, 398, "asked", bold=True),
        text(150, 398, "answered", bold=True),
    ]
    asked = (
        ("who it is", "name, tier, images of each class"),
        ("train", "the subnet's weights after some steps"),
        ("statistics", "sums of activations, by channel"),
        ("how many right", "counts by class and answer"),
        ("pixels", "how often each value occurs"),
        ("ranges, for int8", "how large activations are"),
        ("classes", "images of each, as above, where"),
    )
    for number, (what, answer) in enumerate(asked):
        y = 420 + 24 * number
        parts += [
            f'<line class="line" x1="16" x2="384" y1="{y - 15}" y2="{y - 15}" opacity="0.4"/>',
            text(16, y, what),
            text(150, y, answer, of="muted"),
        ]
    parts += [text(150, 420 + 24 * 6 + 16, "training weighs classes", of="muted")]
    says = (
        "The server sends jobs: a subnet's weights, what to do, a seed. A client replies with weights, sums and "
        "counts, or not at all. Images with their labels, and activations of single images, stay with the client; "
        "the server has no image of a client."
    )
    return Drawing("drawing-wire", 598, says, tuple(parts))


def life() -> Drawing:
    """Return the way from a federation to a device that runs its model."""
    steps = (
        ("train", "a supernet, with the clients", "runs/NAME"),
        ("search", "a subnet within a device's limits", "search.json"),
        ("extract", "its weights out of the supernet", ""),
        ("recalibrate", "its norms, by sums from clients", "statistics"),
        ("export", "files; a gate for each: ONNX, int8, ...", "exports/DEVICE/ARCH"),
        ("verify", "every byte, and what it computes", "exit code"),
        ("to the device", "copy the folder; run.py checks it", ""),
        ("measure", "its latency there", "measured.json"),
    )
    parts = [text(16, 28, "The life of a bundle", size=TEXT, bold=True)]
    for number, (name, does, makes) in enumerate(steps):
        y = 44 + 68 * number
        parts += [box(16, y, 316, 50), text(28, y + 21, name, bold=True, size=TEXT), text(28, y + 40, does, of="muted")]
        if makes:
            parts.append(text(322, y + 21, makes, of="muted", at="end"))
        if number:
            parts.append(arrow((174, y - 18), (174, y)))
    said = "deploy: for a whole fleet"
    top, bottom = 44 + 68, 44 + 68 * 4 + 50
    parts += [
        f'<path class="line" d="M340,{top + 4} h8 v{bottom - top - 8} h-8"/>',
        f'<g transform="translate(364 {(top + bottom) / 2:g}) rotate(90)">{text(0, 0, said, at="middle")}</g>',
        arrow((332, 44 + 68 * 7 + 25), (384, 44 + 68 * 7 + 25), (384, top + 14), (352, top + 14)),
        lines(
            16,
            44 + 68 * 8 + 4,
            "What was measured improves the profile of the device,|by which the next search predicts.",
        ),
    ]
    says = (
        "A bundle's life: train, search, extract, recalibrate, export, verify, copy to the device, measure. The "
        "command deploy does search to export for a whole fleet. What was measured improves the device's profile "
        "for the next search."
    )
    return Drawing("drawing-bundle", 44 + 68 * 8 + 36, says, tuple(parts))


DRAWINGS: tuple[Callable[[], Drawing], ...] = (supernet, wire, life)

if __name__ == "__main__":
    PICTURES.mkdir(parents=True, exist_ok=True)
    for make in DRAWINGS:
        drawing = make()
        (PICTURES / f"{drawing.name}.svg").write_text(drawing.svg(), encoding="utf-8")
        print(PICTURES / f"{drawing.name}.svg")
