"""`train`: interrupted anywhere, resumed to the same bytes; what may change between, and what its log adds up to."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fedsup_deploy import registry
from fedsup_deploy.artifact import weights
from fedsup_deploy.commands.train import train
from fedsup_deploy.commands.training_summary import UpdateCounts
from fedsup_deploy.commands.training_summary import summary as summary_of
from fedsup_deploy.config.schema import load_train_config
from fedsup_deploy.errors import ArtifactError, ConfigError, DataError, FederationError
from fedsup_deploy.events import read_events
from fedsup_deploy.federation.client import Client
from fedsup_deploy.federation.jobs.statistics import Observed, TakeStatistics
from fedsup_deploy.federation.messages import Blob
from fedsup_deploy.runs import tensorboard
from fedsup_deploy.runs.history import read_run_events
from fedsup_deploy.runs.run import CHECKPOINT, DATA, EVENTS, SPACE, SUPERNET, newest_run, open_run, read_image_facts

CONFIG = """
schema: 1
name: small
space: digits
data: {dataset: digits, validation_fraction: 0.03}
partition: {kind: iid, num_clients: 60}
strategy: {name: e-fedsup, tiers: [{architecture: smallest}, {random: true}, {architecture: largest}]}
training: {rounds: 4, clients_per_round: 3, warmup_rounds: 1, batch_size: 8, checkpoint_every: 3, evaluate_every: 4}
engine: {name: local, workers: 1}
calibration: {samples_per_client: 1, batch_size: 1, schedule: one-shot}
"""

# train_started, four rounds, an evaluation.
NUM_EVENTS = 6

Event = dict[str, Any]
TrainIn = Callable[..., dict[str, Any]]


class CtrlC:
    """A listener that interrupts at one event.

    Args:
        number: Which, from 0.
    """

    def __init__(self, number: int) -> None:
        self.left = number

    def __call__(self, _event: Event) -> None:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def train_in(tmp_path_factory: pytest.TempPathFactory) -> TrainIn:
    path = tmp_path_factory.mktemp("config") / "small.yaml"
    path.write_text(CONFIG, encoding="utf-8")

    def call(folder: Path, *overrides: str, **options: Any) -> dict[str, Any]:
        return train(load_train_config(path, overrides), folder, **options)

    return call


@pytest.fixture(scope="module")
def whole(train_in: TrainIn, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train_in(folder)
    return folder


def lasting(folder: Path) -> list[Event]:
    """Return the rounds and evaluations of a log, without what a clock said."""
    kept = [event for event in read_events(folder / EVENTS) if event["event"] != "train_started"]
    return [
        {key: value for key, value in event.items() if key not in {"seconds", "seconds_left", "unix_time_s"}}
        for event in kept
    ]


@pytest.mark.parametrize("number", range(NUM_EVENTS))
def test_interrupted_after_any_event_it_resumes_to_the_same_run(number, train_in, whole, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train_in(tmp_path / "run", listeners=(CtrlC(number),))
    assert not (tmp_path / "run" / SUPERNET).exists()

    summary = train_in(tmp_path / "run", resume=True)

    assert (tmp_path / "run" / SUPERNET).read_bytes() == (whole / SUPERNET).read_bytes()
    assert lasting(tmp_path / "run") == lasting(whole)
    assert summary.rounds == 4


def test_an_interruption_saves_the_rounds_that_were_done(train_in, tmp_path):
    """Interrupted while round 2 is being logged, so two rounds are done; the next checkpoint would come after three."""
    with pytest.raises(KeyboardInterrupt):
        train_in(tmp_path / "run", listeners=(CtrlC(3),))
    resumed: list[Event] = []
    train_in(tmp_path / "run", resume=True, listeners=(resumed.append,))
    assert [event["round"] for event in resumed if event["event"] == "round"] == [2, 3]


def test_a_run_that_is_resumed_when_it_is_whole_stays_the_same(train_in, whole, tmp_path):
    train_in(tmp_path / "run")
    train_in(tmp_path / "run", resume=True)
    assert (tmp_path / "run" / SUPERNET).read_bytes() == (whole / SUPERNET).read_bytes()
    assert lasting(tmp_path / "run") == lasting(whole)


def test_a_run_that_an_older_version_began_is_gone_on_with(train_in, whole, tmp_path):
    """Its config says what today is left to follow from the rest, and knows nothing of what is off."""
    train_in(tmp_path / "run")
    config = yaml.safe_load((tmp_path / "run" / "config.resolved.yaml").read_text(encoding="utf-8"))
    config["data"] |= {"server_images": True, "client_validation_fraction": 0.0}
    del config["partition"]["unseen"], config["training"]["class_weights"]
    (tmp_path / "run" / "config.resolved.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    train_in(tmp_path / "run", resume=True)
    assert (tmp_path / "run" / SUPERNET).read_bytes() == (whole / SUPERNET).read_bytes()


def test_what_changes_no_weight_may_change_when_resuming(train_in, whole, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train_in(tmp_path / "run", listeners=(CtrlC(2),))
    train_in(tmp_path / "run", "training.checkpoint_every=1", "engine.workers=1", resume=True)
    assert (tmp_path / "run" / SUPERNET).read_bytes() == (whole / SUPERNET).read_bytes()


def test_with_class_weights_clients_are_asked_once_and_a_resumed_run_ends_the_same(train_in, whole, tmp_path):
    """How many images of each class there are stands in the run; without them nobody is asked."""
    settings = ("training.class_weights=true", "training.logit_adjustment=false")
    train_in(tmp_path / "whole", *settings)
    facts, data = read_image_facts(tmp_path / "whole"), open_run(tmp_path / "whole").data
    labels = np.concatenate([data.train.labels_N[indices] for indices in data.clients])
    assert facts is not None
    assert facts.class_counts == tuple(np.bincount(labels, minlength=10).tolist())
    with pytest.raises(KeyboardInterrupt):
        train_in(tmp_path / "cut", *settings, listeners=(CtrlC(4),))
    train_in(tmp_path / "cut", *settings, resume=True)
    for name in (SUPERNET, DATA):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    train_in(tmp_path / "plain", settings[1])
    assert (tmp_path / "plain" / SUPERNET).read_bytes() != (tmp_path / "whole" / SUPERNET).read_bytes()
    assert "class_counts" not in (whole / DATA).read_text(encoding="utf-8")


def test_some_clients_alone_are_asked_for_their_pixels(train_in, whole, tmp_path):
    """Who else has images has not looked at them before it trains; the mean is another one."""
    train_in(tmp_path / "run", "calibration.pixel_clients=2", "training.rounds=1", "training.warmup_rounds=0")
    means = [
        json.loads((folder / DATA).read_text(encoding="utf-8"))["preprocessing"]["mean"]
        for folder in (tmp_path / "run", whole)
    ]
    assert means[0] != means[1]
    assert means[0] == pytest.approx(means[1], rel=0.2)


def test_too_few_answers_lose_no_round_that_was_done(train_in, whole, tmp_path, monkeypatch):
    """Nobody answers in the evaluation after the last round; three rounds were done before it."""

    def fail(_job: TakeStatistics, _client: Client) -> Observed:
        raise DataError("battery")

    settings = ("training.checkpoint_every=4", "calibration.clients=5")
    with monkeypatch.context() as patch:
        patch.setattr(TakeStatistics, "perform", fail)
        with pytest.raises(FederationError) as error:
            train_in(tmp_path / "run", *settings)
    assert str(error.value) == (
        "statistics: 0 of 5 clients answered, 3 must (client 3: battery); mend that; "
        "then go on after round 2 with --resume"
    )
    last = read_events(tmp_path / "run" / EVENTS)[-1]
    absent = {key: last[key] for key in ("event", "what", "round", "num_asked")}
    assert absent == {"event": "absences", "what": "statistics", "round": 3, "num_asked": 5}
    assert set(last["absent"].values()) == {"battery"}
    resumed: list[Event] = []
    train_in(tmp_path / "run", *settings, resume=True, listeners=(resumed.append,))
    assert [event["round"] for event in resumed if event["event"] == "round"] == [3]
    assert not any(event["event"] == "absences" for event in read_events(tmp_path / "run" / EVENTS))
    assert (tmp_path / "run" / SUPERNET).read_bytes() == (whole / SUPERNET).read_bytes()


@pytest.mark.parametrize("name", [SPACE, SUPERNET])
def test_a_whole_run_that_lacks_something_is_not_called_whole(name, train_in, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    path = tmp_path / "run" / name
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises((ArtifactError, ConfigError), match=name):
        train_in(tmp_path / "run", resume=True)


def test_what_is_expected_of_clients_may_change_later_as_well(train_in, whole, tmp_path):
    """Of a run that is being trained, and of one that is whole."""
    with pytest.raises(KeyboardInterrupt):
        train_in(tmp_path / "run", listeners=(CtrlC(2),))
    train_in(tmp_path / "run", "federation.quorum=0.3", resume=True)
    assert open_run(tmp_path / "run").config.federation.quorum == 0.3
    train_in(tmp_path / "run", "federation.quorum=0.2", "federation.deadline_s=60", resume=True)
    terms = open_run(tmp_path / "run").config.federation
    assert (terms.quorum, terms.deadline_s) == (0.2, 60.0)
    assert (tmp_path / "run" / SUPERNET).read_bytes() == (whole / SUPERNET).read_bytes()


def test_without_an_image_to_evaluate_on_nothing_is_trained(train_in, tmp_path):
    """Three images each: a tenth of that is less than half an image."""
    holding = ("data.server_images=false", "data.client_validation_fraction=0.1", "partition.num_clients=449")
    with pytest.raises(ConfigError, match=r"no client holds images out .*: each has too few for .* 0\.1; train with"):
        train_in(tmp_path / "run", *holding)
    assert not list((tmp_path / "run").glob("*.safetensors"))


def test_a_checkpoint_that_was_changed_is_refused(train_in, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train_in(tmp_path / "run", listeners=(CtrlC(2),))
    path = tmp_path / "run" / CHECKPOINT
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="its tensors are not those it was written with"):
        train_in(tmp_path / "run", resume=True)


def test_a_checkpoint_without_what_the_strategy_keeps_is_refused(train_in, tmp_path):
    momentum = ("strategy={name: fedavgm, architecture: smallest}",)
    with pytest.raises(KeyboardInterrupt):
        train_in(tmp_path / "run", *momentum, listeners=(CtrlC(2),))
    path = tmp_path / "run" / CHECKPOINT
    arrays, document = weights.read_arrays(path, "checkpoint")
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items() if not name.startswith("kept/head")}
    rest = {key: value for key, value in document.items() if key not in {"schema", "kind"}}
    left = {name: tensor.numpy() for name, tensor in tensors.items()}
    weights.write_arrays(path, "checkpoint", left, {**rest, "tensors": Blob(tensors).name})
    with pytest.raises(ArtifactError, match=r"what the strategy keeps: tensor head\.bias is missing"):
        train_in(tmp_path / "run", *momentum, resume=True)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{}", r"events\.jsonl:7: got \{\}, expected an event; remove the line"),
        ('{"event": "round", "round": "x"}', r"events\.jsonl:7: got round 'x', expected a number; remove the line"),
        (
            '{"event": "round", "round": 0}',
            r"events\.jsonl:7: damaged: clients: missing key \(and 4 more\); remove the line",
        ),
        ('{"event": "evaluation", "round": 3}', r"events\.jsonl:7: damaged: accuracy_largest: missing key .*; remove"),
    ],
)
def test_a_log_that_was_changed_is_refused_in_one_line(line, message, train_in, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    with (tmp_path / "run" / EVENTS).open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    with pytest.raises(ArtifactError, match=message):
        train_in(tmp_path / "run", resume=True)
    (tmp_path / "run" / EVENTS).unlink()
    with pytest.raises(ArtifactError, match=r"events\.jsonl is missing"):
        train_in(tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    "change", ["seed=1", "training.momentum=0.5", "strategy.tiers=[{random: true}]", "space=elastic-resnet"]
)
def test_a_run_is_not_resumed_with_another_config(change, train_in, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train_in(tmp_path / "run", listeners=(CtrlC(1),))
    before = (tmp_path / "run" / EVENTS).read_bytes()
    key = change.partition("=")[0]
    with pytest.raises(ConfigError, match=rf"cannot resume .*: {key}.* is .*, the run was started with"):
        train_in(tmp_path / "run", change, resume=True)
    assert (tmp_path / "run" / EVENTS).read_bytes() == before


def test_a_checkpoint_of_another_config_is_refused(train_in, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train_in(tmp_path / "one", listeners=(CtrlC(2),))
    with pytest.raises(KeyboardInterrupt):
        train_in(tmp_path / "two", "seed=1", listeners=(CtrlC(2),))
    (tmp_path / "one" / CHECKPOINT).replace(tmp_path / "two" / CHECKPOINT)
    with pytest.raises(ArtifactError, match="belongs to another config"):
        train_in(tmp_path / "two", "seed=1", resume=True)


def test_a_run_that_failed_before_its_first_checkpoint_is_begun_anew_with_other_settings(train_in, whole, tmp_path):
    diverging = (
        "training.learning_rate=1000",
        "training.weight_decay=1000",
        "training.clip_value=null",
        "training.warmup_rounds=0",
    )
    with pytest.raises(FederationError, match=r"lower training\.learning_rate"):
        train_in(tmp_path / "run", *diverging)
    train_in(tmp_path / "run")
    assert (tmp_path / "run" / SUPERNET).read_bytes() == (whole / SUPERNET).read_bytes()


def test_a_finished_run_is_not_overwritten(train_in, whole):
    before = (whole / SUPERNET).read_bytes()
    with pytest.raises(ArtifactError, match="holds a run already; continue it with --resume or choose another --out"):
        train_in(whole)
    assert (whole / SUPERNET).read_bytes() == before


def test_the_summary_adds_up_the_log(train_in, tmp_path):
    events: list[Event] = []
    summary = train_in(tmp_path / "run", listeners=(events.append,))
    rounds = [event for event in events if event["event"] == "round"]
    assert len(events) == NUM_EVENTS
    assert summary.rounds == len(rounds) == 4
    assert summary.bytes_up == sum(event["bytes_up"] for event in rounds)
    assert summary.bytes_down == sum(event["bytes_down"] for event in rounds)
    assert summary.client_macs == sum(event["client_macs"] for event in rounds) > 0
    assert summary.updates == UpdateCounts(asked=12, used=12, rejected=0, absent=0)
    last = events[-1]
    assert summary.accuracy.largest == last["accuracy_largest"]
    assert summary.accuracy.num_images == last["num_images"] == len(open_run(tmp_path / "run").data.validation)
    for name in ("largest", "smallest"):
        low, high = interval = getattr(summary.accuracy, f"{name}_interval")
        assert (list(interval), low < last[f"accuracy_{name}"] < high) == (last[f"accuracy_{name}_interval"], True)
    assert all(len(event["clients"]) == 3 for event in rounds)


def test_the_summary_of_a_run_from_before_images_were_counted_has_no_intervals(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "old")
    path = tmp_path / "old" / "events.jsonl"
    events = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    later = {"num_images", "accuracy_largest_interval", "accuracy_smallest_interval", "rejected"}
    old = [{key: value for key, value in event.items() if key not in later} for event in events]
    path.write_text("".join(json.dumps(event) + "\n" for event in old), encoding="utf-8")
    accuracy = summary_of(tmp_path / "old").accuracy
    assert (accuracy.num_images, accuracy.largest_interval, accuracy.smallest_interval) == (None, None, None)
    assert accuracy.largest == summary_of(whole).accuracy.largest
    assert summary_of(tmp_path / "old").updates == summary_of(whole).updates


@pytest.mark.parametrize("number", range(NUM_EVENTS))
def test_what_a_strategy_keeps_between_rounds_is_part_of_a_checkpoint(number, train_in, with_momentum, tmp_path):
    """The server's velocity is not at rest when the run goes on."""
    with pytest.raises(KeyboardInterrupt):
        train_in(tmp_path / "run", *WITH_MOMENTUM, listeners=(CtrlC(number),))
    train_in(tmp_path / "run", *WITH_MOMENTUM, resume=True)
    assert (tmp_path / "run" / SUPERNET).read_bytes() == (with_momentum / SUPERNET).read_bytes()


@pytest.fixture(scope="module")
def with_momentum(train_in: TrainIn, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("momentum")
    train_in(folder / "run", *WITH_MOMENTUM)
    train_in(folder / "without", *WITH_MOMENTUM, "strategy.momentum=0")
    assert (folder / "run" / SUPERNET).read_bytes() != (folder / "without" / SUPERNET).read_bytes()
    return folder / "run"


WITH_MOMENTUM = ("strategy={name: fedavgm, architecture: smallest}",)


@pytest.mark.parametrize("strategy", registry.names("strategy"))
def test_every_strategy_makes_another_supernet_of_the_same_shape(strategy, train_in, whole, tmp_path):
    more = ", tiers: [{random: true}]" if strategy == "e-fedsup" else ""  # the paper's are for its space
    changes = (f"strategy={{name: {strategy}{more}}}", "training.rounds=1", "supernet.normalization=parametric")
    summary = train_in(tmp_path / "run", *changes)
    assert summary.bytes_up > 0
    run = open_run(tmp_path / "run")
    assert run.config.strategy.name == strategy
    assert run.space == open_run(whole).space
    assert (tmp_path / "run" / SUPERNET).read_bytes() != (whole / SUPERNET).read_bytes()


def test_a_static_subnet_travels_alone(train_in, tmp_path):
    """Clients that all train the smallest subnet are sent that and no more: weights of four bytes each."""
    small = train_in(
        tmp_path / "small", "strategy={name: e-fedsup, tiers: [{architecture: smallest}]}", "training.rounds=1"
    )
    large = train_in(tmp_path / "large", "strategy={name: fedavg}", "training.rounds=1")
    assert 0 < 3 * small.bytes_down < large.bytes_down
    assert small.bytes_down == small.bytes_up


def test_training_that_diverges_says_so(train_in, tmp_path):
    with pytest.raises(FederationError, match=r"training in round 2: 0 of 3 clients answered, 2 must .*learning_rate"):
        train_in(
            tmp_path / "run", "training.learning_rate=1000", "training.weight_decay=1000", "training.clip_value=null"
        )


def test_the_newest_run_is_the_one_finished_last(train_in, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArtifactError, match="no finished run below runs/"):
        newest_run()
    for name in ("zebra", "aardvark"):
        train_in(Path("runs") / name, "training.rounds=1")
    with pytest.raises(KeyboardInterrupt):
        train_in(Path("runs") / "unfinished", listeners=(CtrlC(1),))
    assert newest_run() == Path("runs/aardvark")


def scalars_of(folder: Path) -> dict[str, list[int]]:
    """Return the steps that TensorBoard finds, by tag."""
    found = EventAccumulator(str(folder / tensorboard.FOLDER))
    found.Reload()
    return {tag: [each.step for each in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_a_tracked_run_that_was_interrupted_has_every_point_once(train_in, whole, tmp_path):
    """After a checkpoint of three rounds the fourth is trained again."""
    with pytest.raises(KeyboardInterrupt):
        train_in(tmp_path / "run", track=["tensorboard"], listeners=(CtrlC(NUM_EVENTS - 1),))
    train_in(tmp_path / "run", track=["tensorboard"], resume=True)
    found = scalars_of(tmp_path / "run")
    assert (found["loss/training"], found["accuracy/largest"]) == ([1, 2, 3, 4], [4])
    assert (tmp_path / "run" / SUPERNET).read_bytes() == (whole / SUPERNET).read_bytes()


def test_a_tracker_that_fails_costs_a_run_nothing_but_a_warning(train_in, whole, tmp_path, monkeypatch):
    def full(_self: object, _event: object) -> None:
        raise OSError(28, "No space left on device")

    heard: list[Event] = []
    monkeypatch.setattr(tensorboard.TensorBoard, "read", full)
    train_in(tmp_path / "run", track=["tensorboard"], listeners=(heard.append,))
    (stopped,) = (event for event in heard if event["event"] == "tracking_stopped")
    assert (stopped["tracker"], stopped["reason"]) == ("tensorboard", "No space left on device")
    assert [event["event"] for event in read_events(tmp_path / "run" / EVENTS)].count("tracking_stopped") == 1
    assert (tmp_path / "run" / SUPERNET).read_bytes() == (whole / SUPERNET).read_bytes()


def test_what_is_planned_is_what_is_computed(whole):
    """Rounds of the smallest subnet first, then of all; each is what its clients have counted."""
    started, *events = read_run_events(whole)
    rounds = [event.client_macs for event in events if event.event == "round"]
    first, second = started.phases
    assert (first.rounds, second.rounds) == (1, 3)
    assert [first.client_macs, 3 * second.client_macs] == pytest.approx([rounds[0], sum(rounds[1:])], rel=1e-6)
