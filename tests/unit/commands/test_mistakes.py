"""Whose images a page may show. What a bundle gets wrong is tested on a real one (`tests/e2e/test_report_page.py`)."""

import json
from pathlib import Path
from typing import Any

import pytest

from fedsup_deploy import files
from fedsup_deploy.artifact.manifest import Manifest
from fedsup_deploy.commands.mistakes import mistakes_of
from fedsup_deploy.config.schema import load_train_config
from fedsup_deploy.errors import ArtifactError, ConfigError
from fedsup_deploy.events import EventLog
from fedsup_deploy.runs.run import CONFIG, Run, load_space

LOG = EventLog(None, ())


@pytest.fixture
def of_clients(tmp_path: Path) -> Run:
    """A run whose server has no image. Nothing else of it is there: nothing else may be asked of it."""
    config = load_train_config("digits", ["data.server_images=false"])
    (tmp_path / CONFIG).write_text("schema: 1\n")
    return Run(tmp_path, config, load_space(config))


def bundle_of_run(document: dict[str, Any], run_hash: str) -> Manifest:
    return Manifest.from_json(json.dumps({**document, "lineage": {**document["lineage"], "run": run_hash}}))


def test_without_a_run_there_is_no_image(document: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="--mistakes: got no run, expected that of the bundles"):
        mistakes_of({Path("a"): bundle_of_run(document, "0" * 64)}, [], LOG)


def test_images_of_clients_are_not_shown(of_clients: Run, document: dict[str, Any], tmp_path: Path) -> None:
    manifest = bundle_of_run(document, files.sha256(tmp_path / CONFIG))
    found = mistakes_of({Path("a"): manifest}, [of_clients], LOG)
    assert found == {Path("a"): "all images of its run are the clients', who keep them: none can be shown"}


def test_a_bundle_of_another_run_is_said(of_clients: Run, document: dict[str, Any]) -> None:
    found = mistakes_of({Path("a"): bundle_of_run(document, "1" * 64)}, [of_clients], LOG)
    assert found == {Path("a"): "its run is not among those on this page"}


def test_a_file_that_is_not_the_bundle_s_is_never_run(document: dict[str, Any], tmp_path: Path) -> None:
    config = load_train_config("digits")
    (tmp_path / CONFIG).write_text("schema: 1\n")
    (tmp_path / "bundle").mkdir()
    manifest = bundle_of_run(document, files.sha256(tmp_path / CONFIG))
    with pytest.raises(ArtifactError, match=r"manifest\.json is missing"):
        mistakes_of({tmp_path / "bundle": manifest}, [Run(tmp_path, config, load_space(config))], LOG)
