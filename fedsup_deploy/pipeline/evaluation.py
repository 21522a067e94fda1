"""`fedsup-deploy evaluate`, and how the accuracy of a search's candidates is found. Imports torch."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedsup_deploy.events import EventLog, Listener
from fedsup_deploy.federated import statistics
from fedsup_deploy.federated.tasks import Engine
from fedsup_deploy.pipeline.federation import load_supernet, open_run_engine
from fedsup_deploy.pipeline.recalibration import calibrate
from fedsup_deploy.pipeline.runs import Run, open_run
from fedsup_deploy.recalibrate.pooled import PooledStatistics
from fedsup_deploy.searchers.scoring.score import Score
from fedsup_deploy.space import cost
from fedsup_deploy.space.architecture import Architecture
from fedsup_deploy.supernet.model import Subnet


def evaluate(
    run_path: Path,
    architecture_name: str,
    *,
    split: str = "test",
    per_client: bool = False,
    schedule: str | None = None,
    listeners: tuple[Listener, ...] = (),
) -> dict[str, Any]:
    """Return the accuracy of one subnet after recalibration.

    Args:
        run_path: A finished run.
        architecture_name: `largest`, `smallest`, an arch_id or a file.
        split: `validation` or `test`.
        per_client: Also evaluate it on the images that clients hold out; in a run without any, on those each client
            trains on.
        schedule: How statistics are taken; None as the run's config says.
        listeners: Called with progress events.

    Returns:
        `run`, `arch_id`, `architecture`, `split`, `num_images`, `accuracy`, `schedule`, `costs`; with `per_client` also
        `clients`: their number, which of their images, mean and mean of the worst decile.
    """
    run = open_run(run_path)
    architecture = run.architecture(architecture_name)
    schedule = schedule or run.config.calibration.schedule
    subnet = load_supernet(run).extract(architecture)
    result: dict[str, Any] = {
        "run": str(run_path),
        "arch_id": architecture.arch_id,
        "architecture": architecture.to_dict(),
        "split": split,
        "num_images": len(run.data.split(split)),
        "schedule": schedule,
        "costs": cost.costs_of(run.space, [architecture]).row(0),
    }
    with open_run_engine(run) as engine:
        pooled = calibrate(run, architecture, subnet, schedule, engine, EventLog(None, listeners))
        result["accuracy"] = statistics.evaluate(
            engine, subnet.plan, subnet.weights, pooled, split, result["num_images"]
        )
        if per_client:
            result["clients"] = _on_clients(run, engine, subnet, pooled)
    return result


def _on_clients(run: Run, engine: Engine, subnet: Subnet, pooled: PooledStatistics) -> dict[str, Any]:
    judges = run.data.clients_with_held_out
    clients, split = (judges, "held-out") if judges else (range(run.data.num_clients), "client")
    found = statistics.evaluate_clients(engine, subnet.plan, subnet.weights, pooled, clients, split)
    mean, worst_decile = _spread(found)
    images = "held out" if judges else "trained on"
    return {"num_clients": len(found), "images": images, "accuracy_mean": mean, "worst_decile": worst_decile}


def measure(run: Run, engine: Engine, architectures: Sequence[Architecture]) -> Iterator[Score]:
    """Yield the accuracy of each subnet on the server's validation images, after one-shot recalibration.

    Args:
        run: A finished run.
        engine: Of its clients, who hold the supernet.
        architectures: The subnets.
    """
    clients = range(run.data.num_clients)
    for correct, counted in statistics.evaluate_candidates(engine, architectures, clients):
        yield Score(correct / counted)


def ask_clients(run: Run, engine: Engine, architectures: Sequence[Architecture]) -> Iterator[Score]:
    """Yield the accuracy of each subnet on the images that clients hold out, after one-shot recalibration.

    Args:
        run: A finished run with clients that hold images out; each of these counts the same.
        engine: Of its clients, who hold the supernet.
        architectures: The subnets.
    """
    clients, judges = range(run.data.num_clients), run.data.clients_with_held_out
    for counts in statistics.evaluate_candidates_on_clients(engine, architectures, clients, judges):
        mean, worst_decile = _spread([correct / counted for correct, counted in counts])
        yield Score(mean, worst_decile)


def _spread(accuracies: Sequence[float]) -> tuple[float, float]:
    """Return the mean of the clients' accuracies, and that of the lowest tenth of them, at least of one."""
    ordered = np.sort(np.asarray(accuracies))
    return float(ordered.mean()), float(ordered[: max(1, len(ordered) // 10)].mean())
