"""Commands that are killed or interrupted: what was there is whole, work goes on where it stopped, nobody is left."""

import functools
import json
import shutil
import time
from pathlib import Path

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


@pytest.mark.parametrize(("words", "later_s"), [("rounds 0/6", 0.0), ("rounds 0/6", 0.7), ("rounds 3/6", 0.0)])
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


@pytest.mark.parametrize("how", ["kill", "interrupt"])
def test_a_search_that_does_not_end_leaves_the_old_result(how, workshop, searched, shell):
    shutil.copytree(workshop.folder / "runs", shell.folder / "runs")
    before = shell.content()
    search = shell.start("search", "--profile", "raspberry-pi-4", "--run", "runs/digits")
    search.wait_for("evaluation 13/")
    if how == "kill":
        search.kill()
    else:
        ended = search.interrupt()
        assert (ended.exit_code, ended.out) == (130, "")
        assert ended.err.splitlines()[-1] == "interrupted"
        assert "Traceback" not in ended.err

    assert search.survivors() == []
    assert shell.content() == before


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
