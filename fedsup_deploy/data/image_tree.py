"""Which files below a folder are images of which split, class and client, and what is passed over. Opens no file."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from fedsup_deploy.data import source
from fedsup_deploy.data.names import escaped, name_of
from fedsup_deploy.errors import DataError
from fedsup_deploy.ondevice.image_file import SUFFIXES

_REQUIRED: Final = ("train", "test")
_VALIDATION: Final = ("val", "valid", "validation")
#: Ends of names of pictures that are not read: of phones, and as sensors of cameras leave them.
_UNREAD_PICTURES: Final = (
    ".arw", ".avif", ".cr2", ".cr3", ".dng", ".heic", ".heif", ".jp2", ".jxl", ".nef", ".orf", ".raf", ".rw2",
)  # fmt: skip


class Found(NamedTuple):
    """The files of one split, below the root: for each its class, and the client it is of, if any."""

    names: list[str]
    labels_N: npt.NDArray[np.int64]
    clients: list[str]


class ImageTree(NamedTuple):
    """What a folder holds.

    Args:
        classes: Their names, in order: those of training images.
        found: The files of each split: `train`, and `validation` and `test` if there are any.
        clients: Names of the folders of clients; none where there are none.
        notes: What was passed over; lines for the user.
    """

    classes: tuple[str, ...]
    found: Mapping[str, Found]
    clients: tuple[str, ...]
    notes: list[str]


class _Places(NamedTuple):
    """Where images of a split lie: folders that hold one folder per class, by the client they are of, if any.

    Notes call the split `name`, and tell paths below `base`.
    """

    name: str
    base: Path
    of: dict[str, Path]


def tree_of_classes(root: Path, name: str, listed: Path | None) -> ImageTree:
    """Return what lies in `train/<class>/`, `test/<class>/` and maybe `val/<class>/`.

    Args:
        root: Their folder.
        name: The data set, for messages.
        listed: A file that is not passed over: it says whose images are whose.

    Raises:
        DataError: A folder is missing or holds no image, a name is not UTF-8, or a class has no training images.
    """
    missing = [part for part in _REQUIRED if not (root / part).is_dir()]
    if missing:
        place = str(root) if root.is_dir() else f"{root} (no such folder)"
        hint = "; for a folder per client set partition.kind: natural" if listed is None and root.is_dir() else ""
        raise DataError(f"{name}: missing {' and '.join(missing)} - looked in {place} - set data.root{hint}")
    places = {part: root / part for part in _REQUIRED} | _validation_in(root)
    beside = [path for path in _entries(root) if path not in (*places.values(), listed)]
    notes = _beside("train and test", beside, root, "train/<class>")
    splits = {split: _Places(place.name, place, {"": place}) for split, place in places.items()}
    return _tree(root, splits, (), notes)


def tree_of_clients(root: Path, name: str) -> ImageTree:
    """Return what lies in `<client>/<class>/`, or in a client's `train/<class>/`, `val/<class>/` and `test/<class>/`.

    Args:
        root: The folder of the clients' folders.
        name: The data set, for messages.

    Raises:
        DataError: There is no client, no training image, a name is not UTF-8, or a class has no training images.
    """
    clients = _folders(root, "client")
    if not clients:
        place = escaped(root) if root.is_dir() else f"{escaped(root)} (no such folder)"
        raise DataError(
            f"{name}: no folders of clients, expected <client>/<class>/ - looked in {place} - set data.root"
        )
    if clients.keys() >= set(_REQUIRED):
        raise DataError(
            f"{escaped(root)}: has train and test, which are no clients; for <client>/<class>/ set data.root to the "
            "folder of the clients, for train/<class>/ name a list in partition.clients or choose another partition"
        )
    splits: dict[str, _Places] = {}
    beside = [path for path in _entries(root) if not path.is_dir()]
    for client, folder in clients.items():
        named = {part: folder / part for part in _REQUIRED} | _validation_in(folder)
        parts = {part: path for part, path in named.items() if _holds_folders(path)}
        if not parts:
            parts = {"train": folder}
        else:
            beside += [path for path in _entries(folder) if path not in parts.values()]
        for part, path in parts.items():
            splits.setdefault(part, _Places(part, root, {})).of[client] = path
    if "train" not in splits:
        raise DataError(f"{escaped(root)}: no client has training images, expected <client>/train/<class>/")
    theirs = {path.relative_to(root).parts[0] for path in beside if path.parent != root and _num_images(path)}
    whose = f"{escaped(theirs.pop())}/train" if len(theirs) == 1 else "<client>/train"
    notes = _beside("folders of clients, train and test", beside, root, whose)
    return _tree(root, splits, tuple(clients), notes)


def _beside(what: str, paths: Sequence[Path], root: Path, cure: str) -> list[str]:
    """Return what was passed over beside folders that are read, and what to do if there are images among it."""
    if not paths:
        return []
    num_images = sum(map(_num_images, paths))
    advice = f", images among them: {num_images:,}; move them into {cure} to train on them" if num_images else ""
    return [f"passed over beside {what}: {_counted(paths, root)}{advice}"]


def _num_images(path: Path) -> int:
    """Return how many image files there are in a folder, however deep, or whether a file is one."""
    if not path.is_dir():
        return int(path.suffix.lower() in SUFFIXES)
    return sum(each.suffix.lower() in SUFFIXES and not each.name.startswith(".") for each in path.rglob("*"))


def _validation_in(folder: Path) -> dict[str, Path]:
    """Return the folder of validation images, if there is one."""
    found = [folder / name for name in _VALIDATION if (folder / name).is_dir()]
    if len(found) > 1:
        got = " and ".join(path.name for path in found)
        raise DataError(f"{escaped(folder)}: got {got}, expected one folder of validation images; remove the others")
    return {"validation": found[0]} if found else {}


def _holds_folders(folder: Path) -> bool:
    """Return whether a folder holds others: `train` may also be a class."""
    return folder.is_dir() and any(path.is_dir() for path in _entries(folder))


def _tree(root: Path, splits: Mapping[str, _Places], clients: tuple[str, ...], notes: list[str]) -> ImageTree:
    folders = [_folders(place, "class") for place in splits["train"].of.values()]
    classes = tuple(sorted({name for of_place in folders for name in of_place}))
    found = {}
    for split, places in splits.items():
        found[split], of_split = _find(root, places, classes)
        notes += of_split
    return ImageTree(classes, found, clients, notes)


def _folders(place: Path, what: str) -> dict[str, Path]:
    """Return the folders in one by their names, in the order of these."""
    folders: dict[str, Path] = {}
    names: dict[Path, str] = {}
    for path in _entries(place) if place.is_dir() else ():
        if path.is_dir():
            if (name := name_of(path)) in folders:
                raise DataError(f"{escaped(place)}: two folders of {what} {name!r}; put their images into one")
            # By way of a link the same images would be two clients', or of two classes.
            if (same := names.setdefault(path.resolve(), name)) != name:
                raise DataError(f"{escaped(place)}: {what} {name!r} and {what} {same!r} are one folder; remove one")
            folders[name] = path
    return dict(sorted(folders.items()))


def _find(root: Path, places: _Places, classes: tuple[str, ...]) -> tuple[Found, list[str]]:
    """Return the images of a split, client after client, and what of it was passed over."""
    found = Found([], np.empty(0, dtype=np.int64), [])
    labels: list[int] = []
    others: list[Path] = []
    inner: list[Path] = []
    for client, place in places.of.items():
        for label, names in enumerate(_images_in(root, place, classes, inner, others)):
            found.names.extend(names)
            labels += [label] * len(names)
            found.clients.extend([client] * len(names))
    if not labels:
        layout = "<class>/*" if "" in places.of else "<client>/<class>/*"
        raise DataError(f"{escaped(places.base)}: no images, expected {layout}{' or *'.join(SUFFIXES)}; set data.root")
    notes = []
    if inner:
        num_files = sum(not path.is_dir() for folder in inner for path in folder.rglob("*"))
        what = f"folders within those of classes: {_counted(inner, places.base)}, files in them: {num_files}"
        notes.append(f"passed over in {places.name}, {what}")
    return found._replace(labels_N=np.array(labels, dtype=np.int64)), [*notes, *_of_others(others, places)]


def _of_others(others: Sequence[Path], places: _Places) -> Iterator[str]:
    """Yield what is to be said of files that are not read: images that are of no class, and other kinds of files."""
    outside = [path for path in others if path.suffix.lower() in SUFFIXES]
    if outside:
        what = f"images outside of a folder of a class: {_counted(outside, places.base)}"
        yield f"passed over in {places.name}, {what}; move them into one"
    if unread := [path for path in others if path.suffix.lower() not in SUFFIXES]:
        is_picture = any(path.suffix.lower() in _UNREAD_PICTURES for path in unread)
        advice = "; convert pictures among them to PNG or JPEG" if is_picture else ""
        what = f"files of kinds that are not read: {_counted(unread, places.base)}"
        yield f"passed over in {places.name}, {what}{advice}"


def _images_in(
    root: Path, place: Path, classes: tuple[str, ...], inner: list[Path], others: list[Path]
) -> list[list[str]]:
    """Return the images of each class, below the root; adds what is passed over to `inner`, folders, and `others`."""
    folders = _folders(place, "class")
    if unknown := [name for name in folders if name not in classes]:
        raise DataError(
            f"{escaped(place)}: class {unknown[0]!r} has no folder in train; add it there or remove it here"
        )
    others += [path for path in _entries(place) if not path.is_dir()]
    images: list[list[str]] = []
    for name in classes:
        of_class: list[tuple[str, str]] = []
        for entry in _files(folders[name]) if name in folders else ():
            path = folders[name] / entry.name
            if path.is_dir() if entry.is_symlink() else entry.is_dir():
                inner.append(path)
            elif path.suffix.lower() in SUFFIXES:
                of_class.append((name_of(path), path.relative_to(root).as_posix()))
            else:
                others.append(path)
        images.append([path for _, path in sorted(of_class)])
    return images


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
