"""Locks between processes: at most one holds a place, whatever the file system can do and whoever is killed.

Where the file system has them it is a lock of the kernel (flock) on a file beside the place, and the kernel gives it
back when its holder dies. Where it has none, it is a symbolic link beside the place: only one process can make it, and
it is there together with its text, which names the holder. What a dead process of this machine left is taken over;
what one of another machine left stays until somebody removes it.

Owns the names of these files and what they say. Never waits, and makes no folder: see `places`.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import re
import secrets
import shlex
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, cast

from fedsup_deploy.ondevice.reading import parse_json

#: Endings of the names beside a place `x`: `.x.fedsup-lock` is locked by the kernel, `.x.fedsup-holder` is a link.
LOCK, LINK = "fedsup-lock", "fedsup-holder"
_MAX_COMMAND: Final = 100

Release = Callable[[], None]


@dataclasses.dataclass(frozen=True)
class Holder:
    """The process that holds a lock, as the lock's file has it.

    Args:
        host: Name of its machine.
        machine: Hash of where its number means something: host, machine id and, in a container, the container.
        pid: Its number.
        started: When it started: no other process that ever had this number started then.
        command: Its command line, cut.
        token: Of this one lock; eight hexadecimal digits.
    """

    host: str
    machine: str
    pid: int
    started: str
    command: str
    token: str

    @classmethod
    def here(cls) -> "Holder":
        """Return this process, with a new token."""
        command = shlex.join([Path(sys.argv[0]).name or "python", *sys.argv[1:]])
        command = command if len(command) <= _MAX_COMMAND else f"{command[:_MAX_COMMAND]}..."
        pid = os.getpid()
        return cls(socket.gethostname(), _machine(), pid, _started(pid), command, secrets.token_hex(4))

    @classmethod
    def parse(cls, text: str) -> "Holder | None":
        """Return the holder that a lock's file names; None if it names none."""
        try:
            document = cast("dict[str, Any]", parse_json(text))  # else a TypeError below
            holder = cls(**{field.name: document[field.name] for field in dataclasses.fields(cls)})
        except (ValueError, TypeError, KeyError):
            return None
        texts = (holder.host, holder.machine, holder.started, holder.command, holder.token)
        is_whole = all(isinstance(text, str) for text in texts) and type(holder.pid) is int
        # The token becomes part of a file's name, and numbers below 1 mean groups of processes.
        is_sane = is_whole and re.fullmatch("[0-9a-f]{8}", holder.token) is not None and 0 < holder.pid < 2**31
        return holder if is_sane else None

    def to_text(self) -> str:
        """Return what `parse` reads."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False)

    @property
    def is_of_this_machine(self) -> bool:
        """Whether its number means the same here."""
        return self.machine == _machine()

    @property
    def is_gone(self) -> bool:
        """Whether it is certain that it runs no more, which only its own machine can tell."""
        if not self.is_of_this_machine:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass  # it is somebody else's, and runs
        return _started(self.pid) not in ("", self.started)

    def __str__(self) -> str:
        text = f"process {self.pid} on {self.host} ({self.command})"
        return "".join(character if character.isprintable() else "?" for character in text)


class Busy(Exception):  # noqa: N818  it is no mistake of anybody
    """Somebody else has the lock.

    Args:
        holder: Who; None if that cannot be read.
        link: The link that says so, where the kernel does not; it may be that of a dead process of another machine.
    """

    def __init__(self, holder: Holder | None, link: Path | None = None) -> None:
        super().__init__(holder, link)
        self.holder, self.link = holder, link


def acquire(place: Path) -> Release:
    """Take the lock of a place.

    Args:
        place: A file or folder, without symbolic links in it; it need not exist, but its folder must.

    Returns:
        What gives the lock back. It raises nothing.

    Raises:
        Busy: Another process or thread has it, or this one.
        OSError: Nothing can be written beside the place.

    Side effects: Makes a file or a link beside the place, which giving back removes.
    """
    file = _beside(place, LOCK)
    while (descriptor := _open_locked(file)) is not None:
        try:
            if _is_at(file, descriptor):
                _refuse_link(place)
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, os.fsencode(Holder.here().to_text()), 0)
                return functools.partial(_give_back, file, descriptor)
        except BaseException:
            _give_back(file, descriptor)
            raise
        # Its last holder removed it after it was opened here.
        os.close(descriptor)
    return _acquire_link(place)


def holder_of(place: Path) -> Holder | None:
    """Return who has the lock of a place now; None if nobody has, or it cannot be read."""
    import fcntl  # POSIX only, like the systems that devices run

    try:
        descriptor = os.open(_beside(place, LOCK), os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        holder = Holder.parse(_text_of(_beside(place, LINK)) or "")
        return None if holder is None or holder.is_gone else holder
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _named_in(descriptor)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return None


def _open_locked(file: Path) -> int | None:
    """Return a descriptor of the file, locked by the kernel; None where the file system has no such locks."""
    import fcntl  # POSIX only, like the systems that devices run

    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = _named_in(descriptor)
        os.close(descriptor)
        # A file that names a live process was locked by one that has such locks, though this one has none.
        if isinstance(error, BlockingIOError) or (holder is not None and not holder.is_gone):
            raise Busy(holder) from error
        file.unlink(missing_ok=True)
        return None
    return descriptor


def _give_back(file: Path, descriptor: int) -> None:
    with contextlib.suppress(OSError):
        # Removed while it is locked: whoever opened it before finds another file, or none, at its name.
        if _is_at(file, descriptor):
            file.unlink(missing_ok=True)
    os.close(descriptor)


def _is_at(file: Path, descriptor: int) -> bool:
    """Return whether an open file is still the one of that name."""
    try:
        return os.path.samestat(file.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _refuse_link(place: Path) -> None:
    """Fail if the link of a live process is there, which sees the file system without locks of the kernel."""
    if _dead_link(place) is not None:
        _beside(place, LINK).unlink(missing_ok=True)


def _acquire_link(place: Path) -> Release:
    link, mine = _beside(place, LINK), Holder.here().to_text()
    while True:
        try:
            link.symlink_to(mine)
        except FileExistsError:
            _remove_dead_link(place)
        else:
            return functools.partial(_remove_link, link, mine)


def _remove_dead_link(place: Path) -> None:
    """Remove the link of a dead process.

    Of all who see that it is dead only one may do so, or the second would remove the new link of the first. So each
    needs a lock of that dead link first, which is taken over in turn if its holder dies.

    Raises:
        Busy: It is not known to be dead, or somebody else is about to remove its link.
    """
    if (dead := _dead_link(place)) is None:
        return
    text, holder = dead
    release = _acquire_link(place.with_name(f"{place.name}.{holder.token}"))
    try:
        _remove_link(_beside(place, LINK), text)
    finally:
        release()


def _dead_link(place: Path) -> tuple[str, Holder] | None:
    """Return the text of the link of a dead process and what it names; None if there is no link.

    Raises:
        Busy: It is not known to be dead.
    """
    link = _beside(place, LINK)
    text = _text_of(link)
    if text is None:
        return None
    holder = Holder.parse(text)
    if holder is None or not holder.is_gone:
        raise Busy(holder, link)
    return text, holder


def _remove_link(link: Path, text: str) -> None:
    with contextlib.suppress(OSError):
        if _text_of(link) == text:
            link.unlink(missing_ok=True)


def _text_of(link: Path) -> str | None:
    """Return the text of a link; None if there is none, nothing if it is something else."""
    try:
        return os.readlink(link)  # noqa: PTH115  as it stands: a path would lose doubled slashes
    except FileNotFoundError:
        return None
    except OSError:
        return ""


def _named_in(descriptor: int) -> Holder | None:
    return Holder.parse(os.fsdecode(os.pread(descriptor, 4096, 0)))


def _beside(place: Path, ending: str) -> Path:
    return place.with_name(f".{place.name}.{ending}")


def _machine() -> str:
    known: list[object] = [socket.gethostname()]
    with contextlib.suppress(OSError):
        known.append(Path("/etc/machine-id").read_text(encoding="ascii", errors="replace").strip())
    with contextlib.suppress(OSError):
        known.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()[:12]


def _started(pid: int) -> str:
    """Return when a process started, in ticks of a boot, `ended` if it did end, nothing where that is not known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        # After the name, which may hold anything: the state is the third field of the line, the start the 22nd.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "ended" if fields[0] in "ZX" else f"{boot} {fields[19]}"
