"""The Python interface: the commands as functions, and a bundle as an object. Torch is imported when it is needed."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedsup_deploy.artifact.manifest import Manifest
from fedsup_deploy.config.schema import TrainConfig, load_train_config
from fedsup_deploy.device.profile import DeviceProfile
from fedsup_deploy.events import Listener
from fedsup_deploy.ondevice.records import AnyPixels, Percentile
from fedsup_deploy.variant import Precision

if TYPE_CHECKING:
    from fedsup_deploy.commands.search import WrittenSearch
    from fedsup_deploy.commands.training_summary import Trained
    from fedsup_deploy.searchers.result import Preference

Listeners = tuple[Listener, ...]


@dataclasses.dataclass(frozen=True)
class Artifact:
    """A verified bundle.

    Args:
        folder: Where it is.
        manifest: What it says of itself.
    """

    folder: Path
    # Pages of figures, whose own fields tell them.
    manifest: Manifest = dataclasses.field(repr=False)

    def __str__(self) -> str:
        """Return which network it is, for which device, how accurate, and where."""
        manifest, found = self.manifest, self.manifest.accuracy
        accuracy = f"accuracy {found.recalibrated:.1%} on {found.num_samples:,} {found.split} images"
        return (
            f"{manifest.arch_id} for {manifest.profile.name}, {accuracy}, {', '.join(manifest.models)}: {self.folder}"
        )

    def predict(self, images_NHWC: AnyPixels) -> NDArray[np.float32]:
        """Return the logits of images, shape (N, K), by `model.onnx` in onnxruntime.

        Args:
            images_NHWC: Square, of the size the manifest's preprocessing starts from, of the type of its pixels: uint8
                where it names none.

        Raises:
            DataError: The images are not of that type, size or number of channels.
        """
        from fedsup_deploy.data.preprocess import Preprocessing
        from fedsup_deploy.ondevice import bundle_files, inference

        x_NCHW = Preprocessing.from_dict(dict(self.manifest.preprocessing)).apply(images_NHWC)
        session = inference.open_session(str(self.folder / bundle_files.MODEL), threads=1)
        name, most = self.manifest.inputs[0].name, 1 if self.manifest.is_static else max(len(x_NCHW), 1)
        starts = range(0, max(len(x_NCHW), 1), most)
        return np.concatenate([session.run(None, {name: x_NCHW[start : start + most]})[0] for start in starts])


def train(
    config: TrainConfig | str | Path,
    out: Path | str | None = None,
    *,
    overrides: Sequence[str] = (),
    resume: bool = False,
    listeners: Listeners = (),
    track: Sequence[str] = (),
) -> "Trained":
    """Train a supernet over simulated clients; see `fedsup_deploy.commands.train.train`.

    Args:
        config: A config, a shipped name, or the path of a YAML file.
        out: The run's folder; None is `runs/<name of the config>`.
        overrides: `key.path=value` assignments to a config named or in a file.
        resume: Continue from the last checkpoint in the folder.
        listeners: Called with each event.
        track: Names of trackers, such as `tensorboard`.
    """
    from fedsup_deploy.commands.train import train as run_command

    settings = config if isinstance(config, TrainConfig) else load_train_config(config, list(overrides))
    return run_command(settings, None if out is None else Path(out), resume=resume, listeners=listeners, track=track)


def search(  # noqa: PLR0913  they are the options of a command
    profiles: Sequence[str | DeviceProfile],
    run: Path | str | None = None,
    *,
    limits: Mapping[str, float] | None = None,
    method: str = "auto",
    accuracy: str = "auto",
    evaluations: int | None = None,
    risk: float | None = None,
    percentile: Percentile | None = None,
    max_artifacts: int | None = None,
    prefer: "Preference" = "accurate",
    objective: str = "accuracy",
    seed: int = 0,
    out: Path | str | None = None,
    resume: bool = False,
    engine: str | None = None,
    listeners: Listeners = (),
) -> "WrittenSearch":
    """Find the most accurate subnet within the limits of each profile; see `fedsup_deploy.commands.search.search`.

    Args:
        profiles: Shipped names, files, or profiles.
        run: A finished run; None is the newest below `runs/`.
        limits: Such as `latency_ms`, `macs`, `params`, `memory_mib`: each replaces that of the profiles.
        method: A registered searcher, or `auto`.
        accuracy: Where it comes from: `measured`, `clients`, `predicted`, or `auto`.
        evaluations: Accuracies to find at most, per profile; None leaves it to the method.
        risk: Probability in (0, 1) with which the measured latency is to be within its limit; None holds the prediction
            itself to it.
        percentile: Which percentile of latency a limit on it means; None leaves it to the profiles, else `p50`.
        max_artifacts: The most different subnets for all profiles together; None lets each have its own.
        prefer: What is picked: `accurate` is the most accurate subnet, `cheaper` the one with the fewest MACs that
            is as accurate within noise and no slower.
        objective: What is maximised: `accuracy`, `balanced_accuracy`, `macro_f1`, `auc`, `calibration_error` (the
            lowest is best) or `worst_decile` of the clients.
        seed: Decides every random choice.
        out: Where the result goes; None is `search.json` in the run's folder.
        resume: Go on with the same search where it was stopped.
        engine: What runs the clients; None is what the run was trained with. The result does not depend on it.
        listeners: Called with each event.
    """
    from fedsup_deploy.commands.search import SearchRequest
    from fedsup_deploy.commands.search import search as run_command

    request = SearchRequest(
        profiles=profiles,
        run=_path(run),
        limits={} if limits is None else limits,
        method=method,
        evaluations=evaluations,
        seed=seed,
        out=_path(out),
        accuracy=accuracy,
        risk=risk,
        percentile=percentile,
        max_artifacts=max_artifacts,
        prefer=prefer,
        objective=objective,
        resume=resume,
        engine=engine,
    )
    return run_command(request, listeners)


def deploy(  # noqa: PLR0913  they are the options of a command
    profiles: Sequence[str | DeviceProfile],
    run: Path | str | None = None,
    out: Path | str = "exports",
    *,
    formats: Sequence[str] = (),
    precisions: Sequence[Precision] = (),
    limits: Mapping[str, float] | None = None,
    method: str = "auto",
    accuracy: str = "auto",
    evaluations: int | None = None,
    risk: float | None = None,
    percentile: Percentile | None = None,
    max_artifacts: int | None = None,
    prefer: "Preference" = "accurate",
    objective: str = "accuracy",
    seed: int = 0,
    engine: str | None = None,
    listeners: Listeners = (),
) -> list[Artifact]:
    """Search, export and check one bundle per profile; see `fedsup_deploy.commands.deploy.deploy`.

    Args:
        profiles: Shipped names, files, or profiles.
        run: A finished run; None is the newest below `runs/`.
        out: Folder of the bundles.
        formats: Such as `onnx`; none means those of each profile.
        precisions: Such as `fp32`; none means those of each profile.
        limits: As of `search`.
        method: As of `search`.
        accuracy: As of `search`.
        evaluations: As of `search`.
        risk: As of `search`.
        percentile: As of `search`.
        max_artifacts: As of `search`: the bundles hold at most so many different subnets.
        prefer: As of `search`.
        objective: As of `search`.
        seed: As of `search`.
        engine: As of `search`.
        listeners: Called with each event.
    """
    from fedsup_deploy.commands.deploy import deploy as run_command
    from fedsup_deploy.commands.search import SearchRequest

    request = SearchRequest(
        profiles=profiles,
        run=_path(run),
        limits={} if limits is None else limits,
        method=method,
        evaluations=evaluations,
        seed=seed,
        accuracy=accuracy,
        risk=risk,
        percentile=percentile,
        max_artifacts=max_artifacts,
        prefer=prefer,
        objective=objective,
        engine=engine,
    )
    made = run_command(request, Path(out), formats, precisions, listeners)
    return [load_artifact(bundle.folder) for bundle in made.bundles]


def load_artifact(folder: Path | str) -> Artifact:
    """Return a bundle after checking its hashes, and its model against the bundled vectors.

    Raises:
        ArtifactError: A file is missing, altered, or the manifest is damaged.
        GateError: The model computes something else.
    """
    from fedsup_deploy.artifact import store

    store.verify_bundle(Path(folder))
    return Artifact(Path(folder), store.load_manifest(Path(folder)))


def _path(path: Path | str | None) -> Path | None:
    return None if path is None else Path(path)
