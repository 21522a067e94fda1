"""Preprocessing: numbers worked out by hand, and torch as the referee of the resize."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fedsup_deploy.data.dataset import ImageDataset
from fedsup_deploy.data.preprocess import Preprocessing
from fedsup_deploy.errors import ArtifactError, DataError


def dataset(images_NHWC: np.ndarray) -> ImageDataset:
    return ImageDataset("made", images_NHWC, np.zeros(len(images_NHWC), np.int64), ("a",))


def plain(native_size: int, padded_size: int, size: int, channels: int = 1) -> Preprocessing:
    """No normalisation: mean 0, deviation 1."""
    return Preprocessing((0.0,) * channels, (1.0,) * channels, native_size, padded_size, size)


def random_images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_fit_gives_mean_and_biased_deviation_per_channel() -> None:
    """Channel 0 is half black, half white; channel 1 is 51 (a fifth) in one pixel of four."""
    images = np.zeros((1, 2, 2, 2), np.uint8)
    images[0, 0, :, 0] = 255
    images[0, 0, 0, 1] = 51
    fitted = Preprocessing.fit(dataset(images), 2)
    assert fitted.mean == pytest.approx((0.5, 0.05), abs=1e-15)
    assert fitted.std == pytest.approx((0.5, np.sqrt(0.01 - 0.05**2)), abs=1e-15)


def test_fit_equals_numpy_and_ignores_order_and_padding() -> None:
    images = random_images(5000, 4, 4, 3)
    fitted = Preprocessing.fit(dataset(images), 8)
    scaled = images.astype(np.float64) / 255
    np.testing.assert_allclose(fitted.mean, scaled.mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(fitted.std, scaled.std(axis=(0, 1, 2)), rtol=1e-12)
    assert fitted == Preprocessing.fit(dataset(images[::-1]), 8)


@pytest.mark.parametrize(
    ("native", "asked", "expected"), [(28, 32, (28, 32, 32)), (32, 32, (32, 32, 32)), (40, 32, (40, 40, 32))]
)
def test_fit_pads_what_is_smaller_and_resizes_what_is_larger(
    native: int, asked: int, expected: tuple[int, int, int]
) -> None:
    fitted = Preprocessing.fit(dataset(random_images(2, native, native, 1)), asked)
    assert (fitted.native_size, fitted.padded_size, fitted.size) == expected


def test_fit_can_enlarge_instead_of_padding() -> None:
    fitted = Preprocessing.fit(dataset(random_images(2, 8, 8, 1)), 8, size=32)
    assert (fitted.native_size, fitted.padded_size, fitted.size) == (8, 8, 32)


def test_fit_refuses_what_it_cannot_use() -> None:
    with pytest.raises(DataError, match="images are 6x4 pixels, expected square"):
        Preprocessing.fit(dataset(random_images(2, 4, 6, 1)), 8)
    with pytest.raises(DataError, match="images are 6x4 pixels, expected square ones; crop them before they are saved"):
        Preprocessing.fit(dataset(random_images(2, 4, 6, 1).astype(np.uint16)), 8)
    images = random_images(2, 4, 4, 3)
    images[..., 1] = 7
    with pytest.raises(DataError, match="channel 1 has one value everywhere"):
        Preprocessing.fit(dataset(images), 8)


def test_apply_normalises_per_channel() -> None:
    preprocessing = Preprocessing((0.2, 0.5), (0.1, 0.25), 1, 1, 1)
    x_NCHW = preprocessing.apply(np.array([[[[51, 255]]]], np.uint8))
    expected = [[[[0.0]], [[2.0]]]]
    np.testing.assert_allclose(x_NCHW, expected, atol=1e-6)
    assert x_NCHW.dtype == np.float32
    assert preprocessing.fill == pytest.approx((-2.0, -2.0))


def test_padding_is_black_before_normalisation_and_its_odd_row_is_last() -> None:
    preprocessing = Preprocessing((0.5,), (0.5,), 1, 4, 4)
    x_NCHW = preprocessing.apply(np.full((1, 1, 1, 1), 255, np.uint8))
    expected = np.full((4, 4), -1.0)
    expected[1, 1] = 1.0
    np.testing.assert_array_equal(x_NCHW[0, 0], expected)


def test_padding_comes_before_resizing() -> None:
    """A white pixel padded to 3x3 and shrunk to 1x1 is what is in the centre: white."""
    assert plain(1, 3, 1).apply(np.full((1, 1, 1, 1), 255, np.uint8)).item() == pytest.approx(1.0)


def test_enlarging_two_pixels_to_four_by_hand() -> None:
    """Centres fall at -0.25 (held at the edge), 0.25, 0.75 and 1.25 (held): 0, 1/4, 3/4 and 1 of the way."""
    images = np.array([[[0], [255]], [[0], [255]]], np.uint8)[np.newaxis]
    x_NCHW = plain(2, 2, 4).apply(images)
    np.testing.assert_allclose(x_NCHW[0, 0], [[0.0, 0.25, 0.75, 1.0]] * 4, atol=1e-7)


@pytest.mark.parametrize(
    ("native", "size"),
    [(8, 32), (28, 32), (32, 24), (32, 28), (32, 20), (32, 16), (32, 33), (33, 32), (7, 5), (1, 4), (5, 1), (64, 17)],
)
def test_resize_equals_torch(native: int, size: int) -> None:
    """Torch in double precision: in single it rounds the positions too, differently on different processors."""
    images = random_images(3, native, native, 2)
    scaled = torch.from_numpy(images).permute(0, 3, 1, 2) / 255.0
    x_NCHW = plain(native, native, size, channels=2).apply(images)
    assert x_NCHW.shape == (3, 2, size, size)
    for dtype, tolerance in ((torch.float64, 1e-6), (torch.float32, 1e-5)):
        expected = torch.nn.functional.interpolate(
            scaled.to(dtype), size=(size, size), mode="bilinear", align_corners=False
        )
        np.testing.assert_allclose(x_NCHW, expected.numpy(), rtol=0, atol=tolerance)


def test_large_photos_are_shrunk_without_a_filter_and_whoever_has_to_know_is_told(repository: Path) -> None:
    """Of 7x7 pixels 4 are taken, so a pattern that a filter would make grey stays black and white."""
    is_white = np.add.outer(np.arange(224) // 2, np.arange(224) // 2) % 2 == 1
    images = np.where(is_white, np.uint8(255), np.uint8(0))[np.newaxis, ..., np.newaxis]
    preprocessing = plain(224, 224, 32)
    filtered = Image.fromarray(images[0, ..., 0]).resize((32, 32), Image.Resampling.BILINEAR)
    assert preprocessing.apply(images).std() > 0.45
    assert np.asarray(filtered).std() / 255 < 0.01
    assert "no antialiasing" in str(preprocessing.to_dict()["interpolation"])
    assert "without antialiasing" in (repository / "docs" / "tutorial.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("sizes", [(28, 28, 28), (28, 32, 32), (28, 32, 24), (28, 28, 30)])
def test_output_is_contiguous_and_each_image_stands_alone(sizes: tuple[int, int, int]) -> None:
    images = random_images(5, 28, 28, 3)
    preprocessing = Preprocessing((0.4, 0.5, 0.6), (0.2, 0.3, 0.4), *sizes)
    together = preprocessing.apply(images)
    assert together.flags.c_contiguous
    assert together.dtype == np.float32
    for place in range(5):
        np.testing.assert_array_equal(preprocessing.apply(images[place : place + 1])[0], together[place])


def test_apply_leaves_the_pixels_alone() -> None:
    images = random_images(2, 4, 4, 1)
    before = images.copy()
    Preprocessing((0.4,), (0.2,), 4, 4, 4).apply(images)
    np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize(
    "images",
    [random_images(1, 5, 5, 1), random_images(1, 4, 4, 3), random_images(4, 4, 1), np.zeros((1, 4, 4, 1), np.float32)],
)
def test_apply_refuses_other_images(images: np.ndarray) -> None:
    with pytest.raises(DataError, match="expected uint8 of shape"):
        plain(4, 4, 4).apply(images)


def test_for_size_changes_only_the_size() -> None:
    assert plain(28, 32, 32).for_size(24) == plain(28, 32, 24)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("native_size", "6"),
        ("padded_size", 8.5),
        ("size", True),
        ("mean", "123"),
        ("mean", ["0.5"]),
        ("std", [True]),
        ("std", 1),
    ],
)
def test_a_document_with_something_else_than_numbers_is_refused_by_its_key(key: str, value: object) -> None:
    document = Preprocessing((0.5,), (0.2,), 6, 8, 8).to_dict()
    with pytest.raises(ArtifactError, match=rf"preprocessing: {key} is {re.escape(repr(value))}, expected"):
        Preprocessing.from_dict({**document, key: value})


def test_json_round_trip_is_exact() -> None:
    fitted = Preprocessing.fit(dataset(random_images(50, 6, 6, 3)), 8).for_size(7)
    document = json.loads(json.dumps(fitted.to_dict(), allow_nan=False))
    assert Preprocessing.from_dict(document) == fitted
    assert document["layout"] == "NCHW"
    assert document["native_size"] == 6
    assert document["padded_size"] == 8
    assert document["size"] == 7


def by_the_document(path: Path, how: dict[str, Any]) -> np.ndarray:
    """Do what the document says to one image file, with nothing of ours; steps are in the order it tells."""
    with Image.open(path) as image:
        pixels_HWC = np.asarray(image).reshape(how["native_size"], how["native_size"], len(how["mean"]))
    pad = how["padding"]
    scaled = pixels_HWC.astype(how["dtype"]) / np.float32(how["pixel_max"])
    margins = ((pad["top"], pad["bottom"]), (pad["left"], pad["right"]), (0, 0))
    x_HWC = np.pad(scaled, margins, constant_values=pad["value"])
    assert x_HWC.shape == (how["padded_size"], how["padded_size"], len(how["mean"]))
    if how["size"] != how["padded_size"]:
        # Half-pixel centres; a position beyond the outermost centres takes the edge, and each pixel two neighbours.
        at = np.clip((np.arange(how["size"]) + 0.5) * len(x_HWC) / how["size"] - 0.5, 0, len(x_HWC) - 1)
        low = np.floor(at).astype(int)
        high, share = np.minimum(low + 1, len(x_HWC) - 1), (at - np.floor(at))[:, np.newaxis, np.newaxis]
        x_HWC = x_HWC[low] * (1 - share) + x_HWC[high] * share
        x_HWC = np.swapaxes(np.swapaxes(x_HWC, 0, 1)[low] * (1 - share) + np.swapaxes(x_HWC, 0, 1)[high] * share, 0, 1)
    normal = (x_HWC.astype(how["dtype"]) - np.array(how["mean"], how["dtype"])) / np.array(how["std"], how["dtype"])
    return normal.transpose(2, 0, 1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("native_size", "padded_size", "size"), [(6, 6, 6), (5, 8, 8), (6, 9, 9), (5, 8, 7), (9, 9, 4)]
)
def test_document_alone_is_enough_to_make_the_input(
    tmp_path: Path, native_size: int, padded_size: int, size: int, channels: int
) -> None:
    """To the byte, and to rounding where images are resized."""
    images = random_images(20, native_size, native_size, channels)
    fitted = Preprocessing.fit(dataset(images), padded_size, size)
    how = json.loads(json.dumps(fitted.to_dict()))
    Image.fromarray(images[0].squeeze()).save(tmp_path / "image.png")
    expected = fitted.apply(images[:1])[0]
    made = by_the_document(tmp_path / "image.png", how)
    if size == padded_size:
        assert made.tobytes() == expected.tobytes()
    np.testing.assert_allclose(made, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"mean": None}, "mean is None, expected a list of numbers"),
        ({"mean": [0.1, 0.2]}, "as many finite means"),
        ({"std": [0.0]}, "positive finite deviations"),
        ({"std": [float("nan")]}, "finite"),
        ({"padded_size": 3}, "expected 1 <= native_size <= padded_size"),
        ({"size": 0}, "size >= 1"),
        ({"size": "large"}, "size is .large., expected a whole number"),
        ({"layout": "NHWC"}, "layout is 'NHWC', expected 'NCHW'"),
        ({"padding": {"top": 1}}, "padding is {'top': 1}, expected {'top': 0, 'bottom': 0"),
        ({"extra": 1}, "missing or unknown extra"),
    ],
)
def test_a_damaged_document_is_refused(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ArtifactError, match=complaint):
        Preprocessing.from_dict({**plain(4, 4, 4).to_dict(), **change})


def test_an_incomplete_document_names_what_is_missing() -> None:
    document = plain(4, 4, 4).to_dict()
    del document["std"]
    with pytest.raises(ArtifactError, match="missing or unknown std"):
        Preprocessing.from_dict(document)


def floats(channels: int = 2) -> Preprocessing:
    """Of floats whose 0 means nothing: they are padded to 4 pixels and resized to 5."""
    means, stds = (300.0, -1e-3, 7.0)[:channels], (10.0, 1e-4, 1.0)[:channels]
    return Preprocessing(means, stds, 3, 4, 5, pixel_dtype="float32")


def test_floats_stay_as_they_are_and_are_padded_with_the_mean() -> None:
    """Which is 0 once it is normalised, to the last digits of the mean: so is what augmentation shifts in."""
    images = (300 + np.random.default_rng(0).standard_normal((2, 3, 3, 2))).astype(np.float32)
    preprocessing = floats().for_size(4)
    x_NCHW = preprocessing.apply(images)
    expected = (images - np.array([300, -1e-3], np.float32)) / np.array([10, 1e-4], np.float32)
    np.testing.assert_array_equal(x_NCHW[:, :, :3, :3], expected.transpose(0, 3, 1, 2))
    assert not x_NCHW[:, :, 3].any()
    assert not x_NCHW[:, :, :, 3].any()
    assert preprocessing.fill == (0.0, 0.0)


def test_numbers_of_16_bits_are_divided_by_the_largest_and_padded_with_black() -> None:
    preprocessing = Preprocessing((0.5,), (0.25,), 1, 2, 2, pixel_dtype="uint16")
    x_NCHW = preprocessing.apply(np.array([[[[65535]]]], np.uint16))
    assert x_NCHW.tolist() == [[[[2.0, -2.0], [-2.0, -2.0]]]]
    assert preprocessing.fill == (-2.0,)


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_the_document_says_of_which_type_pixels_are_unless_they_are_bytes(dtype: str) -> None:
    preprocessing = Preprocessing((0.5, 2.0), (0.25, 1.0), 3, 4, 5, pixel_dtype=dtype)
    document = json.loads(json.dumps(preprocessing.to_dict()))
    assert Preprocessing.from_dict(document) == preprocessing
    assert document["pixel_dtype"] == dtype
    assert document["pixel_max"] == {"uint16": 65535, "float32": 1}[dtype]
    assert document["padding"]["value"] == {"uint16": 0.0, "float32": [0.5, 2.0]}[dtype]
    assert "pixel_dtype" not in Preprocessing((0.5, 2.0), (0.25, 1.0), 3, 4, 5).to_dict()
    for changed in ({"pixel_dtype": "int16"}, {"pixel_dtype": ["float32"]}, {"pixel_max": 255}, {"pixel_dtype": None}):
        with pytest.raises(ArtifactError, match=r"^preprocessing: pixel_(max|dtype) is "):
            Preprocessing.from_dict({**document, **changed})
    with pytest.raises(ArtifactError, match="padding is"):
        Preprocessing.from_dict({**document, "padding": {**document["padding"], "value": [0.0, 0.0]}})


def test_only_bytes_are_made_square() -> None:
    with pytest.raises(DataError, match="got source_resize for uint16, expected uint8"):
        Preprocessing((0.5,), (0.25,), 3, 4, 5, "crop", "uint16")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 2e15])
def test_no_pixel_is_prepared_that_nothing_can_be_computed_with(value: float) -> None:
    images = np.zeros((3, 3, 3, 2), np.float32)
    images[1, 0, 2, 1] = value
    with pytest.raises(DataError, match=r"^preprocessing: image 1 has a pixel that is NaN, infinite or beyond 1e\+15$"):
        floats().apply(images)
    with pytest.raises(DataError, match=r"got float64 images .* expected float32 of shape"):
        floats().apply(images.astype(np.float64))
