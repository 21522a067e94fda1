"""`report --mistakes`: which of the server's own test images bundles answer wrongly. Torch-free.

They are computed for the page, with the very file that a device gets, from images that the run's config says where to
find. Nothing of it is kept in a bundle or a run.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from fedsup_deploy import files
from fedsup_deploy.artifact.failures import failing_as_ours
from fedsup_deploy.artifact.manifest import Manifest
from fedsup_deploy.data.preprocess import Preprocessing
from fedsup_deploy.errors import ConfigError, DataError, DependencyError
from fedsup_deploy.events import EventLog
from fedsup_deploy.ondevice import bundle_files, inference
from fedsup_deploy.report.mistakes import MOST_SHOWN, Mistake, Mistakes, bounded, surest_first, thumbnail
from fedsup_deploy.runs.run import CONFIG, Run

#: Images that are run at once.
_BATCH: Final = 250
_CLIENTS_KEEP_THEM: Final = "all images of its run are the clients', who keep them: none can be shown"
_NO_RUN: Final = "its run is not among those on this page"


def mistakes_of(bundles: Mapping[Path, Manifest], runs: Sequence[Run], log: EventLog) -> dict[Path, Mistakes | str]:
    """Return for each bundle what it answers wrongly, or why nobody knows; of equal files the same value.

    Args:
        bundles: By their folders.
        runs: Those that they may be of.
        log: Told of each file that was asked.

    Raises:
        ConfigError: There is no run.
        ArtifactError: A file of a bundle was altered.
        DataError: Images are missing, or others than the run was trained with.
        DependencyError: onnxruntime cannot run a model.
    """
    if not runs:
        raise ConfigError("--mistakes: got no run, expected that of the bundles, which knows where its images are")
    of_hash = {files.sha256(run.path / CONFIG): run for run in runs}
    reasons: dict[Path, str] = {}
    models: dict[Path, str] = {}
    known: dict[str, Mistakes] = {}
    for done, (folder, manifest) in enumerate(bundles.items(), start=1):
        run = of_hash.get(manifest.lineage.run)
        if run is None or not run.config.server_has_images:
            reasons[folder] = _NO_RUN if run is None else _CLIENTS_KEEP_THEM
            continue
        with failing_as_ours(folder):
            bundle_files.check_files(folder)
        models[folder] = files.sha256(folder / bundle_files.MODEL)
        if models[folder] not in known:
            known[models[folder]] = _found(folder, manifest, run)
        log.emit("mistakes", done=done, total=len(bundles))
    shown = dict(zip(known, bounded([*known.values()]), strict=True))
    return {**reasons, **{folder: shown[model] for folder, model in models.items()}}


def _found(folder: Path, manifest: Manifest, run: Run) -> Mistakes:
    test, facts = run.data.test, run.image_facts
    assert test is not None, "the server has images"
    if facts.fingerprint not in {None, run.data.fingerprint} or test.classes != tuple(manifest.classes):
        raise DataError(f"{run.path}: its images are not those that it was trained with; put them back")
    logits_NK = _logits(folder, manifest, run)
    surest = surest_first(logits_NK, test.labels_N)
    classes = test.classes
    shown = tuple(
        Mistake(
            png=thumbnail(test.pixels([index])[0]),
            truth=classes[int(test.labels_N[index])],
            said=classes[int(logits_NK[index].argmax())],
            confidence=confidence,
        )
        for index, confidence in surest[:MOST_SHOWN]
    )
    return Mistakes(shown, len(surest), len(test), f"test images of {test.name}, the server's own")


def _logits(folder: Path, manifest: Manifest, run: Run) -> npt.NDArray[np.float32]:
    """Return what the bundle's ONNX file answers to the server's test images, (N, K)."""
    test = run.data.test
    assert test is not None, "the server has images"
    preprocessing, path = Preprocessing.from_dict(manifest.preprocessing), folder / bundle_files.MODEL
    batch = 1 if isinstance(manifest.inputs[0].shape[0], int) else _BATCH
    try:
        session = inference.open_session(path.read_bytes(), threads=1)
        parts = [
            inference.first_output(
                session, preprocessing.apply(test.pixels(range(start, min(start + batch, len(test)))))
            )
            for start in range(0, len(test), batch)
        ]
    except inference.runtime_errors() as error:
        raise DependencyError(f"{folder}: {inference.why_not_run(error, str(path), path.name)[1]}") from error
    return np.concatenate(parts).astype(np.float32)
