"""A device at a SuperLink that runs whatever it is told, as Flower's own does: the device decides for itself."""

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
from stranger import ANSWERS, MARK, write_foreign, write_modified

from fedsup_deploy.data.dataset import load_dataset
from fedsup_deploy.engines.flower.environment import QUIET

pytestmark = pytest.mark.slow

PROGRAMS = Path(sysconfig.get_path("scripts"))
INVALID_FAB = 7


class Place:
    """A SuperLink of Flower's own, and a device.

    Args:
        children: Starts processes.
        folder: Where everything is.
    """

    def __init__(self, children: Any, folder: Path) -> None:
        self._children, self.folder = children, folder
        with socket.socket() as one, socket.socket() as other:
            ports = []
            for probe in (one, other):
                probe.bind(("127.0.0.1", 0))
                ports.append(probe.getsockname()[1])
        self.address = f"127.0.0.1:{ports[0]}"
        self.server = folder / "server"
        self.server.mkdir()
        settings = f'[superlink.here]\naddress = "{self.address}"\ninsecure = true\n'
        (self.server / "config.toml").write_text(settings, encoding="utf-8")
        path = os.pathsep.join([str(PROGRAMS), os.environ["PATH"]])
        self._environment = {**os.environ, **QUIET, "PATH": path, "TMPDIR": str(folder), "FLWR_HOME": str(self.server)}
        images = load_dataset("digits", None).train
        arrays = {
            f"{kind}_{what}": array[:40]
            for kind in ("train", "test")
            for what, array in (("images", images.images_NHWC), ("labels", images.labels_N))
        }
        np.savez(folder / "own.npz", classes=np.array(images.classes), **arrays)
        own = {"schema": 1, "name": "camera", "superlink": self.address, "data": {"dataset": "npz", "root": "own.npz"}}
        (folder / "camera.yaml").write_text(json.dumps({**own, "port": ports[1]}), encoding="utf-8")
        devices = {"data": {"dataset": "devices", "root": "devices.json"}, "partition": {"kind": "natural"}}
        engine = {"name": "flower", "superlink": self.address}
        rest = {"strategy": {"name": "fedsup"}, "training": {"rounds": 1, "warmup_rounds": 1}}
        document = {"schema": 1, "name": "fleet", "space": "digits", **devices, "engine": engine, **rest}
        (folder / "server.yaml").write_text(json.dumps(document), encoding="utf-8")

    def start(self, log: str, *command: str) -> None:
        with (self.folder / log).open("ab") as file:
            self._children.start(list(command), cwd=self.folder, env=self._environment, stdout=file, stderr=file)

    def done(self, *command: str) -> str:
        ran = subprocess.run(
            command, cwd=self.folder, env=self._environment, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    def log(self) -> str:
        return (self.folder / "node.log").read_text(encoding="utf-8", errors="replace")


@pytest.fixture
def place(children: Any) -> Iterator[Place]:
    folder = Path(tempfile.mkdtemp(prefix="test-", dir="/tmp"))
    place = Place(children, folder)
    host, port = place.address.split(":")
    options = ("--insecure", "--disable-runtime-dependency-installation", "--host", host, "--port", port)
    place.start("link.log", str(PROGRAMS / "flower-superlink"), *options)
    place.start("node.log", sys.executable, "-m", "fedsup_deploy.cli.main", "client", "--config", "camera.yaml")
    yield place
    shutil.rmtree(folder)


def test_a_device_runs_no_line_of_another_app_and_goes_on(place: Place, eventually: Callable[..., bool]) -> None:
    home = place.folder / "fedsup-node" / "flower"
    assert eventually(lambda: "SuperNode ID" in place.log())
    for write, why in ((write_foreign, "it holds "), (write_modified, "it holds fedsup_deploy/")):
        place.done(str(PROGRAMS / "flwr"), "run", str(write(place.folder)), "here")
        assert eventually((place.server / ANSWERS).exists)
        ((code, reason),) = json.loads((place.server / ANSWERS).read_text(encoding="utf-8"))
        assert code == INVALID_FAB
        assert f": {why}" in reason
        assert [line for line in place.log().split("\n") if reason in line] != []
        # The attack is one: on the server, which is Flower's own, the app has run.
        (place.server / MARK).unlink()
        (place.server / ANSWERS).unlink()
    assert not (home / MARK).exists()
    assert not (home / "apps").exists()
    assert "Traceback" not in place.log()
    said = place.done(
        sys.executable, "-m", "fedsup_deploy.cli.main", "fleet", "list", "--config", "server.yaml", "--json", "--quiet"
    )
    assert [each["name"] for each in json.loads(said)["devices"]] == ["camera"]
    # Nor is our own parcel written there.
    assert not (home / "apps").exists()
