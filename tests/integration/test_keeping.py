"""`training.keep`: the run ends with the best supernet that was evaluated, however often it was interrupted."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedsup_deploy.artifact import weights
from fedsup_deploy.commands.evaluate import evaluate
from fedsup_deploy.commands.train import train
from fedsup_deploy.commands.training_summary import Trained
from fedsup_deploy.config.schema import load_train_config
from fedsup_deploy.errors import ArtifactError, ConfigError
from fedsup_deploy.events import read_events
from fedsup_deploy.federation.client import Client
from fedsup_deploy.federation.jobs.train import ClientUpdate, Train
from fedsup_deploy.runs.run import BEST, CHECKPOINT, EVENTS, SUPERNET

CONFIG = """
schema: 1
name: small
space: digits
data: {dataset: digits}
partition: {kind: iid, num_clients: 12}
strategy: {name: e-fedsup, tiers: [{architecture: smallest}, {architecture: largest}]}
training: {rounds: 4, clients_per_round: 3, warmup_rounds: 0, batch_size: 16, evaluate_every: 1, checkpoint_every: 9}
averaging: {max_norm: null} # Who forgets all moves too far.
engine: {name: local, workers: 1}
calibration: {samples_per_client: 8, batch_size: 8, schedule: one-shot}
"""
BEST_OF_EACH = "training.keep=best"
#: Step sizes of the four rounds are 0.1, 0.085, 0.05 and 0.015.
LEAST_GOOD_RATE = 0.06

Event = dict[str, Any]
TrainIn = Callable[..., Trained]


@pytest.fixture
def train_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainIn:
    """Train with clients that forget all they know in the last two rounds."""
    (tmp_path / "small.yaml").write_text(CONFIG, encoding="utf-8")
    perform = Train.perform

    def forget(job: Train, client: Client) -> ClientUpdate:
        update = perform(job, client)
        if job.learning_rate > LEAST_GOOD_RATE:
            return update
        return dataclasses.replace(update, weights={n: torch.zeros_like(t) for n, t in update.weights.items()})

    monkeypatch.setattr(Train, "perform", forget)

    def call(run: str, *overrides: str, **options: Any) -> Trained:
        return train(load_train_config(tmp_path / "small.yaml", overrides), tmp_path / run, **options)

    return call


def stop_at(kind: str, round_index: int) -> Callable[[Event], None]:
    """Return a listener that interrupts at an event."""

    def listener(event: Event) -> None:
        if (event["event"], event.get("round")) == (kind, round_index):
            raise KeyboardInterrupt

    return listener


def test_the_run_ends_with_the_best_and_says_which_it_is(train_in: TrainIn, tmp_path: Path) -> None:
    found = train_in("best", BEST_OF_EACH)
    means = [
        (event["accuracy_largest"] + event["accuracy_smallest"]) / 2
        for event in read_events(tmp_path / "best" / EVENTS)
        if event["event"] == "evaluation"
    ]
    kept_after = 1 + means.index(max(means))
    assert kept_after <= 2
    assert (found.rounds, found.kept_after) == (4, kept_after)
    assert (found.accuracy.largest + found.accuracy.smallest) / 2 == max(means)
    arrays, document = weights.read_arrays(tmp_path / "best" / SUPERNET, "supernet")
    assert (document["rounds"], document["accuracy"]) == (kept_after, max(means))

    with pytest.raises(KeyboardInterrupt):
        train_in("last", listeners=(stop_at("round", kept_after),))
    expected, _ = weights.read_arrays(tmp_path / "last" / CHECKPOINT, "checkpoint")
    assert arrays.keys() == expected.keys()
    assert all(np.array_equal(array, expected[name]) for name, array in arrays.items())
    assert evaluate(tmp_path / "best", "largest").accuracy > 0.15


def test_the_last_is_kept_where_nothing_is_said(train_in: TrainIn, tmp_path: Path) -> None:
    assert train_in("run").kept_after is None
    assert not (tmp_path / "run" / BEST).exists()
    _, document = weights.read_arrays(tmp_path / "run" / SUPERNET, "supernet")
    assert document.keys() == {"schema", "kind", "space_hash", "normalization"}
    assert evaluate(tmp_path / "run", "largest").accuracy < 0.15


def test_interrupted_anywhere_it_ends_in_the_same_bytes(train_in: TrainIn, tmp_path: Path) -> None:
    """Also after the best was written and before its round counts, and with checkpoints that lie before it."""
    train_in("whole", BEST_OF_EACH)
    stops = [("evaluation", 0), ("round", 1), ("evaluation", 1), ("evaluation", 2), ("evaluation", 3)]
    for number, (kind, index) in enumerate(stops):
        name = f"run-{number}"
        with pytest.raises(KeyboardInterrupt):
            train_in(name, BEST_OF_EACH, listeners=(stop_at(kind, index),))
        train_in(name, BEST_OF_EACH, resume=True)
        for file in (SUPERNET, BEST):
            assert (tmp_path / name / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_what_decides_the_best_may_not_change(train_in: TrainIn, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_in("run", BEST_OF_EACH, listeners=(stop_at("round", 2),))
    for other in ((), (BEST_OF_EACH, "training.evaluate_every=2")):
        with pytest.raises(
            ConfigError, match=r"training\.keep is .*the run was started with \"best, evaluate_every 1\""
        ):
            train_in("run", *other, resume=True)
    (tmp_path / "run" / BEST).unlink()
    with pytest.raises(ArtifactError, match=r"no checkpoint at .*best\.safetensors"):
        train_in("run", BEST_OF_EACH, resume=True)
