"""Folders of image files, one folder per class: `root/train/<class>/*.png`, `root/test/<class>/*.png`.

Needs Pillow (extra `images`). Never resizes: all images must have one size.
"""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from fedsup_deploy.data import source
from fedsup_deploy.data.dataset import DatasetSplits, ImageDataset
from fedsup_deploy.errors import DataError, DependencyError

if TYPE_CHECKING:
    import PIL.Image

_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
_GREY = "L"
# Modes whose conversion to 8 bits a channel keeps what is seen; 16-bit and float pixels would be clipped.
_CONVERTIBLE = ("1", "CMYK", "L", "LA", "P", "PA", "RGB", "RGBA", "YCbCr")


class _Labelled(NamedTuple):
    path: Path
    label: int


def load_image_folder(root: Path | None) -> DatasetSplits:
    """Load images from folders; grey if every file of both splits is grey, RGB otherwise. Transparency is dropped.

    Args:
        root: The folder of `train` and `test`. Each holds one folder per class; classes are those of `train`, in
            alphabetical order. PNG, JPEG, WebP and BMP files are read; hidden files and others are passed over.

    Raises:
        ConfigError: `root` is None.
        DataError: A folder is missing or empty, a file is damaged, the images differ in size, or a test class has
            no training images.
        DependencyError: Pillow is not installed.
    """
    folder = source.required_root("image-folder", root, "train/<class>/ and test/<class>/ folders of images")
    _require_pillow()
    missing = [name for name in ("train", "test") if not (folder / name).is_dir()]
    if missing:
        place = str(folder) if folder.is_dir() else f"{folder} (no such folder)"
        raise DataError(f"image-folder: missing {' and '.join(missing)} - looked in {place} - set data.root")
    classes = tuple(path.name for path in _subfolders(folder / "train"))
    found = [_find_images(folder / name, classes) for name in ("train", "test")]
    first = found[0][0].path
    size = _size(first)
    pixels = [[_decode(path, first, size) for path, _ in split] for split in found]
    is_grey = all(image.ndim == 2 for split in pixels for image in split)
    train, test = (
        ImageDataset(
            "image-folder", _stack(images, is_grey), np.array([label for _, label in split], dtype=np.int64), classes
        )
        for split, images in zip(found, pixels, strict=True)
    )
    return DatasetSplits(train, test)


def _require_pillow() -> None:
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        message = "image-folder needs Pillow, which is not installed; run: pip install 'fedsup-deploy[images]'"
        raise DependencyError(message) from error


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _find_images(folder: Path, classes: tuple[str, ...]) -> list[_Labelled]:
    unknown = [path.name for path in _subfolders(folder) if path.name not in classes]
    if unknown:
        raise DataError(f"{folder}: class {unknown[0]!r} has no folder in train; add it there or remove it here")
    found = [
        _Labelled(path, label)
        for label, name in enumerate(classes)
        if (folder / name).is_dir()
        for path in sorted((folder / name).iterdir())
        if path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")
    ]
    if not found:
        raise DataError(f"{folder}: no images, expected <class>/*{' or *'.join(_SUFFIXES)}; set data.root")
    return found


@contextlib.contextmanager
def _opened(path: Path) -> Iterator["PIL.Image.Image"]:
    import PIL.Image

    try:
        with source.reading(path), warnings.catch_warnings():
            # A file that claims more than 90 million pixels: Pillow only warns, and would then decode it.
            warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
            with PIL.Image.open(path) as image:
                yield image
    # Pillow's decoders let the last two through for some damaged files.
    except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning, SyntaxError, ValueError) as error:
        raise DataError(f"cannot read {path}: {error}; get the file again") from error


def _size(path: Path) -> tuple[int, int]:
    with _opened(path) as image:
        return image.size


def _decode(path: Path, first: Path, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Return (H, W) of a grey file and (H, W, 3) of any other. The size is checked before anything is decoded."""
    with _opened(path) as image:
        if image.size != size:
            got, expected = (f"{width}x{height}" for width, height in (image.size, size))
            raise DataError(f"{path}: is {got} pixels, expected {expected} as {first.name}; make all images one size")
        if image.mode not in _CONVERTIBLE:
            raise DataError(f"{path}: has pixels of mode {image.mode}, expected 8 bits a channel; convert it")
        if image.mode == _GREY:
            return np.asarray(image)
        # By way of RGBA, as Pillow warns about a transparent palette otherwise.
        return np.asarray((image.convert("RGBA") if image.mode == "P" else image).convert("RGB"))


def _stack(images: list[npt.NDArray[np.uint8]], is_grey: bool) -> npt.NDArray[np.uint8]:
    if is_grey:
        return np.stack(images)[..., np.newaxis]
    return np.stack([np.repeat(image[..., np.newaxis], 3, axis=2) if image.ndim == 2 else image for image in images])
