"""Image files of a data set, by their paths. What an image looks like is decided in `ondevice/image_file.py`.

So a device that classifies files decodes them as training did. Needs Pillow (extra `images`).
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from fedsup_deploy.data import source
from fedsup_deploy.data.names import escaped
from fedsup_deploy.errors import DataError
from fedsup_deploy.ondevice.image_file import ImageError, ImageHeader, ShownImage, header_of, shown_image


def read_header(path: Path) -> ImageHeader:
    """Read what a file says of its pixels.

    Raises:
        DataError: It is no regular file, no image, or none that can be shown in 8 bits a channel.
    """
    with _opened(path) as file:
        return header_of(file, escaped(path))


def read_image(path: Path) -> ShownImage:
    """Decode a file whose header was found good.

    Raises:
        DataError: It is damaged.
    """
    with _opened(path) as file:
        return shown_image(file, escaped(path))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        with source.opened(path, source.MAX_FILE_BYTES) as file:
            yield file
    except ImageError as error:
        raise DataError(str(error)) from error
