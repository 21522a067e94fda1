"""What a run needs to work with its clients: the supernet's weights and an engine. Imports torch."""

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path

import torch

from fedsup_deploy import files, registry
from fedsup_deploy.artifact import weights
from fedsup_deploy.config.schema import TrainConfig
from fedsup_deploy.data.federated import FederatedData
from fedsup_deploy.federated.client import LocalTraining
from fedsup_deploy.federated.site import Site
from fedsup_deploy.federated.tasks import Engine
from fedsup_deploy.pipeline.runs import SUPERNET, Run
from fedsup_deploy.supernet.layout import Layout
from fedsup_deploy.supernet.model import Supernet


@contextlib.contextmanager
def open_engine(config: TrainConfig, layout: Layout, data: FederatedData) -> Iterator[Engine]:
    """Yield the config's engine over the given data, and close it afterwards.

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
    make_site = functools.partial(Site, layout, data, training, *calibration, config.seed)
    engine: Engine = registry.resolve("engine", config.engine.name)(make_site, config.engine.workers)
    try:
        yield engine
    finally:
        engine.close()


@contextlib.contextmanager
def open_run_engine(run: Run) -> Iterator[Engine]:
    """Yield an engine over a finished run's data."""
    with open_engine(run.config, run_layout(run), run.data) as engine:
        yield engine


def run_layout(run: Run) -> Layout:
    """Return the layout of a run's supernet."""
    return Layout(run.space, run.config.supernet.normalization)


def load_supernet(run: Run) -> Supernet:
    """Return the trained supernet of a run.

    Raises:
        ArtifactError: The file is damaged or does not fit the run's space.
    """
    arrays, _ = weights.read_arrays(run.path / SUPERNET, "supernet")
    return Supernet(run_layout(run), {name: torch.from_numpy(array) for name, array in arrays.items()})


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
