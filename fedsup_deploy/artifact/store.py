"""Bundles on disk: written whole or not at all, and checked.

Owns the order: model files, vectors, runner, parity gate, measurement, card, manifest, and at last the bundle's own
runner on the folder. Only then does the folder appear at its place. How a format is written, and what it is compared
with, come in as functions; this module knows no format but the ONNX file that every bundle has.

Shape suffixes: V vectors, C channels, S side of the input, K classes.
"""

import io
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsup_deploy import files
from fedsup_deploy.artifact import runner
from fedsup_deploy.artifact.manifest import (
    FILENAME,
    Manifest,
    ManifestDraft,
    ParityRecord,
)
from fedsup_deploy.artifact.measured import MeasuredLatency
from fedsup_deploy.artifact.model_card import render_model_card
from fedsup_deploy.errors import ArtifactError, DependencyError, FedsupError, GateError

MODEL = "model.onnx"
VECTORS = "vectors.npz"
RUNNER = "run.py"
CARD = "MODEL_CARD.md"
MIN_VECTORS = 16

_ERRORS: Mapping[int, type[FedsupError]] = MappingProxyType(
    {
        runner.ALTERED: ArtifactError,
        runner.MISSING: ArtifactError,
        runner.USAGE: DependencyError,
        runner.PARITY: GateError,
        runner.BATCH_INVARIANCE: GateError,
    }
)


@dataclass(frozen=True)
class Vectors:
    """Inputs and what the reference computes for them: what a bundle is checked with wherever it goes.

    Attributes:
        inputs_VCSS: Preprocessed images, float32; 16 or more.
        outputs_VK: Their logits, float32.
    """

    inputs_VCSS: NDArray[np.float32]
    outputs_VK: NDArray[np.float32]

    def __post_init__(self) -> None:
        assert self.inputs_VCSS.ndim == 4, "images (V, C, S, S)"
        assert self.outputs_VK.ndim == 2, "logits (V, K)"
        assert len(self.inputs_VCSS) == len(self.outputs_VK) >= MIN_VECTORS, "one output per input, 16 or more"
        assert self.inputs_VCSS.dtype == self.outputs_VK.dtype == np.float32, "float32 in and out"

    def to_bytes(self) -> bytes:
        """Return the vectors as an npz archive; equal vectors give equal bytes."""
        buffer = io.BytesIO()
        np.savez(buffer, inputs=self.inputs_VCSS, outputs=self.outputs_VK)
        return buffer.getvalue()


Writer = Callable[[Path], None]
Gate = Callable[[Path, Vectors], dict[str, Any]]
Measure = Callable[[Path], MeasuredLatency]


def write_bundle(
    folder: Path,
    draft: ManifestDraft,
    writers: Mapping[str, Writer],
    vectors: Vectors,
    gate: Gate,
    measure: Measure | None = None,
) -> Manifest:
    """Write a bundle. It appears at its place when it is whole and has passed every gate; until then nothing does.

    Args:
        folder: The bundle's place. A bundle that is there is replaced in one step.
        draft: The manifest but for parity and files.
        writers: For each model file's name, what writes it to the path it is given; `model.onnx` among them.
        vectors: Inputs and the reference's outputs.
        gate: Compares the model files in the folder it is given with the reference, and returns the JSON document of
            its report; raises `GateError` if one is wrong.
        measure: Times the model file it is given, on this machine; None leaves `latency_measured` as drafted.

    Returns:
        The manifest as written.

    Raises:
        GateError: A file does not compute what it must.
        OutputError: The folder cannot be written.

    Side effects: Creates or replaces `folder`.
    """
    assert MODEL in writers, "every bundle has model.onnx: it is what run.py checks and times"
    with files.atomic_directory(folder) as partial:
        for name, write in writers.items():
            write(partial / name)
        files.write_bytes(partial / VECTORS, vectors.to_bytes())
        files.write_bytes(partial / RUNNER, Path(runner.__file__).read_bytes())
        parity = ParityRecord.model_validate_json(json.dumps(gate(partial, vectors)))
        if measure is not None:
            draft = draft.model_copy(update={"latency_measured": measure(partial / MODEL)})
        files.write_text(partial / CARD, render_model_card(draft, parity, tuple(sorted(writers))))
        manifest = _complete(draft, parity, partial)
        files.write_text(partial / FILENAME, manifest.to_json())
        _run_checks(partial, shown=folder)
    return manifest


def load_manifest(folder: Path) -> Manifest:
    """Return the manifest of a bundle.

    Raises:
        ArtifactError: There is none, or it is damaged or of another schema version; the message names file and key.
    """
    path = folder / FILENAME
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ArtifactError(
            f"{folder}: got no {FILENAME}, expected a bundle; give the folder that holds one"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path}: cannot be read: {runner.first_line(error)}") from error
    return Manifest.from_json(text, str(path))


def record_measurement(folder: Path, latency: MeasuredLatency) -> Manifest:
    """Replace the measured latency of a bundle: in its manifest, and in the model card, which shows it.

    Every other file stays as it is, whole or altered, and so does what is not part of the bundle.

    Returns:
        The manifest as written.

    Raises:
        ArtifactError: The folder holds no bundle.
        OutputError: The folder cannot be written.

    Side effects: Replaces `folder` in one step.
    """
    with files.atomic_directory(folder) as partial:
        # From here on nobody else replaces it.
        new = load_manifest(folder).model_copy(update={"latency_measured": latency})
        formats = tuple(sorted(set(new.files) - {VECTORS, RUNNER, CARD}))
        card = render_model_card(new, new.parity, formats)
        shutil.copytree(folder, partial, symlinks=True, copy_function=_link, dirs_exist_ok=True)
        files.write_text(partial / CARD, card)
        document = new.model_dump(mode="json", by_alias=True)
        document["files"][CARD] = _record(partial / CARD)
        manifest = Manifest.model_validate_json(json.dumps(document))
        files.write_text(partial / FILENAME, manifest.to_json())
    return manifest


def verify_bundle(folder: Path) -> dict[str, Any]:
    """Check that a bundle is whole and unaltered, and that its ONNX file still computes what it did.

    The check is the bundle's own runner's. Other formats may carry code, so they are hashed and not loaded.

    Returns:
        JSON values: `arch_id`, `profile`, `files` (number and bytes), `parity`, `environment`, and `unlisted_files`:
        what lies in the folder and is not part of the bundle.

    Raises:
        ArtifactError: A file is missing or altered, or the manifest is damaged.
        GateError: The outputs differ from the recorded ones, or depend on the batch.
    """
    manifest = load_manifest(folder)
    report = _run_checks(folder, shown=folder)
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {
        "arch_id": manifest.arch_id,
        "profile": manifest.profile.name,
        **report,
        "unlisted_files": sorted(present - {FILENAME, *manifest.files}),
    }


def raise_if_failed(report: Mapping[str, Any], where: str) -> None:
    """Turn the report of a runner that found something wrong into the error that it is.

    Args:
        report: What `run.py --json` prints.
        where: The bundle, for the message.

    Raises:
        ArtifactError: A file is missing or altered.
        GateError: The outputs differ from the recorded ones, or depend on the batch.
        DependencyError: NumPy or onnxruntime cannot be imported.
    """
    if report["exit_code"] != runner.OK:
        raise _ERRORS[report["exit_code"]](f"{where}: {report['reason']}")


def _run_checks(folder: Path, shown: Path) -> dict[str, Any]:
    """Return the report of the bundle's own runner; `shown` stands for the folder in messages."""
    report: dict[str, Any] = {}
    try:
        runner.check_bundle(folder, report, threads=1, seconds=None)
    except runner.CheckError as error:
        raise _ERRORS[error.exit_code](f"{shown}: {error}") from error
    return report


def _complete(draft: ManifestDraft, parity: ParityRecord, folder: Path) -> Manifest:
    """Return the whole manifest: the draft, the parity, and every file that lies in the folder."""
    document = {
        **draft.model_dump(mode="json", by_alias=True),
        "parity": parity.model_dump(mode="json"),
        "files": {path.name: _record(path) for path in sorted(folder.iterdir())},
    }
    return Manifest.model_validate_json(json.dumps(document))


def _record(path: Path) -> dict[str, Any]:
    return {"sha256": files.sha256(path), "bytes": path.stat().st_size}


def _link(source: str, target: str) -> None:
    """Give a file a second name, or copy it where the file system has only one for each."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
