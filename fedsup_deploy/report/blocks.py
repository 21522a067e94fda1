"""An architecture drawn as blocks, from the image at the top to the answer at the bottom, as wide as their channels."""

from typing import Final

from fedsup_deploy.artifact.document import JsonObject
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.report import words
from fedsup_deploy.report.figure import Figure, Row, Table, rows
from fedsup_deploy.space.architecture import Architecture

#: Height of a block, pixels.
STEP: Final = 22
#: Of the width, what the widest bar takes.
_SHARE_OF_BARS: Final = 0.4


def architecture_of(document: JsonObject) -> Architecture | None:
    """Return the architecture of a manifest, of a refined network the one it was made from; None where it has none."""
    try:
        return Architecture.from_dict(document.get("trimmed_from", document))
    except ConfigError:
        return None


def block_rows(architecture: Architecture) -> list[Row]:
    """Return a row for each block, the first convolution as well, in their order: name, channels, kernel, words."""
    found: list[Row] = [
        {
            "block": "first",
            "channels": architecture.stem_width,
            "kernel": "first",
            "told": f"{architecture.stem_width} channels",
        }
    ]
    for stage, blocks in enumerate(architecture.stages, start=1):
        for place, block in enumerate(blocks, start=1):
            side = block.kernel_size
            parts = [f"{block.width} channels", f"{side}x{side}"]
            parts += [] if block.expand_ratio == 1 else [f"{block.expand_ratio:g}-fold inside"]
            parts += ["squeeze-excite"] if block.has_se else []
            found.append(
                {
                    "block": f"{stage}.{place}",
                    "channels": block.width,
                    "kernel": f"{side}x{side}",
                    "told": ", ".join(parts),
                }
            )
    return found


def spec(blocks: list[Row]) -> JsonObject:
    """Return the drawing of blocks as a spec, whose rows may be replaced by those of another architecture.

    Each row has its place from the top, `at`: where rows are replaced, names that were there before keep their order.
    """
    y: JsonObject = {"field": "block", "type": "ordinal", "sort": {"field": "at", "op": "min"}, "title": None}
    # Words stand to the right of the bars, which the narrow ones have no room for.
    x: JsonObject = {"type": "quantitative", "axis": None, "scale": {"nice": False, "domain": [0, 1 / _SHARE_OF_BARS]}}
    return {
        **rows([{**row, "at": at} for at, row in enumerate(blocks)]),
        "height": STEP * max(1, len(blocks)),
        "transform": [
            {"joinaggregate": [{"op": "max", "field": "channels", "as": "widest"}]},
            {"calculate": "datum.channels / datum.widest", "as": "right"},
        ],
        "encoding": {"y": {**y, "axis": {"domain": False, "ticks": False, "labelLimit": 60}}},
        "layer": [
            {
                "mark": {"type": "bar", "height": {"band": 0.8}, "cornerRadius": 3, "opacity": 0.35},
                "encoding": {
                    "x": {**x, "field": "right"},
                    "x2": {"datum": 0},
                    "color": {
                        "field": "kernel",
                        "type": "nominal",
                        "legend": None,
                        "scale": {"domain": ["3x3", "5x5", "7x7", "first"]},
                    },
                },
            },
            {
                "mark": {"type": "text", "style": "small-text", "align": "left", "dx": 6},
                "encoding": {"x": {**x, "field": "right"}, "text": {"field": "told"}},
            },
        ],
    }


def table(blocks: list[Row]) -> Table:
    """Return blocks as a table."""
    return Table.of(("block", "computes"), [(str(row["block"]), str(row["told"])) for row in blocks])


def figure(architecture: Architecture, name: str) -> Figure:
    """Return the drawing of an architecture."""
    found = block_rows(architecture)
    side = f"{architecture.resolution} x {architecture.resolution} pixels"
    return Figure(
        name,
        f"The network {architecture.arch_id}",
        f"From an image of {side} down: the first convolution, then {words.counted(len(found) - 1, 'block')} by stage, "
        "each drawn as wide as its channels are many; kernels of one size have one colour.",
        spec(found),
        table(found),
    )
