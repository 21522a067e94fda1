"""Bundles on disk: written whole or not at all, and checked.

Owns the order: model files, vectors, runner, gates, measurement, card, manifest, SHA256SUMS, and at last every
check that a user has. Only then does the folder appear at its place. How a format is written, and what it is compared
with, come in as functions; this module knows no variant but the ONNX file that every bundle has.

Shape suffixes: V vectors, C channels, S side of the input, K classes.
"""

import dataclasses
import io
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedsup_deploy import files, places
from fedsup_deploy.artifact import measured, program
from fedsup_deploy.artifact.consistency import check_consistency, not_compared
from fedsup_deploy.artifact.engine import MeasuredEngine
from fedsup_deploy.artifact.failures import failing_as_ours
from fedsup_deploy.artifact.manifest import FILENAME, Manifest, ManifestDraft
from fedsup_deploy.artifact.measured import MeasuredBundle, MeasuredDocument, MeasuredLatency
from fedsup_deploy.artifact.model_card import CARD, render_model_card
from fedsup_deploy.artifact.variants import Int8Gate, ParityGate, PredictedLatency, RanBy, VariantLatency, VariantRecord
from fedsup_deploy.artifact.verified import VerifiedBundle
from fedsup_deploy.errors import ArtifactError, OutputError, as_output_error
from fedsup_deploy.ondevice import bundle_checks, bundle_files
from fedsup_deploy.ondevice.bundle_outputs import OUTPUTS_INT8
from fedsup_deploy.ondevice.records import Report
from fedsup_deploy.variant import Variant

MIN_VECTORS = 16


@dataclasses.dataclass(frozen=True)
class Vectors:
    """Inputs and what the reference computes for them: what a bundle is checked with wherever it goes.

    Attributes:
        inputs_VCSS: Preprocessed images, float32; 16 or more where they travel with a bundle.
        outputs_VK: Their logits, float32.
        int8_outputs_VK: What the int8 file computes for them; None where the bundle has none.
    """

    inputs_VCSS: NDArray[np.float32]
    outputs_VK: NDArray[np.float32]
    int8_outputs_VK: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        assert self.inputs_VCSS.ndim == 4, "images (V, C, S, S)"
        assert self.outputs_VK.ndim == 2, "logits (V, K)"
        assert len(self.inputs_VCSS) == len(self.outputs_VK), "one output per input"
        assert self.inputs_VCSS.dtype == self.outputs_VK.dtype == np.float32, "float32 in and out"

    def to_bytes(self) -> bytes:
        """Return the vectors as an npz archive, of a bundle; equal vectors give equal bytes."""
        assert len(self.inputs_VCSS) >= MIN_VECTORS, "16 or more"
        buffer = io.BytesIO()
        arrays = {"inputs": self.inputs_VCSS, "outputs": self.outputs_VK}
        if self.int8_outputs_VK is not None:
            arrays[OUTPUTS_INT8] = self.int8_outputs_VK
        np.savez(buffer, allow_pickle=False, **arrays)
        return buffer.getvalue()


class ModelWriter(NamedTuple):
    """How a variant comes about."""

    variant: Variant
    """Which one."""
    write: Callable[[Path], tuple[str, ...]]
    """Writes its files to a folder and returns their names; first the one a runtime is given."""
    accuracy: float | None
    """Share of right answers, where it is known."""
    predicted: PredictedLatency | None
    """What the profile predicts of it."""
    ran_by: RanBy | None = None
    """What runs it for its gate."""
    counts: Callable[[Path], Mapping[str, int]] | None = None
    """Counts in the file that a runtime is given; None: there is nothing to count."""
    layout: Literal["nchw", "nhwc"] = "nchw"
    """The order of the dimensions of the images that it takes."""


#: Files of each variant, by the variant's name; first the one a runtime is given.
WrittenFiles = Mapping[str, tuple[str, ...]]
Gate = Callable[[Path, WrittenFiles, Vectors], Mapping[str, ParityGate | Int8Gate]]
#: Latencies of some of the variants, by name.
MeasuredHere = Mapping[str, MeasuredLatency]
Measure = Callable[[Path], MeasuredHere]


def check_replaceable(folder: Path) -> None:
    """Fail if a bundle cannot take a folder's place, because something lies there that is of no bundle.

    Raises:
        OutputError: It does: files that its SHA256SUMS does not list, or anything where there is none.
    """
    held = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()}
    try:
        known = {*bundle_files.hashes_of_sums(bundle_files.read_text_file(folder, bundle_files.SUMS))}
    except bundle_files.CheckError:
        known = set()
    strangers = sorted(held - known - bundle_files.BESIDE_SUMS)
    strangers = [name for name in strangers if not bundle_files.is_litter(PurePosixPath(name).name)]
    if strangers:
        what = f"it holds {strangers[0]}, which is of no bundle"
        raise OutputError(f"cannot write {folder}: {what}; move it away, or choose another place with --out")


def write_bundle(
    folder: Path,
    draft: ManifestDraft,
    writers: Sequence[ModelWriter],
    vectors: Vectors,
    gate: Gate,
    measure: Measure | None = None,
) -> Manifest:
    """Write a bundle. It appears at its place when it is whole and has passed every gate; until then nothing does.

    Args:
        folder: The bundle's place. A bundle that is there is replaced in one step.
        draft: The manifest but for models.
        writers: How each variant comes about; the one that every bundle has among them.
        vectors: Inputs and the reference's outputs.
        gate: Compares the files in the folder it is given with the reference, and returns what it found of each
            variant; raises `GateError` if one is wrong.
        measure: Times files in the folder it is given, on this machine; None times none.

    Returns:
        The manifest as written.

    Raises:
        GateError: A file does not compute what it must.
        ArtifactError: The draft contradicts the model.
        OutputError: The folder cannot be written, or holds what is of no bundle.

    Side effects: Creates or replaces `folder`.
    """
    check_replaceable(folder)
    with files.atomic_directory(folder) as partial:
        written = {each.variant.name: each.write(partial) for each in writers}
        files.write_bytes(partial / bundle_files.VECTORS, vectors.to_bytes())
        for name in program.PROGRAMS:
            files.write_bytes(partial / name, program.program(name))
        gates = gate(partial, written, vectors)
        measured_here: MeasuredHere = {} if measure is None else measure(partial)
        models = {
            each.variant.name: VariantRecord(
                format=each.variant.format,
                precision=each.variant.precision,
                files={name: (partial / name).stat().st_size for name in written[each.variant.name]},
                accuracy=each.accuracy,
                gate=gates[each.variant.name],
                latency=VariantLatency(predicted=each.predicted, measured=measured_here.get(each.variant.name)),
                ran_by=each.ran_by,
                layout=each.layout,
                counted={} if each.counts is None else dict(each.counts(partial / written[each.variant.name][0])),
            )
            for each in writers
        }
        manifest = Manifest.model_validate({**draft.model_dump(by_alias=True), "models": models})
        files.write_text(partial / CARD, render_model_card(manifest))
        files.write_text(partial / FILENAME, manifest.to_json())
        names = bundle_files.list_files(partial)
        files.write_text(partial / bundle_files.SUMS, "".join(bundle_files.sha256sums(partial, names)))
        _check(partial, place=folder)
    return manifest


def load_manifest(folder: Path) -> Manifest:
    """Return the manifest of a bundle.

    Raises:
        ArtifactError: There is none, or it is damaged or of another schema version; the message names file and key.
    """
    with failing_as_ours(folder):
        content = bundle_files.read_text_file(folder, FILENAME)
    path = folder / FILENAME
    try:
        return Manifest.from_json(content.decode(), str(path))
    except UnicodeDecodeError as error:
        raise ArtifactError(f"{path}: cannot be read: {error}; copy or export the bundle again") from error


def check_can_keep(folder: Path, out: Path | None) -> None:
    """Fail before anything is measured of a bundle, if it cannot be kept.

    Args:
        folder: The bundle.
        out: As of `record_measurement`.

    Raises:
        ArtifactError: The folder holds no bundle.
        OutputError: Nothing can be written at the place, or something else than a measurement of it is there.
    """
    if out is not None and folder.resolve() in out.resolve().parents:
        raise OutputError(f"cannot write {out}: a bundle has no room for other files; {places.CHOOSE_OUT}")
    advice = "name a file elsewhere with --out" if out is None else places.CHOOSE_OUT
    with places.hold(out or folder / measured.FILENAME, advice=advice), failing_as_ours(folder):
        sums = bundle_files.read_text_file(folder, bundle_files.SUMS)
    if out is None or not os.path.lexists(out):
        return
    with as_output_error(out, places.CHOOSE_OUT):
        content = out.read_bytes() if out.is_file() else b""
    if content != bundle_files.sealed(bundle_files.without_seal(content), sums):
        raise OutputError(
            f"cannot write {out}: it is there and holds no measurement of the bundle; {places.CHOOSE_OUT}"
        )


def record_measurement(folder: Path, latency: MeasuredBundle, out: Path | None = None) -> None:
    """Keep what was measured of a bundle's files in its `measured.json`. What was measured of them before is replaced.

    Args:
        folder: The bundle.
        latency: What was measured.
        out: A file to keep it in instead, which can become that of the bundle; None is that of the bundle.

    Raises:
        ArtifactError: The folder holds no bundle.
        OutputError: The file cannot be written.

    Side effects: Writes that file in one step; every other stays as it is.
    """
    _record(folder, out, latency=latency)


def record_engine(folder: Path, engine: MeasuredEngine, out: Path | None = None) -> None:
    """Keep what was measured of an engine of the model in `measured.json`; as `record_measurement`."""
    _record(folder, out, engine=engine)


def _record(folder: Path, out: Path | None, **found: MeasuredLatency | MeasuredEngine) -> None:
    with failing_as_ours(folder):
        sums = bundle_files.read_text_file(folder, bundle_files.SUMS)
    path = out or folder / measured.FILENAME
    with files.atomic_file(path) as partial:  # from here on nobody else records anything
        try:
            is_kept = out is not None and out.is_file()  # then `check_can_keep` has looked at it
            before = measured.from_text(path.read_bytes(), str(path)) if is_kept else load_measured(folder)
        except ArtifactError:  # what is damaged is replaced
            before = MeasuredDocument(schema=measured.SCHEMA, latency=None)
        with as_output_error(path):
            partial.write_bytes(measured.to_text(before.model_copy(update=found), sums))


def load_measurement(folder: Path) -> MeasuredBundle | None:
    """Return what was measured of a bundle's files after it was made; None where nobody did.

    Raises:
        ArtifactError: `measured.json` is altered, or of another bundle.
    """
    return load_measured(folder).latency


def load_measured(folder: Path) -> MeasuredDocument:
    """Return all that was measured of a bundle after it was made.

    Raises:
        ArtifactError: `measured.json` is altered, or of another bundle.
    """
    path = folder / measured.FILENAME
    if not os.path.lexists(path):
        return MeasuredDocument(schema=measured.SCHEMA, latency=None)
    with failing_as_ours(folder):
        content = bundle_files.read_measured(folder)
    return measured.from_text(content, str(path))


def verify_bundle(folder: Path) -> VerifiedBundle:
    """Check that a bundle is whole, unaltered and consistent, and that its ONNX file still computes what it did.

    What is of other formats is hashed, and not loaded here.

    Raises:
        ArtifactError: A file is missing, altered or not part of the bundle, or the bundle contradicts itself.
        GateError: The outputs differ from the recorded ones, or depend on the batch.
        DependencyError: onnxruntime is too old for the model, or cannot run it.
    """
    manifest, report = _check(folder, place=folder)
    return VerifiedBundle(
        bundle=folder,
        verdict="ok",
        exceeded_limits=manifest.exceeded_limits,
        arch_id=manifest.arch_id,
        profile=manifest.profile.name,
        files=report["files"],
        environment=report["environment"],
        parity=report["parity"],
        int8=report.get("int8"),
        measured=load_measurement(folder),
        signature=None,
        is_signed=files.is_file(folder / bundle_files.SIGNATURE),
        executed=(),
        not_executed=tuple(
            name for name in manifest.model_files if name not in {*manifest.main.files, bundle_files.INT8_MODEL}
        ),
        not_installed={},
        not_compared=not_compared(folder, manifest),
    )


def _check(folder: Path, place: Path) -> tuple[Manifest, Report]:
    """Return the manifest and what the checks found; `place` stands for the folder in messages.

    Nothing is executed before everything else was found right.
    """
    with failing_as_ours(place):
        sizes = bundle_files.check_files(folder)
    manifest = load_manifest(folder)
    check_consistency(folder, manifest, sizes, place)
    report: Report = {
        "schema": 1,
        "exit_code": bundle_files.OK,
        "reason": None,
        "files": {"num_files": len(sizes), "num_bytes": sum(sizes.values())},
    }
    with failing_as_ours(place):
        bundle_checks.check_model(folder, report, threads=1, seconds=None)
    return manifest, report
