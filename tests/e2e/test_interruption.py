"""Commands that are killed or interrupted: what was there is whole, work goes on where it stopped, nobody is left."""

import functools
import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from fedsup_deploy import rng
from fedsup_deploy.artifact import weights
from fedsup_deploy.config.load import load_yaml, validate
from fedsup_deploy.config.schema import TrainConfig

ROUNDS = 6
SUPERNET = Path("runs/digits/supernet.safetensors")
CHECKPOINT = Path("runs/digits/checkpoint/state.safetensors")
EVENTS = Path("runs/digits/events.jsonl")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, shell_in) -> Path:
    """The folder of a training that nothing happened to."""
    shell = shell_in(tmp_path_factory.mktemp("undisturbed"))
    shell.train(training__rounds=ROUNDS)
    return shell.folder


def rounds_of(folder: Path) -> list[tuple[int, float]]:
    """Return number and loss of every round in a run's log; a last line cut by a kill does not count."""
    if not (folder / EVENTS).exists():
        return []
    lines = (folder / EVENTS).read_text(encoding="utf-8").splitlines(keepends=True)
    events = [json.loads(line) for line in lines if line.endswith("\n")]
    return [(event["round"], event["loss"]) for event in events if event["event"] == "round"]


def has_rounds(folder: Path, count: int) -> bool:
    """Return whether a run has its log, with that many rounds."""
    return (folder / EVENTS).exists() and len(rounds_of(folder)) >= count


def check_whole(folder: Path, *, is_finished: bool = False) -> None:
    """Fail if any file of a run is less than whole."""
    run = folder / "runs" / "digits"
    if (run / "config.resolved.yaml").exists():
        validate(load_yaml(run / "config.resolved.yaml"), TrainConfig)
    if (folder / CHECKPOINT).exists():
        arrays, document = weights.read_arrays(folder / CHECKPOINT, "checkpoint")
        assert arrays
        assert 1 <= document["rounds"] <= ROUNDS
    assert (folder / SUPERNET).exists() == is_finished


@pytest.mark.slow
def test_the_number_of_workers_changes_no_bit(undisturbed, shell):
    shell.train(training__rounds=ROUNDS, engine__workers=2)
    assert (shell.folder / SUPERNET).read_bytes() == (undisturbed / SUPERNET).read_bytes()
    assert rounds_of(shell.folder) == rounds_of(undisturbed)


def test_training_killed_again_and_again_ends_with_the_same_bytes(undisturbed, shell):
    """Killed before its first checkpoint and after, each a random moment after a round; workers may change."""
    moments_s = rng.generator(0, "kill").uniform(0.0, 0.15, size=3)
    for num_rounds, workers, moment_s in zip((0, 1, 2), (2, 1, 1), moments_s, strict=True):
        training = shell.start(*shell.training(training__rounds=ROUNDS, engine__workers=workers), "--resume")
        training.wait_until(functools.partial(has_rounds, shell.folder, num_rounds))
        time.sleep(moment_s)
        training.kill()

        check_whole(shell.folder, is_finished=training.process.returncode == 0)
        assert training.survivors() == []

    assert shell.train("digits", "--resume", training__rounds=ROUNDS)["rounds"] == ROUNDS
    assert (shell.folder / SUPERNET).read_bytes() == (undisturbed / SUPERNET).read_bytes()
    assert rounds_of(shell.folder) == rounds_of(undisturbed)
    assert [name for name in shell.content() if ".partial-" in name] == []


@pytest.mark.parametrize(
    ("words", "later_s"),
    [("rounds 0/6", 0.0), pytest.param("rounds 0/6", 0.7, marks=pytest.mark.slow), ("rounds 3/6", 0.0)],
)
def test_ctrl_c_keeps_what_was_done_and_ends_everybody(words, later_s, undisturbed, shell):
    """Before there are workers, while they load their libraries, and while they work."""
    settings = {"training__rounds": ROUNDS, "training__checkpoint_every": ROUNDS, "engine__workers": 2}
    training = shell.start(*shell.training(**settings))
    training.wait_for(words)
    time.sleep(later_s)
    ended = training.interrupt()

    assert (ended.exit_code, ended.out) == (130, "")
    *progress, last = ended.err.splitlines()
    assert last == "interrupted: the same command with --resume goes on from the last checkpoint"
    assert all(line.startswith("rounds ") for line in progress)
    assert training.survivors() == []
    check_whole(shell.folder)
    assert (shell.folder / CHECKPOINT).exists() == bool(rounds_of(shell.folder))
    if words == "rounds 3/6":
        assert len(rounds_of(shell.folder)) >= 3
        shell.train("digits", "--resume", **{**settings, "engine__workers": 1})
        assert (shell.folder / SUPERNET).read_bytes() == (undisturbed / SUPERNET).read_bytes()
        assert rounds_of(shell.folder) == rounds_of(undisturbed)


@pytest.mark.parametrize("name", ["SIGTERM", pytest.param("SIGHUP", marks=pytest.mark.slow)])
def test_a_signal_ends_training_as_ctrl_c_does(name, shell, tmp_path):
    """Nobody and nothing is left, in the folder for temporary files neither; and the exit code says which it was."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    shell.environ["TMPDIR"] = str(temporary)
    training = shell.start(*shell.training(training__rounds=ROUNDS, engine__workers=2))
    training.wait_for("rounds 2/6")
    assert len(training.workers()) == 2
    ended = training.interrupt(signal.Signals[name])
    assert (ended.exit_code, ended.out) == (128 + signal.Signals[name], "")
    assert ended.err.splitlines()[-1] == "interrupted: the same command with --resume goes on from the last checkpoint"
    assert training.survivors() == []
    assert list(temporary.iterdir()) == []
    assert len(rounds_of(shell.folder)) >= 2
    assert (shell.folder / CHECKPOINT).exists()


def test_a_signal_leaves_no_half_bundle(workshop, exported, shell, tmp_path):
    shutil.copytree(workshop.folder / "runs", shell.folder / "runs")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    shell.environ["TMPDIR"] = str(temporary)
    export = shell.start("export", "--search", "runs/digits/search.json")
    export.wait_until(lambda: list(shell.folder.glob("exports/*/.*.partial-*")))
    ended = export.interrupt(signal.SIGTERM)
    assert (ended.exit_code, ended.out, ended.err.splitlines()[-1]) == (143, "", "interrupted")
    assert not (shell.folder / "exports").exists()
    assert list(temporary.iterdir()) == []


def test_a_worker_that_is_killed_as_it_starts_ends_training(shell):
    training = shell.start(*shell.training(engine__workers=2))
    training.wait_until(training.workers)
    os.kill(training.workers()[0], signal.SIGKILL)
    ended = training.end()
    assert ended.exit_code == 7
    assert ended.errors == [
        "error: a worker process died, killed or out of memory; lower engine.workers and continue with --resume"
    ]
    assert training.survivors() == []


SEARCH = ("search", "--profile", "raspberry-pi-4", "--run", "runs/digits", "--max-macs", "500000")
NUM_FEASIBLE = 87
RESULT, UNFINISHED = "runs/digits/search.json", "runs/digits/search.json.unfinished"
LOCK = "runs/digits/.search.json.fedsup-lock"
ACCURACY = "runs/digits/accuracy.safetensors"


def without_seconds(document: Any) -> Any:
    """Return a search.json without the only field that tells one search from the same again."""
    if isinstance(document, dict):
        return {key: without_seconds(value) for key, value in document.items() if key != "seconds"}
    return [without_seconds(value) for value in document] if isinstance(document, list) else document


def accuracies(folder: Path) -> list[str]:
    """Return the whole lines of what a run keeps of its evaluations, the first of which says what they are about."""
    [kept] = (folder / "runs" / "digits" / "evaluations").glob("measured-*.jsonl")
    return [line for line in kept.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]


@pytest.fixture(scope="module")
def undisturbed_searcher(workshop, searched, tmp_path_factory, shell_in) -> Any:
    """A shell in which nothing happens: with the run and all of its evaluations."""
    shell = shell_in(tmp_path_factory.mktemp("undisturbed-search"))
    shutil.copytree(workshop.folder / "runs" / "digits", shell.folder / "runs" / "digits")
    return shell


@pytest.fixture(scope="module")
def undisturbed_search(undisturbed_searcher) -> Any:
    """The document of a search that nothing happened to."""
    return undisturbed_searcher.json(*SEARCH, "--accuracy", "measured")


@pytest.fixture
def unsearched(workshop, searched, shell) -> Any:
    """A shell with a run in which nothing was evaluated, and the old result of another search."""
    ignored = shutil.ignore_patterns("evaluations")
    shutil.copytree(workshop.folder / "runs" / "digits", shell.folder / "runs" / "digits", ignore=ignored)
    return shell


@pytest.mark.parametrize("how", ["kill", pytest.param("interrupt", marks=pytest.mark.slow)])
def test_a_search_that_is_stopped_leaves_the_old_result_and_goes_on(how, unsearched, undisturbed_search):
    shell, before = unsearched, unsearched.content()
    search = shell.start(*SEARCH)
    search.wait_for("evaluation 27/")
    if how == "kill":
        search.kill()
    else:
        ended = search.interrupt()
        assert (ended.exit_code, ended.out) == (130, "")
        assert ended.err.splitlines()[-1] == (
            "interrupted: the same command with --resume goes on where it was stopped"
        )
        assert "Traceback" not in ended.err
    assert search.survivors() == []
    after = shell.content()
    assert {name: after[name] for name in before} == before
    added = after.keys() - before.keys()
    assert UNFINISHED in added
    known = (UNFINISHED, *([LOCK] if how == "kill" else []))
    assert all(name in known or name.startswith("runs/digits/evaluations") for name in added)
    kept = accuracies(shell.folder)
    assert 1 + 27 <= len(kept) < 1 + NUM_FEASIBLE

    resumed = shell.run(*SEARCH, "--resume", "--json")

    assert resumed.exit_code == 0, resumed.err
    assert without_seconds(resumed.document) == without_seconds(undisturbed_search)
    written = json.loads((shell.folder / RESULT).read_text(encoding="utf-8"))
    assert {**written, "out": resumed.document["out"]} == resumed.document
    assert not {UNFINISHED, LOCK} & shell.content().keys()
    every = accuracies(shell.folder)
    assert every[: len(kept)] == kept, "what was found is not found again"
    assert len({json.loads(line)["arch_id"] for line in every[1:]}) == len(every) - 1 == NUM_FEASIBLE
    progress = [line.split()[1].rstrip(",") for line in resumed.err.splitlines() if line.startswith("evaluation ")]
    assert (progress[0], progress[-1]) == (f"1/{NUM_FEASIBLE}", f"{NUM_FEASIBLE}/{NUM_FEASIBLE}"), "of the whole search"


def test_a_finished_search_is_not_repeated(unsearched):
    """Resumed once more it says what it found, and does nothing."""
    shell, words = unsearched, (*SEARCH[:-1], "250000")
    first = shell.json(*words)
    before = shell.content()
    again = shell.run(*words, "--resume", "--json")
    assert (again.document, again.err) == (first, "")
    assert shell.content() == before


@pytest.mark.slow
def test_fitting_a_predictor_goes_on_where_it_was_killed(unsearched, undisturbed_searcher):
    """With the same command: the same file, and nothing measured twice."""
    shell, words, made = unsearched, ("fit-accuracy", "runs/digits", "--evaluations", "24"), ACCURACY
    fitting = shell.start(*words)
    fitting.wait_for("evaluation 12/24")
    fitting.kill()
    assert fitting.survivors() == []
    assert not (shell.folder / made).exists()
    kept = accuracies(shell.folder)
    for each in (shell, undisturbed_searcher):
        each.json(*words)
    assert accuracies(shell.folder)[: len(kept)] == kept
    assert len(accuracies(shell.folder)) == 1 + 24
    assert (shell.folder / made).read_bytes() == (undisturbed_searcher.folder / made).read_bytes()


@pytest.mark.slow
def test_an_export_that_is_killed_leaves_whole_bundles_only(workshop, exported, shell):
    """Killed while it fills a bundle's folder: once where nothing is yet, once where a bundle is."""
    shutil.copytree(workshop.folder / "runs", shell.folder / "runs")
    bundle = shell.folder / exported["folder"]
    moments_s = rng.generator(1, "kill").uniform(0.0, 0.5, size=2)
    for has_old, moment_s in zip((False, True), moments_s, strict=True):
        if has_old:
            shutil.copytree(workshop.folder / exported["folder"], bundle)
        export = shell.start("export", "--search", "runs/digits/search.json")
        export.wait_until(lambda: list(bundle.parent.glob(".*.partial-*")))
        time.sleep(moment_s)
        export.kill()

        assert export.survivors() == []
        assert bundle.exists() == has_old
        if has_old:
            assert shell.json("verify", exported["folder"])["verdict"] == "ok"

    shell.json("export", "--search", "runs/digits/search.json", "--format", "onnx")
    assert [path.name for path in bundle.parent.iterdir()] == [exported["arch_id"]]
    assert not (bundle / "model.ts.pt").exists(), "the new bundle, not the old one"
    assert shell.json("verify", exported["folder"])["verdict"] == "ok"
