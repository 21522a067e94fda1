"""A server and two devices, with TLS and node keys: processes of this machine that only share a port."""

import contextlib
import json
import os
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
SERVER = """
data: {{dataset: devices, root: devices.json}}
engine: {{name: flower, superlink: "localhost:{port}", root_certificates: ca.crt}}
"""
DEVICE = """
schema: 1
name: what-it-calls-itself-does-not-count
superlink: localhost:{port}
root_certificates: ca.crt
key: {name}.key
data: {{dataset: npz, root: {name}.npz}}
folder: {name}-work
port: {own_port}
"""
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
        told = {"FLWR_HOME": str(folder / "home"), "PATH": path, "TMPDIR": str(folder)}
        self.environment = {**os.environ, **QUIET, **told}
        (folder / "home").mkdir()
        settings = f'[superlink.fleet]\naddress = "localhost:{self.port}"\nroot-certificates = "{folder}/ca.crt"\n'
        (folder / "home" / "config.toml").write_text(settings, encoding="utf-8")
        server = SERVER.format(port=self.port)
        (folder / "server.yaml").write_text(CONFIG + server, encoding="utf-8")
        (folder / "all.yaml").write_text(CONFIG + "data: {dataset: npz, root: all.npz}\n", encoding="utf-8")
        for name, own_port in zip(NAMES, own_ports, strict=True):
            text = DEVICE.format(name=name, port=self.port, own_port=own_port)
            (folder / f"{name}.yaml").write_text(text, encoding="utf-8")

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

    def device(self, name: str) -> "subprocess.Popen[bytes]":
        return self.start(sys.executable, "-m", "fedsup_deploy.cli.main", "client", "--config", f"{name}.yaml")

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


def write_certificates(fleet: Fleet) -> None:
    """Make an authority, the server's certificate, and a key for each device."""
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384", "-nodes")
    authority = ("-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=fleet", "-days", "9")
    fleet.done("openssl", "req", "-x509", *curve, *authority)
    fleet.done("openssl", "req", *curve, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost")
    (fleet.folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n", encoding="utf-8")
    signed = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "9", "-extfile", "names")
    fleet.done("openssl", "x509", "-req", "-in", "server.csr", *signed, "-out", "server.pem")
    for name in NAMES:
        fleet.done("ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-N", "", "-f", f"{name}.key")


@pytest.fixture(scope="module")
def fleet(children_type: Any, eventually: Callable[..., bool]) -> Iterator[Fleet]:
    folder = Path(tempfile.mkdtemp(prefix="test-", dir="/tmp"))
    with children_type() as children:
        fleet = Fleet(children, folder)
        write_images(folder)
        write_certificates(fleet)
        tls = ("--ssl-ca-certfile", "ca.crt", "--ssl-certfile", "server.pem", "--ssl-keyfile", "server.key")
        where = ("--host", "127.0.0.1", "--port", str(fleet.port), "--database", "state.db")
        fleet.start(str(PROGRAMS / "flower-superlink"), *tls, "--enable-supernode-auth", *where)
        assert eventually(fleet.can_be_reached)
        for name in NAMES:
            fleet.done(str(PROGRAMS / "flwr"), "supernode", "register", f"{name}.key.pub", "fleet", "--name", name)
            fleet.device(name)
        yield fleet
    shutil.rmtree(folder)


def test_devices_train_to_the_bytes_of_their_images_in_one_place(fleet: Fleet) -> None:
    """The server has no image, and knows the devices by the names that their keys were registered under."""
    listing = json.loads(fleet.ours("fleet", "list", "--config", "server.yaml", "--devices", "2", "--json", "--quiet"))
    assert [(each["name"], each["num_trained"]) for each in listing["devices"]] == [("camera", 120), ("phone", 120)]
    (fleet.folder / "hidden").mkdir()
    fleet.ours("train", "--config", "all.yaml", "--out", "together", "--set", "engine.workers=1", "--quiet")
    (fleet.folder / "all.npz").rename(fleet.folder / "hidden" / "all.npz")
    fleet.ours("train", "--config", "server.yaml", "--out", "far", "--quiet")
    assert (fleet.folder / "far" / SUPERNET).read_bytes() == (fleet.folder / "together" / SUPERNET).read_bytes()
    blobs = [path for name in NAMES for path in (fleet.folder / f"{name}-work" / "blobs").iterdir()]
    assert blobs
