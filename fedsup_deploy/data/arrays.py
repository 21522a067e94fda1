"""NPZ files: MedMNIST's, and any user's own arrays. Never reads an NPZ that holds pickled objects."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedsup_deploy.data import source
from fedsup_deploy.data.dataset import DatasetSplits, ImageDataset
from fedsup_deploy.errors import DataError

#: Any: files of other people, whose element types are looked at below.
Arrays = dict[str, npt.NDArray[Any]]

_KEYS = ("train_images", "train_labels", "test_images", "test_labels")
# Far above any data set of labelled images, and low enough to make names up for.
_MAX_UNNAMED_CLASSES = 100_000


def load_medmnist(root: Path | None) -> DatasetSplits:
    """Load a 2-D single-label MedMNIST set (`pathmnist.npz`, ...); its validation part is left out.

    Args:
        root: The `.npz` file, or a folder with exactly one. Classes are named by their number: the file has no names.

    Raises:
        ConfigError: `root` is None.
        DataError: The file is missing, damaged, multi-label, three-dimensional or not MedMNIST's.

    Source: J. Yang et al., MedMNIST v2, arXiv:2110.14795.
    """
    path = _find("medmnist", root)
    return _splits("medmnist", path, _read(path, _KEYS))


def load_npz(root: Path | None) -> DatasetSplits:
    """Load a user's own images from one NPZ file.

    Args:
        root: The `.npz` file, or a folder with exactly one. It holds `train_images` and `test_images`, uint8,
            (N, H, W) or (N, H, W, C); `train_labels` and `test_labels`, integers from 0; and, if wanted, `classes`,
            their names. Without it, classes are named by their number.

    Raises:
        ConfigError: `root` is None.
        DataError: The file is missing, damaged, or holds other arrays.
    """
    path = _find("npz", root)
    return _splits("npz", path, _read(path, (*_KEYS, "classes")))


def _find(name: str, root: Path | None) -> Path:
    place = source.required_root(name, root, "an .npz file")
    if place.is_file():
        return place
    found = sorted(place.glob("*.npz")) if place.is_dir() else []
    if len(found) == 1:
        return found[0]
    got = f"found {', '.join(path.name for path in found)}" if found else "found no *.npz file"
    where = f"in {place}" if place.is_dir() else f"at {place} (no such file or folder)"
    raise DataError(f"{name}: {got}, expected exactly one - looked {where} - set data.root to the file")


def _read(path: Path, keys: tuple[str, ...]) -> Arrays:
    """Return those of the arrays `keys` that are there; all of `_KEYS` must be."""
    try:
        # Opened here, for NumPy leaves a file open that it cannot read.
        with source.reading(path), path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DataError(f"{path}: got a single array, expected an .npz archive; save it with numpy.savez")
            missing = [key for key in _KEYS if key not in archive]
            if missing:
                present = ", ".join(sorted(archive.files)) or "nothing"
                raise DataError(f"{path}: no {', '.join(missing)}, only {present}; name the arrays {', '.join(_KEYS)}")
            return {key: archive[key] for key in keys if key in archive}
    # NumPy raises ValueError for pickled objects, garbled headers and what is no NPZ at all.
    except (ValueError, MemoryError, NotImplementedError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: not an .npz of plain arrays ({reason}); save it without objects") from error


def _splits(name: str, path: Path, arrays: Arrays) -> DatasetSplits:
    labels = {split: _labels(path, f"{split}_labels", arrays) for split in ("train", "test")}
    if "classes" in arrays:
        classes = _class_names(path, arrays["classes"])
    else:
        highest = max(int(labels_N.max(initial=-1)) for labels_N in labels.values())
        if highest >= _MAX_UNNAMED_CLASSES:
            raise DataError(
                f"{path}: labels go up to {highest:,}, expected 0 to {_MAX_UNNAMED_CLASSES - 1:,}; renumber"
            )
        classes = tuple(str(label) for label in range(highest + 1))
    train, test = (
        ImageDataset(name, _images(arrays[f"{split}_images"]), labels[split], classes) for split in ("train", "test")
    )
    return DatasetSplits(train, test)


def _images(images: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Give grey images the channel axis they lack; everything else is for the data set to check."""
    return images[..., np.newaxis] if images.ndim == 3 else images


def _labels(path: Path, key: str, arrays: Arrays) -> npt.NDArray[np.int64]:
    """Return labels of shape (N,) from (N,) or (N, 1)."""
    labels = arrays[key]
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        expected = "integers, one per image (multi-label sets are not supported)"
        raise DataError(f"{path}: {key} is {labels.dtype} of shape {labels.shape}, expected {expected}")
    return labels.astype(np.int64)


def _class_names(path: Path, names: npt.NDArray[Any]) -> tuple[str, ...]:
    if names.ndim != 1 or names.dtype.kind != "U":
        raise DataError(f"{path}: classes is {names.dtype} of shape {names.shape}, expected a list of text")
    return tuple(str(name) for name in names)
