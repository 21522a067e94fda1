"""Every shipped training config: it loads, says what it costs and brings, and everything it names can be made."""

import re
from pathlib import Path

import pytest

from fedsup_deploy import registry, resources
from fedsup_deploy.commands.training_plan import make_strategy
from fedsup_deploy.config.load import dump, load_yaml, validate
from fedsup_deploy.config.schema import TrainConfig, load_train_config
from fedsup_deploy.federation.client import ClientInfo
from fedsup_deploy.federation.simulation import tiers_by_index
from fedsup_deploy.runs.run import load_space

CONFIGS = resources.shipped_names("configs")


def opening(path: Path) -> str:
    """Return the comment a file begins with."""
    lines = path.read_text(encoding="utf-8").splitlines()
    count = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    return "\n".join(line.removeprefix("#").strip() for line in lines[:count])


def test_there_are_configs():
    assert "digits" in CONFIGS


@pytest.mark.parametrize("name", CONFIGS)
def test_it_loads_and_is_called_like_its_file(name):
    config = load_train_config(name)
    assert config.name == name
    assert config.training.rounds >= config.training.evaluate_every


@pytest.mark.parametrize("name", CONFIGS)
def test_it_is_the_same_after_being_written_down(name, tmp_path):
    config = load_train_config(name)
    (tmp_path / "again.yaml").write_text(dump(config), encoding="utf-8")
    assert validate(load_yaml(tmp_path / "again.yaml"), TrainConfig) == config


@pytest.mark.parametrize("name", CONFIGS)
def test_its_space_and_its_strategy_can_be_made(name):
    """A strategy that cannot be made would be found only after the images were read; so would tiers nothing is in."""
    config = load_train_config(name)
    space = load_space(config)
    strategy = make_strategy(config, space)
    # Of clients as they are there may be any number.
    num_clients = config.partition.stated_clients or 7
    tiers = tiers_by_index(num_clients, config.strategy.num_tiers)
    cohort = [ClientInfo(client, 10, tier=tier) for client, tier in enumerate(tiers)]
    plan = strategy.plan(config.training.rounds - 1, cohort, config.seed)
    assert sorted(plan) == list(range(num_clients))
    for assignment in plan.values():
        assert (
            assignment.architecture is None
            or space.decode(space.encode(assignment.architecture)) == assignment.architecture
        )


@pytest.mark.parametrize("name", CONFIGS)
def test_it_asks_for_images_unless_they_are_bundled(name):
    """A shipped config cannot know where somebody's images are."""
    config = load_train_config(name)
    assert config.data.dataset in registry.names("dataset")
    assert config.data.root is None


@pytest.mark.parametrize("name", CONFIGS)
def test_it_opens_with_command_time_and_score(name):
    comment = opening(resources.find("configs", name))
    assert f"fedsup-deploy train --config {name}" in comment
    assert re.search(r"\d+ (s|seconds|minutes?|hours?)\b", comment), "the expected time"
    assert re.search(r"\d+(\.\d+)? ?%|\b0\.\d+", comment), "the expected score"
