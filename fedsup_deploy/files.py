"""Writing so that a reader never sees half a file, whenever the writer is killed.

Content is written beside its place, flushed to the disk and renamed. What a killed writer left behind carries
`.partial-` in its name, is never read, and is removed by the next who writes in the same folder.

A symbolic link at the place stays: what it leads to is replaced, or made where it leads to nothing.
"""

import contextlib
import ctypes
import errno
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from fedsup_deploy import places
from fedsup_deploy.errors import OutputError, as_output_error

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
#: What file systems say of a system call they do not know.
_NOT_SUPPORTED = {errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP}


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a path to write to; on success it becomes `path`, on any exception it is removed.

    Waits while another process writes it. Folders above `path` are made, and removed again if nothing came into them.

    Raises:
        OutputError: The folder cannot be made or written, or another process is at work on the file for long.
    """
    with places.hold(path, brief=True):
        with as_output_error(path):
            end = places.end_of_links(path)
        partial = places.partial_of(end)
        try:
            with as_output_error(path):
                partial.touch()
            yield partial
            with as_output_error(path):
                _sync(partial)
                partial.replace(end)
                _sync(end.parent)
        finally:
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def marked(path: Path, text: str) -> Iterator[None]:
    """Keep a file there while something is under way. What interrupts or kills it leaves the file; an error does not.

    Raises:
        OutputError: The file cannot be written.
    """
    write_text(path, text)
    try:
        yield
    except Exception:
        path.unlink(missing_ok=True)
        raise
    path.unlink(missing_ok=True)


@contextlib.contextmanager
def scratch_folder(place: Path) -> Iterator[Path]:
    """Yield an empty folder beside a place, for the work on it; it is removed at the end, or after a kill by the next.

    Raises:
        OutputError: The folder cannot be made, or another process is at work on the place for long.
    """
    with places.hold(place, brief=True):
        with as_output_error(place):
            folder = places.partial_of(places.end_of_links(place))
        try:  # from here on, for a signal may come as soon as the folder is made
            with as_output_error(place):
                folder.mkdir()
            yield folder
        finally:
            places.remove(folder)


@contextlib.contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; on success it becomes `path` as a whole, replacing a folder that was there.

    Waits while another process writes it. Folders above `path` are made, and removed again if nothing came into them.

    Raises:
        OutputError: The folder cannot be made or written, `path` is a file, or another process is at work on it for
            long.
    """
    with scratch_folder(path) as partial:
        yield partial
        with as_output_error(path):
            for entry in sorted(partial.rglob("*")):
                _sync(entry)
            _sync(partial)
            end = places.end_of_links(path)
            _swap_into_place(partial, end)
            _sync(end.parent)


@contextlib.contextmanager
def new_private_directory(path: Path) -> Iterator[Path]:
    """Yield an empty folder to fill, which its owner alone can enter; on success it becomes `path` as a whole.

    Raises:
        OutputError: Something is there already, which stays; or the folder cannot be made or written.
    """
    with places.hold(path, advice=places.CHOOSE_OUT):
        if path.exists() or path.is_symlink():
            raise OutputError(f"{path} is there already, and what it holds may be the only one; {places.CHOOSE_OUT}")
        with atomic_directory(path) as partial:
            partial.chmod(0o700)
            yield partial


def write_secret(path: Path, content: bytes) -> None:
    """Write a new file in a folder that is being filled; nobody but its owner can read it at any moment.

    Raises:
        OutputError: It is there already, or cannot be written.
    """
    with as_output_error(path), os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def is_file(path: Path) -> bool:
    """Return whether a name that a user gave is that of a file; one that no file can have is not."""
    try:
        return path.is_file()
    except OSError:  # such as of 5,000 letters
        return False


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file atomically."""
    with atomic_file(path) as partial, as_output_error(path):
        partial.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write a whole UTF-8 text file atomically."""
    write_bytes(path, content.encode())


def write_json(path: Path, document: object) -> None:
    """Write a JSON document atomically: two spaces, a final newline, no NaN."""
    write_text(path, json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        if sys.version_info >= (3, 11):
            return hashlib.file_digest(file, "sha256").hexdigest()
        return sha256_of_bytes(file.read())


def sha256_of(document: object) -> str:
    """Return the hexadecimal SHA-256 of a JSON document, whatever the order of its keys."""
    return sha256_of_bytes(json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode())


def sha256_of_bytes(content: bytes) -> str:
    """Return the hexadecimal SHA-256 of what a file would hold."""
    return hashlib.sha256(content).hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems, mostly on other machines, cannot flush a folder.
        if not (error.errno in _NOT_SUPPORTED and path.is_dir()):
            raise
    finally:
        os.close(descriptor)


def _swap_into_place(partial: Path, path: Path) -> None:
    """Rename a folder over another in one step. The old one is then at `partial`, for the caller to remove."""
    if not path.exists():
        partial.rename(path)
    elif not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "a file is there, expected a folder or nothing", str(path))
    elif not _exchange(partial, path):
        # The old one steps aside for a moment.
        aside = places.partial_of(path)
        path.rename(aside)
        partial.rename(path)
        places.remove(aside)


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders change names in one step. Returns whether that can be done on this system and file system."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _NOT_SUPPORTED:
        return False
    raise OSError(code, os.strerror(code), str(other))
