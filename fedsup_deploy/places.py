"""Places that are written: held by one writer at a time, in folders made for them, without what killed writers left.

A place is a file or folder of ours. Whoever writes it holds it, so whatever unfinished lies beside a place that nobody
holds is a killed writer's, and is removed by the next who holds any place in that folder. Never writes a place itself:
see `files`. Owns as well how a user names one: `~` is a home folder everywhere.
"""

import contextlib
import contextvars
import errno
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from fedsup_deploy import locks
from fedsup_deploy.errors import OutputError, as_output_error

#: What a command can say that lets its user choose the place.
CHOOSE_OUT: Final = "choose another --out"

#: What the system says of a place that cannot be written, and was not meant to be.
_READ_ONLY: Final = {errno.EROFS, errno.EACCES, errno.EPERM}

#: How long to try: others may hold the place for an instant, to write it or to see whether somebody else does.
_INSTANT_S: Final = 1.0
#: How long brief work waits for other brief work on a busy disk.
_TURN_S: Final = 60.0
_POLL_S: Final = 0.01
_OURS: Final = re.compile(rf"\.(?P<place>.+)\.(?:(?P<partial>partial-[0-9a-f]{{8}})|{locks.LOCK}|{locks.LINK})")
#: Stands for a folder in the names of the locks inside it.
_INSIDE: Final = "this-folder"
#: What the running function and those that called it hold. Another thread starts with nothing, and is another writer.
_held: contextvars.ContextVar[frozenset[Path]] = contextvars.ContextVar("held", default=frozenset())


@contextlib.contextmanager
def hold(place: Path, *, inside: bool = False, brief: bool = False, advice: str | None = None) -> Iterator[None]:
    """Be the only one who writes a place. Who holds it already may hold it again.

    Folders above the place are made, and removed again if nothing came into them.

    Args:
        place: A file or folder, which need not exist.
        inside: The place is a folder that is filled step by step: it is made, and its lock is in it. Otherwise the lock
            is beside it, because the place is replaced as a whole.
        brief: The work takes moments, so it waits while another holds the place, up to a minute.
        advice: What else than wait a user can do.

    Raises:
        OutputError: Another process or thread holds the place, or nothing can be written there.

    Side effects: Removes what killed writers left in the folder of the lock.
    """
    with as_output_error(place, advice):
        end = end_of_links(place)
    target = end / _INSIDE if inside else end
    if target in _held.get():
        yield
        return
    with _taken(target, place, _TURN_S if brief else _INSTANT_S, advice):
        _held.set(_held.get() | {target})
        try:
            yield
        finally:
            _held.set(_held.get() - {target})


def writer_of(folder: Path) -> locks.Holder | None:
    """Return who holds a folder that is filled step by step; None if nobody does, or it cannot be told."""
    return locks.holder_of(_real(folder / _INSIDE))


def check_writable(folder: Path, advice: str | None = None) -> None:
    """Fail now, rather than after the work, when nothing can be written below a folder.

    Side effects: None that last: a missing folder is made to see whether it can be, and removed again.

    Raises:
        OutputError: It cannot be created, is not a folder, or is read-only.
    """
    with _taken(_real(folder / f"probe-{secrets.token_hex(4)}"), folder, _INSTANT_S, advice):
        pass


def read_only(folder: Path) -> str | None:
    """Return in the system's words why nothing may be written below a folder; None where it may.

    Raises:
        OutputError: Nothing can be written there for another reason, such as a full disk.

    Side effects: As of `check_writable`.
    """
    try:
        check_writable(folder)
    except OutputError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in _READ_ONLY:
            return os.strerror(error.__cause__.errno).lower()
        raise
    return None


def expanded(path: str) -> str:
    """Return a path as a user means it: `~` and `~user` at its start are home folders, as a shell has it.

    A shell does so for words of its own only, not in `--out=~/x`, quotes, YAML and Python.

    Raises:
        ValueError: There is no such home folder.
    """
    found = os.path.expanduser(path)  # noqa: PTH111  a path would lose what says that a name is one
    if found.startswith("~"):
        user = path.partition("/")[0]
        raise ValueError(f"got {path!r}, but there is no home folder {user}; a name that begins with ~ is written ./~")
    return found


def end_of_links(path: Path) -> Path:
    """Return where a path leads through all symbolic links; there need not be anything.

    Raises:
        OSError: They lead in a circle.
    """
    end = _real(path)
    if end.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    return end


def partial_of(place: Path) -> Path:
    """Return a new name beside a place, for what is to become it. Whoever uses it holds the place."""
    return place.with_name(f".{place.name}.partial-{secrets.token_hex(4)}")


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def clear(folder: Path) -> None:
    """Remove what is in a folder that is held, but for its lock."""
    for name in _content_of(folder):
        if not _is_lock(name):
            remove(folder / name)


def is_empty(folder: Path) -> bool:
    """Return whether there is nothing in a folder that is held, but for its lock."""
    return all(map(_is_lock, _content_of(folder)))


def _is_lock(name: str) -> bool:
    match = _OURS.fullmatch(name)
    return match is not None and match["partial"] is None


@contextlib.contextmanager
def _taken(target: Path, place: Path, wait_s: float, advice: str | None) -> Iterator[None]:
    made: list[Path] = []
    try:
        with as_output_error(place, advice):
            release = _acquire(target, place, made, wait_s, advice)
        try:
            _remove_leftovers(target)
            yield
        finally:
            release()
    finally:
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()


def _acquire(target: Path, place: Path, made: list[Path], wait_s: float, advice: str | None) -> locks.Release:
    """Take a place's lock as soon as it can be had. Adds the folders made for it to `made`, innermost first."""
    started = time.monotonic()
    while True:
        # Another writer may have made them, and remove them because it failed.
        made[:0] = [folder for folder in target.parents if not folder.exists()]
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            return locks.acquire(target)
        except FileNotFoundError:
            if time.monotonic() > started + _INSTANT_S:
                raise
        except locks.Busy as busy:
            if time.monotonic() > started + wait_s:
                raise OutputError(_refusal(place, busy, advice)) from busy
        time.sleep(_POLL_S)


def _refusal(place: Path, busy: locks.Busy, advice: str | None) -> str:
    who = "another process" if busy.holder is None else str(busy.holder)
    text = f"{place} is being written by {who}; wait for it or stop it"
    if busy.link is not None and (busy.holder is None or not busy.holder.is_of_this_machine):
        text += f", or remove {busy.link} if it runs no more"
    return text if advice is None else f"{text} - or {advice}"


def _remove_leftovers(target: Path) -> None:
    """Remove what killed writers left in the folder of a place whose lock was taken just now."""
    for name in _content_of(target.parent):
        match = _OURS.fullmatch(name)
        if match is None:
            continue
        owner = _real(target.with_name(match["place"]))
        if owner == target:
            release: locks.Release | None = None
        elif owner in _held.get():
            continue
        else:
            try:
                release = locks.acquire(owner)
            except (locks.Busy, OSError):
                continue
        if match["partial"] is not None:
            with contextlib.suppress(OSError):
                remove(target.parent / name)
        if release is not None:
            release()


def _content_of(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208  names, not paths
    except OSError:
        return []


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))
