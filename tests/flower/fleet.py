"""The fleet of docs/fleet.md on hosts of their own: a SuperLink, devices that can be lost, and runs over them."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hosts import ADDRESS, SERVER, Hosts
from test_deployment import AUTHORITY, JOIN, KITS, NAMES, Fleet, write_images

from fedsup_deploy.runs.run import EVENTS


class FarFleet(Fleet):
    """A fleet whose devices are on hosts of their own.

    Args:
        children: Starts processes.
        folder: Where everything is.
        hosts: For the server and each device.
        eventually: Waits until something is so.
        config: Of a run, without images and engine; None: as of `Fleet`.
    """

    server = ADDRESS

    def __init__(
        self, children: Any, folder: Path, hosts: Hosts, eventually: Callable[..., bool], config: str | None = None
    ) -> None:
        super().__init__(children, folder)
        self.hosts, self._eventually = hosts, eventually
        self.started: dict[str, subprocess.Popen[bytes]] = {}
        if config is not None:
            own = re.compile(r"^(?:data|engine): .*\n", re.MULTILINE)
            for name in ("server", "all"):
                path = folder / f"{name}.yaml"
                path.write_text(config + "".join(own.findall(path.read_text(encoding="utf-8"))), encoding="utf-8")

    def own(self, name: str) -> tuple[str, ...]:
        """Return settings of a device: of the first one the first tier, and so on."""
        return (*super().own(name), f"tier={NAMES.index(name)}")

    def done(self, *command: str) -> str:
        """Carry out a command on the server."""
        return super().done(*self.hosts.on(SERVER, *command))

    def set_up(self, write: Callable[[Path], None] = write_images) -> None:
        """Begin as the page does: authority, SuperLink, proxy, kits, devices, and the list of these."""
        write(self.folder)
        self.as_told(AUTHORITY)
        self.start_on(SERVER, "proxy", *self.proxy())
        self.start_superlink()
        self.as_told(KITS)
        for name in NAMES:
            self.edit(name)
            self.join(name)
        self.ours("fleet", "list", "--config", "server.yaml", "--devices", str(len(NAMES)))

    def start_on(self, host: str, log: str, *command: str, cwd: Path | None = None) -> "subprocess.Popen[bytes]":
        """Start a command on a host; what it prints is added to a file."""
        with (self.folder / f"{log}.log").open("ab") as file:
            process: subprocess.Popen[bytes] = self._children.start(
                self.hosts.on(host, *command), cwd=cwd or self.folder, env=self.environment, stdout=file, stderr=file
            )
        return process

    def start_ours(self, log: str, *words: str) -> "subprocess.Popen[bytes]":
        """Start a command of ours on the server."""
        return self.start_on(SERVER, log, sys.executable, "-m", "fedsup_deploy.cli.main", *words)

    def start_superlink(self) -> None:
        """Start the SuperLink as the page does, and wait until it can be reached."""
        self.started[SERVER] = self.start_on(SERVER, SERVER, *self.superlink())
        assert self._eventually(self.can_be_reached)

    def join(self, name: str, **_: str) -> "subprocess.Popen[bytes]":
        """Have a device join, as the page does, in the folder of its kit."""
        command = self.told("sh", JOIN).replace("camera", name)
        folder = self.folder / "kits" / name
        self.started[name] = self.start_on(name, name, "bash", "-euc", f"exec {command}", cwd=folder)
        return self.started[name]

    def kill(self, name: str) -> None:
        """Kill all processes of a device or of the SuperLink at once, as a power cut does."""
        self._children.end(self.started.pop(name))

    def send(self, name: str, number: int) -> None:
        """Send a signal to all processes of a device or of the SuperLink."""
        for pid in self._children.running(self.started[name]):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    @contextlib.contextmanager
    def slowed(self, name: str, times: int) -> Iterator[None]:
        """Let a device have one part in so many of its time for a while, as a processor that is so much slower."""
        is_over = threading.Event()

        def alternate() -> None:
            while not is_over.is_set():
                self.send(name, signal.SIGSTOP)
                is_over.wait(1 - 1 / times)
                self.send(name, signal.SIGCONT)
                is_over.wait(1 / times)

        thread = threading.Thread(target=alternate)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()
            self.send(name, signal.SIGCONT)

    def pids(self, host: str, name: str) -> list[int]:
        """Return the processes of a host that have a name, of 15 letters at most."""
        found = self._children.running(self.started[host])
        return [pid for pid in found if Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip() == name]

    def can_be_reached(self) -> bool:
        """Return whether the SuperLink can be."""
        where = (("127.0.0.1", self.port), (ADDRESS, self.outer_port))
        probe = f"import socket; [socket.create_connection(each).close() for each in {where}]"
        command = self.hosts.on(SERVER, sys.executable, "-ISc", probe)
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def log(self, name: str) -> str:
        """Return what somebody has printed."""
        return (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def rounds(self, run: str) -> list[dict[str, Any]]:
        """Return the rounds of a run that are done."""
        path = self.folder / run / EVENTS
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [event for event in map(json.loads, lines) if event["event"] == "round"]
