"""A small, valid manifest as values, and parts of one."""

import json
from typing import Any

import pytest

from fedsup_deploy.artifact.manifest import Manifest, ManifestDraft


@pytest.fixture
def draft(draft_document: dict[str, Any]) -> ManifestDraft:
    """The same as a value."""
    return ManifestDraft.model_validate_json(json.dumps(draft_document))


@pytest.fixture
def manifest(document: dict[str, Any]) -> Manifest:
    """The same as a value."""
    return Manifest.from_json(json.dumps(document))


@pytest.fixture
def latency() -> dict[str, Any]:
    """A measured latency, in the form in which `fedsup_deploy.device.measure` returns it."""
    return {
        "protocol": {"name": "quick", "batch": 1, "warm_up_runs": 50},
        "statistics": {
            "num_runs": 200,
            "min_ms": 0.5,
            "p10_ms": 0.75,
            "p50_ms": 1.0,
            "p90_ms": 2.0,
            "mean_ms": 1.25,
            "p90_bound_ms": 2.5,
        },
        "stability": {
            "statistic": "p10",
            "disagreement": 0.01,
            "drift": 0.02,
            "stable_within": 0.05,
            "verdict": "stable",
        },
        "noise": {"p10": 0.02, "p50": 0.03, "p90": 0.25},
        "load_ms": 10.0,
        "first_run_ms": 3.0,
        "peak_rss_mib": None,
        "environment": {"cpu": "Cortex-A72", "cores": 4, "threads": 1},
        "is_min_runs_met": True,
        "is_min_duration_met": True,
        "ruler": {"ratio": 1.5},
        "energy": {
            "energy_mj": 4.0,
            "net_energy_mj": -0.5,
            "idle_power_w": 2.0,
            "num_runs": 1000,
            "seconds": 2.0,
            "covers": "module",
            "source": "INA3221",
        },
    }


@pytest.fixture
def refinement() -> dict[str, Any]:
    """How a network was trimmed, in the form in which a manifest has it."""
    return {
        "source_arch_id": "aba987654321",
        "source_costs": {"num_macs": 23456, "num_params": 789, "peak_activation_bytes": 4096, "moved_bytes": 9500},
        "source_latency_ms_predicted": 1.75,
        "limits": {"latency_ms": 1.5},
        "channel_quantum": 8,
        "layers": {"stem": {"num_channels": 24, "removed": "3, 8-14"}},
        "pick_arch_id": "afd02a30afb7",
        "split": "validation",
        "num_samples": 200,
        "accuracy": 0.875,
        "accuracy_interval": [0.821986, 0.91388],
        "pick_accuracy": 0.75,
        "pick_accuracy_interval": [0.685659, 0.804918],
    }
