"""`devices`: images that lie on devices, of which there is here only what these have announced. Its root is that list.

No pixel of them can be asked for: whoever does is told so.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal, NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError

from fedsup_deploy import files
from fedsup_deploy.config.partition import ClientList
from fedsup_deploy.config.section import Name
from fedsup_deploy.data import source
from fedsup_deploy.data.dataset import DatasetSplits
from fedsup_deploy.data.names import class_names, client_name
from fedsup_deploy.data.owners import Owners, no_list
from fedsup_deploy.errors import ConfigError, DataError
from fedsup_deploy.ondevice.preprocessing import PIXEL_MAX
from fedsup_deploy.ondevice.reading import MOST_BYTES_OF_JSON, parse_json, read_bytes
from fedsup_deploy.ondevice.records import AnyPixels

#: The registered name.
DEVICES: Final = "devices"
#: Images of one device, and of all, at most: each has its label in memory.
_MOST_IMAGES: Final = 10_000_000
_MOST_OF_ALL: Final = 100_000_000
_HOW: Final = "make it with fedsup-deploy fleet list"

Counts = tuple[Annotated[int, Field(ge=0, le=_MOST_IMAGES)], ...]


class Form(NamedTuple):
    """What images of one federation have in common.

    Args:
        classes: Names of the classes, in the order of the labels.
        shape: Height, width and channels of an image.
        pixel_dtype: Type of the pixels.
        resize: What made squares of them, if anything did.
    """

    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    pixel_dtype: str
    resize: str | None

    def differs_from(self, other: "Form") -> str | None:
        """Return in one line what is otherwise than in another form, and how it is there; None if nothing is."""
        if self.classes != other.classes:
            return f"classes {source.counted(self.classes)}, the others have {source.counted(other.classes)}"
        return None if self == other else f"{self}, the others have {other}"

    def __str__(self) -> str:
        """Return it in words, but for the classes' names."""
        height, width, channels = self.shape
        how = "" if self.resize is None else f", by {self.resize}"
        return (
            f"{len(self.classes)} classes and images of {width}x{height} pixels, {channels} x {self.pixel_dtype}{how}"
        )


class AnnouncedDevice(BaseModel):
    """What one device has announced.

    Args:
        name: What it is called among the devices.
        tier: Its class of capability.
        classes: Names of the classes, in the order of the labels.
        shape: Height, width and channels of an image.
        pixel_dtype: Type of the pixels.
        resize: How the device makes squares of its images; None where they are used as they are, as in older lists.
        profile: Name of its device profile; None where it says none.
        trained: Images of each class that it trains on.
        held_out: The same of those it evaluates subnets on.
        tested: The same of its test images.
        fingerprint: Changes when any of these images does.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    tier: NonNegativeInt
    classes: Annotated[tuple[str, ...], Field(min_length=2, max_length=10_000)]
    shape: tuple[PositiveInt, PositiveInt, PositiveInt]
    pixel_dtype: str
    resize: Literal["crop", "pad", "stretch"] | None = None
    profile: Name | None = None
    trained: Counts
    held_out: Counts
    tested: Counts
    fingerprint: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

    def counts(self, split: str) -> Counts:
        """Return how many images of each class it has in a split of a data set."""
        return {"train": self.trained, "validation": self.held_out, "test": self.tested}[split]

    def problem(self) -> str | None:
        """Return what is wrong with what it says; None if nothing is."""
        try:
            client_name(self.name, DEVICES)
            class_names(self.classes, DEVICES)
        except DataError as error:
            return str(error)
        if any(len(counts) != len(self.classes) for counts in (self.trained, self.held_out, self.tested)):
            return "counts of another number of classes than it names"
        if self.pixel_dtype not in PIXEL_MAX:
            return f"pixels of another type than {', '.join(PIXEL_MAX)}"
        if self.num_images > _MOST_IMAGES:
            return f"{self.num_images:,} images, expected at most {_MOST_IMAGES:,}"
        return None if any(self.trained) else "no image to train on"

    @property
    def form(self) -> Form:
        """What devices of one federation have in common."""
        return Form(self.classes, self.shape, self.pixel_dtype, self.resize)

    @property
    def num_images(self) -> int:
        """How many images it has in all."""
        return sum(map(sum, (self.trained, self.held_out, self.tested)))


class DeviceList(BaseModel):
    """The file: devices in the order of their names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = Field(alias="schema")
    devices: Annotated[tuple[AnnouncedDevice, ...], Field(min_length=1)]


class AnnouncedImages:
    """`LabelledImages` that are elsewhere: their labels by number, device after device and class after class.

    Args:
        split: `train`, `validation` or `test`.
        devices: Whose they are.
    """

    name: ClassVar[str] = DEVICES
    is_held: ClassVar[bool] = False

    def __init__(self, split: str, devices: Sequence[AnnouncedDevice]) -> None:
        self._split, self._devices = split, devices
        self.form = devices[0].form
        self.classes, self.image_shape, self.pixel_dtype, _ = self.form
        labels = np.arange(len(self.classes), dtype=np.int64)
        self.labels_N = np.concatenate([np.repeat(labels, each.counts(split)) for each in devices])

    def __len__(self) -> int:
        return len(self.labels_N)

    @property
    def clients_N(self) -> npt.NDArray[np.int64]:  # noqa: N802  its axes
        """The device of each image, by its place."""
        return np.repeat(np.arange(len(self._devices)), [sum(each.counts(self._split)) for each in self._devices])

    @property
    def images_NHWC(self) -> AnyPixels:  # noqa: N802  its axes
        """Nothing.

        Raises:
            DataError: They are not here.
        """
        self._refuse()

    def pixels(self, indices: npt.ArrayLike) -> AnyPixels:
        """Raise a DataError: they are not here."""
        del indices
        self._refuse()

    def and_of(self, devices: Sequence[AnnouncedDevice]) -> "AnnouncedImages":
        """Return these images, and after them those of further devices."""
        return AnnouncedImages(self._split, (*self._devices, *devices))

    def take(self, indices: npt.ArrayLike) -> "AnnouncedImages":
        """Raise a DataError: they are not here."""
        del indices
        self._refuse()

    def fingerprint(self) -> str:
        """Return the SHA-256 of all that has been announced."""
        return files.sha256_of([self._split, [device.model_dump(mode="json") for device in self._devices]])

    def _refuse(self) -> NoReturn:
        raise DataError("the images lie on devices; set engine.name to flower and engine.superlink to ask these")


def load_devices(root: Path | None, clients: ClientList | None = None) -> DatasetSplits:
    """Return what the devices of a list have; those that have other images than most are left out, with a note.

    Args:
        root: The list, a JSON file.
        clients: Says that every device is a client.

    Raises:
        ConfigError: `root` is None, or the images are to be divided otherwise.
        DataError: The file is missing or damaged.
    """
    if clients is None:
        raise ConfigError("data.dataset: got devices, each of which is a client; expected partition.kind natural")
    if clients.path is not None:
        raise no_list(DEVICES)
    path = source.required_root(DEVICES, root, "the list of devices")
    listed = read_devices(path)
    most = usual_form(listed)
    devices = tuple(each for each in listed if each.form == most)
    notes = []
    if others := [f"{each.name} ({each.form.differs_from(most)})" for each in listed if each not in devices]:
        notes.append(f"devices left out: {source.counted(others)}")
    splits = {split: AnnouncedImages(split, devices) for split in ("train", "validation", "test")}
    held = {split: images for split, images in splits.items() if len(images)}
    tiers = tuple(each.tier for each in devices)
    owners = Owners(tuple(each.name for each in devices), {key: of.clients_N for key, of in held.items()}, tiers)
    return DatasetSplits(
        splits["train"], held.get("test"), held.get("validation"), tuple(notes), owners, made_square=most.resize
    )


def read_devices(path: Path) -> tuple[AnnouncedDevice, ...]:
    """Return the devices of a list.

    Raises:
        DataError: The file is missing or damaged, or a device in it is impossible.
    """
    try:
        content = read_bytes(path, MOST_BYTES_OF_JSON)
        parse_json(content)
        devices = DeviceList.model_validate_json(content).devices
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file, expected the list of devices; {_HOW}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; make it readable") from error
    except (ValueError, ValidationError) as error:
        raise DataError(f"{path}: cannot be read: {type(error).__name__}; {_HOW}") from error
    names = [device.name for device in devices]
    if names != sorted(set(names)):
        raise DataError(f"{path}: names are there twice or not in their order; {_HOW}")
    if (total := sum(device.num_images for device in devices)) > _MOST_OF_ALL:
        raise DataError(f"{path}: got {total:,} images, expected at most {_MOST_OF_ALL:,}; leave out some devices")
    for device in devices:
        if (problem := device.problem()) is not None:
            raise DataError(f"{path}: {device.name}: {problem}; {_HOW}")
    return devices


def write_devices(path: Path, devices: tuple[AnnouncedDevice, ...]) -> None:
    """Write the list of devices, in the order of their names."""
    ordered = tuple(sorted(devices, key=lambda device: device.name))
    files.write_json(path, DeviceList(schema=1, devices=ordered).model_dump(mode="json", by_alias=True))


def usual_form(devices: Sequence[AnnouncedDevice]) -> Form:
    """Return what those have in common that have most images."""
    images: dict[Form, int] = {}
    for device in devices:
        images[device.form] = images.get(device.form, 0) + sum(device.trained)
    return max(images, key=lambda form: (images[form], form.classes, form.shape, str(form)))
