"""Folders of image files, one folder per class: `root/train/<class>/*.png`, `root/test/<class>/*.png`.

What of a folder is read, what is passed over, and how much memory the images take. What an image looks like is decided
in `image_file`, what becomes of those of any size in `source_resize`. Needs Pillow (extra `images`).
"""

import collections
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from fedsup_deploy.data import source
from fedsup_deploy.data.dataset import DatasetSplits, ImageDataset
from fedsup_deploy.data.image_file import SUFFIXES, read_header, read_image
from fedsup_deploy.data.names import escaped, name_of
from fedsup_deploy.errors import DataError
from fedsup_deploy.ondevice.image_file import ImageHeader
from fedsup_deploy.ondevice.source_resize import SourceResize, resized, scale_of

_NAME = "image-folder"
_REQUIRED = ("train", "test")
_VALIDATION = ("val", "valid", "validation")
#: Of an image that has so many pixels for one of the square, along one axis, the census says that it is much larger.
_MUCH: Final = 4


class _Labelled(NamedTuple):
    path: Path
    label: int


class _Found(NamedTuple):
    """The files of one split, and what was passed over beside them."""

    images: list[_Labelled]
    notes: list[str]


def load_image_folder(root: Path | None, resize: SourceResize | None = None) -> DatasetSplits:
    """Load images from folders; grey if every file of all splits is stored as grey alone, RGB otherwise.

    Args:
        root: The folder of `train`, `test` and maybe `val` (or `valid`, or `validation`). Each holds one folder per
            class; classes are those of `train`, in alphabetical order. PNG, JPEG, WebP, BMP, GIF, TIFF and PPM files
            are read, as `image_file` says. Hidden files are passed over; other files, folders within those of classes
            and what lies beside the splits are passed over, too, and the notes of the data set say so.
        resize: What makes squares of images of any size; the notes say how many are enlarged or much larger. None: all
            must have one size.

    Raises:
        ConfigError: `root` is None.
        DataError: A folder is missing or empty, a file is damaged or cannot be shown in 8 bits a channel, a name is
            not UTF-8, the images differ in size or need too much memory, or a class has no training images.
        DependencyError: Pillow is not installed.
    """
    folder = source.required_root(_NAME, root, "train/<class>/ and test/<class>/ folders of images")
    source.require_pillow(_NAME)
    places, notes = _splits_of(folder)
    classes = tuple(_class_folders(places["train"]))
    found = {split: _find_images(place, classes) for split, place in places.items()}
    paths = [path for split in found.values() for path, _ in split.images]
    is_grey, census = _check_headers(paths, resize)
    first = found["train"].images[0].path
    height, width = (resize.size,) * 2 if resize else read_image(first).pixels.shape[:2]
    complaints: dict[Path, str] = {}
    made: dict[str, ImageDataset] = {}
    for split, (images, split_notes) in found.items():
        images_NHWC = np.empty((len(images), height, width, 1 if is_grey else 3), dtype=np.uint8)
        for place, (path, _) in zip(images_NHWC, images, strict=True):
            complaints |= _read_into(place, path, first, resize)
        labels_N = np.array([label for _, label in images], dtype=np.int64)
        made[split] = ImageDataset(_NAME, images_NHWC, labels_N, classes)
        notes += split_notes
    if complaints:
        path, complaint = next(iter(complaints.items()))
        where = escaped(path.relative_to(folder))
        notes.append(f"images that are damaged beside their pixels: {len(complaints)} ({where}: {complaint})")
    notes += census
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
    images: list[_Labelled] = []
    others = [path for path in _entries(split) if not path.is_dir()]
    inner: list[Path] = []
    for label, name in enumerate(classes):
        for path in _entries(folders[name]) if name in folders else ():
            if path.is_dir():
                inner.append(path)
            elif path.suffix.lower() in SUFFIXES:
                images.append(_Labelled(path, label))
            else:
                others.append(path)
    if not images:
        raise DataError(f"{escaped(split)}: no images, expected <class>/*{' or *'.join(SUFFIXES)}; set data.root")
    images.sort(key=lambda image: (image.label, name_of(image.path)))
    notes = []
    if inner:
        num_files = sum(not path.is_dir() for folder in inner for path in folder.rglob("*"))
        what = f"folders within those of classes: {_counted(inner, split)}, files in them: {num_files}"
        notes.append(f"passed over in {split.name}, {what}")
    if others:
        notes.append(f"passed over in {split.name}, files that are no images: {_counted(others, split)}")
    return _Found(images, notes)


def _entries(folder: Path) -> list[Path]:
    """Return what lies in a folder and is not hidden, in a fixed order."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise DataError(f"cannot read {escaped(folder)}: {error.strerror}; make it readable") from error


def _counted(paths: Sequence[Path], folder: Path) -> str:
    """Return how many there are, and where a few of them lie below a folder."""
    return source.counted([str(path.relative_to(folder)) for path in paths])


def _check_headers(paths: Sequence[Path], resize: SourceResize | None) -> tuple[bool, list[str]]:
    """Return whether all images are grey, before any pixel is decoded, and what is to be said of their sizes.

    Raises:
        DataError: An image cannot be shown, differs in size from the first and is not resized, or all need too much
            memory.
    """
    counts: collections.Counter[str] = collections.Counter()
    first = read_header(paths[0])
    for path in paths:
        header = read_header(path)
        # One that lies on its side is turned when it is decoded.
        if resize is None and sorted((header.width, header.height)) != sorted((first.width, first.height)):
            raise _other_size(path, (header.width, header.height), paths[0], (first.width, first.height))
        counts.update(_kinds(header, resize))
    is_grey = counts["grey"] == len(paths)
    num_pixels = first.width * first.height if resize is None else resize.size**2
    num_bytes, max_bytes = len(paths) * num_pixels * (1 if is_grey else 3), source.max_image_bytes()
    if num_bytes > max_bytes:
        got, limit = f"{num_bytes / 2**30:,.1f} GiB", f"{max_bytes / 2**30:,.1f} GiB, half of this machine's memory"
        raise DataError(f"{_NAME}: the images take {got}, expected at most {limit}; make them fewer or smaller")
    return is_grey, [] if resize is None else [_census(len(paths), counts, resize)]


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


def _census(num_images: int, counts: Mapping[str, int], resize: SourceResize) -> str:
    told = (
        f"smaller and so enlarged {counts['enlarged']:,}",
        f"more than {_MUCH} times larger {counts['much larger']:,}",
        f"set upright {counts['turned']:,}",
        f"grey {counts['grey']:,}",
        f"with transparency, on white now {counts['transparent']:,}",
    )
    size = f"{resize.size}x{resize.size}"
    return f"{num_images:,} images made {size} pixels ({resize.how}): {', '.join(told)}"


def _read_into(place: npt.NDArray[np.uint8], path: Path, first: Path, resize: SourceResize | None) -> dict[Path, str]:
    """Decode an image into its place, (H, W, C). Returns what is wrong with it beside its pixels, if anything."""
    pixels, complaint = read_image(path)
    if resize is not None:
        pixels = resized(pixels, resize)
    if pixels.shape[:2] != place.shape[:2]:
        raise _other_size(path, pixels.shape[1::-1], first, place.shape[1::-1])
    place[...] = pixels[..., np.newaxis] if pixels.ndim == 2 else pixels
    return {path: complaint} if complaint else {}


def _other_size(path: Path, size: tuple[int, ...], first: Path, expected: tuple[int, ...]) -> DataError:
    got, wanted = (f"{width}x{height}" for width, height in (size, expected))
    return DataError(
        f"{escaped(path)}: is {got} pixels, expected {wanted} as {escaped(first.name)}; set data.image_size"
    )
