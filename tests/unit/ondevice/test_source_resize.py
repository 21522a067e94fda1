"""Squares of photographs: by Pillow here, in NumPy by a program that was written from the document."""

import resource
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedsup_deploy import rng
from fedsup_deploy.ondevice.preprocessing import PreprocessingSteps, check_steps, document_of, steps_of
from fedsup_deploy.ondevice.source_resize import (
    HOW,
    SourceResize,
    document_of_resize,
    resize_of,
    resized,
    scale_of,
)

STEPS = PreprocessingSteps((0.5,), (0.2,), native_size=9, padded_size=12, size=12, how="pad")


@pytest.fixture(scope="module")
def by_document(repository: Path) -> Any:
    return runpy.run_path(str(repository / "examples" / "python" / "classify.py"))["make_square"]


def noise(*shape: int) -> np.ndarray:
    return rng.generator(0, "noise", *shape).integers(0, 256, shape, dtype=np.uint8)


#: Height and width: landscape and portrait, odd borders, one pixel, one row, hundreds to one, already square.
SHAPES = [(48, 64), (65, 48), (7, 12), (12, 7), (1, 1), (1, 300), (200, 3), (17, 17), (9, 9), (59, 8), (641, 480)]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("size", [1, 8, 9, 17, 53])
def test_the_document_says_every_byte(by_document: Any, how: str, size: int) -> None:
    document = document_of_resize(SourceResize(size, how))
    for shape in SHAPES:
        pixels = noise(*shape, 3)
        made = resized(pixels, SourceResize(size, how))
        assert made.dtype == np.uint8
        np.testing.assert_array_equal(made, by_document(pixels, document), err_msg=str(shape))


@pytest.mark.parametrize("how", HOW)
def test_channels_do_not_know_of_each_other(how: str) -> None:
    """Neither does a fourth: it is no transparency."""
    pixels = noise(31, 20, 4)
    made = resized(pixels, SourceResize(9, how))
    for channel in range(4):
        np.testing.assert_array_equal(made[..., channel], resized(pixels[..., channel], SourceResize(9, how)))
    np.testing.assert_array_equal(made[..., :3], resized(pixels[..., :3], SourceResize(9, how)))


def test_crop_is_the_central_square_and_looks_at_nothing_else() -> None:
    pixels = noise(5, 8)
    made = resized(pixels, SourceResize(5, "crop"))
    np.testing.assert_array_equal(made, pixels[:, 1:6])
    other = pixels.copy()
    other[:, [0, 6, 7]] ^= 255
    np.testing.assert_array_equal(resized(other, SourceResize(3, "crop")), resized(pixels, SourceResize(3, "crop")))


def test_pad_keeps_all_between_black_bars_of_which_the_last_is_the_wider() -> None:
    pixels = np.full((4, 10), 200, np.uint8)
    made = resized(pixels, SourceResize(5, "pad"))
    assert made[:, 0].tolist() == [0, 200, 200, 0, 0]
    assert (made == made[:, :1]).all()


def test_fine_patterns_become_their_mean_and_do_not_alias() -> None:
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255
    for how in HOW:
        inside = resized(stripes, SourceResize(8, how))[:, 1:-1]
        assert np.abs(inside.astype(int) - 128).max() <= 1


@pytest.mark.parametrize("shape", [(2_000_000, 1), (1, 2_000_000)])
def test_a_thread_of_pixels_takes_no_memory(shape: tuple[int, int]) -> None:
    """Neither lying nor standing; across it would be 128 million pixels."""
    pixels, resize = np.zeros(shape, np.uint8), SourceResize(64, "stretch")
    resized(pixels[:9, :9], resize)
    taken_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (taken_bytes + 100 * 2**20, limits[1]))
    try:
        assert resized(pixels, resize).shape == (64, 64)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def test_how_much_an_image_is_scaled() -> None:
    assert scale_of(100, 50, SourceResize(10, "crop")) == (5, 5)
    assert scale_of(100, 50, SourceResize(10, "pad")) == (10, 10)
    assert scale_of(100, 5, SourceResize(10, "stretch")) == (0.5, 10)


@pytest.mark.parametrize("how", HOW)
def test_the_steps_come_back_from_their_document(how: str) -> None:
    steps = STEPS._replace(how=how)
    document = document_of(steps)
    assert steps_of(document) == steps
    assert document["source_resize"] == document_of_resize(SourceResize(9, how))


def test_a_document_without_it_is_of_images_of_one_size() -> None:
    document = document_of(STEPS._replace(how=None))
    assert "source_resize" not in document
    assert steps_of(document).source is None


@pytest.mark.parametrize(
    "change",
    [
        {"how": "fit"},
        {"how": ["crop"]},
        {"size": 0},
        {"size": 8},
        {"size": 9.0},
        {"size": True},
        {"filter": "nearest"},
        {"more": 1},
    ],
)
def test_a_document_that_says_something_else_is_refused(change: dict[str, Any]) -> None:
    document = document_of(STEPS)
    document["source_resize"] = {**document_of_resize(SourceResize(9, "pad")), **change}
    with pytest.raises(ValueError, match="source_resize"):
        steps_of(document)


@pytest.mark.parametrize("document", [None, [], "crop", {}])
def test_what_is_no_document_is_refused(document: Any) -> None:
    with pytest.raises(ValueError, match="source_resize"):
        resize_of(document)


def test_steps_know_the_ways_there_are() -> None:
    with pytest.raises(ValueError, match="got source_resize 'fit', expected one of crop, pad, stretch"):
        check_steps(STEPS._replace(how="fit"))
