"""Images that are decoded where they are needed, and the cache that keeps them."""

import os
import pickle
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedsup_deploy import rng
from fedsup_deploy.data.dataset import DamagedFileError, DatasetSplits, Reading, split_off
from fedsup_deploy.data.image_files import FoundFiles, ImageFiles
from fedsup_deploy.data.image_folder import load_image_folder
from fedsup_deploy.data.pixel_cache import PixelCache
from fedsup_deploy.errors import DataError
from fedsup_deploy.ondevice.source_resize import SourceResize

COUNT, SIDE = 12, 6
BYTES = SIDE * SIDE * 3


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A dozen photographs for training, of two classes, and one for testing."""
    for index in range(COUNT + 1):
        split = "train" if index < COUNT else "test"
        folder = tmp_path / split / "ab"[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.generator(0, "photo", index).integers(0, 256, (9 + index, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:02}.png")
    return tmp_path


def load(root: Path, cache_bytes: int | None = None) -> DatasetSplits:
    return load_image_folder(root, Reading(SourceResize(SIDE, "crop"), cache_bytes))


@pytest.mark.parametrize("cache_bytes", [None, 0, 5 * (BYTES + 1)], ids=["all kept", "none kept", "some kept"])
def test_the_cache_changes_no_pixel(root: Path, cache_bytes: int | None) -> None:
    expected_NHWC = load(root, 0).train.images_NHWC
    images = load(root, cache_bytes).train
    for _ in range(2):
        np.testing.assert_array_equal(images.images_NHWC, expected_NHWC)
        np.testing.assert_array_equal(images.pixels([7, 2, 7]), expected_NHWC[[7, 2, 7]])
    assert (images.image_shape, len(images), images.is_held) == ((SIDE, SIDE, 3), COUNT, False)


@pytest.mark.parametrize(("places", "kept"), [(COUNT + 1, COUNT), (5, None), (0, 0)])
def test_as_many_as_there_is_room_for_are_decoded_once(root: Path, places: int, kept: int | None) -> None:
    """The files are gone the second time: what is still there is what was kept. Evenly, not the first ones."""
    images = load(root, places * (BYTES + 1)).train
    expected_NHWC = images.images_NHWC
    shutil.rmtree(root / "train")
    found = []
    for index in range(COUNT):
        try:
            np.testing.assert_array_equal(images.pixels([index])[0], expected_NHWC[index])
        except DamagedFileError:
            continue
        found.append(index)
    if kept is not None:
        assert len(found) == kept
    else:
        assert len(found) in {4, 5}
        assert {index // 4 for index in found} == {0, 1, 2}


def test_parts_are_views_and_share_what_was_decoded(root: Path) -> None:
    images = load(root).train
    part = images.take([3, 1]).take([1])
    np.testing.assert_array_equal(part.images_NHWC[0], images.images_NHWC[1])
    assert part.labels_N.tolist() == [images.labels_N[1]]
    rest, held_out = split_off(images, 0.25, seed=0)
    assert (len(rest), len(held_out)) == (9, 3)
    shutil.rmtree(root / "train")
    assert held_out.images_NHWC.shape == (3, SIDE, SIDE, 3)
    with pytest.raises(DataError, match="no images"):
        images.take([])


def test_what_travels_to_a_worker_is_small_and_works_without_the_cache(root: Path) -> None:
    """A process that was not handed the cache's file must not take another file for it."""
    images = load(root).train
    expected_NHWC = images.images_NHWC
    pickled = pickle.dumps(images)
    assert len(pickled) < 2000
    cache = images.decoder.cache  # type: ignore[attr-defined]
    other = os.open(root / "train" / "a" / "00.png", os.O_RDWR)
    os.dup2(other, cache._file.descriptor)
    os.close(other)
    np.testing.assert_array_equal(pickle.loads(pickled).images_NHWC, expected_NHWC)  # noqa: S301  ours


def test_a_fingerprint_is_of_files_steps_and_labels(root: Path) -> None:
    first = load(root).train.fingerprint()
    assert load(root, 0).train.fingerprint() == first
    steps = [SourceResize(SIDE, "pad"), SourceResize(SIDE + 1, "crop")]
    others = [load_image_folder(root, Reading(each)).train.fingerprint() for each in steps]
    others += [load(root).train.take(np.arange(COUNT)[::-1]).fingerprint()]
    path = root / "train" / "a" / "02.png"
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(path)
    others += [load(root).train.fingerprint()]
    path.rename(root / "train" / "b" / "02.png")
    others += [load(root).train.fingerprint()]
    assert len({first, *others}) == 6


@pytest.mark.parametrize("damage", ["cut", "gone", "changed"])
def test_what_is_found_out_late_names_the_file(root: Path, damage: str) -> None:
    path = root / "train" / "a" / "04.png"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    images = load(root).train
    if damage == "gone":
        path.unlink()
    elif damage == "changed":
        shutil.copy(root / "train" / "a" / "02.png", path)
    said = {"cut": "cannot read .*", "gone": "cannot read .*", "changed": ".*"}[damage]
    with pytest.raises(DamagedFileError, match=rf"^{said}train/a/04\.png: ") as caught:
        _ = images.images_NHWC
    assert "\n" not in str(caught.value)
    if damage != "cut":
        with pytest.raises(DamagedFileError, match=rf"^{said}train/a/04\.png: "):
            images.fingerprint()


def test_paths_come_back_whatever_their_bytes(tmp_path: Path) -> None:
    names = ["1.png", "caf\u00e9.png", os.fsdecode(b"caf\xe9.png"), "x"]
    for name in names:
        (tmp_path / name).touch()
    found = FoundFiles(tmp_path, names)
    assert [found[index] for index in range(len(found))] == [tmp_path / name for name in names]
    with pytest.raises(DataError, match=r"cannot read .*gone: No such file"):
        FoundFiles(tmp_path, ["x", "gone"])


def test_a_full_disk_ends_the_keeping_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    cache, image, place = PixelCache(3, 4, None), np.arange(4, dtype=np.uint8), np.zeros(4, np.uint8)
    cache.put(1, image)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        cache.put(2, image)
    cache.put(0, image)
    assert not any(cache.get(index, place) for index in (0, 2))


def test_without_room_for_temporary_files_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    cache, place = PixelCache(1, 4, 100), np.zeros(4, np.uint8)
    cache.put(0, np.arange(4, dtype=np.uint8))
    assert not cache.get(0, place)


def test_another_process_may_come_between_image_and_mark() -> None:
    """An image whose mark is not written yet is not there."""
    cache, place = PixelCache(2, 4, None), np.zeros(4, np.uint8)
    descriptor = cache._file.descriptor
    assert descriptor is not None
    os.pwrite(descriptor, bytes([1, 2, 3, 4]), 2)
    assert not cache.get(0, place)
    os.pwrite(descriptor, b"\x01", 0)
    assert cache.get(0, place)
    assert place.tolist() == [1, 2, 3, 4]


def test_it_is_what_the_loader_makes(root: Path) -> None:
    assert isinstance(load(root).train, ImageFiles)
