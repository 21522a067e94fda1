"""NPZ files: MedMNIST's, and any user's own arrays. Never reads an NPZ that holds pickled objects."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedsup_deploy.config.partition import ClientList
from fedsup_deploy.data import source
from fedsup_deploy.data.dataset import DatasetSplits, ImageDataset, check_images
from fedsup_deploy.data.names import escaped
from fedsup_deploy.data.npz import Archive, Arrays, read_npz
from fedsup_deploy.data.owners import Owners, no_list, owners_of
from fedsup_deploy.errors import DataError
from fedsup_deploy.ondevice.printable import reason_of

_KEYS = ("train_images", "train_labels", "test_images", "test_labels")
_VALIDATION_KEYS = ("val_images", "val_labels")
_CLASSES = "classes"
#: Arrays with the client of each image, and the split that they are about.
_CLIENTS = {"train_clients": "train", "val_clients": "validation", "test_clients": "test"}
# Far above any data set of labelled images, and low enough to make names up for.
_MAX_UNNAMED_CLASSES = 100_000


def load_medmnist(root: Path | None) -> DatasetSplits:
    """Load a 2-D single-label MedMNIST set (`pathmnist.npz`, ...) with its validation part.

    Args:
        root: The `.npz` file, or a folder with exactly one. Classes are named by their number: the file has no names.

    Raises:
        ConfigError: `root` is None.
        DataError: The file is missing, damaged, multi-label, three-dimensional or not MedMNIST's.

    Source: J. Yang et al., MedMNIST v2, arXiv:2110.14795.
    """
    path = _find("medmnist", root)
    return _splits("medmnist", path, _read(path, (*_KEYS, *_VALIDATION_KEYS)))


def load_npz(root: Path | None, clients: ClientList | None = None) -> DatasetSplits:
    """Load a user's own images from one NPZ file.

    Args:
        root: The `.npz` file, or a folder with exactly one. It holds `train_images` and `test_images`, uint8, uint16 or
            float32, (N, H, W) or (N, H, W, C); `train_labels` and `test_labels`, integers from 0; if wanted,
            `val_images` and `val_labels`; and, if wanted, `classes`, their names. Without it, classes are named by
            their number.
            Any other array is passed over, and the notes of the data set say so.
        clients: Asks for `train_clients` as well, and if wanted `val_clients` and `test_clients`: integers or text that
            say whose images are whose.

    Raises:
        ConfigError: `root` is None, or `clients` is a list.
        DataError: The file is missing, damaged, or holds other arrays.
    """
    if clients is not None and clients.path is not None:
        raise no_list("npz")
    path = _find("npz", root)
    archive = _read(path, (*_KEYS, *_VALIDATION_KEYS, _CLASSES, *(_CLIENTS if clients else ())))
    splits = _splits("npz", path, archive)
    return splits if clients is None else dataclasses.replace(splits, owners=_owners(path, archive.arrays))


def _find(name: str, root: Path | None) -> Path:
    place = source.required_root(name, root, "an .npz file")
    if place.is_file():
        return place
    found = sorted(path for path in place.glob("*.npz") if path.is_file()) if place.is_dir() else []
    if len(found) == 1:
        return found[0]
    got = f"found {', '.join(path.name for path in found)}" if found else "found no *.npz file"
    where = f"in {place}" if place.is_dir() else f"at {place} (no such file or folder)"
    raise DataError(f"{name}: {got}, expected exactly one - looked {where} - set data.root to the file")


def _read(path: Path, keys: tuple[str, ...]) -> Archive:
    """Return those of the arrays `keys` that are there; all of `_KEYS` must be, and both or none of validation's."""
    try:
        with source.opened(path) as file:
            if file.read(len(np.lib.format.MAGIC_PREFIX)) == np.lib.format.MAGIC_PREFIX:
                raise DataError(f"{path}: got a single array, expected an .npz archive; save it with numpy.savez")
            archive = read_npz(file, keys, source.max_image_bytes())
    except ValueError as error:
        reason = reason_of(error)
        raise DataError(f"{escaped(path)}: not an .npz of plain arrays ({reason}); save it without objects") from error
    needed = (*_KEYS, *(_VALIDATION_KEYS if archive.arrays.keys() & set(_VALIDATION_KEYS) else ()))
    if missing := [key for key in needed if key not in archive.arrays]:
        present = source.counted(sorted((*archive.arrays, *archive.unread)))
        raise DataError(f"{path}: no {', '.join(missing)}, only {present}; name the arrays {', '.join(needed)}")
    return archive


def _splits(name: str, path: Path, archive: Archive) -> DatasetSplits:
    arrays = archive.arrays
    kinds = [kind for kind in ("train", "test", "val") if f"{kind}_images" in arrays]
    labels = {kind: _labels(path, f"{kind}_labels", arrays) for kind in kinds}
    if _CLASSES in arrays:
        classes = _class_names(path, arrays[_CLASSES])
    else:
        highest = max(int(labels_N.max(initial=-1)) for labels_N in labels.values())
        if highest >= _MAX_UNNAMED_CLASSES:
            raise DataError(
                f"{path}: labels go up to {highest:,}, expected 0 to {_MAX_UNNAMED_CLASSES - 1:,}; renumber"
            )
        classes = tuple(str(label) for label in range(highest + 1))
    parts = {kind: ImageDataset(name, _images(path, f"{kind}_images", arrays), labels[kind], classes) for kind in kinds}
    unread = source.counted(archive.unread)
    notes = (f"passed over in {escaped(path.name)}, arrays: {unread}",) if archive.unread else ()
    return DatasetSplits(parts["train"], parts["test"], parts.get("val"), notes)


def _images(path: Path, key: str, arrays: Arrays) -> npt.NDArray[Any]:
    """Return images of shape (N, H, W, C) from (N, H, W) or that, in the order of bytes of this machine."""
    images = arrays[key]
    images = images if images.dtype.isnative else images.astype(images.dtype.newbyteorder("="))
    images = images[..., np.newaxis] if images.ndim == 3 else images
    check_images(f"{escaped(path)}: {key}", images)
    return images


def _labels(path: Path, key: str, arrays: Arrays) -> npt.NDArray[np.int64]:
    """Return labels of shape (N,) from (N,) or (N, 1)."""
    labels = arrays[key]
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        expected = "integers, one per image (multi-label sets are not supported)"
        raise DataError(f"{path}: {key} is {labels.dtype} of shape {labels.shape}, expected {expected}")
    return labels.astype(np.int64)


def _owners(path: Path, arrays: Arrays) -> Owners:
    """Return whose images are whose."""
    present = [key for key in _CLIENTS if key in arrays]
    if "train_clients" not in present:
        expected = "the client of each training image, as partition.kind is natural"
        raise DataError(f"{path}: no train_clients, expected {expected}; add it or choose another partition")
    told: dict[str, list[Any]] = {}
    for key in present:
        clients, kind = arrays[key], key.removesuffix("_clients")
        clients = clients[:, 0] if clients.ndim == 2 and clients.shape[1] == 1 else clients
        num_images = len(arrays[f"{kind}_images"]) if f"{kind}_images" in arrays else 0
        if clients.shape != (num_images,) or clients.dtype.kind not in "iuU":
            expected = f"integers or text, one for each of the {num_images:,} images of {kind}"
            raise DataError(f"{path}: {key} is {clients.dtype} of shape {clients.shape}, expected {expected}")
        told[_CLIENTS[key]] = clients.tolist()
    if len({arrays[key].dtype.kind == "U" for key in present}) > 1:
        raise DataError(f"{path}: got integers and text in {', '.join(present)}, expected one of them")
    return owners_of("npz", told)


def _class_names(path: Path, names: npt.NDArray[Any]) -> tuple[str, ...]:
    if names.ndim != 1 or names.dtype.kind != "U":
        raise DataError(f"{path}: classes is {names.dtype} of shape {names.shape}, expected a list of text")
    return tuple(str(name) for name in names)
