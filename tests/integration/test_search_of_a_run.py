"""`search` on a real, if briefly trained, run on the bundled digits."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fedsup_deploy import files
from fedsup_deploy.artifact import weights
from fedsup_deploy.config.schema import load_train_config
from fedsup_deploy.errors import ArtifactError, ConfigError, FedsupError, InfeasibleError, OutputError
from fedsup_deploy.pipeline.evaluation import evaluate
from fedsup_deploy.pipeline.runs import SUPERNET, open_run
from fedsup_deploy.pipeline.searching import SearchRequest, search
from fedsup_deploy.pipeline.training import train
from fedsup_deploy.searchers.result import load_result

CONFIG = """
schema: 1
name: brief
space: digits
data: {dataset: digits}
partition: {kind: iid, num_clients: 2}
strategy: {name: fedsup, num_subnets: 2}
training: {rounds: 1, clients_per_round: 1, warmup_rounds: 0}
engine: {name: local, workers: 1}
calibration: {samples_per_client: 16, schedule: one-shot}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One round of FedSup on one client."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "brief.yaml").write_text(CONFIG, encoding="utf-8")
    train(load_train_config(folder / "brief.yaml", []), folder / "brief")
    return folder / "brief"


@pytest.fixture(scope="module")
def request_of(run: Path) -> SearchRequest:
    """Two devices, six accuracies each."""
    return SearchRequest(["raspberry-pi-4", "x86-laptop"], run, {"macs": 400_000.0}, "random", 6, seed=1)


@pytest.fixture(scope="module")
def searched(request_of: SearchRequest) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What the search returns, and its events."""
    events: list[dict[str, Any]] = []
    return search(request_of, (events.append,)), events


def without_seconds(document: Any) -> Any:
    if isinstance(document, dict):
        return {key: without_seconds(value) for key, value in document.items() if key != "seconds"}
    return [without_seconds(value) for value in document] if isinstance(document, list) else document


def test_the_result_is_returned_and_written_into_the_run(run: Path, searched: Any) -> None:
    document, _ = searched
    out = document["out"]
    assert Path(out) == run / "search.json"
    written = json.loads((run / "search.json").read_text(encoding="utf-8"))
    assert {**written, "out": out} == document
    assert load_result(run / "search.json").to_dict() == written
    assert written["run"] == {"name": "brief", "hash": files.sha256(run / SUPERNET)}
    assert written["space"]["hash"] == files.sha256_of(open_run(run).space.to_dict())
    assert str(run.parent) not in json.dumps(written)


def test_each_device_has_its_candidates(searched: Any) -> None:
    document, _ = searched
    for name, result in zip(["raspberry-pi-4", "x86-laptop"], document["results"], strict=True):
        assert result["profile"]["name"] == name
        assert result["method"] == "random"
        assert len(result["candidates"]) == result["num_evaluated"] == 6
        assert result["limits"]["macs"] == 400_000
        assert 0 < result["limits"]["latency_ms"] < 100
        assert not result["certified"]


def test_what_devices_have_in_common_is_evaluated_once_with_progress(searched: Any) -> None:
    document, events = searched
    evaluated = {each["arch_id"]: each["accuracy"] for result in document["results"] for each in result["candidates"]}
    progress = [event for event in events if event["event"] == "evaluation"]
    assert {event["arch_id"]: event["accuracy"] for event in progress} == evaluated
    assert [event["done"] for event in progress] == list(range(1, len(evaluated) + 1))
    assert {event["total"] for event in progress} == {len(evaluated)}
    assert 6 <= len(evaluated) < 12
    assert {"event": "pricing", "done": 128, "total": 128} in events


def test_the_accuracy_of_the_pick_is_what_evaluate_says(run: Path, searched: Any) -> None:
    result = searched[0]["results"][0]
    picked = next(each for each in result["candidates"] if each["arch_id"] == result["pick"])
    report = evaluate(run, result["pick"], split="validation", schedule="one-shot")
    assert report["accuracy"] == picked["accuracy"] == max(each["accuracy"] for each in result["candidates"])
    assert report["costs"]["num_macs"] == picked["num_macs"]


def test_again_it_finds_the_same(request_of: SearchRequest, searched: Any, tmp_path: Path) -> None:
    again = search(dataclasses.replace(request_of, out=tmp_path / "new" / "again.json"))
    assert again.pop("out") == str(tmp_path / "new" / "again.json")
    first = {key: value for key, value in searched[0].items() if key != "out"}
    assert without_seconds(again) == without_seconds(first)


CHEAP = {"latency_ms": 0.001}


@pytest.mark.parametrize(
    ("change", "kind", "expected"),
    [
        ({"profiles": []}, ConfigError, "got no device profile"),
        ({"profiles": ["jetson-nana"]}, ConfigError, "no profile 'jetson-nana'.*did you mean 'jetson-nano'"),
        ({"profiles": ["x86-laptop", "x86-laptop"]}, ConfigError, "got profile x86-laptop 2 times"),
        ({"limits": {"latency": 1.0}}, ConfigError, "unknown limit 'latency'"),
        ({"limits": {"energy_mj": 1.0}}, ConfigError, "states no power to estimate energy from"),
        ({"limits": CHEAP}, InfeasibleError, r"no subnet fits raspberry-pi-4: .*; nor does any fit x86-laptop$"),
        ({"method": "best"}, ConfigError, "unknown searcher 'best'"),
        ({"method": "exact"}, ConfigError, "got 6 evaluations, expected at least "),
        ({"evaluations": 0}, ConfigError, "evaluations: got 0, expected at least 1"),
        ({"run": Path("nowhere")}, ArtifactError, "no run at nowhere"),
        ({"out": Path("folder")}, OutputError, "cannot write folder: it is a folder"),
        ({"out": Path("file") / "search.json"}, OutputError, "cannot write file"),
        # Nothing wrong: now the weights are missed.
        ({}, ArtifactError, "supernet"),
    ],
)
def test_what_is_wrong_is_said_before_the_supernet_is_loaded(
    request_of: SearchRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any],
    kind: type[FedsupError],
    expected: str,
) -> None:
    """The supernet's file has its description but no weights, so loading it would be another error."""
    assert request_of.run is not None
    monkeypatch.chdir(tmp_path)
    shutil.copytree(request_of.run, tmp_path / "run")
    supernet = tmp_path / "run" / SUPERNET
    weights.write_arrays(supernet, "supernet", {}, weights.read_document(supernet))
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    events: list[dict[str, Any]] = []
    with pytest.raises(kind, match=expected):
        search(dataclasses.replace(request_of, **{"run": tmp_path / "run", **change}), (events.append,))
    assert not [event for event in events if event["event"] == "evaluation"]


def test_an_infeasible_search_does_not_import_torch(run: Path) -> None:
    program = f"""
import sys
from pathlib import Path
from fedsup_deploy.errors import InfeasibleError
from fedsup_deploy.pipeline.searching import SearchRequest, search
try:
    search(SearchRequest(["raspberry-pi-4"], Path({str(run)!r}), {{"macs": 10.0}}))
except InfeasibleError:
    print("torch" in sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"
