"""Writing so that a reader never sees half a file, whenever the writer is killed.

Content is written beside its place, flushed to the disk and renamed. What a killed writer left behind carries
`.partial-` in its name, is never read, and is removed by the next writer of the same place.
"""

import contextlib
import ctypes
import errno
import glob
import hashlib
import json
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fedsup_deploy.errors import OutputError

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a path to write to; on success it becomes `path`, on any exception it is removed.

    Folders above `path` are made, and removed again if nothing came into them.

    Raises:
        OutputError: The folder cannot be made or written.
    """
    with _as_output_error(path):
        made = _make_folders_above(path)
        _remove_leftovers(path)
        partial = _partial(path)
        partial.touch()
    try:
        yield partial
        with _as_output_error(path):
            _sync(partial)
            partial.replace(path)
            _sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)
        _remove_empty(made)


@contextlib.contextmanager
def marked(path: Path, text: str) -> Iterator[None]:
    """Keep a file there while something is under way. What interrupts or kills it leaves the file; an error does not.

    Folders above `path` are made, and removed again if nothing came into them.

    Raises:
        OutputError: The file cannot be written.
    """
    with _as_output_error(path):
        made = _make_folders_above(path)
    write_text(path, text)
    try:
        yield
    except Exception:
        path.unlink(missing_ok=True)
        _remove_empty(made)
        raise
    path.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; on success it becomes `path` as a whole, replacing a folder that was there.

    Folders above `path` are made, and removed again if nothing came into them.

    Raises:
        OutputError: The folder cannot be made or written, or `path` is a file.
    """
    with _as_output_error(path):
        made = _make_folders_above(path)
        _remove_leftovers(path)
        partial = _partial(path)
        partial.mkdir()
    try:
        yield partial
        with _as_output_error(path):
            for entry in sorted(partial.rglob("*")):
                _sync(entry)
            _sync(partial)
            _swap_into_place(partial, path)
            _sync(path.parent)
    finally:
        _remove(partial)
        _remove_empty(made)


@contextlib.contextmanager
def only_one(path: Path, what: str) -> Iterator[None]:
    """Hold a place while something works there that must not run twice.

    Args:
        path: Of a lock file, which is removed at the end. One that a killed process left behind holds nothing.
        what: What must not run twice, for the message.

    Raises:
        OutputError: It runs already, or the file cannot be made.
    """
    import fcntl  # POSIX only, like the systems that devices run

    with _as_output_error(path):
        made = _make_folders_above(path)
        file = path.open("w", encoding="utf-8")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(f"{what} is running already; wait for it, or stop it first") from error
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            _remove_empty(made)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file atomically."""
    with atomic_file(path) as partial, _as_output_error(path):
        partial.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write a whole UTF-8 text file atomically."""
    write_bytes(path, content.encode())


def write_json(path: Path, document: Any) -> None:
    """Write a JSON document atomically: two spaces, a final newline, no NaN."""
    write_text(path, json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if sys.version_info >= (3, 11) else _sha256(file.read())


def sha256_of(document: Any) -> str:
    """Return the hexadecimal SHA-256 of a JSON document, whatever the order of its keys."""
    return _sha256(json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode())


def check_writable(folder: Path) -> None:
    """Fail now, rather than after the work, when nothing can be written below `folder`.

    Side effects: None that last: a missing folder is made to see whether it can be, and removed again.

    Raises:
        OutputError: It cannot be created, is not a folder, or is read-only.
    """
    with _as_output_error(folder):
        made = _make_folders_above(folder / "probe")
        try:
            _remove_leftovers(folder / "probe")
            probe = _partial(folder / "probe")
            probe.touch()
            probe.unlink()
        finally:
            _remove_empty(made)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial-{secrets.token_hex(4)}")


def _make_folders_above(path: Path) -> list[Path]:
    """Make the folders a path needs. Returns those that were missing, innermost first."""
    missing = [folder for folder in path.parents if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    return missing


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _remove_leftovers(path: Path) -> None:
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.partial-*"):
        _remove(leftover)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _swap_into_place(partial: Path, path: Path) -> None:
    """Rename a folder over another in one step. The old one is then at `partial`, for the caller to remove."""
    if not path.exists():
        partial.rename(path)
    elif not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "a file is there, expected a folder or nothing", str(path))
    elif sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        arguments = (_AT_FDCWD, os.fsencode(partial), _AT_FDCWD, os.fsencode(path), _RENAME_EXCHANGE)
        if libc.renameat2(*arguments) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(path))
    else:
        # No exchange of two folders in the standard library here: the old one steps aside for a moment.
        aside = _partial(path)
        path.rename(aside)
        partial.rename(path)
        _remove(aside)


@contextlib.contextmanager
def _as_output_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = "the disk is full" if error.errno == errno.ENOSPC else (error.strerror or str(error)).lower()
        raise OutputError(f"cannot write {path}: {reason}; choose another place with --out") from error
