"""A run warns within three rounds of a fault, and never without one: federations on digits, some of them spoilt."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedsup_deploy import registry
from fedsup_deploy.commands.train import train
from fedsup_deploy.config.schema import load_train_config
from fedsup_deploy.data.dataset import load_dataset
from fedsup_deploy.engines.inprocess import InProcess
from fedsup_deploy.events import read_events
from fedsup_deploy.federation.client import ClientId, ClientInfo
from fedsup_deploy.federation.jobs.train import ClientUpdate, Train
from fedsup_deploy.federation.messages import Engine, Job, Reply
from fedsup_deploy.federation.server.health import WINDOW, TierStarved
from fedsup_deploy.federation.simulation import Population
from fedsup_deploy.run_events import Round
from fedsup_deploy.runs.run import EVENTS, SUPERNET
from fedsup_deploy.supernet import slices as rule

#: The round that a fault begins in.
ONSET = 3
NUM_CLIENTS = 8
SPACE = """
schema: 1
name: tiny
family: mobilenet
resolutions: [8]
stem: {widths: [8, 16], kernel_size: 3, stride: 1}
stages:
  - {name: a, widths: [16, 24], depths: [1, 2], kernel_sizes: [3, 5], stride: 1}
  - {name: b, widths: [24, 32], depths: [1], kernel_sizes: [3, 5], stride: 2}
"""
CONFIG = f"""
schema: 1
name: tiny
space: tiny_space.yaml
data: {{dataset: digits, augmentation: {{crop_padding: 1}}, validation_fraction: 0.5}}
partition: {{kind: dirichlet, num_clients: {NUM_CLIENTS}, beta: 0.5, min_samples: 8}}
strategy: {{name: e-fedsup, smallest_first: 0, tiers: [{{architecture: smallest}}, {{architecture: largest}}]}}
training:
  rounds: {ONSET + WINDOW}
  warmup_rounds: 1
  batch_size: 16
  learning_rate: 0.1
  local_epochs: 2
  evaluate_every: 1
federation: {{quorum: 0.2}}
engine: {{workers: 1}}
calibration: {{samples_per_client: 16, schedule: one-shot}}
"""

Event = dict[str, Any]
Play = Callable[..., list[Event]]
#: From the round, the client, its job and its update to the update that the server gets, or the reason why none.
Fault = Callable[[int, ClientInfo, Train, ClientUpdate], ClientUpdate | str]


class Spoilt(InProcess):
    """An engine whose clients have a fault."""

    def __init__(self, population: Population, fault: Fault) -> None:
        super().__init__(population)
        self._fault, self._round = fault, -1

    def ask(self, jobs: Mapping[ClientId, Job[Any]], deadline_s: float | None = None) -> Iterator[Reply[Any]]:
        infos = {info.client: info for info in self.clients()}
        self._round += any(isinstance(job, Train) for job in jobs.values())
        for reply in super().ask(jobs, deadline_s):
            job, value = jobs[reply.client], reply.value
            if isinstance(job, Train) and isinstance(value, ClientUpdate):
                value = self._fault(self._round, infos[reply.client], job, value)
            yield Reply(reply.client, None, value) if isinstance(value, str) else Reply(reply.client, value)


def opening(fault: Fault) -> Callable[..., contextlib.AbstractContextManager[dict[str, Engine]]]:
    """Return an engine of the registry, whose clients have a fault."""

    def open_spoilt(make: Callable[[], Mapping[str, Population]], _workers: int) -> Any:
        return contextlib.nullcontext({name: Spoilt(population, fault) for name, population in make().items()})

    return open_spoilt


def poisoned(index: int, info: ClientInfo, job: Train, update: ClientUpdate) -> ClientUpdate | str:
    """Every other client sends the opposite of what it has learned, four times as far."""
    if index < ONSET or info.client % 2:
        return update
    sent = job.weights.tensors
    return dataclasses.replace(
        update, weights={name: sent[name] - 4 * (tensor - sent[name]) for name, tensor in update.weights.items()}
    )


def without_tier_1(index: int, info: ClientInfo, _job: Train, update: ClientUpdate) -> ClientUpdate | str:
    return "battery" if index >= ONSET and info.tier == 1 else update


def always_without_tier_1(_index: int, info: ClientInfo, _job: Train, update: ClientUpdate) -> ClientUpdate | str:
    return "battery" if info.tier == 1 else update


def smallest_as_sent(index: int, _info: ClientInfo, job: Train, update: ClientUpdate) -> ClientUpdate | str:
    """What the smallest subnet has of the weights comes back as it was sent."""
    if index < ONSET or job.assignment.architecture is None:
        return update
    sent = job.layout.slices(job.assignment.architecture)
    weights = {name: tensor.clone() for name, tensor in update.weights.items()}
    for name, index_of_part in rule.within(sent, job.layout.slices(job.layout.space.smallest)).items():
        weights[name][index_of_part] = job.weights.tensors[name][index_of_part]
    return dataclasses.replace(update, weights=weights)


open_poisoned, open_as_sent = opening(poisoned), opening(smallest_as_sent)
open_without_tier_1, open_always_without_tier_1 = opening(without_tier_1), opening(always_without_tier_1)


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    """Train, with changes of the settings; return the events."""
    (tmp_path / "tiny_space.yaml").write_text(SPACE, encoding="utf-8")
    (tmp_path / "tiny.yaml").write_text(CONFIG, encoding="utf-8")
    for name in ("poisoned", "as_sent", "without_tier_1", "always_without_tier_1"):
        monkeypatch.setitem(registry.TABLES["engine"], name, f"{__name__}:open_{name}")

    def call(*overrides: str, run: str = "run", **options: Any) -> list[Event]:
        train(load_train_config(tmp_path / "tiny.yaml", overrides), tmp_path / run, **options)
        return read_events(tmp_path / run / EVENTS)

    return call


def warnings_of(events: Sequence[Event]) -> dict[str, int]:
    """Return the round of each warning by its kind; there is one of a kind at most."""
    found = [(event["kind"], event["round"]) for event in events if event["event"] == "health"]
    assert len(dict(found)) == len(found)
    return dict(found)


@pytest.mark.parametrize("partition", ["iid", "dirichlet, beta: 0.5"])
def test_clients_that_send_the_opposite_of_what_they_learned(partition: str, play: Play) -> None:
    events = play("engine.name=poisoned", f"partition={{kind: {partition}, num_clients: {NUM_CLIENTS}}}")
    warned = warnings_of(events)
    assert list(warned) == ["average-behind"]
    assert warned["average-behind"] < ONSET + WINDOW


def test_a_tier_that_nobody_answers_of(play: Play) -> None:
    """Which alone held the larger subnets: both are said, in the third round without it, and no more."""
    events = play("engine.name=without_tier_1", f"training.rounds={ONSET + WINDOW + 2}")
    last = ONSET + WINDOW - 1
    assert warnings_of(events) == {"no-holder": last, "tier-starved": last}
    found = {event["kind"]: event for event in events if event["event"] == "health"}
    assert found["tier-starved"]["figures"] == {"tier": 1, "asked": 12, "answered": 0}
    assert "0 of 12 updates came in 3 rounds (client 4: battery)" in found["tier-starved"]["words"]
    assert found["no-holder"]["figures"]["share"] == pytest.approx(0.668, abs=0.001)


def test_a_tier_that_answers_again_was_starved_until_then() -> None:
    """In the third round nobody of it is absent; what is told is the last reason."""
    starved = TierStarved({client: ClientInfo(client, 8, tier=1) for client in range(3)})
    asked = [([0, 1, 2], {"0": "battery", "1": "battery", "2": "no network"})] * 2 + [([0], {})]
    found = [list(starved.after_round(Round.model_construct(clients=who, absent=absent))) for who, absent in asked]
    (finding,) = found[-1]
    assert "tier 1: 1 of 7 updates came in 3 rounds (client 0: battery)" in finding.words


def test_a_tier_that_nobody_answers_of_while_others_hold_the_same(play: Play) -> None:
    tiers = "strategy.tiers=[{architecture: largest}, {architecture: largest}]"
    assert list(warnings_of(play("engine.name=without_tier_1", tiers))) == ["tier-starved"]


def test_weights_that_no_tier_has(play: Play) -> None:
    """Two sizes are trained, and none as large as the largest; of a run of one size the rest is left out on purpose."""
    small = "{architecture: smallest}, {params: [1000, 3000]}"
    events = play(f"strategy.tiers=[{small}]", f"training.rounds={WINDOW}")
    assert warnings_of(events) == {"no-holder": WINDOW - 1}
    alone = play("strategy={name: fedavg, architecture: smallest}", f"training.rounds={WINDOW}", run="alone")
    assert warnings_of(alone) == {}


def test_a_smallest_subnet_that_comes_back_as_it_was_sent(play: Play) -> None:
    events = play(
        "engine.name=as_sent",
        "strategy.tiers=[{architecture: largest}]",
        f"partition={{kind: iid, num_clients: {NUM_CLIENTS}}}",
        "training.learning_rate=0.2",
        "training.local_epochs=4",
    )
    assert warnings_of(events) == {"smallest-stalls": ONSET + WINDOW - 1}


def test_a_client_that_has_nearly_all_images(play: Play, tmp_path: Path) -> None:
    """From the first round on: of eight clients one has 95 in a hundred images."""
    digits = load_dataset("digits", None)
    images, others = digits.train.take(np.arange(700)), digits.test
    clients = np.array([0 if number % 20 else 1 + number // 20 % 7 for number in range(700)])
    np.savez(
        tmp_path / "digits.npz",
        train_images=images.images_NHWC,
        train_labels=images.labels_N,
        train_clients=clients,
        val_images=others.images_NHWC,
        val_labels=others.labels_N,
        test_images=others.images_NHWC,
        test_labels=others.labels_N,
    )
    events = play(
        f"data={{dataset: npz, root: {tmp_path / 'digits.npz'}}}",
        "partition={kind: natural}",
        f"training.rounds={WINDOW}",
    )
    assert warnings_of(events) == {"one-dominates": 0}
    (found,) = (event for event in events if event["event"] == "health")
    assert found["figures"] == {"client": 0, "share": 0.95, "clients": 8}


def test_a_run_that_goes_on_warns_as_one_that_was_never_interrupted(play: Play, tmp_path: Path) -> None:
    """Interrupted before the warning, and after it; nothing is said twice, and no bit is another."""
    fault = (
        "engine.name=always_without_tier_1",
        f"training.rounds={WINDOW + 2}",
        "training.checkpoint_every=1",
        "training.evaluate_every=9",
    )
    whole = warnings_of(play(*fault))
    assert whole == {"no-holder": WINDOW - 1, "tier-starved": WINDOW - 1}
    for number, stop in enumerate((WINDOW - 1, WINDOW + 1)):

        def interrupt(event: Event, at: int = stop) -> None:
            if event["event"] == "round" and event["round"] == at:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            play(*fault, run=f"stopped-{number}", listeners=(interrupt,))
        resumed = play(*fault, run=f"stopped-{number}", resume=True)
        assert warnings_of(resumed) == whole
        assert (tmp_path / f"stopped-{number}" / SUPERNET).read_bytes() == (tmp_path / "run" / SUPERNET).read_bytes()


CLEAN = (
    "training.rounds=10",
    "strategy={name: e-fedsup, tiers: [{architecture: smallest}, {random: true}, {architecture: largest}]}",
)


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 10))])
def test_no_warning_without_a_fault(seed: int, play: Play) -> None:
    """With the smallest subnet first, then all sizes; clients have other classes."""
    events = play(*CLEAN, f"seed={seed}")
    assert warnings_of(events) == {}
    assert all(event["loss_before"] > 0 for event in events if event["event"] == "round")
