"""`fedsup-deploy fleet register`: lets devices in, each by its public key, under the name that it has from then on."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from fedsup_deploy.config.client import check_device_name
from fedsup_deploy.config.schema import TrainConfig
from fedsup_deploy.engines.flower.deployment import DeviceRegistry, registered_at
from fedsup_deploy.engines.flower.submission import check_installed
from fedsup_deploy.errors import ConfigError, FederationError
from fedsup_deploy.ondevice.reading import read_bytes
from fedsup_deploy.results import Result

#: Bytes of a public key, at most.
_MOST_BYTES: Final = 2**14


@dataclasses.dataclass(frozen=True)
class RegisteredDevices(Result):
    """Who may come from now on.

    Args:
        registered: Names, in the order of their keys.
    """

    registered: tuple[str, ...]


def fleet_register(config: TrainConfig, keys: Sequence[Path]) -> RegisteredDevices:
    """Register public keys at the SuperLink; each is named after its file, without `.key.pub`.

    Args:
        config: Of the server.
        keys: Files of public keys.

    Raises:
        ConfigError: The config names no SuperLink, a file is no public key, its name is no device's, or two give one
            name; then nobody is registered.
        DependencyError: Flower is not installed.
        FederationError: A device of a name is registered already, or the SuperLink does not take a key, or cannot be
            asked; says how many are registered by then.
    """
    check_installed("flwr", "flower")
    from fedsup_deploy.engines.flower.keys import public_key

    named: dict[str, Path] = {}
    content: dict[str, bytes] = {}
    for key in keys:
        name = key.name.removesuffix(".pub").removesuffix(".key")
        check_device_name(name)
        if name in named:
            raise ConfigError(f"{named[name]} and {key} are both keys of {name!r}; name each file after its device")
        named[name] = key
        try:
            content[name] = public_key(read_bytes(key, _MOST_BYTES))
        except (ConfigError, OSError, ValueError) as error:
            raise ConfigError(f"{key}: {error}") from error
    with superlink_of(config) as devices:
        if there := sorted(named.keys() & set(devices.names())):
            how = f"fedsup-deploy fleet unregister {' '.join(there)}"
            raise FederationError(f"registered already: {', '.join(there)}; before a new key of theirs: {how}")
        for number, (name, key) in enumerate(named.items()):
            try:
                devices.add(name, content[name])
            except FederationError as error:
                before = f"; {number} before it are registered" if number else ""
                raise FederationError(f"{key}: Flower has not taken the key of {name}: {error}{before}") from error
    return RegisteredDevices(tuple(named))


@contextlib.contextmanager
def superlink_of(config: TrainConfig) -> Iterator[DeviceRegistry]:
    """Yield who is registered at the SuperLink of a server's config.

    Raises:
        ConfigError: The config names none.
        DependencyError: Flower is not installed.
    """
    if config.engine.superlink is None:
        raise ConfigError("engine.superlink: got null, expected host:port of the SuperLink of the devices")
    with registered_at(config.engine.superlink, config.engine.root_certificates) as devices:
        yield devices
