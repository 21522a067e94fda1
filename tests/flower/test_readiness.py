"""What is wrong on a server or a device before Flower's programs are started: one line says it, and nothing is left."""

import contextlib
import datetime
import itertools
import json
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_deployment import free_ports
from test_registering import Office, office, served

from fedsup_deploy.cli.main import main
from fedsup_deploy.commands import fleet_serve
from fedsup_deploy.commands.fleet_init import fleet_init
from fedsup_deploy.config.load import apply_overrides, load_yaml
from fedsup_deploy.data.dataset import load_dataset
from fedsup_deploy.errors import ConfigError, FederationError, OutputError

#: Fixtures.
__all__ = ["office", "served"]
LONG_AGO = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)


@contextlib.contextmanager
def listening() -> Iterator[int]:
    """Yield a port that another program has."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen(1)
        yield other.getsockname()[1]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a server; the current one."""
    monkeypatch.chdir(tmp_path)
    fleet_init(("server.example",), Path("fleet"), 30)
    fleet_init(("server.example",), Path("foreign"), 30)
    fleet_init(("server.example",), Path("old"), 1, Path("fleet"), now=LONG_AGO)
    Path("no.pem").write_text("a text\n", encoding="ascii")
    return tmp_path


def serve(authority: str, certificate: str, key: str, *words: str) -> int:
    (port,) = free_ports(1)
    files = ("--authority", authority, "--certificate", certificate, "--key", key)
    return main(["fleet", "serve", *files, "--folder", "flower", "--port", str(port), *words])


def told(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line that was told."""
    (line,) = capsys.readouterr().err.splitlines()
    return str(line)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (("no.pem", "fleet/server.pem", "fleet/server.key"), "--authority: no.pem: "),
        (("fleet/ca.crt", "no.pem", "fleet/server.key"), "no.pem is not the certificate of the key fleet/server.key"),
        (("fleet/ca.crt", "fleet/server.pem", "fleet/ca.key"), "fleet/server.pem is not the certificate of the key"),
        (("fleet/ca.crt", "fleet/server.pem", "no.pem"), "fleet/server.pem is not the certificate of the key no.pem"),
        (
            ("foreign/ca.crt", "fleet/server.pem", "fleet/server.key"),
            "none for localhost that foreign/ca.crt vouches for",
        ),
        (("fleet/ca.crt", "old/server.pem", "old/server.key"), "certificate has expired"),
    ],
)
def test_a_certificate_that_devices_would_refuse_is_not_served(
    folder: Path, capsys: pytest.CaptureFixture[str], files: tuple[str, str, str], words: str
) -> None:
    assert serve(*files) == ConfigError.exit_code
    assert words in told(capsys)
    assert not (folder / "flower").exists()


def test_a_server_is_served_where_nobody_else_listens_and_under_a_name_of_its_certificate(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    of = ("fleet/ca.crt", "fleet/server.pem", "fleet/server.key")
    with listening() as port:
        assert serve(*of, "--port", str(port)) == ConfigError.exit_code
        assert f"--port: cannot listen on 127.0.0.1:{port}: address already in use" in told(capsys)
    for host, words in (
        ("10.1.2.3", "none for 10.1.2.3 that fleet/ca.crt vouches for"),
        ("nosuch.invalid", "none for nosuch.invalid that"),
        ("server.example", "cannot listen on server.example:"),
    ):
        assert serve(*of, "--host", host) == ConfigError.exit_code
        assert words in told(capsys)
    assert not (folder / "flower").exists()


def test_two_superlinks_do_not_share_a_folder(office: Office, capsys: pytest.CaptureFixture[str]) -> None:
    """Each would take the other's runs and devices for its own."""
    of = office.folder / "fleet"
    files = (str(of / "ca.crt"), str(of / "server.pem"), str(of / "server.key"))
    assert serve(*files, "--folder", str(office.folder / "flower"), "--quiet") == OutputError.exit_code
    assert "name another --folder" in told(capsys)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")
@pytest.mark.parametrize("is_there", [True, False])
def test_what_a_superlink_keeps_only_its_user_can_read(folder: Path, *, is_there: bool) -> None:
    """Tokens of runs that go on are in it. What stands for Flower's program keeps a file, as that does."""
    kept = folder / "flower"
    if is_there:
        kept.mkdir(mode=0o755)
        (kept / "state.db").touch(mode=0o644)
    program = ["/bin/sh", "-c", f"echo > '{kept}/new'"]
    with pytest.raises(FederationError, match=r"ended with exit code 0"):
        fleet_serve.serve(program, ("127.0.0.1", *free_ports(1)), folder / "fleet" / "ca.crt", kept)
    assert {mode_of(path) for path in kept.glob("[sn]*")} == {0o600}
    # It may have been made for more than that.
    assert mode_of(kept) == (0o755 if is_there else 0o700)


@pytest.fixture
def device(office: Office, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    """Return the command of a device of the office, with settings of its own; it is not registered."""
    kit = ["fleet", "kit", "camera", "--config", office.config(), "--out", str(tmp_path / "kits")]
    assert main([*kit, "--set", f"superlink=localhost:{office.port}"]) == 0
    capsys.readouterr()
    images = load_dataset("digits", None).train
    arrays: dict[str, Any] = {}
    for kind in ("train", "test"):
        arrays |= {f"{kind}_images": images.images_NHWC[:40], f"{kind}_labels": images.labels_N[:40]}
    np.savez(tmp_path / "images.npz", classes=np.array(images.classes), **arrays)
    (tmp_path / "text").write_text("a text\n", encoding="ascii")
    shutil.copy(office.folder / "foreign" / "ca.crt", tmp_path / "foreign.crt")

    def command(*settings: str) -> list[str]:
        path = tmp_path / "kits" / "camera" / "camera.yaml"
        own = ("data={dataset: npz, root: ../../images.npz}", "folder=../../work", f"port={free_ports(1)[0]}")
        document = apply_overrides(load_yaml(path), (*own, *settings)).data
        changed = path.with_name("changed.yaml")
        changed.write_text(json.dumps(document), encoding="utf-8")
        return ["client", "--config", str(changed)]

    return command


@pytest.mark.parametrize(
    ("setting", "code", "words"),
    [
        ("key=../../text", ConfigError.exit_code, "text: no private key without a password, expected that of"),
        ("key=camera.key.pub", ConfigError.exit_code, "camera.key.pub: no private key"),
        ("key=nowhere", ConfigError.exit_code, "key: no file "),
        ("root_certificates=../../text", ConfigError.exit_code, "text: no start line"),
        ("root_certificates=null", ConfigError.exit_code, "key: needs root_certificates"),
        ("superlink=localhost:99999", ConfigError.exit_code, "expected host:port, with a port from 1 to 65535"),
        ("superlink=localhost:0", ConfigError.exit_code, "expected host:port, with a port from 1 to 65535"),
        ("folder=../../text/work", OutputError.exit_code, "cannot write "),
        ("folder=/proc/nothing", OutputError.exit_code, "cannot write /proc/nothing/flower: "),
    ],
)
def test_what_a_device_lacks_is_said_before_it_connects(
    device: Callable[..., list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    setting: str,
    code: int,
    words: str,
) -> None:
    assert main(device(setting)) == code
    assert words in told(capsys)
    assert not (tmp_path / "work").exists()


def test_two_devices_of_one_machine_have_a_port_each(
    device: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    with listening() as port:
        assert main(device(f"port={port}")) == ConfigError.exit_code
    assert f"port: cannot listen on 127.0.0.1:{port}: address already in use; choose another" in told(capsys)


def test_who_was_let_in_before_is_told_at_once_that_its_key_may_be_forgotten(
    device: Callable[..., list[str]], tmp_path: Path, children: Any
) -> None:
    """Flower says the same of a device that its server has not missed yet, so it goes on trying for a while."""
    (tmp_path / "work" / "flower").mkdir(parents=True)
    (tmp_path / "work" / "flower" / "let-in").touch()
    command = [sys.executable, "-m", "fedsup_deploy.cli.main", *device()]
    process = children.start(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    [first] = itertools.islice((line for line in process.stderr if "; again in " in line), 1)
    assert "not let in: its server has not missed it yet, or does not know its key any more" in first
    children.end(process)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ((), "its key is not registered there, or another device that has the same key is connected"),
        (("key=null",), "it lets in devices with a key alone; set key"),
        (("root_certificates=../../foreign.crt",), "root_certificates does not vouch for its certificate"),
    ],
)
def test_who_is_not_let_in_is_told_why_in_the_last_line(
    device: Callable[..., list[str]], tmp_path: Path, children: Any, settings: tuple[str, ...], words: str
) -> None:
    command = [sys.executable, "-m", "fedsup_deploy.cli.main", *device(*settings)]
    process = children.start(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    _, said = process.communicate(timeout=900)
    assert process.returncode == FederationError.exit_code
    last = said.splitlines()[-1]
    assert last.startswith("error: the SuperLink does not let this device in: ")
    assert words in last
    assert mode_of(tmp_path / "work" / "flower") == 0o700
    assert children.survivors(process) == []
