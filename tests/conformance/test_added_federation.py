"""A new data set, strategy and engine: each is a row and a module outside of the package, and is taken as any other."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fedsup_deploy
from fedsup_deploy import files, registry
from fedsup_deploy.commands.evaluate import evaluate
from fedsup_deploy.commands.train import train
from fedsup_deploy.config.load import load_yaml, validate
from fedsup_deploy.config.schema import TrainConfig, load_train_config
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.runs.federation import read_checkpoint, run_layout
from fedsup_deploy.runs.run import open_run

CONFIG = """
schema: 1
name: brief
space: digits
data: {dataset: digits}
partition: {kind: iid, num_clients: 4}
strategy: {name: fedsup, num_subnets: 2}
training: {rounds: 4, clients_per_round: 2, warmup_rounds: 0, checkpoint_every: 1, evaluate_every: 4}
engine: {name: local, workers: 1}
calibration: {samples_per_client: 16, schedule: one-shot}
"""
LOOKAHEAD = "strategy={name: lookahead}"


@pytest.fixture(autouse=True)
def _added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "added"))


def add(monkeypatch: pytest.MonkeyPatch, kind: str, name: str, row: str) -> None:
    monkeypatch.setitem(registry.TABLES[kind], name, row)


def config_of(folder: Path, *overrides: str) -> TrainConfig:
    (folder / "brief.yaml").write_text(CONFIG, encoding="utf-8")
    return load_train_config(folder / "brief.yaml", overrides)


def problem(folder: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        config_of(folder, *overrides)
    return str(caught.value)


def test_a_dataset_is_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From training to the accuracy of a subnet on its test images."""
    short = ("data.dataset=turned-digits", "training.rounds=1", "training.evaluate_every=1")
    assert problem(tmp_path, *short).startswith("--set data.dataset: unknown dataset 'turned-digits'")
    add(monkeypatch, "dataset", "turned-digits", "added_dataset:load_turned")
    train(config_of(tmp_path, *short), tmp_path / "run")
    run = open_run(tmp_path / "run")
    assert run.config.data.dataset == "turned-digits"
    upright = registry.resolve("dataset", "digits")(None)
    np.testing.assert_array_equal(run.data.test.images_NHWC, upright.test.images_NHWC[:, ::-1, ::-1])
    assert evaluate(run.path, "largest").num_images == len(upright.test)


def test_a_strategy_is_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With options of its own, classes of clients, clients that take no part, and a state that a resumed run needs."""
    assert "got 'lookahead', expected one of 'fedavg'" in problem(tmp_path, LOOKAHEAD)
    add(monkeypatch, "strategy", "lookahead", "added_strategy:LookaheadConfig")
    config = config_of(tmp_path, LOOKAHEAD)
    train(config, tmp_path / "whole")

    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "round" and event["round"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "resumed", listeners=(stop,))
    run = open_run(tmp_path / "whole")
    state, record = read_checkpoint(tmp_path / "resumed" / "checkpoint" / "state.safetensors", run_layout(run))
    assert record.rounds == 2
    assert state.kept.keys() == state.supernet.weights.keys()
    # What is kept decides the next round: it is what the second one ended with, and the third one ends with neither.
    assert all(tensor.equal(state.kept[name]) for name, tensor in state.supernet.weights.items())
    train(config, tmp_path / "resumed", resume=True)
    whole, resumed = (files.sha256(tmp_path / name / "supernet.safetensors") for name in ("whole", "resumed"))
    assert whole == resumed
    assert run.data.tiers == (0, 0, 1, 1)
    assert validate(load_yaml(run.path / "config.resolved.yaml"), TrainConfig) == config


def test_options_of_such_a_strategy_are_checked_as_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(monkeypatch, "strategy", "lookahead", "added_strategy:LookaheadConfig")
    assert config_of(tmp_path, LOOKAHEAD).strategy.model_dump() == {"name": "lookahead", "slow": 0.5, "skipped": 0}
    wrong = {
        "{name: lookahead, slwo: 1}": "unknown key 'slwo' in strategy of name 'lookahead'; did you mean 'slow'?",
        "{name: lookahead, slow: 0}": "strategy.slow: got 0, expected > 0",
        "{name: lookahead, slow: '1'}": "strategy.slow: got '1', expected a number",
        "{name: lookahead, num_subnets: 2}": "unknown key 'num_subnets' in strategy of name 'lookahead'",
    }
    for strategy, expected in wrong.items():
        assert problem(tmp_path, f"strategy={strategy}").startswith(f"--set strategy: {expected}")
    lacking = problem(tmp_path, "strategy={name: lookahead, skipped: 3}")
    expected = "training.clients_per_round: got 2, expected <= the clients that strategy.skipped leaves (1)"
    assert lacking == f"{tmp_path / 'brief.yaml'}:8: {expected}"


def test_an_engine_is_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which carries the jobs of every command, and changes no bit."""
    short = ("training.rounds=2", "training.evaluate_every=2")
    known = ", ".join(sorted(registry.names("engine")))
    assert problem(tmp_path, *short, "engine.name=threads").endswith(f"unknown engine 'threads'; known: {known}")
    add(monkeypatch, "engine", "threads", "added_engine:open_threads")
    train(config_of(tmp_path, *short), tmp_path / "local")
    train(config_of(tmp_path, *short, "engine.name=threads", "engine.workers=2"), tmp_path / "threads")
    here, there = (files.sha256(tmp_path / name / "supernet.safetensors") for name in ("local", "threads"))
    assert here == there
    scores = [evaluate(tmp_path / name, "smallest") for name in ("local", "threads")]
    assert scores[0].accuracy == scores[1].accuracy
    assert fedsup_deploy.search(["jetson-nano"], tmp_path / "threads", method="random", evaluations=2).results
