"""Devices that come to a training between rounds, and a server with images of its own beside devices."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from local_grid import LocalGrid, app_of

from fedsup_deploy.commands.evaluate import evaluate
from fedsup_deploy.commands.train import train
from fedsup_deploy.config.client import ClientConfig
from fedsup_deploy.config.schema import load_train_config
from fedsup_deploy.data.dataset import load_dataset
from fedsup_deploy.data.devices import write_devices
from fedsup_deploy.engines.flower import deployment
from fedsup_deploy.engines.flower.blobs import DiskBlobs
from fedsup_deploy.engines.flower.directory import Directory
from fedsup_deploy.engines.flower.engine import far_of, own_of
from fedsup_deploy.engines.flower.grid import GridCourier
from fedsup_deploy.engines.flower.node import ClientNode
from fedsup_deploy.engines.inprocess import InProcess
from fedsup_deploy.engines.workers import MakePopulations
from fedsup_deploy.errors import DataError
from fedsup_deploy.federation import frame
from fedsup_deploy.federation.jobs.announce import Announce
from fedsup_deploy.federation.messages import Engine
from fedsup_deploy.federation.simulation import CLIENTS, UNSEEN
from fedsup_deploy.runs.announced import devices_of
from fedsup_deploy.runs.own_images import OneDevice
from fedsup_deploy.runs.run import SUPERNET, open_run

CONFIG = """
schema: 1
name: fleet
space: digits
data: {{dataset: devices, root: devices.json{server}}}
partition: {{kind: natural}}
strategy: {{name: fedsup, num_subnets: 2}}
training: {{rounds: 4, warmup_rounds: 1, batch_size: 16, checkpoint_every: 10, evaluate_every: 4}}
calibration: {{samples_per_client: 16, batch_size: 16, schedule: one-shot}}
engine: {{name: flower, superlink: "nowhere:1"}}
federation: {{joining: {joining}}}
"""
LISTED = ("camera", "phone")
SERVER = ", server: {dataset: npz, root: server.npz}"


class OldNode(ClientNode):
    """A node of a device with another version of ours."""

    def answer(self, population: str, message: bytes) -> bytes:
        del population, message
        now, frame.PROTOCOL = frame.PROTOCOL, 99  # type: ignore[misc]
        try:
            return frame.pack({}, {})
        finally:
            frame.PROTOCOL = now  # type: ignore[misc]


class Devices:
    """Devices as nodes of a grid in this process, which come and go.

    Args:
        folder: Of their images.

    Attributes:
        seconds: Have gone by: one whenever the clock is looked at.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.seconds = folder, 0
        self.nodes: dict[int, ClientNode] = {}
        self.grid = LocalGrid({})
        self.populations: dict[str, OneDevice] = {}

    def connect(self, *names: str, of: type[ClientNode] = ClientNode, archive: str = "", **settings: Any) -> None:
        """Let devices come; `archive` has the images of one that are not in its own."""
        for name in names:
            own = {"dataset": "npz", "root": self.folder / f"{archive or name}.npz"}
            document = {"schema": 1, "name": name, "superlink": "nowhere:1", "data": own, **settings}
            device = self.populations[name] = OneDevice(ClientConfig.model_validate(document))
            node = of(name, {CLIENTS: device, UNSEEN: device}, DiskBlobs(self.folder / "blobs" / name))
            number = 10 + len(self.grid.apps)
            self.grid.apps[number], self.grid.names[number] = app_of(node), name

    def clock(self) -> float:
        self.seconds += 1
        return float(self.seconds)

    def number_of(self, name: str) -> int:
        """Return the number of a device that is connected."""
        return next(number for number, each in self.grid.names.items() if each == name)

    @contextlib.contextmanager
    def open(self, make_populations: MakePopulations, *_: object, names: Sequence[str]) -> Iterator[dict[str, Engine]]:
        """Yield the engines of a deployment."""
        courier = GridCourier(self.grid, sleep=lambda _: None)
        directory = Directory(courier, names)
        directory.gather(lambda there: there == len(names))
        local = {name: InProcess(each) for name, each in own_of(make_populations).items()}
        yield local | deployment.deployed(courier, directory, far_of(make_populations), self.clock)


def write_archives(folder: Path) -> None:
    images = load_dataset("digits", None).train
    kinds = {"train": np.arange(200), "val": np.arange(200, 400), "test": np.arange(400, 600)}
    for number, name in enumerate((*LISTED, "desk", "server")):
        arrays: dict[str, Any] = {"classes": np.array(images.classes)}
        for kind, indices in kinds.items():
            chosen = indices[indices % 4 == number]
            arrays |= {f"{kind}_images": images.images_NHWC[chosen], f"{kind}_labels": images.labels_N[chosen]}
        np.savez(folder / f"{name}.npz", **arrays)
        if name == "desk":
            for kind in kinds:
                arrays[f"{kind}_images"] = arrays[f"{kind}_images"][:, :6, :6]
            np.savez(folder / "small.npz", **arrays)
            arrays["classes"] = np.array([f"digit {label}" for label in images.classes])
            np.savez(folder / "renamed.npz", **arrays)


@pytest.fixture
def devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Devices:
    """The devices of a list, connected."""
    write_archives(tmp_path)
    devices = Devices(tmp_path)
    devices.connect(*LISTED)
    said, unfit = devices_of({name: devices.populations[name].client(0).perform(Announce()) for name in LISTED})
    assert unfit == {}
    write_devices(tmp_path / "devices.json", said)
    for name, joining, server in (
        ("joining", "true", ""),
        ("closed", "false", ""),
        ("server", "false", SERVER),
        ("hurried", "true, deadline_s: 500", ""),
        ("accepting", "true, deadline_s: 500, stale: accept", ""),
    ):
        text = CONFIG.format(joining=joining, server=server)
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
    monkeypatch.setattr(deployment, "open_deployment", devices.open)
    return devices


class Story:
    """Listens to the events of a run, and does something after a round."""

    def __init__(self, **after: Any) -> None:
        self.events: list[dict[str, Any]] = []
        self._after = {int(key.removeprefix("round_")): then for key, then in after.items()}

    def __call__(self, event: dict[str, Any]) -> None:
        self.events.append(event)
        if event["event"] == "round" and event["round"] in self._after:
            self._after[event["round"]]()

    def of(self, kind: str, key: str) -> list[Any]:
        return [event[key] for event in self.events if event["event"] == kind]


def run(devices: Devices, name: str, out: str, story: Story, **options: Any) -> Path:
    train(load_train_config(devices.folder / f"{name}.yaml"), devices.folder / out, listeners=(story,), **options)
    return devices.folder / out


def test_a_device_takes_part_from_the_round_after_it_came(devices: Devices) -> None:
    story = Story(round_1=lambda: devices.connect("desk"))
    path = run(devices, "joining", "run", story)
    assert story.of("round", "clients") == [[0, 1], [0, 1], [0, 1, 2], [0, 1, 2]]
    assert story.of("joined", "names") == [{"2": "desk"}]
    assert story.of("joined", "since_round") == [2]
    finished = open_run(path)
    assert finished.data.names == (*LISTED, "desk")
    assert finished.image_facts.all_clients is not None
    assert finished.image_facts.all_clients.names == (*LISTED, "desk")
    each = evaluate(path, "largest", per_client=True).to_dict()["clients"]["each"]  # type: ignore[index, call-overload]
    assert [client["name"] for client in each] == [*LISTED, "desk"]


def test_without_the_setting_nobody_is_asked(devices: Devices) -> None:
    devices.connect("desk")
    story = Story()
    run(devices, "closed", "run", story)
    assert story.of("round", "clients") == [[0, 1]] * 4
    assert story.of("joined", "names") == story.of("not_joined", "devices") == []


def test_a_run_that_is_interrupted_goes_on_with_those_who_had_come(devices: Devices) -> None:
    """Killed after a device has joined, and before: each ends as if undisturbed, given who is there when."""

    def stop() -> None:
        raise KeyboardInterrupt

    devices.connect("desk")
    whole = run(devices, "joining", "whole", Story())
    for after, kept in ((0, False), (1, True)):
        out = f"stopped-{after}"
        with pytest.raises(KeyboardInterrupt):
            run(devices, "joining", out, Story(**{f"round_{after}": stop}))
        story = Story()
        run(devices, "joining", out, story, resume=True)
        assert (2 in story.of("round", "clients")[0]) == kept
        assert (devices.folder / out / SUPERNET).read_bytes() == (whole / SUPERNET).read_bytes()
        facts = [json.loads((path / "data.json").read_text(encoding="utf-8")) for path in (whole, devices.folder / out)]
        assert facts[0] == facts[1]


def test_who_came_after_the_checkpoint_comes_again(devices: Devices) -> None:
    """A kill takes all since the checkpoint: also who has joined."""
    story = Story(round_1=lambda: devices.connect("desk"))
    path = run(devices, "joining", "run", story)
    facts = open_run(path).image_facts
    assert [each.since for each in facts.joined] == [2]
    (path / SUPERNET).unlink()
    (path / "checkpoint" / "state.safetensors").unlink()
    again = Story()
    run(devices, "joining", "run", again, resume=True)
    # From the start: the device is there after the first round already.
    assert again.of("round", "clients") == [[0, 1], [0, 1, 2], [0, 1, 2], [0, 1, 2]]
    assert [each.since for each in open_run(path).image_facts.joined] == [1]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"archive": "small"}, "images of 6x6 pixels, 1 x uint8, the others have 10 classes and images of 8x8 pixels"),
        ({"archive": "renamed"}, "classes 10 (digit 0, digit 1"),
        ({"tier": 1}, "tier 1, the strategy has 1, numbered from 0"),
        ({"of": OldNode}, f"protocol 99 (fedsup-deploy 0.1.0), here it is {frame.PROTOCOL} (fedsup-deploy 0.1.0)"),
    ],
)
def test_who_does_not_fit_is_refused_once_in_one_line_that_names_both(
    devices: Devices, settings: dict[str, Any], words: str
) -> None:
    devices.connect("desk", **settings)
    story = Story()
    run(devices, "joining", "run", story)
    [told] = story.of("not_joined", "devices")
    assert words in told["desk"]
    assert "\n" not in told["desk"]
    assert story.of("round", "clients") == [[0, 1]] * 4


def test_a_mute_stranger_is_waited_for_once_and_not_for_long(devices: Devices) -> None:
    devices.connect("desk")
    devices.grid.mute.add(devices.number_of("desk"))
    waited: list[int] = []
    story = Story(**{f"round_{number}": lambda: waited.append(devices.seconds) for number in range(4)})
    run(devices, "hurried", "run", story)
    assert story.of("not_joined", "devices") == [{"desk": "no answer within 30 s"}]
    assert devices.grid.asked.count(devices.number_of("desk")) == 1
    assert story.of("round", "clients") == [[0, 1]] * 4
    assert waited[-1] < 200


def test_a_late_update_counts_though_a_device_has_joined_since(devices: Devices) -> None:
    phone = devices.number_of("phone")

    class Slow(Story):
        """The phone is slow in the first round."""

        def __call__(self, event: dict[str, Any]) -> None:
            super().__call__(event)
            if event["event"] == "train_started":
                devices.grid.mute.add(phone)

    def go_on() -> None:
        devices.connect("desk")
        devices.grid.mute.clear()

    story = Slow(round_0=go_on)
    run(devices, "accepting", "run", story)
    assert story.of("joined", "since_round") == [1]
    rounds = [event for event in story.events if event["event"] == "round"]
    assert [event.get("late") for event in rounds] == [[1], None, None, None]
    # It has answered the next round as well, in time.
    assert rounds[1]["clients"] == [0, 1, 2]
    assert rounds[1]["late_refused"] == {"1": "has answered in time since"}


def test_who_announces_itself_late_takes_part_from_then_on(devices: Devices) -> None:
    """What it has to look through takes a slow device longer than a training waits."""
    devices.connect("desk")
    devices.grid.mute.add(devices.number_of("desk"))
    story = Story(round_1=devices.grid.mute.clear)
    run(devices, "hurried", "run", story)
    assert story.of("joined", "since_round") == [3]
    assert story.of("round", "clients") == [[0, 1], [0, 1], [0, 1], [0, 1, 2]]


def test_a_mute_stranger_that_was_away_is_asked_again(devices: Devices) -> None:
    devices.connect("desk")
    mute = devices.number_of("desk")
    devices.grid.mute.add(mute)

    def leave() -> None:
        del devices.grid.apps[mute], devices.grid.names[mute]
        devices.grid.mute.clear()

    story = Story(round_1=leave, round_2=lambda: devices.connect("desk"))
    run(devices, "hurried", "run", story)
    assert story.of("joined", "since_round") == [3]


def test_subnets_are_compared_on_images_of_the_servers_own(devices: Devices) -> None:
    path = run(devices, "server", "run", Story())
    data = open_run(path).data
    assert data.validation is not None
    assert data.test is not None
    assert (len(data.validation), len(data.test)) == (50, 50)
    found = evaluate(path, "largest").to_dict()
    assert (found["split"], found["num_images"]) == ("test", 50)
    # What clients have is as without.
    closed = run(devices, "closed", "closed", Story())
    assert (path / SUPERNET).read_bytes() == (closed / SUPERNET).read_bytes()


def test_images_of_the_servers_that_are_not_as_those_of_devices_are_refused(devices: Devices) -> None:
    text = CONFIG.format(joining="false", server=SERVER.replace("server.npz", "small.npz"))
    (devices.folder / "other.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"data\.server: .* 6x6 pixels.*, the others have .* 8x8 pixels"):
        run(devices, "other", "run", Story())
