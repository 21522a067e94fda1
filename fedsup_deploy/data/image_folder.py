"""Folders of image files, one folder per class: `root/train/<class>/*.png`, `root/test/<class>/*.png`.

Or one folder per client, where that is asked for: `root/<client>/<class>/*.png`, or the layout above in each of them.

What of a folder is read, what is passed over, and how much memory the images take. What an image looks like is decided
in `image_file`, what becomes of those of any size in `source_resize`. Needs Pillow (extra `images`).
"""

import collections
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from fedsup_deploy.config.partition import ClientList
from fedsup_deploy.data import source
from fedsup_deploy.data.dataset import DatasetSplits, ImageDataset
from fedsup_deploy.data.image_file import SUFFIXES, read_header, read_image
from fedsup_deploy.data.names import escaped, name_of
from fedsup_deploy.data.owners import listed_owners, owners_of
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


class _Places(NamedTuple):
    """Where images of a split lie: folders that hold one folder per class, by the client they are of, if any.

    `base` is what the notes tell paths below.
    """

    base: Path
    of: dict[str, Path]


class _Found(NamedTuple):
    """The files of one split, for each the client it is of, and what was passed over beside them."""

    images: list[_Labelled]
    clients: list[str]
    notes: list[str]


def load_image_folder(
    root: Path | None, resize: SourceResize | None = None, clients: ClientList | None = None
) -> DatasetSplits:
    """Load images from folders; grey if every file of all splits is stored as grey alone, RGB otherwise.

    Args:
        root: The folder of `train`, `test` and maybe `val` (or `valid`, or `validation`). Each holds one folder per
            class; classes are those of `train`, in alphabetical order. PNG, JPEG, WebP, BMP, GIF, TIFF and PPM files
            are read, as `image_file` says. Hidden files are passed over; other files, folders within those of classes
            and what lies beside the splits are passed over, too, and the notes of the data set say so.
        resize: What makes squares of images of any size; the notes say how many are enlarged or much larger. None: all
            must have one size.
        clients: Without a list, `root` is the folder of one folder per client, each with one folder per class, or with
            `train`, `val` and `test`, of which it may have any; classes are those of all clients' training images. With
            a list, it says whose images are whose.

    Raises:
        ConfigError: `root` is None.
        DataError: A folder is missing or empty, a file is damaged or cannot be shown in 8 bits a channel, a name is
            not UTF-8, the images differ in size or need too much memory, or a class has no training images.
        DependencyError: Pillow is not installed.
    """
    by_client = clients is not None and clients.path is None
    layout = "<client>/<class>/ folders" if by_client else "train/<class>/ and test/<class>/ folders"
    folder = source.required_root(_NAME, root, f"{layout} of images")
    source.require_pillow(_NAME)
    listed = clients.path if clients is not None else None
    places, notes = _splits_of_clients(folder) if by_client else _splits_of(folder, listed)
    classes = tuple(sorted({name for place in places["train"].of.values() for name in _class_folders(place)}))
    found = {split: _find_images(place, split, classes) for split, place in places.items()}
    paths = [path for split in found.values() for path, _ in split.images]
    is_grey, census = _check_headers(paths, resize)
    first = found["train"].images[0].path
    height, width = (resize.size,) * 2 if resize else read_image(first).pixels.shape[:2]
    complaints: dict[Path, str] = {}
    made: dict[str, ImageDataset] = {}
    for split, (images, _, split_notes) in found.items():
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
    owners = None
    if listed is not None:
        files = {split: [_below(path, folder) for path, _ in each.images] for split, each in found.items()}
        owners, list_notes = listed_owners(_NAME, listed, files)
        notes += list_notes
    elif by_client:
        owners = owners_of(_NAME, {split: each.clients for split, each in found.items()}, list(_folders(folder)))
    return DatasetSplits(made["train"], made.get("test"), made.get("validation"), tuple(notes), owners)


def _splits_of(folder: Path, listed: Path | None) -> tuple[dict[str, _Places], list[str]]:
    """Return the folder of each split, and what lies beside them and a list."""
    missing = [name for name in _REQUIRED if not (folder / name).is_dir()]
    if missing:
        place = str(folder) if folder.is_dir() else f"{folder} (no such folder)"
        hint = "; for a folder per client set partition.kind: natural" if listed is None and folder.is_dir() else ""
        raise DataError(f"{_NAME}: missing {' and '.join(missing)} - looked in {place} - set data.root{hint}")
    places = {name: folder / name for name in _REQUIRED} | _validation_in(folder)
    beside = [path for path in _entries(folder) if path not in (*places.values(), listed)]
    notes = [f"passed over beside train and test: {_counted(beside, folder)}"] if beside else []
    return {split: _Places(place, {"": place}) for split, place in places.items()}, notes


def _validation_in(folder: Path) -> dict[str, Path]:
    """Return the folder of validation images, if there is one."""
    found = [folder / name for name in _VALIDATION if (folder / name).is_dir()]
    if len(found) > 1:
        got = " and ".join(path.name for path in found)
        raise DataError(f"{escaped(folder)}: got {got}, expected one folder of validation images; remove the others")
    return {"validation": found[0]} if found else {}


def _splits_of_clients(folder: Path) -> tuple[dict[str, _Places], list[str]]:
    """Return for each split the folders of the clients that have images of it, and what lies beside them."""
    clients = _folders(folder)
    if not clients:
        place = escaped(folder) if folder.is_dir() else f"{escaped(folder)} (no such folder)"
        raise DataError(
            f"{_NAME}: no folders of clients, expected <client>/<class>/ - looked in {place} - set data.root"
        )
    if clients.keys() >= set(_REQUIRED):
        raise DataError(
            f"{escaped(folder)}: has train and test, which are no clients; for <client>/<class>/ set data.root to the "
            "folder of the clients, for train/<class>/ name a list in partition.clients or choose another partition"
        )
    places: dict[str, _Places] = {}
    beside = [path for path in _entries(folder) if not path.is_dir()]
    for name, client in clients.items():
        named = {part: client / part for part in _REQUIRED} | _validation_in(client)
        parts = {part: path for part, path in named.items() if _holds_folders(path)}
        if not parts:
            parts = {"train": client}
        else:
            beside += [path for path in _entries(client) if path not in parts.values()]
        for part, path in parts.items():
            places.setdefault(part, _Places(folder, {})).of[name] = path
    if "train" not in places:
        raise DataError(f"{escaped(folder)}: no client has training images, expected <client>/train/<class>/")
    notes = [f"passed over beside folders of clients, train and test: {_counted(beside, folder)}"] if beside else []
    return places, notes


def _holds_folders(folder: Path) -> bool:
    """Return whether a folder holds others: `train` may also be a class."""
    return folder.is_dir() and any(path.is_dir() for path in _entries(folder))


def _class_folders(split: Path) -> dict[str, Path]:
    """Return the folders of classes by their names, in the order of these."""
    return _folders(split, "class")


def _folders(place: Path, what: str = "client") -> dict[str, Path]:
    """Return the folders in one by their names, in the order of these."""
    folders: dict[str, Path] = {}
    for path in _entries(place) if place.is_dir() else ():
        if path.is_dir():
            if (name := name_of(path)) in folders:
                raise DataError(f"{escaped(place)}: two folders of {what} {name!r}; put their images into one")
            folders[name] = path
    return dict(sorted(folders.items()))


def _find_images(places: _Places, split: str, classes: tuple[str, ...]) -> _Found:
    """Return the images of a split, client after client."""
    images: list[_Labelled] = []
    clients: list[str] = []
    others: list[Path] = []
    inner: list[Path] = []
    for client, place in places.of.items():
        found = _images_in(place, classes, inner, others)
        images += sorted(found, key=lambda image: (image.label, name_of(image.path)))
        clients += [client] * len(found)
    if not images:
        layout = "<class>/*" if "" in places.of else "<client>/<class>/*"
        raise DataError(f"{escaped(places.base)}: no images, expected {layout}{' or *'.join(SUFFIXES)}; set data.root")
    notes = []
    name = split if "" not in places.of else places.base.name
    if inner:
        num_files = sum(not path.is_dir() for folder in inner for path in folder.rglob("*"))
        what = f"folders within those of classes: {_counted(inner, places.base)}, files in them: {num_files}"
        notes.append(f"passed over in {name}, {what}")
    if others:
        notes.append(f"passed over in {name}, files that are no images: {_counted(others, places.base)}")
    return _Found(images, clients, notes)


def _images_in(place: Path, classes: tuple[str, ...], inner: list[Path], others: list[Path]) -> list[_Labelled]:
    """Return the images in folders of classes; adds what is passed over to `inner`, folders, and `others`."""
    folders = _class_folders(place)
    if unknown := [name for name in folders if name not in classes]:
        raise DataError(
            f"{escaped(place)}: class {unknown[0]!r} has no folder in train; add it there or remove it here"
        )
    images: list[_Labelled] = []
    others += [path for path in _entries(place) if not path.is_dir()]
    for label, name in enumerate(classes):
        for path in _entries(folders[name]) if name in folders else ():
            if path.is_dir():
                inner.append(path)
            elif path.suffix.lower() in SUFFIXES:
                images.append(_Labelled(path, label))
            else:
                others.append(path)
    return images


def _below(path: Path, folder: Path) -> str:
    """Return where a file lies below a folder, as a list of clients says it, whatever the locale."""
    return os.fsencode(path.relative_to(folder)).decode("utf-8")


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
