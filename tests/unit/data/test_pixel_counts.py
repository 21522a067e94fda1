"""Whole numbers of pixels: fractions are the referee, which nothing is too large or too small for."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from fedsup_deploy.data import pixel_counts
from fedsup_deploy.data.dataset import ImageDataset
from fedsup_deploy.data.pixel_counts import count_pixels, sums_of, why_impossible
from fedsup_deploy.data.preprocess import Preprocessing
from fedsup_deploy.errors import DataError

GENERATOR = np.random.default_rng(0)
BITS = GENERATOR.integers(0, 2**32, 4000, dtype=np.uint32).view(np.float32)
FLOATS = {
    "of every exponent": BITS[np.abs(BITS) <= 1e15][:2048],
    "subnormal": np.float32(2.0**-149) * np.arange(-1024, 1024, dtype=np.float32),
    "cancelling": np.tile(np.array([1e15, 1.0, -1e15, 2.0**-149], np.float32), 512),
    "temperatures": (300 + GENERATOR.standard_normal(2048)).astype(np.float32),
    "integers": GENERATOR.integers(-5, 5, 2048).astype(np.float32),
}


def dataset(values: Any) -> ImageDataset:
    """Return images of 2x2 pixels of two channels; 2,048 values are 256 images."""
    images_NHWC = np.asarray(values).reshape(-1, 2, 2, 2)
    return ImageDataset("made", images_NHWC, np.zeros(len(images_NHWC), np.int64), ("a",))


def exact(values: Any) -> tuple[int, Fraction, Fraction]:
    """Return how many numbers there are, their sum and the sum of their squares."""
    fractions = [Fraction(value) for value in values.ravel().tolist()]
    return len(fractions), sum(fractions, Fraction(0)), sum((each * each for each in fractions), Fraction(0))


def as_fractions(counts_V: Any, pixel_dtype: str) -> tuple[int, Fraction, Fraction]:
    sums = sums_of(counts_V, pixel_dtype)
    return sums.num, Fraction(sums.total, 2**sums.unit_bits), Fraction(sums.squares, 4**sums.unit_bits)


@pytest.mark.parametrize("values", FLOATS.values(), ids=FLOATS)
def test_sums_of_floats_are_exact(values: Any) -> None:
    images = dataset(values)
    counts_CV = count_pixels(images)
    for channel in range(2):
        assert as_fractions(counts_CV[channel], "float32") == exact(images.images_NHWC[..., channel])


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_sums_of_integers_are_exact(dtype: str) -> None:
    values = GENERATOR.integers(0, np.iinfo(dtype).max, 2048, dtype=dtype, endpoint=True)
    images = dataset(values)
    for counts_V, channel in zip(count_pixels(images), range(2), strict=True):
        assert as_fractions(counts_V, dtype) == exact(images.images_NHWC[..., channel])


@pytest.mark.parametrize("values", FLOATS.values(), ids=FLOATS)
def test_who_holds_which_image_changes_nothing(values: Any) -> None:
    """Nor the order of the images, nor how many are looked at together."""
    whole = count_pixels(dataset(values))
    order = GENERATOR.permutation(256)
    parts = [dataset(values).take(part) for part in np.split(order, [1, 100, 101])]
    assert np.array_equal(sum(count_pixels(part) for part in reversed(parts)), whole)


def test_passes_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = count_pixels(dataset(FLOATS["temperatures"]))
    monkeypatch.setattr(pixel_counts, "_VALUES_PER_PASS", 24)
    assert np.array_equal(count_pixels(dataset(FLOATS["temperatures"])), whole)


@pytest.mark.parametrize("values", FLOATS.values(), ids=FLOATS)
def test_mean_and_deviation_are_the_nearest_numbers(values: Any) -> None:
    """But for rounding at the end: no error grows with the number of pixels."""
    images = dataset(values)
    sums = [exact(images.images_NHWC[..., channel]) for channel in range(2)]
    variances = [squares / num - (total / num) ** 2 for num, total, squares in sums]
    if min(variances) < Fraction(1, 10**30):
        with pytest.raises(DataError, match=r"^made: channel 0 has a deviation of .*, expected more; scale its values"):
            Preprocessing.fit(images, 2)
        return
    fitted = Preprocessing.fit(images, 2)
    assert fitted.mean == tuple(float(total / num) for num, total, _ in sums)
    assert fitted.std == pytest.approx([float(variance) ** 0.5 for variance in variances], rel=1e-15)


def test_numbers_that_no_images_have_are_told() -> None:
    counts_CV = count_pixels(dataset(FLOATS["temperatures"]))
    num_pixels = 256 * 4
    assert why_impossible(counts_CV, "float32", num_pixels) is None
    assert why_impossible(counts_CV, "float32", num_pixels + 1) == "other counts"
    assert why_impossible(-counts_CV, "float32", num_pixels) == "other counts"
    rows_CE5 = counts_CV.reshape(2, -1, 5)
    for column, change in ((1, 2**62), (2, -(2**40)), (4, -(2**62)), (2, 2**62)):
        forged = rows_CE5.copy()
        forged[1, rows_CE5[1, :, 0].argmax() if change != 2**62 or column == 1 else -1, column] += change
        assert why_impossible(forged.reshape(2, -1), "float32", num_pixels) == "other sums", (column, change)
    brighter = count_pixels(dataset(FLOATS["temperatures"] * 1000))
    assert why_impossible(brighter, "uint16", num_pixels) == "other sums", "a mean above 65,535"
