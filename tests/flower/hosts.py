"""Hosts of their own on one machine: network namespaces, each joined to the server's by a link that can be shaped.

Linux alone does it, for whoever is root and has `ip` and `tc` (Debian's iproute2): bandwidth by a queue (`tbf`), a cut
by taking the link down. What such a queue cannot do, delay, silence and resets, a relay on the node does (`wire.py`).
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

WIRE = Path(__file__).with_name("wire.py")
#: The server's address, from every host.
ADDRESS = "10.77.0.1"
SERVER = "server"
#: Debian has them where only root looks.
IP, TC = (shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin") for name in ("ip", "tc"))


def missing() -> str:
    """Return what this machine lacks for namespaces, and how to get it; empty where nothing is."""
    if IP is None or TC is None:
        return "ip and tc (install iproute2)"
    name = f"probe-{uuid.uuid4().hex[:6]}"
    try:
        _run(IP, "netns", "add", name)
    except subprocess.CalledProcessError:
        return "network namespaces (run as root, on a Linux that allows them)"
    _run(IP, "netns", "del", name)
    return ""


class Hosts:
    """A server, and nodes that reach it, and nothing else, by a link each. To be used with `with`.

    Args:
        nodes: Their names.
        children: Starts processes; needed for relays.
    """

    def __init__(self, nodes: Sequence[str], children: Any) -> None:
        self._nodes, self._children = tuple(nodes), children
        self._prefix = f"t{uuid.uuid4().hex[:5]}"
        self._wires: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> "Hosts":
        for host in (SERVER, *self._nodes):
            _run(IP, "netns", "add", self._called(host))
            self._ip(host, "link set lo up")
        self._ip(SERVER, f"addr add {ADDRESS}/32 dev lo")
        for number, node in enumerate(self._nodes, 1):
            here, there = f"to-{number}", "to-server"
            self._ip(SERVER, f"link add {here} type veth peer name {there} netns {self._called(node)}")
            for host, device, end in ((SERVER, here, 1), (node, there, 2)):
                self._ip(host, f"addr add 10.77.{number}.{end}/24 dev {device}")
                self._ip(host, f"link set {device} up")
            self._ip(node, f"route add {ADDRESS} via 10.77.{number}.1")
        return self

    def __exit__(self, *_: object) -> None:
        for host in (SERVER, *self._nodes):
            with contextlib.suppress(subprocess.CalledProcessError):
                _run(IP, "netns", "del", self._called(host))

    def on(self, host: str, *command: str) -> list[str]:
        """Return the command line that runs a command on a host; it is of the command's own process."""
        return [str(IP), "netns", "exec", self._called(host), *command]

    def shape(self, node: str, mbit: float | None) -> None:
        """Limit a link to so many Mbit/s in either direction, or to none."""
        for host, device in ((SERVER, self._here(node)), (node, "to-server")):
            self._tc(host, f"qdisc del dev {device} root", is_sure=False)
            if mbit is not None:
                self._tc(host, f"qdisc add dev {device} root tbf rate {mbit:g}mbit burst 16kbit latency 400ms")

    @contextlib.contextmanager
    def cut(self, node: str) -> Iterator[None]:
        """Have no link for a while; nobody is told."""
        self._ip(SERVER, f"link set {self._here(node)} down")
        try:
            yield
        finally:
            self._ip(SERVER, f"link set {self._here(node)} up")

    def bytes_of(self, node: str) -> tuple[int, int]:
        """Return how many bytes have gone to a node and come from it over its link, with the headers of each packet."""
        said = _run(IP, "-n", self._called(SERVER), "-s", "-j", "link", "show", self._here(node))
        counts = json.loads(said)[0]["stats64"]
        return int(counts["tx"]["bytes"]), int(counts["rx"]["bytes"])

    def through_wire(self, node: str, port: int) -> None:
        """Have all that a node sends to a port of the server go through a relay on it, which `tell` changes."""
        self._ip(node, f"addr add {ADDRESS}/32 dev lo")
        to = f"10.77.{1 + self._nodes.index(node)}.1"
        command = self.on(node, sys.executable, "-I", str(WIRE), ADDRESS, to, str(port))
        self._wires[node] = self._children.start(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._answer(node)

    def tell(self, node: str, what: str) -> str:
        """Tell the relay of a node something (`wire.py`); return what it says to that, once it is so."""
        stdin = self._wires[node].stdin
        assert stdin is not None
        stdin.write(f"{what}\n".encode())
        stdin.flush()
        return self._answer(node)

    def _answer(self, node: str) -> str:
        stdout = self._wires[node].stdout
        assert stdout is not None
        return stdout.readline().decode().strip()

    def _called(self, host: str) -> str:
        return f"{self._prefix}-{host}"

    def _here(self, node: str) -> str:
        return f"to-{1 + self._nodes.index(node)}"

    def _ip(self, host: str, words: str) -> None:
        _run(IP, "-n", self._called(host), *words.split())

    def _tc(self, host: str, words: str, *, is_sure: bool = True) -> None:
        with contextlib.nullcontext() if is_sure else contextlib.suppress(subprocess.CalledProcessError):
            _run(TC, "-n", self._called(host), *words.split())


def _run(*command: str | None) -> str:
    ran = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=True)
    return ran.stdout
