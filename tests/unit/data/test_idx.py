"""IDX files: what is read, and every way in which a file can be wrong."""

import gzip
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from fedsup_deploy.data.idx import load_fashion_mnist, read_idx
from fedsup_deploy.errors import DataError

IMAGES = bytes(range(12))
HEADER = struct.pack(">4I", 0x0803, 3, 2, 2)


def write_set(folder: Path, *, compressed: bool) -> None:
    """Two training images and one test image of 2x2 pixels."""
    contents = {
        "train-images-idx3-ubyte": struct.pack(">4I", 0x0803, 2, 2, 2) + bytes(range(8)),
        "train-labels-idx1-ubyte": struct.pack(">2I", 0x0801, 2) + bytes([9, 0]),
        "t10k-images-idx3-ubyte": struct.pack(">4I", 0x0803, 1, 2, 2) + bytes(range(100, 104)),
        "t10k-labels-idx1-ubyte": struct.pack(">2I", 0x0801, 1) + bytes([3]),
    }
    for name, content in contents.items():
        if compressed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)


@pytest.mark.parametrize("compressed", [True, False])
def test_both_forms_are_read(tmp_path: Path, compressed: bool) -> None:
    write_set(tmp_path, compressed=compressed)
    splits = load_fashion_mnist(tmp_path)
    assert splits.train.images_NHWC[..., 0].tolist() == [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]
    assert splits.train.labels_N.tolist() == [9, 0]
    assert splits.test.images_NHWC[..., 0].tolist() == [[[100, 101], [102, 103]]]
    assert splits.test.classes[3] == "Dress"


def test_only_the_missing_file_is_named(tmp_path: Path) -> None:
    write_set(tmp_path, compressed=False)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match=r"missing t10k-labels-idx1-ubyte\.gz or t10k-labels-idx1-ubyte - looked in"):
        load_fashion_mnist(tmp_path)


def test_fewer_labels_than_images_is_refused(tmp_path: Path) -> None:
    write_set(tmp_path, compressed=False)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x0801, 1) + b"\x00")
    with pytest.raises(DataError, match="one per image"):
        load_fashion_mnist(tmp_path)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (HEADER[:10], "got 10 bytes, expected an IDX header"),
        (struct.pack(">4I", 0x0801, 3, 2, 2) + IMAGES, "got magic number 0x00000801, expected 0x00000803"),
        (struct.pack(">4I", 0x0D03, 3, 2, 2) + IMAGES, "got magic number 0x00000d03"),
        (HEADER + IMAGES[:-1], "got 11 bytes of data, expected 12"),
        (HEADER + IMAGES + b"x", "got more bytes of data, expected 12"),
        (struct.pack(">4I", 0x0803, 1 << 10, 1 << 10, 1 << 10) + IMAGES, "got 12 bytes of data"),
        (struct.pack(">4I", 0x0803, 1 << 10, 1 << 10, 1025) + IMAGES, "promises 1,074,790,400 bytes .* 1,073,741,824"),
        (struct.pack(">4I", 0x0803, *[0xFFFFFFFF] * 3) + IMAGES, "promises 79,228,162,458,924,105,385,300,197,375"),
        (struct.pack(">4I", 0x0803, 0, 2, 2), "got 0 bytes of data"),
    ],
)
def test_a_wrong_file_is_named_with_its_fault(tmp_path: Path, content: bytes, complaint: str) -> None:
    for path, stored in ((tmp_path / "x", content), (tmp_path / "x.gz", gzip.compress(content))):
        path.write_bytes(stored)
        with pytest.raises(DataError, match=complaint) as caught:
            read_idx(path, 3)
        assert str(path) in str(caught.value)


def test_a_compressed_file_is_read_no_further_than_its_header_says(tmp_path: Path) -> None:
    """64 MiB of zeros follow 12 bytes; reading stops within the first."""
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(HEADER + bytes(64 << 20), compresslevel=1))
    tracemalloc.start()
    with pytest.raises(DataError, match="got more bytes of data, expected 12"):
        read_idx(path, 3)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 8 << 20


@pytest.mark.parametrize("kept_bytes", [0, 5, 20, 40, -1])
def test_a_truncated_gzip_is_refused(tmp_path: Path, kept_bytes: int) -> None:
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(HEADER + np.random.default_rng(0).bytes(12))[:kept_bytes])
    with pytest.raises(DataError, match="get the file again"):
        read_idx(path, 3)


def test_a_file_that_is_no_gzip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.gz"
    path.write_bytes(HEADER + IMAGES)
    with pytest.raises(DataError, match="cannot read"):
        read_idx(path, 3)
