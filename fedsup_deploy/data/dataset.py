"""Labelled images as one checked, immutable value, and the ways to cut it.

Owns the shape every loader must deliver. Never reads a file, never normalises a pixel, never imports torch.

Shape suffixes: N images, H W pixels, C channels.
"""

import hashlib
import inspect
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from fedsup_deploy import registry, rng
from fedsup_deploy.config.partition import ClientList
from fedsup_deploy.data import source
from fedsup_deploy.data.names import class_names
from fedsup_deploy.data.owners import Owners, no_list
from fedsup_deploy.errors import ConfigError, DataError
from fedsup_deploy.ondevice.preprocessing import PIXEL_MAX, UNUSABLE, USUAL_PIXELS, first_unusable
from fedsup_deploy.ondevice.records import AnyPixels
from fedsup_deploy.ondevice.source_resize import SourceResize, resized

#: Of an image: as many as cameras of many spectral bands have, and neighbouring slices of a scan.
MAX_CHANNELS: Final = 16
_NO_CLIENTS = "does not say whose images are whose, as image-folder and npz can; choose another partition"


class DamagedFileError(DataError):
    """A file of images is damaged, gone or another one. No client is to blame, and none could answer."""


class LabelledImages(Protocol):
    """Images with one label each, wherever their pixels are. All arrays are read-only."""

    @property
    def name(self) -> str:
        """The registered name of the data set."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the labels, in NFC."""
        ...

    @property
    def labels_N(self) -> npt.NDArray[np.int64]:  # noqa: N802  its axes
        """Class of each image, in [0, number of classes)."""
        ...

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of each image; known without its pixels."""
        ...

    @property
    def pixel_dtype(self) -> str:
        """Type of the pixels, one of `preprocessing.PIXEL_MAX`."""
        ...

    @property
    def is_held(self) -> bool:
        """Whether pixels are in memory already, so that to prepare them is all that they cost."""
        ...

    @property
    def images_NHWC(self) -> AnyPixels:  # noqa: N802  its axes
        """All pixels; 1 to `MAX_CHANNELS` channels last."""
        ...

    def __len__(self) -> int: ...

    def pixels(self, indices: npt.ArrayLike) -> AnyPixels:
        """Return the pixels of the images at `indices`, in that order, (N, H, W, C)."""
        ...

    def take(self, indices: npt.ArrayLike) -> "LabelledImages":
        """Return the images at `indices`, in that order."""
        ...

    def fingerprint(self) -> str:
        """Return the hexadecimal SHA-256 of all that decides pixels, labels and class names, in order."""
        ...


@dataclass(frozen=True)
class Reading:
    """How images are read that may lie in files.

    Args:
        resize: What makes squares of images of any size; None where they are used as they are.
        cache_bytes: Of decoded images that are kept, at most; None is a share of what the machine has.
    """

    resize: SourceResize | None = None
    cache_bytes: int | None = None


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """`LabelledImages` in memory. Both arrays are read-only views; copy before changing.

    Args:
        name: The registered name of the data set.
        images_NHWC: Pixels of a type in `preprocessing.PIXEL_MAX`, finite; of integers 0 is black. 1 to `MAX_CHANNELS`
            channels last.
        labels_N: Class of each image, int64, in [0, number of classes).
        classes: Names of the classes, in the order of the labels; kept in NFC.

    Raises:
        DataError: An array has the wrong type, shape or length, a label has no class, there is no image, or a class has
            no usable name of its own (see `names`).
    """

    name: str
    images_NHWC: AnyPixels
    labels_N: npt.NDArray[np.int64]
    classes: tuple[str, ...]

    is_held = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", class_names(self.classes, self.name))
        check_images(self.name, self.images_NHWC)
        check_labels(self.name, self.labels_N, len(self.images_NHWC), len(self.classes))
        for field in ("images_NHWC", "labels_N"):
            view = getattr(self, field).view()
            view.flags.writeable = False
            object.__setattr__(self, field, view)

    def __len__(self) -> int:
        return len(self.labels_N)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of each image."""
        _, height, width, channels = self.images_NHWC.shape
        return height, width, channels

    @property
    def pixel_dtype(self) -> str:
        """Type of the pixels."""
        return self.images_NHWC.dtype.name

    def pixels(self, indices: npt.ArrayLike) -> AnyPixels:
        """Return a copy of the pixels of the images at `indices`, in that order."""
        return self.images_NHWC[np.asarray(indices, dtype=np.int64)]

    def take(self, indices: npt.ArrayLike) -> "ImageDataset":
        """Return the images at `indices`, in that order.

        Raises:
            DataError: `indices` is empty.
        """
        chosen = np.asarray(indices, dtype=np.int64)
        return ImageDataset(self.name, self.images_NHWC[chosen], self.labels_N[chosen], self.classes)

    def fingerprint(self) -> str:
        """Return the hexadecimal SHA-256 of pixels, labels and class names, in order. Computed once."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        # The type of the pixels is in it, too: no two have as many bytes.
        header = json.dumps({"shape": self.images_NHWC.shape, "classes": self.classes})
        digest = hashlib.sha256(header.encode())
        digest.update(np.ascontiguousarray(self.images_NHWC).data)
        digest.update(np.ascontiguousarray(self.labels_N, dtype="<i8").data)
        return digest.hexdigest()


def check_images(name: str, images: npt.NDArray[Any]) -> None:
    """Refuse arrays that are no images.

    Args:
        name: What to call them.
        images: (N, H, W, C).

    Raises:
        DataError: They have the wrong type or shape, there is none, or a pixel is not finite.
    """
    if images.dtype.name not in PIXEL_MAX or not images.dtype.isnative:
        raise DataError(f"{name}: pixels are {images.dtype}, expected {' or '.join(PIXEL_MAX)}; convert them first")
    if images.ndim != 4 or not 1 <= images.shape[3] <= MAX_CHANNELS:
        expected = f"(images, height, width, channels) with 1 to {MAX_CHANNELS} channels last"
        raise DataError(f"{name}: images have shape {images.shape}, expected {expected}")
    if 0 in images.shape:
        raise DataError(f"{name}: no images: got shape {images.shape}, expected at least one")
    if (unusable := first_unusable(images)) is not None:
        raise DataError(f"{name}: image {unusable} {UNUSABLE}; mend it or leave it out")


def check_labels(name: str, labels: npt.NDArray[Any], num_images: int, num_classes: int) -> None:
    """Refuse labels that are none for so many images of so many classes.

    Raises:
        DataError: They have the wrong type or length, or a label has no class.
    """
    if labels.dtype != np.int64 or labels.shape != (num_images,):
        expected = f"{num_images} of int64, one per image"
        raise DataError(f"{name}: labels are {labels.dtype} of shape {labels.shape}, expected {expected}")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        expected = f"0 to {num_classes - 1}, one per class"
        raise DataError(f"{name}: labels run from {low} to {high}, expected {expected}")


@dataclass(frozen=True, eq=False)
class DatasetSplits:
    """The official parts of a data set, with the same classes and image shape.

    Args:
        train: Images to train on.
        test: Images for final figures; None where the data set is of clients that have none.
        validation: Images to compare subnets on, where the data set has a part for that; None: they are to be split
            off those for training.
        notes: What of the files was passed over, or is not as it should be; a line each, for the user to read.
        owners: Whose images are whose, where the data set says so.
        made_square: How images were made squares where they came from, before they were read.

    Raises:
        DataError: The parts do not go together.
    """

    train: LabelledImages
    test: LabelledImages | None
    validation: LabelledImages | None = None
    notes: tuple[str, ...] = ()
    owners: Owners | None = None
    made_square: str | None = None

    def __post_init__(self) -> None:
        for kind, other in (("test", self.test), ("validation", self.validation)):
            if other is not None:
                self._check_same(kind, other)

    def _check_same(self, kind: str, other: LabelledImages) -> None:
        train = self.train
        if train.classes != other.classes:
            raise DataError(f"{train.name}: training and {kind} images name different classes")
        if train.image_shape != other.image_shape:
            shapes = f"training images have {train.image_shape}, {kind} images {other.image_shape}"
            raise DataError(f"{train.name}: {shapes} (height, width, channels), expected the same")
        if train.pixel_dtype != other.pixel_dtype:
            types = f"training images are {train.pixel_dtype}, {kind} images {other.pixel_dtype}"
            raise DataError(f"{train.name}: {types}, expected the same; convert one of them")


def load_dataset(
    name: str, root: Path | None, reading: Reading | None = None, clients: ClientList | None = None
) -> DatasetSplits:
    """Load a data set by its registered name.

    Args:
        name: A name from `registry.names("dataset")`.
        root: The folder (or file) that holds it; None for one that needs none.
        reading: How images are read. A loader whose images lie in files takes it as an argument of this name; the
            images of any other are resized once they are loaded.
        clients: Where the data set is to say whose images are whose; None: it need not. A loader that finds them in
            other places then, or reads a list, takes it as an argument of this name.

    Raises:
        ConfigError: No such name; `root` is needed and None, or given and not needed; or the data set takes no list of
            clients.
        DataError: Files are missing, damaged or of another format.
        DependencyError: The format needs a library that is not installed.
    """
    reading = reading or Reading()
    load = registry.resolve("dataset", name)
    taken = inspect.signature(load).parameters
    if clients is not None and "clients" not in taken:
        raise no_list(name) if clients.path else ConfigError(f"partition: natural, but {name} {_NO_CLIENTS}")
    wanted = {"reading": reading, "clients": clients}
    splits: DatasetSplits = load(root, **{key: value for key, value in wanted.items() if key in taken and value})
    return splits if reading.resize is None or "reading" in taken else _resized(splits, reading.resize)


def _resized(splits: DatasetSplits, resize: SourceResize) -> DatasetSplits:
    """Return a data set with its images as squares of one size, and a note that says from which."""
    if splits.train.pixel_dtype != USUAL_PIXELS:
        got = f"images of {splits.train.name} are {splits.train.pixel_dtype}, and only {USUAL_PIXELS} ones are resized"
        raise ConfigError(f"data.image_size: {got}; resize them before they are saved, and remove data.image_size")
    source.require_pillow("data.image_size")
    height, width, _ = splits.train.image_shape
    note = f"all images resized from {width}x{height} to {resize.size}x{resize.size} pixels ({resize.how})"
    test, validation = (part and _squares(part, resize) for part in (splits.test, splits.validation))
    notes = (*splits.notes, note)
    return DatasetSplits(_squares(splits.train, resize), test, validation, notes, splits.owners)


def _squares(images: LabelledImages, resize: SourceResize) -> ImageDataset:
    squares_NHWC = np.empty((len(images), resize.size, resize.size, images.image_shape[2]), dtype=np.uint8)
    for place, image in zip(squares_NHWC, np.asarray(images.images_NHWC, np.uint8), strict=True):
        place[...] = resized(image, resize)
    return ImageDataset(images.name, squares_NHWC, images.labels_N, images.classes)


def split_off(dataset: LabelledImages, fraction: float, seed: int) -> tuple[LabelledImages, LabelledImages]:
    """Split a data set in two, each image in exactly one part, both with the class proportions of the whole.

    Args:
        dataset: At least two images.
        fraction: Share of images to hold out, in (0, 1); rounded to whole images, at least one on either side.
        seed: Decides which images of a class are held out.

    Returns:
        `(rest, held_out)`, both in the order of `dataset`. The held-out count of a class is its exact share
        rounded down or up; who is rounded up is decided by the largest remainder, then by the lowest class.

    Raises:
        ConfigError: `fraction` is outside (0, 1).
        DataError: Fewer than two images.
    """
    if not 0.0 < fraction < 1.0:
        raise ConfigError(f"split: got fraction {fraction}, expected more than 0 and less than 1")
    if len(dataset) < 2:
        raise DataError(f"{dataset.name}: one image cannot be split in two; provide more images")
    generator = rng.generator(seed, "split")
    counts = np.bincount(dataset.labels_N, minlength=len(dataset.classes))
    held_out: npt.NDArray[np.bool_] = np.zeros(len(dataset), dtype=np.bool_)
    for label, quota in enumerate(_quotas(counts, fraction)):
        members = np.flatnonzero(dataset.labels_N == label)
        held_out[generator.permutation(members)[:quota]] = True
    return dataset.take(np.flatnonzero(~held_out)), dataset.take(np.flatnonzero(held_out))


def _quotas(counts: npt.NDArray[np.int64], fraction: float) -> npt.NDArray[np.int64]:
    """Return how many of each class to hold out, by the method of largest remainders."""
    total = int(counts.sum())
    target = min(max(round(fraction * total), 1), total - 1)
    # Shares of the rounded target, not of `fraction`: they add up to a whole number, so that the remainders do.
    shares = counts * target
    quotas: npt.NDArray[np.int64] = shares // total
    missing = target - int(quotas.sum())
    by_remainder = np.argsort(-(shares % total), kind="stable")
    quotas[by_remainder[:missing]] += 1
    return quotas
