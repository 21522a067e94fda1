"""A server and two devices, with TLS and node keys, by the very commands of docs/fleet.md.

All are processes of this machine, which share nothing but a port.
"""

import contextlib
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.proto.control_pb2 import ListNodesRequest
from flwr.proto.fleet_pb2 import PullMessagesRequest, PushMessagesRequest, UnregisterNodeFleetRequest
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor
from stranger import MARK, write_foreign, write_modified

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
#: What a configuration of nginx has around what the page tells, where it is not the machine's only one.
NGINX = """
daemon off;
master_process off;
pid nginx.pid;
events {{}}
http {{
access_log off;
client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fast; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
{told}
}}
"""
SELF_SIGNED = (
    *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=other"),
    *("-keyout", "other.key", "-out", "other.crt"),
)
VERSION = RuntimeVersionHttpInterceptor(component_name="SuperNode")
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

    Attributes:
        server: By which name devices reach it.
    """

    server = "localhost"

    def __init__(self, children: Any, folder: Path) -> None:
        self._children, self.folder = children, folder
        self.port, self.outer_port, *self.own_ports = free_ports(2 + len(NAMES))
        path = os.pathsep.join([str(PROGRAMS), os.environ["PATH"]])
        told = {"PATH": path, "TMPDIR": str(folder), "FLWR_HOME": str(folder / "flower")}
        self.environment = {**os.environ, **QUIET, **told}
        (folder / "flower").mkdir()
        (folder / "flower" / "config.toml").write_text(self.told("toml"), encoding="utf-8")
        (folder / "server.yaml").write_text(CONFIG + "".join(ENGINE.findall(self.told("yaml", 1))), encoding="utf-8")
        (folder / "all.yaml").write_text(CONFIG + "data: {dataset: npz, root: all.npz}\n", encoding="utf-8")
        for name, own_port in zip(NAMES, self.own_ports, strict=True):
            # Images that the test knows, and what two devices of one machine cannot share.
            own = f"data: {{dataset: npz, root: {name}.npz}}\nport: {own_port}\nfolder: {name}-work\n"
            text = re.sub(r"^(data|tier): .*\n", "", self.told("yaml").replace("camera", name), flags=re.MULTILINE)
            # What a device calls itself does not count.
            (folder / f"{name}.yaml").write_text(text.replace("name: phone", "name: camera") + own, encoding="utf-8")

    def told(self, language: str, number: int = 0) -> str:
        """Return a block of the page, as it is on this machine."""
        block = [code for each, code in FENCED.findall(SECTION) if each == language][number]
        for there, here in {
            "server.example": self.server,
            "9092": str(self.outer_port),
            "9093": str(self.port),
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

    def flwr(self, *words: str) -> dict[str, Any]:
        """Return what a command of Flower's says, whatever its exit code."""
        command = [str(PROGRAMS / "flwr"), *words, "--format", "json"]
        ran = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        return dict(json.loads(ran.stdout[ran.stdout.index("{") :]))

    def connected(self, kind: Any, port: int, *interceptors: Any) -> Any:
        """Return a client of Flower's; only a device's own processes are asked without TLS."""
        root = None if port in self.own_ports else (self.folder / "ca.crt").read_bytes()
        return kind.from_server_address(f"localhost:{port}", root is None, root, [VERSION, *interceptors])

    def log(self) -> str:
        """Return what all that was started has said."""
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")

    def start(self, *command: str) -> "subprocess.Popen[bytes]":
        with (self.folder / "log").open("ab") as log:
            process: subprocess.Popen[bytes] = self._children.start(
                list(command), cwd=self.folder, env=self.environment, stdout=log, stderr=log
            )
        return process

    def serve(self) -> None:
        """Start the SuperLink, and the proxy before it, as told."""
        self.start(*self.superlink())
        self.start(*self.proxy())

    def superlink(self) -> list[str]:
        """Return the command of the SuperLink."""
        return ["bash", "-euc", f"exec {self.told('sh', SUPERLINK).strip()} --port {self.port}"]

    def proxy(self) -> list[str]:
        """Return the command of the proxy, whose configuration is written."""
        (self.folder / "nginx.conf").write_text(NGINX.format(told=self.told("nginx")), encoding="utf-8")
        return [str(nginx()), "-p", str(self.folder), "-c", "nginx.conf", "-e", "nginx.log"]

    def can_be_reached(self) -> bool:
        def answers(port: int) -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        return answers(self.port) and answers(self.outer_port)


def heartbeat(node: int) -> SendNodeHeartbeatRequest:
    return SendNodeHeartbeatRequest(node=Node(node_id=node), heartbeat_interval=30)


def nginx() -> str | None:
    return shutil.which("nginx", path=os.pathsep.join((os.environ["PATH"], "/usr/sbin")))


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
    if nginx() is None:
        pytest.skip("nginx (install nginx-light)")
    folder = Path(tempfile.mkdtemp(prefix="test-", dir="/tmp"))
    with children_type() as children:
        fleet = Fleet(children, folder)
        write_images(folder)
        fleet.as_told(AUTHORITY)
        fleet.serve()
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


def test_an_app_of_a_stranger_is_not_run(fleet: Fleet) -> None:
    """Who reaches the control interface can submit one without being asked who it is; that is all."""
    for write in (write_foreign, write_modified):
        number = fleet.flwr("run", str(write(fleet.folder)), "fleet")["run-id"]
        # Ours that is submitted afterwards is taken afterwards, and goes on.
        fleet.ours("fleet", "list", "--config", "server.yaml", "--devices", str(len(NAMES)))
        (run,) = fleet.flwr("list", "fleet", "--run-id", number)["runs"]
        assert run["status"] == "finished:failed"
        assert f"refused run {number}: its parcel is " in fleet.log()
        assert run["status-details"] in fleet.log()
    assert list(fleet.folder.rglob(MARK)) == []


def test_nobody_else_is_told_what_there_is_to_run(fleet: Fleet) -> None:
    """Who is could speak for a run: to the devices in place of the server, and to the server in place of a device."""
    for port in (fleet.port, *fleet.own_ports):
        client = fleet.connected(RuntimeHttpClient, port)
        with contextlib.closing(client), pytest.raises(httpx.HTTPStatusError, match="401"):
            client.AcquireTask(AcquireTaskRequest(supported_task_types=["flwr-serverapp", "flwr-clientapp"]))


def test_a_device_cannot_ask_as_another(fleet: Fleet) -> None:
    """Its key says who it is: it cannot use another's number, even where it knows that."""
    with contextlib.closing(fleet.connected(ControlHttpClient, fleet.port)) as control:
        number = {each.name: each.node_id for each in control.ListNodes(ListNodesRequest()).nodes_info}
    key = load_ssh_private_key((fleet.folder / "phone.key").read_bytes(), None)
    assert isinstance(key, EllipticCurvePrivateKey)
    client = fleet.connected(FleetHttpClient, fleet.outer_port, NodeAuthHttpInterceptor(key, key.public_key()))
    with contextlib.closing(client):
        assert client.SendNodeHeartbeat(heartbeat(number["phone"])).success
        for ask in (
            lambda: client.SendNodeHeartbeat(heartbeat(number["camera"])),
            lambda: client.PullMessages(PullMessagesRequest(node=Node(node_id=number["camera"]))),
            lambda: client.PushMessages(PushMessagesRequest(node=Node(node_id=number["camera"]))),
            lambda: client.UnregisterNode(UnregisterNodeFleetRequest(node_id=number["camera"])),
        ):
            with pytest.raises(httpx.HTTPStatusError, match="401"):
                ask()


@pytest.mark.parametrize(
    "path",
    [
        *("/v1/control/list-runs", "/v1/control/start-run", "/v1/control/register-node", "/v1/runtime/acquire-task"),
        *("/v1/responses", "/health", "/docs", "/openapi.json", "/"),
        *("/v1/fleet/../control/list-runs", "/v1/fleet/%2e%2e/control/list-runs", "/v1/fleet/..%2fcontrol/list-runs"),
        *("/v1/fleet/pull-messages/../../control/list-runs", "//v1/control/list-runs", "/v1/fleet/", "/v1/fleet/a/b"),
    ],
)
def test_through_the_proxy_nobody_reaches_more_than_devices_need(fleet: Fleet, path: str) -> None:
    context = ssl.create_default_context(cafile=fleet.folder / "ca.crt")
    connection = http.client.HTTPSConnection("localhost", fleet.outer_port, context=context)
    with contextlib.closing(connection):
        # As it stands: a client of higher level would tidy the path.
        connection.request("POST", path, b"", {"content-type": "application/x-protobuf"})
        assert connection.getresponse().status == 403


def test_the_proxy_takes_no_more_than_flower_sends_at_once(fleet: Fleet) -> None:
    context = ssl.create_default_context(cafile=fleet.folder / "ca.crt")
    connection = http.client.HTTPSConnection("localhost", fleet.outer_port, context=context)
    with contextlib.closing(connection):
        connection.request("POST", "/v1/fleet/push-object", headers={"content-length": str(17 * 2**20)})
        assert connection.getresponse().status == 413


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
