"""Random shift and mirror."""

import numpy as np
import pytest

from fedsup_deploy import rng
from fedsup_deploy.data.augment import Augmentation
from fedsup_deploy.errors import ConfigError


def images(num_images: int, channels: int = 2, side: int = 4) -> np.ndarray:
    """Every pixel of the batch has a value of its own, from 1 on."""
    count = num_images * channels * side * side
    return np.arange(1, count + 1, dtype=np.float32).reshape(num_images, channels, side, side)


def test_off_is_the_identity_and_draws_nothing() -> None:
    x_NCHW = images(3)
    generator = rng.generator(0)
    assert Augmentation().apply(x_NCHW, generator) is x_NCHW
    assert generator.random() == rng.generator(0).random()


def test_flip_mirrors_about_half_of_the_images_whole() -> None:
    x_NCHW = images(400)
    flipped = Augmentation(flip=True).apply(x_NCHW, rng.generator(0))
    is_same = (flipped == x_NCHW).all(axis=(1, 2, 3))
    is_mirrored = (flipped == x_NCHW[..., ::-1]).all(axis=(1, 2, 3))
    assert (is_same ^ is_mirrored).all()
    # Six deviations of a fair coin thrown 400 times: 200 +- 60.
    assert 140 < is_mirrored.sum() < 260


def test_crop_shifts_each_image_on_its_own_and_fills_per_channel() -> None:
    """Every result is one of the 25 shifts by up to 2 pixels of its own image, filled with -7 and -9."""
    x_NCHW = images(300)
    shifted = Augmentation(crop_padding=2, fill=(-7.0, -9.0)).apply(x_NCHW, rng.generator(1))
    assert shifted.shape == x_NCHW.shape
    assert shifted.dtype == np.float32
    assert shifted.flags.c_contiguous
    canvas = np.empty((300, 2, 8, 8), np.float32)
    canvas[:, 0], canvas[:, 1] = -7.0, -9.0
    canvas[:, :, 2:6, 2:6] = x_NCHW
    shifts = [(down, right) for down in range(5) for right in range(5)]
    crops = np.stack([canvas[:, :, down : down + 4, right : right + 4] for down, right in shifts])
    is_equal = (crops == shifted).all(axis=(2, 3, 4))
    assert (is_equal.sum(axis=0) == 1).all()
    assert is_equal.any(axis=1).all(), "in 300 images each of the 25 shifts occurs"


def test_crop_and_flip_together_stay_within_the_image_and_its_fill() -> None:
    x_NCHW = images(50, channels=1)
    result = Augmentation(crop_padding=1, flip=True, fill=(0.0,)).apply(x_NCHW, rng.generator(2))
    for before, after in zip(x_NCHW, result, strict=True):
        assert set(np.unique(after)) <= {0.0, *np.unique(before)}
    assert (result != x_NCHW).any(axis=(1, 2, 3)).sum() > 25


def test_input_is_not_changed_and_the_seed_decides() -> None:
    x_NCHW = images(20)
    before = x_NCHW.copy()
    augmentation = Augmentation(crop_padding=2, flip=True)
    first, again, other = (augmentation.apply(x_NCHW, rng.generator(seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(x_NCHW, before)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="got crop_padding -1"):
        Augmentation(crop_padding=-1)
    with pytest.raises(ConfigError, match="got 3 fill values, expected 1 or 2"):
        Augmentation(crop_padding=1, fill=(0.0, 0.0, 0.0)).apply(images(1), rng.generator(0))
