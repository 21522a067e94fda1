"""What is shown of answers that are wrong: which images, how small, how many."""

import base64
import struct
import zlib
from typing import Any

import numpy as np
import pytest

from fedsup_deploy.report.mistakes import MOST_BYTES, MOST_SIDE, Mistake, Mistakes, bounded, surest_first, thumbnail


def decoded(png: bytes) -> Any:
    """Return the pixels of a PNG of 8 bits without filters, (H, W, C), after its checksums."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    parts, at = {}, 8
    while at < len(png):
        [size] = struct.unpack(">I", png[at : at + 4])
        name, content = png[at + 4 : at + 8], png[at + 8 : at + 8 + size]
        assert struct.unpack(">I", png[at + 8 + size : at + 12 + size]) == (zlib.crc32(name + content),)
        parts[name], at = content, at + 12 + size
    width, height, bits, kind = struct.unpack(">IIBB", parts[b"IHDR"][:10])
    channels = {0: 1, 2: 3}[kind]
    lines = np.frombuffer(zlib.decompress(parts[b"IDAT"]), np.uint8).reshape(height, 1 + width * channels)
    assert bits == 8
    assert not lines[:, 0].any()
    return lines[:, 1:].reshape(height, width, channels)


def test_the_surest_wrong_answer_comes_first_and_right_ones_do_not() -> None:
    logits_NK = np.log(np.array([[0.6, 0.4], [0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], np.float32))
    found = surest_first(logits_NK, np.array([1, 1, 1, 1]))
    assert [index for index, _ in found] == [1, 0, 3]
    assert [confidence for _, confidence in found] == pytest.approx([0.9, 0.6, 0.6], rel=1e-6)


def test_logits_of_any_size_have_a_confidence() -> None:
    [(_, confidence)] = surest_first(np.array([[3e4, -3e4]], np.float32), np.array([1]))
    assert confidence == 1.0


@pytest.mark.parametrize(("channels", "shown"), [(1, 1), (3, 3), (5, 1)])
def test_a_thumbnail_is_the_image(channels: int, shown: int) -> None:
    image_HWC = np.arange(4 * 4 * channels, dtype=np.uint8).reshape(4, 4, channels)
    assert np.array_equal(decoded(thumbnail(image_HWC)), image_HWC[:, :, :shown])


def test_pixels_of_other_types_are_shown_as_8_bits() -> None:
    sixteen = np.array([[[0], [65535]]], np.uint16)
    assert decoded(thumbnail(sixteen)).ravel().tolist() == [0, 255]
    floats = np.array([[[-2.0], [0.0], [2.0]]], np.float32)
    assert decoded(thumbnail(floats)).ravel().tolist() == [0, 128, 255]
    assert decoded(thumbnail(np.zeros((2, 2, 1), np.float32))).ravel().tolist() == [0] * 4


def test_a_large_image_becomes_small_by_means() -> None:
    image_HWC = np.zeros((2 * MOST_SIDE, 2 * MOST_SIDE + 1, 1), np.uint8)
    image_HWC[:2, :3] = 100
    found = decoded(thumbnail(image_HWC))
    assert max(found.shape) <= MOST_SIDE
    assert found[0, 0, 0] == round(100 * 6 / 9)


def test_many_models_share_the_room_there_is() -> None:
    one = Mistake(b"x" * (MOST_BYTES // 30), "a", "b", 0.5)
    each = Mistakes((one,) * 12, 20, 100, "test images")
    assert [len(found.shown) for found in bounded([each])] == [12]
    assert [len(found.shown) for found in bounded([each] * 10)] == [3] * 10
    assert bounded([each] * 10)[0].num_wrong == 20
    assert base64.b64decode(one.source.removeprefix("data:image/png;base64,")) == one.png
