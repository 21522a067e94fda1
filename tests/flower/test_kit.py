"""What an operator makes once for a fleet, and for each device: keys that nobody else sees, in folders of their own."""

import configparser
import datetime
import json
import shutil
import ssl
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from fedsup_deploy.cli.main import main
from fedsup_deploy.commands.fleet_init import fleet_init
from fedsup_deploy.config.client import load_client_config
from fedsup_deploy.engines.flower.keys import device_key
from fedsup_deploy.errors import ConfigError, OutputError
from fedsup_deploy.version import __version__

SERVER = """
schema: 1
name: fleet
space: digits
data: {dataset: devices, root: devices.json}
partition: {kind: natural}
strategy: {name: fedsup, num_subnets: 2}
training: {rounds: 2, warmup_rounds: 1}
engine: {name: flower, superlink: "server.example:9092", root_certificates: fleet/ca.crt}
"""
NOW = datetime.datetime(2026, 11, 28, tzinfo=datetime.timezone.utc)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a server, with its authority; the current one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "server.yaml").write_text(SERVER, encoding="utf-8")
    fleet_init(("server.example", "10.0.0.7"), Path("fleet"), 30, now=NOW)
    return tmp_path


def kit(*words: str) -> int:
    return main(["fleet", "kit", *words, "--config", "server.yaml", "--out", "kits"])


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_an_authority_vouches_for_a_server_by_its_names(folder: Path) -> None:
    vouching, server = certificate(folder / "fleet/ca.crt"), certificate(folder / "fleet/server.pem")
    server.verify_directly_issued_by(vouching)
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["server.example", "localhost"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.7", "127.0.0.1"]
    assert server.not_valid_after_utc == NOW + datetime.timedelta(days=30)
    ssl.create_default_context(cafile=str(folder / "fleet/ca.crt"))
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(folder / "fleet/server.pem", folder / "fleet/server.key")


def test_keys_are_their_owners_alone_and_are_shown_by_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert kit("camera", "--json") == kit("phone") == 0
    out, err = capsys.readouterr()
    keys = [*folder.glob("fleet/*.key"), *folder.glob("kits/*/*.key")]
    assert len(keys) == 4
    for path in keys:
        assert (mode(path), mode(path.parent)) == (0o600, 0o700)
        secret = path.read_text(encoding="ascii").splitlines()[2]
        assert secret not in out + err
    key = device_key()
    assert repr(key.private) not in repr(key)
    assert "PRIVATE" not in repr(key)


def test_the_next_certificate_is_by_the_same_authority(folder: Path) -> None:
    fleet_init(("server.example",), Path("next"), 30, Path("fleet"), now=NOW)
    certificate(folder / "next/server.pem").verify_directly_issued_by(certificate(folder / "fleet/ca.crt"))
    assert sorted(path.name for path in (folder / "next").iterdir()) == ["ca.crt", "server.key", "server.pem"]
    shutil.copy(folder / "next/server.key", folder / "fleet/ca.key")
    with pytest.raises(ConfigError, match=r"^ca\.key is not the key of ca\.crt$"):
        fleet_init(("server.example",), Path("third"), 30, Path("fleet"), now=NOW)
    (folder / "fleet/ca.key").write_text("no key", encoding="ascii")
    with pytest.raises(ConfigError, match=r"^the authority cannot be read"):
        fleet_init(("server.example",), Path("third"), 30, Path("fleet"), now=NOW)


@pytest.mark.parametrize("server", ["server.example:9092", "https://server", "", "two words", "-x", "a..b"])
def test_what_is_no_host_gets_no_certificate(folder: Path, server: str) -> None:
    with pytest.raises(ConfigError, match="expected a host name or an address, without a port"):
        fleet_init((server,), folder / "other", 30, now=NOW)
    assert not (folder / "other").exists()


def test_nothing_is_written_over(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither an authority nor a kit; and of several kits none is made where one is there already."""
    with pytest.raises(OutputError, match="is there already"):
        fleet_init(("server.example",), Path("fleet"), 30, now=NOW)
    assert kit("camera") == 0
    before = (folder / "kits/camera/camera.key").read_bytes()
    assert kit("phone", "camera") == OutputError.exit_code
    assert "kits/camera is there already" in capsys.readouterr().err
    assert [path.name for path in (folder / "kits").iterdir()] == ["camera"]
    assert (folder / "kits/camera/camera.key").read_bytes() == before


def test_a_kit_is_all_that_a_device_needs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert kit("camera", "phone", "--set", "profile=raspberry-pi-4", "--set", "data.image_size=64", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["kits"][0] == {
        "name": "camera",
        "folder": "kits/camera",
        "public_key": "kits/camera/camera.key.pub",
    }
    keys = "kits/camera/camera.key.pub kits/phone/phone.key.pub"
    assert document["next"] == f"fedsup-deploy fleet register --config server.yaml {keys}"
    config = load_client_config(folder / "kits/camera/camera.yaml")
    assert (config.name, config.superlink, config.profile) == ("camera", "server.example:9092", "raspberry-pi-4")
    assert (config.key, config.root_certificates) == tuple(
        folder / "kits/camera" / name for name in ("camera.key", "ca.crt")
    )
    assert (config.data.root, config.data.image_size) == (folder / "kits/camera/images", 64)
    assert (folder / "kits/camera/ca.crt").read_bytes() == (folder / "fleet/ca.crt").read_bytes()
    pinned = (folder / "kits/camera/constraints.txt").read_text(encoding="utf-8").splitlines()
    assert {f"fedsup-deploy=={__version__}", "torch==2.13.0"} <= set(pinned)
    assert any(line.startswith("flwr==1.") for line in pinned)


def test_a_key_is_one_that_openssh_reads(folder: Path) -> None:
    if shutil.which("ssh-keygen") is None:
        pytest.skip("ssh-keygen (install openssh-client)")
    assert kit("camera") == 0
    path = folder / "kits/camera/camera.key"
    public = subprocess.run(["ssh-keygen", "-y", "-f", path], capture_output=True, text=True, check=True).stdout
    assert public.split() == (folder / "kits/camera/camera.key.pub").read_text(encoding="ascii").split()


def test_a_device_may_make_its_key_itself(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert kit("camera", "--no-keys", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["kits"][0]["public_key"] is None
    assert document["next"].endswith(" camera.key.pub")
    assert not list((folder / "kits/camera").glob("*.key*"))
    unit = (folder / "kits/camera/fedsup-client.service").read_text(encoding="utf-8")
    assert '#   ssh-keygen -q -t ecdsa -b 384 -N "" -f /opt/fedsup/camera.key ' in unit


def unit_of(path: Path) -> configparser.ConfigParser:
    found = configparser.ConfigParser(interpolation=None)
    found.optionxform = str  # type: ignore[assignment, method-assign]
    found.read(path, encoding="utf-8")
    return found


def test_the_service_has_no_rights_and_comes_back(folder: Path) -> None:
    assert kit("camera", "--at", "/srv/node") == 0
    service = unit_of(folder / "kits/camera/fedsup-client.service")["Service"]
    assert service["ExecStart"] == "/srv/node/.venv/bin/fedsup-deploy client --config /srv/node/camera.yaml"
    wanted = {"User": "fedsup", "Restart": "always", "ProtectSystem": "strict", "NoNewPrivileges": "yes"}
    assert {key: service[key] for key in wanted} == wanted
    assert service["CapabilityBoundingSet"] == ""
    # Where it may write is where its config says that it writes.
    config = load_client_config(folder / "kits/camera/camera.yaml")
    assert config.folder == Path("/var/lib") / service["StateDirectory"]


def test_systemd_understands_all_of_the_service(folder: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze (install systemd)")
    program = folder / "node/.venv/bin/fedsup-deploy"
    program.parent.mkdir(parents=True)
    program.symlink_to("/bin/true")
    assert kit("camera", "--at", str(folder / "node")) == 0
    unit = folder / "kits/camera/fedsup-client.service"
    ran = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout + ran.stderr) == (0, "")
    rated = ["systemd-analyze", "security", "--offline=yes", "--threshold=35", unit]
    assert subprocess.run(rated, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("..",), "got device name '..', expected letters, digits"),
        (("a/b",), "got device name 'a/b'"),
        (("camera", "camera"), "name 'camera' is there twice"),
        (("camera", "--set", "teir=1"), "--set teir: unknown key 'teir'; did you mean 'tier'?"),
        (("camera", "--at", "opt"), "got folder 'opt' on the device, expected a whole path"),
        (("camera", "--at", "/two words"), "expected a whole path without spaces"),
    ],
)
def test_what_cannot_be_is_said_and_nothing_is_made(
    folder: Path, capsys: pytest.CaptureFixture[str], words: Any, expected: str
) -> None:
    assert kit(*words) == ConfigError.exit_code
    assert expected in capsys.readouterr().err
    assert not (folder / "kits").exists()


def test_a_server_without_an_authority_gives_no_kit(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The keys of devices are told over TLS only."""
    (folder / "fleet/ca.crt").unlink()
    assert kit("camera") == ConfigError.exit_code
    assert "make it with fedsup-deploy fleet init" in capsys.readouterr().err
    (folder / "server.yaml").write_text(SERVER.replace(", root_certificates: fleet/ca.crt", ""), encoding="utf-8")
    assert kit("camera") == ConfigError.exit_code
    assert "engine.root_certificates: got null" in capsys.readouterr().err


def test_where_devices_reach_the_server_is_not_guessed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On this machine, where the server itself does, only where that is said."""
    (folder / "server.yaml").write_text(SERVER.replace("server.example:9092", "localhost:9093"), encoding="utf-8")
    assert kit("camera") == ConfigError.exit_code
    assert "devices cannot reach localhost:9093; say where they reach it" in capsys.readouterr().err
    assert kit("camera", "--set", "superlink=localhost:9093") == 0
