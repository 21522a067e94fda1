"""A real ssh server on this machine, with keys and a configuration of its own."""

import contextlib
import dataclasses
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from fedsup_deploy.device.remote.ssh import Access, SshHost, run_there

SERVER = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
PidFile none
AuthorizedKeysFile {folder}/client.pub
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
SetEnv TMPDIR={temporary} PIP_NO_INDEX=1 PIP_FIND_LINKS={folder}
"""

CLIENT = """
IdentityFile {folder}/client
IdentitiesOnly yes
IdentityAgent none
UserKnownHostsFile {folder}/known_hosts
GlobalKnownHostsFile /dev/null
"""


@dataclasses.dataclass(frozen=True)
class Server:
    """An ssh server.

    Args:
        process: Its first process.
        port: Where it listens, on the loopback interface.
        folder: Its keys and configuration, and those of the client.
        temporary: Where a program that it starts puts temporary files.
    """

    process: "subprocess.Popen[bytes]"
    port: int
    folder: Path
    temporary: Path

    @property
    def url(self) -> str:
        return f"ssh://127.0.0.1:{self.port}"

    def access(self, **changes: Any) -> Access:
        return Access(**{"target": SshHost.parse(self.url), "ssh_config": self.folder / "config", **changes})

    def configured(self, path: Path, **settings: str) -> Path:
        """Write a client configuration in which some settings are others."""
        lines = [f"{name} {value}" for name, value in settings.items()]
        path.write_text("\n".join(lines) + CLIENT.format(folder=self.folder), encoding="utf-8")
        return path

    def run(self, program: bytes, **changes: Any) -> list[str]:
        """Run a program that needs nothing, and return the lines it prints."""
        return list(run_there(self.access(**changes), {"program.py": program}, ["program.py"]))

    def words(self, *more: str) -> list[str]:
        """Return the options that lead here."""
        return ["--on", self.url, "--python", sys.executable, "--ssh-config", str(self.folder / "config"), *more]

    def cut(self, running: Iterable[Any]) -> None:
        """Kill what holds each connection; the server itself stays.

        Args:
            running: All processes.
        """
        connections = {self.process.pid}
        for one in sorted(running):
            if one.parent in connections and one.name.startswith("sshd"):
                connections.add(one.pid)
                os.kill(one.pid, signal.SIGKILL)

    def is_clean(self) -> bool:
        return list(self.temporary.iterdir()) == []


def make_key(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)], check=True)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def is_open(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def serving(sshd: Path, children: Any, eventually: Any, folder: Path, temporary: Path) -> Iterator[Server]:
    """Run an ssh server; arguments as of `Server`, and the fixtures of their names."""
    port = free_port()
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd wants it when it is root's
    for name in ("host", "client", "stranger"):
        make_key(folder / name)
    (folder / "sshd_config").write_text(SERVER.format(port=port, folder=folder, temporary=temporary))
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} " + (folder / "host.pub").read_text())
    with (folder / "sshd.log").open("wb") as log:
        process = children.start([sshd, "-D", "-e", "-f", folder / "sshd_config"], stderr=log)
        server = Server(process, port, folder, temporary)
        server.configured(folder / "config")
        assert eventually(lambda: process.poll() is not None or is_open(port))
        assert process.poll() is None, (folder / "sshd.log").read_text()
        yield server
        process.terminate()
        process.wait()
