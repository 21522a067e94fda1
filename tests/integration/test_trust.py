"""Clients that poison what they send, through whole runs: each is rejected and told, or outvoted, and runs end well.

The faults are injected between the server and its clients (`benchmarks/faults.py`). `benchmarks/robustness.py` does so
in runs that are long enough to tell what is lost.
"""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faults import ENGINE, FAULTS, REJECTED, UNNOTICED, Injection, injected

from fedsup_deploy import files, registry
from fedsup_deploy.commands.evaluate import evaluate
from fedsup_deploy.commands.train import train
from fedsup_deploy.commands.training_summary import Trained
from fedsup_deploy.config.schema import load_train_config
from fedsup_deploy.errors import FederationError
from fedsup_deploy.events import read_events
from fedsup_deploy.runs.federation import read_checkpoint, run_layout
from fedsup_deploy.runs.run import CHECKPOINT, EVENTS, SUPERNET, open_run

CONFIG = """
schema: 1
name: distrustful
space: digits
data: {dataset: digits, validation_fraction: 0.03}
partition: {kind: iid, num_clients: 40}
strategy: {name: e-fedsup, tiers: [{architecture: smallest}, {random: true}, {architecture: largest}]}
training: {rounds: 3, clients_per_round: 10, warmup_rounds: 1, batch_size: 8, checkpoint_every: 1, evaluate_every: 3}
engine: {name: local, workers: 1}
calibration: {samples_per_client: 1, batch_size: 1, schedule: one-shot}
"""
ROUNDS, ASKED, AT_FAULT = 3, 10, 3
DEFENDED = ("averaging.clip_norm=2", "averaging.trim=0.3")
#: In the words of events.
REASONS = {
    "NaN": "is not finite",
    "more images": "more images than it has announced",
    "more steps": "more multiply-accumulates than its images take",
    "times 100": "its update has moved more than 10 times as far as usual",
    "noise": "its update has moved more than 10 times as far as usual",
}

Run = Callable[..., tuple[Trained, Injection]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Train with faults; return the summary and what was done."""
    (tmp_path / "distrustful.yaml").write_text(CONFIG, encoding="utf-8")

    def play(name: str, kinds: tuple[str, ...], *overrides: str, share: float = 0.3, **options: Any):
        with injected(kinds, share) as injection:
            settings = load_train_config(tmp_path / "distrustful.yaml", [f"engine.name={ENGINE}", *overrides])
            return train(settings, tmp_path / name, **options), injection

    return play


@pytest.fixture
def injectable():
    """Let configs name the engine of runs that are read after they were trained."""
    with injected(("fails",), 0.0):
        yield


def test_all_that_can_be_told_are_rejected_and_leave_no_trace(run: Run, tmp_path: Path) -> None:
    """The supernet is, to the byte, that of a run in which the same clients fail."""
    failed, _ = run("fails", ("fails",), *DEFENDED)
    assert (failed.updates.asked, failed.updates.used) == (ROUNDS * ASKED, ROUNDS * (ASKED - AT_FAULT))
    assert (failed.updates.rejected, failed.updates.absent) == (0, ROUNDS * AT_FAULT)
    for kind in REJECTED:
        trained, injection = run(kind, (kind,), *DEFENDED)
        events = read_events(trained.run / EVENTS)
        rejections = [event for event in events if event["event"] == "rejected"]
        assert [(kind, event["client"]) for event in rejections] == injection.done != []
        assert Counter(event["round"] for event in rejections) == dict.fromkeys(range(ROUNDS), AT_FAULT)
        assert all(str(event["reason"]).endswith(REASONS[kind]) for event in rejections), rejections
        for event in (event for event in events if event["event"] == "round"):
            told = {str(each["client"]): each["reason"] for each in rejections if each["round"] == event["round"]}
            assert event["absent"] == told
            assert event["rejected"] == [int(client) for client in told]
        assert (trained.updates.rejected, trained.updates.absent) == (ROUNDS * AT_FAULT, 0)
        assert files.sha256(tmp_path / kind / SUPERNET) == files.sha256(tmp_path / "fails" / SUPERNET), kind


def test_who_is_silent_is_absent(run: Run) -> None:
    trained, injection = run("silent", ("silent",))
    assert (trained.updates.rejected, trained.updates.absent) == (0, len(injection.done))
    assert not [event for event in read_events(trained.run / EVENTS) if event["event"] == "rejected"]


@pytest.mark.usefixtures("injectable")
def test_too_many_rejections_end_a_run_as_too_few_answers_do(run: Run, tmp_path: Path) -> None:
    message = r"^training in round 2: 4 of 10 clients answered, 5 must \(client \d+: tensor .* is not finite\)"
    with pytest.raises(FederationError, match=message):
        run("few", ("NaN",), share=0.6)
    (told,) = (event for event in read_events(tmp_path / "few" / EVENTS) if event["event"] == "absences")
    assert len(told["absent"]) == 6


@pytest.mark.usefixtures("injectable")
def test_an_interrupted_run_ends_in_the_same_bytes(run: Run, tmp_path: Path) -> None:
    """What updates are compared with is part of the checkpoint: shortened to the usual norm, most show it."""
    settings = ("averaging.clip_norm=1", "averaging.trim=0.2")

    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "round" and event["round"] == 2:
            raise KeyboardInterrupt

    run("whole", tuple(FAULTS), *settings)
    with pytest.raises(KeyboardInterrupt):
        run("resumed", tuple(FAULTS), *settings, listeners=(stop,))
    state, record = read_checkpoint(tmp_path / "resumed" / CHECKPOINT, run_layout(open_run(tmp_path / "whole")))
    assert record.rounds == len(state.norms) == 2
    assert all(AT_FAULT <= len(norms) <= ASKED for norms in state.norms)
    run("resumed", tuple(FAULTS), *settings, resume=True)
    assert files.sha256(tmp_path / "resumed" / SUPERNET) == files.sha256(tmp_path / "whole" / SUPERNET)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", registry.names("strategy"))
def test_every_strategy_has_the_same_defences(strategy: str, run: Run, tmp_path: Path) -> None:
    """A trimmed mean makes other weights, and who is rejected leaves no trace."""
    options = ", tiers: [{architecture: smallest}, {architecture: largest}]" if strategy == "e-fedsup" else ""
    short = (f"strategy={{name: {strategy}{options}}}", "training.rounds=2", "training.evaluate_every=2")
    for kind in ("fails", "times 100"):
        trained, injection = run(kind, (kind,), *short, *DEFENDED)
        assert trained.updates.used == 2 * (ASKED - AT_FAULT)
        assert len(injection.done) == 2 * AT_FAULT
    run("mean", ("fails",), *short)
    hashes = {name: files.sha256(tmp_path / name / SUPERNET) for name in ("fails", "times 100", "mean")}
    assert hashes["fails"] == hashes["times 100"] != hashes["mean"]


@pytest.mark.slow
@pytest.mark.usefixtures("injectable")
def test_what_averaging_alone_loses_the_defences_keep(run: Run) -> None:
    """Three of ten clients are at fault in each round, half of them unnoticed by any check."""
    settings = ("strategy={name: fedavg, architecture: smallest}", "training.rounds=8", "training.local_epochs=2")
    settings += ("training.evaluate_every=8", "partition.num_clients=10")
    settings += ("calibration.samples_per_client=64", "calibration.batch_size=64")
    kinds = (*UNNOTICED, "times 100", "noise")
    accuracies = {}
    for name, faults, of_averaging in (
        ("clean", (), ()),
        ("plain", kinds, ("averaging.max_norm=null",)),
        ("defended", kinds, DEFENDED),
    ):
        trained, _ = run(name, faults, *settings, *of_averaging, share=0.3 if faults else 0.0)
        accuracies[name] = evaluate(trained.run, "smallest").accuracy
    assert accuracies["clean"] > 0.95, accuracies
    assert accuracies["defended"] > accuracies["clean"] - 0.02, accuracies
    assert accuracies["plain"] < accuracies["clean"] - 0.05, accuracies
