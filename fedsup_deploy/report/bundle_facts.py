"""What bundles say of themselves, in words: variants, gates, limits, lineage, what to trust."""

import dataclasses
import shlex
from collections.abc import Iterator
from typing import Final

from fedsup_deploy.accuracy import CountedAccuracy
from fedsup_deploy.artifact.manifest import Manifest, PredictorError
from fedsup_deploy.artifact.measured import MeasuredDocument, MeasuredLatency, Stability
from fedsup_deploy.artifact.measures import MeasuresRecord
from fedsup_deploy.artifact.variants import ParityGate, VariantRecord
from fedsup_deploy.device import limits as known_limits
from fedsup_deploy.ondevice import bundle_files
from fedsup_deploy.report import off_by, verdict, words
from fedsup_deploy.report.figure import Table
from fedsup_deploy.report.mistakes import Mistakes

#: When a clock ran.
BEFORE: Final = "when it was made"
SINCE: Final = "since"
_OF_EXPORT: Final = "the machine that exported it"
_NOT_DEVICE: Final = "which is not taken for the device"
#: The limit on latency.
LATENCY: Final = "latency_ms"


@dataclasses.dataclass(frozen=True)
class BundleMaterial:
    """A bundle to show.

    Args:
        manifest: What it says of itself.
        measured: What was measured since it was made.
        mistakes: What it answers wrongly, or why nobody can show that; None where nobody has asked.
        folder: Where it was found, as it was named; None where nobody has said that.
    """

    manifest: Manifest
    measured: MeasuredDocument
    mistakes: Mistakes | str | None = None
    folder: str | None = None

    @property
    def name(self) -> str:
        """What it is called on the page."""
        return f"{self.manifest.profile.name}, {self.manifest.arch_id}"

    def timed(self, variant: str) -> Iterator[tuple[str, MeasuredLatency]]:
        """Yield what a clock said of a variant: when it was made, and since."""
        record = self.manifest.models[variant]
        if record.latency.measured is not None:
            yield BEFORE, record.latency.measured
        later = self.measured.latency
        if later is not None and variant == self.manifest.main.variant.name:
            yield SINCE, later
        if later is not None and later.int8 is not None and bundle_files.INT8_MODEL in record.files:
            yield SINCE, later.int8

    def may_be_device(self, when: str, timed: MeasuredLatency) -> bool:
        """Return whether what a clock said may be of the device.

        A machine of other instructions is not it, and no machine is where nobody knows those of the device, such as a
        microcontroller. What export timed is of the machine that exported, which is the device only where its profile
        was measured on a machine, too: of a published one it is not taken for it.
        """
        manifest = self.manifest
        is_made_here = when == SINCE or set(manifest.profile.provenance) == {"measured"}
        return is_made_here and manifest.instruction_set is not None and timed.may_be_of(manifest.instruction_set)

    def timed_elsewhere(self) -> Iterator[tuple[str, str, MeasuredLatency]]:
        """Yield what a clock said of other machines than the device: the variant, when, and what it said."""
        for variant in self.manifest.models:
            for when, timed in self.timed(variant):
                if not self.may_be_device(when, timed):
                    yield variant, when, timed


def of_device(manifest: Manifest) -> VariantRecord:
    """Return the variant that the device runs: that of which its latency is predicted; the main one where none is."""
    predicted = [each for each in manifest.models.values() if each.latency.predicted is not None]
    return manifest.main if manifest.main in predicted or not predicted else predicted[0]


def accuracy(manifest: Manifest) -> str:
    """Return how right the variant that the device runs is, with its interval, its sample and its precision."""
    found, variant = manifest.accuracy, of_device(manifest)
    share, interval, precision = found.recalibrated, found.recalibrated_interval, manifest.main.precision
    if variant.precision != precision and variant.accuracy is not None:
        share, precision = variant.accuracy, variant.precision
        interval = CountedAccuracy.of_share(share, found.num_samples).interval
    return f"{words.share(share, interval)} of {words.counted(found.num_samples, f'{found.split} image')}, {precision}"


def drawn_of(manifest: Manifest) -> str:
    """Return which precision the answers are of that are counted by class, and what is known of the device's own."""
    variant, precision = of_device(manifest), manifest.main.precision
    if variant.precision == precision:
        return f"Answers that are drawn or told by class are of {precision}, as the device has it."
    known = "nothing" if variant.accuracy is None else "the accuracy above alone"
    own = f"of {variant.precision}, which the device has, {known} is known"
    return f"Answers that are drawn or told by class are of {precision}; {own}."


def timed_on_device(material: BundleMaterial) -> Iterator[str]:
    """Yield what a clock said since the bundle was made that may have been the device's."""
    later, engine = material.measured.latency, material.measured.engine
    if later is not None and material.may_be_device(SINCE, later):
        cpu = later.environment.get("cpu", "a processor that is not named")
        yield f"{words.number(later.statistics.p50_ms, 'ms')} on {cpu}, which need not be it"
    if engine is not None:
        yield f"{words.number(engine.latency.p50_ms, 'ms')} on {engine.where}"


def stability(found: Stability) -> str:
    """Return whether a measurement repeats itself, and by what it was called so."""
    checks = [
        ("parts of the session differ", found.disagreement, found.stable_within),
        ("its halves differ", found.drift, found.stable_within),
        ("single visits lie apart", found.spread, found.spread_within),
    ]
    known = [(what, value, most) for what, value, most in checks if value is not None and most is not None]
    failed = [each for each in known if each[1] > each[2]]
    told = [
        f"{what} by {words.percent(value)}, where up to {words.percent(most)} is stable"
        for what, value, most in failed or known[:1]
    ]
    return f"{found.verdict}: {'; '.join(told)}"


def machine(latency: MeasuredLatency) -> str:
    """Return which machine a clock ran on."""
    where = latency.environment
    return f"{where.get('cpu', 'a processor that is not named')}, threads: {where.get('threads', 'unknown')}"


def variants(material: BundleMaterial) -> Table:
    """Return the variants: size, accuracy, latency predicted and measured, gate."""
    table = []
    for name, record in material.manifest.models.items():
        predicted = record.latency.predicted
        told = f"not of {record.precision}" if predicted is None else words.number(predicted.value_ms, "ms")
        if predicted is not None:
            known = off_by.bounds(predicted.value_ms, predicted.interval_ms, material.manifest.profile)
            told += "" if known is None else f" ({words.between(known, 'ms')})"
        timed = "; ".join(
            f"{words.number(each.statistics.p50_ms, 'ms')} {when}, {each.stability.verdict}, on {machine(each)}"
            for when, each in material.timed(name)
            if material.may_be_device(when, each)
        )
        engine = material.measured.engine
        if engine is not None and name == material.manifest.main.variant.name:
            timed = "; ".join(filter(None, (timed, f"{words.number(engine.latency.p50_ms, 'ms')} on {engine.where}")))
        table.append(
            (
                name,
                ", ".join(record.files),
                words.size(record.num_bytes),
                words.share(record.accuracy),
                told,
                timed or "no",
                "passed: " + gate(record),
            )
        )
    return Table.of(
        ("variant", "files", "size", "accuracy", "predicted for the device", "timed on the device, p50", "gate"), table
    )


def gate(record: VariantRecord) -> str:
    """Return what the gate of a variant has found."""
    found = record.gate
    if isinstance(found, ParityGate):
        return (
            f"largest difference {found.max_scaled_diff:.1e} of {found.tolerance:g} allowed, "
            f"{words.counted(found.num_inputs, 'image')}, the same class for {words.rounded(found.argmax_agreement)}"
        )
    high, low = (-100 * end for end in found.accuracy_drop_interval)
    change = f"{-100 * found.accuracy_drop:+.2f} points ({low:+.2f} to {high:+.2f}) against fp32"
    return f"{change} on {found.num_images:,} images; a loss of up to {100 * found.max_accuracy_drop:g} is allowed"


def engine(material: BundleMaterial) -> Table | None:
    """Return what trtexec said of a TensorRT engine; None where nobody has timed any."""
    found, record = material.measured.engine, material.manifest.limits.get(LATENCY)
    if found is None:
        return None
    times = found.latency
    told = [("ran on", found.where), ("latency, p50", words.number(times.p50_ms, "ms"))]
    tail = [("p90", times.p90_ms), ("p95", times.p95_ms), ("p99", times.p99_ms), ("longest", times.max_ms)]
    told.append(
        ("latency beyond", ", ".join(f"{name} {words.number(ms, 'ms')}" for name, ms in tail if ms is not None))
    )
    if found.gpu_compute is not None:
        told.append(("of it the GPU, p50", words.number(found.gpu_compute.p50_ms, "ms")))
    if record is not None:
        percentile = "p50" if record.percentile is None else record.percentile.name
        verdict = found.verdict(record.limit, percentile)
        told.append(("limit", f"{words.number(record.limit, 'ms')}, {percentile}: {verdict}"))
    told.append(("timed", "not known" if found.num_runs is None else words.counted(found.num_runs, "inference")))
    compared = "nobody has compared them with those of fp32"
    if (outputs := found.outputs) is not None:
        compared = f"within {outputs.max_scaled_diff:.1e} of fp32 ({outputs.tolerance:g} allowed) on "
        compared += words.counted(outputs.num_inputs, "recorded image")
    told += [("outputs", compared), *(("trtexec warns", warning) for warning in found.warnings)]
    return Table.of(("", ""), [*told, ("command", found.command)])


def commands(material: BundleMaterial) -> Table | None:
    """Return what to type, and which variant to take; None where nobody has said where the bundle is."""
    if material.folder is None:
        return None
    folder = shlex.quote(material.folder)
    preferred = of_device(material.manifest)
    name = next(name for name, record in material.manifest.models.items() if record is preferred)
    told = [
        ("folder", material.folder),
        ("prefer", f"{name} ({', '.join(preferred.files)}): the figures of the device are of it"),
        ("is it unaltered?", f"fedsup-deploy verify {folder}"),
        ("on the device", f"cd {folder} && python run.py"),
        ("time it there from here", f"fedsup-deploy measure {folder} --on ssh://USER@DEVICE"),
    ]
    return Table.of(("", ""), told)


def pictures(material: BundleMaterial) -> str | None:
    """Return what pictures take before the network has them; None where nobody has timed any."""
    found = None if material.measured.latency is None else material.measured.latency.pictures
    if found is None:
        return None
    sizes = " to ".join(dict.fromkeys(map(str, (found.smallest, found.largest))))
    decode, prepare = (words.number(step.statistics.p50_ms, "ms") for step in (found.decode, found.prepare))
    number = words.counted(found.num_pictures, "picture")
    return f"decode {decode}, prepare {prepare} in the median, of {number} of {sizes}"


def limits_precision(manifest: Manifest) -> str | None:
    """Return which precision predictions and sizes that limits were held against are of; None where it is not here."""
    found = of_device(manifest)
    return None if found.latency.predicted is None else found.precision


def limits(manifest: Manifest) -> Table:
    """Return the limits of the device, and what the network costs there."""
    table = []
    precision = limits_precision(manifest)
    for name, record in manifest.limits.items():
        unit = known_limits.TABLE[name].unit if name in known_limits.TABLE else ""
        held = [] if precision is None or unit not in {"ms", "MiB"} else [f"of {precision}"]
        held += [] if record.percentile is None else [str(record.percentile)]
        held += [] if record.risk is None else [f"bound at {record.risk:g}"]
        is_bound = record.risk is not None
        kept = verdict.of(name, record.cost, record.limit, manifest.profile, is_bound=is_bound).told
        share = words.rounded(record.cost / record.limit)
        table.append(
            (name, words.number(record.limit, unit), words.number(record.cost, unit), share, kept, "; ".join(held))
        )
    return Table.of(("limit", "at most", "predicted or counted", "share", "verdict", "means"), table)


def heldout(error: PredictorError) -> str:
    """Return how far predictions were off on networks that they were not made from."""
    off = words.percent(error.mape)
    if error.num_heldout == 1:
        return f"on the one network that they were compared with, predictions were off by {off}: little is known"
    on = f"on {error.num_heldout:,} networks that they were not made from"
    return (
        f"{on}, predictions were off by {off} in the mean, for {words.rounded(error.acc10)} of them by less than 10 %"
    )


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
        told.append(f"Latency on {manifest.profile.name} is predicted from {costs} figures; {heldout(error)}.")
    if any(record.percentile is not None and record.percentile.is_assumed for record in manifest.limits.values()):
        told.append("Which percentile predictions are of is assumed; nobody measured it.")
    for name in manifest.models:
        for when, latency in material.timed(name):
            where = f"on {machine(latency)}, which need not be the device"
            if not material.may_be_device(when, latency):
                where = f"on {_OF_EXPORT if when == BEFORE else 'another machine'} ({machine(latency)}), {_NOT_DEVICE}"
            p50 = words.number(latency.statistics.p50_ms, "ms")
            told.append(f"{name} was timed {when} {where}: {p50} in the median; {stability(latency.stability)}.")
    if (engine := material.measured.engine) is not None:
        told.append(
            f"A TensorRT engine of it was timed on {engine.where}, by trtexec, whose figures these are"
            f"{', which it calls unstable' if engine.is_unstable else ''}."
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
