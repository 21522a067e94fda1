"""Where a loader finds its files, and how it says that they are missing or damaged.

Owns the wording of those messages. Never reads an image.
"""

import contextlib
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from fedsup_deploy.errors import ConfigError, DataError


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
def reading(path: Path) -> Iterator[None]:
    """Turn what the standard library raises for an unreadable, cut or garbled file into a DataError naming it."""
    try:
        yield
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"cannot read {path}: {reason}; get the file again") from error
