"""`fedsup-deploy evaluate`, and the scoring of candidates for a search. Imports torch."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedsup_deploy.events import EventLog, Listener
from fedsup_deploy.federated import statistics
from fedsup_deploy.federated.tasks import CandidateTask
from fedsup_deploy.pipeline.federation import load_supernet, open_run_engine
from fedsup_deploy.pipeline.recalibration import calibrate
from fedsup_deploy.pipeline.runs import Run, open_run
from fedsup_deploy.space import cost
from fedsup_deploy.space.architecture import Architecture


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
        per_client: Also score it on every client's own training images.
        schedule: How statistics are taken; None as the run's config says.
        listeners: Called with progress events.

    Returns:
        `run`, `arch_id`, `architecture`, `split`, `num_images`, `accuracy`, `schedule`, `costs`; with `per_client` also
        `clients`: mean and mean of the worst decile.
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
            engine, architecture, subnet.weights, pooled, split, result["num_images"]
        )
        if per_client:
            clients = range(run.data.num_clients)
            scores = statistics.evaluate_clients(engine, architecture, subnet.weights, pooled, clients)
            result["clients"] = _spread(scores)
    return result


def score_candidates(
    run: Run, architectures: Sequence[Architecture], on_score: Callable[[int, float], None]
) -> list[float]:
    """Return the validation accuracy of each subnet after one-shot recalibration, in [0, 1].

    Args:
        run: A finished run.
        architectures: The candidates.
        on_score: Called with (index, accuracy) as each becomes known, in order.
    """
    supernet = load_supernet(run)
    clients = tuple(range(run.data.num_clients))
    scores: list[float] = []
    with open_run_engine(run) as engine:
        tasks = (
            CandidateTask(architecture, supernet.extract(architecture).weights, clients)
            for architecture in architectures
        )
        for index, (correct, counted) in enumerate(engine.run(tasks)):
            scores.append(correct / counted)
            on_score(index, scores[-1])
    return scores


def _spread(scores: Sequence[float]) -> dict[str, Any]:
    ordered = np.sort(np.asarray(scores))
    worst = ordered[: max(1, len(ordered) // 10)]
    return {"num_clients": len(ordered), "accuracy_mean": float(ordered.mean()), "worst_decile": float(worst.mean())}
