"""Folders of image files."""

import os
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedsup_deploy.data.dataset import DamagedFileError, Reading
from fedsup_deploy.data.image_folder import load_image_folder
from fedsup_deploy.errors import DataError, DependencyError
from fedsup_deploy.ondevice.source_resize import SourceResize, resized

GREY = np.arange(16, dtype=np.uint8).reshape(4, 4)
RGB = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)


def save(path: Path, pixels: np.ndarray, mode: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path, "JPEG" if path.suffix == ".jfif" else None)


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


@pytest.mark.parametrize(
    "name",
    ["a.webp", "a.PNG", "a.bmp", "a.jpeg", "a.jfif", "a.jpe", "a.tif", "a.tiff", "a.ppm", "a.gif"],
)
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
    expected = np.where((np.asarray(image) == 0)[..., None], 255, np.asarray(image.convert("RGB")))
    np.testing.assert_array_equal(images_NHWC[0], expected)


def test_hidden_files_are_passed_over_without_a_word(tmp_path: Path) -> None:
    make_grey(tmp_path)
    (tmp_path / "train" / "cat" / "._1.png").write_text("no image")
    (tmp_path / "train" / ".cache").mkdir()
    (tmp_path / ".DS_Store").write_text("no image")
    splits = load_image_folder(tmp_path)
    assert len(splits.train) == 3
    assert splits.notes == ()


def test_whatever_else_is_passed_over_is_counted(tmp_path: Path) -> None:
    make_grey(tmp_path)
    for name in ("cat/a.txt", "cat/b.svg", "dog/c.txt", "d.png"):
        (tmp_path / "train" / name).write_text("no image")
    for name in ("train/cat/2021/a.png", "train/cat/2021/may/b.png", "test/dog/old/c.png"):
        save(tmp_path / name, GREY)
    save(tmp_path / "extra" / "1" / "a.png", GREY)
    for name in ("README.md", "masks", "more", "\n", "z"):
        (tmp_path / name).mkdir()
    splits = load_image_folder(tmp_path)
    assert (len(splits.train), len(splits.test)) == (3, 1)
    assert splits.notes == (
        "passed over beside train and test: 6 (\\n, README.md, extra, masks, more, ...), "
        "images among them: 1; move them into train/<class> to train on them",
        "passed over in train, folders within those of classes: 1 (cat/2021), files in them: 2",
        "passed over in train, images outside of a folder of a class: 1 (d.png); move them into one",
        "passed over in train, files of kinds that are not read: 3 (cat/a.txt, cat/b.svg, dog/c.txt)",
        "passed over in test, folders within those of classes: 1 (dog/old), files in them: 1",
    )


@pytest.mark.parametrize("name", ["Thumbs.db", "desktop.ini"])
def test_what_windows_leaves_is_no_image(tmp_path: Path, name: str) -> None:
    make_grey(tmp_path)
    (tmp_path / "train" / "cat" / name).write_bytes(b"no image")
    splits = load_image_folder(tmp_path)
    assert len(splits.train) == 3
    assert splits.notes == (f"passed over in train, files of kinds that are not read: 1 (cat/{name})",)


@pytest.mark.parametrize("name", ["1.HEIC", "1.dng"])
def test_pictures_of_kinds_that_are_not_read_can_be_converted(tmp_path: Path, name: str) -> None:
    make_grey(tmp_path)
    (tmp_path / "train" / "cat" / name).write_bytes(b"a picture")
    expected = f"files of kinds that are not read: 1 (cat/{name}); convert pictures among them to PNG or JPEG"
    assert load_image_folder(tmp_path).notes == (f"passed over in train, {expected}",)


def test_images_with_damaged_metadata_are_read_and_counted(tmp_path: Path) -> None:
    make_grey(tmp_path)
    exif = b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x01\x00\x12\x01\x03\x00\x01\x00\x00\x00\x01\x00\x00\x00"
    for name in ("a.jpg", "b.jpg"):
        Image.fromarray(GREY).save(tmp_path / "train" / "cat" / name, exif=exif)
    splits = load_image_folder(tmp_path)
    assert len(splits.train) == 5
    (note,) = splits.notes
    assert note.startswith("images that are damaged beside their pixels: 2 (train/cat/a.jpg: Corrupt EXIF data.")


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_a_folder_of_validation_images_is_a_part_of_its_own(tmp_path: Path, name: str) -> None:
    make_grey(tmp_path)
    save(tmp_path / name / "dog" / "1.png", GREY + 9)
    splits = load_image_folder(tmp_path)
    assert splits.validation is not None
    assert splits.validation.images_NHWC[0, ..., 0].tolist() == (GREY + 9).tolist()
    assert splits.validation.labels_N.tolist() == [1]
    assert len(splits.train) == 3
    assert splits.notes == ()


def test_two_folders_of_validation_images_are_refused(tmp_path: Path) -> None:
    make_grey(tmp_path)
    for name in ("val", "validation"):
        save(tmp_path / name / "dog" / "1.png", GREY)
    with pytest.raises(DataError, match="got val and validation, expected one folder of validation images"):
        load_image_folder(tmp_path)


def test_a_validation_class_without_training_images_is_refused(tmp_path: Path) -> None:
    make_grey(tmp_path)
    save(tmp_path / "val" / "owl" / "1.png", GREY)
    with pytest.raises(DataError, match="val: class 'owl' has no folder in train"):
        load_image_folder(tmp_path)


def test_the_normal_form_of_names_does_not_matter(tmp_path: Path) -> None:
    """Folders and files from macOS on one side, from Linux on the other."""
    for root, train, test in (("a", "caf\u00e9", "cafe\u0301"), ("b", "cafe\u0301", "caf\u00e9")):
        for number, name in enumerate((f"{train}.png", "cafz.png", "cafe.png")):
            save(tmp_path / root / "train" / train / name, GREY + number)
        save(tmp_path / root / "test" / test / "1.png", GREY)
    first, second = (load_image_folder(tmp_path / root) for root in ("a", "b"))
    assert first.train.classes == ("caf\u00e9",)
    assert (len(first.train), len(first.test)) == (3, 1)
    assert first.train.fingerprint() == second.train.fingerprint()


def test_one_class_in_two_folders_is_refused(tmp_path: Path) -> None:
    make_grey(tmp_path)
    for name in ("caf\u00e9", "cafe\u0301"):
        save(tmp_path / "train" / name / "1.png", GREY)
    with pytest.raises(DataError, match="train: two folders of class 'café'"):
        load_image_folder(tmp_path)


@pytest.mark.parametrize("place", ["train/caf\udce9/1.png", "train/cat/caf\udce9.png"])
def test_names_that_are_not_utf_8_are_refused_with_their_bytes(tmp_path: Path, place: str) -> None:
    """As an archive made on Windows leaves them."""
    make_grey(tmp_path)
    save(tmp_path / place, GREY)
    with pytest.raises(DataError, match=r"caf\\xe9.*: the name is not UTF-8; rename it") as caught:
        load_image_folder(tmp_path)
    assert str(caught.value).isprintable()


def test_what_a_pipe_or_a_device_would_say_is_not_waited_for(tmp_path: Path) -> None:
    make_grey(tmp_path)
    os.mkfifo(tmp_path / "train" / "cat" / "z.png")
    with pytest.raises(DataError, match=r"cannot read .*z\.png: it is no regular file"):
        load_image_folder(tmp_path)


def test_no_pixels_are_held(tmp_path: Path) -> None:
    """Not even a path of each file: bytes of its name alone."""
    for number in range(20):
        save(tmp_path / "train" / "a" / f"{number:02}.png", np.zeros((256, 256, 3), np.uint8))
    save(tmp_path / "test" / "a" / "1.png", np.zeros((256, 256, 3), np.uint8))
    load_image_folder(tmp_path)
    tracemalloc.start()
    splits = load_image_folder(tmp_path)
    splits.train.pixels([3, 5])
    held_bytes, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held_bytes < 256 * 256 * 3 < peak_bytes < 6 * 256 * 256 * 3


def test_upright_images_and_those_on_their_side_have_one_size(tmp_path: Path) -> None:
    """A camera stores both alike, and says how it was held."""
    exif = Image.Exif()
    exif[0x0112] = 6
    upright, lying = np.arange(6, dtype=np.uint8).reshape(3, 2), np.arange(6, dtype=np.uint8).reshape(2, 3)
    for split in ("train", "test"):
        save(tmp_path / split / "a" / "1.png", upright)
        Image.fromarray(lying).save(tmp_path / split / "a" / "2.png", exif=exif)
    images_NHWC = load_image_folder(tmp_path).train.images_NHWC
    np.testing.assert_array_equal(images_NHWC[1, ..., 0], np.rot90(lying, -1))
    save(tmp_path / "train" / "a" / "3.png", lying)
    with pytest.raises(DamagedFileError, match=r"3\.png: is 3x2 pixels, expected 2x3 as of the first; make all"):
        load_image_folder(tmp_path).train.pixels([2])


def test_the_first_odd_size_is_named(tmp_path: Path) -> None:
    make_grey(tmp_path)
    save(tmp_path / "train" / "dog" / "y.png", np.zeros((4, 5), np.uint8))
    save(tmp_path / "train" / "dog" / "z.png", np.zeros((9, 9), np.uint8))
    with pytest.raises(DataError, match=r"dog/y\.png: is 5x4 pixels, expected 4x4 as of the first"):
        load_image_folder(tmp_path)


@pytest.mark.parametrize("how", ["crop", "pad", "stretch"])
def test_images_of_any_size_become_squares(tmp_path: Path, how: str) -> None:
    """Upright first: of one that lies on its side the same part is seen as of one that stands."""
    resize = SourceResize(6, how)
    tall = np.arange(25 * 14 * 3, dtype=np.uint32).reshape(25, 14, 3).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "train" / "a" / "1.png", tall)
    Image.fromarray(np.ascontiguousarray(np.rot90(tall))).save(tmp_path / "train" / "a" / "2.png", exif=exif)
    save(tmp_path / "train" / "a" / "3.png", np.zeros((4, 90), np.uint8))
    transparent = np.dstack([tall, np.full(tall.shape[:2], 255, np.uint8)])
    save(tmp_path / "test" / "a" / "1.png", transparent)
    splits = load_image_folder(tmp_path, Reading(resize))
    assert splits.train.images_NHWC.shape == (3, 6, 6, 3)
    for place in (0, 1):
        np.testing.assert_array_equal(splits.train.images_NHWC[place], resized(tall, resize))
    np.testing.assert_array_equal(splits.test.images_NHWC[0], resized(tall, resize))
    enlarged = {"crop": 1, "pad": 0, "stretch": 1}[how]
    larger = {"crop": 0, "pad": 4, "stretch": 3}[how]
    assert splits.notes == (
        f"4 images made 6x6 pixels ({how}): smaller and so enlarged {enlarged}, more than 4 times larger {larger}, "
        "set upright 1, grey 1, with transparency, on white now 1",
    )


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
            _ = load_image_folder(tmp_path).train.images_NHWC


def test_a_file_that_claims_a_huge_image_is_not_decoded(tmp_path: Path) -> None:
    make_grey(tmp_path)
    path = tmp_path / "train" / "cat" / "0.bmp"
    save(path, GREY)
    content = bytearray(path.read_bytes())
    for side in (10_000, 30_000):
        content[18:26] = side.to_bytes(4, "little") * 2
        path.write_bytes(content)
        expected = rf"0\.bmp: has {side**2:,} pixels, expected at most 89,478,485; shrink it or leave it out$"
        with pytest.raises(DataError, match=expected):
            load_image_folder(tmp_path)


@pytest.mark.parametrize("end", ["gone.png", "a.png"])
def test_a_link_that_leads_nowhere_is_called_that(tmp_path: Path, end: str) -> None:
    make_grey(tmp_path)
    (tmp_path / "train" / "cat" / "a.png").symlink_to(end)
    with pytest.raises(DataError, match=r"cannot read .*a\.png: it is a link that leads nowhere; remove it$"):
        load_image_folder(tmp_path)


def test_without_pillow_the_install_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_grey(tmp_path)
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.delitem(sys.modules, "PIL.Image")
    with pytest.raises(DependencyError, match=r"pip install 'fedsup-deploy\[images\]'"):
        load_image_folder(tmp_path)
