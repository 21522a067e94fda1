"""What bundles say of themselves, in words and figures: variants, gates, classes, limits, lineage, what to trust."""

import dataclasses
from collections.abc import Iterator
from typing import Final

from fedsup_deploy.artifact.document import JsonObject
from fedsup_deploy.artifact.manifest import Manifest
from fedsup_deploy.artifact.measured import MeasuredDocument, MeasuredLatency
from fedsup_deploy.artifact.measures import MeasuresRecord
from fedsup_deploy.artifact.variants import Int8Gate, ParityGate, VariantRecord
from fedsup_deploy.device import limits as known_limits
from fedsup_deploy.ondevice import bundle_files
from fedsup_deploy.report import blocks, words
from fedsup_deploy.report.figure import Figure, Row, Table, category, quantity, rows

#: With more classes a confusion matrix is the list of its largest mistakes alone.
MOST_CLASSES_DRAWN: Final = 40
_MOST_CLASSES_NUMBERED: Final = 12
_MOST_RECALLS: Final = 60
_MOST_MISTAKES: Final = 10
#: The profile and the variant below each other, and how high that is.
_TWO_LINES: Final[JsonObject] = {"labelExpr": "split(datum.label, ': ')", "labelOffset": -6}
_STEP: Final = 34


@dataclasses.dataclass(frozen=True)
class BundleMaterial:
    """A bundle to show.

    Args:
        manifest: What it says of itself.
        measured: What was measured since it was made.
    """

    manifest: Manifest
    measured: MeasuredDocument

    @property
    def name(self) -> str:
        """What it is called on the page."""
        return f"{self.manifest.profile.name}, {self.manifest.arch_id}"

    def timed(self, variant: str) -> Iterator[tuple[str, MeasuredLatency]]:
        """Yield what a clock said of a variant: when it was made, and since."""
        record = self.manifest.models[variant]
        if record.latency.measured is not None:
            yield "when it was made", record.latency.measured
        later = self.measured.latency
        if later is not None and variant == self.manifest.main.variant.name:
            yield "since", later
        if later is not None and later.int8 is not None and bundle_files.INT8_MODEL in record.files:
            yield "since", later.int8


def machine(latency: MeasuredLatency) -> str:
    """Return which machine a clock ran on."""
    where = latency.environment
    return f"{where.get('cpu', 'a processor that is not named')}, threads: {where.get('threads', 'unknown')}"


def variants(material: BundleMaterial) -> Table:
    """Return the variants: size, accuracy, latency predicted and measured, gate."""
    table = []
    for name, record in material.manifest.models.items():
        predicted = record.latency.predicted
        told = "of another precision" if predicted is None else words.number(predicted.value_ms, "ms")
        if predicted is not None and predicted.interval_ms is not None:
            told += f" ({words.between(predicted.interval_ms, 'ms')})"
        timed = "; ".join(
            f"{words.number(each.statistics.p50_ms, 'ms')} {when}, {each.stability.verdict}"
            for when, each in material.timed(name)
        )
        table.append(
            (
                name,
                words.size(record.num_bytes),
                words.share(record.accuracy),
                told,
                timed or "nobody has",
                "passed: " + gate(record),
            )
        )
    return Table.of(("variant", "size", "accuracy", "predicted for the device", "measured, p50", "gate"), table)


def gate(record: VariantRecord) -> str:
    """Return what the gate of a variant has found."""
    found = record.gate
    if isinstance(found, ParityGate):
        return (
            f"largest difference {found.max_scaled_diff:.1e} of {found.tolerance:g} allowed, "
            f"{words.counted(found.num_inputs, 'image')}, the same class for {found.argmax_agreement:.0%}"
        )
    low, high = (100 * end for end in found.accuracy_drop_interval)
    drop = f"loses {100 * found.accuracy_drop:.2f} points ({low:+.2f} to {high:+.2f})"
    return f"{drop} on {found.num_images:,} images; {100 * found.max_accuracy_drop:g} allowed"


def is_int8_worth_it(material: BundleMaterial) -> str | None:
    """Return whether int8 is worth it, as far as anybody knows; None where the bundle has none."""
    manifest = material.manifest
    for name, record in manifest.models.items():
        if not isinstance(record.gate, Int8Gate):
            continue
        less = 1 - record.num_bytes / manifest.main.num_bytes
        later = None if material.measured.latency is None else material.measured.latency.int8
        speed = later.speed if later is not None else record.gate.speed
        timed = "nobody has timed it" if speed is None else str(speed)
        on = "" if later is None else f", on {machine(later)}"
        return f"{name}: {less:.0%} smaller; {gate(record)}; {timed}{on}"
    reasons = [f"{name} is left out: {reason}" for name, reason in manifest.left_out.items() if "int8" in name]
    return reasons[0] if reasons else None


def limits(manifest: Manifest) -> Table:
    """Return the limits of the device, and what the network costs there."""
    table = []
    for name, record in manifest.limits.items():
        unit = known_limits.TABLE[name].unit if name in known_limits.TABLE else ""
        held = [] if record.percentile is None else [str(record.percentile)]
        held += [] if record.risk is None else [f"bound at {record.risk:g}"]
        verdict = "EXCEEDED" if record.is_exceeded else "kept"
        share = f"{record.cost / record.limit:.0%}"
        table.append(
            (name, words.number(record.limit, unit), words.number(record.cost, unit), share, verdict, "; ".join(held))
        )
    return Table.of(("limit", "at most", "predicted or counted", "share", "verdict", "means"), table)


def trust(material: BundleMaterial) -> list[str]:
    """Return what to trust, and how far."""
    manifest, accuracy = material.manifest, material.manifest.accuracy
    told = [
        f"Accuracy is of {words.counted(accuracy.num_samples, 'image')} of {accuracy.dataset} ({accuracy.split}); "
        "nothing is known of others."
    ]
    costs = " and ".join(manifest.profile.provenance)
    if manifest.profile.error == "none":
        told.append(
            f"Latency on {manifest.profile.name} is predicted from {costs} figures. Nobody has measured how far "
            "off that is: measure on the device before you promise anything."
        )
    else:
        error = manifest.profile.error
        told.append(
            f"Latency on {manifest.profile.name} is predicted from {costs} figures; of "
            f"{words.counted(error.num_heldout, 'network')} held out they were off by {error.mape:.1%} in the mean, "
            f"for {error.acc10:.0%} of them by less than 10 %."
        )
    if any(record.percentile is not None and record.percentile.is_assumed for record in manifest.limits.values()):
        told.append("Which percentile predictions are of is assumed; nobody measured it.")
    for name in manifest.models:
        for when, latency in material.timed(name):
            told.append(
                f"{name} was timed {when} on {machine(latency)}: {latency.stability.verdict}, parts of the session "
                f"differ by {latency.stability.disagreement:.1%}. That need not be the device."
            )
    told += [f"{name} was asked for and is not here: {reason}." for name, reason in manifest.left_out.items()]
    told += [f"The limit {name} is exceeded, as was asked for." for name in manifest.exceeded_limits]
    told.append(
        "Whether the files are unaltered is for fedsup-deploy verify to find out: this page has read the manifest."
    )
    return told


def lineage(manifest: Manifest) -> Table:
    """Return what the bundle was made from, as hashes, and the versions of what made it."""
    made_from = [(name, value or "none: named by the user") for name, value in manifest.lineage.model_dump().items()]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(manifest.versions.items()))
    return Table.of(
        ("made from", "SHA-256"), [*made_from, ("versions", versions), ("processor", manifest.processor or "not known")]
    )


def measures(record: MeasuresRecord) -> Table:
    """Return what the answers are worth beside their accuracy."""
    told = [
        ("balanced accuracy", words.share(record.balanced_accuracy, record.balanced_accuracy_interval)),
        ("macro-F1", words.share(record.macro_f1, record.macro_f1_interval)),
        ("calibration error", words.share(record.calibration_error, record.calibration_error_interval)),
    ]
    if record.auc is not None:
        told.append(("AUC", words.share(record.auc, record.auc_interval)))
    return Table.of(("measure", "value, 95 % interval"), told)


def latencies(materials: list[BundleMaterial]) -> Figure:
    """Return the figure of all latencies: predicted with their intervals, measured from p10 to p90."""
    found: list[Row] = []
    table = []
    for material in materials:
        for name, record in material.manifest.models.items():
            label = f"{material.manifest.profile.name}: {name}"
            predicted = record.latency.predicted
            if predicted is not None:
                low, high = predicted.interval_ms or (None, None)
                found.append(_latency(label, "predicted", predicted.value_ms, low, high))
                table.append(
                    (
                        label,
                        "predicted",
                        words.number(predicted.value_ms, "ms"),
                        words.between(predicted.interval_ms, "ms"),
                    )
                )
            for when, timed in material.timed(name):
                statistics = timed.statistics
                ends = (statistics.p10_ms, statistics.p90_ms)
                found.append(_latency(label, f"timed {when}", statistics.p50_ms, *ends))
                table.append(
                    (label, f"measured {when}", words.number(statistics.p50_ms, "ms"), words.between(ends, "ms"))
                )
    values = [float(row["ms"]) for row in found if isinstance(row["ms"], float) and row["ms"] > 0]
    is_wide = bool(values) and max(values) > 30 * min(values)
    scale: JsonObject = {"type": "log", "nice": True} if is_wide else {"zero": True, "nice": True}
    y: JsonObject = category("variant", axis=_TWO_LINES)
    x = quantity("ms", "ms, logarithmic" if is_wide else "ms", scale=scale)
    ways = sorted({str(row["how"]) for row in found}, key=lambda how: (not how.startswith("predicted"), how))
    colour: JsonObject = category("how", legend={"columns": 1}, scale={"domain": [*ways]})
    offset: JsonObject = {"field": "how", "sort": [*ways]}
    says = "Predicted is not measured: measured on the machine that made or measured the bundle, which need not be the "
    return Figure(
        "bundle-latency",
        "Latency of every variant",
        says + "device. Marks are predictions and medians; strokes are intervals, and p10 to p90.",
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
        Table.of(("variant", "how", "value", "interval, or p10 to p90"), table),
    )


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
    x = quantity("recall", "recall", format=".0%", scale={"domain": [0, 1]})
    return Figure(
        name,
        "Recall of each class",
        "The share of the images of a class that are answered rightly, worst first; strokes are 95 % intervals.",
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
            "share": confusion[truth][answer] / max(1, sum(confusion[truth])),
        }
        for truth in drawn
        for answer in drawn
    ]
    axis: JsonObject = {"labelLimit": 90, "labelOverlap": False}
    encoding: JsonObject = {
        "y": category("truth", "the image is", axis=axis),
        "x": category("answer", "the answer is", axis={**axis, "labelAngle": -90, "orient": "top"}),
    }
    layers: list[JsonObject] = [
        {
            "mark": {"type": "rect", "style": "share"},
            "encoding": {
                "fillOpacity": {
                    "field": "share",
                    "type": "quantitative",
                    "legend": None,
                    "scale": {"domain": [0, 1], "range": [0, 0.55]},
                }
            },
        }
    ]
    if len(drawn) <= _MOST_CLASSES_NUMBERED:
        numbered: JsonObject = {"filter": "datum.images > 0"}
        layers.append(
            {
                "transform": [numbered],
                "mark": {"type": "text", "style": "small-text"},
                "encoding": {"text": {"field": "images"}},
            }
        )
    which = "" if len(drawn) == len(names) else f" Of {len(names)} classes those with the most mistakes."
    return Figure(
        name,
        "What is taken for what",
        f"A row for each class, a column for each answer: the fuller the cell, the larger its share of the row.{which}",
        {**rows(found), "height": 22 * len(drawn), "encoding": encoding, "layer": [*layers]},
        Table.of(
            ("the image is", "the answer is", "images"),
            [(names[truth], names[answer], f"{count:,}") for count, truth, answer in mistakes[:_MOST_MISTAKES]],
        ),
    )
