"""IDX files, the format of MNIST and Fashion-MNIST, compressed or not."""

import gzip
import math
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedsup_deploy.data import source
from fedsup_deploy.data.dataset import DatasetSplits, ImageDataset
from fedsup_deploy.errors import DataError

_NAME = "fashion-mnist"
_STEMS = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_UNSIGNED_BYTE = 0x08
_PIECE_BYTES = 1 << 20


def load_fashion_mnist(root: Path | None) -> DatasetSplits:
    """Load Fashion-MNIST: grey 28x28 images of 10 kinds of clothing, officially 60,000 and 10,000.

    Args:
        root: The folder of the four official files, as downloaded (`.gz`) or unpacked.

    Raises:
        ConfigError: `root` is None.
        DataError: A file is missing, cut short or not of this format.

    Source: H. Xiao, K. Rasul, R. Vollgraf, arXiv:1708.07747.
    """
    folder = source.required_root(_NAME, root, "the four official IDX files")
    paths = source.locate(_NAME, folder, [(f"{stem}.gz", stem) for stem in _STEMS])
    train_images, train_labels, test_images, test_labels = paths
    return DatasetSplits(_dataset(train_images, train_labels), _dataset(test_images, test_labels))


def read_idx(path: Path, num_dimensions: int) -> npt.NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes.

    Args:
        path: Compressed if the name ends in `.gz`.
        num_dimensions: 1 for labels, 3 for grey images.

    Raises:
        DataError: Wrong magic number, a header that promises more than `source.MAX_FILE_BYTES`, more or fewer bytes
            than it says, or a damaged compression.
    """
    with source.opened(path) as stored, gzip.open(stored, "rb") if path.suffix == ".gz" else stored as file:
        header = file.read(4 + 4 * num_dimensions)
        if len(header) < 4 + 4 * num_dimensions:
            raise DataError(f"{path}: got {len(header)} bytes, expected an IDX header; get the file again")
        magic, *shape = struct.unpack(f">{1 + num_dimensions}I", header)
        expected_magic = _UNSIGNED_BYTE << 8 | num_dimensions
        if magic != expected_magic:
            raise DataError(f"{path}: got magic number {magic:#010x}, expected {expected_magic:#010x}; not this file")
        num_bytes = math.prod(shape)
        if num_bytes > source.MAX_FILE_BYTES:
            got = f"promises {num_bytes:,} bytes for {tuple(shape)}"
            raise DataError(f"{path}: {got}, expected at most {source.MAX_FILE_BYTES:,}; get the file again")
        # Piece by piece, so that a damaged header cannot make us allocate what it promises, nor read on beyond it.
        content = bytearray()
        while len(content) <= num_bytes and (piece := file.read(_PIECE_BYTES)):
            content += piece
    if num_bytes == 0 or len(content) != num_bytes:
        got = "more" if len(content) > num_bytes else f"{len(content):,}"
        raise DataError(f"{path}: got {got} bytes of data, expected {num_bytes:,} for {tuple(shape)}; get it again")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)


def _dataset(images_path: Path, labels_path: Path) -> ImageDataset:
    images_NHW, labels_N = read_idx(images_path, 3), read_idx(labels_path, 1)
    return ImageDataset(_NAME, images_NHW[..., np.newaxis], labels_N.astype(np.int64), _CLASSES)
