"""CIFAR-10 and CIFAR-100 in both official layouts, binary and Python; unpacked, as the authors' archives hold them.

The Python layout is pickled; it goes through `numpy_pickle`, which runs nothing that a file names.

Shape suffixes: N images, H W pixels, C channels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fedsup_deploy.data import source
from fedsup_deploy.data.cifar_classes import CIFAR10_CLASSES, CIFAR100_FINE_CLASSES
from fedsup_deploy.data.dataset import DatasetSplits, ImageDataset
from fedsup_deploy.data.names import decoded
from fedsup_deploy.data.numpy_pickle import read_pickled_dict, uint8_array
from fedsup_deploy.errors import DataError

_SIDE = 32
_PIXEL_BYTES = 3 * _SIDE * _SIDE


class _Batch(NamedTuple):
    images_NHWC: npt.NDArray[np.uint8]
    labels_N: npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Layout:
    """One way in which the authors publish a set. The batches may also lie in the root itself."""

    folder: str
    train: tuple[str, ...]
    test: str
    classes: str
    read_batch: Callable[[Path], _Batch]
    read_classes: Callable[[Path], tuple[str, ...]]

    @property
    def batches(self) -> tuple[str, ...]:
        return (*self.train, self.test)


def load_cifar10(root: Path | None) -> DatasetSplits:
    """Load CIFAR-10: 32x32 RGB, 10 classes, officially 50,000 and 10,000 images.

    Args:
        root: The folder of `cifar-10-batches-bin` or `cifar-10-batches-py`, or one of these itself. All five training
            batches must be there; the binary layout wins where both are.

    Raises:
        ConfigError: `root` is None.
        DataError: A batch is missing, damaged or of another format.

    Source: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
    """
    binary = _Layout(
        folder="cifar-10-batches-bin",
        train=tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
        test="test_batch.bin",
        classes="batches.meta.txt",
        read_batch=lambda path: _read_binary(path, num_label_bytes=1),
        read_classes=_read_text_lines,
    )
    pickled = _Layout(
        folder="cifar-10-batches-py",
        train=tuple(f"data_batch_{number}" for number in range(1, 6)),
        test="test_batch",
        classes="batches.meta",
        read_batch=lambda path: _read_pickled(path, "labels"),
        read_classes=lambda path: _read_pickled_names(path, "label_names"),
    )
    return _load("cifar10", root, (binary, pickled), CIFAR10_CLASSES)


def load_cifar100(root: Path | None) -> DatasetSplits:
    """Load CIFAR-100 with its fine labels: 32x32 RGB, 100 classes, officially 50,000 and 10,000 images.

    Args:
        root: The folder of `cifar-100-binary` or `cifar-100-python`, or one of these itself. A part of the official
            images will do; the binary layout wins where both are.

    Raises:
        ConfigError: `root` is None.
        DataError: A file is missing, damaged or of another format.

    Source: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
    """
    binary = _Layout(
        folder="cifar-100-binary",
        train=("train.bin",),
        test="test.bin",
        classes="fine_label_names.txt",
        read_batch=lambda path: _read_binary(path, num_label_bytes=2),
        read_classes=_read_text_lines,
    )
    pickled = _Layout(
        folder="cifar-100-python",
        train=("train",),
        test="test",
        classes="meta",
        read_batch=lambda path: _read_pickled(path, "fine_labels"),
        read_classes=lambda path: _read_pickled_names(path, "fine_label_names"),
    )
    return _load("cifar100", root, (binary, pickled), CIFAR100_FINE_CLASSES)


def _load(name: str, root: Path | None, layouts: tuple[_Layout, ...], official: tuple[str, ...]) -> DatasetSplits:
    folders = " or ".join(layout.folder for layout in layouts)
    layout, folder = _find(name, source.required_root(name, root, folders), layouts)
    # The official names hold for a folder of bare batches; a file of names beside them speaks for itself.
    names_path = folder / layout.classes
    classes = layout.read_classes(names_path) if names_path.is_file() else official
    batches = [layout.read_batch(folder / file_name) for file_name in layout.train]
    train = _Batch(np.concatenate([b.images_NHWC for b in batches]), np.concatenate([b.labels_N for b in batches]))
    test = layout.read_batch(folder / layout.test)
    return DatasetSplits(ImageDataset(name, *train, classes), ImageDataset(name, *test, classes))


def _find(name: str, root: Path, layouts: tuple[_Layout, ...]) -> tuple[_Layout, Path]:
    """Return the layout that is there and its folder; an incomplete one is named with what it lacks."""
    candidates = [(layout, folder) for layout in layouts for folder in (root / layout.folder, root)]
    layout, folder = min(candidates, key=lambda candidate: len(_missing(*candidate)))
    missing = _missing(layout, folder)
    if not missing:
        return layout, folder
    if len(missing) < len(layout.batches):
        expected = f"expected all of {', '.join(layout.batches)}"
        raise DataError(f"{name}: missing {', '.join(missing)} - looked in {folder} - {expected}; add what is missing")
    looked_for = " or ".join(f"{', '.join(layout.batches)} in {layout.folder}" for layout in layouts)
    place = str(root) if root.is_dir() else f"{root} (no such folder)"
    raise DataError(f"{name}: found none of its files - looked in {place} for {looked_for} - set data.root")


def _missing(layout: _Layout, folder: Path) -> list[str]:
    return [file_name for file_name in layout.batches if not (folder / file_name).is_file()]


def _read_binary(path: Path, num_label_bytes: int) -> _Batch:
    """Read records of label bytes (the last is the class) and 3,072 pixels, channel by channel."""
    content = np.frombuffer(source.read_whole(path), dtype=np.uint8)
    record_bytes = num_label_bytes + _PIXEL_BYTES
    if content.size == 0 or content.size % record_bytes:
        raise DataError(f"{path}: got {content.size:,} bytes, expected records of {record_bytes:,}; get the file again")
    records = content.reshape(-1, record_bytes)
    labels_N = records[:, num_label_bytes - 1].astype(np.int64)
    return _Batch(_to_NHWC(records[:, num_label_bytes:]), labels_N)


def _read_pickled(path: Path, labels_key: str) -> _Batch:
    """Read a batch of the Python layout: `data`, (N, 3072), channel by channel, and a list of labels."""
    batch = read_pickled_dict(path)
    pixels = uint8_array(_entry(batch, "data", path), f"{path}: 'data'")
    labels = _entry(batch, labels_key, path)
    if pixels.ndim != 2 or pixels.shape[1] != _PIXEL_BYTES:
        raise DataError(
            f"{path}: 'data' has shape {pixels.shape}, expected (images, {_PIXEL_BYTES}); get the file again"
        )
    if not isinstance(labels, list) or not all(type(label) is int and 0 <= label < 256 for label in labels):
        raise DataError(f"{path}: {labels_key!r} is no list of class numbers; get the file again")
    return _Batch(_to_NHWC(pixels), np.array(labels, dtype=np.int64))


def _to_NHWC(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:  # noqa: N802  a shape suffix
    return np.ascontiguousarray(pixels.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1))


def _read_text_lines(path: Path) -> tuple[str, ...]:
    lines = decoded(source.read_whole(path), path).splitlines()
    return tuple(line.strip() for line in lines if line.strip())


def _read_pickled_names(path: Path, key: str) -> tuple[str, ...]:
    names = _entry(read_pickled_dict(path), key, path)
    if not isinstance(names, list) or not all(isinstance(name, str | bytes) for name in names):
        raise DataError(f"{path}: {key!r} is no list of names; get the file again")
    return tuple(decoded(name, path) if isinstance(name, bytes) else name for name in names)


def _entry(content: dict[str, object], key: str, path: Path) -> object:
    if key not in content:
        raise DataError(f"{path}: no {key!r}, only {source.counted(sorted(content))}; not this file")
    return content[key]
