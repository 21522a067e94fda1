"""`fedsup-deploy fleet register`: lets devices in, each by its public key, under the name that it has from then on."""

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

from fedsup_deploy.config.schema import TrainConfig
from fedsup_deploy.engines.flower.deployment import superlink_at
from fedsup_deploy.engines.flower.submission import check_installed, working_folder
from fedsup_deploy.errors import ConfigError, FederationError
from fedsup_deploy.results import Result


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
        ConfigError: The config names no SuperLink, or two files give one name.
        DependencyError: Flower is not installed.
        FederationError: The SuperLink does not take one; those before it are registered.
        OutputError: No room for temporary files.
    """
    check_installed("flwr", "flower")
    if config.engine.superlink is None:
        raise ConfigError("engine.superlink: got null, expected host:port of the SuperLink of the devices")
    named: dict[str, Path] = {}
    for key in keys:
        name = key.name.removesuffix(".pub").removesuffix(".key")
        if name in named:
            raise ConfigError(f"{named[name]} and {key} are both keys of {name!r}; name each file after its device")
        named[name] = key
    folder = working_folder()
    try:
        link = superlink_at(config.engine.superlink, config.engine.root_certificates, folder / "home")
        for number, (name, key) in enumerate(named.items()):
            if (problem := link.register(key, name)) is not None:
                before = f"; {number} before it are registered" if number else ""
                raise FederationError(f"{key}: Flower has not taken the key of {name}: {problem}{before}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return RegisteredDevices(tuple(named))
