"""A new limit, objective, latency model, kind of layer and device: each is taken as any other.

A device is a file; all others are a row and a module. So are those of `test_added_federation.py`.
"""

import dataclasses
import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import small_runs
import yaml
from click.testing import CliRunner

import fedsup_deploy
from fedsup_deploy import registry, resources
from fedsup_deploy.cli.main import main
from fedsup_deploy.cli.search import _row, command
from fedsup_deploy.commands.export import ExportRequest, export
from fedsup_deploy.commands.search import target_for
from fedsup_deploy.commands.verify import verify
from fedsup_deploy.config.load import load_yaml, validate
from fedsup_deploy.config.schema import load_train_config
from fedsup_deploy.device import limits
from fedsup_deploy.device.profile import list_profiles, load_profile
from fedsup_deploy.errors import ArtifactError, ConfigError, DependencyError, InfeasibleError
from fedsup_deploy.events import EventLog
from fedsup_deploy.searchers import objective
from fedsup_deploy.searchers.pool import make_pool
from fedsup_deploy.searchers.problem import pose
from fedsup_deploy.searchers.result import Candidate, DeviceResult, load_result
from fedsup_deploy.searchers.stages.front import is_additive
from fedsup_deploy.space.search_space import SearchSpace


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One round on one client."""
    return small_runs.trained(small_runs.SUPERNET, tmp_path_factory.mktemp("runs"))


@pytest.fixture(autouse=True)
def _added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "added"))


def search(run: Path, tmp_path: Path, profile: str = "jetson-nano", **given: Any) -> DeviceResult:
    """Search by the Python interface, and read the file again: it agrees with itself."""
    options: dict[str, Any] = {"method": "random", "evaluations": 4, **given}
    found = fedsup_deploy.search([profile], run, out=tmp_path / "found.json", **options)
    assert load_result(tmp_path / "found.json").results == found.results
    return found.results[0]


def test_a_limit_is_one_row(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="unknown limit 'macs_per_param'"):
        search(run, tmp_path, limits={"macs_per_param": 40.0})
    row = importlib.import_module("added_limit").LIMIT
    monkeypatch.setitem(limits.TABLE, row.name, row)
    all_found = search(run, tmp_path, evaluations=12, limits={"macs_per_param": 1e9})
    middle = float(np.median([each.more["macs_per_param"] for each in all_found.candidates]))
    found = search(run, tmp_path, limits={"macs_per_param": middle})
    assert found.limits["macs_per_param"] == middle
    for each in found.candidates:
        assert each.more["macs_per_param"] == each.num_macs / each.num_params
        assert each.more["macs_per_param"] <= middle
    with pytest.raises(InfeasibleError, match=r"macs_per_param <= 0\.5, least "):
        search(run, tmp_path, limits={"macs_per_param": 0.5})
    # No sum over layers: exact search over stages does not claim to know it.
    assert not is_additive(target_for(load_profile("jetson-nano"), {"macs_per_param": middle}))


def test_an_altered_price_of_such_a_limit_is_seen(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = importlib.import_module("added_limit").LIMIT
    monkeypatch.setitem(limits.TABLE, row.name, row)
    search(run, tmp_path, limits={"macs_per_param": 1e6})
    document = json.loads((tmp_path / "found.json").read_text("utf-8"))
    document["results"][0]["candidates"][0]["more"]["macs_per_param"] = 2e6
    (tmp_path / "found.json").write_text(json.dumps(document), "utf-8")
    with pytest.raises(fedsup_deploy.FedsupError, match="macs_per_param is 2000000"):
        load_result(tmp_path / "found.json")


def test_an_objective_is_one_row(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = importlib.import_module("added_objective").OBJECTIVE
    monkeypatch.setitem(objective.TABLE, row.name, row)
    found = search(run, tmp_path, method="evolution", evaluations=30)
    worth = {
        each.arch_id: (each.latency_ms_predicted, -each.accuracy, each.more["live_kib"]) for each in found.candidates
    }

    def is_beaten(arch_id: str) -> bool:
        own = worth[arch_id]
        return any(other != own and all(np.array(other) <= own) for other in worth.values())

    assert set(found.front) == {arch_id for arch_id in worth if not is_beaten(arch_id)}
    assert "KiB alive" in _row(found, {})
    assert not objective.are_summed()


def test_a_latency_model_is_one_row(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = yaml.safe_load(resources.find("profiles", "jetson-nano").read_text("utf-8"))
    document |= {
        "name": "mine",
        "latency": {"kind": "per-mac", "dtype": "float32", "bytes_per_element": 4, "us_per_mmac": 1000.0},
        "provenance": {key: {"kind": "published", "source": "a table"} for key in ("latency", "accepts", "system")},
        "energy": None,
        "build_on_device": None,
    }
    mine = tmp_path / "mine.yaml"
    mine.write_text(yaml.safe_dump(document, sort_keys=False), "utf-8")
    with pytest.raises(ConfigError, match="per-mac"):
        load_profile(mine)
    monkeypatch.setitem(registry.TABLES["latency"], "per-mac", "added_latency:PerMacPredictor")
    found = search(run, tmp_path, str(mine))
    for each in found.candidates:
        assert each.latency_ms_predicted == pytest.approx(each.num_macs / 1e6)
    assert is_additive(target_for(load_profile(mine), {}))
    mine.write_text(mine.read_text("utf-8").replace("us_per_mmac", "us_per_mac"), "utf-8")
    with pytest.raises(ConfigError, match="of kind 'per-mac'"):
        load_profile(mine)


def test_a_measured_device_is_one_file(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Searched for by its name, listed, and recorded as measured, with intervals from its own error."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="no profile 'added-board'"):
        search(run, tmp_path, "added-board")
    (tmp_path / "profiles").mkdir()
    shutil.copy(Path(__file__).parent / "added" / "added-board.yaml", tmp_path / "profiles")
    found = search(run, tmp_path, "added-board")
    assert found.profile.provenance == ("measured",)
    assert found.limits["latency_ms"] == 50.0
    for each in found.candidates:
        assert each.latency_interval_ms is not None
        low, high = each.latency_interval_ms
        assert low < each.latency_ms_predicted < high
    listed = {profile.name: profile for profile in list_profiles()}
    assert listed["added-board"].is_measured
    request = ExportRequest(run, None, tmp_path / "found.json", (), (), (), tmp_path / "exports")
    (bundle,) = export(request).bundles
    assert bundle.bytes.keys() == {"onnx-fp32"}


SMOOTH_SPACE = """
schema: 1
name: smooth
family: smooth
resolutions: [8]
stem: {widths: [8]}
stages:
  - {name: s1, widths: [8, 16], depths: [1, 2]}
  - {name: s2, widths: [16, 24], depths: [1], stride: 2}
"""


def test_a_kind_of_layer_is_a_row_for_what_it_is_and_one_for_what_it_computes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From training to bundles of all formats, each proven equal to the supernet."""
    monkeypatch.setitem(registry.TABLES["layer"], "smooth", "added_layer:Smooth")
    monkeypatch.setitem(registry.TABLES["computation"], "smooth", "added_layer:SmoothComputation")
    monkeypatch.setitem(registry.TABLES["family"], "smooth", "added_layer:SmoothFamily")
    (tmp_path / "smooth-space.yaml").write_text(SMOOTH_SPACE, encoding="utf-8")
    config = small_runs.SUPERNET.replace("name: small", "name: smooth").replace(
        "space: digits", "space: smooth-space.yaml"
    )
    (tmp_path / "smooth.yaml").write_text(config, encoding="utf-8")
    fedsup_deploy.train(load_train_config(tmp_path / "smooth.yaml", []), tmp_path / "run")
    search(tmp_path / "run", tmp_path)
    formats = ["onnx", "torchscript", "pt2"]  # what the device loads
    request = ExportRequest(tmp_path / "run", None, tmp_path / "found.json", (), formats, (), tmp_path / "exports")
    made = export(request)
    (bundle,) = made.bundles
    assert bundle.bytes.keys() == {f"{name}-fp32" for name in formats}
    nodes = [node.name for node in onnx.load(bundle.folder / "model.onnx").graph.node]
    assert [name for name in nodes if name.endswith(".smooth")]
    assert verify(bundle.folder).verdict == "ok"


def test_an_exporter_is_one_row(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of several files in folders, from a profile that names it to a bundle that is verified, and no file less."""
    document = yaml.safe_load(resources.find("profiles", "jetson-nano").read_text("utf-8"))
    mine = tmp_path / "mine.yaml"
    mine.write_text(yaml.safe_dump({**document, "name": "mine", "formats": ["plain", "missing"]}), "utf-8")
    with pytest.raises(ConfigError, match="unknown format 'plain'"):
        load_profile(mine)
    monkeypatch.setitem(registry.TABLES["exporter"], "plain", "added_exporter:PlainExporter")
    monkeypatch.setitem(registry.TABLES["exporter"], "missing", "added_exporter:MissingExporter")
    request = ExportRequest(run, "smallest", None, (str(mine),), (), (), tmp_path / "exports")
    with pytest.raises(DependencyError, match=r"pip install 'fedsup-deploy\[nothing\]'"):
        export(request)
    assert not (tmp_path / "exports").exists()
    (made,) = export(dataclasses.replace(request, formats=("plain",))).bundles
    folder = made.folder
    assert made.bytes.keys() == {"onnx-fp32", "plain-fp32"}
    names = ["model.plain/facts.json", "model.plain/layers.json", "model.plain/tensors/all.npz"]
    assert verify(folder).not_executed == tuple(names)
    assert json.loads((folder / names[0]).read_bytes())["arch_id"] == made.arch_id
    assert subprocess.run([sys.executable, "run.py", "--skip-latency"], cwd=folder, check=False).returncode == 0
    assert subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder, check=False).returncode == 0
    moved = (folder / names[2]).rename(folder / "model.plain" / "all.npz")
    with pytest.raises(ArtifactError, match=r"model\.plain/tensors/ is no folder of the bundle; remove it"):
        verify(folder)
    (folder / "model.plain" / "tensors").rmdir()
    with pytest.raises(ArtifactError, match=r"model\.plain/tensors/all\.npz is missing"):
        verify(folder)
    moved.unlink()


def test_files_that_hold_no_code_are_run_by_verify_or_counted_with_the_command_that_installs_what_runs_them(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(registry.TABLES["exporter"], "plain", "added_exporter:PlainExporter")
    request = ExportRequest(run, "smallest", None, ("jetson-nano",), ("plain",), (), tmp_path / "out", over_limit=True)
    folder = export(request).bundles[0].folder
    names = ["model.plain/facts.json", "model.plain/layers.json", "model.plain/tensors/all.npz"]
    checked = verify(folder)
    assert (checked.not_executed, checked.not_installed, checked.executed) == (tuple(names), {}, ())
    monkeypatch.setitem(registry.TABLES["exporter"], "plain", "added_exporter:HarmlessExporter")
    checked = verify(folder)
    assert [(each.file, each.ran_by) for each in checked.executed] == [(names[1], "torch")]
    assert (checked.not_executed, checked.not_installed) == ((), {})
    monkeypatch.setitem(registry.TABLES["exporter"], "plain", "added_exporter:ElsewhereExporter")
    checked = verify(folder)
    how = "pip install 'fedsup-deploy[nothing]'"
    assert (checked.not_executed, checked.executed) == (tuple(names), ())
    assert checked.not_installed == dict.fromkeys(names, how)
    capsys.readouterr()
    assert main(["verify", str(folder)]) == 0
    told = capsys.readouterr().out
    assert told.count(f"hashed, not run, as its runtime is not installed; run: {how}") == 1


def test_every_limit_has_its_option_its_page_and_its_price() -> None:
    names = {option.name: option.opts for option in command.params}
    page = (Path(__file__).parents[2] / "docs" / "search.md").read_text("utf-8")
    for name, row in limits.TABLE.items():
        assert names[name] == [row.option]
        assert f"`{row.option}`" in page
        assert (
            row.recorded_as is None or hasattr(Candidate, row.recorded_as) or row.recorded_as in Candidate.model_fields
        )
    assert CliRunner().invoke(command, ["--help"]).exit_code == 0


def test_every_objective_is_recorded_in_a_field() -> None:
    for row in objective.TABLE.values():
        assert (row.price is None) != (row.score is None)
        assert row.recorded_as is None or row.recorded_as in Candidate.model_fields


def test_limits_that_shipped_prices_answer_are_those_of_the_table() -> None:
    """On a device with a power, every limit has a price."""
    space = validate(load_yaml(resources.find("configs/spaces", "digits")), SearchSpace)
    (problem,) = pose(make_pool(space, 0), [target_for(load_profile("jetson-nano"), {"latency_ms": 1e6})], EventLog())
    assert list(problem.prices.by_limit()) == list(limits.TABLE)
