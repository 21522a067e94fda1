"""The accuracy of architectures of a briefly trained run on digits: by the server, by the clients, and remembered."""

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedsup_deploy import rng
from fedsup_deploy.commands import evaluate as evaluation
from fedsup_deploy.commands.evaluate import evaluate
from fedsup_deploy.commands.scoring import client_scores, measured_scores, open_cache, open_scorer
from fedsup_deploy.commands.train import train
from fedsup_deploy.config.load import dump
from fedsup_deploy.config.schema import load_train_config
from fedsup_deploy.data.dataset import load_dataset
from fedsup_deploy.data.preprocess import Preprocessing
from fedsup_deploy.errors import ArtifactError, ConfigError, DataError
from fedsup_deploy.events import EventLog
from fedsup_deploy.federation import batches
from fedsup_deploy.federation.client import Client
from fedsup_deploy.federation.jobs.counts import CountAnswers, Counts
from fedsup_deploy.runs.federation import load_supernet
from fedsup_deploy.runs.run import CONFIG, EVALUATIONS, SUPERNET, Run, open_run
from fedsup_deploy.searchers.scoring.score import Score
from fedsup_deploy.space.architecture import Architecture
from fedsup_deploy.supernet.fold import affines
from fedsup_deploy.supernet.normalization import BY_BATCH, FixedAffine, SumCollector
from fedsup_deploy.supernet.statistics import ChannelSums, PooledStatistics

NUM_CLIENTS = 24
YAML = f"""
schema: 1
name: brief
space: digits
data: {{dataset: digits, client_validation_fraction: 0.25}}
partition: {{kind: dirichlet, num_clients: {NUM_CLIENTS}, beta: 0.05, min_samples: 2}}
strategy: {{name: fedsup, num_subnets: 2}}
training: {{rounds: 2, clients_per_round: 4, warmup_rounds: 0}}
engine: {{name: local, workers: 1}}
calibration: {{samples_per_client: 24, batch_size: 10, schedule: one-shot}}
"""

Find = Callable[..., list[Score]]

FINDS: dict[str, Find] = {"measured": measured_scores, "clients": client_scores}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    (folder / "brief.yaml").write_text(YAML, encoding="utf-8")
    train(load_train_config(folder / "brief.yaml", []), folder / "brief")
    return folder / "brief"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Run:
    """The run, with nothing evaluated yet."""
    shutil.copytree(trained, tmp_path / "run")
    return open_run(tmp_path / "run")


def test_scores_that_a_client_has_not_answered_for_are_not_kept(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are what this command goes by; the next one asks all again."""
    perform, failing = CountAnswers.perform, iter([True])

    def fail_once(job: CountAnswers, client: Client) -> Counts:
        if next(failing, False):
            raise DataError("battery")
        return perform(job, client)

    architectures, events = some(run), list[dict[str, Any]]()
    monkeypatch.setattr(CountAnswers, "perform", fail_once)
    with open_scorer(run, "clients", EventLog(None, (events.append,))) as score:
        found = score(architectures, lambda *_: None)
    assert [each.is_complete for each in found] == [False] * 3
    (event,) = (event for event in events if event["event"] == "absences")
    assert (event["what"], len(event["absent"])) == ("evaluation by clients", 1)
    assert len(open_cache(run, "clients")) == 0
    assert all(each.is_complete for each in client_scores(run, architectures, lambda *_: None))
    assert len(open_cache(run, "clients")) == 3


def some(run: Run, count: int = 3) -> list[Architecture]:
    genes_NG = run.space.enumerate_genes()
    return [run.space.decode(genes) for genes in genes_NG[:: len(genes_NG) // count][:count]]


def scores_of(find: Find, run: Run, architectures: list[Architecture]) -> list[Score]:
    """Return the scores, after checking that each was told of once."""
    told: list[tuple[Architecture, Score]] = []
    scores = find(run, architectures, lambda architecture, score: told.append((architecture, score)))
    assert len(told) == len(set(architectures))
    assert dict(told) == dict(zip(architectures, scores, strict=True))
    return scores


def quiet(architecture: Architecture, score: Score) -> None:
    """Listen to nothing."""


# --- what a score is


def test_measured_is_what_evaluate_says(run: Run) -> None:
    for architecture, score in zip(some(run), scores_of(measured_scores, run, some(run)), strict=True):
        report = evaluate(run.path, architecture.arch_id, split="validation", schedule="one-shot")
        assert alone(score) == Score(report.accuracy, report.num_images)
        for name, found in score.measures.items():
            assert found.value == getattr(report.measures, name), name
            assert found.interval == getattr(report.measures, f"{name}_interval"), name
        assert {"balanced_accuracy", "macro_f1", "calibration_error"} == score.measures.keys()


def alone(score: Score) -> Score:
    """Return a score without what else the answers are worth."""
    return dataclasses.replace(score, measures={})


def test_clients_scores_are_those_of_all_images_in_one_place(run: Run) -> None:
    """Sums of all clients' batches, added; then one network for all that is held out, cut up by client at the end."""
    architecture, data = run.space.largest, run.data
    subnet = load_supernet(run).extract(architecture)
    collector = SumCollector(frozenset(layer.name for layer in subnet.plan.norm_layers()), BY_BATCH["batch"])
    for client in range(data.num_clients):
        own = data.train.take(data.clients[client])
        drawn = rng.generator(0, "calibration", client).permutation(len(own))[:24]
        x_NCHW = torch.from_numpy(run.preprocessing.apply(own.take(drawn).images_NHWC))
        for indices_B in batches.split(torch.arange(len(x_NCHW)), 10):
            subnet(x_NCHW[indices_B], collector)
    pooled = PooledStatistics(
        {name: ChannelSums(n, t.numpy(), s.numpy()) for name, (n, t, s) in collector.sums.items()}
    )
    together = np.concatenate(data.held_out)
    x_NCHW = torch.from_numpy(run.preprocessing.apply(data.train.images_NHWC[together]))
    answers_N = subnet(x_NCHW, FixedAffine(affines(subnet.weights, "batch", pooled))).argmax(dim=1).numpy()
    is_correct_N = answers_N == data.train.labels_N[together]
    cuts = np.cumsum([len(indices) for indices in data.held_out])[:-1]
    shares = sorted(part.mean() for part in np.split(is_correct_N, cuts) if len(part))
    assert len(shares) == 21, "three clients of two images hold none out and do not count"
    (score,) = scores_of(client_scores, run, [architecture])
    num_images = len(is_correct_N)
    assert alone(score) == Score(pytest.approx(np.mean(shares)), num_images, pytest.approx(np.mean(shares[:2])))
    recalls = [is_correct_N[data.train.labels_N[together] == label].mean() for label in range(10)]
    assert score.measures["balanced_accuracy"].value == pytest.approx(np.mean(recalls), abs=1e-6)


def test_no_image_of_the_server_takes_part_when_clients_are_asked(run: Run) -> None:
    """With other images and labels for validation and test, the clients' scores stay and the server's do not."""
    architectures = some(run)
    other = load_dataset("digits", None).test.take(np.arange(50))
    scrambled = dataclasses.replace(other, labels_N=(other.labels_N + 1) % 10)
    elsewhere = open_run(run.path)
    vars(elsewhere)["data"] = dataclasses.replace(run.data, validation=scrambled, test=scrambled)
    assert scores_of(client_scores, run, architectures) == scores_of(client_scores, elsewhere, architectures)
    assert scores_of(measured_scores, run, architectures) != scores_of(measured_scores, elsewhere, architectures)


def test_what_clients_hold_out_has_no_part_in_the_preprocessing(run: Run) -> None:
    data = run.data
    size = run.preprocessing.size
    kept = Preprocessing.fit(data.train.take(np.concatenate(data.clients)), size).for_size(size)
    assert run.preprocessing == kept != Preprocessing.fit(data.train, size).for_size(size)
    assert len(np.concatenate([*data.clients, *data.held_out])) == len(data.train)


def test_evaluate_looks_at_what_clients_hold_out(run: Run) -> None:
    (score,) = scores_of(client_scores, run, [run.space.smallest])
    clients = evaluate(run.path, "smallest", per_client=True).clients
    assert clients.images == "held out"
    assert clients.num_clients == sum(len(indices) > 0 for indices in run.data.held_out)
    assert Score(clients.accuracy_mean, clients.num_images, clients.worst_decile) == alone(score)


def with_config(run: Run, **change: Any) -> Run:
    data = run.config.data.model_copy(update=change)
    (run.path / CONFIG).write_text(dump(run.config.model_copy(update={"data": data})), encoding="utf-8")
    return open_run(run.path)


@pytest.mark.parametrize(
    ("fraction", "why"),
    [
        (0.0, "; train with --set data.client_validation_fraction=0.2"),
        (0.001, ": each has too few for data.client_validation_fraction 0.001; train with more or with fewer clients"),
    ],
)
def test_a_run_whose_clients_hold_nothing_out_is_refused(run: Run, fraction: float, why: str) -> None:
    """None at all, or less than one image each: by a search and by `evaluate` in the same words."""
    run = with_config(run, client_validation_fraction=fraction)
    expected = rf"^run brief: no client holds images out to evaluate subnets on{why}$"
    with pytest.raises(ConfigError, match=expected):
        client_scores(run, [run.space.largest], quiet)
    with pytest.raises(ConfigError, match=expected):
        evaluate(run.path, "smallest", split="held-out")


def test_without_held_out_images_evaluate_takes_those_clients_train_on(run: Run) -> None:
    clients = evaluate(with_config(run, client_validation_fraction=0.0).path, "smallest", per_client=True).clients
    assert (clients.images, clients.num_clients) == ("trained on", NUM_CLIENTS)


def test_number_of_workers_does_not_matter(run: Run) -> None:
    """Both kinds, each asked twice, which one engine serves."""
    architectures = some(run, 4)
    engine = run.config.engine.model_copy(update={"workers": 2})
    two = dataclasses.replace(run, config=run.config.model_copy(update={"engine": engine}))
    expected = {kind: scores_of(find, run, architectures) for kind, find in FINDS.items()}
    shutil.rmtree(run.path / EVALUATIONS)
    for kind, scores in expected.items():
        with open_scorer(two, kind) as score:
            found = score(architectures[:3], quiet)
            found += score(architectures[3:], quiet)
        assert found == scores


# --- what is remembered


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on, a new score is a failure."""

    def refuse(_run: Run, _log: EventLog) -> None:
        pytest.fail("an engine was opened")

    monkeypatch.setattr("fedsup_deploy.runs.federation.open_run_federation", refuse)


@pytest.mark.parametrize("kind", FINDS)
def test_what_was_found_is_not_found_again(run: Run, kind: str, request: pytest.FixtureRequest) -> None:
    architectures = some(run)
    expected = scores_of(FINDS[kind], run, architectures)
    request.getfixturevalue("no_engine")
    again = open_run(run.path)
    assert scores_of(FINDS[kind], again, architectures[::-1] * 2) == expected[::-1] * 2
    assert open_cache(again, kind).all_scores() == {
        architecture.arch_id: score for architecture, score in zip(architectures, expected, strict=True)
    }


def test_only_what_is_new_is_found_and_each_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = some(run)
    expected = scores_of(measured_scores, run, [second])
    asked: list[list[Architecture]] = []
    measure = evaluation.measure

    def watched(run: Run, engine: Any, architectures: list[Architecture]) -> Any:
        asked.append(architectures)
        return measure(run, engine, architectures)

    monkeypatch.setattr("fedsup_deploy.commands.evaluate.measure", watched)
    scores = scores_of(measured_scores, run, [first, second, first, third, second])
    assert asked == [[first, third]]
    assert (scores[0], scores[1]) == (scores[2], scores[4])
    assert scores[1] == expected[0]
    assert len((open_cache(run, "measured").path).read_text(encoding="utf-8").splitlines()) == 4


def test_a_listener_that_stops_it_loses_nothing_that_was_told(run: Run) -> None:
    """As Ctrl-C does."""
    told: list[Score] = []

    def stop(_: Architecture, score: Score) -> None:
        told.append(score)
        if len(told) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measured_scores(run, some(run), stop)
    assert list(open_cache(open_run(run.path), "measured").all_scores().values()) == told


@pytest.mark.parametrize("kind", FINDS)
def test_killed_and_asked_again_it_finds_the_same(run: Run, kind: str) -> None:
    """Killed with half a line written; what had been told of is kept."""
    architectures = some(run, 4)
    program = f"""
import os, signal, sys
from pathlib import Path
from fedsup_deploy.runs.run import open_run
from fedsup_deploy.commands.scoring import open_cache, {FINDS[kind].__name__}
run = open_run(Path(sys.argv[1]))
names = sys.argv[2:]
def told(architecture, score):
    if architecture.arch_id == names[1]:
        with open_cache(run, {kind!r}).path.open("a") as file:
            file.write('{{"arch_id": "a0')
        os.kill(os.getpid(), signal.SIGKILL)
{FINDS[kind].__name__}(run, [run.space.resolve(name) for name in names], told)
"""
    names = [architecture.arch_id for architecture in architectures]
    killed = subprocess.run([sys.executable, "-c", program, run.path, *names], check=False)
    assert killed.returncode == -signal.SIGKILL
    kept = open_cache(run, kind).all_scores()
    assert list(kept) == names[:2]
    scores = scores_of(FINDS[kind], run, architectures)
    assert list(open_cache(run, kind).all_scores().values()) == scores
    shutil.rmtree(run.path / EVALUATIONS)
    assert scores_of(FINDS[kind], open_run(run.path), architectures) == scores


def test_where_all_is_known_neither_torch_nor_an_image_is_loaded(run: Run) -> None:
    expected = scores_of(measured_scores, run, [run.space.largest])
    program = """
import sys
from pathlib import Path
from fedsup_deploy.runs.run import open_run
from fedsup_deploy.commands.scoring import measured_scores
run = open_run(Path(sys.argv[1]))
(score,) = measured_scores(run, [run.space.largest], lambda index, score: None)
print(score.accuracy, *sorted({"torch", "sklearn"} & set(sys.modules)))
"""
    ran = subprocess.run([sys.executable, "-c", program, run.path], capture_output=True, text=True, check=True)
    assert ran.stdout == f"{expected[0].accuracy}\n"


@pytest.mark.parametrize("change", ["supernet", "images", "calibration", "draw"])
def test_a_score_of_something_else_is_not_taken_for_it(run: Run, change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    measured_scores(run, [run.space.largest], quiet)
    assert len(open_cache(run, "measured")) == 1
    other = open_run(run.path)
    if change == "supernet":
        content = (run.path / SUPERNET).read_bytes()
        (run.path / SUPERNET).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif change == "images":
        vars(other)["data"] = dataclasses.replace(run.data, test=run.data.validation)
    elif change == "calibration":
        calibration = run.config.calibration.model_copy(update={"samples_per_client": 8})
        other = dataclasses.replace(run, config=run.config.model_copy(update={"calibration": calibration}))
    else:
        monkeypatch.setattr("fedsup_deploy.runs.run.CALIBRATION_DRAW", "the first")
    assert len(open_cache(other, "measured")) == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_a_supernet_that_changes_meanwhile_is_noticed(run: Run, workers: int) -> None:
    """Scores would be written down under the fingerprint of another."""
    assert run.fingerprint
    content = (run.path / SUPERNET).read_bytes()
    (run.path / SUPERNET).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    engine = run.config.engine.model_copy(update={"workers": workers})
    changed = dataclasses.replace(run, config=run.config.model_copy(update={"engine": engine}))
    vars(changed)["fingerprint"] = run.fingerprint
    with pytest.raises(ArtifactError, match=r"supernet.safetensors: has changed since it was opened; start again"):
        measured_scores(changed, [run.space.largest], quiet)
    assert len(open_cache(changed, "measured")) == 0


def test_images_that_are_not_those_remembered_are_noticed(run: Run) -> None:
    """As if they had changed between the look at their files and the reading."""
    vars(run)["data_fingerprint"] = "of others"
    expected = rf"^digits: the images changed meanwhile; start again without {run.path}/evaluations/images.jsonl$"
    with pytest.raises(DataError, match=expected):
        measured_scores(run, [run.space.largest], quiet)
    assert len(open_cache(run, "measured")) == 0


def test_a_damaged_line_is_named(run: Run) -> None:
    scores_of(measured_scores, run, some(run))
    path = open_cache(run, "measured").path
    lines = path.read_text(encoding="utf-8").splitlines()
    assert set(json.loads(lines[0])["about"]) >= {"kind", "supernet", "data", "samples_per_client", "batch_size"}
    lines[2] = lines[2][:20]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(ArtifactError, match=rf"^{path}:3: damaged: .*; remove the line$"):
        measured_scores(run, some(run), quiet)
