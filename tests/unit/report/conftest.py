"""A run, a search and a bundle that are small enough to check by hand."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from fedsup_deploy.accuracy import CountedAccuracy
from fedsup_deploy.artifact.engine import MeasuredEngine
from fedsup_deploy.artifact.manifest import Manifest
from fedsup_deploy.artifact.measured import MeasuredDocument
from fedsup_deploy.config.schema import load_train_config
from fedsup_deploy.report.bundle_facts import BundleMaterial
from fedsup_deploy.report.run_figures import RunMaterial
from fedsup_deploy.report.search_facts import Searched
from fedsup_deploy.runs.clients import ClientFacts
from fedsup_deploy.runs.history import Evaluation, History, Round
from fedsup_deploy.runs.run import ImageFacts, Run, load_space
from fedsup_deploy.searchers.candidate import Candidate
from fedsup_deploy.searchers.noise import RULE, AccuracyNoise
from fedsup_deploy.searchers.result import SearchResult, cheapest_as_accurate, front_and_best
from fedsup_deploy.space.architecture import Architecture
from fedsup_deploy.space.search_space import SearchSpace

ZEROS = "0" * 64


@pytest.fixture
def run_of(tmp_path: Path) -> Callable[..., RunMaterial]:
    """Make a run of the config for digits, trained for the given rounds: lists of clients, and who was absent."""

    def make(
        rounds: Sequence[tuple[list[int], dict[str, str]]],
        *,
        num_clients: int = 8,
        names: tuple[str, ...] | None = None,
        unseen: tuple[str, ...] = (),
    ) -> RunMaterial:
        config = load_train_config("digits")
        history = History(
            rounds=tuple(
                Round(
                    round=number,
                    loss=float(number),
                    clients=clients,
                    absent=absent,
                    bytes_down=2**20,
                    bytes_up=2**19,
                    seconds=1.0,
                )
                for number, (clients, absent) in enumerate(rounds)
            ),
            evaluations=(
                Evaluation(round=len(rounds) - 1, accuracy_largest=0.5, accuracy_smallest=0.25, num_images=100),
            ),
            health=(),
            num_clients=num_clients,
            num_images=70,
            notes=(),
        )
        facts = ImageFacts.model_construct(
            classes=("a", "b"),
            shape=(8, 8, 1),
            preprocessing={},
            clients=ClientFacts(num_clients=num_clients - len(unseen), unseen=unseen, names=names),
            class_counts=None,
        )
        return RunMaterial(Run(tmp_path / "a-run", config, load_space(config)), history, facts)

    return make


@pytest.fixture
def search_of(tiny_space: SearchSpace) -> Callable[..., Searched]:
    """Make a search for devices: of each candidates, as right answers of 100 and milliseconds."""

    def make(
        devices: dict[str, list[tuple[int, float]]],
        *,
        limit_ms: float = 4.0,
        name: str = "search.json",
        architectures: Sequence[Architecture] = (),
        **more: Any,
    ) -> Searched:
        some = architectures or [tiny_space.decode(genes) for genes in tiny_space.enumerate_genes()]
        results = [_device(some, device, known, limit_ms) for device, known in devices.items()]
        document = {
            "schema": 1,
            "run": {"name": "a-run", "hash": ZEROS, "rounds": 3},
            "space": {"name": "tiny", "hash": ZEROS},
            "seed": 0,
            "results": results,
            "seconds": 1.0,
            **more,
        }
        return Searched(name, SearchResult.model_validate_json(json.dumps(document)))

    return make


def _device(
    architectures: Sequence[Architecture], name: str, known: list[tuple[int, float]], limit_ms: float
) -> dict[str, Any]:
    candidates = [
        {
            "arch_id": architecture.arch_id,
            "architecture": architecture.to_dict(),
            "accuracy": right / 100,
            "num_images": 100,
            "accuracy_interval": CountedAccuracy.of_share(right / 100, 100).interval,
            "latency_ms_predicted": ms,
            "latency_interval_ms": (ms / 2, ms * 2),
            "latency_percentile_ms": 1.5 * ms,
            "num_macs": int(1000 * ms),
            "num_params": 10,
            "memory_mib": 1.0,
            "storage_mib": 1.0,
        }
        for architecture, (right, ms) in zip(architectures, known, strict=False)
    ]
    values = [Candidate.model_validate_json(json.dumps(each)) for each in candidates]
    front, best = front_and_best(values, "accuracy")
    cheapest = cheapest_as_accurate(values, AccuracyNoise(None), best)
    return {
        "profile": {"name": name, "hash": ZEROS, "provenance": ["published"], "error": "none"},
        "method": "exact",
        "certified": False,
        "certified_relative_to": None,
        "num_architectures": 64,
        "num_priced": 64,
        "num_feasible": max(20, len(known)),
        "num_evaluated": len(known),
        "num_measured": len(known),
        "limits": {"latency_ms": limit_ms},
        "percentile": {"name": "p50", "ratio": 1.5, "is_assumed": False},
        "not_checked": [],
        "candidates": candidates,
        "front": front,
        "most_accurate": best,
        "within_noise": {"rule": RULE, "mae": None, "num_candidates": 1, "cheapest": cheapest},
        "pick": best,
        "seconds": 1.0,
    }


@pytest.fixture
def bundle_of(document: dict[str, Any]) -> Callable[..., BundleMaterial]:
    """Make a bundle of the manifest that its own tests have; changes are of the manifest's document."""

    def make(**changes: Any) -> BundleMaterial:
        manifest = Manifest.from_json(json.dumps({**document, **changes}))
        return BundleMaterial(manifest, MeasuredDocument(schema=1, latency=None))

    return make


@pytest.fixture
def engine() -> MeasuredEngine:
    """What trtexec said of an engine."""
    times = {"min_ms": 0.7, "p50_ms": 0.8, "p90_ms": 1.1, "p95_ms": None, "p99_ms": 1.5, "max_ms": 2.0, "mean_ms": 0.9}
    document = {
        "version": "8.5.2",
        "precision": "fp16",
        "device": "Orin",
        "input": "1x1x8x8",
        "command": "trtexec --onnx=model.onnx --fp16",
        "log_sha256": ZEROS,
        "num_runs": 3000,
        "throughput_per_s": 1100.0,
        "latency": times,
        "gpu_compute": None,
        "warnings": ["GPU compute time is unstable, with coefficient of variance = 6%."],
    }
    return MeasuredEngine.model_validate_json(json.dumps(document))
