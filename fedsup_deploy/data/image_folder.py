"""Folders of image files, one folder per class: `root/train/<class>/*.png`, `root/test/<class>/*.png`.

Which files are read, what is passed over, and what their headers say. Their pixels are decoded later, where they are
needed: `image_files`. Needs Pillow (extra `images`).
"""

import collections
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from fedsup_deploy.data import source
from fedsup_deploy.data.dataset import DatasetSplits, Reading
from fedsup_deploy.data.image_file import SUFFIXES, read_header, read_image
from fedsup_deploy.data.image_files import Decoder, Files, ImageFiles, other_size
from fedsup_deploy.data.names import escaped, name_of
from fedsup_deploy.data.pixel_cache import PixelCache
from fedsup_deploy.errors import DataError
from fedsup_deploy.ondevice.image_file import ImageHeader
from fedsup_deploy.ondevice.source_resize import SourceResize, scale_of

_NAME = "image-folder"
_REQUIRED = ("train", "test")
_VALIDATION = ("val", "valid", "validation")
#: Of an image that has so many pixels for one of the square, along one axis, the census says that it is much larger.
_MUCH: Final = 4


class _Found(NamedTuple):
    """The files of one split, below the root, and what was passed over beside them."""

    names: list[str]
    labels_N: npt.NDArray[np.int64]
    notes: list[str]


class _Census(NamedTuple):
    """What the headers of all files say.

    `counts` has how many images are of a kind, `damaged` those that are damaged beside their pixels: the first, how.
    """

    counts: Mapping[str, int]
    damaged: str | None


def load_image_folder(root: Path | None, reading: Reading | None = None) -> DatasetSplits:
    """Find images in folders; grey if every file of all splits is stored as grey alone, RGB otherwise.

    Args:
        root: The folder of `train`, `test` and maybe `val` (or `valid`, or `validation`). Each holds one folder per
            class; classes are those of `train`, in alphabetical order. PNG, JPEG, WebP, BMP, GIF, TIFF and PPM files
            are read, as `image_file` says. Hidden files are passed over; other files, folders within those of classes
            and what lies beside the splits are passed over, too, and the notes of the data set say so.
        reading: What makes squares of images of any size; the notes say how many are enlarged or much larger. Without,
            all must have one size.

    Raises:
        ConfigError: `root` is None.
        DataError: A folder is missing or empty, a file is no image or cannot be shown in 8 bits a channel, a name is
            not UTF-8, images that are not resized differ in size, or a class has no training images. Damage of pixels
            is found once they are decoded.
        DependencyError: Pillow is not installed.

    Side effects: Makes a temporary file, for decoded pixels.
    """
    reading = reading or Reading()
    folder = source.required_root(_NAME, root, "train/<class>/ and test/<class>/ folders of images")
    source.require_pillow(_NAME)
    places, notes = _splits_of(folder)
    classes = tuple(_class_folders(places["train"]))
    found = {split: _find_images(place, classes) for split, place in places.items()}
    files = Files(folder, [name for split in found.values() for name in split.names])
    census = _look_at_headers(files, folder, reading.resize)
    is_grey = census.counts["grey"] == len(files)
    height, width = (reading.resize.size,) * 2 if reading.resize else read_image(files[0]).pixels.shape[:2]
    shape = (height, width, 1 if is_grey else 3)
    cache = PixelCache(len(files), height * width * shape[2], reading.cache_bytes)
    decoder = Decoder(files, shape, reading.resize, cache)
    made, first = {}, 0
    for split, images in found.items():
        made[split] = ImageFiles.checked(_NAME, decoder, first, images.labels_N, classes)
        notes += images.notes
        first += len(images.names)
    notes += _notes_of(census, len(files), reading.resize)
    return DatasetSplits(made["train"], made["test"], made.get("validation"), tuple(notes))


def _splits_of(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """Return the folder of each split, and what lies beside them."""
    missing = [name for name in _REQUIRED if not (folder / name).is_dir()]
    if missing:
        place = str(folder) if folder.is_dir() else f"{folder} (no such folder)"
        raise DataError(f"{_NAME}: missing {' and '.join(missing)} - looked in {place} - set data.root")
    validation = [folder / name for name in _VALIDATION if (folder / name).is_dir()]
    if len(validation) > 1:
        got = " and ".join(path.name for path in validation)
        raise DataError(f"{escaped(folder)}: got {got}, expected one folder of validation images; remove the others")
    places = {name: folder / name for name in _REQUIRED}
    if validation:
        places["validation"] = validation[0]
    beside = [path for path in _entries(folder) if path not in places.values()]
    return places, [f"passed over beside train and test: {_counted(beside, folder)}"] if beside else []


def _class_folders(split: Path) -> dict[str, Path]:
    """Return the folders of classes by their names, in the order of these."""
    folders: dict[str, Path] = {}
    for path in _entries(split):
        if path.is_dir():
            if (name := name_of(path)) in folders:
                raise DataError(f"{escaped(split)}: two folders of class {name!r}; put their images into one")
            folders[name] = path
    return dict(sorted(folders.items()))


def _find_images(split: Path, classes: tuple[str, ...]) -> _Found:
    folders = _class_folders(split)
    if unknown := [name for name in folders if name not in classes]:
        raise DataError(
            f"{escaped(split)}: class {unknown[0]!r} has no folder in train; add it there or remove it here"
        )
    images: list[str] = []
    counts: list[int] = []
    others = [path for path in _entries(split) if not path.is_dir()]
    inner: list[Path] = []
    for name in classes:
        of_class: list[tuple[str, str]] = []
        for entry in _files(folders[name]) if name in folders else ():
            path = folders[name] / entry.name
            if path.is_dir() if entry.is_symlink() else entry.is_dir():
                inner.append(path)
            elif path.suffix.lower() in SUFFIXES:
                of_class.append((name_of(path), f"{split.name}/{folders[name].name}/{entry.name}"))
            else:
                others.append(path)
        images += [path for _, path in sorted(of_class)]
        counts.append(len(of_class))
    if not images:
        raise DataError(f"{escaped(split)}: no images, expected <class>/*{' or *'.join(SUFFIXES)}; set data.root")
    notes = []
    if inner:
        num_files = sum(not path.is_dir() for folder in inner for path in folder.rglob("*"))
        what = f"folders within those of classes: {_counted(inner, split)}, files in them: {num_files}"
        notes.append(f"passed over in {split.name}, {what}")
    if others:
        notes.append(f"passed over in {split.name}, files that are no images: {_counted(others, split)}")
    return _Found(images, np.repeat(np.arange(len(classes)), counts), notes)


def _entries(folder: Path) -> list[Path]:
    """Return what lies in a folder and is not hidden, in a fixed order."""
    return [folder / entry.name for entry in _files(folder)]


def _files(folder: Path) -> list["os.DirEntry[str]"]:
    """Return the same with what the system says of each at once: of a hundred thousand files that takes a second."""
    try:
        with os.scandir(folder) as entries:
            return sorted((each for each in entries if not each.name.startswith(".")), key=lambda each: each.name)
    except OSError as error:
        raise DataError(f"cannot read {escaped(folder)}: {error.strerror}; make it readable") from error


def _counted(paths: Sequence[Path], folder: Path) -> str:
    """Return how many there are, and where a few of them lie below a folder."""
    return source.counted([str(path.relative_to(folder)) for path in paths])


def _look_at_headers(files: Files, folder: Path, resize: SourceResize | None) -> _Census:
    """Return what the files say of their pixels, of which none is decoded.

    Raises:
        DataError: An image cannot be shown, or differs in size from the first and is not resized.
    """
    counts: collections.Counter[str] = collections.Counter()
    damaged = None
    first = read_header(files[0])
    for index in range(len(files)):
        path = files[index]
        header = read_header(path)
        # One that lies on its side is turned when it is decoded.
        if resize is None and sorted((header.width, header.height)) != sorted((first.width, first.height)):
            raise other_size(path, header.width, header.height, first.width, first.height)
        counts.update(_kinds(header, resize))
        if header.complaint is not None and damaged is None:
            damaged = f"{escaped(path.relative_to(folder))}: {header.complaint}"
    return _Census(counts, damaged)


def _kinds(header: ImageHeader, resize: SourceResize | None) -> Iterator[str]:
    """Yield what is remarkable about an image, in words of the census."""
    if resize is not None:
        fewest, most = scale_of(header.width, header.height, resize)
        if fewest < 1:
            yield "enlarged"
        elif most > _MUCH:
            yield "much larger"
    if header.is_grey:
        yield "grey"
    if header.is_turned:
        yield "turned"
    if header.is_transparent:
        yield "transparent"
    if header.complaint is not None:
        yield "damaged"


def _notes_of(census: _Census, num_images: int, resize: SourceResize | None) -> Iterator[str]:
    counts = census.counts
    if census.damaged is not None:
        yield f"images that are damaged beside their pixels: {counts['damaged']} ({census.damaged})"
    if resize is not None:
        told = (
            f"smaller and so enlarged {counts['enlarged']:,}",
            f"more than {_MUCH} times larger {counts['much larger']:,}",
            f"set upright {counts['turned']:,}",
            f"grey {counts['grey']:,}",
            f"with transparency, on white now {counts['transparent']:,}",
        )
        yield f"{num_images:,} images made {resize.size}x{resize.size} pixels ({resize.how}): {', '.join(told)}"
