"""`fedsup-deploy client`: a device joins a federation, over its own images."""

import json
import os
import sysconfig
from pathlib import Path
from typing import Final

from fedsup_deploy import files
from fedsup_deploy.config.client import ClientConfig
from fedsup_deploy.engines.flower.environment import OWN, QUIET
from fedsup_deploy.engines.flower.readiness import check_authority, check_port
from fedsup_deploy.engines.flower.submission import check_installed
from fedsup_deploy.errors import ConfigError, DataError, as_output_error
from fedsup_deploy.federation.client import TRAINED
from fedsup_deploy.runs.own_images import client_of

#: Where the node's own programs reach it.
LOCALHOST: Final = "127.0.0.1"


def prepare(config: ClientConfig, path: Path) -> tuple[list[str], dict[str, str]]:
    """Check that a device can take part; return the arguments of its node, and the variables of its environment.

    Args:
        config: Of the device.
        path: Its file.

    Raises:
        ConfigError: A file that it names is missing or no key or certificate, or its port is another program's.
        DataError: Its images are missing or malformed.
        DependencyError: Flower is not installed.
        OutputError: The device's folder cannot be made.

    Side effects: Makes the device's folder, of which Flower's only its user can enter.
    """
    check_installed("flwr", "flower")
    root, key = config.root_certificates, config.key
    for setting, file in (("root_certificates", root), ("key", key)):
        if file is not None and not files.is_file(file):
            raise ConfigError(f"{path}: {setting}: no file {file}")
    if root is not None:
        check_authority(root, f"{path}: root_certificates")
    if key is not None:
        _check_key(key, f"{path}: key", is_encrypted=root is not None)
    check_port(LOCALHOST, config.port, f"{path}: port")
    client = client_of(config)
    if not client.has(TRAINED):
        raise DataError(f"{config.data.dataset}: no image to train on")
    with as_output_error(config.home):
        config.home.mkdir(parents=True, exist_ok=True)
        config.home.chmod(0o700)
    security = ["--insecure"] if root is None else ["--root-certificates", str(root)]
    security += [] if key is None else ["--auth-supernode-private-key", str(key)]
    arguments = [
        *security,
        *("--superlink", config.superlink, "--host", LOCALHOST, "--port", str(config.port)),
        *("--node-config", f"{OWN}={json.dumps(str(path.resolve()))}"),
    ]
    paths = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])
    return arguments, {**QUIET, "FLWR_HOME": str(config.home), "PATH": paths}


def _check_key(key: Path, setting: str, *, is_encrypted: bool) -> None:
    """Refuse what is no key of a device, or of no use.

    Raises:
        ConfigError: It is so.
    """
    from fedsup_deploy.engines.flower.keys import check_private_key

    if not is_encrypted:
        raise ConfigError(f"{setting}: needs root_certificates: Flower takes a key over TLS only")
    try:
        check_private_key(key.read_bytes())
    except (ConfigError, OSError) as error:
        raise ConfigError(f"{setting}: {key}: {error}") from error
