"""`fedsup-deploy inspect`: what a file or folder of ours is and what made it. Torch-free."""

import json
import os
from pathlib import Path
from typing import Any

from fedsup_deploy.artifact import manifest as manifests
from fedsup_deploy.artifact import weights
from fedsup_deploy.artifact.store import load_manifest, load_measurement
from fedsup_deploy.config.load import load_yaml, validate
from fedsup_deploy.config.schema import TrainConfig
from fedsup_deploy.device.profile import DeviceProfile
from fedsup_deploy.errors import ArtifactError
from fedsup_deploy.runs import run as runs
from fedsup_deploy.searchers.result import load_result
from fedsup_deploy.space import cost
from fedsup_deploy.space.search_space import SearchSpace


def inspect(path: Path) -> dict[str, Any]:
    """Return what a path is.

    Args:
        path: A run, a bundle or its manifest.json, a search.json, a config, profile or space in YAML, or a safetensors
            file of ours.

    Raises:
        ArtifactError: It is none of these, or damaged.
        ConfigError: A config, profile or space is wrong.
    """
    if path.is_dir():
        return _folder(path)
    if path.suffix == ".safetensors":
        return {"path": str(path), **weights.read_document(path)}
    if path.name == manifests.FILENAME:
        return {**_folder(path.parent), "path": str(path)}
    if path.suffix == ".json":
        return _search(path)
    if path.suffix in {".yaml", ".yml"}:
        return _yaml(path)
    raise ArtifactError(f"{path}: not a file of fedsup-deploy: expected .safetensors, .json or .yaml")


def _folder(path: Path) -> dict[str, Any]:
    if os.path.lexists(path / manifests.FILENAME):
        manifest = load_manifest(path)
        document = json.loads(manifest.to_json())
        kept = (
            "arch_id",
            "profile",
            "accuracy",
            "costs",
            "limits",
            "models",
            "refinement",
            "lineage",
            "versions",
        )
        latency = load_measurement(path)
        measured = None if latency is None else latency.model_dump(mode="json")
        return {"path": str(path), "kind": "bundle", **{key: document[key] for key in kept}, "measured": measured}
    if (path / runs.CONFIG).is_file():
        run = runs.open_run(path)
        return {
            "path": str(path),
            "kind": "run",
            "name": run.config.name,
            "dataset": run.config.data.dataset,
            "strategy": run.config.strategy.name,
            "rounds": run.config.training.rounds,
            "supernet_sha256": run.fingerprint,
            **_space(run.space),
            "command": _command(path / runs.COMMAND),
        }
    raise ArtifactError(f"{path}: neither a run (no {runs.CONFIG}) nor a bundle (no {manifests.FILENAME})")


def _command(path: Path) -> list[str]:
    """Return the words of the command that made a run."""
    try:
        return [str(word) for word in json.loads(path.read_text(encoding="utf-8"))["command"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path}: missing or damaged ({error}); restore the file") from error


def _search(path: Path) -> dict[str, Any]:
    found = load_result(path)
    results = [
        {
            "profile": result.profile.name,
            "method": result.method,
            "certified": result.certified,
            "num_evaluated": result.num_evaluated,
            "pick": result.pick,
            "percentile": None if result.percentile is None else result.percentile.model_dump(),
        }
        for result in found.results
    ]
    return {"path": str(path), "kind": "search", "run": found.run.name, "run_hash": found.run.hash, "results": results}


def _yaml(path: Path) -> dict[str, Any]:
    document = load_yaml(path)
    if "family" in document.data:
        space = validate(document, SearchSpace)
        return {"path": str(path), "kind": "search space", **_space(space)}
    if "partition" in document.data:
        config = validate(document, TrainConfig)
        return {"path": str(path), "kind": "training config", **config.model_dump(mode="json", by_alias=True)}
    profile = validate(document, DeviceProfile)
    return {"path": str(path), "kind": "device profile", **profile.summary()}


def _space(space: SearchSpace) -> dict[str, Any]:
    corners = cost.costs_of(space, [space.smallest, space.largest])
    return {
        "space": space.name,
        "family": space.family,
        "num_architectures": space.num_architectures,
        "smallest": corners.row(0),
        "largest": corners.row(1),
    }
