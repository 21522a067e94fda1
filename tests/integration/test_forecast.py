"""What rounds will send, said before anybody is asked; and a run whose clients cannot be in time is refused."""

import contextlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from timed import Timed

from fedsup_deploy import registry
from fedsup_deploy.cli.main import main
from fedsup_deploy.commands.train import train
from fedsup_deploy.commands.training_plan import plan_training
from fedsup_deploy.config.schema import TrainConfig, load_train_config
from fedsup_deploy.engines.inprocess import InProcess, perform
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.events import read_events
from fedsup_deploy.federation import encoding
from fedsup_deploy.federation.jobs.train import Train
from fedsup_deploy.federation.server import forecast as forecasts
from fedsup_deploy.federation.simulation import CLIENTS
from fedsup_deploy.runs.run import EVENTS

CONFIG = """
schema: 1
name: links
space: digits
data: {dataset: digits, validation_fraction: 0.03}
partition: {kind: iid, num_clients: 60}
strategy: {name: e-fedsup, tiers: [{architecture: smallest}, {random: true}, {architecture: largest}]}
training: {rounds: 4, clients_per_round: 3, warmup_rounds: 1, batch_size: 32, evaluate_every: 4}
engine: {name: local, workers: 1}
federation: {oversample: 0.5}
calibration: {samples_per_client: 1, batch_size: 1, schedule: one-shot, clients: 4}
"""


@pytest.fixture
def config_of(tmp_path: Path) -> Callable[..., TrainConfig]:
    def make(*overrides: str) -> TrainConfig:
        path = tmp_path / "links.yaml"
        path.write_text(CONFIG, encoding="utf-8")
        return load_train_config(path, overrides)

    return make


@pytest.mark.parametrize(
    "strategy", [(), ("strategy={name: fedsup, num_subnets: 2}",), ("strategy={name: fedavg, clients: [[3, 20]]}",)]
)
def test_the_bytes_of_a_run_are_known_beforehand(config_of: Any, strategy: tuple[str, ...], tmp_path: Path) -> None:
    """To the byte, also where subnets are drawn anew for each client and round."""
    config = config_of(*strategy)
    found = plan_training(config).forecast
    summary = train(config, tmp_path / "run")
    assert (found.bytes_down, found.bytes_up) == (summary.bytes_down, summary.bytes_up)
    per_round = sum(tier.bytes_down_per_round for tier in found.tiers)
    assert per_round * found.rounds == pytest.approx(found.bytes_down, abs=found.rounds * len(found.tiers))
    started = read_events(tmp_path / "run" / EVENTS)[0]
    assert started["forecast"] == found.to_dict()
    assert started["notes"] == []  # There is no network to speak of.


def test_where_there_are_links_the_forecast_is_told_as_training_begins(config_of: Any, tmp_path: Path) -> None:
    config = config_of(LINKS, "training.rounds=1", "training.warmup_rounds=0")
    train(config, tmp_path / "run")
    assert read_events(tmp_path / "run" / EVENTS)[0]["notes"] == [plan_training(config).forecast.words]


def test_messages_are_as_long_as_is_said(config_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest to each tier and from it, within 1 %: the pixels' mean and the losses have their digits only then."""
    monkeypatch.setitem(registry.TABLES["engine"], "timed", "timed:opened")
    config = config_of("training.class_weights=true", "training.logit_adjustment=false", "engine.name=timed")
    plan = plan_training(config)
    down, up = dict[int, int](), dict[int, int]()

    def answer(client: int, job: Any) -> Any:
        reply = perform(plan.data.populations()[CLIENTS], client, job)
        if isinstance(job, Train):
            tier = plan.infos[client].tier
            message, _ = encoding.encode_request({client: job})
            down[tier] = max(down.get(tier, 0), len(message))
            up[tier] = max(up.get(tier, 0), len(encoding.encode_replies([reply], {client: job})))
        return reply

    @contextlib.contextmanager
    def opened(make: Any, _workers: int) -> Any:
        populations = make()
        engines = {name: InProcess(each) for name, each in populations.items()}
        yield {**engines, CLIENTS: Timed(populations[CLIENTS].infos(), answer, lambda *_: 1.0)}

    monkeypatch.setattr("timed.opened", opened, raising=False)
    train(config, tmp_path / "run")
    assert len(plan.forecast.tiers) == 3
    for tier in plan.forecast.tiers:
        assert tier.message_bytes_down == pytest.approx(down[tier.tier], rel=0.01)
        assert tier.message_bytes_up == pytest.approx(up[tier.tier], rel=0.01)


def test_of_a_long_run_some_rounds_are_looked_at(config_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = plan_training(config_of("training.rounds=300")).forecast
    monkeypatch.setattr(forecasts, "_MOST_ASSIGNMENTS", 300)
    found = plan_training(config_of("training.rounds=300")).forecast
    assert (exact.rounds_looked_at, found.rounds_looked_at) == (300, 100)
    assert found.bytes_down == pytest.approx(exact.bytes_down, rel=0.1)


LINKS = "federation.links=[{down_mbit_s: 0.1, up_mbit_s: 0.05, latency_ms: 500}]"


def test_what_cannot_travel_in_time_is_refused_with_the_tier_its_bytes_and_a_cure(config_of: Any) -> None:
    """By hand: the largest tier's message and its answer, at 0.1 and 0.05 Mbit/s, and a second of latency."""
    *_, last = plan_training(config_of(LINKS)).forecast.tiers
    seconds = 8 * last.message_bytes_down / 1e5 + 8 * last.message_bytes_up / 5e4 + 1.0
    assert last.transfer_s == pytest.approx(seconds, abs=1e-3)
    with pytest.raises(ConfigError) as error:
        plan_training(config_of(LINKS, "federation.deadline_s=20"))
    assert error.value.exit_code == 2
    message = str(error.value)
    assert message.startswith("federation.deadline_s: got 20, expected at least ")
    for part in (f"tier {last.tier} is sent {last.message_bytes_down:,} bytes at 0.1 Mbit/s", f"{seconds:.1f} s"):
        assert part in message
    assert message.endswith("raise federation.deadline_s, or let strategy.tiers give it smaller subnets")
    assert plan_training(config_of(LINKS, f"federation.deadline_s={seconds + 1}")).forecast.tiers


def test_each_tier_has_its_link(config_of: Any) -> None:
    fast, slow = "{down_mbit_s: 100, up_mbit_s: 100}", "{down_mbit_s: 0.01, up_mbit_s: 0.01}"
    links = f"federation.links=[{slow}, {fast}, {fast}]"
    first, *others = plan_training(config_of(links)).forecast.tiers
    assert first.transfer_s is not None
    assert first.transfer_s > 100 * max(other.transfer_s or 0.0 for other in others)
    with pytest.raises(ConfigError, match=r"tier 0 is sent"):
        plan_training(config_of(links, "federation.deadline_s=5"))
    with pytest.raises(ConfigError, match=r"got a list of 2 entries, expected one link, or 3, one for each tier"):
        config_of(f"federation.links=[{slow}, {fast}]")


def test_a_run_that_too_few_could_evaluate_is_refused_before_it_begins(config_of: Any) -> None:
    """Devices of a thin link train small subnets in time, and would not have the largest in time.

    By hand: four of the 60 clients evaluate, and half of them must.
    """
    fast, slow = "{down_mbit_s: 100, up_mbit_s: 100}", "{down_mbit_s: 0.1, up_mbit_s: 0.1}"
    layout = plan_training(config_of()).layout
    size = 4 * sum(math.prod(shape) for shape in layout.shapes.values())
    seconds = 8 * size / 1e5
    ours = ("strategy={name: fedavg, architecture: smallest}", "data.server_images=false", "federation.quorum=0.5")

    def refused(link: str, deadline_s: float, *more: str) -> str | None:
        links = (f"federation.links=[{link}]", f"federation.deadline_s={deadline_s}")
        try:
            plan_training(config_of(*ours, *links, *more))
        except ConfigError as error:
            return str(error)
        return None

    told = refused(slow, seconds - 1)
    assert told is not None
    expected = f"expected at least {math.ceil(seconds)}: an evaluation sends devices the largest subnet, {size:,} bytes"
    assert expected in told
    assert "which 0 of 4 get in time, 2 must; " in told
    assert refused(slow, seconds + 1) is None
    assert refused(fast, seconds - 1) is None
    assert refused(slow, seconds - 1, "data.server_images=true") is None


def test_the_command_says_it_and_asks_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("links.yaml").write_text(CONFIG, encoding="utf-8")
    assert main(["train", "--config", "links.yaml", "--dry-run", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [tier["tier"] for tier in document["tiers"]] == [0, 1, 2]
    assert document["asked_per_round"] == 5
    assert [path.name for path in tmp_path.iterdir()] == ["links.yaml"]
    slow = [LINKS, "federation.deadline_s=20"]
    assert main(["train", "--config", "links.yaml", *(f"--set={each}" for each in slow)]) == 2
    assert "federation.deadline_s: got 20, expected at least" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["links.yaml"]
