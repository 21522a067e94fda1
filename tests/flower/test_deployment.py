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

from fedsup_deploy.config.client import ClientConfig
from fedsup_deploy.config.load import apply_overrides, dump, load_yaml, validate
from fedsup_deploy.data.dataset import load_dataset
from fedsup_deploy.engines.flower.environment import QUIET
from fedsup_deploy.errors import ConfigError
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
#: Where Flower's own command finds the SuperLink.
FLOWER = """
[superlink.fleet]
address = "localhost:{port}"
root-certificates = "{folder}/fleet/ca.crt"
"""
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
VERSION = RuntimeVersionHttpInterceptor(component_name="SuperNode")
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

    Attributes:
        server: By which name devices reach it.
    """

    server = "localhost"

    def __init__(self, children: Any, folder: Path) -> None:
        self._children, self.folder = children, folder
        self.port, self.outer_port = free_ports(2)
        self.own_ports: dict[str, int] = {}
        path = os.pathsep.join([str(PROGRAMS), os.environ["PATH"]])
        told = {"PATH": path, "TMPDIR": str(folder), "FLWR_HOME": str(folder / "flower")}
        self.environment = {**os.environ, **QUIET, **told}
        (folder / "server.yaml").write_text(CONFIG + "".join(ENGINE.findall(self.told("yaml"))), encoding="utf-8")
        (folder / "all.yaml").write_text(CONFIG + "data: {dataset: npz, root: all.npz}\n", encoding="utf-8")

    def own(self, name: str) -> tuple[str, ...]:
        """Return settings of a device: images that the test knows, and what two on one machine cannot share."""
        (self.own_ports[name],) = free_ports(1)
        data = f"data={{dataset: npz, root: {self.folder / name}.npz}}"
        return data, f"port={self.own_ports[name]}", f"folder={self.folder / name}-work", self.outside()[1]

    def outside(self) -> tuple[str, str]:
        """Return where devices reach the server, as an option of `fleet kit`."""
        return "--set", f"superlink={self.server}:{self.outer_port}"

    def edit(self, name: str) -> None:
        """Write these into the config of a device's kit, as its owner does."""
        path = self.folder / "kits" / name / f"{name}.yaml"
        # What a device calls itself does not count.
        document = apply_overrides(load_yaml(path), (*self.own(name), f"name={NAMES[0]}"))
        path.write_text(dump(validate(document, ClientConfig)), encoding="utf-8")

    def join(self, name: str, **variables: str) -> "subprocess.Popen[bytes]":
        """Start a device in the folder of its kit."""
        command = f"exec {self.told('sh', JOIN).replace('camera', name)}"
        return self.start("bash", "-euc", command, cwd=self.folder / "kits" / name, **variables)

    def told(self, language: str, number: int = 0) -> str:
        """Return a block of the page, as it is on this machine."""
        block = [code for each, code in FENCED.findall(SECTION) if each == language][number]
        for there, here in {
            "server.example": self.server,
            "9092": str(self.outer_port),
            "9093": str(self.port),
            "/home/me/fleet": str(self.folder / "fleet"),
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

    def flwr(self, *words: str) -> dict[str, Any]:
        """Return what a command of Flower's says, whatever its exit code."""
        command = [str(PROGRAMS / "flwr"), *words, "--format", "json"]
        ran = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        return dict(json.loads(ran.stdout[ran.stdout.index("{") :]))

    def connected(self, kind: Any, port: int, *interceptors: Any) -> Any:
        """Return a client of Flower's; only a device's own processes are asked without TLS."""
        root = None if port in self.own_ports.values() else (self.folder / "fleet" / "ca.crt").read_bytes()
        return kind.from_server_address(f"localhost:{port}", root is None, root, [VERSION, *interceptors])

    def log(self) -> str:
        """Return what all that was started has said."""
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")

    def start(self, *command: str, cwd: Path | None = None, **variables: str) -> "subprocess.Popen[bytes]":
        with (self.folder / "log").open("ab") as log:
            process: subprocess.Popen[bytes] = self._children.start(
                list(command), cwd=cwd or self.folder, env=self.environment | variables, stdout=log, stderr=log
            )
        return process

    def running(self, process: "subprocess.Popen[bytes]") -> list[int]:
        """Return the numbers of all that runs and comes from a process."""
        return list(self._children.running(process))

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


@contextlib.contextmanager
def served(children_type: Any, eventually: Callable[..., bool]) -> Iterator[Fleet]:
    """Yield a fleet with its SuperLink and proxy, and kits of devices that are registered and have not joined."""
    if nginx() is None:
        pytest.skip("nginx (install nginx-light)")
    folder = Path(tempfile.mkdtemp(prefix="test-", dir="/tmp"))
    with children_type() as children:
        fleet = Fleet(children, folder)
        write_images(folder)
        fleet.as_told(AUTHORITY)
        fleet.serve()
        (folder / "flower").mkdir(exist_ok=True)
        (folder / "flower" / "config.toml").write_text(FLOWER.format(port=fleet.port, folder=folder), encoding="utf-8")
        assert eventually(fleet.can_be_reached)
        fleet.as_told(KITS)
        for name in NAMES:
            fleet.edit(name)
        yield fleet
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def fleet(children_type: Any, eventually: Callable[..., bool]) -> Iterator[Fleet]:
    with served(children_type, eventually) as fleet:
        for name in NAMES:
            fleet.join(name)
        yield fleet


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
    fleet.ours("fleet", "kit", "desk", "old", "--config", "server.yaml", "--out", "kits", *fleet.outside())
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
    for port in (fleet.port, *(fleet.own_ports[name] for name in NAMES)):
        client = fleet.connected(RuntimeHttpClient, port)
        with contextlib.closing(client), pytest.raises(httpx.HTTPStatusError, match="401"):
            client.AcquireTask(AcquireTaskRequest(supported_task_types=["flwr-serverapp", "flwr-clientapp"]))


def test_a_superlink_does_not_outlive_the_process_that_asks_it_what_there_is_to_run(
    fleet: Fleet, eventually: Callable[..., bool]
) -> None:
    (port,) = free_ports(1)
    words = fleet.told("sh", SUPERLINK).strip().replace("--folder flower", "--folder other")
    process = fleet.start("bash", "-euc", f"exec {words} --port {port}")

    def is_there() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    assert eventually(is_there)
    process.kill()
    assert eventually(lambda: not is_there())


def test_a_certificate_that_the_authority_does_not_vouch_for_is_refused(fleet: Fleet) -> None:
    """Else no run would ever begin, and nobody would say why."""
    fleet.ours("fleet", "init", "--server", "localhost", "--out", "elsewhere")
    (port,) = free_ports(1)
    files = ("--authority", "elsewhere/ca.crt", "--certificate", "fleet/server.pem", "--key", "fleet/server.key")
    rest = ("--folder", "another", "--port", str(port))
    process = fleet.start(sys.executable, "-m", "fedsup_deploy.cli.main", "fleet", "serve", *files, *rest)
    assert process.wait(timeout=120) == ConfigError.exit_code
    assert "none for localhost that elsewhere/ca.crt vouches for" in fleet.log()


def test_a_device_cannot_ask_as_another(fleet: Fleet) -> None:
    """Its key says who it is: it cannot use another's number, even where it knows that."""
    with contextlib.closing(fleet.connected(ControlHttpClient, fleet.port)) as control:
        number = {each.name: each.node_id for each in control.ListNodes(ListNodesRequest()).nodes_info}
    key = load_ssh_private_key((fleet.folder / "kits" / "phone" / "phone.key").read_bytes(), None)
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
    context = ssl.create_default_context(cafile=fleet.folder / "fleet" / "ca.crt")
    connection = http.client.HTTPSConnection("localhost", fleet.outer_port, context=context)
    with contextlib.closing(connection):
        # As it stands: a client of higher level would tidy the path.
        connection.request("POST", path, b"", {"content-type": "application/x-protobuf"})
        assert connection.getresponse().status == 403


def test_the_proxy_takes_no_more_than_flower_sends_at_once(fleet: Fleet) -> None:
    context = ssl.create_default_context(cafile=fleet.folder / "fleet" / "ca.crt")
    connection = http.client.HTTPSConnection("localhost", fleet.outer_port, context=context)
    with contextlib.closing(connection):
        connection.request("POST", "/v1/fleet/push-object", headers={"content-length": str(17 * 2**20)})
        assert connection.getresponse().status == 413
