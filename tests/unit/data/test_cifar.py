"""CIFAR in both layouts, on batches made here; the real images are in tests/integration."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedsup_deploy.data.cifar import load_cifar10, load_cifar100
from fedsup_deploy.errors import DataError


def rows(seed: int, num_images: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (num_images, 3072), dtype=np.uint8)


def write_binary10(folder: Path) -> None:
    """Batch k holds two images of class k."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"], start=1):
        labels = np.full((2, 1), number, dtype=np.uint8)
        (folder / f"{name}.bin").write_bytes(np.concatenate([labels, rows(number)], axis=1).tobytes())


def write_python100(folder: Path, **replaced: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(["train", "test"]):
        batch = {"data": rows(number), "fine_labels": [99, number], "coarse_labels": [0, 1], **replaced}
        (folder / name).write_bytes(pickle.dumps(batch))


@pytest.mark.parametrize("subfolder", [".", "cifar-10-batches-bin"])
def test_binary_batches_are_read_in_order(tmp_path: Path, subfolder: str) -> None:
    write_binary10(tmp_path / subfolder)
    splits = load_cifar10(tmp_path)
    assert splits.train.labels_N.tolist() == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert splits.test.labels_N.tolist() == [6, 6]
    assert splits.train.classes[6] == "frog"
    # Image 2 is the first of batch 2. Its rows hold 1,024 reds, then the greens, then the blues.
    expected = rows(2)[0].reshape(3, 32, 32)
    np.testing.assert_array_equal(splits.train.images_NHWC[2, 5, 7], expected[:, 5, 7])
    np.testing.assert_array_equal(splits.train.images_NHWC[2], expected.transpose(1, 2, 0))


def test_class_names_beside_the_batches_win(tmp_path: Path) -> None:
    write_binary10(tmp_path)
    (tmp_path / "batches.meta.txt").write_text("zero\none\ntwo\nthree\nfour\nfive\nsix\n\n")
    assert load_cifar10(tmp_path).train.classes == ("zero", "one", "two", "three", "four", "five", "six")


def test_missing_training_batches_are_named(tmp_path: Path) -> None:
    write_binary10(tmp_path / "cifar-10-batches-bin")
    (tmp_path / "cifar-10-batches-bin" / "data_batch_3.bin").unlink()
    (tmp_path / "cifar-10-batches-bin" / "data_batch_5.bin").unlink()
    with pytest.raises(DataError, match=r"missing data_batch_3\.bin, data_batch_5\.bin - looked in .*batches-bin - "):
        load_cifar10(tmp_path)


@pytest.mark.parametrize("num_bytes", [0, 3072, 3074, 2 * 3073 - 1])
def test_a_batch_of_broken_records_is_refused(tmp_path: Path, num_bytes: int) -> None:
    write_binary10(tmp_path)
    (tmp_path / "data_batch_2.bin").write_bytes(bytes(num_bytes))
    with pytest.raises(DataError, match=f"data_batch_2.bin: got {num_bytes:,} bytes, expected records of 3,073"):
        load_cifar10(tmp_path)


def test_a_label_without_a_class_is_refused(tmp_path: Path) -> None:
    write_binary10(tmp_path)
    (tmp_path / "test_batch.bin").write_bytes(b"\x0a" + bytes(3072))
    with pytest.raises(DataError, match="labels run from 10 to 10, expected 0 to 9"):
        load_cifar10(tmp_path)


def test_the_second_label_of_cifar100_is_the_class(tmp_path: Path) -> None:
    for name in ("train", "test"):
        (tmp_path / f"{name}.bin").write_bytes(b"\x05\x63" + rows(0, 1).tobytes())
    splits = load_cifar100(tmp_path)
    assert splits.train.labels_N.tolist() == [99]
    assert splits.train.classes[99] == "worm"
    assert len(set(splits.train.classes)) == 100


@pytest.mark.parametrize("subfolder", [".", "cifar-100-python"])
def test_python_batches_use_the_fine_labels(tmp_path: Path, subfolder: str) -> None:
    write_python100(tmp_path / subfolder)
    splits = load_cifar100(tmp_path)
    assert splits.train.labels_N.tolist() == [99, 0]
    assert splits.test.labels_N.tolist() == [99, 1]
    np.testing.assert_array_equal(splits.test.images_NHWC[1], rows(1)[1].reshape(3, 32, 32).transpose(1, 2, 0))


@pytest.mark.parametrize(
    ("replaced", "complaint"),
    [
        ({"data": rows(0)[:, :3071]}, r"'data' has shape \(2, 3071\)"),
        ({"data": rows(0).tolist()}, "got list, expected an array"),
        ({"fine_labels": [0]}, "one per image"),
        ({"fine_labels": [0, "1"]}, "'fine_labels' is no list of class numbers"),
        ({"fine_labels": [0, True]}, "'fine_labels' is no list of class numbers"),
        ({"fine_labels": [0, 10**30]}, "'fine_labels' is no list of class numbers"),
        ({"fine_labels": (0, 1)}, "'fine_labels' is no list of class numbers"),
    ],
)
def test_malformed_python_batches_are_named(tmp_path: Path, replaced: dict[str, Any], complaint: str) -> None:
    write_python100(tmp_path, **replaced)
    with pytest.raises(DataError, match=complaint):
        load_cifar100(tmp_path)


def test_a_python_batch_of_another_set_is_refused(tmp_path: Path) -> None:
    for name in ("train", "test"):
        (tmp_path / name).write_bytes(pickle.dumps({"data": rows(0), "labels": [0, 1]}))
    with pytest.raises(DataError, match=r"no 'fine_labels', only 2 \(data, labels\)"):
        load_cifar100(tmp_path)


def test_class_names_of_the_python_layout_are_read(tmp_path: Path) -> None:
    write_python100(tmp_path)
    (tmp_path / "meta").write_bytes(pickle.dumps({b"fine_label_names": [f"c{i}".encode() for i in range(100)]}))
    assert load_cifar100(tmp_path).train.classes[99] == "c99"
    (tmp_path / "meta").write_bytes(pickle.dumps({"fine_label_names": [1, 2]}))
    with pytest.raises(DataError, match="'fine_label_names' is no list of names"):
        load_cifar100(tmp_path)
