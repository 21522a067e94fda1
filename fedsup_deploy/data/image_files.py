"""Labelled images that lie in files, decoded where and when they are needed.

What is held of an image is where its file is. What it looks like is decided in `image_file`, what becomes of one of any
size in `source_resize`, how long its pixels are kept in `pixel_cache`.

Shape suffixes: N images, H W pixels, C channels.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedsup_deploy.data import source
from fedsup_deploy.data.dataset import DamagedFileError, check_labels
from fedsup_deploy.data.image_file import read_image
from fedsup_deploy.data.names import class_names, escaped
from fedsup_deploy.data.pixel_cache import PixelCache
from fedsup_deploy.errors import DataError
from fedsup_deploy.ondevice.preprocessing import USUAL_PIXELS
from fedsup_deploy.ondevice.source_resize import SourceResize, resized


class FoundFiles:
    """Many files below one folder as they were at first, in a tenth of the memory of as many `Path`s.

    Args:
        folder: Above all of them.
        paths: Below it; their order stays.

    Raises:
        DataError: One cannot be found.
    """

    def __init__(self, folder: Path, paths: Sequence[str]) -> None:
        self._folder = folder
        names = [os.fsencode(path) for path in paths]
        self._names = np.frombuffer(b"".join(names), dtype=np.uint8)
        self._ends = np.cumsum([len(name) for name in names], dtype=np.int64)
        self._states = np.empty((len(names), 2), dtype=np.int64)
        for index in range(len(names)):
            self._states[index] = _state_of(self[index])

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> Path:
        begin = self._ends[index - 1] if index else 0
        return self._folder / os.fsdecode(self._names[begin : self._ends[index]].tobytes())

    def unchanged(self, index: int) -> Path:
        """Return the path of a file that is still what it was: else images would be of two kinds in one run.

        Raises:
            DamagedFileError: It has changed, or is gone.
        """
        path = self[index]
        try:
            is_same = _state_of(path) == tuple(self._states[index])
        except DataError as error:
            raise DamagedFileError(str(error)) from error
        if not is_same:
            raise DamagedFileError(f"{escaped(path)}: has changed since the command began; start again")
        return path


def _state_of(path: Path) -> tuple[int, int]:
    """Return the size of a file and when it was last modified, in nanoseconds."""
    try:
        status = path.stat()
    except OSError as error:
        raise source.unreadable(path, error) from error
    return status.st_size, status.st_mtime_ns


@dataclass(frozen=True, eq=False)
class Decoder:
    """Makes pixels of files; the images of all parts of a data set have one.

    Args:
        files: The files.
        image_shape: Height, width and channels of what is made of each.
        resize: What makes squares of images of any size; None where all have that height and width.
        cache: Keeps what was decoded.
    """

    files: FoundFiles
    image_shape: tuple[int, int, int]
    resize: SourceResize | None
    cache: PixelCache

    def read_into(self, place_HWC: npt.NDArray[np.uint8], index: int) -> None:
        """Decode an image into its place, which is contiguous.

        Raises:
            DamagedFileError: Its file is damaged, gone, or no longer what it was.
        """
        if self.cache.get(index, place_HWC):
            return
        path = self.files.unchanged(index)
        try:
            pixels = read_image(path).pixels
        except DataError as error:
            raise DamagedFileError(str(error)) from error
        if self.resize is not None:
            pixels = resized(pixels, self.resize)
        height, width, channels = self.image_shape
        if pixels.shape[:2] != (height, width):
            raise other_size(path, pixels.shape[1], pixels.shape[0], width, height)
        assert channels == 3 or pixels.ndim == 2, "its header said grey"
        place_HWC[...] = pixels[..., np.newaxis] if pixels.ndim == 2 else pixels
        self.cache.put(index, place_HWC)


def other_size(path: Path, width: int, height: int, expected_width: int, expected_height: int) -> DamagedFileError:
    """Return the complaint about an image of another size than the first."""
    got, wanted = f"{width}x{height}", f"{expected_width}x{expected_height}"
    advice = "make all images one size, or set data.image_size"
    return DamagedFileError(f"{escaped(path)}: is {got} pixels, expected {wanted} as of the first; {advice}")


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Labelled images in files: `LabelledImages`.

    Args:
        name: The registered name of the data set.
        decoder: Makes their pixels.
        files_N: Which of its files they are.
        labels_N: Class of each image, int64, in [0, number of classes).
        classes: Names of the classes, in the order of the labels; kept in NFC.
    """

    name: str
    decoder: Decoder
    files_N: npt.NDArray[np.int64]
    labels_N: npt.NDArray[np.int64]
    classes: tuple[str, ...]

    #: Pixels come from files, each time they are asked for.
    is_held = False

    @classmethod
    def checked(
        cls, name: str, decoder: Decoder, first: int, labels_N: npt.NDArray[np.int64], classes: tuple[str, ...]
    ) -> "ImageFiles":
        """Return consecutive files of a decoder, from `first` on, as a part of a data set.

        Raises:
            DataError: A label has no class, or a class no usable name of its own.
        """
        files_N = np.arange(first, first + len(labels_N))
        check_labels(name, labels_N, len(files_N), len(classes))
        return cls(name, decoder, files_N, labels_N, class_names(classes, name))

    def __len__(self) -> int:
        return len(self.labels_N)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of each image."""
        return self.decoder.image_shape

    @property
    def pixel_dtype(self) -> str:
        """Type of the pixels."""
        return USUAL_PIXELS

    @property
    def images_NHWC(self) -> npt.NDArray[np.uint8]:  # noqa: N802  its axes
        """All pixels, decoded now.

        Raises:
            DamagedFileError: A file is damaged.
        """
        return self.pixels(np.arange(len(self)))

    def pixels(self, indices: npt.ArrayLike) -> npt.NDArray[np.uint8]:
        """Return the pixels of the images at `indices`, in that order, (N, H, W, C).

        Raises:
            DamagedFileError: A file is damaged.
        """
        chosen = self.files_N[np.asarray(indices, dtype=np.int64)]
        images_NHWC = np.empty((len(chosen), *self.image_shape), dtype=np.uint8)
        for place_HWC, index in zip(images_NHWC, chosen.tolist(), strict=True):
            self.decoder.read_into(place_HWC, index)
        return images_NHWC

    def take(self, indices: npt.ArrayLike) -> "ImageFiles":
        """Return the images at `indices`, in that order.

        Raises:
            DataError: `indices` is empty.
        """
        chosen = np.asarray(indices, dtype=np.int64)
        if not len(chosen):
            raise DataError(f"{self.name}: no images: got no indices, expected at least one")
        return replace(self, files_N=self.files_N[chosen], labels_N=self.labels_N[chosen])

    def fingerprint(self) -> str:
        """Return the hexadecimal SHA-256 of files, labels, class names, and of what decides what is decoded of files.

        Raises:
            DataError: A file cannot be read, or has changed.
        """
        resize, pillow = self.decoder.resize, metadata.version("pillow")
        header = {"shape": (len(self), *self.image_shape), "classes": self.classes, "resize": resize, "pillow": pillow}
        digest = hashlib.sha256(json.dumps(header).encode())
        for index in self.files_N.tolist():
            digest.update(hashlib.sha256(source.read_whole(self.decoder.files.unchanged(index))).digest())
        digest.update(np.ascontiguousarray(self.labels_N, dtype="<i8").data)
        return digest.hexdigest()
