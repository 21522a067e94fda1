"""A server and two devices, with TLS and node keys, by the very commands of docs/fleet.md.

All are processes of this machine, which share nothing but a port.
"""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedsup_deploy.config.client import ClientConfig
from fedsup_deploy.config.load import apply_overrides, dump, load_yaml, validate
from fedsup_deploy.data.dataset import load_dataset
from fedsup_deploy.engines.flower.environment import QUIET
from fedsup_deploy.errors import FederationError
from fedsup_deploy.federation import frame
from fedsup_deploy.runs.run import SUPERNET
from fedsup_deploy.version import __version__

pytestmark = pytest.mark.slow

NAMES = ("camera", "phone")
CONFIG = """
schema: 1
name: fleet
space: digits
partition: {kind: natural}
strategy: {name: fedsup, num_subnets: 2}
training: {rounds: 2, warmup_rounds: 1, batch_size: 16, checkpoint_every: 1, evaluate_every: 2}
calibration: {samples_per_client: 32, batch_size: 16, schedule: one-shot}
"""
ENGINE = re.compile(r"^(?:data|engine): .*\n", re.MULTILINE)
PAGE = Path(__file__).parents[2] / "docs" / "fleet.md"
SECTION = PAGE.read_text(encoding="utf-8").partition("\n## A server and two devices\n")[2].partition("\n## ")[0]
FENCED = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
#: What the blocks of commands are for, in the order of the page.
AUTHORITY, SUPERLINK, KITS, JOIN, TRAIN = range(5)
#: Of every Python process that finds it.
ANOTHER_PROTOCOL = "from fedsup_deploy.federation import frame\n\nframe.PROTOCOL = 99\n"
PROGRAMS = Path(sysconfig.get_path("scripts"))


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


class Fleet:
    """A SuperLink and devices, in a folder.

    Args:
        children: Starts processes.
        folder: Where everything is.
    """

    def __init__(self, children: Any, folder: Path) -> None:
        self._children, self.folder = children, folder
        (self.port,) = free_ports(1)
        path = os.pathsep.join([str(PROGRAMS), os.environ["PATH"]])
        told = {"PATH": path, "TMPDIR": str(folder), "FLWR_HOME": str(folder / "flower")}
        self.environment = {**os.environ, **QUIET, **told}
        (folder / "server.yaml").write_text(CONFIG + "".join(ENGINE.findall(self.told("yaml"))), encoding="utf-8")
        (folder / "all.yaml").write_text(CONFIG + "data: {dataset: npz, root: all.npz}\n", encoding="utf-8")

    def own(self, name: str) -> tuple[str, ...]:
        """Return settings of a device: images that the test knows, and what two on one machine cannot share."""
        (port,) = free_ports(1)
        data = f"data={{dataset: npz, root: {self.folder / name}.npz}}"
        return data, f"port={port}", f"folder={self.folder / name}-work"

    def edit(self, name: str) -> None:
        """Write these into the config of a device's kit, as its owner does."""
        path = self.folder / "kits" / name / f"{name}.yaml"
        document = apply_overrides(load_yaml(path), self.own(name))
        path.write_text(dump(validate(document, ClientConfig)), encoding="utf-8")

    def join(self, name: str, **variables: str) -> None:
        """Start a device in the folder of its kit."""
        command = ("bash", "-euc", self.told("sh", JOIN).replace("camera", name))
        self.start(*command, cwd=self.folder / "kits" / name, **variables)

    def told(self, language: str, number: int = 0) -> str:
        """Return a block of the page, as it is on this machine."""
        block = [code for each, code in FENCED.findall(SECTION) if each == language][number]
        for there, here in {
            "--server server.example": "--server localhost --server 127.0.0.1",
            "server.example": "localhost",
            "9092": str(self.port),
            "0.0.0.0": "127.0.0.1",
        }.items():
            block = block.replace(there, here)
        return str(block)

    def as_told(self, number: int) -> str:
        """Carry out commands of the page."""
        return self.done("bash", "-euc", self.told("sh", number))

    def done(self, *command: str) -> str:
        ran = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    def ours(self, *words: str) -> str:
        return self.done(sys.executable, "-m", "fedsup_deploy.cli.main", *words)

    def start(self, *command: str, cwd: Path | None = None, **variables: str) -> "subprocess.Popen[bytes]":
        with (self.folder / "log").open("ab") as log:
            process: subprocess.Popen[bytes] = self._children.start(
                list(command), cwd=cwd or self.folder, env=self.environment | variables, stdout=log, stderr=log
            )
        return process

    def can_be_reached(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


def write_images(folder: Path) -> None:
    """Write the images of each device, and all of them with whose they are."""
    images = load_dataset("digits", None).train
    archives: dict[str, dict[str, Any]] = {name: {} for name in (*NAMES, "all")}
    for kind, indices in {"train": np.arange(240), "val": np.arange(240, 300), "test": np.arange(300, 308)}.items():
        whose = np.array(NAMES)[indices % len(NAMES)]
        pixels, labels = images.images_NHWC[indices], images.labels_N[indices]
        archives["all"] |= {f"{kind}_images": pixels, f"{kind}_labels": labels, f"{kind}_clients": whose}
        for name in NAMES:
            archives[name] |= {f"{kind}_images": pixels[whose == name], f"{kind}_labels": labels[whose == name]}
    for name, arrays in archives.items():
        np.savez(folder / f"{name}.npz", classes=np.array(images.classes), **arrays)


@pytest.fixture(scope="module")
def fleet(children_type: Any, eventually: Callable[..., bool]) -> Iterator[Fleet]:
    folder = Path(tempfile.mkdtemp(prefix="test-", dir="/tmp"))
    with children_type() as children:
        fleet = Fleet(children, folder)
        write_images(folder)
        fleet.as_told(AUTHORITY)
        fleet.start("bash", "-euc", fleet.told("sh", SUPERLINK))
        assert eventually(fleet.can_be_reached)
        fleet.as_told(KITS)
        for name in NAMES:
            fleet.edit(name)
            fleet.join(name)
        yield fleet
    shutil.rmtree(folder)


def test_devices_train_to_the_bytes_of_their_images_in_one_place(fleet: Fleet) -> None:
    """The server has no image, and knows the devices by the names that their keys were registered under."""
    (fleet.folder / "hidden").mkdir()
    fleet.ours("train", "--config", "all.yaml", "--out", "together", "--set", "engine.workers=1", "--quiet")
    (fleet.folder / "all.npz").rename(fleet.folder / "hidden" / "all.npz")
    fleet.as_told(TRAIN)
    listed = json.loads((fleet.folder / "devices.json").read_text(encoding="utf-8"))["devices"]
    assert [(each["name"], sum(each["trained"])) for each in listed] == [("camera", 120), ("phone", 120)]
    run = fleet.folder / "runs" / "fleet"
    assert (run / SUPERNET).read_bytes() == (fleet.folder / "together" / SUPERNET).read_bytes()
    blobs = [path for name in NAMES for path in (fleet.folder / f"{name}-work" / "blobs").iterdir()]
    assert blobs


def test_a_device_that_came_later_takes_part_and_one_of_another_protocol_does_not(fleet: Fleet) -> None:
    """Both are registered and connected, and in no list that the run begins with."""
    (fleet.folder / "old").mkdir()
    (fleet.folder / "old" / "sitecustomize.py").write_text(ANOTHER_PROTOCOL, encoding="utf-8")
    fleet.ours("fleet", "kit", "desk", "old", "--config", "server.yaml", "--out", "kits")
    keys = [f"kits/{name}/{name}.key.pub" for name in ("desk", "old")]
    fleet.ours("fleet", "register", *keys, "--config", "server.yaml")
    for name, variables in (("desk", {}), ("old", {"PYTHONPATH": str(fleet.folder / "old")})):
        shutil.copy(fleet.folder / "camera.npz", fleet.folder / f"{name}.npz")
        fleet.edit(name)
        fleet.join(name, **variables)
    server = (fleet.folder / "server.yaml").read_text(encoding="utf-8")
    (fleet.folder / "later.yaml").write_text(server.replace("devices.json", "later.json"), encoding="utf-8")
    found = json.loads(fleet.ours("fleet", "list", "--config", "later.yaml", "--devices", "4", "--json"))
    assert [device["name"] for device in found["devices"]] == ["camera", "desk", "phone"]
    both = f"protocol 99 (fedsup-deploy {__version__}), here it is {frame.PROTOCOL} (fedsup-deploy {__version__})"
    assert both in found["refused"]["old"]
    listed = json.loads((fleet.folder / "later.json").read_text(encoding="utf-8"))
    listed["devices"] = [device for device in listed["devices"] if device["name"] in NAMES]
    (fleet.folder / "later.json").write_text(json.dumps(listed), encoding="utf-8")
    fleet.ours("train", "--config", "later.yaml", "--out", "joined", "--set", "federation.joining=true")
    lines = (fleet.folder / "joined" / "events.jsonl").read_text(encoding="utf-8").splitlines()
    events = {event["event"]: event for event in map(json.loads, lines)}
    assert events["joined"]["names"] == {"2": "desk"}
    assert both in events["not_joined"]["devices"]["old"]
    assert (events["round"]["clients"], events["round"]["absent"]) == ([0, 1, 2], {})


def test_a_key_is_registered_once(fleet: Fleet) -> None:
    command = (sys.executable, "-m", "fedsup_deploy.cli.main", "fleet", "register", "kits/camera/camera.key.pub")
    ran = subprocess.run(
        [*command, "--config", "server.yaml"],
        cwd=fleet.folder,
        env=fleet.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == FederationError.exit_code, ran.stderr
    assert "camera.key.pub: Flower has not taken the key of camera: " in ran.stderr


def test_a_stranger_is_not_let_in(fleet: Fleet) -> None:
    """Who has a key that nobody registered, no key, or another authority: each is told so, and ends."""
    fleet.ours("fleet", "init", "--server", "localhost", "--out", "other")
    settings = [word for setting in fleet.own("stranger") for word in ("--set", setting)]
    shutil.copy(fleet.folder / "camera.npz", fleet.folder / "stranger.npz")
    for change in ((), ("key=null",), (f"root_certificates={fleet.folder}/other/ca.crt",)):
        own = [*settings, *(word for setting in change for word in ("--set", setting))]
        out = f"strange-{len(list(fleet.folder.glob('strange-*')))}"
        fleet.ours("fleet", "kit", "stranger", "--config", "server.yaml", "--out", out, *own)
        config = fleet.folder / out / "stranger" / "stranger.yaml"
        process = fleet.start(sys.executable, "-m", "fedsup_deploy.cli.main", "client", "--config", str(config))
        assert process.wait(timeout=120) != 0
