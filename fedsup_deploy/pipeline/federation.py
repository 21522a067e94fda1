"""What a run needs to work with its clients: the supernet's weights and an engine. Imports torch."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from fedsup_deploy import files, registry
from fedsup_deploy.artifact import weights
from fedsup_deploy.config.schema import TrainConfig
from fedsup_deploy.data.federated import FederatedData
from fedsup_deploy.errors import ArtifactError
from fedsup_deploy.federated.client import LocalTraining
from fedsup_deploy.federated.site import Site
from fedsup_deploy.federated.tasks import Engine
from fedsup_deploy.pipeline.runs import SUPERNET, Run
from fedsup_deploy.supernet.layout import Layout
from fedsup_deploy.supernet.model import Supernet


@contextlib.contextmanager
def open_engine(
    config: TrainConfig, layout: Layout, data: FederatedData, held_supernet: Callable[[], Supernet] | None = None
) -> Iterator[Engine]:
    """Yield the config's engine over the given data, and close it afterwards.

    Args:
        config: What clients do, and which engine.
        layout: Of the supernet.
        data: The images.
        held_supernet: Gets the supernet that the clients hold; it must pickle. None during training, when it changes.

    Side effects: Starts processes for the time of the context.
    """
    training = LocalTraining(
        config.training.local_epochs,
        config.training.batch_size,
        config.training.momentum,
        config.training.weight_decay,
        config.training.clip_value,
        config.training.logit_adjustment,
    )
    calibration = (config.calibration.samples_per_client, config.calibration.batch_size)
    make_site = functools.partial(Site, layout, data, training, *calibration, config.seed, held_supernet)
    engine: Engine = registry.resolve("engine", config.engine.name)(make_site, config.engine.workers)
    try:
        yield engine
    finally:
        engine.close()


@contextlib.contextmanager
def open_run_engine(run: Run) -> Iterator[Engine]:
    """Yield an engine over a finished run's data, whose clients hold its supernet."""
    layout = run_layout(run)
    held_supernet = functools.partial(_read_supernet, run.path / SUPERNET, layout, run.fingerprint)
    with open_engine(run.config, layout, run.data, held_supernet) as engine:
        yield engine


def run_layout(run: Run) -> Layout:
    """Return the layout of a run's supernet."""
    return Layout(run.space, run.config.supernet.normalization)


def load_supernet(run: Run) -> Supernet:
    """Return the trained supernet of a run.

    Raises:
        ArtifactError: The file is damaged, does not fit the run's space or is not what it was.
    """
    return _read_supernet(run.path / SUPERNET, run_layout(run), run.fingerprint)


def _read_supernet(path: Path, layout: Layout, fingerprint: str) -> Supernet:
    arrays, _ = weights.read_arrays(path, "supernet")
    # What is found out about the supernet is written down under its fingerprint.
    if files.sha256(path) != fingerprint:
        raise ArtifactError(f"{path}: has changed since it was opened; start again")
    return Supernet(layout, {name: torch.from_numpy(array) for name, array in arrays.items()})


def save_supernet(path: Path, kind: str, supernet: Supernet, **document: int | str) -> None:
    """Write a supernet, atomically, as `supernet` or `checkpoint`.

    Args:
        path: Where to.
        kind: `supernet` or `checkpoint`.
        supernet: What to write.
        document: What else to say of it.
    """
    arrays = {name: tensor.numpy() for name, tensor in supernet.weights.items()}
    space_hash = files.sha256_of(supernet.layout.space.to_dict())
    normalization = supernet.layout.normalization
    weights.write_arrays(path, kind, arrays, {"space_hash": space_hash, "normalization": normalization, **document})
