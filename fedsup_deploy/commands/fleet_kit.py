"""`fedsup-deploy fleet kit`: all that a device needs to join a federation, in a folder to copy there."""

import contextlib
import dataclasses
import importlib.metadata
import platform
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import JsonValue

from fedsup_deploy import files
from fedsup_deploy.config.client import ClientConfig, check_device_name
from fedsup_deploy.config.load import Document, apply_overrides, dump, validate
from fedsup_deploy.config.schema import TrainConfig
from fedsup_deploy.engines.flower.submission import check_installed
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.results import Result
from fedsup_deploy.version import __version__

if TYPE_CHECKING:
    from packaging.requirements import Requirement

#: The package, and what of it a device with images in files needs.
_PACKAGE: Final = "fedsup-deploy"
_EXTRAS: Final = ("flower", "images")
_AUTHORITY, _LOCKED, _SERVICE = "ca.crt", "constraints.txt", "fedsup-client.service"
#: Where systemd lets the service write: below /var/lib.
_STATE: Final = "fedsup"
#: What a machine calls itself.
_THIS_MACHINE: Final = ("localhost", "127.0.0.1", "::1")
_USER: Final = "fedsup"
_SETTINGS: Final = """# What {name} has, and how it joins. Only its owner changes it: no server can.
"""
#: JIT compilers of torch need memory that they can write and run, so MemoryDenyWriteExecute is not there.
_UNIT: Final = """# Keeps {name} in the federation. Its folder, {at}, is the kit; then, as root of the device:
#   useradd --system {user}
#   python3 -m venv {at}/.venv
#   {at}/.venv/bin/pip install --constraint {at}/{locked} '{package}[{extras}]'
{make_key}#   chown -R root:{user} {at} && chown {user} {at}/{key} && chmod 750 {at}
#   systemctl enable --now {at}/{service}
[Unit]
Description=fedsup-deploy client {name}
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
User={user}
WorkingDirectory={at}
ExecStart={at}/.venv/bin/fedsup-deploy client --config {at}/{name}.yaml
Restart=always
RestartSec=30
StateDirectory={state}
StateDirectoryMode=0700
UMask=0077
Nice=10
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
PrivateDevices=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
ProtectProc=invisible
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
RemoveIPC=yes
SystemCallArchitectures=native

[Install]
WantedBy=multi-user.target
"""


@dataclasses.dataclass(frozen=True)
class DeviceKit:
    """What one device needs.

    Args:
        name: The device.
        folder: To copy there.
        public_key: To register, of a key that is in the folder; None: the device makes its key itself.
    """

    name: str
    folder: Path
    public_key: Path | None


@dataclasses.dataclass(frozen=True)
class DeviceKits(Result):
    """What was made.

    Args:
        kits: In the order of the names.
        next: The command to say next.
    """

    kits: tuple[DeviceKit, ...]
    next: str


def fleet_kit(
    config: TrainConfig,
    config_name: str,
    names: Sequence[str],
    out: Path,
    settings: Sequence[str] = (),
    *,
    at: str = "/opt/fedsup",
    has_keys: bool = True,
) -> DeviceKits:
    """Make a folder for each device: its config, its key, the authority, locked versions and a service.

    Args:
        config: Of the server.
        config_name: What the user calls it, for the next command.
        names: Of the devices.
        out: Folder of the folders.
        settings: `key=value` assignments to the config of each.
        at: Where the folder will be on the device.
        has_keys: Whether each device gets a key; False: it makes its own, which nobody else then ever has.

    Raises:
        ConfigError: The config is none of a server of devices, a name is none, or a setting is impossible.
        DependencyError: Flower is not installed.
        OutputError: A folder is there already, or cannot be written.
    """
    check_installed("flwr", "flower")
    superlink, root = config.engine.superlink, config.engine.root_certificates
    if superlink is None or root is None:
        missing = "superlink" if superlink is None else "root_certificates"
        raise ConfigError(f"engine.{missing}: got null, expected that of the devices' SuperLink, as of fleet init")
    if not files.is_file(root):
        raise ConfigError(f"engine.root_certificates: no file {root}; make it with fedsup-deploy fleet init")
    if not at.startswith("/") or any(letter.isspace() or letter in "%$\\\"'" for letter in at):
        raise ConfigError(f"got folder {at!r} on the device, expected a whole path without spaces or quotes")
    if twice := sorted({name for name in names if list(names).count(name) > 1}):
        raise ConfigError(f"name {twice[0]!r} is there twice, expected each device once")
    own = {name: _own_config(name, superlink, config, out, settings) for name in names}
    locked = _locked_versions()
    with contextlib.ExitStack() as stack:
        for name, device in own.items():
            folder = stack.enter_context(files.new_private_directory(out / name))
            files.write_text(folder / f"{name}.yaml", _SETTINGS.format(name=name) + dump(device))
            files.write_bytes(folder / _AUTHORITY, root.read_bytes())
            files.write_text(folder / _LOCKED, locked)
            files.write_text(folder / _SERVICE, _unit(name, at, has_key=has_keys))
            if has_keys:
                _write_key(folder, name)
    kits = tuple(DeviceKit(name, out / name, _public(out / name, name) if has_keys else None) for name in names)
    keys = [str(kit.public_key) for kit in kits] if has_keys else [f"{name}.key.pub" for name in names]
    return DeviceKits(kits, shlex.join(["fedsup-deploy", "fleet", "register", "--config", config_name, *keys]))


def _own_config(name: str, superlink: str, config: TrainConfig, out: Path, settings: Sequence[str]) -> ClientConfig:
    """Return the config of a device.

    Raises:
        ConfigError: The name is none, or a setting is impossible.
    """
    check_device_name(name)
    images: dict[str, JsonValue] = {"dataset": "image-folder", "root": "images"}
    if config.data.server is not None:
        images |= {"image_size": config.data.server.image_size, "resize": config.data.server.resize}
    data: dict[str, JsonValue] = {
        "schema": 1,
        "name": name,
        "superlink": superlink,
        "root_certificates": _AUTHORITY,
        "key": f"{name}.key",
        "data": images,
        "folder": f"/var/lib/{_STATE}",
    }
    own = validate(apply_overrides(Document(out / name / f"{name}.yaml", data, {}, {}), settings), ClientConfig)
    is_said = any(setting.partition("=")[0] == "superlink" for setting in settings)
    if not is_said and superlink.rpartition(":")[0] in _THIS_MACHINE:
        raise ConfigError(f"devices cannot reach {superlink}; say where they reach it with --set superlink=HOST:PORT")
    return own


def _unit(name: str, at: str, *, has_key: bool) -> str:
    key = f"{name}.key"
    make_key = (
        "" if has_key else f'#   ssh-keygen -q -t ecdsa -b 384 -N "" -f {at}/{key}   # and {key}.pub to the server\n'
    )
    extras = ",".join(_EXTRAS)
    fixed = {"user": _USER, "state": _STATE, "locked": _LOCKED, "service": _SERVICE, "package": _PACKAGE}
    return _UNIT.format(name=name, at=at, key=key, make_key=make_key, extras=extras, **fixed)


def _write_key(folder: Path, name: str) -> None:
    from fedsup_deploy.engines.flower.keys import device_key

    key = device_key()
    files.write_secret(folder / f"{name}.key", key.private)
    files.write_bytes(_public(folder, name), key.public)


def _public(folder: Path, name: str) -> Path:
    return folder / f"{name}.key.pub"


def _locked_versions() -> str:
    """Return the versions of all that is installed here of what a device needs, as constraints of pip."""
    found: dict[str, str] = {}
    pending = [(_PACKAGE, frozenset(_EXTRAS))]
    seen: set[tuple[str, frozenset[str]]] = set()
    while pending:
        name, extras = pending.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            # A local part, as in 2.13.0+cpu, says what was built for this machine.
            found[name] = importlib.metadata.version(name).partition("+")[0]
            pending += [(each.name.lower(), frozenset(each.extras)) for each in _requirements(name, extras)]
    found[_PACKAGE] = __version__
    head = f"# What the server has, with Python {platform.python_version()}: pip install --constraint this.\n"
    return head + "".join(f"{name}=={version}\n" for name, version in sorted(found.items()))


def _requirements(name: str, extras: frozenset[str]) -> "Iterator[Requirement]":
    """Yield what a package asks for on this machine."""
    from packaging.requirements import Requirement

    for line in importlib.metadata.requires(name) or ():
        requirement = Requirement(line)
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in {"", *extras}):
            yield requirement
