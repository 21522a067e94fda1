"""One image file as a viewer shows it, with Pillow's own operations as the referee."""

import io
import os
import struct
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps, PngImagePlugin

from fedsup_deploy.data.image_file import read_header, read_image
from fedsup_deploy.errors import DataError

ORIENTATION = 0x0112
# A format and the modes of 8 bits that Pillow writes in it.
WRITTEN = [
    *[("png", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")],
    *[("jpeg", mode) for mode in ("L", "RGB", "CMYK")],
    *[("tiff", mode) for mode in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")],
    *[("webp", mode) for mode in ("RGB", "RGBA")],
]


def pixels(seed: int, height: int, width: int) -> "np.ndarray[Any, Any]":
    return np.random.default_rng(seed).integers(0, 256, (height, width, 4), dtype=np.uint8)


def in_mode(rgba: "np.ndarray[Any, Any]", mode: str) -> Image.Image:
    image = Image.fromarray(rgba)
    # Pillow converts between few pairs of modes directly.
    by_way_of = {"CMYK": "RGB", "YCbCr": "RGB", "PA": "P"}
    return image.convert(by_way_of.get(mode, mode)).convert(mode)


def as_a_viewer_shows(path: Path) -> "np.ndarray[Any, Any]":
    """The same by other means: Pillow turns the image, and lays it on a white page.

    Given a path, Pillow 13 maps a TIFF that lies on its side as if it stood upright.
    """
    with path.open("rb") as file, Image.open(file) as stored:
        image = ImageOps.exif_transpose(stored)
        page = Image.new("RGBA", image.size, "white")
        page.alpha_composite(image.convert("RGBA"))
        return np.asarray(page.convert("RGB"))


@given(
    written=st.sampled_from(WRITTEN),
    orientation=st.integers(0, 9),
    seed=st.integers(0, 1000),
    transparent=st.sampled_from([None, 0, 7]),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
def test_what_pillow_writes_is_shown_upright_and_on_white(
    tmp_path: Path,
    written: tuple[str, str],
    orientation: int,
    seed: int,
    transparent: int | None,
    height: int,
    width: int,
) -> None:
    form, mode = written
    path = tmp_path / f"a.{form}"
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options: dict[str, Any] = {"exif": exif}
    if form == "png" and transparent is not None and mode in ("L", "P"):
        options["transparency"] = transparent
    in_mode(pixels(seed, height, width), mode).save(path, form, **options)
    shown, complaint = read_image(path)
    expected = as_a_viewer_shows(path)
    assert complaint is None
    assert read_header(path).is_grey == (shown.ndim == 2) == (mode == "L")
    np.testing.assert_array_equal(shown if shown.ndim == 3 else np.stack([shown] * 3, axis=-1), expected)


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (1, [[1, 2], [3, 4], [5, 6]]),
        (2, [[2, 1], [4, 3], [6, 5]]),
        (3, [[6, 5], [4, 3], [2, 1]]),
        (4, [[5, 6], [3, 4], [1, 2]]),
        (5, [[1, 3, 5], [2, 4, 6]]),
        (6, [[5, 3, 1], [6, 4, 2]]),
        (7, [[6, 4, 2], [5, 3, 1]]),
        (8, [[2, 4, 6], [1, 3, 5]]),
    ],
)
@pytest.mark.parametrize("form", ["png", "tiff"])
def test_each_orientation_of_the_standard(
    tmp_path: Path, orientation: int, expected: list[list[int]], form: str
) -> None:
    """EXIF 2.3, tag 274: 6, say, means that the first row stored is the right side of the picture."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = tmp_path / f"a.{form}"
    Image.fromarray(np.array([[1, 2], [3, 4], [5, 6]], dtype=np.uint8)).save(path, exif=exif)
    assert read_image(path).pixels.tolist() == expected


def test_transparency_is_blended_with_white(tmp_path: Path) -> None:
    """A quarter of black on white is 255 - 64; what is hidden below full transparency is not seen."""
    rgba = np.array([[[0, 0, 0, 64], [9, 8, 7, 0], [9, 8, 7, 255]]], dtype=np.uint8)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").pixels.tolist() == [[[191] * 3, [255] * 3, [9, 8, 7]]]


def test_a_transparent_colour_of_an_rgb_image_is_white(tmp_path: Path) -> None:
    rgb = np.array([[[1, 2, 3], [4, 5, 6]]], dtype=np.uint8)
    Image.fromarray(rgb).save(tmp_path / "a.png", transparency=(1, 2, 3))
    assert read_image(tmp_path / "a.png").pixels.tolist() == [[[255, 255, 255], [4, 5, 6]]]


@pytest.mark.parametrize(
    ("image", "name", "mode"),
    [
        (Image.fromarray(np.zeros((4, 4), np.uint16)), "a.png", "I;16"),
        (Image.fromarray(np.zeros((4, 4), np.uint16)), "a.tif", "I;16"),
        (Image.fromarray(np.zeros((4, 4), np.int32)), "a.tif", "I"),
        (Image.fromarray(np.zeros((4, 4), np.float32)), "a.tiff", "F"),
    ],
)
def test_pixels_of_more_than_8_bits_are_refused(tmp_path: Path, image: Image.Image, name: str, mode: str) -> None:
    image.save(tmp_path / name)
    with pytest.raises(DataError, match=f"{name}: has pixels of mode {mode}, expected 8 bits a channel"):
        read_header(tmp_path / name)


FRAMES = [Image.fromarray(pixels(seed, 8, 8)).convert("RGB") for seed in (0, 1)]


@pytest.mark.parametrize(("name", "mode"), [("a.gif", "P"), ("a.png", "RGB"), ("a.webp", "RGB"), ("a.tif", "RGB")])
def test_several_frames_are_refused_and_one_is_read(tmp_path: Path, name: str, mode: str) -> None:
    path = tmp_path / name
    FRAMES[0].save(path, save_all=True, append_images=FRAMES[1:])
    with pytest.raises(DataError, match=rf"{name}: is a \w+ of several frames \(mode \w+\), expected one image"):
        read_header(path)
    FRAMES[0].save(path)
    assert read_header(path)[:2] == (8, 8)
    np.testing.assert_array_equal(read_image(path).pixels, as_a_viewer_shows(path))


def test_further_views_of_a_photo_are_no_frames(tmp_path: Path) -> None:
    """Phones write such JPEG files; every viewer shows the first view."""
    FRAMES[0].save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=FRAMES[1:])
    read_header(tmp_path / "a.jpg")
    alone = io.BytesIO()
    FRAMES[0].save(alone, "JPEG")
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg").pixels, np.asarray(Image.open(alone)))


def test_content_decides_and_no_format_that_runs_programs_is_known(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    FRAMES[0].save(path, "BMP")
    assert read_header(path)[:2] == (8, 8)
    FRAMES[0].save(path, "EPS")
    with pytest.raises(DataError, match=r"a\.png: it is none of BMP, GIF, JPEG"):
        read_header(path)


def test_damaged_metadata_is_complained_about_and_the_image_is_read(tmp_path: Path) -> None:
    """Two entries are promised, and there is one: the orientation, which is obeyed. Many photos are like that."""
    entry = b"\x12\x01\x03\x00\x01\x00\x00\x00\x06\x00\x00\x00"
    exif = b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x02\x00" + entry
    FRAMES[0].crop((0, 0, 8, 4)).save(tmp_path / "a.jpg", exif=exif)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shown, complaint = read_image(tmp_path / "a.jpg")
    assert shown.shape == (8, 4, 3)
    assert complaint == "Corrupt EXIF data. Expecting to read 12 bytes but only got 0."


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_only_regular_files_are_opened(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.png"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(DataError, match=r"a\.png: it is no regular file"):
        read_header(path)


@given(
    written=st.sampled_from(WRITTEN),
    place=st.integers(0, 400),
    removed=st.integers(0, 8),
    inserted=st.binary(max_size=8),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
def test_damage_leads_to_nothing_but_a_data_error(
    tmp_path: Path, written: tuple[str, str], place: int, removed: int, inserted: bytes
) -> None:
    form, mode = written
    stored = io.BytesIO()
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    in_mode(pixels(0, 8, 8), mode).save(stored, form, exif=exif)
    content = stored.getvalue()
    path = tmp_path / "a"
    path.write_bytes(content[:place] + inserted + content[place + removed :])
    try:
        read_header(path)
        shown = read_image(path).pixels
    except DataError as error:
        complaint = str(error)
    else:
        complaint = ""
        assert shown.dtype == np.uint8
    assert "\n" not in complaint


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
def test_only_exif_says_how_an_image_lies(tmp_path: Path, form: str) -> None:
    """What XMP says is read by some releases of Pillow only, and by no browser: a device must not depend on it."""
    path = tmp_path / f"a.{form}"
    image, options = Image.fromarray(pixels(0, 8, 4)).convert("RGB"), {"webp": {"lossless": True}}.get(form, {})
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", XMP.decode())
    image.save(path, **options, **({"pnginfo": text} if form == "png" else {"xmp": XMP}))
    with Image.open(path) as stored:
        stored.load()
        assert stored.getexif()[ORIENTATION] == 6
        expected = np.asarray(stored)
    np.testing.assert_array_equal(read_image(path).pixels, expected)


def test_what_pillow_logs_is_not_printed(tmp_path: Path) -> None:
    """It logs as an error that a TIFF claims more channels than it can decode; the exception says so as well."""
    FRAMES[0].save(tmp_path / "a.tif")
    content = (tmp_path / "a.tif").read_bytes()
    samples = struct.pack("<HHI", 277, 3, 1)
    at = content.index(samples) + len(samples)
    (tmp_path / "a.tif").write_bytes(content[:at] + struct.pack("<I", 99) + content[at + 4 :])
    code = f"""
from pathlib import Path
from fedsup_deploy.data.image_file import read_header
from fedsup_deploy.errors import DataError
try:
    read_header(Path({str(tmp_path / "a.tif")!r}))
except DataError as error:
    print(error)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (ended.stderr, len(ended.stdout.splitlines())) == ("", 1)
