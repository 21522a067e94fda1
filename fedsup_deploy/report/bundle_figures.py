"""Figures of bundles: latency and size of all variants, the network, recalls, what is taken for what."""

from collections.abc import Iterator
from typing import Final

from pydantic import JsonValue

from fedsup_deploy.artifact.document import JsonObject
from fedsup_deploy.artifact.measures import MeasuresRecord
from fedsup_deploy.report import blocks, bundle_facts, off_by, words
from fedsup_deploy.report.bundle_facts import BundleMaterial
from fedsup_deploy.report.figure import Figure, Row, Table, category, quantity, rows

#: With more classes a confusion matrix is the list of its largest mistakes alone.
MOST_CLASSES_DRAWN: Final = 40
_MOST_CLASSES_NUMBERED: Final = 12
_MOST_RECALLS: Final = 60
_MOST_MISTAKES: Final = 10
#: How a latency is known, in the order in which they are drawn.
_PREDICTED: Final = "predicted"
_ENGINE: Final = "TensorRT engine, by trtexec"
#: The profile and the variant below each other, and how high that is.
_TWO_LINES: Final[JsonObject] = {"labelExpr": "split(datum.label, ': ')", "labelOffset": -6}
_STEP: Final = 34


def latencies(materials: list[BundleMaterial]) -> Figure:
    """Return the figure of all latencies: predicted with their intervals, measured from p10 to p90."""
    known = [each for material in materials for each in _known(material)]
    found = [row for row, _ in known]
    table = [told for _, told in known]
    num_elsewhere = sum(1 for material in materials for _ in material.timed_elsewhere())
    values = [float(row["ms"]) for row in found if isinstance(row["ms"], float) and row["ms"] > 0]
    is_wide = bool(values) and max(values) > 30 * min(values)
    scale: JsonObject = {"type": "log", "nice": True} if is_wide else {"zero": True, "nice": True}
    variants: list[JsonValue] = [*dict.fromkeys(str(row["variant"]) for row in found)]
    # Named in their order: strokes of some variants alone would come first otherwise.
    y: JsonObject = category("variant", axis=_TWO_LINES, scale={"domain": variants})
    x = quantity("ms", "ms, logarithmic" if is_wide else "ms", scale=scale)
    there = dict.fromkeys(str(row["how"]) for row in found)
    ways = sorted(there, key=lambda how: (how != _PREDICTED, how == _ENGINE))
    colour: JsonObject = category("how", legend={"columns": 1, "labelLimit": 320}, scale={"domain": [*ways]})
    offset: JsonObject = {"field": "how", "sort": [*ways]}
    says = (
        "Marks are predictions of the profile, and medians of what was timed on a machine that may be the device, and "
        "that the legend names. Strokes: how far predictions may be off, where anybody knows; p10 to p90 of what was "
        "timed; of an engine from its shortest time to p90."
    )
    if num_elsewhere:
        told = words.counted(num_elsewhere, "measurement")
        says += f' Not here: {told} on other machines than the device; "What to trust" of each bundle has them.'
    return Figure(
        "bundle-latency",
        "Latency of every variant",
        says,
        {
            **rows(found),
            "height": max(_STEP, 16 * len(ways)) * len({row["variant"] for row in found}),
            "encoding": {"y": y, "yOffset": offset, "color": colour},
            "layer": [
                {"mark": {"type": "rule"}, "encoding": {"x": {**x, "field": "low"}, "x2": {"field": "high"}}},
                {
                    "mark": {"type": "point", "size": 70},
                    "encoding": {"x": x, "shape": {"field": "how", "type": "nominal", "legend": None}},
                },
            ],
        },
        Table.of(("variant", "how", "value", "may be off, or p10 to p90"), table),
    )


def _known(material: BundleMaterial) -> Iterator[tuple[Row, tuple[str, ...]]]:
    """Yield every latency of a bundle to draw and to read, but for what was timed elsewhere than on the device."""
    for name, record in material.manifest.models.items():
        label = f"{material.manifest.profile.name}: {name}"
        predicted = record.latency.predicted
        if predicted is not None:
            profile = material.manifest.profile
            known = off_by.bounds(predicted.value_ms, predicted.interval_ms, profile)
            low, high = known or (None, None)
            between = off_by.in_words(predicted.value_ms, predicted.interval_ms, profile)
            told = (words.number(predicted.value_ms, "ms"), between)
            yield _latency(label, _PREDICTED, predicted.value_ms, low, high), (label, "predicted", *told)
        for when, timed in material.timed(name):
            if not material.may_be_device(when, timed):
                continue
            ends, p50_ms = (timed.statistics.p10_ms, timed.statistics.p90_ms), timed.statistics.p50_ms
            how = f"timed {when} on {bundle_facts.machine(timed)}"
            told = (words.number(p50_ms, "ms"), words.between(ends, "ms"))
            yield _latency(label, words.short(how, 80), p50_ms, *ends), (label, how, *told)
        engine = material.measured.engine
        if engine is not None and name == material.manifest.main.variant.name:
            times = engine.latency
            ends = (times.min_ms, times.max_ms if times.p90_ms is None else times.p90_ms)
            told = (words.number(times.p50_ms, "ms"), words.between(ends, "ms"))
            yield _latency(label, _ENGINE, times.p50_ms, *ends), (label, f"on {engine.where}", *told)


def _latency(label: str, how: str, value: float, low: float | None, high: float | None) -> Row:
    return {"variant": label, "how": how, "ms": value, "low": low, "high": high}


def sizes(materials: list[BundleMaterial]) -> Figure:
    """Return the figure of the sizes of all variants."""
    sized = [
        (f"{each.manifest.profile.name}: {name}", record.num_bytes / 1024)
        for each in materials
        for name, record in each.manifest.models.items()
    ]
    found: list[Row] = [{"variant": name, "kib": kib} for name, kib in sized]
    encoding: JsonObject = {
        "y": category("variant", axis=_TWO_LINES),
        "x": quantity("kib", "KiB", scale={"zero": True, "nice": True}),
    }
    return Figure(
        "bundle-size",
        "Size of every variant",
        "All of its files together.",
        {**rows(found), "height": _STEP * len(found), "mark": {"type": "bar", "style": "bar"}, "encoding": encoding},
        Table.of(("variant", "size"), [(name, words.number(kib, "KiB")) for name, kib in sized]),
    )


def figures(material: BundleMaterial, name: str) -> list[Figure]:
    """Return the figures of one bundle.

    Args:
        material: It.
        name: What the names of its figures begin with.
    """
    found = []
    architecture = blocks.architecture_of(material.manifest.arch)
    if architecture is not None:
        found.append(blocks.figure(architecture, f"{name}-network"))
    record = material.manifest.accuracy.measures
    if record is not None:
        found.append(_recalls(record, f"{name}-recall"))
        if record.confusion is not None:
            found.append(_confusion(record, record.confusion, f"{name}-confusion"))
    return found


def _recalls(record: MeasuresRecord, name: str) -> Figure:
    judged = [each for each in record.classes if each.recall is not None]
    shown = sorted(judged, key=lambda each: each.recall or 0.0)[:_MOST_RECALLS]
    found: list[Row] = [
        {
            "class": each.name,
            "recall": each.recall,
            "low": None if each.recall_interval is None else each.recall_interval[0],
            "high": None if each.recall_interval is None else each.recall_interval[1],
        }
        for each in shown
    ]
    x = quantity("recall", "recall", format=".0%")
    return Figure(
        name,
        "Recall of each class",
        "The share of the images of a class that are answered rightly, worst first; strokes are 95 % intervals. The "
        "axis does not begin at 0.",
        {
            **rows(found),
            "height": 20 * len(found),
            "encoding": {"y": category("class")},
            "layer": [
                {
                    "mark": {"type": "rule", "style": "range"},
                    "encoding": {"x": {**x, "field": "low"}, "x2": {"field": "high"}},
                },
                {"mark": {"type": "point", "size": 70}, "encoding": {"x": x}},
            ],
        },
        Table.of(
            ("class", "images", "recall", "answered"),
            [
                (each.name, f"{each.images:,}", words.share(each.recall, each.recall_interval), f"{each.answered:,}")
                for each in record.classes
            ],
        ),
    )


def _confusion(record: MeasuresRecord, confusion: tuple[tuple[int, ...], ...], name: str) -> Figure:
    names = [each.name for each in record.classes]
    mistakes = sorted(
        (
            (count, truth, answer)
            for truth, row in enumerate(confusion)
            for answer, count in enumerate(row)
            if count and truth != answer
        ),
        key=lambda each: (-each[0], each[1], each[2]),
    )
    drawn = list(range(len(names)))
    if len(names) > MOST_CLASSES_DRAWN:
        drawn = sorted({index for _, *pair in mistakes[: MOST_CLASSES_DRAWN // 2] for index in pair})
    found: list[Row] = [
        {
            "truth": names[truth],
            "answer": names[answer],
            "images": confusion[truth][answer],
            "share": round(confusion[truth][answer] / sum(confusion[truth]), 4),
        }
        for truth in drawn
        for answer in drawn
        if confusion[truth][answer]
    ]
    shown: list[JsonValue] = [names[index] for index in drawn]
    which = "" if len(drawn) == len(names) else f" Of {len(names)} classes those with the most mistakes."
    return Figure(
        name,
        "What is taken for what",
        f"A row for each class, a column for each answer: the fuller the cell, the larger its share of the row.{which}",
        {**rows(found), "height": 22 * len(drawn), **_cells(shown)},
        Table.of(
            ("the image is", "the answer is", "images"),
            [(names[truth], names[answer], f"{count:,}") for count, truth, answer in mistakes[:_MOST_MISTAKES]],
        ),
    )


def _cells(names: list[JsonValue]) -> JsonObject:
    """Return what a confusion matrix of classes looks like: the fuller, the larger its share of the row."""
    is_numbered = len(names) <= _MOST_CLASSES_NUMBERED
    axis: JsonObject = {"labelLimit": 90, "labelOverlap": False, "grid": True, "tickBand": "extent", "zindex": 0}
    scale: JsonObject = {"domain": names}
    encoding: JsonObject = {
        "y": category("truth", "the image is", scale=scale, axis=axis),
        "x": category("answer", "the answer is", scale=scale, axis={**axis, "labelAngle": -90, "orient": "top"}),
    }
    opacity: JsonObject = {
        "field": "share",
        "type": "quantitative",
        "legend": None,
        "scale": {"domain": [0, 1], "range": [0.08, 0.55]},
    }
    layers: list[JsonValue] = [{"mark": {"type": "rect", "style": "share"}, "encoding": {"fillOpacity": opacity}}]
    if is_numbered:
        layers.append({"mark": {"type": "text", "style": "small-text"}, "encoding": {"text": {"field": "images"}}})
    return {"encoding": encoding, "layer": layers}
