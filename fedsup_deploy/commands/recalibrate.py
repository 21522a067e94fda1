"""`fedsup-deploy recalibrate`: client statistics of a subnet, kept beside the run. Imports torch."""

import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from pydantic import JsonValue

from fedsup_deploy import files, places
from fedsup_deploy.artifact import weights
from fedsup_deploy.errors import ArtifactError, OutputError
from fedsup_deploy.events import EventLog, Listener
from fedsup_deploy.federation.networks import standalone
from fedsup_deploy.federation.server import recalibration
from fedsup_deploy.federation.server.federation import Federation
from fedsup_deploy.results import Result
from fedsup_deploy.runs.federation import load_supernet, open_run_federation
from fedsup_deploy.runs.run import STATISTICS, Run, open_run
from fedsup_deploy.space.architecture import Architecture
from fedsup_deploy.space.plan import NetworkPlan
from fedsup_deploy.supernet.model import Subnet
from fedsup_deploy.supernet.statistics import PooledStatistics

_KIND: Final = "subnet"
#: Of a subnet's file.
SUFFIX: Final = ".safetensors"


@dataclasses.dataclass(frozen=True)
class Recalibrated(Result):
    """Client statistics of a subnet.

    Args:
        run: The run's folder.
        arch_id: Of the subnet.
        schedule: How they were taken.
        num_layers: Layers that have some.
        num_clients: That are part of all layers.
        uplink_bytes_per_client: What each of them sends.
        statistics: Their file; None where the run's folder is read-only.
        out: The calibrated subnet's file, where it was written.
    """

    run: Path
    arch_id: str
    schedule: str
    num_layers: int
    num_clients: int
    uplink_bytes_per_client: int
    statistics: Path | None
    out: Path | None


class TakenStatistics(NamedTuple):
    """Client statistics of a subnet."""

    pooled: PooledStatistics
    """Of all clients."""
    hash: str
    """SHA-256 of their file, be it kept or not."""


def calibrate(
    run: Run, architecture: Architecture, subnet: Subnet, schedule: str, federation: Federation, log: EventLog
) -> TakenStatistics:
    """Return the statistics of a subnet, from the run's folder if they were taken before, of all clients.

    Raises:
        ArtifactError: Those in the folder are damaged.

    Side effects: Keeps them in `statistics/` of the run, unless that is read-only.
    """
    path = statistics_file(run, architecture, schedule)
    document: dict[str, JsonValue] = {
        "arch_id": architecture.arch_id,
        "schedule": schedule,
        "supernet": run.fingerprint,
        "data": run.data.fingerprint,
        **run.calibration,
        # Of statistics that some clients have not answered for, the next command may get more.
        "is_complete": True,
    }
    if path.exists():
        arrays, known = weights.read_arrays(path, "statistics")
        if document.items() <= known.items():
            return TakenStatistics(_checked(path, arrays, subnet.plan), files.sha256(path))
    pooled = recalibration.collect(
        federation,
        standalone(subnet),
        schedule,
        lambda done, passes: log.emit(
            "calibration", arch_id=architecture.arch_id, done=done, total=passes, schedule=schedule
        ),
    )
    document["is_complete"] = recalibration.is_complete(federation, subnet.plan, pooled)
    return TakenStatistics(pooled, keep_statistics(run, path, pooled, document))


def keep_statistics(run: Run, path: Path, pooled: PooledStatistics, document: Mapping[str, JsonValue]) -> str:
    """Write statistics to a run's folder, unless that is read-only. Returns the SHA-256 of the file in either case."""
    content = weights.to_bytes("statistics", pooled.to_arrays(), document)
    if run.read_only is None:
        files.write_bytes(path, content)
    return files.sha256_of_bytes(content)


def _checked(path: Path, arrays: weights.Arrays, plan: NetworkPlan) -> PooledStatistics:
    try:
        pooled = PooledStatistics.from_arrays(arrays)
        pooled.check(plan)
    except ValueError as error:
        raise ArtifactError(f"{path}: damaged: {error}; remove the file") from error
    return pooled


def statistics_file(run: Run, architecture: Architecture, schedule: str) -> Path:
    """Return where the statistics of a subnet stand in a run's folder."""
    return run.path / STATISTICS / f"{architecture.arch_id}-{schedule}.safetensors"


def recalibrate(
    run_path: Path,
    architecture_name: str,
    out: Path | None,
    schedule: str | None,
    listeners: tuple[Listener, ...] = (),
    engine: str | None = None,
) -> Recalibrated:
    """Take the statistics of a subnet and write it calibrated: its weights and, per layer, count, sum, sum of squares.

    Args:
        run_path: A finished run.
        architecture_name: `largest`, `smallest`, an arch_id or a file.
        out: Where to write the calibrated subnet; None leaves only the statistics in the run's folder.
        schedule: `one-shot` or `layer-wise`; None as the run's config says.
        listeners: Called with progress events.
        engine: What runs the clients; None as the run's config says.

    Raises:
        OutputError: The result can be written nowhere.
    """
    if out is not None:
        check_out(out)
    run = open_run(run_path, engine)
    if out is None:
        places.check_writable(run.path / STATISTICS)
    architecture = run.architecture(architecture_name)
    schedule = schedule or run.config.calibration.schedule
    with contextlib.nullcontext() if out is None else places.hold(out, advice=places.CHOOSE_OUT):
        subnet = load_supernet(run).extract(architecture)
        absent: set[str] = set()
        log = EventLog(None, (*listeners, lambda event: absent.update(event.get("absent", ()))))
        with open_run_federation(run, log) as federation:
            pooled = calibrate(run, architecture, subnet, schedule, federation, log).pooled
            num_clients = len(federation.calibrating) - len(absent)
        if out is not None:
            write_subnet(out, run, architecture, subnet, pooled)
    return Recalibrated(
        run=run_path,
        arch_id=architecture.arch_id,
        schedule=schedule,
        num_layers=len(pooled.layers),
        num_clients=num_clients,
        # Per layer a count, and per channel a sum and a sum of squares, in float64.
        uplink_bytes_per_client=sum(8 * (1 + 2 * len(sums.total_C)) for sums in pooled.layers.values()),
        statistics=statistics_file(run, architecture, schedule) if run.read_only is None else None,
        out=out,
    )


def check_out(path: Path) -> None:
    """Fail now if a subnet cannot be written there: what is there, and is no subnet, is kept.

    Raises:
        OutputError: The name has another ending, by which nobody would find out what it is, or something else is there.
    """
    if path.suffix != SUFFIX:
        raise OutputError(f"cannot write {path}: expected a name that ends in {SUFFIX}")
    if not path.exists():
        return
    try:
        weights.read_document(path, _KIND)
    except ArtifactError as error:
        raise OutputError(f"cannot write {path}: it is there and holds no subnet; give --out another name") from error


def write_subnet(
    path: Path, run: Run, architecture: Architecture, subnet: Subnet, pooled: PooledStatistics | None
) -> None:
    """Write a subnet: its tensors, with `statistics.<layer>` beside them if it is calibrated."""
    arrays: weights.Arrays = {name: tensor.numpy() for name, tensor in subnet.weights.items()}
    if pooled is not None:
        arrays |= {f"statistics.{name}": array for name, array in pooled.to_arrays().items()}
    document: dict[str, JsonValue] = {
        "arch_id": architecture.arch_id,
        "architecture": architecture.to_dict(),
        "space": run.space.to_dict(),
        "normalization": run.config.supernet.normalization,
        "is_calibrated": pooled is not None,
        "supernet": run.fingerprint,
    }
    weights.write_arrays(path, _KIND, arrays, document)
