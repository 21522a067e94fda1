"""Folders of image files."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedsup_deploy.data.image_folder import load_image_folder
from fedsup_deploy.errors import DataError, DependencyError

GREY = np.arange(16, dtype=np.uint8).reshape(4, 4)
RGB = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)


def save(path: Path, pixels: np.ndarray, mode: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path)


def make_grey(root: Path) -> None:
    """Two cats and a dog for training, a dog for testing; saved in an order that is not the sorted one."""
    save(root / "train" / "dog" / "x.png", GREY + 2)
    save(root / "train" / "cat" / "2.png", GREY + 1)
    save(root / "train" / "cat" / "1.png", GREY)
    save(root / "test" / "dog" / "x.png", GREY + 3)


def test_grey_images_in_alphabetical_order(tmp_path: Path) -> None:
    make_grey(tmp_path)
    splits = load_image_folder(tmp_path)
    assert splits.train.classes == ("cat", "dog")
    assert splits.train.labels_N.tolist() == [0, 0, 1]
    np.testing.assert_array_equal(splits.train.images_NHWC, np.stack([GREY, GREY + 1, GREY + 2])[..., None])
    assert splits.test.labels_N.tolist() == [1]


def test_one_colour_image_makes_all_rgb(tmp_path: Path) -> None:
    make_grey(tmp_path)
    save(tmp_path / "test" / "cat" / "a.bmp", RGB)
    splits = load_image_folder(tmp_path)
    np.testing.assert_array_equal(splits.train.images_NHWC[0], np.stack([GREY] * 3, axis=-1))
    np.testing.assert_array_equal(splits.test.images_NHWC[0], RGB)


@pytest.mark.parametrize("name", ["a.webp", "a.PNG", "a.bmp", "a.jpeg"])
def test_formats(tmp_path: Path, name: str) -> None:
    """A plain colour survives even JPEG, to a few levels."""
    plain = np.full((8, 8, 3), (200, 100, 50), dtype=np.uint8)
    for split in ("train", "test"):
        save(tmp_path / split / "only" / name, plain)
    images_NHWC = load_image_folder(tmp_path).train.images_NHWC
    np.testing.assert_allclose(images_NHWC[0].astype(int), plain.astype(int), atol=4)


@pytest.mark.parametrize("mode", ["RGBA", "P", "CMYK", "LA", "1"])
def test_other_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    white = np.full((4, 4, 3), 255, dtype=np.uint8)
    for split in ("train", "test"):
        save(tmp_path / split / "only" / ("a.jpg" if mode == "CMYK" else "a.png"), white, mode)
    images_NHWC = load_image_folder(tmp_path).train.images_NHWC
    np.testing.assert_array_equal(images_NHWC[0], white)


def test_a_transparent_palette_is_read_without_a_warning(tmp_path: Path) -> None:
    image = Image.fromarray(RGB).convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    for split in ("train", "test"):
        (tmp_path / split / "only").mkdir(parents=True)
        image.save(tmp_path / split / "only" / "a.png", transparency=b"\x00\xff\xff\xff")
    images_NHWC = load_image_folder(tmp_path).train.images_NHWC
    np.testing.assert_array_equal(images_NHWC[0], np.asarray(image.convert("RGB")))


def test_hidden_and_other_files_are_passed_over(tmp_path: Path) -> None:
    make_grey(tmp_path)
    (tmp_path / "train" / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "train" / "cat" / "._1.png").write_text("no image")
    (tmp_path / "train" / ".cache").mkdir()
    assert len(load_image_folder(tmp_path).train) == 3


def test_the_first_odd_size_is_named(tmp_path: Path) -> None:
    make_grey(tmp_path)
    save(tmp_path / "train" / "dog" / "y.png", np.zeros((4, 5), np.uint8))
    save(tmp_path / "train" / "dog" / "z.png", np.zeros((9, 9), np.uint8))
    with pytest.raises(DataError, match=r"dog/y\.png: is 5x4 pixels, expected 4x4 as 1\.png"):
        load_image_folder(tmp_path)


def test_sixteen_bit_pixels_are_refused(tmp_path: Path) -> None:
    make_grey(tmp_path)
    save(tmp_path / "train" / "dog" / "y.png", np.zeros((4, 4), np.uint16))
    with pytest.raises(DataError, match=r"y\.png: has pixels of mode I;16, expected 8 bits"):
        load_image_folder(tmp_path)


def test_a_test_class_without_training_images_is_refused(tmp_path: Path) -> None:
    make_grey(tmp_path)
    save(tmp_path / "test" / "owl" / "1.png", GREY)
    with pytest.raises(DataError, match="class 'owl' has no folder in train"):
        load_image_folder(tmp_path)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    make_grey(tmp_path)
    (tmp_path / "test" / "dog" / "x.png").unlink()
    with pytest.raises(DataError, match="test: no images"):
        load_image_folder(tmp_path)


@pytest.mark.parametrize("name", ["z.png", "z.webp", "z.jpg"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    make_grey(tmp_path)
    path = tmp_path / "train" / "dog" / name
    save(path, GREY)
    whole = path.read_bytes()
    for content in (b"", b"no image", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=f"cannot read .*{name}"):
            load_image_folder(tmp_path)


def test_a_file_that_claims_a_huge_image_is_not_decoded(tmp_path: Path) -> None:
    make_grey(tmp_path)
    path = tmp_path / "train" / "cat" / "0.bmp"
    save(path, GREY)
    content = bytearray(path.read_bytes())
    for side in (10_000, 30_000):
        content[18:26] = side.to_bytes(4, "little") * 2
        path.write_bytes(content)
        with pytest.raises(DataError, match="decompression bomb"):
            load_image_folder(tmp_path)


def test_without_pillow_the_install_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_grey(tmp_path)
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.delitem(sys.modules, "PIL.Image")
    with pytest.raises(DependencyError, match=r"pip install 'fedsup-deploy\[images\]'"):
        load_image_folder(tmp_path)
