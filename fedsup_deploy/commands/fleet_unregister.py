"""`fedsup-deploy fleet unregister`: refuses devices that were let in, such as one that was lost or stolen."""

import dataclasses
from collections.abc import Sequence

from fedsup_deploy.commands.fleet_register import superlink_of
from fedsup_deploy.config.schema import TrainConfig
from fedsup_deploy.errors import ConfigError, FederationError
from fedsup_deploy.results import Result


@dataclasses.dataclass(frozen=True)
class UnregisteredDevices(Result):
    """Who is refused from now on.

    Args:
        unregistered: Names, in the order in which they were given.
        registered: Names of those that may still come, in order.
    """

    unregistered: tuple[str, ...]
    registered: tuple[str, ...]


def fleet_unregister(config: TrainConfig, names: Sequence[str]) -> UnregisteredDevices:
    """Refuse devices from now on, also in the middle of a round. Their keys are never taken again.

    Args:
        config: Of the server.
        names: Of the devices, as they were registered.

    Raises:
        ConfigError: The config names no SuperLink, or no device of a name is registered; then none is refused.
        DependencyError: Flower is not installed.
        FederationError: The SuperLink cannot be asked; says who is refused by then.
    """
    gone = tuple(dict.fromkeys(names))
    with superlink_of(config) as devices:
        there = devices.names()
        if unknown := [name for name in gone if name not in there]:
            found = ", ".join(there) or "nobody"
            raise ConfigError(f"got device {unknown[0]!a}, which is not registered; registered: {found}")
        for number, name in enumerate(gone):
            try:
                devices.remove(name)
            except FederationError as error:
                before = f"; unregistered before it: {', '.join(gone[:number])}" if number else ""
                raise FederationError(f"{name} is registered still: {error}{before}") from error
        return UnregisteredDevices(gone, devices.names())
