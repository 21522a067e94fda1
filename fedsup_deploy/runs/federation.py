"""What a run needs to work with its clients: the supernet's weights, and the federation. Imports torch."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import torch

from fedsup_deploy import files, registry
from fedsup_deploy.artifact import weights
from fedsup_deploy.config.schema import TrainConfig
from fedsup_deploy.data.dataset import DamagedFileError
from fedsup_deploy.data.names import escaped
from fedsup_deploy.data.preprocess import Preprocessing
from fedsup_deploy.errors import ArtifactError, DataError
from fedsup_deploy.events import EventLog
from fedsup_deploy.federation.client import ClientId
from fedsup_deploy.federation.jobs.statistics import CalibrationDraw
from fedsup_deploy.federation.messages import Blob, Engine
from fedsup_deploy.federation.server import cohort
from fedsup_deploy.federation.server.cohort import OnAbsences, Terms
from fedsup_deploy.federation.server.federation import Federation, pixel_preprocessing
from fedsup_deploy.federation.server.norms import Norms
from fedsup_deploy.federation.server.strategy import ServerState
from fedsup_deploy.federation.simulation import CLIENTS, NEWCOMERS, UNSEEN, FederatedData
from fedsup_deploy.run_events import Absences
from fedsup_deploy.runs.run import SUPERNET, Run
from fedsup_deploy.supernet.layout import Layout
from fedsup_deploy.supernet.model import Supernet

#: Begins the names, in a checkpoint, of what a strategy keeps, and of the norms of a round.
_KEPT: Final = "kept/"
_NORMS: Final = "norms/"


@contextlib.contextmanager
def open_engines(config: TrainConfig, data: FederatedData) -> Iterator[Mapping[str, Engine]]:
    """Yield the config's engine for each population of a federation, and close all afterwards.

    Side effects: Starts processes for the time of the context.
    """
    engine = config.engine
    if engine.superlink is None:
        opened = registry.resolve("engine", engine.name)(data.populations, engine.workers)
    else:
        names = data.names or tuple(map(str, range(data.num_clients)))
        open_deployment = registry.resolve("deployment", engine.name)
        where = engine.superlink, engine.root_certificates
        opened = open_deployment(data.populations, engine.workers, *where, names=names)
    with opened as engines:
        yield engines


def federation_of(
    config: TrainConfig, engines: Mapping[str, Engine], preprocessing: Preprocessing, log: EventLog
) -> Federation:
    """Return the server's side of a federation; each absence is an event."""
    return Federation(
        clients=engines[CLIENTS],
        own={name: engine for name, engine in engines.items() if name not in {CLIENTS, UNSEEN, NEWCOMERS}},
        preprocessing=preprocessing,
        calibration=CalibrationDraw(config.calibration.samples_per_client, config.calibration.batch_size),
        calibration_clients=config.calibration.clients,
        terms=terms_of(config),
        seed=config.seed,
        on_absences=absences_into(log),
        unseen=engines.get(UNSEEN),
    )


def count_pixels(
    config: TrainConfig, made_square: str | None, clients: Engine, padded_size: int, on_absences: OnAbsences
) -> Preprocessing:
    """Return the preprocessing of the clients' images, before there is a federation.

    Args:
        config: Of the run; with `calibration.pixel_clients` no others have to look at their images.
        made_square: How images were made squares, where they were.
        clients: Carries jobs to the clients.
        padded_size: Side to pad smaller images to, pixels.
        on_absences: Told of the clients that have not answered.

    Raises:
        DataError: The images are not square, or a channel has the same value everywhere; says which images.
        FederationError: Too few clients have answered.
    """
    count = config.calibration.pixel_clients
    asked = None if count is None else cohort.sample(clients.clients(), count, config.seed, "calibration")
    try:
        found = pixel_preprocessing(clients, terms_of(config), padded_size, on_absences, asked)
    except DamagedFileError:  # names its file
        raise
    except DataError as error:
        where = "" if config.data.root is None else f" at {escaped(config.data.root)}"
        raise DataError(f"{config.data.dataset}{where}: {error}") from error
    return dataclasses.replace(found, how=made_square)


@contextlib.contextmanager
def open_run_federation(run: Run, log: EventLog) -> Iterator[Federation]:
    """Yield the federation of a finished run.

    Side effects: Starts processes for the time of the context. Says in an event where nothing can be kept.
    """
    if run.read_only is not None:
        what = "accuracies and statistics are not kept there, and found anew each time"
        log.emit("not_kept", notes=[f"{run.path} cannot be written: {run.read_only}; {what}"])
    with open_engines(run.config, run.data) as engines:
        yield federation_of(run.config, engines, run.preprocessing, log)


def terms_of(config: TrainConfig) -> Terms:
    """Return what is expected of clients."""
    return Terms(config.federation.quorum, config.federation.deadline_s)


def absences_into(log: EventLog, round_index: int | None = None) -> OnAbsences:
    """Return what makes an `Absences` event of the clients that were asked and have not answered.

    Args:
        log: Where to.
        round_index: In or after which round, while a run is trained, where the exchange itself does not say.
    """
    usual = round_index

    def on_absences(
        what: str,
        num_asked: int,
        absent: Mapping[ClientId, str],
        names: Mapping[ClientId, str],
        round_index: int | None = None,
    ) -> None:
        within = usual if round_index is None else round_index
        at = {} if within is None else {"round": within}
        said = {"what": what, "num_asked": num_asked, **absent_fields(absent, names), **at}
        log.record(Absences.model_validate(said))

    return on_absences


def absent_fields(absent: Mapping[ClientId, str], names: Mapping[ClientId, str]) -> dict[str, dict[str, str]]:
    """Return what an event says of clients that have not answered: by their numbers the reasons, and the names."""
    reasons = {str(client): reason for client, reason in absent.items()}
    named = {str(client): names[client] for client in absent if client in names}
    return {"absent": reasons, **({"absent_names": named} if named else {})}


def run_layout(run: Run) -> Layout:
    """Return the layout of a run's supernet."""
    return Layout(run.space, run.config.supernet.normalization)


def load_supernet(run: Run) -> Supernet:
    """Return the trained supernet of a run.

    Raises:
        ArtifactError: The file is damaged, does not fit the run's space or is not what it was.
    """
    return _read_supernet(run.path / SUPERNET, run_layout(run), run.fingerprint)


def read_checkpoint(path: Path, layout: Layout) -> tuple[ServerState, weights.CheckpointRecord]:
    """Return what a checkpoint holds, and what it says of itself.

    Raises:
        ArtifactError: The file is damaged, has been changed, or is of another space.
    """
    arrays, document = weights.read_arrays(path, "checkpoint")
    record = weights.checked(path, document, weights.CheckpointRecord)
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    if record.tensors != Blob(tensors).name:
        raise ArtifactError(f"{path}: its tensors are not those it was written with; remove it to train from the start")
    kept, norms = (_taken_out(tensors, prefix) for prefix in (_KEPT, _NORMS))
    of_rounds = tuple(tuple(tensor.tolist()) for _, tensor in sorted(norms.items()))
    return ServerState(Supernet(layout, tensors), kept, of_rounds), record


def _taken_out(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """Take the tensors out whose names begin with something; their names here do not."""
    names = [name for name in tensors if name.startswith(prefix)]
    return {name.removeprefix(prefix): tensors.pop(name) for name in names}


def _read_supernet(path: Path, layout: Layout, fingerprint: str) -> Supernet:
    arrays, _ = weights.read_arrays(path, "supernet")
    # What is found out about the supernet is written down under its fingerprint.
    if files.sha256(path) != fingerprint:
        raise ArtifactError(f"{path}: has changed since it was opened; start again")
    return Supernet(layout, {name: torch.from_numpy(array) for name, array in arrays.items()})


def save_supernet(
    path: Path,
    kind: str,
    supernet: Supernet,
    kept: Mapping[str, torch.Tensor] | None = None,
    norms: Norms = (),
    **document: float | str | None,
) -> None:
    """Write a supernet, atomically, as `supernet` or `checkpoint`.

    Args:
        path: Where to.
        kind: `supernet` or `checkpoint`.
        supernet: What to write.
        kept: What a strategy keeps between rounds, for a checkpoint.
        norms: What the updates of the next round are compared with, for a checkpoint.
        document: What else to say of it.
    """
    tensors = {**supernet.weights, **{f"{_KEPT}{name}": tensor for name, tensor in (kept or {}).items()}}
    tensors |= {f"{_NORMS}{index}": torch.tensor(each, dtype=torch.float64) for index, each in enumerate(norms)}
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    if kind == "checkpoint":
        # Nobody has the hash of the file elsewhere, as of a supernet.
        document["tensors"] = Blob(tensors).name
    space_hash = files.sha256_of(supernet.layout.space.to_dict())
    normalization = supernet.layout.normalization
    weights.write_arrays(path, kind, arrays, {"space_hash": space_hash, "normalization": normalization, **document})
