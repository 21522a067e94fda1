"""`fedsup-deploy fleet list`: which devices are connected to a SuperLink, and what they have."""

import dataclasses
from pathlib import Path

from fedsup_deploy.config.schema import TrainConfig
from fedsup_deploy.data.devices import DEVICES, AnnouncedDevice, write_devices
from fedsup_deploy.engines.flower.deployment import ask_all
from fedsup_deploy.errors import ConfigError, FederationError
from fedsup_deploy.events import EventLog, Listener
from fedsup_deploy.federation.jobs.announce import Announce
from fedsup_deploy.results import Result
from fedsup_deploy.runs.announced import devices_of


@dataclasses.dataclass(frozen=True)
class ListedDevice:
    """One device.

    Args:
        name: What it is called.
        tier: Its class of capability.
        profile: Name of its device profile; None where it says none.
        num_trained: Images that it trains on.
        num_held_out: Images that it evaluates subnets on.
        num_tested: Test images.
    """

    name: str
    tier: int
    profile: str | None
    num_trained: int
    num_held_out: int
    num_tested: int


@dataclasses.dataclass(frozen=True)
class DeviceListing(Result):
    """Who is there.

    Args:
        file: Where the list was written.
        devices: Those in it, in the order of their names.
        refused: Names of those that are connected and not in it, each with the reason.
    """

    file: Path
    devices: tuple[ListedDevice, ...]
    refused: dict[str, str]


def fleet_list(config: TrainConfig, at_least: int = 1, listeners: tuple[Listener, ...] = ()) -> DeviceListing:
    """Ask the devices that are connected what they have, and write the list that the config's `data.root` names.

    Args:
        config: Of the server.
        at_least: How many devices to wait for.
        listeners: Called with each event.

    Raises:
        ConfigError: The config is none of a server whose clients are devices.
        DependencyError: Flower is not installed.
        FederationError: The SuperLink does not run the app, or no device can take part.
        OutputError: The list cannot be written.
    """
    out, superlink = config.data.root, config.engine.superlink
    if config.data.dataset != DEVICES or out is None:
        raise ConfigError(f"data: got dataset {config.data.dataset}, expected {DEVICES}, and root, the list to write")
    if superlink is None:
        raise ConfigError("engine.superlink: got null, expected host:port of the SuperLink of the devices")
    log = EventLog(None, listeners)
    log.emit("waiting_for_devices", at_least=at_least)
    announced, refused = ask_all(superlink, config.engine.root_certificates, Announce(), at_least)
    devices, unfit = devices_of(announced)
    refused |= unfit
    if not devices:
        why = "; ".join(f"{name}: {reason}" for name, reason in refused.items()) or "none is connected"
        raise FederationError(f"no device can take part: {why}")
    write_devices(out, devices)
    return DeviceListing(out, tuple(map(_listed, devices)), refused)


def _listed(device: AnnouncedDevice) -> ListedDevice:
    return ListedDevice(
        device.name, device.tier, device.profile, sum(device.trained), sum(device.held_out), sum(device.tested)
    )
