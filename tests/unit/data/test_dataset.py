"""ImageDataset, its cuts, and the stratified split."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsup_deploy.data.dataset import DatasetSplits, ImageDataset, Reading, load_dataset, split_off
from fedsup_deploy.errors import ConfigError, DataError
from fedsup_deploy.ondevice.source_resize import SourceResize, resized


def make(labels: list[int], num_classes: int | None = None) -> ImageDataset:
    """Images of 2x2 grey pixels in which image i holds the value i, so that an image tells where it was."""
    values = np.arange(len(labels), dtype=np.uint8)
    images_NHWC = np.broadcast_to(values[:, None, None, None], (len(labels), 2, 2, 1))
    classes = tuple("abcdefghij"[: num_classes or max(labels) + 1])
    return ImageDataset("made", images_NHWC, np.array(labels, dtype=np.int64), classes)


def places(dataset: ImageDataset) -> list[int]:
    return [int(value) for value in dataset.images_NHWC[:, 0, 0, 0]]


def test_take_keeps_order_and_repeats() -> None:
    taken = make([0, 1, 2, 1]).take([3, 0, 3])
    assert places(taken) == [3, 0, 3]
    assert taken.labels_N.tolist() == [1, 0, 1]
    assert taken.classes == ("a", "b", "c")
    assert len(taken) == 3


def test_take_of_nothing_is_refused() -> None:
    with pytest.raises(DataError, match="no images"):
        make([0, 1]).take([])


def test_arrays_cannot_be_changed_through_the_dataset() -> None:
    dataset = make([0, 1])
    with pytest.raises(ValueError, match="read-only"):
        dataset.labels_N[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        dataset.images_NHWC[0] = 1


@pytest.mark.parametrize(
    ("images", "labels", "classes", "complaint"),
    [
        (np.zeros((2, 2, 2, 1)), np.zeros(2, np.int64), ("a",), "pixels are float64"),
        (np.zeros((2, 2, 2), np.uint8), np.zeros(2, np.int64), ("a",), r"shape \(2, 2, 2\)"),
        (np.zeros((2, 3, 8, 28), np.uint8), np.zeros(2, np.int64), ("a",), "channels last"),
        (np.zeros((2, 2, 2, 1), np.uint8), np.zeros(2, np.int32), ("a",), "labels are int32"),
        (np.zeros((2, 2, 2, 1), np.uint8), np.zeros(3, np.int64), ("a",), r"shape \(3,\)"),
        (np.zeros((2, 2, 2, 1), np.uint8), np.array([0, 1]), ("a",), "labels run from 0 to 1"),
        (np.zeros((2, 2, 2, 1), np.uint8), np.array([-1, 0]), ("a",), "labels run from -1 to 0"),
        (np.zeros((0, 2, 2, 1), np.uint8), np.zeros(0, np.int64), ("a",), "no images"),
    ],
)
def test_malformed_data_is_named(
    images: np.ndarray, labels: np.ndarray, classes: tuple[str, ...], complaint: str
) -> None:
    with pytest.raises(DataError, match=complaint):
        ImageDataset("made", images, labels, classes)


def test_fingerprint_depends_on_pixels_labels_order_and_classes_only() -> None:
    base = make([0, 1, 0])
    same = ImageDataset("other name", base.images_NHWC.copy(), base.labels_N.copy(), base.classes)
    assert same.fingerprint() == base.fingerprint()
    assert len(base.fingerprint()) == 64
    pixels = base.images_NHWC.copy()
    pixels[2, 1, 1, 0] += 1
    different = [
        ImageDataset("made", pixels, base.labels_N, base.classes),
        ImageDataset("made", base.images_NHWC, np.array([0, 1, 1]), base.classes),
        ImageDataset("made", base.images_NHWC, base.labels_N, ("a", "c")),
        ImageDataset("made", base.images_NHWC.reshape(3, 4, 1, 1), base.labels_N, base.classes),
        base.take([1, 0, 2]),
    ]
    assert len({base.fingerprint(), *(dataset.fingerprint() for dataset in different)}) == 6


def test_splits_must_go_together() -> None:
    with pytest.raises(DataError, match="different classes"):
        DatasetSplits(make([0, 1]), make([0, 1, 2]))
    other_size = ImageDataset("made", np.zeros((1, 3, 3, 1), np.uint8), np.zeros(1, np.int64), ("a", "b"))
    with pytest.raises(DataError, match=r"\(2, 2, 1\), test images \(3, 3, 1\)"):
        DatasetSplits(make([0, 1]), other_size)


def test_split_off_takes_the_exact_share_of_each_class() -> None:
    """Of 8, 4 and 4 images a quarter is 2, 1 and 1."""
    rest, held_out = split_off(make([0] * 8 + [1] * 4 + [2] * 4), 0.25, seed=0)
    assert np.bincount(held_out.labels_N).tolist() == [2, 1, 1]
    assert np.bincount(rest.labels_N).tolist() == [6, 3, 3]


def test_split_off_rounds_up_the_largest_remainders() -> None:
    """A third of 12 is 4; of 7, 3 and 2 that is 2.33, 1 and 0.67, so the last class is the one to round up."""
    _, held_out = split_off(make([0] * 7 + [1] * 3 + [2] * 2), 1 / 3, seed=0)
    assert np.bincount(held_out.labels_N).tolist() == [2, 1, 1]


def test_split_off_depends_on_the_seed() -> None:
    dataset = make([0] * 20 + [1] * 20)
    first, again, other = (split_off(dataset, 0.5, seed)[1] for seed in (1, 1, 2))
    assert places(first) == places(again)
    assert places(first) != places(other)


@given(
    labels=st.lists(st.integers(0, 4), min_size=2, max_size=60),
    fraction=st.floats(0.001, 0.999),
    seed=st.integers(0, 2**32),
)
def test_split_off_covers_exactly_and_stays_stratified(labels: list[int], fraction: float, seed: int) -> None:
    rest, held_out = split_off(make(labels, 5), fraction, seed)
    assert sorted(places(rest) + places(held_out)) == list(range(len(labels)))
    assert places(rest) == sorted(places(rest))
    assert places(held_out) == sorted(places(held_out))
    assert len(held_out) == min(max(round(fraction * len(labels)), 1), len(labels) - 1)
    shares = np.bincount(labels, minlength=5) * len(held_out) / len(labels)
    assert np.all(np.abs(np.bincount(held_out.labels_N, minlength=5) - shares) < 1)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_split_off_refuses_an_impossible_fraction(fraction: float) -> None:
    with pytest.raises(ConfigError, match="more than 0 and less than 1"):
        split_off(make([0, 1]), fraction, seed=0)


def test_split_off_refuses_a_single_image() -> None:
    with pytest.raises(DataError, match="one image"):
        split_off(make([0]), 0.5, seed=0)


def test_load_dataset_goes_by_registered_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'digits'"):
        load_dataset("digit", None)
    with pytest.raises(ConfigError, match=r"remove data\.root"):
        load_dataset("digits", tmp_path)


@pytest.mark.parametrize("name", ["fashion-mnist", "cifar10", "cifar100", "medmnist", "npz", "image-folder"])
def test_data_that_is_not_bundled_needs_a_root(name: str) -> None:
    with pytest.raises(ConfigError, match=r"set data\.root"):
        load_dataset(name, None)


@pytest.mark.parametrize(
    ("name", "looked_for"),
    [
        ("fashion-mnist", ["train-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte"]),
        ("cifar10", ["data_batch_1.bin", "data_batch_5.bin", "test_batch.bin", "cifar-10-batches-py", "test_batch"]),
        ("cifar100", ["train.bin", "test.bin", "cifar-100-binary", "cifar-100-python"]),
        ("medmnist", [".npz"]),
        ("npz", [".npz"]),
        ("image-folder", ["train", "test"]),
    ],
)
@pytest.mark.parametrize("exists", [True, False])
def test_a_place_without_the_files_lists_what_was_looked_for(
    tmp_path: Path, name: str, looked_for: list[str], exists: bool
) -> None:
    root = tmp_path if exists else tmp_path / "absent"
    with pytest.raises(DataError) as caught:
        load_dataset(name, root)
    message = str(caught.value)
    assert str(root) in message
    assert [word for word in looked_for if word not in message] == []
    assert ("no such" in message) != exists
    assert "\n" not in message


def test_arrays_of_any_loader_become_squares_and_a_note_says_so() -> None:
    before = load_dataset("digits", None)
    after = load_dataset("digits", None, Reading(SourceResize(5, "crop")))
    assert after.train.images_NHWC.shape == (len(before.train), 5, 5, 1)
    expected = resized(before.test.images_NHWC[3, ..., 0], SourceResize(5, "crop"))
    np.testing.assert_array_equal(after.test.images_NHWC[3, ..., 0], expected)
    assert after.notes[-1] == "all images resized from 8x8 to 5x5 pixels (crop)"
