"""NPZ files of a user and of MedMNIST."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedsup_deploy.config.partition import ClientList
from fedsup_deploy.data import arrays as arrays_module
from fedsup_deploy.data.arrays import load_medmnist, load_npz
from fedsup_deploy.data.dataset import Reading, load_dataset
from fedsup_deploy.errors import ConfigError, DataError
from fedsup_deploy.ondevice.source_resize import SourceResize

GREY = np.arange(2 * 4 * 4, dtype=np.uint8).reshape(2, 4, 4)
COLOUR = np.arange(3 * 4 * 4 * 3, dtype=np.uint8).reshape(3, 4, 4, 3)


def arrays(**replaced: Any) -> dict[str, Any]:
    base = {"train_images": GREY, "train_labels": [1, 0], "test_images": GREY[:1], "test_labels": [0]}
    return {key: value for key, value in {**base, **replaced}.items() if value is not None}


def of_one_pixel(value: float) -> Any:
    """Return two images; the second has a pixel of some value."""
    images = GREY.astype(np.float32)
    images[1, 2, 3] = value
    return images


def write(folder: Path, **replaced: Any) -> Path:
    path = folder / "set.npz"
    np.savez_compressed(path, **arrays(**replaced))
    return path


def test_grey_images_get_a_channel_axis(tmp_path: Path) -> None:
    splits = load_npz(write(tmp_path))
    np.testing.assert_array_equal(splits.train.images_NHWC, GREY[..., None])
    assert splits.train.labels_N.tolist() == [1, 0]
    assert splits.test.labels_N.tolist() == [0]
    assert splits.train.classes == ("0", "1")


def test_colour_images_and_class_names(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        train_images=COLOUR,
        train_labels=np.array([0, 1, 2], np.uint8),
        test_images=COLOUR[:1],
        classes=["cat", "dog", "owl"],
    )
    splits = load_npz(path)
    np.testing.assert_array_equal(splits.train.images_NHWC, COLOUR)
    assert splits.test.classes == ("cat", "dog", "owl")


@pytest.mark.parametrize("dtype", ["<u2", ">u2", "<f4", ">f4"])
@pytest.mark.parametrize("channels", [1, 4, 16])
def test_numbers_of_16_bits_and_floats_in_any_order_of_bytes(tmp_path: Path, dtype: str, channels: int) -> None:
    images = (np.arange(2 * 4 * 4 * channels).reshape(2, 4, 4, channels) * 40).astype(dtype)
    train = load_npz(write(tmp_path, train_images=images, test_images=images[:1])).train
    assert (train.pixel_dtype, train.image_shape) == (np.dtype(dtype).name, (4, 4, channels))
    assert train.images_NHWC.dtype.isnative
    np.testing.assert_array_equal(train.images_NHWC, images)


def test_only_images_of_bytes_are_resized(tmp_path: Path) -> None:
    images = GREY.astype(np.float32)
    path = write(tmp_path, train_images=images, test_images=images[:1])
    with pytest.raises(ConfigError) as caught:
        load_dataset("npz", path, Reading(SourceResize(2, "crop")))
    assert str(caught.value) == (
        "data.image_size: images of npz are float32, and only uint8 ones are resized; resize them before they are "
        "saved, and remove data.image_size"
    )


def test_a_folder_with_one_file_will_do_and_with_two_will_not(tmp_path: Path) -> None:
    path = write(tmp_path)
    assert load_npz(tmp_path).train.fingerprint() == load_npz(path).train.fingerprint()
    (tmp_path / "other.npz").write_bytes(path.read_bytes())
    with pytest.raises(DataError, match=r"found other\.npz, set\.npz, expected exactly one"):
        load_npz(tmp_path)


@pytest.mark.parametrize("load", [load_medmnist, load_npz])
def test_labels_may_be_a_column_and_validation_is_a_part_of_its_own(tmp_path: Path, load: Any) -> None:
    path = write(
        tmp_path,
        train_labels=np.array([[1], [2]], np.uint8),
        test_labels=np.array([[0]], np.uint8),
        val_images=GREY[1:],
        val_labels=np.array([[3]], np.uint8),
    )
    splits = load(path)
    assert splits.train.labels_N.tolist() == [1, 2]
    assert splits.test.labels_N.tolist() == [0]
    assert splits.validation is not None
    assert splits.validation.labels_N.tolist() == [3]
    np.testing.assert_array_equal(splits.validation.images_NHWC, GREY[1:, ..., None])
    assert splits.train.classes == ("0", "1", "2", "3")
    assert splits.notes == ()


def test_arrays_that_nothing_reads_are_named(tmp_path: Path) -> None:
    path = write(tmp_path, train_clients=[0, 1], weights=[1.0, 2.0])
    assert load_npz(path).notes == ("passed over in set.npz, arrays: 2 (train_clients, weights)",)
    path = write(tmp_path, classes=["a", "b"])
    assert load_npz(path).notes == ()
    assert load_medmnist(path).notes == ("passed over in set.npz, arrays: 1 (classes)",)


@pytest.mark.parametrize(
    ("clients", "names"), [([10, 9], ("9", "10")), ([["yard"], ["roof"]], ("roof", "yard"))], ids=["numbers", "text"]
)
def test_the_client_of_each_image(tmp_path: Path, clients: list[Any], names: tuple[str, ...]) -> None:
    owners = load_npz(write(tmp_path, train_clients=clients, test_clients=clients[:1]), ClientList()).owners
    assert owners is not None
    assert owners.names == names
    assert {split: clients_N.tolist() for split, clients_N in owners.clients_N.items()} == {
        "train": [1, 0],
        "test": [1],
    }


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({}, "no train_clients, expected the client of each training image, as partition.kind is natural; add it"),
        (
            {"train_clients": [1]},
            "train_clients is int64 of shape (1,), expected integers or text, one for each of the 2",
        ),
        ({"train_clients": [0.5, 1]}, "train_clients is float64 of shape (2,), expected integers or text"),
        (
            {"train_clients": [0, 1], "val_clients": [0]},
            "val_clients is int64 of shape (1,), expected integers or text",
        ),
        ({"train_clients": [0, 1], "test_clients": ["a"]}, "got integers and text in train_clients, test_clients"),
    ],
    ids=["none", "too few", "fractions", "without images", "numbers and text"],
)
def test_clients_that_are_none_are_refused(tmp_path: Path, arrays: dict[str, Any], expected: str) -> None:
    with pytest.raises(DataError) as caught:
        load_npz(write(tmp_path, **arrays), ClientList())
    assert expected in str(caught.value)


def test_class_names_are_kept_in_nfc(tmp_path: Path) -> None:
    assert load_npz(write(tmp_path, classes=["cafe\u0301", "b"])).train.classes == ("caf\u00e9", "b")


def test_arrays_share_what_images_may_take_of_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two and one image of 16 bytes, and three labels of 8."""
    path = write(tmp_path)
    monkeypatch.setattr(arrays_module.source, "max_image_bytes", lambda: 72)
    load_npz(path)
    monkeypatch.setattr(arrays_module.source, "max_image_bytes", lambda: 71)
    with pytest.raises(DataError, match=r"set\.npz: .*its arrays take 72 bytes, more than 71"):
        load_npz(path)


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "set.npz")
    with pytest.raises(DataError, match=r"found no \*\.npz file"):
        load_npz(tmp_path)


class Hostile:
    """Unpickling this makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("key", ["train_images", "classes"])
def test_object_arrays_are_refused_and_not_unpickled(tmp_path: Path, key: str) -> None:
    victim = tmp_path / "made-by-the-pickle"
    path = write(tmp_path, **{key: np.array([Hostile(victim)], dtype=object)})
    with pytest.raises(DataError, match=r"not an \.npz of plain arrays .*allow_pickle=False"):
        load_npz(path)
    assert not victim.exists()
    with np.load(path, allow_pickle=True) as archive:
        _ = archive[key]
    assert victim.is_dir(), "the file is not hostile, so the test shows nothing"


@pytest.mark.parametrize(
    ("replaced", "complaint"),
    [
        ({"test_labels": None}, r"no test_labels, only 3 \(test_images, train_images, train_labels\)"),
        (
            {"val_images": GREY},
            r"no val_labels, only 5 \(test_images, test_labels, train_images, train_labels, val_images\)",
        ),
        ({"val_labels": [0]}, "no val_images"),
        ({"val_images": COLOUR, "val_labels": [0, 1, 1]}, r"validation images \(4, 4, 3\)"),
        ({"classes": ["a", "a"]}, "two classes are called 'a'"),
        ({"classes": ["a", "b\n"]}, r"name of class 1, 'b\\n', holds"),
        (
            {"train_images": GREY / 255.0},
            r"set\.npz: train_images: pixels are float64, expected uint8 or uint16 or float32",
        ),
        ({"test_images": GREY[:1].astype(np.float16)}, r"set\.npz: test_images: pixels are float16, expected uint8 or"),
        ({"train_images": GREY.astype(np.int16)}, "pixels are int16, expected uint8 or"),
        ({"train_images": GREY.astype(np.uint16)}, "training images are uint16, test images uint8, expected the same"),
        ({"train_images": of_one_pixel(np.nan)}, r"set\.npz: train_images: image 1 has a pixel that is NaN, inf"),
        ({"train_images": of_one_pixel(-np.inf)}, "image 1 has a pixel that is NaN, infinite or beyond 1e"),
        ({"train_images": of_one_pixel(-3.4e38)}, "image 1 has a pixel that is NaN, infinite or beyond 1e"),
        ({"train_images": np.zeros((2, 4, 4, 17), np.float32)}, "with 1 to 16 channels last"),
        ({"train_images": GREY[0]}, r"images have shape \(4, 4\)"),
        ({"train_images": np.zeros((2, 3, 8, 28), np.uint8)}, "channels last"),
        ({"train_labels": [[1, 0], [0, 1]]}, "multi-label"),
        ({"train_labels": [0.0, 1.0]}, "train_labels is float64"),
        ({"train_labels": ["cat", "dog"]}, "train_labels is <U3"),
        ({"train_labels": [0, 1, 1]}, "one per image"),
        ({"train_labels": [0, -1]}, "labels run from -1"),
        ({"test_labels": [2**60]}, "labels go up to 1,152,921,504,606,846,976, expected 0 to 99,999"),
        ({"classes": ["only"]}, "labels run from 0 to 1, expected 0 to 0"),
        ({"classes": [1, 2]}, "classes is int64"),
        ({"test_images": COLOUR[:1]}, "expected the same"),
    ],
)
def test_malformed_arrays_are_named(tmp_path: Path, replaced: dict[str, Any], complaint: str) -> None:
    path = write(tmp_path, **replaced)
    with pytest.raises(DataError, match=complaint):
        load_npz(path)


def test_what_is_no_npz_is_refused(tmp_path: Path) -> None:
    whole = write(tmp_path).read_bytes()
    path = tmp_path / "set.npz"
    for content in (b"", b"PK", b"plain text", whole[: len(whole) // 2], whole[:100] + b"\x00" * 20 + whole[120:]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"set\.npz"):
            load_npz(path)
    with path.open("wb") as file:
        np.save(file, GREY)
    with pytest.raises(DataError, match="got a single array"):
        load_npz(path)
