"""Copying a bundle from a folder or an archive into a folder, and linking what is there already.

Believes nothing of an archive: only regular files are taken, at names below the bundle, of bounded number and size.
Whether they are the right ones is the business of whoever checks the copy.
"""

import contextlib
import os
import tarfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Callable, Dict, Iterator, List, Mapping, Set, Tuple, Type, Union

from fedsup_deploy.ondevice.bundle_files import (
    ALTERED,
    MANIFEST,
    MISSING,
    MOST_BYTES,
    MOST_BYTES_OF_A_FILE,
    MOST_FILES,
    MOST_LEVELS,
    SUMS,
    CheckError,
    hashes_of_sums,
    is_litter,
    list_files,
)
from fedsup_deploy.ondevice.printable import printable, reason_of

if TYPE_CHECKING:
    from fedsup_deploy.ondevice.install_records import Moved

#: Of a whole archive when it is unpacked.
MOST_BYTES_OF_ALL = 2**32
#: Of all headers of an archive that tell more of a file, such as a long name: tarfile reads each of them whole.
_MOST_BYTES_OF_HEADERS = MOST_BYTES
_HEADERS = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.XGLTYPE,
)
#: Behind the last file of an archive, which tar fills up with zeros.
_MOST_BYTES_BEHIND = 2**20
#: Returns the content of a file by its name.
_Open = Callable[[str], IO[bytes]]


def copy_bundle(source: Path, folder: Path, have: Mapping[str, Path]) -> "Moved":
    """Copy a bundle. What is at hand with the hash that its SHA256SUMS lists is linked and not copied.

    Args:
        source: A folder, or an archive that tar writes, compressed or not.
        folder: An empty folder on the disk of what is at hand.
        have: Files by their SHA-256, which was computed.

    Raises:
        CheckError: It is no bundle, or holds something else than a bundle can.
        OSError: The folder cannot be written.

    Side effects: Fills the folder; everything in it is on the disk when this returns.
    """
    with _files_of(source) as (sizes, open_file):
        if MANIFEST not in sizes:
            raise CheckError(MISSING, f"{MANIFEST} is missing; expected a bundle, or an archive of one")
        listed = _listed(sizes, open_file)
        moved = {"copied_files": 0, "copied_bytes": 0, "linked_files": 0, "linked_bytes": 0}  # type: Moved
        for name in sorted(sizes):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            known = have.get(listed.get(name, ""))
            if known is not None and _link(known, folder / name):
                moved["linked_files"] += 1
                moved["linked_bytes"] += known.stat().st_size
            else:
                moved["copied_files"] += 1
                moved["copied_bytes"] += _copy(name, open_file, folder / name)
    for path in [*folder.rglob("*"), folder]:
        if path.is_dir():
            sync(path)
    return moved


def sync(path: Path) -> None:
    """Wait until a file, or what a folder lists, is on the disk."""
    descriptor = os.open(str(path), os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _listed(sizes: Mapping[str, int], open_file: _Open) -> Dict[str, str]:
    """Return the hashes that SHA256SUMS lists, by name; none where it is none: whoever checks the copy says so."""
    if sizes.get(SUMS, MOST_BYTES + 1) > MOST_BYTES:
        return {}
    with _reading(SUMS), open_file(SUMS) as file:
        content = file.read(MOST_BYTES)
    try:
        return hashes_of_sums(content)
    except CheckError:
        return {}


def _link(known: Path, place: Path) -> bool:
    """Return whether a file could be linked: some file systems know no links, or no more of them."""
    try:
        os.link(str(known), str(place))
    except OSError:
        return False
    return True


def _copy(name: str, open_file: _Open, place: Path) -> int:
    """Copy a file to the disk and return its size."""
    num_bytes = 0
    with contextlib.ExitStack() as stack:
        with _reading(name):
            source = stack.enter_context(open_file(name))
        target = stack.enter_context(place.open("xb"))
        while True:
            with _reading(name):
                chunk = source.read(2**20)
            num_bytes += len(chunk)
            if num_bytes > MOST_BYTES_OF_A_FILE:
                raise CheckError(ALTERED, f"{printable(name)} has more than {MOST_BYTES_OF_A_FILE:,} bytes")
            if not chunk:
                break
            target.write(chunk)
        target.flush()
        os.fsync(target.fileno())
    return num_bytes


@contextlib.contextmanager
def _reading(name: str) -> Iterator[None]:
    """Turn what goes wrong in reading a source into a check that did not pass; in writing it is an OSError.

    `tarfile` and each library below it raise what they like for what is damaged, and not every Python has all of them.
    """
    try:
        yield
    except CheckError:
        raise
    except Exception as error:  # noqa: BLE001
        raise CheckError(ALTERED, f"{printable(name)} cannot be read: {reason_of(error)}; copy it again") from None


@contextlib.contextmanager
def _files_of(source: Path) -> Iterator[Tuple[Dict[str, int], _Open]]:
    """Yield the sizes of the files of a source by name, and what opens one.

    Raises:
        CheckError: It is neither a folder nor an archive, or holds what no bundle holds.
    """
    if source.is_dir():
        with _reading(source.name):
            sizes = list_files(source)
        yield sizes, lambda name: (source / name).open("rb")
        return
    with contextlib.ExitStack() as stack:
        with _reading(source.name):
            archive = stack.enter_context(tarfile.open(str(source), "r:*", tarinfo=_bounded_members()))
            members = _members_of(archive)
            _read_to_the_end(archive)
        yield {name: each.size for name, each in members.items()}, lambda name: _opened(archive, members[name])


def _bounded_members() -> Type[tarfile.TarInfo]:
    """Return what reads the members of one archive, in bounded memory."""
    left = [_MOST_BYTES_OF_HEADERS]

    class Member(tarfile.TarInfo):
        @classmethod
        def frombuf(cls, buf: Union[bytes, bytearray], encoding: str, errors: str) -> "Member":
            member = super().frombuf(buf, encoding, errors)  # type: Member
            if member.size < 0 or member.type == tarfile.GNUTYPE_SPARSE:  # the list of its parts may have no end
                raise _no_file_of_a_bundle(member)
            if member.type in _HEADERS:
                # What is told of all files that follow is copied for each of them.
                left[0] -= member.size * (2 * MOST_FILES if member.type == tarfile.XGLTYPE else 1)
            if left[0] < 0:
                raise CheckError(ALTERED, "the archive tells more of its files than any bundle has")
            return member

        def _proc_gnusparse_10(self, member: tarfile.TarInfo, *_: Any) -> None:
            """Refuse the one kind of sparse file whose list of parts stands in its content, and may have no end."""
            raise _no_file_of_a_bundle(member)

    return Member


def _no_file_of_a_bundle(member: tarfile.TarInfo) -> CheckError:
    return CheckError(ALTERED, f"{printable(member.name)} in the archive is no file of a bundle")


def _read_to_the_end(archive: tarfile.TarFile) -> None:
    """Read what is behind the last file: only there a compressed archive tells whether it is as it was written."""
    if archive.fileobj is not None and len(archive.fileobj.read(_MOST_BYTES_BEHIND + 1)) > _MOST_BYTES_BEHIND:
        raise CheckError(ALTERED, "the archive holds more than any bundle")


def _opened(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    file = archive.extractfile(member)
    if file is None:
        raise ValueError("it is no regular file")
    return file


def _members_of(archive: tarfile.TarFile) -> Dict[str, tarfile.TarInfo]:
    """Return the files of an archive by their names below the bundle's folder, which is where the manifest lies."""
    found = {}  # type: Dict[str, tarfile.TarInfo]
    folders: Set[str] = set()
    num_bytes = 0
    for number, member in enumerate(archive):
        parts = _parts_of(member.name)
        num_bytes += abs(member.size)
        if number > 2 * MOST_FILES or num_bytes > MOST_BYTES_OF_ALL:
            raise CheckError(ALTERED, "the archive holds more than any bundle")
        if member.isdir() or (parts and is_litter(parts[-1])):
            continue
        name = "/".join(parts)
        is_file = bool(parts) and member.isreg() and not member.issparse()
        if not is_file or not 0 <= member.size <= MOST_BYTES_OF_A_FILE:
            raise _no_file_of_a_bundle(member)
        if name in found:
            raise CheckError(ALTERED, f"{printable(name)} is in the archive twice")
        found[name] = member
        folders.update("/".join(parts[:depth]) for depth in range(1, len(parts)))
    both = sorted(folders.intersection(found))
    if both:
        raise CheckError(ALTERED, f"{printable(both[0])} is in the archive as a file and as a folder")
    tops = [name[: -len(MANIFEST)] for name in found if name.rpartition("/")[2] == MANIFEST]
    top = min(tops, key=len, default="")
    strangers = sorted(name for name in found if not name.startswith(top))
    if strangers:
        raise CheckError(ALTERED, f"{printable(strangers[0])} in the archive is of no bundle")
    return {name[len(top) :]: member for name, member in found.items()}


def _parts_of(name: str) -> List[str]:
    """Return the parts of a name in an archive. Raises CheckError where it would lead anywhere but below a folder."""
    parts = [part for part in name.split("/") if part != "."]
    is_below = not name.startswith("/") and ".." not in parts and "" not in parts[:-1] and "\0" not in name
    if not is_below or len(parts) > MOST_LEVELS + 2 or any(len(os.fsencode(part)) > 255 for part in parts):
        raise CheckError(ALTERED, f"{printable(name)} in the archive is no name of a file of a bundle")
    return [part for part in parts if part]
