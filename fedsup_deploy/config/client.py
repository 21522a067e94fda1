"""Every setting of a device that joins a federation, once. The device's owner writes it; no server can change it."""

import re
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field

from fedsup_deploy import resources
from fedsup_deploy.config.document import Document
from fedsup_deploy.config.images import ImagesConfig, Place
from fedsup_deploy.config.load import apply_overrides, load_yaml, validate
from fedsup_deploy.config.section import Address, Name, Section
from fedsup_deploy.errors import ConfigError

#: What a device can be called.
_DEVICE: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


class OwnImagesConfig(ImagesConfig):
    """The device's images: what the data set has for training, for validation and for tests is used as such."""

    max_images: Annotated[int, Field(ge=2, le=10_000_000)] | None = None
    """Images that it trains on, at most, to spare a slow device: the same draw every time. null: all."""
    validation_fraction: Annotated[float, Field(ge=0, le=0.5)] = 0.2
    """Share of the training images that is held out, to compare subnets on, where there are no validation images. The
    same images every time. 0: none."""


class ClientConfig(Section):
    """A device as a client."""

    schema_version: Literal[1] = Field(alias="schema")
    """Version of this file's layout: 1."""
    name: Annotated[str, Field(pattern=rf"^{_DEVICE.pattern}$")]
    """What the device is called, of at most 64 letters, digits, dots, hyphens and underscores. Where it is registered
    with a key, the name that it was registered under counts instead."""
    superlink: Address
    """Address of the server's SuperLink, host:port."""
    root_certificates: Place | None = None
    """PEM file with the certificate authority of the SuperLink. null: what is sent is not encrypted."""
    key: Place | None = None
    """Private key of the device, which its public key was registered for. null: it is not registered."""
    data: OwnImagesConfig
    """The device's images. None leaves it."""
    tier: Annotated[int, Field(ge=0, le=63)] = 0
    """The device's class of capability: which tier of the strategy, from 0."""
    profile: Name | None = None
    """Name of the device's profile, as of `search --profile`: `fleet list` shows it. null: not said."""
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    """Threads that it computes with. With more than one, which are faster, results are not the same to the last bit."""
    folder: Place = Path("fedsup-node")
    """Where the device keeps what it was sent; a relative path starts at the config file's folder."""
    storage_mib: Annotated[int, Field(ge=1, le=2**20)] = 64
    """MiB that it keeps there, at most."""
    port: Annotated[int, Field(ge=1, le=65_535)] = 9094
    """A free port of this machine, for Flower's own processes on it."""

    @property
    def home(self) -> Path:
        """Folder of Flower's files."""
        return self.folder / "flower"

    @property
    def blobs(self) -> Path:
        """Folder of what the device was sent."""
        return self.folder / "blobs"


def check_device_name(name: str) -> None:
    """Refuse what a server cannot call a device: its name is that of files and folders, and a word of commands.

    Raises:
        ConfigError: It is none.
    """
    if _DEVICE.fullmatch(name) is None or not name[0].isalnum():
        expected = "letters, digits, dots, hyphens and underscores, at most 64, a letter or a digit first"
        raise ConfigError(f"got device name {name[:80]!a}, expected {expected}")


def load_client_config(path: Path, overrides: tuple[str, ...] = ()) -> ClientConfig:
    """Return a device's config with its paths made absolute.

    Raises:
        ConfigError: No such config, or anything in it is wrong; names the file and line.
    """
    resources.check_name(str(path))
    document: Document = apply_overrides(load_yaml(path), overrides)
    config = validate(document, ClientConfig)
    beside = path.resolve().parent
    data = config.data.model_copy(update={"root": None if config.data.root is None else beside / config.data.root})
    paths = {key: None if (to := getattr(config, key)) is None else beside / to for key in ("root_certificates", "key")}
    return config.model_copy(update={"data": data, "folder": beside / config.folder, **paths})
