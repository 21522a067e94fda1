"""The folder that bundles are installed to: which are there, which one runs, which one ran before.

    current -> releases/000002-v7       what runs: one link, which is changed in one step
    releases/000001-v6, 000002-v7       bundles, in the order they were installed
    releases/000003-v8-withdrawn        one that was gone back from; its version is remembered
    key.pem                             the key that bundles have to be signed with, if one was ever given

All that is known stands in these names, so no kill can part one fact from another: a release above the current one was
gone back from, or was never switched to. What is unfinished has a name that begins with a dot, and is removed by the
next who holds the lock. The kernel gives the lock back when its holder dies.
"""

import contextlib
import os
import re
import shutil
from pathlib import Path
from typing import IO, Iterator, List, NamedTuple, Optional

from fedsup_deploy.ondevice.bundle_files import USAGE, CheckError
from fedsup_deploy.ondevice.unpacking import sync

#: Exit code of `install.py`: it cannot be written there, or another installation is at work.
UNWRITABLE = 10

CURRENT = "current"
KEY = "key.pem"
_RELEASES = "releases"
_LOCK = ".lock"
#: What is being written, what is about to be the link, what is being removed.
_PARTIAL, _NEW_LINK, _NEW_KEY, _REMOVED = ".partial", ".current", ".key.pem", ".removed"
_NAME = re.compile(r"(\d{6})(?:-v(\d{1,16}))?(-withdrawn)?\Z")
_WITHDRAWN = "-withdrawn"


class Release(NamedTuple):
    """A bundle that was installed."""

    number: int
    """In the order they were installed, from 1."""
    version: Optional[int]
    """What its signature said; None where none was checked."""
    is_withdrawn: bool
    """Whether it was gone back from."""

    @property
    def name(self) -> str:
        """Return the name of its folder."""
        version = "" if self.version is None else f"-v{self.version}"
        return f"{self.number:06}{version}{_WITHDRAWN if self.is_withdrawn else ''}"


class Place:
    """The folder, while this process alone changes it.

    Args:
        folder: Where it is.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def partial(self) -> Path:
        """Return where the next release is made."""
        return self.folder / _PARTIAL

    def path_of(self, release: Release) -> Path:
        """Return the folder of a release."""
        return self.folder / _RELEASES / release.name

    def releases(self) -> List[Release]:
        """Return what was installed and is still there, the oldest first."""
        names = (_NAME.match(path.name) for path in (self.folder / _RELEASES).iterdir())
        return sorted(_release_of(*found.groups()) for found in names if found is not None)

    def current(self) -> Optional[Release]:
        """Return what runs; None where nothing does yet.

        Raises:
            CheckError: The link is none of ours, or leads nowhere.
        """
        link = self.folder / CURRENT
        if not os.path.lexists(str(link)):
            return None
        target, releases = (Path(os.path.realpath(str(path))) for path in (link, self.folder / _RELEASES))
        found = _NAME.match(target.name) if target.parent == releases and target.is_dir() else None
        if found is None:
            raise CheckError(USAGE, f"{CURRENT} is no link to a release; move it away, or install to another folder")
        return _release_of(*found.groups())

    def before(self, current: Optional[Release]) -> List[Release]:
        """Return what can be gone back to, the last one first."""
        older = [each for each in self.releases() if current is not None and each.number < current.number]
        return [each for each in reversed(older) if not each.is_withdrawn]

    def newest_version(self) -> Optional[int]:
        """Return the highest version that was ever installed, what was gone back from included."""
        return max((each.version for each in self.releases() if each.version is not None), default=None)

    def add(self, version: Optional[int]) -> Release:
        """Make a release of what lies at `partial`, and let it run. Returns it.

        Side effects: What was gone back from before is called so.
        """
        current = self.current()
        releases = self.releases()
        for each in releases:
            if (current is None or each.number > current.number) and not each.is_withdrawn:
                self.path_of(each).rename(self.path_of(each._replace(is_withdrawn=True)))
        new = Release(max((each.number for each in releases), default=0) + 1, version, is_withdrawn=False)
        self.partial.rename(self.path_of(new))
        sync(self.folder / _RELEASES)
        self.switch_to(new)
        return new

    def switch_to(self, release: Release) -> None:
        """Let a release run, in one step."""
        link = self.folder / _NEW_LINK
        _remove(link)
        link.symlink_to(Path(_RELEASES, release.name))
        sync(self.folder)
        link.replace(self.folder / CURRENT)
        with contextlib.suppress(OSError):  # it runs; after a power cut it or the one before does, and either is whole
            sync(self.folder)

    def keep_key(self, pem: bytes) -> None:
        """Demand from now on that bundles are signed with a key, in one step."""
        path = self.folder / _NEW_KEY
        with path.open("wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        path.replace(self.folder / KEY)
        sync(self.folder)

    def remove_old(self, current: Release, num_previous: int) -> None:
        """Remove all but the current release and so many before it; a version that was gone back from is outdone."""
        kept = {current, *self.before(current)[:num_previous]}
        for release in self.releases():
            if release not in kept and release.number < current.number:
                self.path_of(release).rename(self.folder / _REMOVED)
                _remove(self.folder / _REMOVED)

    def tidy(self) -> None:
        """Remove what a killed installation left unfinished."""
        for name in (_PARTIAL, _NEW_LINK, _NEW_KEY, _REMOVED):
            _remove(self.folder / name)


@contextlib.contextmanager
def held(folder: Path, *, is_new: bool) -> Iterator[Place]:
    """Yield the folder that bundles are installed to, which this process alone changes then.

    Args:
        folder: Where it is, or is to be.
        is_new: Whether it is made where it is not there.

    Raises:
        CheckError: Another installation is at work, the folder is not there, or something else is.
        OSError: It cannot be written.
    """
    if not is_new and not (folder / _RELEASES).is_dir():
        raise CheckError(USAGE, "nothing is installed there")
    folder.mkdir(parents=True, exist_ok=True)
    strangers = sorted({path.name for path in folder.iterdir() if not path.name.startswith(".")} - {CURRENT, KEY})
    if _RELEASES not in strangers and strangers:
        raise CheckError(
            USAGE, f"the folder holds {strangers[0]}, which is not of install.py; name an empty or a new one"
        )
    with (folder / _LOCK).open("ab") as file:
        _lock(file)
        place = Place(folder)
        place.tidy()
        (folder / _RELEASES).mkdir(exist_ok=True)
        try:
            yield place
        finally:
            with contextlib.suppress(OSError):  # what was done is done: the next one removes it
                place.tidy()


def _lock(file: IO[bytes]) -> None:
    try:
        import fcntl
    except ImportError:
        raise CheckError(USAGE, "install.py needs a system with links and locks, such as Linux") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise CheckError(UNWRITABLE, "another installation is at work there; wait for its end") from None


def _release_of(number: str, version: Optional[str], withdrawn: Optional[str]) -> Release:
    return Release(int(number), None if version is None else int(version), withdrawn is not None)


def _remove(path: Path) -> None:
    """Remove a file, link or folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(str(path))
    elif os.path.lexists(str(path)):
        path.unlink()
