"""Folders of image files, one folder per class: `root/train/<class>/*.png`, `root/test/<class>/*.png`.

Or one folder per client, where that is asked for: `root/<client>/<class>/*.png`, or that layout in each of them. Which
files there are is found in `image_tree`, what their headers say here. Their pixels are decoded later, where they are
needed: `image_files`. Needs Pillow (extra `images`).
"""

import collections
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from fedsup_deploy.config.partition import ClientList
from fedsup_deploy.data import source
from fedsup_deploy.data.dataset import DatasetSplits, Reading
from fedsup_deploy.data.image_file import read_header, read_image
from fedsup_deploy.data.image_files import Decoder, FoundFiles, ImageFiles, other_size
from fedsup_deploy.data.image_tree import tree_of_classes, tree_of_clients
from fedsup_deploy.data.names import escaped
from fedsup_deploy.data.owners import listed_owners, owners_of
from fedsup_deploy.data.pixel_cache import PixelCache
from fedsup_deploy.ondevice.image_file import ImageHeader
from fedsup_deploy.ondevice.source_resize import SourceResize, scale_of

_NAME = "image-folder"
#: Of an image that has so many pixels for one of the square, along one axis, the census says that it is much larger.
_MUCH: Final = 4


class _Census(NamedTuple):
    """What the headers of all files say.

    `counts` has how many images are of a kind, `damaged` those that are damaged beside their pixels: the first, how.
    """

    counts: Mapping[str, int]
    damaged: str | None


def load_image_folder(
    root: Path | None, reading: Reading | None = None, clients: ClientList | None = None
) -> DatasetSplits:
    """Find images in folders; grey if every file of all splits is stored as grey alone, RGB otherwise.

    Args:
        root: The folder of `train`, `test` and maybe `val` (or `valid`, or `validation`). Each holds one folder per
            class; classes are those of `train`, in alphabetical order. PNG, JPEG, WebP, BMP, GIF, TIFF and PPM files
            are read, as `image_file` says. Hidden files are passed over; other files, folders within those of classes
            and what lies beside the splits are passed over, too, and the notes of the data set say so.
        reading: What makes squares of images of any size; the notes say how many are enlarged or much larger. Without,
            all must have one size.
        clients: Without a list, `root` is the folder of one folder per client, each with one folder per class, or with
            any of `train`, `val` and `test`; classes are those of all clients' training images. With a list, that says
            whose images are whose.

    Raises:
        ConfigError: `root` is None.
        DataError: A folder is missing or empty, a file is no image or cannot be shown in 8 bits a channel, a name is
            not UTF-8, images that are not resized differ in size, or a class has no training images. Damage of pixels
            is found once they are decoded.
        DependencyError: Pillow is not installed.

    Side effects: Makes a temporary file, for decoded pixels.
    """
    reading = reading or Reading()
    by_client = clients is not None and clients.path is None
    layout = "<client>/<class>/ folders" if by_client else "train/<class>/ and test/<class>/ folders"
    folder = source.required_root(_NAME, root, f"{layout} of images")
    source.require_pillow(_NAME)
    listed = clients.path if clients is not None else None
    classes, found, names, notes = (
        tree_of_clients(folder, _NAME) if by_client else tree_of_classes(folder, _NAME, listed)
    )
    files = FoundFiles(folder, [name for split in found.values() for name in split.names])
    census = _look_at_headers(files, folder, reading.resize)
    is_grey = census.counts["grey"] == len(files)
    height, width = (reading.resize.size,) * 2 if reading.resize else read_image(files[0]).pixels.shape[:2]
    shape = (height, width, 1 if is_grey else 3)
    cache = PixelCache(len(files), height * width * shape[2], reading.cache_bytes)
    decoder = Decoder(files, shape, reading.resize, cache)
    made, first = {}, 0
    for split, images in found.items():
        made[split] = ImageFiles.checked(_NAME, decoder, first, images.labels_N, classes)
        first += len(images.names)
    notes += _notes_of(census, len(files), reading.resize)
    owners = None
    if listed is not None:
        owners, of_list = listed_owners(_NAME, listed, {split: _as_listed(each.names) for split, each in found.items()})
        notes += of_list
    elif by_client:
        owners = owners_of(_NAME, {split: each.clients for split, each in found.items()}, names)
    return DatasetSplits(made["train"], made.get("test"), made.get("validation"), tuple(notes), owners)


def _as_listed(names: Sequence[str]) -> list[str]:
    """Return where files lie as a list of clients says it, whatever the locale."""
    return [os.fsencode(name).decode("utf-8") for name in names]


def _look_at_headers(files: FoundFiles, folder: Path, resize: SourceResize | None) -> _Census:
    """Return what the files say of their pixels, of which none is decoded.

    Raises:
        DataError: An image cannot be shown, or differs in size from the first and is not resized.
    """
    counts: collections.Counter[str] = collections.Counter()
    damaged = None
    first = read_header(files[0])
    for index in range(len(files)):
        path = files[index]
        header = read_header(path)
        # One that lies on its side is turned when it is decoded.
        if resize is None and sorted((header.width, header.height)) != sorted((first.width, first.height)):
            raise other_size(path, header.width, header.height, first.width, first.height)
        counts.update(_kinds(header, resize))
        if header.complaint is not None and damaged is None:
            damaged = f"{escaped(path.relative_to(folder))}: {header.complaint}"
    return _Census(counts, damaged)


def _kinds(header: ImageHeader, resize: SourceResize | None) -> Iterator[str]:
    """Yield what is remarkable about an image, in words of the census."""
    if resize is not None:
        fewest, most = scale_of(header.width, header.height, resize)
        if fewest < 1:
            yield "enlarged"
        elif most > _MUCH:
            yield "much larger"
    if header.is_grey:
        yield "grey"
    if header.is_turned:
        yield "turned"
    if header.is_transparent:
        yield "transparent"
    if header.complaint is not None:
        yield "damaged"


def _notes_of(census: _Census, num_images: int, resize: SourceResize | None) -> Iterator[str]:
    counts = census.counts
    if census.damaged is not None:
        yield f"images that are damaged beside their pixels: {counts['damaged']} ({census.damaged})"
    if resize is not None:
        told = (
            f"smaller and so enlarged {counts['enlarged']:,}",
            f"more than {_MUCH} times larger {counts['much larger']:,}",
            f"set upright {counts['turned']:,}",
            f"grey {counts['grey']:,}",
            f"with transparency, on white now {counts['transparent']:,}",
        )
        yield f"{num_images:,} images made {resize.size}x{resize.size} pixels ({resize.how}): {', '.join(told)}"
