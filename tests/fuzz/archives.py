"""Damaged archives of a bundle: in what compresses them, in what lists their files, and in the files."""

import bz2
import gzip
import io
import lzma
import random
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType

from base import BUNDLE, DEVICE
from mutations import NASTY, damaged_bytes

from fedsup_deploy.ondevice import bundle_files

INSTALL_PY = "install.py"
Members = list[tuple[tarfile.TarInfo, bytes]]

_COMPRESSIONS = (bytes, gzip.compress, bz2.compress, lzma.compress)
_NAMES = ("../evil", "/tmp/evil", "bundle/../../evil", "", ".", "bundle", "bundle//x", "bundle/\x1b[2J", "b" * 300)
_TYPES = (
    *(tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE),
    *(tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE, tarfile.AREGTYPE, b"?", b"\0"),
)


def archive(rng: random.Random, folder: Path) -> list[str]:
    """An archive of the bundle, for a device that has it already."""
    members = _members(folder / BUNDLE, rng)
    if rng.random() < 0.6:
        _damage(rng, members)
    content = _tar(rng, members)
    compress = rng.choice(_COMPRESSIONS)
    if rng.random() < 0.4:
        content = damaged_bytes(rng, content)
    content = compress(content)
    if rng.random() < 0.3:
        content = damaged_bytes(rng, content)
    (folder / "bundle.tar").write_bytes(content)
    shutil.rmtree(folder / BUNDLE)
    keys = rng.choice(([], [], ["--key", "key.pub"]))
    return [INSTALL_PY, "bundle.tar", "--to", DEVICE, *keys, *rng.choice(([], ["--json"]))]


def _members(bundle: Path, rng: random.Random) -> Members:
    top = rng.choice(("", "./", "bundle/", "./a/b/"))
    found: Members = []
    for name in sorted(bundle_files.list_files(bundle)):
        content = (bundle / name).read_bytes()
        info = tarfile.TarInfo(top + name)
        info.size = len(content)
        found.append((info, content))
    return found


def _damage(rng: random.Random, members: Members) -> None:
    """Change one to three members."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        _CHANGES[rng.choice(sorted(_CHANGES))](rng, members)


def _renamed(rng: random.Random, members: Members) -> None:
    info, _ = rng.choice(members)
    info.name = rng.choice((*_NAMES, *map(str, NASTY)))


def _retyped(rng: random.Random, members: Members) -> None:
    info, _ = rng.choice(members)
    info.type, info.linkname = rng.choice(_TYPES), rng.choice((*_NAMES, "bundle/run.py", "bundle/manifest.json"))


def _resized(rng: random.Random, members: Members) -> None:
    info, _ = rng.choice(members)
    info.size = rng.choice((0, 1, 2**31, 2**32, 2**33 - 1, 2**62, info.size + 1, info.size + 512))


def _described(rng: random.Random, members: Members) -> None:
    """Headers beside the header, which tell of the same."""
    info, _ = rng.choice(members)
    key = rng.choice(
        ("size", "path", "linkpath", "mtime", "GNU.sparse.map", "GNU.sparse.size", "GNU.sparse.major", "x")
    )
    info.pax_headers = {key: rng.choice((*map(str, NASTY), "1,2,3", "-1", "9" * 30, "../evil"))}


def _filled(rng: random.Random, members: Members) -> None:
    at = rng.randrange(len(members))
    info, content = members[at]
    content = damaged_bytes(rng, content)
    info.size = len(content)
    members[at] = (info, content)


def _removed(rng: random.Random, members: Members) -> None:
    if len(members) > 1:
        del members[rng.randrange(len(members))]


def _added(rng: random.Random, members: Members) -> None:
    """One, the same again, or very many."""
    info, content = rng.choice(members)
    for number in range(rng.choice((1, 1, 3000))):
        other = tarfile.TarInfo(rng.choice((info.name, f"{info.name}{number}", f"x{number}/manifest.json")))
        other.size = len(content) if number == 0 else 0
        members.append((other, content if number == 0 else b""))


_CHANGES: MappingProxyType[str, Callable[[random.Random, Members], None]] = MappingProxyType(
    {each.__name__: each for each in (_renamed, _retyped, _resized, _described, _filled, _removed, _added)}
)


def _tar(rng: random.Random, members: Members) -> bytes:
    """Return the archive; a member that the format cannot have is left out."""
    kind, buffer = rng.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT)), io.BytesIO()
    for info, content in members:
        try:
            header = info.tobuf(kind, "utf-8", "surrogateescape")
        except (ValueError, OverflowError):
            continue
        buffer.write(header + content + b"\0" * (-len(content) % tarfile.BLOCKSIZE))
    buffer.write(b"\0" * rng.choice((0, 512, 1024, tarfile.RECORDSIZE)))
    return buffer.getvalue()
