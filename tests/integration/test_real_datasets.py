"""Every loader on real images, and the tools that make what they read."""

import gzip
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedsup_deploy.data.augment import Augmentation
from fedsup_deploy.data.dataset import DatasetSplits, load_dataset, split_off
from fedsup_deploy.data.partition import partition
from fedsup_deploy.data.preprocess import Preprocessing
from fedsup_deploy.rng import generator

LIMIT = 200

Tool = Callable[..., "subprocess.CompletedProcess[str]"]


def tool(path: Path) -> Tool:
    def run(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([sys.executable, path, *arguments], capture_output=True, check=False, text=True)

    return run


@pytest.fixture(scope="module")
def unpack(repository: Path) -> Tool:
    return tool(repository / "tools" / "unpack_image_sheets.py")


@pytest.fixture(scope="module")
def draw_sample(repository: Path) -> Tool:
    return tool(repository / "tools" / "draw_fashion_mnist_sample.py")


@pytest.fixture(scope="module")
def unpacked(full_data: Path, unpack: Tool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `binary` and `python`, each a root of the first images of every CIFAR file."""
    folder = tmp_path_factory.mktemp("cifar")
    for layout in ("binary", "python"):
        ran = unpack(full_data, folder / layout, "--layout", layout, "--limit", str(LIMIT))
        assert (ran.returncode, ran.stderr) == (0, "")
    return folder


@pytest.fixture(scope="module")
def full_fashion(full_data: Path) -> DatasetSplits:
    return load_dataset("fashion-mnist", full_data / "fashion-mnist")


@pytest.fixture(scope="module")
def sample(sample_images: Path) -> DatasetSplits:
    return load_dataset("fashion-mnist", sample_images)


def test_digits_are_complete_and_stratified() -> None:
    splits = load_dataset("digits", None)
    assert (len(splits.train), len(splits.test)) == (1348, 449)
    assert splits.train.images_NHWC.shape[1:] == (8, 8, 1)
    assert splits.train.images_NHWC.max() == 240
    # Of each of the ten digits there are 174 to 183, so a quarter is 43 to 46.
    assert set(np.bincount(splits.test.labels_N)) <= {43, 44, 45, 46}


def test_digits_never_change() -> None:
    """Recorded once: scores on the test split are comparable only while it is the same."""
    splits = load_dataset("digits", None)
    expected = (
        "cc05f5b5fa80c0806273d80b03bab15a47b9be5ac674fec3e46588d06c083650",
        "1bdc7ea9774eb7b9bb615162af16c2bad244ca7fc817c3c05373ac6c2e17b06f",
    )
    assert (splits.train.fingerprint(), splits.test.fingerprint()) == expected


def test_fashion_mnist_is_the_official_set(full_fashion: DatasetSplits) -> None:
    train, test = full_fashion.train, full_fashion.test
    assert train.images_NHWC.shape == (60000, 28, 28, 1)
    assert test.images_NHWC.shape == (10000, 28, 28, 1)
    assert np.bincount(train.labels_N).tolist() == [6000] * 10
    assert np.bincount(test.labels_N).tolist() == [1000] * 10
    assert [train.classes[label] for label in train.labels_N[:2]] == ["Ankle boot", "T-shirt/top"]


def test_fashion_mnist_has_the_published_moments(full_fashion: DatasetSplits) -> None:
    """Usually quoted as 0.2860 and 0.3530."""
    fitted = Preprocessing.fit(full_fashion.train, 32)
    assert (round(fitted.mean[0], 4), round(fitted.std[0], 4)) == (0.2860, 0.3530)


def test_the_sample_is_balanced_and_looks_like_the_whole(sample: DatasetSplits) -> None:
    """One image's mean varies by about 0.15, so that of 1,000 strays by less than 0.015 from the published 0.2860."""
    assert sample.train.images_NHWC.shape == (1000, 28, 28, 1)
    assert sample.test.images_NHWC.shape == (500, 28, 28, 1)
    assert np.bincount(sample.train.labels_N).tolist() == [100] * 10
    assert np.bincount(sample.test.labels_N).tolist() == [50] * 10
    assert len(np.unique(sample.train.images_NHWC.reshape(1000, -1), axis=0)) == 1000
    fitted = Preprocessing.fit(sample.train, 32)
    assert (fitted.mean[0], fitted.std[0]) == (pytest.approx(0.2860, abs=0.015), pytest.approx(0.3530, abs=0.015))


def test_the_sample_is_what_the_tool_draws_from_the_whole(
    full_data: Path, draw_sample: Tool, sample_images: Path, tmp_path: Path
) -> None:
    ran = draw_sample(full_data / "fashion-mnist", tmp_path)
    assert (ran.returncode, ran.stderr) == (0, "")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == sorted(path.name for path in sample_images.glob("*.gz"))
    for name in names:
        drawn, shipped = (tmp_path / name).read_bytes(), (sample_images / name).read_bytes()
        assert drawn[:10] == shipped[:10], "a header without a name, a time or a system"
        assert gzip.decompress(drawn) == gzip.decompress(shipped)


def test_a_sample_drawn_again_is_the_same_bytes(draw_sample: Tool, sample_images: Path, tmp_path: Path) -> None:
    """Drawn from the sample itself, which has exactly as many images of each class as are drawn."""
    for name in ("once", "again"):
        ran = draw_sample(sample_images, tmp_path / name)
        assert (ran.returncode, ran.stderr) == (0, "")
    for path in sample_images.glob("*.gz"):
        once, again = ((tmp_path / name / path.name).read_bytes() for name in ("once", "again"))
        assert once == again
        assert gzip.decompress(once) == gzip.decompress(path.read_bytes())


def test_the_tool_that_draws_names_what_is_missing(draw_sample: Tool, tmp_path: Path) -> None:
    ran = draw_sample(tmp_path, tmp_path / "out")
    assert (ran.returncode, ran.stdout) == (3, "")
    assert len(ran.stderr.splitlines()) == 1
    assert "train-images-idx3-ubyte.gz" in ran.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("layout", ["binary", "python"])
def test_cifar10_has_the_published_labels(unpacked: Path, layout: str) -> None:
    """The first ten labels of the official first training batch and test batch."""
    splits = load_dataset("cifar10", unpacked / layout)
    assert (len(splits.train), len(splits.test)) == (5 * LIMIT, LIMIT)
    assert splits.train.labels_N[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]
    assert splits.test.labels_N[:10].tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]
    assert splits.train.classes[:3] == ("airplane", "automobile", "bird")


@pytest.mark.parametrize("layout", ["binary", "python"])
def test_cifar100_classes_go_with_their_images(unpacked: Path, layout: str) -> None:
    """In the sheets image i has class i modulo 100, so 200 images are two of each."""
    splits = load_dataset("cifar100", unpacked / layout)
    assert splits.train.labels_N.tolist() == [*range(100)] * 2
    assert splits.test.labels_N.tolist() == [*range(100)] * 2
    assert (splits.train.classes[0], splits.train.classes[99]) == ("apple", "worm")


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_both_layouts_hold_the_same(unpacked: Path, name: str) -> None:
    binary, python = (load_dataset(name, unpacked / layout) for layout in ("binary", "python"))
    assert binary.train.fingerprint() == python.train.fingerprint()
    assert binary.test.fingerprint() == python.test.fingerprint()


def test_unpacked_images_are_those_of_the_sheet(unpacked: Path, full_data: Path) -> None:
    """The third image of the fourth training batch, cut from its sheet by hand: row 0, column 2."""
    sheet = np.asarray(Image.open(full_data / "cifar10" / "train_4.webp"))
    splits = load_dataset("cifar10", unpacked / "binary")
    np.testing.assert_array_equal(splits.train.images_NHWC[3 * LIMIT + 2], sheet[:32, 64:96])


def test_coarse_labels_are_the_official_ones(unpacked: Path) -> None:
    """Apples are fruit and vegetables, aquarium fish are fish, and babies are people."""
    folder = unpacked / "binary" / "cifar-100-binary"
    names = (folder / "coarse_label_names.txt").read_text().split()
    content = np.frombuffer((folder / "train.bin").read_bytes(), np.uint8).reshape(-1, 3074)
    assert [names[label] for label in content[:3, 0]] == ["fruit_and_vegetables", "fish", "people"]
    assert content[:3, 1].tolist() == [0, 1, 2]


def test_the_tool_refuses_altered_sheets_and_leaves_nothing(full_data: Path, unpack: Tool, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(full_data / "cifar100", source / "cifar100")
    shutil.copy(source / "cifar100" / "test_1.webp", source / "cifar100" / "train_1.webp")
    ran = unpack(source, tmp_path / "out", "--layout", "binary")
    assert ran.returncode == 3
    assert "train_1.webp: content has sha256" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1
    assert list(tmp_path.glob("out/*")) == []


def test_the_tool_names_what_is_missing(unpack: Tool, tmp_path: Path) -> None:
    ran = unpack(tmp_path, tmp_path / "out", "--layout", "python")
    assert (ran.returncode, ran.stdout) == (3, "")
    assert "looked for cifar10/ and cifar100/" in ran.stderr
    (tmp_path / "cifar10").mkdir()
    ran = unpack(tmp_path, tmp_path / "out", "--layout", "python")
    assert ran.returncode == 3
    assert "missing labels.npz" in ran.stderr


def test_npz_and_image_folder_hold_real_images_unchanged(sample: DatasetSplits, tmp_path: Path) -> None:
    """The same images through three loaders are the same data, but for the names of files and classes."""
    train, test = sample.train.take(range(30)), sample.test.take(range(30))
    np.savez(
        tmp_path / "some.npz",
        train_images=train.images_NHWC[..., 0],
        train_labels=train.labels_N,
        test_images=test.images_NHWC,
        test_labels=test.labels_N[:, np.newaxis],
        classes=list(train.classes),
    )
    for split, part in (("train", train), ("test", test)):
        for place, (image, label) in enumerate(zip(part.images_NHWC[..., 0], part.labels_N, strict=True)):
            path = tmp_path / "folder" / split / str(label) / f"{place:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    from_npz = load_dataset("npz", tmp_path / "some.npz")
    assert from_npz.train.fingerprint() == train.fingerprint()
    assert from_npz.test.fingerprint() == test.fingerprint()
    from_folder = load_dataset("image-folder", tmp_path / "folder").train
    by_class = np.argsort(train.labels_N, kind="stable")
    np.testing.assert_array_equal(from_folder.images_NHWC, train.images_NHWC[by_class])
    np.testing.assert_array_equal(from_folder.labels_N, train.labels_N[by_class])


def test_from_files_to_the_batch_of_a_client(unpacked: Path) -> None:
    """Load, hold out, divide, preprocess, augment: what training does, at its real shapes."""
    splits = load_dataset("cifar10", unpacked / "binary")
    rest, held_out = split_off(splits.train, 0.15, seed=0)
    assert (len(rest), len(held_out)) == (850, 150)
    parts = partition(rest.labels_N, "dirichlet", 20, seed=0, beta=0.1)
    preprocessing = Preprocessing.fit(rest, 32)
    x_NCHW = preprocessing.apply(rest.take(parts[0]).images_NHWC)
    augmented = Augmentation(4, flip=True, fill=preprocessing.fill).apply(x_NCHW, generator(0, "client", 0))
    assert augmented.shape == (len(parts[0]), 3, 32, 32)
    lowest = np.array(preprocessing.fill, np.float32)[:, np.newaxis, np.newaxis]
    assert (augmented >= lowest - 1e-6).all()
