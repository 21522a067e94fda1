"""Convert CIFAR-10 and CIFAR-100 from lossless WebP sheets to the layouts in which their authors publish them.

    python tools/unpack_image_sheets.py SOURCE DESTINATION --layout binary|python [--limit N]

SOURCE holds `cifar10/` and `cifar100/` (either may be absent), each with sheets of 100 columns and `labels.npz`.
DESTINATION gets `cifar-10-batches-bin` and `cifar-100-binary`, or `cifar-10-batches-py` and `cifar-100-python`; it can
then be used as `data.root` of the data sets `cifar10` and `cifar100`. Every sheet is checked against the SHA-256 of its
decoded pixels, and each folder appears whole or not at all. `--limit N` keeps the first N images of every file.

Needs Pillow. The sheets of CIFAR-100 hold part of the official images: 10,000 for training and 2,000 for testing.
"""

import argparse
import hashlib
import io
import pickle
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedsup_deploy import files
from fedsup_deploy.data.cifar_classes import CIFAR10_CLASSES
from fedsup_deploy.errors import DataError, DependencyError, FedsupError

Pixels = npt.NDArray[np.uint8]

_COLUMNS = 100
_SIDE = 32

# Of labels.npz as a file, and of each sheet's decoded images, (N, 32, 32, 3) in C order.
_CIFAR10_SHA256 = {
    "labels.npz": "24eaae7a67fb13a1849c5005fe9f3e58ac476b5c4a2e9a8d2fbb092b7cee9ff1",
    "train_1.webp": "96d2ad8cfd4291c3c629b12094faf9bb2fbff47402340485e22bd904f2762d59",
    "train_2.webp": "57b21db89f47c97d34453a8db1bddb5c5669c4bb7fc516d7237fa460774757b4",
    "train_3.webp": "742b7525023ba1058add05c6cbc4c2bbb35c9eb13aa1b44901619d3c32ef685a",
    "train_4.webp": "d09c3c3ceef0396948505e61b882f63458f64eff9edcc295a012d99eacb7d1da",
    "train_5.webp": "6e408a16c63b16997d007a68a96c76709ab988a25b4f5668f36c38f9584f43bc",
    "test.webp": "4674ac8c77f372061aaf9216c8857c99599d5df0bb9f6b16a3de613ef8eb348a",
}
_CIFAR100_SHA256 = {
    "labels.npz": "15c23cb8b90ff8980e755f2cd047826b350acbf4bea212dddce0e02668cc33e5",
    "train_1.webp": "d97d568acc976a3b655ca7a910db17533edc015eb3c8a79c9db6c5425df228b1",
    "test_1.webp": "89959763a9d1aa6cfa0a5a6e8833dba7070a06d6383ab8b6bc26b8c8c454b012",
}


@dataclass(frozen=True)
class Batch:
    """What one official file holds: `rows` (N, 3072), channel by channel; `coarse` only in CIFAR-100."""

    rows: Pixels
    labels: list[int]
    coarse: list[int] | None = None


@dataclass(frozen=True)
class Sheets:
    """One data set as read from its sheets. The batches are by official name, without a suffix."""

    batches: dict[str, Batch]
    classes: tuple[str, ...]
    coarse_classes: tuple[str, ...] = ()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code.

    Side effects: Creates or replaces the folders of the layout in DESTINATION; prints each, or one line of error.
    """
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("source", type=Path, help="folder that holds cifar10/ and cifar100/")
    parser.add_argument("destination", type=Path, help="folder that gets the official folders")
    parser.add_argument("--layout", choices=("binary", "python"), required=True)
    parser.add_argument("--limit", type=int, default=None, metavar="N", help="keep the first N images of every file")
    options = parser.parse_args(arguments)
    if options.limit is not None and options.limit < 1:
        parser.error(f"--limit: got {options.limit}, expected 1 or more")
    try:
        for folder in unpack(options.source, options.destination, options.layout, options.limit):
            print(folder)
    except FedsupError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def unpack(source: Path, destination: Path, layout: str, limit: int | None = None) -> list[Path]:
    """Convert whichever of the two data sets is there.

    Args:
        source: Folder of `cifar10` and `cifar100`.
        destination: Folder to create the official folders in.
        layout: `binary` or `python`.
        limit: Images to keep of every file; None keeps all.

    Returns:
        The folders made.

    Raises:
        DataError: Neither is there, or a file is missing or not the expected one.
        DependencyError: Pillow is not installed.
        OutputError: The destination cannot be written.

    Side effects: Creates or replaces the official folders.
    """
    write, names = {
        "binary": (_write_binary, ("cifar-10-batches-bin", "cifar-100-binary")),
        "python": (_write_python, ("cifar-10-batches-py", "cifar-100-python")),
    }[layout]
    readers = {"cifar10": _read_cifar10, "cifar100": _read_cifar100}
    made = []
    for (dataset, read), name in zip(readers.items(), names, strict=True):
        if (source / dataset).is_dir():
            with files.atomic_directory(destination / name) as partial:
                write(read(source / dataset, limit), partial)
            made.append(destination / name)
    if not made:
        raise DataError(f"no sheets: looked for cifar10/ and cifar100/ in {source}; give the folder that holds them")
    return made


def _read_cifar10(folder: Path, limit: int | None) -> Sheets:
    with _labels(folder / "labels.npz", _CIFAR10_SHA256) as archive:
        train, test = archive["train_labels"], archive["test_labels"]
    batches = {}
    for number in range(1, 6):
        rows = _sheet(folder / f"train_{number}.webp", _CIFAR10_SHA256)
        start = (number - 1) * len(rows)
        batches[f"data_batch_{number}"] = Batch(rows[:limit], train[start : start + len(rows)][:limit].tolist())
    rows = _sheet(folder / "test.webp", _CIFAR10_SHA256)
    batches["test_batch"] = Batch(rows[:limit], test[: len(rows)][:limit].tolist())
    return Sheets(batches, CIFAR10_CLASSES)


def _read_cifar100(folder: Path, limit: int | None) -> Sheets:
    with _labels(folder / "labels.npz", _CIFAR100_SHA256) as archive:
        fine = {"train": archive["train_fine"], "test": archive["test_fine"]}
        coarse_of_fine = archive["fine_to_coarse"]
        fine_names, coarse_names = archive["fine_names"].tolist(), archive["coarse_names"].tolist()
    batches = {}
    for name, labels in fine.items():
        rows = _sheet(folder / f"{name}_1.webp", _CIFAR100_SHA256)[:limit]
        kept = labels[: len(rows)]
        batches[name] = Batch(rows, kept.tolist(), coarse_of_fine[kept].tolist())
    return Sheets(batches, tuple(fine_names), tuple(coarse_names))


def _labels(path: Path, sums: dict[str, str]) -> Any:
    """Open the labels; the file's own SHA-256 is checked, so its content is known."""
    _require(path)
    _check(path, files.sha256(path), sums)
    return np.load(path, allow_pickle=False)


def _sheet(path: Path, sums: dict[str, str]) -> Pixels:
    """Return the images of a sheet as official rows, (N, 3072), channel by channel."""
    try:
        from PIL import Image
    except ImportError as error:
        message = "reading WebP needs Pillow, which is not installed; run: pip install 'fedsup-deploy[images]'"
        raise DependencyError(message) from error
    _require(path)
    try:
        with Image.open(path) as image:
            tiles = np.asarray(image).reshape(-1, _SIDE, _COLUMNS, _SIDE, 3).swapaxes(1, 2)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {error}; get the file again") from error
    images_NHWC = np.ascontiguousarray(tiles).reshape(-1, _SIDE, _SIDE, 3)
    _check(path, hashlib.sha256(images_NHWC.data).hexdigest(), sums)
    return np.ascontiguousarray(images_NHWC.transpose(0, 3, 1, 2)).reshape(len(images_NHWC), -1)


def _require(path: Path) -> None:
    if not path.is_file():
        raise DataError(f"missing {path.name} - looked in {path.parent} - get the file")


def _check(path: Path, got: str, sums: dict[str, str]) -> None:
    if got != sums[path.name]:
        raise DataError(f"{path}: content has sha256 {got}, expected {sums[path.name]}; get the file again")


def _write_binary(sheets: Sheets, folder: Path) -> None:
    for name, batch in sheets.batches.items():
        labels = [batch.labels] if batch.coarse is None else [batch.coarse, batch.labels]
        columns = np.array(labels, dtype=np.uint8).T
        files.write_bytes(folder / f"{name}.bin", np.concatenate([columns, batch.rows], axis=1).tobytes())
    if sheets.coarse_classes:
        _write_lines(folder / "fine_label_names.txt", sheets.classes)
        _write_lines(folder / "coarse_label_names.txt", sheets.coarse_classes)
    else:
        _write_lines(folder / "batches.meta.txt", sheets.classes)


def _write_lines(path: Path, lines: tuple[str, ...]) -> None:
    files.write_text(path, "".join(f"{line}\n" for line in lines))


def _write_python(sheets: Sheets, folder: Path) -> None:
    """Write what the official files hold, but for `filenames`, which the sheets do not keep."""
    for name, batch in sheets.batches.items():
        content: dict[str, Any] = {"batch_label": _batch_label(name), "data": batch.rows}
        if batch.coarse is None:
            content["labels"] = batch.labels
        else:
            content |= {"fine_labels": batch.labels, "coarse_labels": batch.coarse}
        files.write_bytes(folder / name, python2_pickle(content))
    if sheets.coarse_classes:
        names = {"fine_label_names": list(sheets.classes), "coarse_label_names": list(sheets.coarse_classes)}
        files.write_bytes(folder / "meta", python2_pickle(names))
    else:
        num_cases = len(sheets.batches["data_batch_1"].labels)
        meta = {"num_cases_per_batch": num_cases, "label_names": list(sheets.classes), "num_vis": 3 * _SIDE * _SIDE}
        files.write_bytes(folder / "batches.meta", python2_pickle(meta))


def _batch_label(name: str) -> str:
    number = name.removeprefix("data_batch_")
    return f"training batch {number} of 5" if number.isdigit() else f"{name.removesuffix('_batch')}ing batch 1 of 1"


def python2_pickle(value: Any) -> bytes:
    """Return the pickle that Python 2 would have made, protocol 2, as the official files are.

    Python 3 cannot write Python 2's `str`, and readers of CIFAR depend on it: they choose between bytes and text keys
    when loading.

    Args:
        value: Dictionaries, lists, ASCII text (becomes `str` of Python 2), integers below 2**31, uint8 arrays.
    """
    buffer = io.BytesIO()
    buffer.write(pickle.PROTO + b"\x02")
    _put(buffer, value)
    buffer.write(pickle.STOP)
    return buffer.getvalue()


def _put(buffer: io.BytesIO, value: Any) -> None:
    if isinstance(value, dict):
        buffer.write(pickle.EMPTY_DICT + pickle.MARK)
        for key, item in value.items():
            _put(buffer, key)
            _put(buffer, item)
        buffer.write(pickle.SETITEMS)
    elif isinstance(value, list):
        buffer.write(pickle.EMPTY_LIST + pickle.MARK)
        for item in value:
            _put(buffer, item)
        buffer.write(pickle.APPENDS)
    elif isinstance(value, int):
        buffer.write(pickle.BININT + struct.pack("<i", value))
    elif isinstance(value, str):
        _put_python2_str(buffer, value.encode("ascii"))
    else:
        _put_array(buffer, value)


def _put_python2_str(buffer: io.BytesIO, content: bytes) -> None:
    buffer.write(pickle.BINSTRING + struct.pack("<i", len(content)) + content)


def _put_array(buffer: io.BytesIO, array: Pixels) -> None:
    """Write `_reconstruct(ndarray, (0,), 'b')` and the state (1, shape, dtype('u1'), False, pixels)."""
    buffer.write(pickle.GLOBAL + b"numpy.core.multiarray\n_reconstruct\n" + pickle.GLOBAL + b"numpy\nndarray\n")
    _put(buffer, 0)
    buffer.write(pickle.TUPLE1)
    _put(buffer, "b")
    buffer.write(pickle.TUPLE3 + pickle.REDUCE + pickle.MARK)
    _put(buffer, 1)
    buffer.write(pickle.MARK)
    for side in array.shape:
        _put(buffer, side)
    buffer.write(pickle.TUPLE)
    _put_uint8_dtype(buffer)
    buffer.write(pickle.NEWFALSE)
    _put_python2_str(buffer, array.tobytes())
    buffer.write(pickle.TUPLE + pickle.BUILD)


def _put_uint8_dtype(buffer: io.BytesIO) -> None:
    """Write `dtype('u1', 0, 1)` and the state (3, '|', None, None, None, -1, -1, 0)."""
    buffer.write(pickle.GLOBAL + b"numpy\ndtype\n")
    _put(buffer, "u1")
    _put(buffer, 0)
    _put(buffer, 1)
    buffer.write(pickle.TUPLE3 + pickle.REDUCE + pickle.MARK)
    _put(buffer, 3)
    _put(buffer, "|")
    buffer.write(pickle.NONE * 3)
    for value in (-1, -1, 0):
        _put(buffer, value)
    buffer.write(pickle.TUPLE + pickle.BUILD)


if __name__ == "__main__":
    sys.exit(main())
