"""`search` on a real, if briefly trained, run on the bundled digits."""

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_runs

import fedsup_deploy
from fedsup_deploy import files, registry
from fedsup_deploy.accuracy import CountedAccuracy
from fedsup_deploy.artifact import weights
from fedsup_deploy.cli import options
from fedsup_deploy.cli.main import main
from fedsup_deploy.commands import search as searching
from fedsup_deploy.commands.accuracy_file import load_predictor, save_predictor
from fedsup_deploy.commands.evaluate import evaluate
from fedsup_deploy.commands.fit_accuracy import fit_accuracy
from fedsup_deploy.commands.scoring import client_scores
from fedsup_deploy.commands.search import SearchRequest
from fedsup_deploy.commands.train import train
from fedsup_deploy.config.schema import load_train_config
from fedsup_deploy.device.heldout import held_out_error
from fedsup_deploy.device.profile import DeviceProfile, load_profile
from fedsup_deploy.errors import ArtifactError, ConfigError, DataError, FedsupError, InfeasibleError, OutputError
from fedsup_deploy.events import Listener
from fedsup_deploy.processor import processor
from fedsup_deploy.runs.run import ACCURACY, EVALUATIONS, SUPERNET, open_run
from fedsup_deploy.searchers.result import load_result
from fedsup_deploy.space.architecture import Architecture
from fedsup_deploy.space.cost import costs
from fedsup_deploy.space.search_space import SearchSpace


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One round of FedSup on one client."""
    return small_runs.trained(small_runs.SUPERNET, tmp_path_factory.mktemp("runs"))


def search(request: SearchRequest, listeners: Sequence[Listener] = ()) -> dict[str, Any]:
    """Return the document that `search --json` prints."""
    return searching.search(request, listeners).to_dict()


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
    assert written["run"] == {"name": "small", "hash": files.sha256(run / SUPERNET), "rounds": 1, "path": "."}
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
    assert report.accuracy == picked["accuracy"] == max(each["accuracy"] for each in result["candidates"])
    assert report.costs["num_macs"] == picked["num_macs"]


def test_every_accuracy_has_its_images_and_its_interval(run: Path, searched: Any) -> None:
    document, events = searched
    for result in document["results"]:
        for each in result["candidates"]:
            low, high = each["accuracy_interval"]
            assert (each["num_images"], 0 <= low < each["accuracy"] < high <= 1) == (202, True)
        report = evaluate(run, result["pick"], split="validation", schedule="one-shot")
        picked = next(each for each in result["candidates"] if each["arch_id"] == result["pick"])
        assert (report.num_images, list(report.accuracy_interval)) == (202, picked["accuracy_interval"])
    for event in (event for event in events if event["event"] == "evaluation"):
        assert event["num_images"] == 202
        assert event["accuracy_interval"][0] < event["accuracy"] < event["accuracy_interval"][1]
    assert document["processor"] == processor()


def test_the_cheapest_within_noise_is_named_and_taken_if_preferred(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the command line, with the same accuracies: the other pick, and what was certified."""
    line = ["search", "--run", str(run), "--profile", "raspberry-pi-4", "--max-macs", "250000", "--quiet"]
    found, told = {}, {}
    for prefer in ("accurate", "cheaper"):
        out = tmp_path / f"{prefer}.json"
        assert main([*line, "--prefer", prefer, "--out", str(out)]) == 0
        (found[prefer],), told[prefer] = load_result(out).results, capsys.readouterr().out
    plain, cheap = found["accurate"], found["cheaper"]
    assert plain.certified
    assert cheap.certified
    assert "yes, on 202 images" in told["accurate"]
    assert plain.within_noise == cheap.within_noise
    noise = plain.within_noise
    assert noise is not None
    assert noise.cheapest is not None, "an hour of training would tell subnets apart, one round does not"
    assert (plain.pick, cheap.pick) == (plain.most_accurate, noise.cheapest)
    fewer = 1 - cheap.picked.num_macs / plain.picked.num_macs
    assert (
        f"raspberry-pi-4: as accurate within noise: {cheap.pick}, {fewer:.0%} fewer MACs; --prefer cheaper picks it"
        in told["accurate"]
    )
    assert (
        f"picked as accurate within noise as {plain.pick}, with {fewer:.0%} fewer MACs; "
        f"certified is the accuracy of {plain.pick}" in told["cheaper"]
    )
    assert str(cheap.certified_relative_to).endswith(
        f"; certified is the accuracy of {plain.pick}, and the pick is the cheapest within noise of it"
    )


def test_again_it_finds_the_same(request_of: SearchRequest, searched: Any, tmp_path: Path) -> None:
    again = search(dataclasses.replace(request_of, out=tmp_path / "new" / "again.json"))
    assert again.pop("out") == str(tmp_path / "new" / "again.json")
    first = {key: value for key, value in searched[0].items() if key != "out"}
    # From another place the way to the run is another.
    assert (tmp_path / "new" / again["run"].pop("path")).resolve() == request_of.run.resolve()
    assert {**first["run"], **again["run"]} == first["run"]
    assert without_seconds({**again, "run": first["run"]}) == without_seconds(first)


def test_through_a_link_it_is_written_where_that_leads_and_finds_its_run_from_there(
    request_of: SearchRequest, searched: Any, tmp_path: Path
) -> None:
    link, end = tmp_path / "a" / "link.json", tmp_path / "b" / "c" / "real.json"
    link.parent.mkdir()
    link.symlink_to("../b/c/real.json")
    search(dataclasses.replace(request_of, out=link))
    assert link.is_symlink()
    found = load_result(end).run
    assert found.path is not None
    assert (end.parent / found.path).resolve() == request_of.run
    assert options.searched_run_line(found, link) == f"run: {request_of.run} (1 round)"


def test_paths_may_be_text_in_python(run: Path, searched: Any, tmp_path: Path) -> None:
    found = fedsup_deploy.search(
        ["jetson-nano"], str(run), out=str(tmp_path / "found.json"), method="random", evaluations=3
    )
    assert found.out == tmp_path / "found.json"
    assert load_result(tmp_path / "found.json").results[0].num_evaluated == 3


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
        ({"evaluations": 0}, ConfigError, "evaluations: got 0, expected a whole number of at least 1"),
        ({"max_artifacts": 0}, ConfigError, "max_artifacts: got 0, expected a whole number of at least 1"),
        ({"accuracy": "predict"}, ConfigError, "unknown accuracy 'predict'; did you mean 'predicted'"),
        ({"accuracy": "predicted"}, ArtifactError, "no accuracy predictor in .*; make it: fedsup-deploy fit-accuracy"),
        ({"accuracy": "clients"}, ConfigError, "no client holds images out .*client_validation_fraction=0.2"),
        ({"risk": 1.5}, ConfigError, "risk: got 1.5, expected a probability between 0 and 1"),
        ({"risk": "0.9"}, ConfigError, "risk: got '0.9', expected a probability"),
        ({"limits": {"latency_ms": "3"}}, ConfigError, "limit latency_ms: got '3', expected a finite number above 0"),
        ({"limits": {"latency_ms": True}}, ConfigError, "limit latency_ms: got True, expected"),
        ({"limits": [1]}, ConfigError, r"limit limits: got \[1\], expected"),
        ({"method": None}, ConfigError, "unknown searcher None"),
        ({"evaluations": 2.5}, ConfigError, "evaluations: got 2.5, expected a whole number"),
        ({"seed": -1}, ConfigError, "seed: got -1, expected a whole number of at least 0"),
        ({"profiles": [1]}, ConfigError, r"profiles: got \[1\], expected a list"),
        ({"profiles": "jetson-nano"}, ConfigError, "profiles: got 'jetson-nano', expected a list"),
        (
            {"risk": 0.95},
            ConfigError,
            "risk: got 0.95, but profile raspberry-pi-4 was not checked with measured networks",
        ),
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


# Predicted accuracies


@pytest.fixture(scope="module")
def predicting(run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], list[Any]]:
    """A run of its own with a predictor, what fitting it returned, and its events."""
    own = Path(shutil.copytree(run, tmp_path_factory.mktemp("runs") / "brief"))
    (own / "search.json").unlink(missing_ok=True)
    # What searches of other tests measured would leave little to predict, or nothing.
    shutil.rmtree(own / EVALUATIONS, ignore_errors=True)
    events: list[dict[str, Any]] = []
    return own, fit_accuracy(own, evaluations=24, seed=5, listeners=(events.append,)).to_dict(), events


def test_fitting_says_how_good_every_kind_is(predicting: Any) -> None:
    own, made, events = predicting
    assert made["out"] == str(own / ACCURACY)
    assert (made["num_measured"], made["num_architectures"]) == (24, 128)
    assert (made["run"], made["rounds"]) == (str(own), 1)
    kinds = registry.names("accuracy")
    assert list(made["cross_validation"]) == kinds
    assert made["cross_validation"][made["predictor"]]["mae"] == min(
        judged["mae"] for judged in made["cross_validation"].values()
    )
    assert made["held_out"].keys() == {"kendall_tau", "mae", "num_architectures"}
    # A fifth of 24 takes no part in the choice, which is made on the others.
    assert made["held_out"]["num_architectures"] == 4
    assert {judged["num_architectures"] for judged in made["cross_validation"].values()} == {20}
    assert made["num_images"] == 202
    progress = {
        kind: [event["done"] for event in events if event["event"] == kind] for kind in ("evaluation", "predictor")
    }
    assert progress == {"evaluation": list(range(1, 25)), "predictor": list(range(1, len(kinds) + 1))}


def about(folder: Path) -> tuple[SearchSpace, str, dict[str, Any]]:
    """Return what a predictor of a run must be about: its space, the hash of its supernet, and its calibration."""
    run = open_run(folder)
    return run.space, files.sha256(folder / SUPERNET), run.calibration


def test_a_predictor_is_fitted_to_what_evaluate_measures(predicting: Any) -> None:
    own, made, _ = predicting
    stored = load_predictor(own / ACCURACY, *about(own))
    for genes, accuracy in list(zip(stored.genes_TG, stored.accuracy_T, strict=True))[:3]:
        arch_id = stored.space.decode(genes).arch_id
        assert evaluate(own, arch_id, split="validation", schedule="one-shot").accuracy == accuracy
    assert len(np.unique(stored.genes_TG, axis=0)) == 24
    assert stored.findings.model_dump(mode="json")["held_out"] == made["held_out"]


def test_what_is_predicted_is_within_noise_by_the_error_of_the_predictor(predicting: Any, tmp_path: Path) -> None:
    own, made, _ = predicting
    request = SearchRequest(
        ["raspberry-pi-4"], own, {}, accuracy="predicted", prefer="cheaper", out=tmp_path / "a.json"
    )
    document = search(request)
    (result,) = document["results"]
    assert result["within_noise"]["mae"] == made["held_out"]["mae"] == document["accuracy_model"]["mae"]
    assert document["accuracy_model"]["num_held_out"] == 4
    assert result["pick"] == (result["within_noise"]["cheapest"] or result["most_accurate"])
    for each in result["candidates"]:
        is_measured = each["accuracy"] is not None
        assert (each["num_images"], each["accuracy_interval"] is not None) == (
            202 if is_measured else None,
            is_measured,
        )


def test_a_predictor_of_an_older_version_knows_no_images_and_so_no_noise(predicting: Any, tmp_path: Path) -> None:
    """It is read, where the scores are gone as well; what needs the images is refused with what to do."""
    own = Path(shutil.copytree(predicting[0], tmp_path / "brief"))
    shutil.rmtree(own / EVALUATIONS)
    stored = load_predictor(own / ACCURACY, *about(own))
    save_predictor(own / ACCURACY, dataclasses.replace(stored, num_images_T=None))
    request = SearchRequest(["raspberry-pi-4"], own, {}, accuracy="predicted", out=tmp_path / "a.json")
    (result,) = search(request)["results"]
    assert result["within_noise"] is None
    with pytest.raises(ConfigError, match="says not on how many images it was measured; fit it again: "):
        search(dataclasses.replace(request, prefer="cheaper"))


def test_fitted_again_it_is_the_same_file_and_nothing_is_measured_twice(predicting: Any) -> None:
    own, _, _ = predicting
    before = (own / ACCURACY).read_bytes()
    [kept] = (own / EVALUATIONS).glob("measured-*.jsonl")
    measured = kept.read_bytes()
    fit_accuracy(own, evaluations=24, seed=5)
    assert (own / ACCURACY).read_bytes() == before
    assert kept.read_bytes() == measured


def test_predicted_search_finds_the_best_prediction(predicting: Any, tmp_path: Path) -> None:
    """And auto, on a run that has a predictor, is predicted."""
    own, made, _ = predicting
    request = SearchRequest(["raspberry-pi-4"], own, {"macs": 400_000.0}, accuracy="predicted", out=tmp_path / "a.json")
    found = search(request)
    again = search(dataclasses.replace(request, accuracy="auto", out=tmp_path / "b.json"))
    assert without_seconds({**again, "out": ""}) == without_seconds({**found, "out": ""})
    (result,) = found["results"]
    space = open_run(own).space
    stored = load_predictor(own / ACCURACY, *about(own))
    predicted = dict(
        zip([space.decode(genes).arch_id for genes in space.enumerate_genes()], stored.listed_N, strict=True)
    )
    assert result["method"] == "exact"
    assert result["certified_relative_to"] == (
        "the accuracy measured on 202 held-out images, of what was not measured the accuracy predictor, "
        "and the profile's latency model"
    )
    assert result["num_evaluated"] == result["num_feasible"] > len(result["candidates"])
    measured = measured_in(own)
    for candidate in result["candidates"]:
        arch_id = candidate["arch_id"]
        expected = (measured[arch_id], None) if arch_id in measured else (None, predicted[arch_id])
        assert (candidate["accuracy"], candidate["accuracy_predicted"]) == expected
    assert 0 < result["num_measured"] < len(result["candidates"])
    model = found["accuracy_model"]
    assert (model["kind"], model["fitted_on"], model["predictor"]) == ("predicted", "measured", made["predictor"])
    assert (model["num_measured"], model["hash"]) == (24, files.sha256(own / ACCURACY))
    assert made["held_out"] == {
        "kendall_tau": model["kendall_tau"],
        "mae": model["mae"],
        "num_architectures": model["num_held_out"],
    }


def test_where_all_that_fits_is_measured_nothing_is_predicted(predicting: Any, tmp_path: Path) -> None:
    """What another search measured since counts as well. Then the pick is that of a measured search, and says so."""
    own = Path(shutil.copytree(predicting[0], tmp_path / "brief"))
    space = open_run(own).space
    limit = float(np.sort(costs(space, space.enumerate_genes()).num_macs)[11])
    request = SearchRequest(["jetson-nano"], own, {"macs": limit}, out=tmp_path / "found.json")
    before = search(request)
    assert before["accuracy_model"]["kind"] == "predicted"
    measured = search(dataclasses.replace(request, accuracy="measured"))
    after = search(request)
    assert after["accuracy_model"] == measured["accuracy_model"]
    assert without_seconds(after["results"]) == without_seconds(measured["results"])
    assert after["results"][0]["certified_relative_to"].startswith("the accuracy measured on 202 held-out images and")
    with pytest.raises(ConfigError, match="it is of another search"):
        search(dataclasses.replace(request, resume=True, seed=1))


def test_what_was_measured_counts_without_the_folder_of_scores(predicting: Any, tmp_path: Path) -> None:
    """The predictor's file holds what it was fitted to."""
    own = Path(shutil.copytree(predicting[0], tmp_path / "brief"))
    request = SearchRequest(["jetson-nano"], own, {"macs": 400_000.0}, out=tmp_path / "found.json")
    stored = load_predictor(own / ACCURACY, *about(own))
    shutil.rmtree(own / EVALUATIONS)
    (result,) = search(request)["results"]
    kept = {each["arch_id"]: each["accuracy"] for each in result["candidates"] if each["accuracy"] is not None}
    measured = dict(
        zip([stored.space.decode(genes).arch_id for genes in stored.genes_TG], stored.accuracy_T, strict=True)
    )
    assert kept
    assert kept.items() <= measured.items()


def measured_in(run: Path) -> dict[str, float]:
    """Accuracies by arch_id, as the run's folder has them."""
    [kept] = (run / EVALUATIONS).glob("measured-*.jsonl")
    entries = [json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()[1:]]
    return {entry["arch_id"]: entry["accuracy"] for entry in entries}


def latency(candidate: dict[str, Any]) -> float:
    return candidate["latency_ms_predicted"]


def test_a_predicted_search_does_not_import_torch(predicting: Any, tmp_path: Path) -> None:
    own, _, _ = predicting
    words = ["search", "--run", str(own), "--profile", "x86-laptop", "--out", str(tmp_path / "x.json"), "--json"]
    program = f"""
import sys
from fedsup_deploy.cli.main import main
code = main({words!r})
print(code, [name for name in ("torch", "sklearn", "pymoo") if name in sys.modules], file=sys.stderr)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stderr.splitlines()[-1] == "0 []"
    assert json.loads(ended.stdout)["accuracy_model"]["kind"] == "predicted"


def test_a_predictor_of_another_supernet_is_refused(predicting: Any, tmp_path: Path) -> None:
    own = Path(shutil.copytree(predicting[0], tmp_path / "brief"))
    arrays, document = weights.read_arrays(own / SUPERNET, "supernet")
    arrays[min(arrays)] += 1
    weights.write_arrays(own / SUPERNET, "supernet", arrays, document)
    with pytest.raises(ArtifactError, match="fitted to another supernet; fit it again: fedsup-deploy fit-accuracy"):
        search(SearchRequest(["raspberry-pi-4"], own))


def test_too_few_evaluations_for_a_predictor_are_refused(run: Path) -> None:
    with pytest.raises(ConfigError, match="evaluations: got 19, expected at least 20"):
        fit_accuracy(run, evaluations=19)
    with pytest.raises(ConfigError, match="accuracy: got 'predicted', expected measured or clients"):
        fit_accuracy(run, measured_by="predicted")


# Other objectives than the accuracy


@pytest.mark.parametrize("goal", ["balanced_accuracy", "macro_f1", "calibration_error"])
def test_a_search_picks_what_is_best_in_its_objective(
    request_of: SearchRequest, run: Path, tmp_path: Path, goal: str
) -> None:
    """As `evaluate` tells it, of the same candidates; and it says so, in search.json and in each event."""
    events: list[dict[str, Any]] = []
    request = dataclasses.replace(request_of, objective=goal, out=tmp_path / "found.json")
    found = search(request, (events.append,))
    for result in found["results"]:
        assert result["objective"] == goal
        values = {each["arch_id"]: each["more"][goal] for each in result["candidates"]}
        best = min if goal == "calibration_error" else max
        assert values[result["pick"]] == best(values.values())
        report = evaluate(run, result["pick"], split="validation", schedule="one-shot").measures
        (picked,) = (each for each in result["candidates"] if each["arch_id"] == result["pick"])
        assert picked["more"][goal] == getattr(report, goal)
        assert tuple(picked["objective_interval"]) == getattr(report, f"{goal}_interval")
        assert picked["accuracy_interval"] == list(CountedAccuracy.of_share(picked["accuracy"], 202).interval)
        assert result["within_noise"] is None
    for event in (event for event in events if event["event"] == "evaluation"):
        assert event[f"{goal}_interval"][0] <= event[goal] <= event[f"{goal}_interval"][1]
    assert load_result(tmp_path / "found.json").to_dict() == {k: v for k, v in found.items() if k != "out"}


def test_searches_for_different_objectives_share_what_was_evaluated(
    request_of: SearchRequest, run: Path, tmp_path: Path
) -> None:
    """The journal tells all measures, but one of an older version, whose lines are found anew, and no other."""
    own = tmp_path / "own"
    shutil.copytree(run, own)
    shutil.rmtree(own / "evaluations", ignore_errors=True)
    request = dataclasses.replace(request_of, run=own, out=tmp_path / "found.json")
    search(request)
    (journal,) = (own / "evaluations").glob("measured-*.jsonl")
    lines = journal.read_text(encoding="utf-8").splitlines()
    expected = search(dataclasses.replace(request, objective="macro_f1"))
    assert journal.read_text(encoding="utf-8").splitlines() == lines
    old = [json.dumps({k: v for k, v in json.loads(line).items() if k != "measures"}) for line in lines[1:3]]
    journal.write_text("\n".join([lines[0], *old, *lines[3:]]) + "\n", encoding="utf-8")
    again = search(dataclasses.replace(request, objective="macro_f1"))
    assert without_seconds(again) == without_seconds(expected)
    assert len(journal.read_text(encoding="utf-8").splitlines()) == len(lines) + 2
    assert without_seconds(search(request))["results"] == without_seconds(search(request_of))["results"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objective": "acuracy"}, "unknown objective 'acuracy'; did you mean 'accuracy'"),
        ({"objective": "latency_ms"}, "unknown objective 'latency_ms'"),
        ({"objective": "auc"}, "objective auc: expected two classes, digits has 10"),
        ({"objective": "worst_decile", "accuracy": "measured"}, "objective worst-decile: only clients can tell"),
        (
            {"objective": "macro_f1", "accuracy": "predicted"},
            "objective macro-f1: a predictor tells the accuracy alone",
        ),
        (
            {"objective": "macro_f1", "prefer": "cheaper"},
            "prefer cheaper: what is within noise is known of the accuracy, not of macro-f1$",
        ),
    ],
)
def test_an_objective_that_nobody_can_tell_is_refused(
    request_of: SearchRequest, change: dict[str, Any], message: str
) -> None:
    told: list[dict[str, Any]] = []
    with pytest.raises(ConfigError, match=message):
        search(dataclasses.replace(request_of, **change), (told.append,))
    assert not told, "nothing is priced before"


# Accuracies by clients


def test_clients_find_accuracies_and_their_worst_decile(tmp_path: Path) -> None:
    """Twelve clients, of which the tenth that is worst off are two."""
    config = small_runs.SUPERNET.replace("{dataset: digits}", "{dataset: digits, client_validation_fraction: 0.25}")
    (tmp_path / "asked.yaml").write_text(config.replace("num_clients: 2", "num_clients: 12"), encoding="utf-8")
    train(load_train_config(tmp_path / "asked.yaml", []), tmp_path / "asked")
    request = SearchRequest(["raspberry-pi-4"], tmp_path / "asked", {}, "random", 6, accuracy="clients")
    found = search(request)
    assert found["accuracy_model"]["kind"] == "clients"
    (result,) = found["results"]
    assert result["num_evaluated"] == 6
    for candidate in result["candidates"]:
        assert 0 <= candidate["worst_decile"] <= candidate["accuracy"] <= 1
    assert any(each["worst_decile"] < each["accuracy"] for each in result["candidates"])
    # A mean over clients is no share of images: it has no interval, and nobody knows what is noise.
    held_out = sum(len(indices) for indices in open_run(tmp_path / "asked").data.held_out)
    assert {(each["num_images"], each["accuracy_interval"]) for each in result["candidates"]} == {(held_out, None)}
    assert result["within_noise"] is None
    with pytest.raises(ConfigError, match="prefer cheaper: accuracy is a mean over clients"):
        search(dataclasses.replace(request, prefer="cheaper"))
    worst = search(dataclasses.replace(request, objective="worst_decile", accuracy="auto"))["results"][0]
    assert [worst[each] for each in ("front", "candidates")] == [result[each] for each in ("front", "candidates")]
    deciles = {each["arch_id"]: each["worst_decile"] for each in worst["candidates"]}
    assert {each["accuracy_interval"] for each in worst["candidates"]} == {None}
    assert (worst["objective"], deciles[worst["pick"]]) == ("worst_decile", max(deciles.values()))
    run = open_run(tmp_path / "asked")
    architectures = [Architecture.from_dict(each["architecture"]) for each in result["candidates"]]
    scores = client_scores(run, architectures, lambda _index, _score: None)
    expected = [(score.accuracy, score.worst_decile) for score in scores]
    assert [(each["accuracy"], each["worst_decile"]) for each in result["candidates"]] == expected


# Risk


def with_ratios(*ratios: float) -> DeviceProfile:
    """A Raspberry Pi 4 on which so many networks took these shares of what was predicted."""
    error = held_out_error(np.ones(len(ratios)), np.array(ratios), "held-out")
    return load_profile("raspberry-pi-4").model_copy(update={"error": error})


def test_with_a_risk_the_upper_bound_meets_the_limit(predicting: Any, tmp_path: Path) -> None:
    """Of 19 networks the slowest took 1.5 times as long as predicted: at 95 % that is the bound."""
    own, _, _ = predicting
    profile = with_ratios(*[1.0] * 18, 1.5)
    limits = {"latency_ms": 1.2}
    plain, safe = (
        search(SearchRequest([profile], own, limits, risk=risk, out=tmp_path / "found.json"))["results"][0]
        for risk in (None, 0.95)
    )
    assert (plain["risk"], safe["risk"]) == (None, 0.95)
    assert 0 < safe["num_feasible"] < plain["num_feasible"]
    for candidate in safe["candidates"]:
        assert candidate["latency_upper_ms"] == pytest.approx(1.5 * candidate["latency_ms_predicted"])
        assert candidate["latency_upper_ms"] <= 1.2
    assert max(each["latency_ms_predicted"] for each in plain["candidates"]) > 0.8
    assert all(each["latency_upper_ms"] is None for each in plain["candidates"])


def test_what_only_the_bound_breaks_is_infeasible_at_that_risk(predicting: Any, tmp_path: Path) -> None:
    own, _, _ = predicting
    fastest = search(SearchRequest(["raspberry-pi-4"], own, {"latency_ms": 100.0}, out=tmp_path / "found.json"))
    limit_ms = 1.1 * min(map(latency, fastest["results"][0]["candidates"]))
    profile = with_ratios(*[1.0] * 18, 1.5)
    request = SearchRequest([profile], own, {"latency_ms": limit_ms}, out=tmp_path / "found.json")
    assert search(request)["results"][0]["num_feasible"] >= 1
    with pytest.raises(InfeasibleError, match="no subnet fits raspberry-pi-4: latency_ms"):
        search(dataclasses.replace(request, risk=0.95))
    with pytest.raises(
        ConfigError, match=r"got 0\.99, but profile .* was checked with 19 networks, .* with at most 0\.95;"
    ):
        search(dataclasses.replace(request, risk=0.99))


# Fleets


def test_a_fleet_shares_architectures(predicting: Any, tmp_path: Path) -> None:
    own, _, _ = predicting
    limits = {"raspberry-pi-4": 0.65, "x86-laptop": 100.0}
    profiles = [
        load_profile(name).model_copy(
            update={"limits": load_profile(name).limits.model_copy(update={"latency_ms": most})}
        )
        for name, most in limits.items()
    ]
    request = SearchRequest(profiles, own, max_artifacts=1, out=tmp_path / "found.json")
    document = search(request)
    assert {len(set(option["assigned"].values())) for option in document["fleet"]["options"]} == {1, 2}
    found = load_result(tmp_path / "found.json")
    chosen = {found.chosen_for(name).arch_id for name in limits}
    assert chosen == {found.for_profile("raspberry-pi-4").pick}
    assert found.for_profile("x86-laptop").pick not in chosen


# Resuming


def stop_at(done: int) -> Any:
    """A listener that stops the search as Ctrl-C does, at an accuracy."""

    def listener(event: dict[str, Any]) -> None:
        if event["event"] == "evaluation" and event["done"] == done:
            raise KeyboardInterrupt

    return listener


@pytest.fixture
def fresh(run: Path, tmp_path: Path) -> SearchRequest:
    """An evolution on a copy of the run in which nothing was evaluated."""
    shutil.copytree(run, tmp_path / "brief", ignore=shutil.ignore_patterns(EVALUATIONS, "search.json*"))
    return SearchRequest(
        ["raspberry-pi-4"], tmp_path / "brief", {"macs": 500_000.0}, "evolution", 30, seed=2, resume=True
    )


@pytest.fixture(scope="module")
def uninterrupted(run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    own = tmp_path_factory.mktemp("whole") / "brief"
    shutil.copytree(run, own, ignore=shutil.ignore_patterns(EVALUATIONS, "search.json*"))
    return search(SearchRequest(["raspberry-pi-4"], own, {"macs": 500_000.0}, "evolution", 30, seed=2))


def document_of(result: dict[str, Any]) -> Any:
    return without_seconds({key: value for key, value in result.items() if key != "out"})


@pytest.mark.parametrize("done", [3, 27])
def test_resumed_it_ends_with_the_same_document(fresh: SearchRequest, uninterrupted: dict[str, Any], done: int) -> None:
    """Stopped in the first turn and in the second; what was found by then is not found again."""
    assert fresh.run is not None
    with pytest.raises(KeyboardInterrupt):
        search(fresh, [stop_at(done)])
    assert not (fresh.run / "search.json").exists()
    assert (fresh.run / "search.json.unfinished").exists()
    [kept] = (fresh.run / EVALUATIONS).glob("measured-*.jsonl")
    before = kept.read_bytes()
    assert before.count(b"\n") == 1 + done
    resumed = search(fresh)
    assert document_of(resumed) == document_of(uninterrupted)
    assert document_of(json.loads((fresh.run / "search.json").read_text(encoding="utf-8"))) == document_of(resumed)
    assert not (fresh.run / "search.json.unfinished").exists()
    assert kept.read_bytes().startswith(before)
    assert kept.read_bytes().count(b"\n") == 1 + 30


def test_a_finished_search_stands(fresh: SearchRequest) -> None:
    assert fresh.run is not None
    first = search(fresh)
    before = (fresh.run / "search.json").stat()
    events: list[dict[str, Any]] = []
    assert search(fresh, [events.append]) == first
    after = (fresh.run / "search.json").stat()
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)
    assert events == []


CHANGES = (
    {"seed": 3},
    {"evaluations": 29},
    {"method": "random"},
    {"limits": {"macs": 500_001.0}},
    {"profiles": ["x86-laptop"]},
    {"max_artifacts": 1},
    {"profiles": [with_ratios(*[1.0] * 19)], "risk": 0.9},
)


def test_a_search_that_fails_leaves_nothing_to_resume(fresh: SearchRequest) -> None:
    """It was not stopped: a second time it would fail as well."""
    assert fresh.run is not None

    def fail(event: dict[str, Any]) -> None:
        if event["event"] == "evaluation":
            raise DataError("the images are gone")

    with pytest.raises(DataError):
        search(fresh, [fail])
    assert not list(fresh.run.glob("*search.json*"))


@pytest.mark.parametrize("change", CHANGES)
def test_another_search_is_not_resumed(fresh: SearchRequest, change: dict[str, Any]) -> None:
    """Neither one that was stopped nor one that is finished; both stay as they are."""
    assert fresh.run is not None
    with pytest.raises(KeyboardInterrupt):
        search(fresh, [stop_at(1)])
    for finish in (False, True):
        if finish:
            search(fresh)
        before = {path.name: path.read_bytes() for path in fresh.run.glob("search.json*")}
        with pytest.raises(
            ConfigError, match=r"cannot resume .*search\.json: it is of another search: .* without --resume"
        ):
            search(dataclasses.replace(fresh, **change))
        assert {path.name: path.read_bytes() for path in fresh.run.glob("search.json*")} == before


def test_without_resume_a_stopped_search_is_begun_anew(fresh: SearchRequest, uninterrupted: dict[str, Any]) -> None:
    """Of another request; what it left is no hindrance, and what had been evaluated is known."""
    assert fresh.run is not None
    with pytest.raises(KeyboardInterrupt):
        search(dataclasses.replace(fresh, seed=9), [stop_at(2)])
    assert document_of(search(dataclasses.replace(fresh, resume=False))) == document_of(uninterrupted)
    assert not (fresh.run / "search.json.unfinished").exists()


def test_an_older_result_without_its_request_is_not_resumed(fresh: SearchRequest) -> None:
    assert fresh.run is not None
    found = search(fresh)
    document = {key: value for key, value in found.items() if key not in ("out", "request")}
    (fresh.run / "search.json").write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(ConfigError, match="cannot resume"):
        search(fresh)


def test_a_damaged_mark_of_a_stopped_search_is_of_another(fresh: SearchRequest) -> None:
    assert fresh.run is not None
    (fresh.run / "search.json.unfinished").write_bytes(b"\xff\x00")
    with pytest.raises(ConfigError, match="cannot resume"):
        search(fresh)


def test_an_infeasible_search_does_not_import_torch(run: Path) -> None:
    program = f"""
import sys
from collections.abc import Sequence
from pathlib import Path
from fedsup_deploy.errors import InfeasibleError
from fedsup_deploy.commands.search import SearchRequest, search
try:
    search(SearchRequest(["raspberry-pi-4"], Path({str(run)!r}), {{"macs": 10.0}}))
except InfeasibleError:
    print("torch" in sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"
