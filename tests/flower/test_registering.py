"""Who is let in and who is not any more, at a SuperLink that `fleet serve` runs, by the command line."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_deployment import free_ports

from fedsup_deploy.cli.main import main
from fedsup_deploy.commands.fleet_init import fleet_init
from fedsup_deploy.engines.flower.deployment import registered_at
from fedsup_deploy.engines.flower.keys import device_key
from fedsup_deploy.errors import ConfigError, FederationError

SERVER = """
schema: 1
name: fleet
space: digits
data: {{dataset: devices, root: devices.json}}
partition: {{kind: natural}}
strategy: {{name: fedavg}}
training: {{rounds: 2, warmup_rounds: 1}}
engine: {{name: flower, superlink: "localhost:{port}", root_certificates: {authority}}}
"""
#: What `ssh-keygen -t ed25519` writes.
ED25519 = b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJQyHIyJhEMQHk0Bp4WuPzZ8lQGtWSnCyaLFMZQfN7Lx a\n"


class Office:
    """Where devices are registered, from a folder.

    Args:
        folder: Of the server.
        port: Of its SuperLink.
    """

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port

    def config(self, name: str = "server", authority: str = "fleet/ca.crt", port: int | None = None) -> str:
        path = self.folder / f"{name}.yaml"
        path.write_text(SERVER.format(port=port or self.port, authority=self.folder / authority), encoding="utf-8")
        return str(path)

    def key(self, name: str) -> Path:
        """Return the file of a new public key."""
        path = self.folder / f"{name}.key.pub"
        path.write_bytes(device_key().public)
        return path

    def register(self, *keys: Path) -> int:
        return main(["fleet", "register", *map(str, keys), "--config", self.config(), "--json"])

    def unregister(self, *names: str) -> int:
        return main(["fleet", "unregister", *names, "--config", self.config(), "--json"])

    def names(self) -> tuple[str, ...]:
        with registered_at(f"localhost:{self.port}", self.folder / "fleet" / "ca.crt") as devices:
            return devices.names()


@pytest.fixture(scope="module")
def served(children_type: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    """A SuperLink, at which nobody is registered; it keeps who is from one test to the next."""
    folder = tmp_path_factory.mktemp("office")
    fleet_init(("localhost",), folder / "fleet", 30)
    fleet_init(("localhost",), folder / "foreign", 30)
    (port,) = free_ports(1)
    of = folder / "fleet"
    files = ("--authority", of / "ca.crt", "--certificate", of / "server.pem", "--key", of / "server.key")
    rest = ("--folder", folder / "flower", "--port", str(port), "--quiet")
    with children_type() as children, (folder / "log").open("wb") as log:
        command = [sys.executable, "-m", "fedsup_deploy.cli.main", "fleet", "serve", *files, *rest]
        children.start(list(map(str, command)), stdout=log, stderr=subprocess.STDOUT)
        yield Office(folder, port)


@pytest.fixture
def office(served: Office, eventually: Callable[..., bool]) -> Office:
    def answers() -> bool:
        try:
            served.names()
        except FederationError:
            return False
        return True

    assert eventually(answers)
    for name in served.names():
        assert served.unregister(name) == 0
    return served


def test_a_device_that_is_unregistered_is_known_no_more(office: Office, capsys: pytest.CaptureFixture[str]) -> None:
    assert office.register(office.key("camera"), office.key("phone")) == 0
    capsys.readouterr()
    assert office.unregister("camera") == 0
    assert json.loads(capsys.readouterr().out) == {"unregistered": ["camera"], "registered": ["phone"]}
    assert office.names() == ("phone",)


def test_a_key_that_was_unregistered_never_comes_back_and_a_new_one_does(
    office: Office, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever has the lost device has its key."""
    lost = office.key("camera")
    assert office.register(lost) == office.unregister("camera") == 0
    assert office.register(lost) == FederationError.exit_code
    assert "camera.key.pub: Flower has not taken the key of camera: " in capsys.readouterr().err
    assert office.register(office.key("camera")) == 0


def test_a_name_is_one_devices(office: Office, capsys: pytest.CaptureFixture[str]) -> None:
    """Else the key of a device that was lost would be good beside that of the one that took its place."""
    assert office.register(office.key("camera")) == 0
    assert office.register(office.key("phone"), office.key("camera")) == FederationError.exit_code
    told = "registered already: camera; before a new key of theirs: fedsup-deploy fleet unregister camera"
    assert told in capsys.readouterr().err
    assert office.names() == ("camera",)


def test_nobody_is_unregistered_where_one_name_is_unknown(office: Office, capsys: pytest.CaptureFixture[str]) -> None:
    assert office.register(office.key("camera"), office.key("phone")) == 0
    assert office.unregister("camera", "phnoe") == ConfigError.exit_code
    assert "got device 'phnoe', which is not registered; registered: camera, phone" in capsys.readouterr().err
    assert office.names() == ("camera", "phone")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("no", b"a line\n", "no.key.pub: no public key, expected that of `ssh-keygen -t ecdsa -b 384`"),
        ("empty", b"", "empty.key.pub: no public key"),
        ("large", b"x" * 2**15, "large.key.pub: it has more than 16,384 bytes"),
        ("private", device_key().private, "private.key.pub: no public key"),
        ("ed25519", ED25519, "another kind"),
        ("ca mera", device_key().public, "got device name 'ca mera', expected letters, digits"),
        ("k\u00e4mera", device_key().public, r"got device name 'k\xe4mera'"),
        ("a\x1b[31mb\n", device_key().public, r"got device name 'a\x1b[31mb\n'"),
        ("-rf", device_key().public, "got device name '-rf'"),
        ("n" * 65, device_key().public, "at most 64"),
    ],
)
def test_what_is_no_key_of_a_device_is_refused_before_anybody_is_registered(
    office: Office, capsys: pytest.CaptureFixture[str], name: str, content: bytes, told: str
) -> None:
    path = office.folder / f"{name}.key.pub"
    path.write_bytes(content)
    assert office.register(office.key("camera"), path) == ConfigError.exit_code
    captured = capsys.readouterr()
    assert told in captured.err
    assert len(captured.err.splitlines()) == 1
    assert office.names() == ()


def test_a_superlink_that_cannot_be_asked_is_told_of_in_one_line(
    office: Office, capsys: pytest.CaptureFixture[str]
) -> None:
    (free,) = free_ports(1)
    (office.folder / "broken.crt").write_text("no certificate", encoding="ascii")
    for config, code, told in (
        (office.config("elsewhere", port=free), FederationError.exit_code, "cannot be reached: "),
        (office.config("foreign", "foreign/ca.crt"), FederationError.exit_code, "does not vouch for: "),
        (office.config("broken", "broken.crt"), ConfigError.exit_code, "expected the ca.crt of fleet init"),
        (office.config("missing", "missing.crt"), ConfigError.exit_code, "expected the ca.crt of fleet init"),
    ):
        for words in (("register", str(office.key("camera"))), ("unregister", "camera"), ("list",)):
            assert main(["fleet", *words, "--config", config]) == code
            captured = capsys.readouterr()
            assert told in captured.err
            assert len(captured.err.splitlines()) == 1, captured.err
    assert office.names() == ()
