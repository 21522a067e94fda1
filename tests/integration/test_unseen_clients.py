"""Who is asked for what by all commands, where clients are as they are and some of them are unseen."""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import fedsup_deploy
from fedsup_deploy import registry
from fedsup_deploy.cli.main import main
from fedsup_deploy.commands.evaluate import evaluate
from fedsup_deploy.commands.export import Exported, ExportRequest, export
from fedsup_deploy.commands.fit_accuracy import fit_accuracy
from fedsup_deploy.commands.train import train
from fedsup_deploy.config.schema import load_train_config
from fedsup_deploy.data.dataset import load_dataset
from fedsup_deploy.engines.inprocess import InProcess
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.federation.client import TESTED, ClientId, ClientInfo
from fedsup_deploy.federation.messages import Engine, Job, Reply
from fedsup_deploy.federation.simulation import CLIENTS, UNSEEN, Population
from fedsup_deploy.runs.run import open_run

CONFIG = """
schema: 1
name: mine
space: digits
data: {dataset: npz, root: set.npz}
partition: {kind: natural, unseen: [c1, c4]}
strategy: {name: e-fedsup, tiers: [{architecture: smallest}, {architecture: largest}]}
training: {rounds: 2, warmup_rounds: 0}
engine: {name: recording}
calibration: {samples_per_client: 16}
"""
#: Clients with test images of their own: one that takes part, and one that does not.
TESTING, NUM_TESTED = ("c0", "c1"), 30


class Asked(NamedTuple):
    population: str
    client: str
    images: str | None
    """Which of its images, where a job says so."""


ASKED: list[Asked] = []


@contextlib.contextmanager
def open_recording(make: Callable[[], Mapping[str, Population]], workers: int) -> Iterator[dict[str, Engine]]:
    """An engine that remembers who was asked for what."""
    yield {name: Recording(name, population) for name, population in make().items()}


class Recording(InProcess):
    def __init__(self, name: str, population: Population) -> None:
        super().__init__(population)
        self._name = name

    def ask(self, jobs: Mapping[ClientId, Job[Any]], deadline_s: float | None = None) -> Iterator[Reply[Any]]:
        for client, job in jobs.items():
            ASKED.append(Asked(self._name, f"c{client}", getattr(job, "images", None)))
        return super().ask(jobs, deadline_s)


@pytest.fixture(autouse=True)
def _recording(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.TABLES["engine"], "recording", f"{__name__}:open_recording")
    ASKED.clear()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six clients with 100 digits each, two of them unseen; what was asked for in training is checked on the way."""
    folder = tmp_path_factory.mktemp("mine")
    digits = load_dataset("digits", None)
    assert digits.test is not None
    train_images, test_images = digits.train.take(np.arange(600)), digits.test.take(np.arange(2 * NUM_TESTED))
    np.savez(
        folder / "set.npz",
        train_images=train_images.images_NHWC,
        train_labels=train_images.labels_N,
        train_clients=[f"c{number % 6}" for number in range(600)],
        test_images=test_images.images_NHWC,
        test_labels=test_images.labels_N,
        test_clients=np.repeat(TESTING, NUM_TESTED),
    )
    (folder / "mine.yaml").write_text(CONFIG, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.TABLES["engine"], "recording", f"{__name__}:open_recording")
        ASKED.clear()
        train(load_train_config(folder / "mine.yaml"), folder / "run")
    check_only_who_takes_part(ASKED)
    return folder / "run"


def check_only_who_takes_part(asked: Sequence[Asked]) -> None:
    assert {each.population for each in asked} == {CLIENTS}
    assert {each.client for each in asked} == {"c0", "c2", "c3", "c5"}
    assert TESTED not in {each.images for each in asked}


def exported(run: Path, out: Path) -> Exported:
    return export(
        ExportRequest(
            run, "largest", None, ("raspberry-pi-4",), formats=("onnx",), precisions=("fp32", "int8"), out=out
        )
    )


COMMANDS: dict[str, Callable[[Path, Path], object]] = {
    "search": lambda run, _: fedsup_deploy.search(["jetson-nano"], run, method="random", evaluations=3),
    "fit-accuracy": lambda run, _: fit_accuracy(run, evaluations=20),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_asks_unseen_clients_or_for_test_images(run: Path, tmp_path: Path, command: str) -> None:
    COMMANDS[command](run, tmp_path)
    check_only_who_takes_part(ASKED)


def test_evaluate_asks_for_test_images_and_unseen_clients_at_last(run: Path) -> None:
    report = evaluate(run, "largest")
    assert {each.client for each in ASKED if each.population == UNSEEN} == {"c1", "c4"}
    assert {each.client for each in ASKED if each.images == TESTED} == set(TESTING)
    assert report.clients is not None
    assert (report.clients.images, report.clients.num_clients, report.clients.num_images) == ("tested", 1, NUM_TESTED)
    assert report.unseen is not None
    # All that an unseen client has: its 100 images for training, and test images.
    assert (report.unseen.num_clients, report.unseen.num_images) == (2, 200 + NUM_TESTED)


def test_a_bundle_quotes_test_images_of_clients_that_nothing_was_chosen_by(
    run: Path, tmp_path: Path, capsys: Any
) -> None:
    report = evaluate(run, "largest")
    ASKED.clear()
    (bundle,) = exported(run, tmp_path).bundles
    # Of those that take part, and of these only for the figures.
    assert {each.population for each in ASKED} == {CLIENTS}
    assert {each.client for each in ASKED if each.images == TESTED} == {"c0"}
    assert (bundle.split, bundle.num_images, bundle.accuracy) == ("tested", NUM_TESTED, report.accuracy)
    assert bundle.int8_drop is not None
    assert bundle.int8_drop.split == "held-out", "that it is kept is a choice"
    assert round(bundle.int8_accuracy * NUM_TESTED, 6).is_integer()
    manifest = json.loads((bundle.folder / "manifest.json").read_text(encoding="utf-8"))
    assert (manifest["accuracy"]["split"], manifest["accuracy"]["num_samples"]) == ("tested", NUM_TESTED)
    card = (bundle.folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "- It was evaluated on test images of the clients' own, which no subnet is chosen by." in card.splitlines()


def test_evaluate_prefers_test_images_of_clients_where_the_server_has_none(run: Path, capsys: Any) -> None:
    """Subnets are chosen by what clients hold out."""
    report = evaluate(run, "largest")
    assert (report.split, report.num_images) == ("tested", NUM_TESTED)
    assert report.clients is not None
    assert report.accuracy == report.clients.accuracy_mean, "of one client"
    assert evaluate(run, "largest", split="held-out").num_images > NUM_TESTED
    with pytest.raises(ConfigError, match=r"the server has no test images; evaluate with --split tested$"):
        evaluate(run, "largest", split="test")
    assert main(["evaluate", str(run), "--arch", "largest"]) == 0
    assert "Evaluated on test images of the clients' own: the server has none." in capsys.readouterr().out.splitlines()
    assert main(["evaluate", str(run), "--arch", "largest", "--split", "held-out"]) == 0
    assert "Evaluated on what clients hold out, which subnets are chosen by." in capsys.readouterr().out.splitlines()


def test_evaluate_tells_of_each_client_where_that_is_asked_for(run: Path, capsys: Any) -> None:
    assert "each" not in json.dumps(evaluate(run, "largest").to_dict())
    report = evaluate(run, "largest", per_client=True)
    assert report.clients is not None
    assert report.unseen is not None
    for over, names, num_images in (
        (report.clients, ["c0"], [NUM_TESTED]),
        (report.unseen, ["c1", "c4"], [100 + NUM_TESTED, 100]),
    ):
        assert over.each is not None
        assert [each.name for each in over.each] == names
        assert [each.num_images for each in over.each] == num_images
        assert [each.accuracy for each in over.each] == [each.num_right / each.num_images for each in over.each]
        assert np.mean([each.accuracy for each in over.each]) == pytest.approx(over.accuracy_mean)
        assert min(each.accuracy for each in over.each) == over.worst_decile
        assert all(each.interval[0] <= each.accuracy <= each.interval[1] for each in over.each)
    assert main(["evaluate", str(run), "--arch", "largest", "--per-client"]) == 0
    lines = capsys.readouterr().out.splitlines()
    start = lines.index("Each client, test images of their own:") + 3
    assert lines[start].split()[:2] == ["c0", str(NUM_TESTED)]
    start = lines.index("Each unseen client, all images:") + 3
    assert report.unseen.each is not None
    worst_first = sorted(report.unseen.each, key=lambda each: each.accuracy)
    assert [line.split()[0] for line in lines[start : start + 2]] == [each.name for each in worst_first]


def test_the_figure_of_unseen_clients_is_that_of_their_images(run: Path, tmp_path: Path) -> None:
    """Found again from the pixels of each."""
    opened = open_run(run)
    population = opened.data.populations()[UNSEEN]
    report = evaluate(run, "largest")
    artifact = fedsup_deploy.load_artifact(exported(run, tmp_path).bundles[0].folder)
    shares = []
    for info in population.infos():
        kinds = [population.client(info.client).images(kind) for kind in ("trained", "tested") if info.num_images(kind)]
        right = [artifact.predict(images.images_NHWC).argmax(axis=1) == images.labels_N for images in kinds]
        shares.append(float(np.concatenate(right).mean()))
    assert report.unseen is not None
    assert report.unseen.accuracy_mean == pytest.approx(np.mean(shares))
    assert report.unseen.worst_decile == pytest.approx(min(shares))


def infos_of(run: Path) -> Sequence[ClientInfo]:
    return open_run(run).data.populations()[UNSEEN].infos()


def test_an_unseen_client_that_fails_is_absent_and_not_counted(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = infos_of(run)[1].client

    def ask(
        self: Recording, jobs: Mapping[ClientId, Job[Any]], deadline_s: float | None = None
    ) -> Iterator[Reply[Any]]:
        for reply in InProcess.ask(self, jobs, deadline_s):
            is_failing = self._name == UNSEEN and reply.client == failing
            yield Reply(reply.client, None, "gone") if is_failing else reply

    monkeypatch.setattr(Recording, "ask", ask)
    told: list[dict[str, Any]] = []
    report = evaluate(run, "largest", listeners=(told.append,))
    assert report.unseen is not None
    assert (report.unseen.num_clients, report.unseen.num_images) == (1, 100 + NUM_TESTED)
    (absence,) = [event for event in told if event["event"] == "absences"]
    assert (absence["what"], absence["absent"]) == ("evaluation by unseen clients", {str(failing): "gone"})
    assert absence["absent_names"] == {str(failing): f"c{failing}"}
