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

from fedsup_deploy.data.dataset import load_dataset
from fedsup_deploy.engines.flower.environment import QUIET
from fedsup_deploy.runs.run import SUPERNET

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
AUTHORITY, SUPERLINK, KEY, REGISTER, JOIN, TRAIN = range(6)
SELF_SIGNED = (
    *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=other"),
    *("-keyout", "other.key", "-out", "other.crt"),
)
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
        self.port, *own_ports = free_ports(1 + len(NAMES))
        path = os.pathsep.join([str(PROGRAMS), os.environ["PATH"]])
        told = {"PATH": path, "TMPDIR": str(folder), "FLWR_HOME": str(folder / "flower")}
        self.environment = {**os.environ, **QUIET, **told}
        (folder / "flower").mkdir()
        (folder / "flower" / "config.toml").write_text(self.told("toml"), encoding="utf-8")
        (folder / "server.yaml").write_text(CONFIG + "".join(ENGINE.findall(self.told("yaml", 1))), encoding="utf-8")
        (folder / "all.yaml").write_text(CONFIG + "data: {dataset: npz, root: all.npz}\n", encoding="utf-8")
        for name, own_port in zip(NAMES, own_ports, strict=True):
            # Images that the test knows, and what two devices of one machine cannot share.
            own = f"data: {{dataset: npz, root: {name}.npz}}\nport: {own_port}\nfolder: {name}-work\n"
            text = re.sub(r"^(data|tier): .*\n", "", self.told("yaml").replace("camera", name), flags=re.MULTILINE)
            (folder / f"{name}.yaml").write_text(text + own, encoding="utf-8")

    def told(self, language: str, number: int = 0) -> str:
        """Return a block of the page, as it is on this machine."""
        block = [code for each, code in FENCED.findall(SECTION) if each == language][number]
        for there, here in {
            "DNS:server.example": "DNS:localhost,IP:127.0.0.1",
            "server.example": "localhost",
            "9092": str(self.port),
            "0.0.0.0": "127.0.0.1",
            "/home/me/fleet": str(self.folder),
        }.items():
            block = block.replace(there, here)
        return str(block)

    def as_told(self, number: int, name: str = "camera") -> str:
        """Carry out commands of the page, on or for a device."""
        return self.done("bash", "-euc", self.told("sh", number).replace("camera", name))

    def done(self, *command: str) -> str:
        ran = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    def ours(self, *words: str) -> str:
        return self.done(sys.executable, "-m", "fedsup_deploy.cli.main", *words)

    def start(self, *command: str) -> "subprocess.Popen[bytes]":
        with (self.folder / "log").open("ab") as log:
            process: subprocess.Popen[bytes] = self._children.start(
                list(command), cwd=self.folder, env=self.environment, stdout=log, stderr=log
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
    if missing := [name for name in ("openssl", "ssh-keygen") if shutil.which(name) is None]:
        pytest.skip(f"{' and '.join(missing)} (install openssl and openssh-client)")
    folder = Path(tempfile.mkdtemp(prefix="test-", dir="/tmp"))
    with children_type() as children:
        fleet = Fleet(children, folder)
        write_images(folder)
        fleet.as_told(AUTHORITY)
        fleet.start("bash", "-euc", fleet.told("sh", SUPERLINK))
        assert eventually(fleet.can_be_reached)
        for name in NAMES:
            fleet.as_told(KEY, name)
            fleet.as_told(REGISTER, name)
            fleet.start("bash", "-euc", fleet.told("sh", JOIN).replace("camera", name))
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


def test_a_stranger_is_not_let_in(fleet: Fleet) -> None:
    """Who has a key that nobody registered, no key, or another authority: each is told so, and ends."""
    fleet.done("ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-N", "", "-f", "stranger.key")
    fleet.done(*SELF_SIGNED)
    text = (fleet.folder / "camera.yaml").read_text(encoding="utf-8").replace("folder: camera", "folder: stranger")
    (port,) = free_ports(1)
    text = re.sub(r"^port: .*$", f"port: {port}", text, flags=re.MULTILINE)
    for change in (("camera.key", "stranger.key"), ("key: camera.key\n", ""), ("ca.crt", "other.crt")):
        (fleet.folder / "stranger.yaml").write_text(text.replace(*change), encoding="utf-8")
        process = fleet.start(sys.executable, "-m", "fedsup_deploy.cli.main", "client", "--config", "stranger.yaml")
        assert process.wait(timeout=120) != 0
