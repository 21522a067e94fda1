"""Where a loader finds its files, how it opens them, and how it says that they are missing, damaged or too large.

Owns the wording of those messages, and the limits that hold for files of any format. Never reads an image.
"""

import contextlib
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from fedsup_deploy import memory
from fedsup_deploy.data.names import escaped
from fedsup_deploy.errors import ConfigError, DataError, DependencyError
from fedsup_deploy.ondevice.printable import reason_of
from fedsup_deploy.ondevice.reading import DEAD_LINK, is_dead_link

#: Of a file that may have to be held whole, and of what a compressed one unfolds to, bytes. The largest official file
#: of CIFAR has 0.15 GiB, and the largest set of the family of MNIST (EMNIST) 0.6 GiB.
MAX_FILE_BYTES: Final = 1 << 30
#: Of many names in a message these many are told.
_MAX_NAMED: Final = 5


def require_pillow(what: str) -> None:
    """Fail where images cannot be decoded or resized.

    Args:
        what: What needs it, for the message.

    Raises:
        DependencyError: Pillow is not installed.
    """
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        message = f"{what} needs Pillow, which is not installed; run: pip install 'fedsup-deploy[images]'"
        raise DependencyError(message) from error


def required_root(name: str, root: Path | None, holds: str) -> Path:
    """Return `root`.

    Args:
        name: The data set, for the message.
        root: What the user configured.
        holds: The files that the user should have there.

    Raises:
        ConfigError: `root` is None.
    """
    if root is None:
        raise ConfigError(f"{name} is not bundled: got no data.root, expected the place of {holds}; set data.root")
    return root


def locate(name: str, folder: Path, alternatives: Sequence[tuple[str, ...]]) -> list[Path]:
    """Return one existing file per tuple of alternative file names.

    Raises:
        DataError: For some tuple none of the files exists; the message lists all that are missing, and where.
    """
    found: list[Path] = []
    missing: list[str] = []
    for file_names in alternatives:
        existing = [folder / file_name for file_name in file_names if (folder / file_name).is_file()]
        found += existing[:1]
        if not existing:
            missing.append(" or ".join(file_names))
    if missing:
        place = str(folder) if folder.is_dir() else f"{folder} (no such folder)"
        raise DataError(f"{name}: missing {', '.join(missing)} - looked in {place} - put them there or set data.root")
    return found


@contextlib.contextmanager
def opened(path: Path, max_bytes: int | None = None) -> Iterator[BinaryIO]:
    """Open a regular file for reading, or what a link to one leads to.

    Args:
        path: The file.
        max_bytes: Its largest size; None where its reader has limits of its own.

    Raises:
        DataError: It is another thing (a pipe or a device may never end), too large, or unreadable, cut or garbled:
            what the standard library raises for that, here or in the block.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise DataError(f"cannot read {escaped(path)}: it is no regular file; remove it")
        with path.open("rb") as file:
            size_bytes = os.fstat(file.fileno()).st_size
            if max_bytes is not None and size_bytes > max_bytes:
                raise DataError(
                    f"{escaped(path)}: has {size_bytes:,} bytes, expected at most {max_bytes:,}; not this file"
                )
            yield file
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> DataError:
    """Return the complaint about a file that cannot be read."""
    reason = DEAD_LINK if is_dead_link(path) else f"{reason_of(error)}; get the file again"
    return DataError(f"cannot read {escaped(path)}: {reason}")


def read_whole(path: Path) -> bytes:
    """Return the content of a file.

    Raises:
        DataError: It is unreadable, or larger than `MAX_FILE_BYTES`.
    """
    with opened(path, MAX_FILE_BYTES) as file:
        return file.read(MAX_FILE_BYTES)


def counted(names: Sequence[str]) -> str:
    """Return how many names there are, and the first of them, escaped."""
    told = ", ".join(escaped(name) for name in names[:_MAX_NAMED])
    return f"{len(names)} ({told}{', ...' if len(names) > _MAX_NAMED else ''})" if names else "nothing"


def max_image_bytes() -> int:
    """Return how much memory the images of a data set may take, bytes: half of what there is.

    All of them are held, and there are two copies while they are divided among clients.
    """
    return memory.machine_bytes() // 2
